//! Independent clients against our registry, both ways; Debian's docker-registry as the other side of our client.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use distribution::archive;
use oci::{Compression, ImageId};

use crate::machine::{Machine, recorder, reference};

/// Runs a program that must succeed, with storage of its own below `home`; what it said.
async fn ok(home: &Path, words: Vec<String>) -> String {
    let home = home.to_owned();
    let run = move || {
        let shown = words.join(" ");
        let output = Command::new("timeout")
            .arg("60")
            .args(&words)
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", &home)
            .env("STORAGE_DRIVER", "vfs")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{shown}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn hello(machine: &Machine, id: &ImageId) -> String {
    let image = machine.content.images().get(id).unwrap();
    machine.snapshots.ensure_unpacked(&image).unwrap();
    let view = machine.snapshots.view(image.config.chain_id().as_ref()).unwrap();
    std::fs::read_to_string(view.path().join("etc/hello")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn buildah_and_podman_pull_from_us_and_push_to_us() {
    let here = Machine::new();
    let address = here.serve().await;
    here.import(&format!("{address}/app:1"));
    here.client.push(&reference(&format!("{address}/app:1")), None, recorder().0).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let at = |dir: &str| home.path().join(dir).display().to_string();
    for (program, to) in [("buildah", "from-buildah"), ("podman", "from-podman")] {
        let program = format!("{program} --root {} --runroot {}", at("storage"), at("run"));
        ok(home.path(), words(&format!("{program} pull --tls-verify=false {address}/app:1"))).await;
        ok(home.path(), words(&format!("{program} push --tls-verify=false {address}/app:1 docker://{address}/{to}:2")))
            .await;
        let there = Machine::new();
        let pulled =
            there.client.pull(&reference(&format!("{address}/{to}:2")), None, None, recorder().0).await.unwrap();
        assert_eq!(hello(&there, &pulled), "hello", "{to}");
    }
    // An image that buildah made, in both formats.
    let buildah = format!("buildah --root {} --runroot {}", at("storage"), at("run"));
    std::fs::write(home.path().join("hello"), "of buildah").unwrap();
    ok(home.path(), words(&format!("{buildah} from --name c scratch"))).await;
    ok(home.path(), words(&format!("{buildah} copy c {} /etc/hello", at("hello")))).await;
    for format in ["oci", "docker"] {
        ok(home.path(), words(&format!("{buildah} commit --format {format} c made:{format}"))).await;
        let push = format!("{buildah} push --tls-verify=false made:{format} docker://{address}/made:{format}");
        ok(home.path(), words(&push)).await;
        let there = Machine::new();
        let name = reference(&format!("{address}/made:{format}"));
        let pulled = there.client.pull(&name, None, None, recorder().0).await.unwrap();
        assert_eq!(hello(&there, &pulled), "of buildah", "{format}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_umoci_is_loaded_and_travels_through_our_registry() {
    let work = tempfile::tempdir().unwrap();
    let at = |dir: &str| work.path().join(dir).display().to_string();
    ok(work.path(), words(&format!("umoci init --layout {}", at("layout")))).await;
    ok(work.path(), words(&format!("umoci new --image {}:v1", at("layout")))).await;
    std::fs::create_dir_all(work.path().join("tree/etc")).unwrap();
    std::fs::write(work.path().join("tree/etc/hello"), "of umoci").unwrap();
    ok(work.path(), words(&format!("umoci insert --image {}:v1 {} /", at("layout"), at("tree")))).await;
    ok(work.path(), words(&format!("umoci config --image {}:v1 --config.cmd sh", at("layout")))).await;
    // As an archive of the layout, and through the registry by skopeo.
    let archive = at("layout.tar");
    ok(work.path(), words(&format!("tar -C {} -cf {archive} .", at("layout")))).await;
    let here = Machine::new();
    let loaded = archive::load(&here.content, &here.snapshots, &mut std::fs::File::open(archive).unwrap()).unwrap();
    assert_eq!(hello(&here, &loaded[0].id), "of umoci");
    let address = here.serve().await;
    let copy = format!(
        "skopeo --insecure-policy copy --dest-tls-verify=false oci:{}:v1 docker://{address}/umoci:v1",
        at("layout")
    );
    ok(work.path(), words(&copy)).await;
    let there = Machine::new();
    let name = reference(&format!("{address}/umoci:v1"));
    assert_eq!(there.client.pull(&name, None, None, recorder().0).await.unwrap(), loaded[0].id);
    assert_eq!(there.content.images().get(&loaded[0].id).unwrap().config.config.cmd, Some(vec!["sh".to_owned()]));
}

/// Debian's registry on a port of its own; ends with the test.
struct TheirRegistry {
    process: Child,
    address: String,
    _root: tempfile::TempDir,
}

impl TheirRegistry {
    async fn start(authorization: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = root.path().join("config.yml");
        let storage = root.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"{address}\"}}\n{authorization}",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry runs");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "docker-registry does not listen");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Self { process, address, _root: root }
    }
}

impl Drop for TheirRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_registry_takes_our_pushes_and_gives_them_back() {
    let theirs = TheirRegistry::start("").await;
    let here = Machine::new();
    let name = reference(&format!("{}/team/app:1", theirs.address));
    let id = here.import(&name.to_string());
    let pushed = here.client.push(&name, None, recorder().0).await.unwrap();
    let there = Machine::new();
    assert_eq!(there.client.pull(&name, None, None, recorder().0).await.unwrap(), id);
    assert_eq!(hello(&there, &id), "hello");
    // By digest as well, and what a question without a pull says.
    let by_digest = name.with_digest(pushed.digest);
    assert_eq!(Machine::new().client.pull(&by_digest, None, None, recorder().0).await.unwrap(), id);
    let remote = here.client.inspect(&name, None).await.unwrap();
    assert_eq!((remote.descriptor.digest, remote.platforms.len()), (pushed.digest, 1));
    // A second repository there gets the layer by a mount.
    let second = reference(&format!("{}/other/app:1", theirs.address));
    here.content.images().tag(&id, &second).unwrap();
    let (sink, events) = recorder();
    here.client.push(&second, None, sink).await.unwrap();
    assert!(
        crate::machine::states(&events).contains(&distribution::client::LayerState::MountedFrom("team/app".to_owned()))
    );
    let image = there.content.images().get(&id).unwrap();
    let start = there.content.read(&image.layers[0].digest, 1 << 20).unwrap();
    assert_eq!(Compression::sniff(&start), Compression::None, "loopback pushes are not compressed");
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_registry_asks_for_a_password_and_we_give_it() {
    let dir = tempfile::tempdir().unwrap();
    let htpasswd = dir.path().join("htpasswd");
    std::fs::write(&htpasswd, format!("alice:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let asks = format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", htpasswd.display());
    let theirs = TheirRegistry::start(&asks).await;
    let here = Machine::new();
    let auth = |password: &str| distribution::client::Auth {
        username: "alice".into(),
        password: password.into(),
        ..Default::default()
    };
    here.client.login(&theirs.address, &auth("secret")).await.unwrap();
    let error = here.client.login(&theirs.address, &auth("wrong")).await.unwrap_err().to_string();
    assert_eq!(error, format!("login attempt to http://{}/v2/ failed with status: 401 Unauthorized", theirs.address));
    let name = reference(&format!("{}/app:1", theirs.address));
    let id = here.import(&name.to_string());
    assert!(here.client.push(&name, None, recorder().0).await.is_err());
    here.client.push(&name, Some(&auth("secret")), recorder().0).await.unwrap();
    assert_eq!(Machine::new().client.pull(&name, None, Some(&auth("secret")), recorder().0).await.unwrap(), id);
}
