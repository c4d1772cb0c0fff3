//! Images through the stock client: list, inspect, history, tag, remove, prune, save, load, import, export, commit.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{self, World};

/// `docker ARGS` inside the world, split at spaces.
fn docker(world: &World, line: &str) -> String {
    world.ok("docker", &line.split_whitespace().collect::<Vec<_>>())
}

fn refused(world: &World, line: &str) -> String {
    world.refused("docker", &line.split_whitespace().collect::<Vec<_>>()).trim().to_owned()
}

/// A request to the API as the stock client does not make it; status and body.
fn api(world: &World, method: &str, path: &str) -> (u16, Value) {
    let socket = world.root.join("run/docker.sock");
    let url = format!("http://localhost/v1.50{path}");
    let args = ["-sS", "-X", method, "-w", "\n%{http_code}", "--unix-socket", harness::path(&socket), &url];
    let said = world.ok("curl", &args);
    let (body, status) = said.rsplit_once('\n').unwrap_or(("", &said));
    (status.parse().expect("a status"), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn images_are_listed_inspected_tagged_and_removed_as_docker_does_it() {
    let world = World::new();
    world.up();
    world.import_busybox();
    let dir = tempfile::tempdir().unwrap();
    let context = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("Dockerfile"), text).unwrap();
        path.display().to_string()
    };
    let one = context("one", "FROM busybox\nLABEL team=a stage=test\nENV A=b\nCOPY Dockerfile /one\nCMD [\"sh\"]\n");
    let two = context("two", "FROM busybox\nLABEL team=b\nCOPY Dockerfile /two\n");
    docker(&world, &format!("build -q -t team/one:1 {one}"));
    docker(&world, &format!("build -q -t team/two:1 -t localhost:5000/two {two}"));

    let list = |filters: &str| -> Vec<String> {
        let shown = docker(&world, &format!("images --format {{{{.Repository}}}}:{{{{.Tag}}}} {filters}"));
        let mut names: Vec<String> = shown.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(list(""), ["busybox:latest", "localhost:5000/two:latest", "team/one:1", "team/two:1"]);
    assert_eq!(list("team/one"), ["team/one:1"]);
    assert_eq!(list("--filter reference=team/*"), ["team/one:1", "team/two:1"], "only the names that fit");
    assert_eq!(list("--filter label=team=a"), ["team/one:1"]);
    assert_eq!(list("--filter label=team --filter label=stage"), ["team/one:1"]);
    assert_eq!(list("--filter before=team/one:1"), ["busybox:latest"]);
    assert_eq!(list("--filter since=team/one:1"), ["localhost:5000/two:latest", "team/two:1"]);
    assert_eq!(list("--filter dangling=true"), Vec::<String>::new());
    assert_eq!(list("--filter until=1h"), Vec::<String>::new());
    assert!(refused(&world, "images --filter colour=red").contains("invalid filter 'colour'"));

    let (status, rows) = api(&world, "GET", "/images/json?shared-size=1");
    assert_eq!(status, 200);
    let row = rows.as_array().unwrap().iter().find(|r| r["RepoTags"][0] == "team/one:1").expect("its row");
    assert_eq!(
        keys(row),
        [
            "Containers",
            "Created",
            "Descriptor",
            "Id",
            "Labels",
            "ParentId",
            "RepoDigests",
            "RepoTags",
            "SharedSize",
            "Size"
        ]
    );
    assert_eq!((row["Labels"]["team"].as_str(), row["Containers"].as_i64()), (Some("a"), Some(-1)));
    let (size, shared) = (row["Size"].as_u64().unwrap(), row["SharedSize"].as_u64().unwrap());
    assert!(shared > 100_000 && shared < size, "busybox is shared: {shared} of {size}");

    let id = docker(&world, "images -q --no-trunc team/one:1");
    let (_, image) = api(&world, "GET", "/images/team/one:1/json?manifests=1");
    assert_eq!(image["Id"], id.as_str());
    assert_eq!(
        keys(&image),
        [
            "Architecture",
            "Author",
            "Comment",
            "Config",
            "Created",
            "Descriptor",
            "DockerVersion",
            "GraphDriver",
            "Id",
            "Manifests",
            "Metadata",
            "Os",
            "Parent",
            "RepoDigests",
            "RepoTags",
            "RootFS",
            "Size",
            "Variant"
        ]
    );
    assert_eq!(image["Config"]["Cmd"], json!(["sh"]));
    assert!(image["Config"]["Env"].as_array().unwrap().contains(&json!("A=b")));
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    assert_eq!(keys(&image["Descriptor"]), ["digest", "mediaType", "size"]);
    let manifest = &image["Manifests"][0];
    assert_eq!((&manifest["Descriptor"], &manifest["Kind"]), (&image["Descriptor"], &json!("image")));
    assert_eq!(manifest["ImageData"]["Platform"]["os"], "linux");
    let architecture = docker(&world, "image inspect -f {{.Architecture}} team/one:1");
    let (status, _) = api(&world, "GET", &format!("/images/team/one:1/json?platform=linux/{architecture}"));
    assert_eq!(status, 200);
    let (status, error) = api(&world, "GET", "/images/team/one:1/json?platform=linux/s390x");
    assert!(
        status == 404
            && error["message"].as_str().unwrap().contains("does not match the specified platform (linux/s390x)")
    );
    assert!(refused(&world, "image inspect nothing").contains("No such image: nothing:latest"));

    let history = docker(&world, "history --no-trunc --format {{.CreatedBy}}|{{.Size}} team/one:1");
    let rows: Vec<&str> = history.lines().collect();
    assert!(rows[0].contains("CMD [\"sh\"]") && rows[0].ends_with("|0B"), "{history}");
    assert!(rows[1].contains("COPY") && !rows[1].ends_with("|0B"), "{history}");
    let (_, history) = api(&world, "GET", "/images/team/one:1/history");
    assert_eq!(keys(&history[0]), ["Comment", "Created", "CreatedBy", "Id", "Size", "Tags"]);
    assert_eq!((&history[0]["Id"], &history[0]["Tags"]), (&json!(id), &json!(["team/one:1"])));
    assert_eq!(history[1]["Id"], "<missing>");

    docker(&world, "tag team/one:1 other/name:x");
    docker(&world, "tag team/one:1 team/one:2");
    assert!(refused(&world, "tag nothing x").contains("No such image: nothing:latest"));
    assert!(refused(&world, "tag team/one:1 BAD").contains("must be lowercase"));
    let short = &id["sha256:".len()..][..12];
    assert_eq!(
        refused(&world, &format!("rmi {short}")),
        format!(
            "Error response from daemon: conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(docker(&world, "rmi other/name:x"), "Untagged: other/name:x");
    // A container holds it: its name does not go without force, and while it runs it does not go by ID at all.
    let container = docker(&world, "run -d --name holder team/one:1 sleep 1000");
    let held = &container[..12];
    docker(&world, "rmi team/one:2");
    assert_eq!(
        refused(&world, "rmi team/one:1"),
        format!(
            "Error response from daemon: conflict: unable to remove repository reference \"team/one:1\" (must force) - container {held} is using its referenced image {short}"
        )
    );
    assert_eq!(
        refused(&world, &format!("rmi -f {short}")),
        format!(
            "Error response from daemon: conflict: unable to delete {short} (cannot be forced) - image is being used by running container {held}"
        )
    );
    docker(&world, "rm -f holder");
    let gone = docker(&world, "rmi team/one:1");
    let lines: Vec<&str> = gone.lines().collect();
    assert_eq!(lines[..2], ["Untagged: team/one:1".to_owned(), format!("Deleted: {id}")]);
    assert!(lines.len() == 3 && lines[2].starts_with("Deleted: sha256:"), "its own layer, busybox's stays: {gone}");

    // What loses its name is dangling, and prune takes it.
    std::fs::write(dir.path().join("two/more"), "x").unwrap();
    std::fs::write(dir.path().join("two/Dockerfile"), "FROM busybox\nCOPY more /more\n").unwrap();
    let before = docker(&world, "images -q --no-trunc team/two:1");
    docker(&world, "rmi localhost:5000/two");
    docker(&world, &format!("build -q -t team/two:1 {two}"));
    assert_eq!(docker(&world, "images -q --no-trunc --filter dangling=true"), before);
    let pruned = docker(&world, "image prune -f");
    assert!(pruned.contains(&format!("deleted: {before}")) && pruned.contains("Total reclaimed space: "), "{pruned}");
    assert_eq!(list(""), ["busybox:latest", "team/two:1"]);
    assert_eq!(docker(&world, "image prune -f"), "Total reclaimed space: 0B");
    let pruned = docker(&world, "image prune -a -f --filter label!=keep");
    assert!(pruned.contains("untagged: team/two:1") && pruned.contains("untagged: busybox:latest"), "{pruned}");
    assert!(list("").is_empty());
}

#[test]
fn images_travel_as_archives_of_every_kind() {
    let world = World::new();
    world.up();
    world.import_busybox();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    docker(&world, "tag busybox second:1");
    let made = docker(&world, "run -d --name made busybox sh -c echo>/made");
    docker(&world, "wait made");
    // Commit: changes, author, message, and what the container had.
    let commit =
        ["commit", "-a", "me", "-m", "why", "-c", "ENV X=y", "-c", "CMD [\"cat\",\"/made\"]", "made", "third:1"];
    let third = world.ok("docker", &commit);
    let format = "{{.Author}}|{{.Comment}}|{{.Config.Cmd}}|{{.Config.Env}}|{{len .RootFS.Layers}}";
    let shown = world.ok("docker", &["inspect", "-f", format, "third:1"]);
    assert!(shown.starts_with("me|why|[cat /made]|[") && shown.contains("X=y") && shown.ends_with("|2"), "{shown}");
    assert_eq!(docker(&world, "run --rm third:1"), "");
    // Save several, lose them, load them: IDs and names are what they were.
    let ids = docker(&world, "images -q --no-trunc");
    docker(&world, &format!("save -o {} busybox second:1 third:1", at("all.tar")));
    let listing = world.ok("tar", &["-xOf", &at("all.tar"), "manifest.json"]);
    let listing: Value = serde_json::from_str(&listing).unwrap();
    assert_eq!(listing.as_array().unwrap().len(), 2, "two images, one with two names: {listing}");
    docker(&world, "rm made");
    docker(&world, "rmi -f busybox second:1 third:1");
    let loaded = docker(&world, &format!("load -i {}", at("all.tar")));
    for name in ["busybox:latest", "second:1", "third:1"] {
        assert!(loaded.contains(&format!("Loaded image: {name}")), "{loaded}");
    }
    let socket = world.root.join("run/docker.sock");
    let load = [
        "-sS",
        "-X",
        "POST",
        "--unix-socket",
        harness::path(&socket),
        "-T",
        &at("all.tar"),
        "http://localhost/v1.50/images/load?quiet=0",
    ];
    let lines = world.ok("curl", &load);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["status"], "Loading layer");
    assert_eq!(first["progressDetail"]["current"], first["progressDetail"]["total"]);
    assert_eq!(first["id"].as_str().unwrap().len(), 12);
    assert_eq!(docker(&world, "images -q --no-trunc"), ids);
    assert_eq!(docker(&world, "run --rm second:1 echo works"), "works");
    assert!(
        refused(&world, &format!("save nothing -o {}", at("nothing.tar"))).contains("No such image: nothing:latest")
    );
    // A name that another image has: it is told.
    docker(&world, "tag busybox third:1");
    let loaded = docker(&world, &format!("load -i {}", at("all.tar")));
    assert!(loaded.contains("The image third:1 already exists, renaming the old one with ID sha256:"), "{loaded}");
    // An OCI layout as skopeo writes it, and garbage.
    world.ok(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            &format!("docker-archive:{}:third:1", at("all.tar")),
            &format!("oci-archive:{}:layout:9", at("oci.tar")),
        ],
    );
    let loaded = docker(&world, &format!("load -q -i {}", at("oci.tar")));
    assert!(loaded.starts_with("Loaded image"), "{loaded}");
    std::fs::write(at("garbage"), vec![7; 4096]).unwrap();
    assert!(!refused(&world, &format!("load -i {}", at("garbage"))).is_empty());
    // Export and import: from a file, standard input, and an address.
    docker(&world, "create --name flat third:1");
    docker(&world, &format!("export -o {} flat", at("flat.tar")));
    assert!(world.ok("tar", &["-tf", &at("flat.tar")]).lines().any(|l| l == "made"));
    world.ok("docker", &["import", "-c", "ENV FROM=file", &at("flat.tar"), "flat:file"]);
    let piped = world
        .command("sh")
        .args(["-c", "docker import --message piped - flat:pipe < $0", &at("flat.tar")])
        .output()
        .unwrap();
    assert!(piped.status.success(), "{}", harness::text(&piped.stderr));
    let mut server = world
        .command("python3")
        .args(["-m", "http.server", "--bind", "127.0.0.1", "--directory", harness::path(dir.path()), "8123"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.ok(
        "sh",
        &["-c", "for i in $(seq 100); do curl -s -o /dev/null 127.0.0.1:8123 && exit; sleep 0.1; done; exit 1"],
    );
    docker(&world, "import http://127.0.0.1:8123/flat.tar flat:url");
    let missing = refused(&world, "import http://127.0.0.1:8123/nothing.tar flat:none");
    let _ = server.kill();
    let _ = server.wait();
    assert!(missing.contains("404"), "{missing}");
    for tag in ["file", "pipe", "url"] {
        let name = format!("flat:{tag}");
        assert_eq!(
            world.ok("docker", &["run", "--rm", &name, "/bin/sh", "-c", "cat /made; echo $FROM end"]),
            if tag == "file" { "file end" } else { "end" }
        );
    }
    assert_eq!(docker(&world, "inspect -f {{.Comment}} flat:pipe"), "piped");
    docker(&world, "rm flat");
    assert!(!third.is_empty() && !made.is_empty());
}

#[test]
fn registries_are_logged_in_to_pushed_to_pulled_from_searched_and_asked() {
    let world = World::new();
    // A registry that is not loopback's, spoken to without TLS because its network is named.
    world.ok("ip", &["address", "add", "10.99.0.1/32", "dev", "lo"]);
    std::fs::create_dir(&world.root).unwrap();
    std::fs::write(world.root.join("daemon.json"), r#"{"insecure-registries": ["10.99.0.0/16"]}"#).unwrap();
    world.up();
    world.import_busybox();
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    // The instance's own registry, as the stock client draws it.
    docker(&world, "tag busybox localhost:5000/team/box:1");
    docker(&world, "tag busybox localhost:5000/team/box:2");
    let pushed = docker(&world, "push localhost:5000/team/box:1");
    assert_eq!(pushed.matches("The push refers to repository [localhost:5000/team/box]").count(), 1, "{pushed}");
    assert_eq!(pushed.matches("1: digest: sha256:").count(), 1, "{pushed}");
    let all = docker(&world, "push -a localhost:5000/team/box");
    assert!(
        all.contains("1: digest: ") && all.contains("2: digest: ") && all.contains("Layer already exists"),
        "{all}"
    );
    let id = docker(&world, "images -q --no-trunc busybox");
    docker(&world, "rmi busybox localhost:5000/team/box:1 localhost:5000/team/box:2");
    let pulled = docker(&world, "pull localhost:5000/team/box:1");
    // Its layer may still lie here: the registry has it, and it is this very store.
    assert!(pulled.contains("Pull complete") || pulled.contains("Already exists"), "{pulled}");
    for line in [
        "1: Pulling from team/box",
        "Digest: sha256:",
        "Status: Downloaded newer image for localhost:5000/team/box:1",
        "localhost:5000/team/box:1",
    ] {
        assert!(pulled.contains(line), "{line} in {pulled}");
    }
    assert!(docker(&world, "pull localhost:5000/team/box:1").contains("Status: Image is up to date for"));
    assert_eq!(docker(&world, "images -q --no-trunc localhost:5000/team/box:1"), id);
    docker(&world, "pull -a localhost:5000/team/box");
    assert_eq!(docker(&world, "images localhost:5000/team/box -q").lines().count(), 2);
    let digest = docker(&world, "inspect -f {{.RepoDigests}} localhost:5000/team/box:1");
    assert!(digest.contains("localhost:5000/team/box@sha256:"), "{digest}");
    assert!(
        refused(&world, "pull localhost:5000/team/none:1")
            .contains("manifest for localhost:5000/team/none:1 not found")
    );
    assert!(
        refused(&world, "push localhost:5000/nothing:1")
            .contains("An image does not exist locally with the tag: localhost:5000/nothing")
    );
    let other = docker(&world, "pull --platform linux/s390x localhost:5000/team/box:1");
    assert!(
        other.contains("WARNING: image with reference localhost:5000/team/box:1 was found but its platform"),
        "{other}"
    );
    let (status, remote) = api(&world, "GET", "/distribution/localhost:5000/team/box:1/json");
    assert_eq!((status, keys(&remote)), (200, vec!["Descriptor", "Platforms"]));
    assert_eq!(remote["Platforms"][0]["os"], "linux");
    assert_eq!(api(&world, "GET", "/distribution/localhost:5000/team/none:1/json").0, 404);
    assert!(docker(&world, "search --format {{.Name}} localhost:5000/bo").contains("team/box"));
    assert_eq!(docker(&world, "search --format {{.Name}} localhost:5000/zzz"), "");

    // A registry that asks who calls, by itself; basic and token.
    let accounts = dir.path().join("accounts");
    for (host, port, auth) in
        [("localhost", "5001", "basic"), ("localhost", "5002", "token"), ("10.99.0.1", "5003", "basic")]
    {
        let root = dir.path().join(port);
        let hashed =
            Command::new("htpasswd").args(["-nbB", "-C", "4", "alice", "secret"]).output().expect("htpasswd runs");
        std::fs::write(&accounts, &hashed.stdout).unwrap();
        let listen = format!("{}:{port}", host.replace("localhost", "127.0.0.1"));
        let mut registry = world
            .command(env!("CARGO_BIN_EXE_gantry"))
            .args(["registry", "--root", harness::path(&root), "--listen", &listen, "--auth", auth])
            .args(["--htpasswd", harness::path(&accounts)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready =
            format!("for i in $(seq 200); do curl -s -o /dev/null {listen}/v2/ && exit; sleep 0.1; done; exit 1");
        world.ok("sh", &["-c", &ready]);
        let with_home = |line: &str| {
            let mut command = world.command("docker");
            command.args(line.split_whitespace()).env("HOME", &home).env("DOCKER_CONFIG", home.join(port));
            let output = command.output().unwrap();
            (output.status.success(), harness::text(&output.stdout) + &harness::text(&output.stderr))
        };
        let name = format!("{host}:{port}/private/box:1");
        docker(&world, &format!("tag localhost:5000/team/box:1 {name}"));
        let (ok, said) = with_home(&format!("push {name}"));
        assert!(!ok && (said.contains("denied") || said.contains("no basic auth credentials")), "{auth}: {said}");
        let (ok, said) = with_home(&format!("login -u alice -p wrong {host}:{port}"));
        assert!(
            !ok && (said.contains("401 Unauthorized") || said.contains("incorrect username or password")),
            "{auth}: {said}"
        );
        let (ok, said) = with_home(&format!("login -u alice -p secret {host}:{port}"));
        assert!(ok && said.contains("Login Succeeded"), "{auth}: {said}");
        let (ok, said) = with_home(&format!("push {name}"));
        assert!(ok, "{auth}: {said}");
        docker(&world, &format!("rmi {name}"));
        assert!(!with_home(&format!("logout {host}:{port}")).1.is_empty());
        let (ok, said) = with_home(&format!("pull {name}"));
        assert!(!ok && said.contains("pull access denied"), "{auth}: {said}");
        with_home(&format!("login -u alice -p secret {host}:{port}"));
        let (ok, said) = with_home(&format!("pull {name}"));
        assert!(ok, "{auth}: {said}");
        let _ = world.run("kill", &[&registry.id().to_string()]);
        assert!(registry.wait().unwrap().success(), "{auth}: ends at a SIGTERM");
    }
    let open = world.refused(env!("CARGO_BIN_EXE_gantry"), &["registry", "--listen", "0.0.0.0:5009"]);
    assert!(open.contains("give --htpasswd FILE"), "{open}");
}

#[test]
fn damaged_blobs_are_found_and_healed_by_the_next_pull_and_df_agrees_with_du() {
    let world = World::new();
    world.up();
    world.import_busybox();
    docker(&world, "tag busybox localhost:5000/box:1");
    docker(&world, "push localhost:5000/box:1");
    assert!(world.gantry(&["fsck"]).contains("0 damaged, 0 missing"));
    let (_, df) = api(&world, "GET", "/system/df");
    let du = world.ok(
        "sh",
        &[
            "-c",
            "du -s --block-size=1 $0/content/blobs $0/snapshots/l | awk '{s+=$1} END {print s}'",
            harness::path(&world.root),
        ],
    );
    let (told, du) = (df["LayersSize"].as_f64().unwrap(), du.parse::<f64>().unwrap());
    assert!((told - du).abs() / du < 0.02, "df says {told}, du {du}");
    // Another registry has the image, too; then a bit of our copy flips.
    let other = tempfile::tempdir().unwrap();
    let mut registry = world
        .command(env!("CARGO_BIN_EXE_gantry"))
        .args(["registry", "--root", harness::path(other.path()), "--listen", "127.0.0.1:5004"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.ok(
        "sh",
        &["-c", "for i in $(seq 200); do curl -s -o /dev/null 127.0.0.1:5004/v2/ && exit; sleep 0.1; done; exit 1"],
    );
    docker(&world, "tag busybox localhost:5004/box:1");
    docker(&world, "push localhost:5004/box:1");
    docker(&world, "rmi busybox localhost:5000/box:1 localhost:5004/box:1");
    docker(&world, "pull localhost:5004/box:1");
    let layer = docker(&world, "inspect -f {{.RootFS.Layers}} localhost:5004/box:1");
    let digest = layer.trim_matches(['[', ']']).trim_start_matches("sha256:").to_owned();
    let blob = world.root.join("content/blobs/sha256").join(&digest);
    let whole = std::fs::read(&blob).unwrap();
    let mut bad = whole.clone();
    bad[1000] ^= 1;
    std::fs::write(&blob, &bad).unwrap();
    let fsck = |args: &[&str]| {
        let output = world.run(env!("CARGO_BIN_EXE_gantry"), args);
        (output.status.code(), harness::text(&output.stdout))
    };
    let (code, said) = fsck(&["fsck", "--dry-run"]);
    assert!(code == Some(4) && said.contains(&format!("damaged: sha256:{digest}\n")), "{said}");
    assert!(blob.exists());
    let (code, said) = fsck(&["fsck"]);
    assert!(code == Some(4) && said.contains("quarantine") && said.contains("needed by"), "{said}");
    assert!(!blob.exists());
    docker(&world, "pull localhost:5004/box:1");
    assert_eq!(std::fs::read(&blob).unwrap(), whole);
    assert_eq!(fsck(&["fsck"]).0, Some(0));
    let _ = registry.kill();
    let _ = registry.wait();
}

#[test]
fn a_disk_budget_removes_the_longest_unused_images_that_a_registry_has_and_nothing_else() {
    let world = World::new();
    std::fs::create_dir(&world.root).unwrap();
    std::fs::write(world.root.join("daemon.json"), r#"{"max-size-bytes": 60000000}"#).unwrap();
    world.up();
    let dir = tempfile::tempdir().unwrap();
    let mut registry = world
        .command(env!("CARGO_BIN_EXE_gantry"))
        .args(["registry", "--root", harness::path(dir.path()), "--listen", "127.0.0.1:5004"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.ok(
        "sh",
        &["-c", "for i in $(seq 200); do curl -s -o /dev/null 127.0.0.1:5004/v2/ && exit; sleep 0.1; done; exit 1"],
    );
    world.import_busybox();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    for name in ["a", "b", "c", "d"] {
        world.ok("sh", &["-c", "head -c 8000000 /dev/urandom > $0/f && tar -C $0 -cf $0.tar f", harness::path(&tree)]);
        let image = format!("localhost:5004/{name}:1");
        docker(&world, &format!("import {}.tar {image}", tree.display()));
        docker(&world, &format!("push {image}"));
        docker(&world, &format!("rmi {image}"));
    }
    for name in ["a", "b", "c"] {
        docker(&world, &format!("pull -q localhost:5004/{name}:1"));
    }
    // Used lately, and used now: `a` is the oldest, but a container has it.
    docker(&world, "create --name holds localhost:5004/a:1 /f");
    docker(&world, "pull -q localhost:5004/d:1");
    let names = || docker(&world, "images --format {{.Repository}}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while names().contains("localhost:5004/b") && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let left = names();
    assert!(!left.contains("localhost:5004/b"), "{left}");
    for name in ["localhost:5004/a", "localhost:5004/d", "busybox"] {
        assert!(left.contains(name), "{name} in {left}");
    }
    assert!(api(&world, "GET", "/system/df").1["LayersSize"].as_u64().unwrap() < 60_000_000);
    let _ = registry.kill();
    let _ = registry.wait();
}
