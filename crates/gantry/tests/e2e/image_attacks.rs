//! Hostile images against a whole instance: nothing outside changes, and what unpacks can reach nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{self, World};

/// Makes a docker-archive of one layer whose entries a few lines of Python add to `t`.
fn archive(world: &World, dir: &Path, name: &str, entries: &str) -> String {
    let path = dir.join(name).display().to_string();
    let script = format!(
        r#"
import tarfile, io, hashlib, json, sys
raw = io.BytesIO()
t = tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT)
def add(name, kind=tarfile.REGTYPE, data=b"", link="", mode=0o644, uid=0, pax=None, major=0, minor=0):
    i = tarfile.TarInfo(name); i.type = kind; i.size = len(data); i.linkname = link; i.mode = mode; i.uid = uid
    i.devmajor, i.devminor = major, minor
    if pax: i.pax_headers = pax
    t.addfile(i, io.BytesIO(data))
{entries}
t.close()
layer = raw.getvalue()
config = json.dumps({{"architecture": "amd64", "os": "linux", "config": {{"Cmd": ["/bin/sh"]}}, "rootfs": {{"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}}}).encode()
out = tarfile.open(sys.argv[1], "w")
for n, d in (("l/layer.tar", layer), ("c.json", config), ("manifest.json", json.dumps([{{"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": ["l/layer.tar"]}}]).encode())):
    i = tarfile.TarInfo(n); i.size = len(d); out.addfile(i, io.BytesIO(d))
out.close()
"#
    );
    world.ok("python3", &["-c", &script, &path]);
    path
}

#[test]
fn hostile_layers_change_nothing_outside_and_leave_nothing_behind() {
    let world = World::new();
    world.up();
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("canary");
    std::fs::write(&canary, "safe").unwrap();
    let out = canary.display().to_string();
    let parent = dir.path().display().to_string();
    let metadata = || {
        use std::os::unix::fs::MetadataExt;
        let m = std::fs::metadata(&canary).unwrap();
        (m.uid(), m.mode(), m.nlink(), std::fs::read_to_string(&canary).unwrap())
    };
    let before = metadata();
    for (name, entries, words) in [
        ("up.tar", format!("add('../../../../../../../..{out}', data=b'owned')"), "leaves the target"),
        ("hard.tar", format!("add('x', tarfile.LNKTYPE, link='{out}')"), "hard link target"),
        ("whiteout.tar", "add('x', tarfile.CHRTYPE)".to_owned(), "whiteout"),
        ("pax.tar", "add('x', pax={'comment': 'y' * (4 << 20)})".to_owned(), "extended headers"),
    ] {
        let path = archive(&world, dir.path(), name, &entries);
        let refused = world.refused("docker", &["load", "-i", &path]);
        assert!(refused.contains(words), "{name}: {refused}");
        assert_eq!(metadata(), before, "{name}");
        assert_eq!(world.ok("docker", &["images", "-aq"]), "", "{name}");
        let half = std::fs::read_dir(world.root.join("snapshots/a")).unwrap().count();
        assert_eq!(half, 0, "{name}");
    }
    // Taken as it is written, inside: links out with a write, a mode and an owner behind them (CVE-2021-32760).
    let entries = format!(
        "add('out', tarfile.SYMTYPE, link='{parent}')\nadd('out/canary', data=b'owned', mode=0o777, uid=4242)\nadd('file', tarfile.SYMTYPE, link='{out}')\nadd('file', data=b'owned', uid=4242)\nadd('abs', tarfile.SYMTYPE, link='/')\nadd('{out}', data=b'owned')\nadd('user', pax={{'SCHILY.xattr.trusted.overlay.redirect': '/'}})"
    );
    let path = archive(&world, dir.path(), "inside.tar", &entries);
    assert!(world.ok("docker", &["load", "-i", &path]).contains("Loaded image: hostile:1"));
    assert_eq!(metadata(), before);
    // Image volumes that point outside are inside the container (CVE-2022-23648).
    world.import_busybox();
    let volume = format!("VOLUME /../../../../../../..{parent}");
    let tar = dir.path().join("rootfs.tar");
    world.ok("docker", &["create", "--name", "box", "busybox"]);
    world.ok("docker", &["export", "-o", harness::path(&tar), "box"]);
    world.ok("docker", &["import", "-c", &volume, harness::path(&tar), "volumes:1"]);
    let seen = world.run("docker", &["run", "--rm", "volumes:1", "/bin/cat", &out]);
    assert!(!harness::text(&seen.stdout).contains("safe"), "the host's file is not in the container");
    assert_eq!(metadata(), before);
}

#[test]
fn layers_are_unpacked_by_a_process_that_reaches_nothing_else() {
    let world = World::new();
    world.up();
    let dir = tempfile::tempdir().unwrap();
    let entries = "import os\nfor n in range(8000): add('d/%d' % n, data=b'x' * 3000)";
    let path = archive(&world, dir.path(), "large.tar", entries);
    let mut load = world.command("docker").args(["load", "-i", &path]).stdout(Stdio::null()).spawn().unwrap();
    let engine = world.pid();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut seen = None;
    while seen.is_none() && Instant::now() < deadline {
        seen = children(engine).into_iter().find_map(confined);
        if load.try_wait().unwrap().is_some() {
            break;
        }
    }
    assert!(load.wait().unwrap().success());
    let (root, status) = seen.expect("an unpacker was seen at work");
    assert!(root.starts_with(world.root.join("snapshots/a")), "its root is what it fills: {}", root.display());
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "1");
    let kept = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
    // Files' capabilities and SYS_ADMIN; neither NET_ADMIN (12) nor SYS_PTRACE (19) nor SYS_CHROOT (18).
    assert_eq!(kept & !(0b1_1111 | 1 << 21 | 1 << 27 | 1 << 31), 0, "{kept:x}");
    assert!(world.ok("docker", &["images", "-q"]).len() > 5);
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let all: String = tasks.flatten().map(of).collect::<Vec<_>>().join(" ");
    all.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Root and status of an unpacker that has confined itself.
fn confined(pid: u32) -> Option<(std::path::PathBuf, String)> {
    let name = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    if !name.starts_with(b"gantry-unpack\0") {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let root = std::fs::read_link(format!("/proc/{pid}/root")).ok()?;
    status.contains("Seccomp:\t2").then_some((root, status))
}
