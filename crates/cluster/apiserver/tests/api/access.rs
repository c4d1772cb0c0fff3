//! Who may do what: RBAC, tokens, nodes, impersonation, escalation, reviews.

use apiserver::Identity;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, PODS, config_map, pod};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";

fn ann() -> Identity {
    Identity::new("ann", Vec::<String>::new())
}

impl Cluster {
    async fn as_user(&self, user: Identity, method: Method, uri: &str, body: Value) -> crate::cluster::Answer {
        self.call_as(user, method, uri, "application/json", body).await
    }

    async fn bind(&self, role: &str, user: &str) {
        let subject = json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user});
        self.create(
            BINDINGS,
            json!({"metadata": {"name": format!("{role}-{user}")}, "subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}}),
        )
        .await;
        // Roles reach the authoriser through a watch.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn denials_are_worded_as_kubernetes_words_them() {
    let cluster = Cluster::start().await;
    for (method, uri, message) in [
        (
            Method::GET,
            PODS,
            "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ),
        (
            Method::GET,
            "/api/v1/nodes/n",
            "nodes \"n\" is forbidden: User \"ann\" cannot get resource \"nodes\" in API group \"\" at the cluster scope",
        ),
        (
            Method::POST,
            "/apis/apps/v1/namespaces/a/deployments",
            "deployments.apps is forbidden: User \"ann\" cannot create resource \"deployments\" in API group \"apps\" in the namespace \"a\"",
        ),
        (
            Method::GET,
            "/api/v1/namespaces/a/pods/p/log",
            "pods \"p\" is forbidden: User \"ann\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"a\"",
        ),
        (Method::GET, "/metrics", "forbidden: User \"ann\" cannot get path \"/metrics\""),
    ] {
        cluster.as_user(ann(), method, uri, Value::Null).await.fails(403, "Forbidden", message);
    }
}

#[tokio::test]
async fn strangers_learn_the_version_and_the_health_and_no_more() {
    let cluster = Cluster::start().await;
    for (uri, code) in [
        ("/version", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/api", 403),
        ("/apis", 403),
        (PODS, 403),
        ("/openapi/v2", 403),
    ] {
        assert_eq!(cluster.as_user(Identity::anonymous(), Method::GET, uri, Value::Null).await.code, code, "{uri}");
    }
    assert_eq!(cluster.as_user(ann(), Method::GET, "/api", Value::Null).await.code, 200);
}

#[tokio::test]
async fn a_binding_grants_in_its_namespace_until_it_is_deleted() {
    let cluster = Cluster::start().await;
    cluster.bind("view", "ann").await;
    assert_eq!(cluster.as_user(ann(), Method::GET, PODS, Value::Null).await.code, 200);
    assert_eq!(cluster.as_user(ann(), Method::GET, "/api/v1/namespaces/kube-system/pods", Value::Null).await.code, 403);
    assert_eq!(cluster.as_user(ann(), Method::GET, "/api/v1/namespaces/default/secrets", Value::Null).await.code, 403);
    assert_eq!(cluster.as_user(ann(), Method::POST, CONFIG_MAPS, config_map("a")).await.code, 403);
    cluster.delete(&format!("{BINDINGS}/view-ann")).await.ok();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(cluster.as_user(ann(), Method::GET, PODS, Value::Null).await.code, 403);
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let cluster = Cluster::start().await;
    cluster.bind("admin", "ann").await;
    let role = |resource: &str| json!({"metadata": {"name": format!("r-{resource}")}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]});
    cluster.as_user(ann(), Method::POST, ROLES, role("pods")).await.ok();
    let more = cluster.as_user(ann(), Method::POST, ROLES, role("nodes")).await;
    assert_eq!(more.code, 403);
    assert!(
        more.body["message"]
            .as_str()
            .expect("message")
            .contains("attempting to grant RBAC permissions not currently held"),
        "{}",
        more.body
    );
    let everything = json!({"metadata": {"name": "all"}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "ann"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    assert_eq!(cluster.as_user(ann(), Method::POST, BINDINGS, everything).await.code, 403);
}

#[tokio::test]
async fn impersonation_needs_a_permission_of_its_own() {
    let cluster = Cluster::start().await;
    let whoami = |user: Identity| {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
        let request = Request::builder().method(Method::POST).uri("/apis/authentication.k8s.io/v1/selfsubjectreviews");
        let request = request.header("impersonate-user", "bob").header("impersonate-group", "team").body(body.into());
        cluster.send(user, request.expect("request"))
    };
    let denied = whoami(ann()).await;
    assert_eq!(denied.status(), 403);
    let allowed = whoami(crate::cluster::admin()).await;
    let review: Value = serde_json::from_slice(&allowed.into_body().collect().await).expect("JSON");
    assert_eq!(review["status"]["userInfo"], json!({"username": "bob", "groups": ["team", "system:authenticated"]}));
}

#[tokio::test]
async fn access_reviews_answer_what_the_authoriser_would() {
    let cluster = Cluster::start().await;
    cluster.bind("view", "ann").await;
    let allowed = async |user: &str, verb: &str, resource: &str| {
        let spec =
            json!({"user": user, "resourceAttributes": {"namespace": "default", "verb": verb, "resource": resource}});
        let review = cluster.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", json!({"spec": spec})).await;
        review["status"]["allowed"] == true
    };
    assert!(allowed("ann", "list", "pods").await);
    assert!(!allowed("ann", "delete", "pods").await);
    assert!(!allowed("bob", "list", "pods").await);
    let own = json!({"spec": {"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "pods"}}});
    let own =
        cluster.as_user(ann(), Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", own).await.ok();
    assert_eq!(own["status"]["allowed"], true);
    let rules = cluster
        .as_user(
            ann(),
            Method::POST,
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            json!({"spec": {"namespace": "default"}}),
        )
        .await
        .ok();
    assert!(!rules["status"]["resourceRules"].as_array().expect("rules").is_empty());
}

#[tokio::test]
async fn a_pods_token_is_refused_once_the_pod_is_gone() {
    let cluster = Cluster::start().await;
    let made = cluster.create(PODS, pod("a")).await;
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "a", "uid": made["metadata"]["uid"]});
    let request = json!({"spec": {"expirationSeconds": 600, "boundObjectRef": bound}});
    let granted = cluster.create("/api/v1/namespaces/default/serviceaccounts/default/token", request).await;
    let token = granted["status"]["token"].as_str().expect("a token").to_owned();
    let review = async |token: &str| {
        let review = json!({"spec": {"token": token}});
        cluster.create("/apis/authentication.k8s.io/v1/tokenreviews", review).await["status"].clone()
    };
    let status = review(&token).await;
    assert_eq!(
        (&status["authenticated"], &status["user"]["username"]),
        (&json!(true), &json!("system:serviceaccount:default:default"))
    );
    let mut forged = token.clone();
    forged.replace_range(token.len() - 4.., "AAAA");
    assert!(review(&forged).await.get("authenticated").is_none());
    cluster.delete(&format!("{PODS}/a")).await.ok();
    assert!(review(&token).await.get("authenticated").is_none());
    let short = cluster
        .call(
            Method::POST,
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            json!({"spec": {"expirationSeconds": 60}}),
        )
        .await;
    assert_eq!(short.code, 422);
}

#[tokio::test]
async fn a_node_sees_only_what_its_own_pods_need() {
    let cluster = Cluster::start().await;
    let node = || Identity::node("n1");
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["needed", "other"] {
        cluster.create(secrets, json!({"metadata": {"name": name}, "stringData": {"a": "b"}})).await;
    }
    let mut with_secret = pod("a");
    with_secret["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "needed"}}]);
    cluster.create(PODS, with_secret).await;
    cluster.create(&format!("{PODS}/a/binding"), json!({"target": {"name": "n1"}})).await;
    for (method, uri, code) in [
        (Method::GET, format!("{secrets}/needed"), 200),
        (Method::GET, format!("{secrets}/other"), 403),
        (Method::GET, secrets.to_owned(), 403),
        (Method::GET, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1".to_owned(), 200),
        (Method::GET, "/api/v1/pods".to_owned(), 403),
        (Method::DELETE, format!("{PODS}/a?gracePeriodSeconds=0"), 200),
    ] {
        assert_eq!(cluster.as_user(node(), method, &uri, Value::Null).await.code, code, "{uri}");
    }
    let own = cluster.as_user(node(), Method::POST, "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    own.ok();
    assert_eq!(
        cluster.as_user(node(), Method::POST, "/api/v1/nodes", json!({"metadata": {"name": "n2"}})).await.code,
        403
    );
}
