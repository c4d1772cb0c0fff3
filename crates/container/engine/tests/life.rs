//! Containers through the engine's API on the real kernel: their life, their streams, their network, their volumes.

mod support;

use std::time::Duration;

use engine::{AttachOptions, ExecConfig, LogOptions, Phase, RemoveOptions};
use futures_util::StreamExt;
use support::{World, run, shell};
use tokio::io::AsyncWriteExt;

#[test]
fn output_and_exit_code_are_the_programs() {
    World::run(|world| {
        let running = world.start_with_image();
        let engine = &running.engine;
        running.block_on(async {
            assert_eq!(
                Box::pin(run(engine, shell("one", "echo out; echo err >&2; exit 7"))).await,
                (7, "out\nerr\n".to_owned())
            );
            let both = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
            let log: Vec<_> = engine.container_logs("one", both).await.unwrap().map(|entry| entry.data).collect().await;
            assert_eq!(log.concat(), "out\nerr\n");
            assert!(matches!(engine.container("one").unwrap().phase, Phase::Exited(exited) if exited.code == 7));
        });
    });
}

#[test]
fn a_half_closed_input_keeps_the_output() {
    World::run(|world| {
        let running = world.start_with_image();
        let engine = &running.engine;
        running.block_on(async {
            let mut request = shell("cat", "cat; echo done");
            (request.config.open_stdin, request.config.stdin_once) = (true, true);
            engine.create_container(request).await.unwrap();
            let options = AttachOptions { stdin: true, stdout: true, stderr: true };
            let mut streams = engine.attach_container("cat", options).await.unwrap();
            engine.start_container("cat").await.unwrap();
            let mut stdin = streams.stdin.take().unwrap();
            stdin.write_all(b"input\n").await.unwrap();
            stdin.shutdown().await.unwrap();
            drop(stdin);
            let output: Vec<_> = streams.output.map(|frame| frame.data).collect().await;
            assert_eq!(String::from_utf8(output.concat()).unwrap(), "input\ndone\n");
        });
    });
}

#[test]
fn a_name_that_is_taken_is_a_conflict_in_dockers_words() {
    World::run(|world| {
        let running = world.start_with_image();
        running.block_on(async {
            let id = running.engine.create_container(shell("web", "true")).await.unwrap().id;
            let error = running.engine.create_container(shell("web", "true")).await.unwrap_err().to_string();
            assert!(
                error.starts_with(&format!(
                    "Conflict. The container name \"/web\" is already in use by container \"{id}\""
                )),
                "{error}"
            );
            running.engine.remove_container("web", RemoveOptions::default()).await.unwrap();
            running.engine.create_container(shell("web", "true")).await.unwrap();
        });
    });
}

#[test]
fn a_program_that_is_not_there_exits_127_and_leaves_nothing_running() {
    World::run(|world| {
        let running = world.start_with_image();
        running.block_on(async {
            let mut request = shell("none", "");
            request.config.cmd = Some(vec!["nosuch".to_owned()]);
            running.engine.create_container(request).await.unwrap();
            let error = running.engine.start_container("none").await.unwrap_err();
            assert!(matches!(&error, engine::Error::StartFailed { exit_code: 127, .. }), "{error}");
            assert!(error.to_string().contains("exec: \"nosuch\": executable file not found in $PATH"), "{error}");
            assert!(
                running.engine.networking().endpoints(&running.engine.container("none").unwrap().record.id).is_empty()
            );
        });
    });
}

#[test]
fn an_execs_exit_code_is_known_when_its_output_ends() {
    World::run(|world| {
        let running = world.start_with_image();
        let engine = &running.engine;
        running.block_on(async {
            engine.create_container(shell("web", "sleep 60")).await.unwrap();
            engine.start_container("web").await.unwrap();
            let cmd = ["sh", "-c", "echo $0 $(id -u) $X; exit 3"].map(str::to_owned).into();
            let config = ExecConfig {
                cmd,
                env: vec!["X=y".to_owned()],
                user: "nobody".to_owned(),
                attach_stdout: true,
                ..ExecConfig::default()
            };
            let exec = engine.exec_create("web", config).await.unwrap();
            let streams = engine.exec_start(&exec).await.unwrap();
            let output: Vec<_> = streams.output.map(|frame| frame.data).collect().await;
            assert_eq!(String::from_utf8(output.concat()).unwrap(), "sh 65534 y\n");
            assert_eq!(engine.exec_inspect(&exec).unwrap().exit_code, Some(3));
            engine.stop_container("web", Some(Duration::ZERO)).await.unwrap();
            assert!(engine.exec_inspect(&exec).is_err(), "execs end with their container");
        });
    });
}

#[test]
fn a_volume_is_filled_from_the_image_and_outlives_its_containers() {
    World::run(|world| {
        let running = world.start_with_image();
        let engine = &running.engine;
        running.block_on(async {
            let mut request = shell("one", "cat /data/passwd >/dev/null && echo mine >/data/file");
            request.host.binds = Some(vec!["data:/data".to_owned()]);
            assert_eq!(Box::pin(run(engine, request)).await.0, 1, "an image without the directory fills nothing");
            let mut request = shell("two", "test -s /etc/passwd && echo mine >/etc/file");
            request.host.binds = Some(vec!["etc:/etc".to_owned()]);
            assert_eq!(Box::pin(run(engine, request)).await, (0, String::new()));
            let error = engine.remove_volume("etc", false).await.unwrap_err().to_string();
            assert!(error.starts_with("remove etc: volume is in use - ["), "{error}");
            let mut request = shell("three", "cat /x/file");
            request.host.binds = Some(vec!["etc:/x:ro".to_owned()]);
            assert_eq!(Box::pin(run(engine, request)).await, (0, "mine\n".to_owned()));
        });
    });
}

#[test]
fn a_restart_policy_starts_again_until_its_limit() {
    World::run(|world| {
        let running = world.start_with_image();
        let engine = &running.engine;
        running.block_on(async {
            let mut request = shell("again", "exit 1");
            request.host.restart_policy.name = "on-failure".to_owned();
            request.host.restart_policy.maximum_retry_count = 2;
            engine.create_container(request).await.unwrap();
            engine.start_container("again").await.unwrap();
            support::until("two restarts, then the end", || {
                let container = engine.container("again").unwrap();
                container.record.restart_count == 2 && matches!(container.phase, Phase::Exited(_))
            })
            .await;
        });
    });
}
