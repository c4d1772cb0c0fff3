//! CRI v1 over the instance's own socket, by a gRPC client, on real containers; also what a hostile caller may try.

use std::collections::HashMap;
use std::time::Duration;

use cri::{Cri, CriError, RemoteCri, Streaming, v1};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pods;

fn sandbox(name: &str, logs: &std::path::Path) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: logs.to_string_lossy().into_owned(),
        labels: HashMap::from([("app".to_owned(), name.to_owned())]),
        annotations: HashMap::from([("note".to_owned(), "kept".to_owned())]),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: v1::NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            sysctls: HashMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "81".to_owned())]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container(name: &str, script: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "tools".to_owned(), ..Default::default() }),
        command: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
        log_path: format!("{name}/0.log"),
        labels: HashMap::from([("part".to_owned(), name.to_owned())]),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(v1::LinuxContainerResources {
                memory_limit_in_bytes: 64 << 20,
                cpu_shares: 256,
                ..Default::default()
            }),
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: v1::NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

async fn wait_for(cri: &RemoteCri, id: &str, state: v1::ContainerState) -> v1::ContainerStatus {
    for _ in 0..300 {
        let status = cri.container_status(id).await.unwrap();
        if status.state == i32::from(state) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("container {id} did not become {state:?}");
}

async fn text(stream: Option<cri::ByteStream>) -> String {
    let chunks: Vec<_> = stream.unwrap().collect().await;
    String::from_utf8(chunks.into_iter().flat_map(|chunk| chunk.unwrap()).collect()).unwrap()
}

#[test]
fn a_cri_client_drives_sandboxes_containers_images_streams_and_stats_over_the_socket() {
    let world = pods::world();
    let namespace = kernel::netns::Namespace::open(&world.network()).unwrap();
    let socket = world.root.join("run/cri.sock");
    let logs = tempfile::tempdir().unwrap();
    // The streaming server listens on the world's loopback, so its client must be there.
    namespace
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let cri = RemoteCri::new(&socket);
                images(&cri).await;
                lives(&cri, logs.path()).await;
                hostile(&cri, logs.path()).await;
            });
        })
        .unwrap();
}

async fn images(cri: &RemoteCri) {
    assert_eq!(cri.version().await.unwrap().runtime_api_version, "v1");
    let conditions = cri.status().await.unwrap().status.unwrap().conditions;
    assert!(conditions.iter().all(|one| one.status) && conditions.len() == 2, "{conditions:?}");
    assert!(cri.runtime_config().await.unwrap().linux.is_some());
    let spec = |image: &str| v1::ImageSpec { image: image.to_owned(), ..Default::default() };
    let id = cri.pull_image(spec("tools"), None).await.unwrap();
    let image = cri.image_status(&spec("tools")).await.unwrap().unwrap();
    assert_eq!(image.id, id, "an image that was made here needs no registry");
    assert!(image.size > 100_000 && image.repo_tags.iter().any(|tag| tag.contains("tools")), "{image:?}");
    assert!(cri.list_images().await.unwrap().iter().any(|one| one.id == id));
    assert!(cri.image_status(&spec("absent:1")).await.unwrap().is_none());
    let usage = cri.image_fs_info().await.unwrap().image_filesystems;
    assert!(usage[0].used_bytes.unwrap().value > 0);
    assert!(cri.pull_image(spec("localhost:5000/absent:1"), None).await.is_err());
    cri.remove_image(&spec("absent:1")).await.unwrap();
}

async fn lives(cri: &RemoteCri, logs: &std::path::Path) {
    let mut events = cri.events().await.unwrap();
    let config = sandbox("web", logs);
    let pod = cri.run_pod_sandbox(config.clone(), "").await.unwrap();
    let status = cri.pod_sandbox_status(&pod).await.unwrap();
    assert!(status.network.unwrap().ip.starts_with("10.42."), "it has an address");
    assert_eq!((status.labels["app"].as_str(), status.annotations["note"].as_str()), ("web", "kept"));
    let filter = |app: &str| {
        let label_selector = HashMap::from([("app".to_owned(), app.to_owned())]);
        Some(v1::PodSandboxFilter { label_selector, ..Default::default() })
    };
    assert_eq!(cri.list_pod_sandbox(filter("web")).await.unwrap().len(), 1);
    assert!(cri.list_pod_sandbox(filter("none")).await.unwrap().is_empty());

    std::fs::create_dir_all(logs.join("server")).unwrap();
    let script = "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; httpd -p 8080 -h /www; read line; echo got $line; sleep 1000";
    let wanted = v1::ContainerConfig { stdin: true, ..container("server", script) };
    let id = cri.create_container(&pod, wanted, config.clone()).await.unwrap();
    assert_eq!(cri.container_status(&id).await.unwrap().state, i32::from(v1::ContainerState::ContainerCreated));
    cri.start_container(&id).await.unwrap();
    let running = wait_for(cri, &id, v1::ContainerState::ContainerRunning).await;
    assert!(running.started_at > 0 && running.log_path.ends_with("server/0.log"), "{running:?}");
    let in_pod = v1::ContainerFilter { pod_sandbox_id: pod.clone(), ..Default::default() };
    assert_eq!(cri.list_containers(Some(in_pod)).await.unwrap().len(), 1);

    // Commands: to their end, with their code, within their time.
    let run = |script: &str, seconds| {
        let command = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        cri.exec_sync(&id, command, Duration::from_secs(seconds))
    };
    let answer = run("echo out; echo err >&2; exit 5", 10).await.unwrap();
    assert_eq!(
        (answer.stdout.as_slice(), answer.stderr.as_slice(), answer.exit_code),
        (&b"out\n"[..], &b"err\n"[..], 5)
    );
    assert!(matches!(run("sleep 33", 1).await.unwrap_err(), CriError::DeadlineExceeded(_)));
    let left = run("ps | grep -c '[s]leep 33'", 10).await.unwrap();
    assert_ne!(left.stdout, b"2\n", "the shell that timed out is gone");

    // Streams.
    let request = v1::ExecRequest {
        container_id: id.clone(),
        cmd: vec!["sh".to_owned(), "-c".to_owned(), "cat; echo done >&2; exit 3".to_owned()],
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut session = cri.exec(request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"through the socket\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let (out, err) = tokio::join!(text(session.stdout.take()), text(session.stderr.take()));
    assert_eq!((out.as_str(), err.as_str()), ("through the socket\n", "done\n"));
    assert_eq!(session.exit.await, Ok(3));
    let request = v1::AttachRequest { container_id: id.clone(), stdin: true, stdout: true, ..Default::default() };
    let mut session = cri.attach(request).await.unwrap();
    session.stdin.take().unwrap().write_all(b"hello\n").await.unwrap();
    let said = session.stdout.as_mut().unwrap().next().await.unwrap().unwrap();
    assert_eq!(said, "got hello\n");
    drop(session);
    let mut pipe = cri.port_forward(&pod, 8080).await.unwrap();
    pipe.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.unwrap();
    let mut page = String::new();
    pipe.read_to_string(&mut page).await.unwrap();
    assert!(page.contains("200 OK") && page.contains("hello"), "{page}");

    // Numbers.
    let stats = cri.container_stats(&id).await.unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    let stats = cri.pod_sandbox_stats(&pod).await.unwrap().linux.unwrap();
    assert!(stats.network.unwrap().default_interface.unwrap().rx_bytes.unwrap().value > 0);
    assert_eq!(stats.containers.len(), 1);
    assert_eq!(cri.list_pod_sandbox_stats(None).await.unwrap().len(), 1);
    let metrics = cri.list_pod_sandbox_metrics().await.unwrap();
    let names: Vec<String> = cri.list_metric_descriptors().await.unwrap().into_iter().map(|one| one.name).collect();
    assert!(metrics[0].metrics.iter().all(|metric| names.contains(&metric.name)), "{metrics:?}");
    let more = v1::LinuxContainerResources { memory_limit_in_bytes: 96 << 20, ..Default::default() };
    cri.update_container_resources(&id, more).await.unwrap();

    // The log, before and after somebody took it away.
    let log = logs.join("server/0.log");
    let first = std::fs::read_to_string(&log).unwrap();
    assert!(
        first.contains(" stdout F web\n")
            && first.contains(" stdout F 81\n")
            && first.contains(" stdout F got hello\n"),
        "{first}"
    );
    std::fs::rename(&log, logs.join("server/old.log")).unwrap();
    cri.reopen_container_log(&id).await.unwrap();
    assert!(log.exists());

    cri.stop_container(&id, 1).await.unwrap();
    let ended = wait_for(cri, &id, v1::ContainerState::ContainerExited).await;
    assert!(ended.finished_at >= ended.started_at && ended.exit_code == 137, "{ended:?}");
    cri.stop_container(&id, 1).await.unwrap();
    cri.stop_pod_sandbox(&pod).await.unwrap();
    cri.stop_pod_sandbox(&pod).await.unwrap();
    cri.remove_pod_sandbox(&pod).await.unwrap();
    cri.remove_pod_sandbox(&pod).await.unwrap();
    assert!(cri.container_status(&id).await.unwrap_err().is_not_found());
    let mut kinds = Vec::new();
    while let Ok(Some(Ok(event))) = tokio::time::timeout(Duration::from_secs(2), events.next()).await {
        if event.container_id == id {
            kinds.push(event.container_event_type());
        }
    }
    use v1::ContainerEventType::{
        ContainerCreatedEvent, ContainerDeletedEvent, ContainerStartedEvent, ContainerStoppedEvent,
    };
    assert_eq!(kinds, [ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent, ContainerDeletedEvent]);
}

/// What is wrong is refused, and a log never leaves its folder.
async fn hostile(cri: &RemoteCri, logs: &std::path::Path) {
    let config = sandbox("evil", logs);
    assert!(matches!(cri.run_pod_sandbox(config.clone(), "kata").await.unwrap_err(), CriError::InvalidArgument(_)));
    let mut sysctl = config.clone();
    sysctl.linux.as_mut().unwrap().sysctls = HashMap::from([("kernel.core_pattern".to_owned(), "|/bin/sh".to_owned())]);
    assert!(cri.run_pod_sandbox(sysctl, "").await.is_err());
    let pod = cri.run_pod_sandbox(config.clone(), "").await.unwrap();
    let outside = logs.join("outside");
    std::fs::write(&outside, "precious").unwrap();
    std::fs::create_dir_all(logs.join("linked")).unwrap();
    std::os::unix::fs::symlink(&outside, logs.join("linked/0.log")).unwrap();
    let made = cri.create_container(&pod, container("linked", "echo overwritten; sleep 1"), config.clone()).await;
    if let Ok(id) = made
        && cri.start_container(&id).await.is_ok()
    {
        wait_for(cri, &id, v1::ContainerState::ContainerExited).await;
    }
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "precious", "the log followed a link");
    let escaping =
        v1::ContainerConfig { log_path: "../../../../tmp/escaped.log".to_owned(), ..container("escaping", "true") };
    let made = cri.create_container(&pod, escaping, config.clone()).await;
    assert!(matches!(made, Err(CriError::InvalidArgument(_))), "{made:?}");
    let nothing = v1::ExecRequest {
        container_id: "none".to_owned(),
        cmd: vec!["true".to_owned()],
        stdout: true,
        ..Default::default()
    };
    assert!(cri.exec(nothing).await.map(drop).unwrap_err().is_not_found());
    let image = v1::ContainerConfig {
        image: Some(v1::ImageSpec { image: "absent:1".to_owned(), ..Default::default() }),
        ..container("imageless", "true")
    };
    assert!(cri.create_container(&pod, image, config).await.is_err());
    cri.remove_pod_sandbox(&pod).await.unwrap();
}
