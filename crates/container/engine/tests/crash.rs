//! What a killed engine leaves, and what the next one makes of it.

mod support;

use std::fs;

use engine::{InSandbox, Phase, SandboxSpec};
use support::{World, shell};

fn lives(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_running_container_is_adopted_with_the_same_process() {
    World::run(|world| {
        let first = world.start_with_image();
        let pid = first.block_on(async {
            first.engine.create_container(shell("survivor", "sleep 60")).await.unwrap();
            first.engine.start_container("survivor").await.unwrap();
            first.engine.container("survivor").unwrap().pid()
        });
        drop(first);
        assert!(lives(pid));
        let second = world.start();
        let container = second.engine.container("survivor").unwrap();
        assert_eq!(container.pid(), pid);
        assert_eq!(container.attachments.len(), 1, "its endpoint is adopted as well");
        second.block_on(async {
            let waiting = second.engine.begin_wait("survivor", engine::WaitCondition::NotRunning).unwrap();
            second.engine.kill_container("survivor", "KILL").await.unwrap();
            assert_eq!(waiting.await.unwrap(), 137);
        });
        assert!(!lives(pid));
    });
}

#[test]
fn an_exit_while_the_engine_is_gone_is_known_afterwards() {
    World::run(|world| {
        let first = world.start_with_image();
        let id = first.block_on(async {
            let id = first.engine.create_container(shell("short", "sleep 0.3; exit 5")).await.unwrap().id;
            first.engine.start_container("short").await.unwrap();
            id
        });
        drop(first);
        let exit = world.root.path().join("containers").join(&id).join("exit.json");
        testkit::assert_soon(
            "the monitor records the exit",
            || if exit.exists() { Ok(()) } else { Err(String::new()) },
        );
        let second = world.start();
        let phase = second.engine.container("short").unwrap().phase;
        assert!(matches!(&phase, Phase::Exited(exited) if exited.code == 5), "{phase:?}");
    });
}

#[test]
fn an_interrupted_create_is_undone_at_the_next_open() {
    World::run(|world| {
        let first = world.start_with_image();
        let id = first.block_on(async {
            let mut request = shell("half", "true");
            request.config.volumes = Some([("/anonymous".to_owned(), engine::config::Empty {})].into());
            first.engine.create_container(request).await.unwrap().id
        });
        assert_eq!(first.engine.volumes().list().len(), 1);
        drop(first);
        // The last step of a create is this rename: undone, it is a create that was killed just before.
        let dir = world.root.path().join("containers").join(&id);
        fs::rename(dir.join("record.json"), dir.join("intent.json")).unwrap();
        let second = world.start();
        assert!(second.engine.containers().is_empty());
        assert!(second.engine.volumes().list().is_empty());
        assert!(!dir.exists());
        assert!(second.engine.snapshots().get(&id).is_err());
    });
}

#[test]
fn an_interrupted_removal_is_finished_at_the_next_open() {
    World::run(|world| {
        let first = world.start_with_image();
        let id = first.block_on(async { first.engine.create_container(shell("going", "true")).await.unwrap().id });
        drop(first);
        let trash = world.root.path().join("containers/.trash").join(&id);
        fs::rename(world.root.path().join("containers").join(&id), &trash).unwrap();
        let second = world.start();
        assert!(second.engine.containers().is_empty());
        second.block_on(support::until("the rest is taken away", || !trash.exists()));
        assert!(second.engine.snapshots().get(&id).is_err());
    });
}

#[test]
fn a_sandbox_shares_its_namespaces_and_is_adopted() {
    World::run(|world| {
        let first = world.start_with_image();
        let spec = SandboxSpec {
            name: "pod".to_owned(),
            namespace: "default".to_owned(),
            uid: "1-2-3".to_owned(),
            hostname: "podname".to_owned(),
            ..SandboxSpec::default()
        };
        let sandbox = first.block_on(first.engine.create_sandbox(spec)).unwrap();
        drop(first);
        let second = world.start();
        let adopted = second.engine.sandbox(&sandbox.id).unwrap();
        assert_eq!(adopted, sandbox);
        let log = world.root.path().join("0.log");
        let script = "hostname; ip -4 addr show eth0 | grep -o 'inet [0-9.]*'; readlink /proc/self/ns/ipc";
        second.block_on(async {
            let mut said = Vec::new();
            for name in ["a1", "b1"] {
                let mut request = shell(name, script);
                request.pod = Some(InSandbox { sandbox: sandbox.id.clone(), log_path: Some(log.clone()) });
                said.push(Box::pin(support::run(&second.engine, request)).await.1);
            }
            assert!(said[0].starts_with(&format!("podname\ninet {}\n", sandbox.ip.unwrap())), "{said:?}");
            assert_eq!(said[0], said[1], "both containers have the same namespaces");
        });
        assert!(fs::read_to_string(&log).unwrap().contains(" stdout F podname\n"));
        second.block_on(second.engine.remove_sandbox(&sandbox.id)).unwrap();
        assert!(second.engine.sandboxes().is_empty() && second.engine.containers().is_empty());
        assert!(!world.root.path().join("sandboxes").join(&sandbox.id).exists());
    });
}
