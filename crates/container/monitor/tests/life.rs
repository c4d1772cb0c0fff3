//! A container's life on the real kernel: create, start, streams, execs, the end.

mod support;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use monitor::{AttachOptions, Error, ExecSpec, FailureKind, Handle, LogFormat};
use oci::runtime_spec::{Process, Spec};
use support::{World, all, both, exit_of};
use tokio::io::AsyncWriteExt;

const EVERYTHING: AttachOptions = AttachOptions { stdin: true, stdout: true, stderr: true };

fn process(spec: &Spec, script: &str) -> Process {
    let mut process = spec.process().clone().unwrap();
    process.set_args(Some(["sh", "-c", script].map(str::to_owned).to_vec()));
    process
}

#[tokio::test]
async fn the_exit_code_the_output_and_the_log_are_the_programs() {
    let world = World::new();
    let config = World::config("echo out; echo err >&2; exit 7");
    let created = world.create("a", &config).await.unwrap();
    let attached = created.handle.attach(EVERYTHING).await.unwrap();
    assert!(attached.stdin.is_none());
    created.handle.start().await.unwrap();
    let (out, err) = both(attached).await;
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    let exit = exit_of(&created.handle).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, None, false));
    let log = world.log("a");
    assert!(
        log.contains(r#"{"log":"out\n","stream":"stdout","time":""#) && log.contains(r#""stream":"stderr""#),
        "{log}"
    );
    // From the record, when the monitor is gone.
    testkit::assert_soon("the monitor leaves", || {
        if world.dir("a").join("monitor.sock").exists() { Err("still there".into()) } else { Ok(()) }
    });
    assert_eq!(
        Handle::open(&world.dir("a")).await.map(|_| ()).unwrap_err().to_string(),
        format!("the monitor of {} is gone", world.dir("a").display())
    );
    assert_eq!(exit_of(&created.handle).await, exit);
    world.delete("a");
    world.finish();
}

#[tokio::test]
async fn a_program_that_cannot_be_run_fails_in_runcs_words() {
    let world = World::new();
    let cases = [
        ("nosuch", r#"exec: "nosuch": executable file not found in $PATH"#, FailureKind::NotFound, 127),
        ("/nosuch", r#"exec: "/nosuch": stat /nosuch: no such file or directory"#, FailureKind::NotFound, 127),
        ("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#, FailureKind::NotExecutable, 126),
        ("/tmp", r#"exec: "/tmp": is a directory"#, FailureKind::NotExecutable, 126),
    ];
    for (program, message, kind, code) in cases {
        let mut config = World::config("");
        config.args = vec![program.to_owned()];
        match world.create("bad", &config).await {
            Err(Error::Refused(failure)) => {
                assert_eq!((failure.message.as_str(), failure.kind, failure.exit_code()), (message, kind, code))
            }
            other => panic!("{other:?}"),
        }
        world.delete("bad");
    }
    world.finish();
}

#[tokio::test]
async fn a_file_that_is_no_program_fails_at_start_and_the_container_has_exited() {
    let world = World::new();
    let script = world.image().join("bin/garbage");
    std::fs::write(&script, "\x7fELFgarbage").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut config = World::config("");
    config.args = vec!["garbage".to_owned()];
    let created = world.create("g", &config).await.unwrap();
    match created.handle.start().await {
        Err(Error::Refused(failure)) => {
            assert_eq!(failure.message, "exec /bin/garbage: exec format error")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(exit_of(&created.handle).await.code, 126);
    world.delete("g");
    world.finish();
}

#[tokio::test]
async fn half_closing_the_input_ends_it_and_the_output_still_comes() {
    let world = World::new();
    let mut launch = world.launch("cat", &World::config("cat; echo done"));
    (launch.open_stdin, launch.stdin_once) = (true, true);
    let created = world.zygote.create(&launch).await.unwrap();
    let mut attached = created.handle.attach(EVERYTHING).await.unwrap();
    created.handle.start().await.unwrap();
    let sent: String = (0..40_000).map(|n| format!("line {n}\n")).collect();
    let mut stdin = attached.stdin.take().unwrap();
    let (to_send, reader) = (sent.clone(), tokio::spawn(all(attached)));
    stdin.write_all(to_send.as_bytes()).await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(reader.await.unwrap(), sent + "done\n");
    assert_eq!(exit_of(&created.handle).await.code, 0);
    world.delete("cat");
    world.finish();
}

#[tokio::test]
async fn a_client_that_never_reads_holds_up_neither_the_container_nor_its_log() {
    let world = World::new();
    let created =
        world.create("loud", &World::config("yes $(printf %0200d 1) | head -n 20000; echo end")).await.unwrap();
    let idle = created.handle.attach(EVERYTHING).await.unwrap();
    created.handle.start().await.unwrap();
    testkit::assert_soon("the log is complete", || {
        let log = world.log("loud");
        if log.lines().last().is_some_and(|line| line.contains(r#""end\n""#)) { Ok(()) } else { Err("not yet".into()) }
    });
    assert_eq!(world.log("loud").lines().count(), 20_001);
    // And when it reads at last, nothing is missing.
    let output = all(idle).await;
    assert_eq!(output.lines().count(), 20_001);
    assert!(output.ends_with("1\nend\n"));
    world.delete("loud");
    world.finish();
}

#[tokio::test]
async fn an_exec_runs_inside_and_its_exit_code_is_its_own() {
    let world = World::new();
    let config = World::config("echo hello >/tmp/file; exec sleep 60");
    let launch = world.launch("e", &config);
    let created = world.zygote.create(&launch).await.unwrap();
    created.handle.start().await.unwrap();
    testkit::assert_soon("the file is there", || {
        std::fs::metadata(world.dir("e").join("upper/tmp/file")).map(|_| ()).map_err(|e| e.to_string())
    });
    let exec = |id: &str, script: &str, stdin| ExecSpec {
        id: id.to_owned(),
        process: process(&launch.spec, script),
        stdin,
        unconfined: false,
    };

    let mut inside = created
        .handle
        .exec(&exec("x1", "cat /tmp/file; hostname; cat /proc/self/cgroup | wc -l; exit 3", false))
        .await
        .unwrap();
    let output = all(inside.stdio.take().unwrap()).await;
    assert!(output.starts_with("hello\nbox\n"), "{output}");
    assert_eq!(inside.wait().await.unwrap().code, 3);
    assert_eq!(inside.wait().await.unwrap().code, 3, "may be asked again");

    let mut echo = created.handle.exec(&exec("x2", "cat", true)).await.unwrap();
    let mut stdio = echo.stdio.take().unwrap();
    let mut stdin = stdio.stdin.take().unwrap();
    stdin.write_all(b"through").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(all(stdio).await, "through");
    assert_eq!(echo.wait().await.unwrap().code, 0);

    let mut missing = exec("x3", "", false);
    missing.process.set_args(Some(vec!["nosuch".to_owned()]));
    match created.handle.exec(&missing).await {
        Err(Error::Refused(failure)) => {
            assert_eq!(failure.message, r#"exec: "nosuch": executable file not found in $PATH"#)
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(created.handle.adopt_exec("nobody").await, Err(Error::NoSuchExec(_))));
    created.handle.kill(9, false).await.unwrap();
    let exit = exit_of(&created.handle).await;
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    world.delete("e");
    world.finish();
}

#[tokio::test]
async fn a_terminal_is_a_terminal_of_the_size_that_was_asked_for() {
    let world = World::new();
    let mut config = World::config("tty; stty size; read line; stty size; echo got $line");
    config.terminal = true;
    config.console_size = Some((91, 17));
    let mut launch = world.launch("t", &config);
    launch.open_stdin = true;
    let created = world.zygote.create(&launch).await.unwrap();
    let mut attached = created.handle.attach(EVERYTHING).await.unwrap();
    created.handle.start().await.unwrap();
    let mut stdin = attached.stdin.take().unwrap();
    let mut seen = String::new();
    while !seen.contains("17 91\r\n") {
        seen.push_str(&String::from_utf8_lossy(&attached.output.next().await.unwrap().unwrap().data));
    }
    assert!(seen.starts_with("/dev/pts/0\r\n"), "{seen}");
    created.handle.resize(100, 30).await.unwrap();
    stdin.write_all(b"word\n").await.unwrap();
    let rest = all(attached).await;
    assert!(rest.contains("30 100\r\n") && rest.ends_with("got word\r\n"), "{rest:?}");
    assert_eq!(exit_of(&created.handle).await.code, 0);
    world.delete("t");
    world.finish();
}

#[tokio::test]
async fn a_cri_log_can_be_taken_away_and_reopened() {
    let world = World::new();
    let mut launch = world.launch("cri", &World::config("read a; echo one; read b; printf two"));
    launch.log.format = LogFormat::Cri;
    launch.open_stdin = true;
    let created = world.zygote.create(&launch).await.unwrap();
    let mut attached = created.handle.attach(EVERYTHING).await.unwrap();
    created.handle.start().await.unwrap();
    let mut stdin = attached.stdin.take().unwrap();
    stdin.write_all(b"\n").await.unwrap();
    let frame = attached.output.next().await.unwrap().unwrap();
    assert_eq!(&frame.data[..], b"one\n");
    std::fs::rename(world.dir("cri").join("log"), world.dir("cri").join("log.old")).unwrap();
    created.handle.reopen_log().await.unwrap();
    stdin.write_all(b"\n").await.unwrap();
    exit_of(&created.handle).await;
    assert!(std::fs::read_to_string(world.dir("cri").join("log.old")).unwrap().ends_with(" stdout F one\n"));
    assert!(world.log("cri").ends_with(" stdout P two\n"));
    world.delete("cri");
    world.finish();
}

#[tokio::test]
async fn an_out_of_memory_kill_is_on_record() {
    let world = World::new();
    let mut config = World::config("dd if=/dev/zero of=/dev/shm/x bs=1M count=60");
    config.resources.memory_bytes = Some(16 << 20);
    let created = world.create("oom", &config).await.unwrap();
    created.handle.start().await.unwrap();
    let exit = exit_of(&created.handle).await;
    assert!(exit.oom_killed && exit.code != 0, "{exit:?}");
    world.delete("oom");
    world.finish();
}

#[tokio::test]
async fn a_container_is_made_and_gone_within_the_budget() {
    let world = World::new();
    let mut took = Vec::new();
    for n in 0..10 {
        let id = format!("q{n}");
        let launch = world.launch(&id, &World::config("true"));
        let begin = Instant::now();
        let created = world.zygote.create(&launch).await.unwrap();
        let at_gate = begin.elapsed();
        created.handle.start().await.unwrap();
        exit_of(&created.handle).await;
        let exited = begin.elapsed();
        world.delete(&id);
        took.push((begin.elapsed(), at_gate, exited));
    }
    took.sort();
    eprintln!("total, at the gate, exited: median {:?}, best {:?}", took[5], took[0]);
    assert!(took[0].0 < Duration::from_millis(500));
    world.finish();
}
