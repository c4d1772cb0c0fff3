//! Who may do what: htpasswd, tokens, rights by repository, anonymous pulls, read-only mode; collection and metrics.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use distribution::client::{Auth, Hosts};
use distribution::registry::{Config, Login, Rights, Scheme};
use oci::Digest;

use crate::machine::{Machine, recorder, reference};
use crate::server::Server;

const RIGHTS: &str = "alice team/** *\nbob team/shared pull\nanonymous public/** pull\nalice public/** *\n";

fn accounts(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("htpasswd");
    let line = |name: &str, password: &str| format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap());
    std::fs::write(&path, line("alice", "a-secret") + &line("bob", "b-secret")).unwrap();
    path
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
}

fn auth(name: &str, password: &str) -> Auth {
    Auth { username: name.into(), password: password.into(), ..Auth::default() }
}

async fn guarded(scheme: Scheme, rights: &str) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let htpasswd = accounts(&dir);
    let login = Login { htpasswd: &htpasswd, rights: Rights::parse(rights, false).unwrap(), scheme };
    let content = content::Store::open(dir.path()).unwrap();
    Server::on(dir, content, Config::default(), Some(login)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_accounts_have_the_rights_that_the_file_gives_them_and_no_other() {
    let mut server = guarded(Scheme::Basic, RIGHTS).await;
    let (alice, bob, wrong) = (basic("alice", "a-secret"), basic("bob", "b-secret"), basic("bob", "a-secret"));
    server.login(Some(&alice));
    for repository in ["team/app", "team/shared", "public/app"] {
        server.push_image(repository, "1", repository.as_bytes()).await;
    }
    let upload = |repository: &str| format!("/v2/{repository}/blobs/uploads/");
    for (who, method, path, status) in [
        (None, "GET", "/v2/".to_owned(), 401),
        (Some(&wrong), "GET", "/v2/".into(), 401),
        (Some(&alice), "GET", "/v2/".into(), 200),
        (None, "GET", "/v2/public/app/manifests/1".into(), 200),
        (None, "GET", "/v2/team/app/manifests/1".into(), 401),
        (None, "POST", upload("public/app"), 401),
        (Some(&wrong), "GET", "/v2/public/app/manifests/1".into(), 401),
        (Some(&bob), "GET", "/v2/public/app/manifests/1".into(), 200),
        (Some(&bob), "GET", "/v2/team/shared/manifests/1".into(), 200),
        (Some(&bob), "GET", "/v2/team/app/manifests/1".into(), 403),
        (Some(&bob), "GET", "/v2/team/app/tags/list".into(), 403),
        (Some(&bob), "POST", upload("team/shared"), 403),
        (Some(&bob), "DELETE", "/v2/team/shared/manifests/1".into(), 403),
        (Some(&alice), "POST", upload("elsewhere"), 403),
        (Some(&alice), "DELETE", "/v2/team/app/manifests/1".into(), 202),
    ] {
        server.login(who.map(String::as_str));
        let answer = server.send(method, &path, &[], "").await;
        assert_eq!(answer.status, status, "{who:?} {method} {path}");
        match status {
            401 => assert_eq!(answer.header("www-authenticate"), "Basic realm=\"gantry\""),
            403 => assert_eq!(answer.code(), "DENIED"),
            _ => {}
        }
    }
    server.login(Some(&bob));
    let catalogue = server.get("/v2/_catalog").await.json();
    assert_eq!(catalogue["repositories"], serde_json::json!(["public/app", "team/shared"]), "what he may see");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_needs_rights_on_both_sides() {
    let mut server = guarded(Scheme::Basic, "alice ** *\nbob mine pull,push\nbob shared pull\n").await;
    server.login(Some(&basic("alice", "a-secret")));
    let secret = server.push_blob("secret", b"secret").await;
    let shared = server.push_blob("shared", b"shared").await;
    server.login(Some(&basic("bob", "b-secret")));
    let mount = async |to: &str, digest: &Digest, from: &str| {
        server.send("POST", &format!("/v2/{to}/blobs/uploads/?mount={digest}{from}"), &[], "").await.status
    };
    assert_eq!(mount("mine", &secret, "&from=secret").await, 202, "he must bring the bytes");
    assert_eq!(mount("mine", &secret, "").await, 202, "nor without a source, though this is loopback");
    assert_eq!(mount("mine", &secret, "&from=shared").await, 202);
    assert_eq!(server.get(&format!("/v2/mine/blobs/{secret}")).await.status, 404);
    assert_eq!(mount("shared", &secret, "&from=mine").await, 403);
    assert_eq!(mount("mine", &shared, "&from=shared").await, 201);
    assert_eq!(server.get(&format!("/v2/mine/blobs/{shared}")).await.body, "shared");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_given_for_what_rights_allow_and_open_nothing_else() {
    let mut server = guarded(Scheme::Token, RIGHTS).await;
    let refused = server.get("/v2/team/app/manifests/1").await;
    let expected = format!(
        "Bearer realm=\"http://{}/token\",service=\"gantry\",scope=\"repository:team/app:pull\"",
        server.address
    );
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, expected.as_str()));
    let token = async |server: &mut Server, basic: Option<&str>, scope: &str| {
        server.login(basic);
        let answer = server.get(&format!("/token?service=gantry&scope={}", scope.replace(':', "%3A"))).await;
        let token = answer.json()["token"].as_str().map(|t| format!("Bearer {t}"));
        (answer.status, token)
    };
    let (alice, bob) = (basic("alice", "a-secret"), basic("bob", "b-secret"));
    let (status, push) = token(&mut server, Some(&alice), "repository:team/app:pull,push").await;
    assert_eq!(status, 200);
    server.login(push.as_deref());
    server.push_image("team/app", "1", b"layer").await;
    assert_eq!(server.get("/v2/").await.status, 200);
    let elsewhere = server.send("POST", "/v2/team/other/blobs/uploads/", &[], "").await;
    assert_eq!(elsewhere.status, 401);
    assert!(elsewhere.header("www-authenticate").ends_with("error=\"insufficient_scope\""));
    assert_eq!(server.send("DELETE", "/v2/team/app/manifests/1", &[], "").await.status, 401, "not asked for");
    // Bob gets a token, but not for this.
    let (status, none) = token(&mut server, Some(&bob), "repository:team/app:pull,push").await;
    assert_eq!(status, 200);
    server.login(none.as_deref());
    assert_eq!(server.get("/v2/team/app/manifests/1").await.status, 401);
    assert_eq!(token(&mut server, Some(&basic("bob", "x")), "repository:team/app:pull").await.0, 401);
    server.login(Some("Bearer forged.token.here"));
    assert_eq!(server.get("/v2/").await.status, 401);
    // Nobody in particular may pull what is public.
    let (_, anonymous) = token(&mut server, None, "repository:public/x:pull,push").await;
    server.login(anonymous.as_deref());
    assert_eq!(server.get("/v2/public/x/manifests/1").await.status, 404);
    assert_eq!(server.send("POST", "/v2/public/x/blobs/uploads/", &[], "").await.status, 401);
    // OAuth2's way, with a token that outlives the password's use.
    server.login(None);
    let form = "grant_type=password&username=alice&password=a-secret&service=gantry&access_type=offline";
    let refresh = server.send("POST", "/token", &[], form).await.json()["refresh_token"].as_str().unwrap().to_owned();
    let form = format!("grant_type=refresh_token&refresh_token={refresh}&scope=repository:team/app:pull");
    let granted = server.send("POST", "/token", &[], form).await.json()["access_token"].as_str().unwrap().to_owned();
    server.login(Some(&format!("Bearer {granted}")));
    assert_eq!(server.get("/v2/team/app/manifests/1").await.status, 200);
    server.login(Some(&format!("Bearer {refresh}")));
    assert_eq!(server.get("/v2/team/app/manifests/1").await.status, 401, "a refresh token opens nothing itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_logs_in_pushes_and_pulls_with_both_schemes_and_says_what_is_denied() {
    for scheme in [Scheme::Basic, Scheme::Token] {
        let server = guarded(scheme, RIGHTS).await;
        let here = Machine::new();
        let registry = server.address.to_string();
        let name = |repository: &str| reference(&format!("{registry}/{repository}:1"));
        let (alice, bob) = (auth("alice", "a-secret"), auth("bob", "b-secret"));
        here.client.login(&registry, &alice).await.unwrap();
        let error = here.client.login(&registry, &auth("alice", "nope")).await.unwrap_err().to_string();
        assert!(error.contains("401") || error.contains("incorrect username or password"), "{error}");
        let id = here.import(&name("team/app").to_string());
        here.content.images().tag(&id, &name("public/app")).unwrap();
        for repository in ["team/app", "public/app"] {
            here.client.push(&name(repository), Some(&alice), recorder().0).await.unwrap();
        }
        let error = here.client.push(&name("team/app"), Some(&bob), recorder().0).await.unwrap_err().to_string();
        assert!(error.contains("denied: requested access to the resource is denied"), "{scheme:?} {error}");
        let there = Machine::new();
        assert_eq!(there.client.pull(&name("team/app"), None, Some(&alice), recorder().0).await.unwrap(), id);
        let error = there.client.pull(&name("team/app"), None, None, recorder().0).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("pull access denied for {registry}/team/app")), "{scheme:?} {error}");
        assert_eq!(there.client.pull(&name("public/app"), None, None, recorder().0).await.unwrap(), id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_logs_in_with_both_schemes() {
    for scheme in [Scheme::Basic, Scheme::Token] {
        let server = guarded(scheme, RIGHTS).await;
        let here = Machine::new();
        let name = format!("{}/team/app:1", server.address);
        here.import(&name);
        here.client.push(&reference(&name), Some(&auth("alice", "a-secret")), recorder().0).await.unwrap();
        let run = async |arguments: Vec<String>| {
            let run = move || {
                Command::new("skopeo").args(["--insecure-policy", "--command-timeout", "20s"]).args(arguments).output()
            };
            tokio::task::spawn_blocking(run).await.unwrap().unwrap()
        };
        let copy = |creds: &str, to: &str| {
            let (from, to) = (format!("docker://{name}"), format!("docker://{}/{to}", server.address));
            let words = [
                "copy",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                "--src-creds",
                creds,
                "--dest-creds",
                creds,
                &from,
                &to,
            ];
            words.map(str::to_owned).to_vec()
        };
        let done = run(copy("alice:a-secret", "team/copy:2")).await;
        assert!(done.status.success(), "{scheme:?} {}", String::from_utf8_lossy(&done.stderr));
        for (creds, to) in
            [("bob:b-secret", "team/copy:3"), ("alice:wrong", "team/copy:3"), ("alice:a-secret", "other:1")]
        {
            let refused = run(copy(creds, to)).await;
            assert!(!refused.status.success(), "{scheme:?} {creds} {to}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_registry_serves_and_takes_nothing() {
    let first = Server::new().await;
    first.push_image("a", "1", b"layer").await;
    let config = Config { read_only: true, ..Config::default() };
    let server = Server::on(tempfile::tempdir().unwrap(), first.content.clone(), config, None).await;
    assert_eq!(server.get("/v2/a/manifests/1").await.status, 200);
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/"),
        ("PUT", "/v2/a/manifests/2"),
        ("DELETE", "/v2/a/manifests/1"),
        ("PATCH", "/v2/a/blobs/uploads/x"),
    ] {
        let refused = server.send(method, path, &[], "{}").await;
        assert_eq!((refused.status, refused.code().as_str()), (405, "UNSUPPORTED"), "{method}");
    }
    assert_eq!(server.get("/v2/a/manifests/1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_gives_space_back_while_serving_and_spares_what_is_wanted_or_being_pushed() {
    let config = Config { link_grace: Duration::from_millis(600), ..Config::default() };
    let server = Server::with(config, None).await;
    let text = server.push_image("a", "1", b"only of one").await;
    server.push_image("a", "2", b"of the other").await;
    let pushing = server.push_blob("a", b"its manifest comes later").await;
    let digest = Digest::of(text.as_bytes());
    let (gone, kept) = (Digest::of(b"only of one"), Digest::of(b"of the other"));
    assert_eq!(server.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], "").await.status, 202);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while server.has_file(&gone) && std::time::Instant::now() < deadline {
        // As a client does that is about to push its manifest: it asks, and what it is told must hold.
        assert_eq!(server.send("HEAD", &format!("/v2/a/blobs/{pushing}"), &[], "").await.status, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!server.has_file(&gone) && !server.has_file(&digest), "the deleted image's own bytes are given back");
    assert!(server.has_file(&kept) && server.has_file(&pushing));
    assert_eq!(server.get(&format!("/v2/a/blobs/{gone}")).await.status, 404);
    assert_eq!(server.get(&format!("/v2/a/blobs/{kept}")).await.body, "of the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_and_collections_side_by_side_lose_nothing() {
    let server = Server::with(Config { link_grace: Duration::from_secs(60), ..Config::default() }, None).await;
    let registry = server.registry.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = stop.clone();
    let collector = tokio::task::spawn_blocking(move || {
        let mut rounds = 0;
        while !flag.load(std::sync::atomic::Ordering::Relaxed) {
            registry.collect().unwrap();
            rounds += 1;
        }
        rounds
    });
    for i in 0..30 {
        let (repository, layer) = (format!("r{}", i % 3), format!("layer {i}"));
        server.push_image(&repository, &format!("t{i}"), layer.as_bytes()).await;
        assert_eq!(server.get(&format!("/v2/{repository}/blobs/{}", Digest::of(layer.as_bytes()))).await.body, layer);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(collector.await.unwrap() > 1);
    for i in 0..30 {
        assert_eq!(server.get(&format!("/v2/r{}/manifests/t{i}", i % 3)).await.status, 200, "{i}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happened() {
    let server = Server::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.registry.clone().serve_metrics(listener));
    server.push_image("a", "1", b"layer").await;
    server.get("/v2/a/manifests/nope").await;
    let text = server.send("GET", &format!("http://{address}/metrics"), &[], "").await;
    let text = String::from_utf8(text.body.to_vec()).unwrap();
    for line in [
        "gantry_registry_requests_total{method=\"POST\",code=\"2xx\"} 2",
        "gantry_registry_requests_total{method=\"PUT\",code=\"2xx\"} 3",
        "gantry_registry_requests_total{method=\"GET\",code=\"4xx\"} 1",
        "gantry_registry_received_bytes_total 83",
        "gantry_registry_repositories 1",
        "gantry_registry_uploads 0",
        "# TYPE gantry_registry_collections_total counter",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    assert_eq!(server.send("GET", &format!("http://{address}/v2/"), &[], "").await.status, 404);
}

/// A registry with TLS, its authority in `certs.d` of the machine that shall trust it.
#[tokio::test(flavor = "multi_thread")]
async fn tls_is_served_and_trusted_by_certs_d_alone() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["registry.test".to_owned(), "localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Some(distribution::registry::tls::load(&cert, &key).unwrap());
    let server = Server::with(Config { tls, ..Config::default() }, None).await;
    // Loopback needs no trust, and TLS is found out.
    let here = Machine::new();
    let name = format!("localhost:{}/app:1", server.address.port());
    let id = here.import(&name);
    here.client.push(&reference(&name), None, recorder().0).await.unwrap();
    // By a name that is not loopback's, the certificate counts. (The mirror makes the name reach this very port.)
    let host = format!("localhost:{}", server.address.port());
    let trusting = |authority: Option<&str>| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(&host)).unwrap();
        if let Some(authority) = authority {
            std::fs::write(dir.path().join(&host).join("ca.crt"), authority).unwrap();
        }
        let machine = Machine::with(Hosts { certificate_dirs: vec![dir.path().to_owned()], ..Hosts::default() });
        (dir, machine)
    };
    let (_dir, there) = trusting(Some(&made.cert.pem()));
    assert_eq!(there.client.pull(&reference(&name), None, None, recorder().0).await.unwrap(), id);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (_dir, there) = trusting(Some(&other.cert.pem()));
    let error = there.client.pull(&reference(&name), None, None, recorder().0).await.unwrap_err().to_string();
    assert!(error.contains(&host), "{error}");
    assert!(distribution::registry::tls::load(&key, &key).is_err());
}
