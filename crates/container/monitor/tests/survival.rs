//! The engine is killed; its containers are not.

mod support;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use monitor::{AttachOptions, Handle};
use support::{World, exit_of};

/// Not a test by itself: the engine that the test below starts and kills.
#[tokio::test]
async fn engine_that_is_killed() {
    let Some(root) = std::env::var_os("GANTRY_TEST_ENGINE").map(PathBuf::from) else {
        return;
    };
    let world = World::new();
    let config = World::config("i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.002; done; exit 5");
    let mut launch = world.launch("survivor", &config);
    launch.dir = root.join("survivor");
    launch.log.path = launch.dir.join("log");
    launch.cgroup = std::env::var("GANTRY_TEST_CGROUP").unwrap();
    std::fs::create_dir(&launch.dir).unwrap();
    let created = world.zygote.create(&launch).await.unwrap();
    created.handle.start().await.unwrap();
    std::fs::write(root.join("zygote"), world.zygote.pid().to_string()).unwrap();
    std::mem::forget(world);
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_killed_engine_costs_no_container_no_line_and_no_exit_code() {
    let world = World::new();
    let cgroup = world.cgroup("survivor");
    let mut engine = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "engine_that_is_killed"])
        .env("GANTRY_TEST_ENGINE", world.root.path())
        .env("GANTRY_TEST_CGROUP", &cgroup)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let dir = world.dir("survivor");
    let zygote_file = world.root.path().join("zygote");
    testkit::assert_soon("the container runs", || {
        std::fs::metadata(&zygote_file).map(|_| ()).map_err(|e| e.to_string())
    });
    engine.kill().unwrap();
    engine.wait().unwrap();
    let zygote: i32 = std::fs::read_to_string(&zygote_file).unwrap().parse().unwrap();
    testkit::assert_soon("the zygote ends with its engine", || {
        let gone = std::fs::read_to_string(format!("/proc/{zygote}/stat")).map_or(true, |stat| stat.contains(") Z "));
        if gone { Ok(()) } else { Err("still there".into()) }
    });
    let handle = Handle::open(&dir).await.unwrap();
    let state = handle.state().await.unwrap();
    assert!(state.started && PathBuf::from(format!("/proc/{}", state.init_pid)).exists());
    eprintln!("monitor PSS: {} KiB", pss_kib(state.monitor_pid));
    let attached = handle.attach(AttachOptions { stdin: false, stdout: true, stderr: true }).await.unwrap();
    assert!(support::all(attached).await.ends_with("line 399\n"));
    assert_eq!(exit_of(&handle).await.code, 5);
    let log = std::fs::read_to_string(dir.join("log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 400);
    for (n, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!(r#"{{"log":"line {n}\n","#)), "{line}");
    }
    world.delete("survivor");
    world.finish();
}

fn pss_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
async fn a_killed_zygote_is_replaced() {
    let world = World::new();
    assert_eq!(world.run("one", &World::config("echo 1")).await.unwrap().1, "1\n");
    kernel::process::signal(world.zygote.pid() as i32, 9).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.run("two", &World::config("echo 2")).await.unwrap().1, "2\n");
    world.finish();
}
