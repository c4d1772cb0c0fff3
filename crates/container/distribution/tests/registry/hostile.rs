//! Our client and registries that break off, lie, refuse, or say nothing: a clear error in time, and nothing half-made.

use std::time::{Duration, Instant};

use distribution::client::{Hosts, Mirror, Patience};
use oci::Digest;

use crate::machine::{Machine, recorder, reference};
use crate::proxy::{Act, Proxy};

/// As the default, in a hurry.
fn impatient() -> Hosts {
    let ms = Duration::from_millis;
    let patience = Patience { connect: ms(500), answer: ms(700), idle: ms(700), attempts: 3, backoff: ms(20) };
    Hosts { patience, ..Hosts::default() }
}

/// A registry with an image of which the layer has `size` bytes of content; the layer's digest.
async fn origin(size: usize) -> (Machine, std::net::SocketAddr, Digest) {
    let here = Machine::new();
    let address = here.serve().await;
    let name = reference(&format!("{address}/app:1"));
    let id = here.import_sized(&name.to_string(), size);
    here.client.push(&name, None, recorder().0).await.unwrap();
    let layer = here.content.images().get(&id).unwrap().layers[0].digest;
    (here, address, layer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let (_here, address, layer) = origin(1_000_000).await;
    let wanted = format!("GET /v2/app/blobs/{layer}");
    let rule = {
        let wanted = wanted.clone();
        move |line: &str, before| if line == wanted && before < 4 { Act::BreakAfter(200_000) } else { Act::Forward }
    };
    let proxy = Proxy::start(address, rule).await;
    let there = Machine::with(impatient());
    there.client.pull(&reference(&format!("{}/app:1", proxy.address)), None, None, recorder().0).await.unwrap();
    let seen = proxy.seen.lock().unwrap().clone();
    let asked: Vec<&str> = seen.iter().filter_map(|line| line.strip_prefix(&wanted)).map(str::trim).collect();
    // Four breaks are more than three attempts: what brings bytes is no failure.
    assert_eq!(asked, ["", "bytes=200000-", "bytes=400000-", "bytes=600000-", "bytes=800000-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_content_never_become_visible_and_the_next_pull_from_an_honest_registry_works() {
    let (here, address, layer) = origin(1000).await;
    let length = here.content.size(&layer).unwrap() as usize;
    let there = Machine::with(impatient());
    for (lie, words) in [
        (Act::Replace(vec![7; length]), "digest mismatch"),
        (Act::Replace(vec![7; length + 1]), "size mismatch"),
        (Act::Replace(vec![7; length - 1]), "size mismatch"),
        (Act::Replace(Vec::new()), "size mismatch"),
        (Act::Answer(206, vec![("content-range", format!("bytes 5-{}/{length}", length - 1))], "x"), "another range"),
        (Act::Answer(404, vec![], "gone"), "404 Not Found"),
        (Act::Answer(200, vec![("location", "http://[bad".into())], ""), "size mismatch"),
    ] {
        let shown = format!("{lie:?}").chars().take(40).collect::<String>();
        let wanted = format!("GET /v2/app/blobs/{layer}");
        let proxy = Proxy::start(address, move |line, _| if line == wanted { lie.clone() } else { Act::Forward }).await;
        let name = reference(&format!("{}/app:1", proxy.address));
        let error = there.client.pull(&name, None, None, recorder().0).await.unwrap_err().to_string();
        assert!(error.contains(words), "{shown}: {error}");
        assert!(!there.content.contains(&layer), "{shown}");
        assert!(there.content.images().list().is_empty(), "{shown}");
    }
    there.client.pull(&reference(&format!("{address}/app:1")), None, None, recorder().0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_are_garbage_wrong_or_huge_are_refused() {
    let (_here, address, _) = origin(10).await;
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":3,"platform":{{"os":"plan9","architecture":"mips"}}}}]}}"#,
        Digest::of(b"x")
    );
    let loops = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":3,"platform":{{"os":"linux","architecture":"{}"}}}}]}}"#,
        Digest::of(b"x"),
        if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
    );
    for (body, words) in [
        (b"<html>\xff".to_vec(), "not valid JSON"),
        (br#"{"schemaVersion":2}"#.to_vec(), "neither"),
        (br#"{"schemaVersion":2,"config":{},"manifests":[]}"#.to_vec(), "both"),
        (br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(), "schema 1"),
        (vec![b' '; 5 << 20], "larger than"),
        (index.into_bytes(), "no matching manifest"),
        (loops.into_bytes(), "not found"),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let rule = move |line: &str, _| {
            if line.contains("manifests/1") { Act::Replace(body.clone()) } else { Act::Forward }
        };
        let proxy = Proxy::start(address, rule).await;
        let there = Machine::with(impatient());
        let error = there.client.pull(&reference(&format!("{}/app:1", proxy.address)), None, None, recorder().0).await;
        let error = error.unwrap_err().to_string();
        // The declared media type is the registry's, so a body of another kind may be refused for that.
        assert!(error.contains(words) || error.contains("does not match"), "{shown}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_asked_again_and_one_that_limits_us_is_quoted() {
    let (_here, address, _) = origin(10).await;
    let busy = |line: &str, before| match before {
        0 if line.starts_with("GET /v2/app") => Act::Answer(503, vec![], "later"),
        1 if line.starts_with("GET /v2/app") => Act::Answer(429, vec![("retry-after", "0".into())], ""),
        _ => Act::Forward,
    };
    let proxy = Proxy::start(address, busy).await;
    let there = Machine::with(impatient());
    there.client.pull(&reference(&format!("{}/app:1", proxy.address)), None, None, recorder().0).await.unwrap();

    let limits = |_: &str, _| {
        let headers = vec![
            ("ratelimit-limit", "100;w=21600".to_owned()),
            ("ratelimit-remaining", "0;w=21600".to_owned()),
            ("retry-after", "3600".to_owned()),
        ];
        let message = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
        Act::Answer(429, headers, message)
    };
    let proxy = Proxy::start(address, limits).await;
    let began = Instant::now();
    let error = there.client.pull(&reference(&format!("{}/app:1", proxy.address)), None, None, recorder().0).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "toomanyrequests: You have reached your pull rate limit. (limit 100;w=21600, remaining 0;w=21600, again in 3600 s)"
    );
    assert!(began.elapsed() < Duration::from_secs(5), "an hour is not waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_never_answers_is_given_up_in_time() {
    let (_here, address, layer) = origin(10).await;
    let there = Machine::with(impatient());
    for silent in ["/v2/app/manifests/1".to_owned(), format!("/v2/app/blobs/{layer}")] {
        let line = format!("GET {silent}");
        let rule = move |seen: &str, _| if seen == line { Act::Silence } else { Act::Forward };
        let proxy = Proxy::start(address, rule).await;
        let began = Instant::now();
        let error = there.client.pull(&reference(&format!("{}/app:1", proxy.address)), None, None, recorder().0).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("Client.Timeout exceeded while awaiting headers"), "{silent}: {error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{silent}");
    }
    // Takes connections and says nothing at all.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf = listener.local_addr().unwrap();
    let began = Instant::now();
    let error = there.client.pull(&reference(&format!("{deaf}/app:1")), None, None, recorder().0).await.unwrap_err();
    assert!(error.to_string().contains("Client.Timeout"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_survives_a_registry_that_breaks_off_uploads() {
    let origin = Machine::new();
    let address = origin.serve().await;
    let puts = std::sync::atomic::AtomicUsize::new(0);
    let rule = move |line: &str, before: usize| match line {
        _ if line.starts_with("POST /v2/app/blobs/") && before == 0 => Act::Answer(502, vec![], "bad gateway"),
        // Every upload has a location of its own: the first two of them break after all bytes were sent.
        _ if line.starts_with("PUT /v2/app/blobs/") && puts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 => {
            Act::BreakAfter(0)
        }
        _ => Act::Forward,
    };
    let proxy = Proxy::start(address, rule).await;
    let here = Machine::with(impatient());
    let name = reference(&format!("{}/app:1", proxy.address));
    let id = here.import(&name.to_string());
    here.client.push(&name, None, recorder().0).await.unwrap();
    let there = Machine::new();
    assert_eq!(there.client.pull(&reference(&format!("{address}/app:1")), None, None, recorder().0).await.unwrap(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_first_and_passed_over_when_they_fail() {
    let (here, address, _) = origin(10).await;
    let proxy = Proxy::start(address, |_, _| Act::Forward).await;
    let broken = Proxy::start(address, |_, _| Act::Answer(500, vec![], "out of order")).await;
    let mirror = |prefix: &str, at: String| Mirror { prefix: prefix.into(), location: format!("http://{at}") };
    // The registry itself does not exist: what comes, comes from the mirror.
    let mirrors = vec![
        mirror("reg.invalid/team", broken.address.to_string()),
        mirror("reg.invalid/team", proxy.address.to_string()),
    ];
    let there = Machine::with(Hosts { mirrors, ..impatient() });
    let id = there.client.pull(&reference("reg.invalid/team/app:1"), None, None, recorder().0).await.unwrap();
    assert_eq!(here.content.images().list()[0].id, id);
    let image = there.content.images().get(&id).unwrap();
    assert_eq!(image.names, [reference("reg.invalid/team/app:1")], "named as it was asked for");
    assert!(!broken.seen.lock().unwrap().is_empty() && !proxy.seen.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_and_wide_indexes_stop_at_their_limits() {
    let server = crate::server::Server::new().await;
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let index = |digest: &Digest, size: usize, copies: usize| {
        let entry = format!(
            r#"{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
        );
        let media_type = "application/vnd.oci.image.index.v1+json";
        format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{}]}}"#, vec![entry; copies].join(","))
    };
    let mut text = server.push_image("a", "0", b"layer").await;
    for depth in 1..=6 {
        text = index(&Digest::of(text.as_bytes()), text.len(), 1);
        assert_eq!(server.push_manifest("a", &depth.to_string(), &text).await.status, 201);
    }
    let there = Machine::with(impatient());
    let error = there.client.pull(&reference(&format!("{}/a:6", server.address)), None, None, recorder().0).await;
    assert_eq!(error.unwrap_err().to_string(), "indexes are nested more than 3 deep");
    let wide = index(&Digest::of(text.as_bytes()), text.len(), 1001);
    let refused = server.push_manifest("a", "wide", &wide).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "MANIFEST_INVALID"));
    let fits = index(&Digest::of(text.as_bytes()), text.len(), 1000);
    assert_eq!(server.push_manifest("a", "fits", &fits).await.status, 201);
}
