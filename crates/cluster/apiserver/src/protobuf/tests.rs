use serde_json::json;

use super::*;

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).expect("seven bits"));
    bytes
}

fn field(number: usize, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len()), bytes.to_vec()].concat()
}

fn number(field: usize, value: usize) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn body(api_version: &str, kind: &str, object: &[Vec<u8>]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &type_meta), field(2, &object.concat())].concat()
}

#[test]
fn a_config_map_is_read_with_its_maps_and_bytes() {
    let metadata = [field(1, b"a"), field(2, b""), field(8, &[])].concat();
    let entry = |key: &[u8], value: &[u8]| [field(1, key), field(2, value)].concat();
    let object = [
        field(1, &metadata),
        field(2, &entry(b"k", b"v")),
        field(2, &entry(b"e", b"")),
        field(3, &entry(b"b", &[0, 255])),
        number(4, 0),
    ];
    assert_eq!(
        decode(&body("v1", "ConfigMap", &object)),
        Ok(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
            "data": {"k": "v", "e": ""}, "binaryData": {"b": "AP8="}, "immutable": false,
        }))
    );
}

#[test]
fn inline_messages_quantities_and_ports_are_written_as_json_writes_them() {
    let volume = [field(1, b"v"), field(2, &field(2, &[]))].concat();
    let resources = field(1, &[field(1, b"cpu"), field(2, &field(1, b"500m"))].concat());
    let probe = field(1, &field(2, &[field(1, b"/"), field(2, &[number(1, 0), number(2, 80)].concat())].concat()));
    let container = [field(1, b"c"), field(8, &resources), field(10, &probe), number(18, 0)].concat();
    let spec = [field(1, &volume), field(2, &container), number(4, 0)].concat();
    let pod = decode(&body("v1", "Pod", &[field(2, &spec)])).expect("a pod");
    assert_eq!(
        pod["spec"],
        json!({
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "500m"}}, "livenessProbe": {"httpGet": {"path": "/", "port": 80}}}],
            "terminationGracePeriodSeconds": 0,
        })
    );
}

#[test]
fn kinds_of_all_groups_are_found() {
    for (api_version, kind) in [
        ("v1", "Secret"),
        ("v1", "Namespace"),
        ("apps/v1", "Deployment"),
        ("batch/v1", "Job"),
        ("policy/v1", "Eviction"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview"),
        ("v1", "DeleteOptions"),
        ("authentication.k8s.io/v1", "TokenRequest"),
        ("policy/v1", "DeleteOptions"),
        ("networking.k8s.io/v1", "Ingress"),
    ] {
        assert!(message_of(api_version, kind).is_some(), "{api_version} {kind}");
    }
}

#[test]
fn every_message_that_the_table_names_is_in_it() {
    for (name, message) in messages() {
        for known in message.values() {
            if let Shape::Message(inner) | Shape::Inline(inner) = known.shape {
                assert!(messages().contains_key(inner), "{name} {}: {inner}", known.name);
            }
        }
    }
}

#[test]
fn damaged_bodies_are_refused_without_harm() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
    let whole = body("v1", "ConfigMap", &[field(1, &field(1, b"a"))]);
    for length in MAGIC.len() + 1..whole.len() {
        // Cut between two fields it is a smaller object, cut elsewhere an error; never more than what was sent.
        assert_ne!(decode(&whole[..length]), decode(&whole), "{length}");
    }
    let unknown = decode(&body("x/v1", "Y", &[]));
    assert_eq!(unknown, Err(ProtobufError::Kind { api_version: "x/v1".into(), kind: "Y".into() }));
    assert!(decode(&[MAGIC, &[0xff; 64]].concat()).is_err());
    // A schema that contains itself, nested without end.
    let mut nested = Vec::new();
    for _ in 0..200 {
        nested = field(1, &nested);
    }
    decode(&body("v1", "Pod", &[nested])).ok();
}

#[test]
fn what_is_written_reads_back_as_it_was() {
    let meta = json!({
        "name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7", "generation": 2,
        "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"x": "y"}, "finalizers": ["f"],
        "managedFields": [{"manager": "m", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}}],
    });
    for object in [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"k": "v"}, "binaryData": {"b": "AP8="}, "immutable": false}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "500m"}}, "livenessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 10},
                "securityContext": {"runAsUser": 0, "privileged": false}}],
            "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": -5}],
        }, "status": {"phase": "Running", "startTime": "2026-01-02T03:04:05Z", "podIPs": [{"ip": "10.0.0.1"}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
            "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
        }}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": {
            "holderIdentity": "h", "renewTime": "2026-01-02T03:04:05.000006Z", "leaseDurationSeconds": 40}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
    ] {
        let mut read = decode(&encode::object(&object).expect("a known kind")).expect("our own bytes");
        // Go's zero of a struct that is no pointer is written as nothing and read as an empty object.
        read.as_object_mut().expect("an object").retain(|key, value| object.get(key).is_some() || value != &json!({}));
        assert_eq!(read, object);
    }
    assert!(encode::object(&json!({"apiVersion": "example.com/v1", "kind": "Thing"})).is_none());
}

#[test]
fn a_watch_event_is_framed_by_its_length_and_carries_an_envelope() {
    let object = encode::object(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})).unwrap();
    let frame = encode::event("ADDED", &object);
    let (length, event) = frame.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, event.len());
    let mut fields = Reader::new(event);
    assert_eq!(fields.next(), Some(Ok((1, Field::Bytes(b"ADDED")))));
    let Some(Ok((2, Field::Bytes(raw)))) = fields.next() else { panic!("an object") };
    let Some(Ok((1, Field::Bytes(raw)))) = Reader::new(raw).next() else { panic!("raw bytes") };
    assert_eq!(decode(raw).unwrap()["metadata"]["name"], "a");
}
