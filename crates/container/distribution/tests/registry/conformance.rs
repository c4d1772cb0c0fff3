//! The registry against the OCI distribution specification 1.1, over HTTP, requirement by requirement.

use oci::Digest;

use crate::server::{Server, manifest};

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_taken_in_order_only_and_an_upload_says_how_far_it_is() {
    let server = Server::new().await;
    let bytes: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let digest = Digest::of(&bytes);
    let started = server.send("POST", "/v2/a/blobs/uploads/", &[("content-length", "0")], "").await;
    assert_eq!((started.status, started.header("range")), (202, "0-0"));
    let location = started.header("location").to_owned();
    let patch = async |from: usize, to: usize| {
        let range = format!("{from}-{}", to - 1);
        server.send("PATCH", &location, &[("content-range", &range)], bytes[from..to].to_vec()).await
    };
    let first = patch(0, 100_000).await;
    assert_eq!((first.status, first.header("range")), (202, "0-99999"));
    assert_eq!(first.header("location"), location);
    for (from, to) in [(200_000, 300_000), (0, 100_000), (99_999, 200_000)] {
        let refused = patch(from, to).await;
        assert_eq!((refused.status, refused.header("range")), (416, "0-99999"), "{from}-{to}");
    }
    // A range that does not say what the body is.
    let lying = server.send("PATCH", &location, &[("content-range", "100000-100009")], vec![0; 20]).await;
    assert_eq!(lying.status, 416);
    let status = server.get(&location).await;
    assert_eq!((status.status, status.header("range")), (204, "0-99999"));
    assert_eq!(patch(100_000, 200_000).await.status, 202);
    let wrong = format!("{location}?digest={digest}");
    let last = server.send("PUT", &wrong, &[("content-range", "0-99999")], bytes[200_000..].to_vec()).await;
    assert_eq!(last.status, 416, "the last chunk has its order, too");
    let last = server.send("PUT", &wrong, &[("content-range", "200000-299999")], bytes[200_000..].to_vec()).await;
    assert_eq!((last.status, last.header("docker-content-digest")), (201, digest.to_string().as_str()));
    assert_eq!(server.get(last.header("location")).await.body, bytes);
    assert_eq!(server.get(&location).await.status, 404, "a finished upload is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_in_one_piece_by_post_alone_and_by_post_and_put_and_bad_digests_are_refused() {
    let server = Server::new().await;
    let digest = Digest::of(b"whole");
    let posted = server.send("POST", &format!("/v2/a/b/blobs/uploads/?digest={digest}"), &[], "whole").await;
    assert_eq!((posted.status, posted.header("location")), (201, format!("/v2/a/b/blobs/{digest}").as_str()));
    server.push_blob("a/b", b"other").await;
    let escaped = digest.to_string().replace(':', "%3A");
    assert_eq!(server.get(&format!("/v2/a/b/blobs/{escaped}")).await.body, "whole");
    for (query, code) in [(Digest::of(b"x").to_string(), "DIGEST_INVALID"), ("sha256:abc".into(), "DIGEST_INVALID")] {
        let started = server.send("POST", "/v2/a/b/blobs/uploads/", &[], "").await;
        let refused = server.send("PUT", &format!("{}?digest={query}", started.header("location")), &[], "whole").await;
        assert_eq!((refused.status, refused.code().as_str()), (400, code));
    }
    assert!(!server.has_file(&Digest::of(b"x")));
    let nowhere = server.send("PATCH", "/v2/a/b/blobs/uploads/0000", &[], "x").await;
    assert_eq!((nowhere.status, nowhere.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_upload_is_gone_with_its_bytes_and_no_other_repository_can_touch_one() {
    let server = Server::new().await;
    let started = server.send("POST", "/v2/a/blobs/uploads/", &[], "").await;
    let location = started.header("location").to_owned();
    assert_eq!(server.send("PATCH", &location, &[], "half").await.status, 202);
    let foreign = location.replace("/v2/a/", "/v2/b/");
    for method in ["GET", "PATCH", "DELETE"] {
        assert_eq!(server.send(method, &foreign, &[], "").await.status, 404, "{method}");
    }
    let ingests = || std::fs::read_dir(server.root.path().join("content/ingest")).unwrap().count();
    assert_eq!(ingests(), 1);
    assert_eq!(server.send("DELETE", &location, &[], "").await.status, 204);
    assert_eq!(server.get(&location).await.status, 404);
    assert_eq!(server.send("PATCH", &location, &[], "more").await.status, 404);
    assert_eq!(ingests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_links_without_bytes_and_falls_back_to_an_upload() {
    let server = Server::new().await;
    let digest = server.push_blob("from", b"shared").await;
    let mounted = server.send("POST", &format!("/v2/to/blobs/uploads/?mount={digest}&from=from"), &[], "").await;
    assert_eq!((mounted.status, mounted.header("location")), (201, format!("/v2/to/blobs/{digest}").as_str()));
    assert_eq!(server.get(&format!("/v2/to/blobs/{digest}")).await.body, "shared");
    let absent = Digest::of(b"absent");
    let fallback = server.send("POST", &format!("/v2/to/blobs/uploads/?mount={absent}&from=from"), &[], "").await;
    assert_eq!(fallback.status, 202);
    assert!(fallback.header("location").starts_with("/v2/to/blobs/uploads/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_answer_head_and_byte_ranges() {
    let server = Server::new().await;
    let digest = server.push_blob("a", b"0123456789").await;
    let path = format!("/v2/a/blobs/{digest}");
    let head = server.send("HEAD", &path, &[], "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "10", 0));
    assert_eq!(head.header("docker-content-digest"), digest.to_string());
    for (range, status, body, content_range) in [
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-2", 206, "89", "bytes 8-9/10"),
        ("bytes=8-100", 206, "89", "bytes 8-9/10"),
    ] {
        let part = server.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((part.status, part.header("content-range")), (status, content_range), "{range}");
        assert_eq!(part.body, body, "{range}");
    }
    assert_eq!(server.send("GET", &path, &[("range", "bytes=10-")], "").await.status, 416);
    let absent = server.send("HEAD", &format!("/v2/a/blobs/{}", Digest::of(b"no")), &[], "").await;
    assert_eq!(absent.status, 404);
    assert_eq!(server.get(&format!("/v2/b/blobs/{digest}")).await.code(), "BLOB_UNKNOWN", "other repository");
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_served_byte_for_byte_by_tag_and_digest() {
    let server = Server::new().await;
    let text = server.push_image("a/b", "v1", b"layer").await;
    let digest = Digest::of(text.as_bytes());
    for reference in ["v1".to_owned(), digest.to_string()] {
        let path = format!("/v2/a/b/manifests/{reference}");
        let (got, head) = (server.get(&path).await, server.send("HEAD", &path, &[], "").await);
        assert_eq!((got.status, got.body.as_ref()), (200, text.as_bytes()));
        assert_eq!((head.status, head.body.len()), (200, 0));
        for answer in [got, head] {
            assert_eq!(answer.header("content-type"), "application/vnd.oci.image.manifest.v1+json");
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
            assert_eq!(answer.header("content-length"), text.len().to_string());
        }
    }
    assert_eq!(server.get("/v2/a/b/manifests/v2").await.code(), "MANIFEST_UNKNOWN");
    assert_eq!(server.get("/v2/a/c/manifests/v1").await.code(), "NAME_UNKNOWN");
    let wrong = server.push_manifest("a/b", &Digest::of(b"x").to_string(), &text).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "DIGEST_INVALID"));
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_with_missing_blobs_wrong_sizes_or_two_readings_are_refused() {
    let server = Server::new().await;
    let (config, layer) = (server.push_blob("a", b"{}").await, server.push_blob("a", b"layer").await);
    let absent = Digest::of(b"absent");
    for (text, status, code) in [
        (manifest(&[("config", &config, 2), ("layer", &absent, 5)], ""), 404, "MANIFEST_BLOB_UNKNOWN"),
        (manifest(&[("config", &absent, 2), ("layer", &layer, 5)], ""), 404, "MANIFEST_BLOB_UNKNOWN"),
        (manifest(&[("config", &config, 2), ("layer", &layer, 6)], ""), 400, "SIZE_INVALID"),
        (manifest(&[("config", &config, 2), ("layer", &layer, 5)], ",\"manifests\":[]"), 400, "MANIFEST_INVALID"),
        ("{".to_owned(), 400, "MANIFEST_INVALID"),
        ("[]".to_owned(), 400, "MANIFEST_INVALID"),
    ] {
        let refused = server.push_manifest("a", "x", &text).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{text}");
    }
    assert_eq!(server.get("/v2/a/tags/list").await.status, 404);
    let huge = server.push_manifest("a", "x", &" ".repeat(5 << 20)).await;
    assert_eq!(huge.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_taken_once_its_manifests_are_there() {
    let server = Server::new().await;
    let one = server.push_image("a", "one", b"layer one").await;
    let digest = Digest::of(one.as_bytes());
    let index = |digest: &Digest| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#,
            one.len()
        )
    };
    let refused = server.push_manifest("a", "multi", &index(&Digest::of(b"no"))).await;
    assert_eq!((refused.status, refused.code().as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(server.push_manifest("a", "multi", &index(&digest)).await.status, 201);
    let got = server.get("/v2/a/manifests/multi").await;
    assert_eq!(got.header("content-type"), "application/vnd.oci.image.index.v1+json");
    assert_eq!(got.body, index(&digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_the_catalogue_come_in_pages_with_a_link_to_the_next() {
    let server = Server::new().await;
    for repository in ["a", "b/c", "d"] {
        server.push_image(repository, "t1", b"layer").await;
    }
    let text = String::from_utf8(server.get("/v2/a/manifests/t1").await.body.to_vec()).unwrap();
    for tag in ["t0", "t2", "latest"] {
        assert_eq!(server.push_manifest("a", tag, &text).await.status, 201);
    }
    let all = server.get("/v2/a/tags/list").await;
    assert_eq!(all.json(), serde_json::json!({"name": "a", "tags": ["latest", "t0", "t1", "t2"]}));
    assert_eq!(all.header("link"), "");
    let follow = async |mut path: String, key: &str| {
        let mut pages: Vec<Vec<String>> = Vec::new();
        loop {
            let page = server.get(&path).await;
            pages.push(serde_json::from_value(page.json()[key].clone()).unwrap());
            match page.header("link").strip_prefix('<').and_then(|l| l.split_once(">; rel=\"next\"")) {
                Some((next, _)) => path = next.to_owned(),
                None => return pages,
            }
        }
    };
    let pages = follow("/v2/a/tags/list?n=3".into(), "tags").await;
    assert_eq!(pages, [vec!["latest", "t0", "t1"], vec!["t2"]]);
    assert_eq!(follow("/v2/_catalog?n=2".into(), "repositories").await, [vec!["a", "b/c"], vec!["d"]]);
    assert_eq!(server.get("/v2/a/tags/list?last=t0").await.json()["tags"], serde_json::json!(["t1", "t2"]));
    let none = server.get("/v2/a/tags/list?n=0").await;
    assert_eq!((none.json()["tags"].clone(), none.header("link")), (serde_json::json!([]), ""));
    assert_eq!(server.get("/v2/a/tags/list?n=x").await.status, 400);
    assert_eq!(server.get("/v2/nowhere/tags/list").await.code(), "NAME_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_listed_filtered_and_may_come_before_their_subject() {
    let server = Server::new().await;
    let config = server.push_blob("a", b"{}").await;
    let subject = manifest(&[("config", &config, 2)], "");
    let subject_digest = Digest::of(subject.as_bytes());
    let referring = |kind: &str, note: &str| {
        manifest(
            &[("config", &config, 2)],
            &format!(
                r#","artifactType":"{kind}","annotations":{{"note":"{note}"}},"subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{subject_digest}","size":{}}}"#,
                subject.len()
            ),
        )
    };
    let path = format!("/v2/a/referrers/{subject_digest}");
    let empty = server.get(&path).await;
    assert_eq!((empty.status, empty.json()["manifests"].clone()), (200, serde_json::json!([])));
    assert_eq!(empty.header("content-type"), "application/vnd.oci.image.index.v1+json");
    let (sbom, signature) = (referring("test/sbom", "one"), referring("test/signature", "two"));
    for text in [&sbom, &signature] {
        let pushed = server.push_manifest("a", &Digest::of(text.as_bytes()).to_string(), text).await;
        assert_eq!((pushed.status, pushed.header("oci-subject")), (201, subject_digest.to_string().as_str()));
    }
    assert_eq!(server.push_manifest("a", "subject", &subject).await.status, 201);
    assert_eq!(server.get(&path).await.json()["manifests"].as_array().unwrap().len(), 2);
    let filtered = server.get(&format!("{path}?artifactType=test%2Fsbom")).await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let list = filtered.json()["manifests"].clone();
    assert_eq!(list[0]["digest"], Digest::of(sbom.as_bytes()).to_string());
    assert_eq!(list[0]["artifactType"], "test/sbom");
    assert_eq!(list[0]["annotations"]["note"], "one");
    assert_eq!(list.as_array().unwrap().len(), 1);
    // Deleted, it refers no more.
    server.send("DELETE", &format!("/v2/a/manifests/{}", Digest::of(sbom.as_bytes())), &[], "").await;
    assert_eq!(server.get(&path).await.json()["manifests"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_gone_and_a_second_deletion_says_so() {
    let server = Server::new().await;
    let text = server.push_image("a", "v1", b"layer").await;
    assert_eq!(server.push_manifest("a", "v2", &text).await.status, 201);
    let (digest, layer) = (Digest::of(text.as_bytes()), Digest::of(b"layer"));
    assert_eq!(server.send("DELETE", "/v2/a/manifests/v1", &[], "").await.status, 202);
    assert_eq!(server.get("/v2/a/manifests/v1").await.status, 404);
    assert_eq!(server.send("DELETE", "/v2/a/manifests/v1", &[], "").await.status, 404);
    assert_eq!(server.get("/v2/a/manifests/v2").await.status, 200, "the other tag stays");
    assert_eq!(server.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], "").await.status, 202);
    for reference in ["v2".to_owned(), digest.to_string()] {
        assert_eq!(server.get(&format!("/v2/a/manifests/{reference}")).await.status, 404, "{reference}");
    }
    let blob = format!("/v2/a/blobs/{layer}");
    assert_eq!(server.get(&blob).await.status, 200, "a blob outlives its manifest until it is collected or deleted");
    assert_eq!(server.send("DELETE", &blob, &[], "").await.status, 202);
    assert_eq!(server.get(&blob).await.status, 404);
    assert_eq!(server.send("DELETE", &blob, &[], "").await.code(), "BLOB_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_says_the_version_and_other_methods_are_refused() {
    let server = Server::new().await;
    let base = server.get("/v2/").await;
    assert_eq!((base.status, base.header("docker-distribution-api-version")), (200, "registry/2.0"));
    for (method, path, status) in [
        ("POST", "/v2/", 405),
        ("POST", "/v2/a/tags/list", 405),
        ("PUT", "/v2/_catalog", 405),
        ("GET", "/v2/A/tags/list", 400),
        ("GET", "/v1/", 404),
    ] {
        assert_eq!(server.send(method, path, &[], "").await.status, status, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_any_order_leave_an_upload_where_a_simple_model_says() {
    let server = Server::new().await;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    // The model: the bytes so far, or no upload.
    let mut upload: Option<(String, Vec<u8>)> = None;
    let mut finished = 0;
    for step in 0..600 {
        let Some((location, mut bytes)) = upload.take() else {
            let started = server.send("POST", "/v2/m/blobs/uploads/", &[], "").await;
            assert_eq!(started.status, 202);
            upload = Some((started.header("location").to_owned(), Vec::new()));
            continue;
        };
        let piece = vec![step as u8; next(2000) as usize + 1];
        let (at, end) = (bytes.len(), bytes.len() + piece.len() - 1);
        let right = format!("{at}-{end}");
        let wrong = format!("{}-{}", at + 1 + next(9) as usize, end + 20);
        let put = |digest: Digest| format!("{location}?digest={digest}");
        match next(8) {
            0 | 1 => {
                assert_eq!(
                    server.send("PATCH", &location, &[("content-range", &right)], piece.clone()).await.status,
                    202
                );
                bytes.extend(piece);
            }
            2 => {
                assert_eq!(server.send("PATCH", &location, &[], piece.clone()).await.status, 202);
                bytes.extend(piece);
            }
            3 => assert_eq!(server.send("PATCH", &location, &[("content-range", &wrong)], piece).await.status, 416),
            4 => {
                let status = server.get(&location).await;
                let range = format!("0-{}", bytes.len().saturating_sub(1));
                assert_eq!((status.status, status.header("range")), (204, range.as_str()), "step {step}");
            }
            5 => {
                assert_eq!(server.send("DELETE", &location, &[], "").await.status, 204);
                assert_eq!(server.get(&location).await.status, 404);
                continue;
            }
            6 => {
                bytes.extend(&piece);
                let digest = Digest::of(&bytes);
                assert_eq!(server.send("PUT", &put(digest), &[], piece).await.status, 201);
                assert_eq!(server.get(&format!("/v2/m/blobs/{digest}")).await.body, bytes);
                finished += 1;
                continue;
            }
            _ => {
                let digest = Digest::of(b"something else");
                assert_eq!(server.send("PUT", &put(digest), &[], "").await.status, 400);
                assert!(!server.has_file(&digest));
                continue;
            }
        }
        upload = Some((location, bytes));
    }
    assert!(finished > 20, "{finished}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_manifests_get_an_answer_and_the_registry_goes_on() {
    let server = Server::new().await;
    let whole = server.push_image("a", "1", b"layer").await;
    let mut seed = 7u64;
    for _ in 0..800 {
        let mut bytes = whole.clone().into_bytes();
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = b"{}[]\":,0a\xff\0"[(seed >> 20) as usize % 11];
        }
        let media_type = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
        let status = server.send("PUT", "/v2/a/manifests/2", &media_type, bytes).await.status;
        assert!(matches!(status, 201 | 400 | 404), "{status}");
    }
    assert_eq!(server.get("/v2/a/manifests/1").await.body, whole);
}
