//! Known attacks on builders: hostile contexts, images and steps reach neither the host's files nor privileges that were
//! not granted; a killed build leaves nothing half-made.

use std::path::Path;

use crate::builds::{Context, build, sh, world};
use crate::harness::{self, World};

/// A file and a folder of the host's that nothing may touch.
struct Canary(tempfile::TempDir);

impl Canary {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("canary").tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "of the host").unwrap();
        std::fs::create_dir_all(dir.path().join("empty/b")).unwrap();
        Self(dir)
    }

    fn path(&self) -> &str {
        harness::path(self.0.path())
    }

    fn is_unharmed(&self, after: &str) {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::symlink_metadata(self.0.path().join("secret")).expect(after);
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o644, 0), "{after}");
        assert_eq!(std::fs::read_to_string(self.0.path().join("secret")).unwrap(), "of the host", "{after}");
        let mut names: Vec<_> = std::fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["empty", "secret"], "{after}");
        assert!(self.0.path().join("empty/b").is_dir(), "{after}");
    }
}

#[test]
fn steps_with_swapped_cache_mounts_and_stubs_touch_only_their_own_root() {
    let world = world();
    let canary = Canary::new();
    let at = canary.path();
    // CVE-2024-23651: a path in a cache mount that another step made a link.
    // CVE-2024-23652: a mount point's parent that the step made a link, so that the stub's removal goes elsewhere.
    let text = format!(
        "FROM base\n\
         RUN --mount=type=cache,id=c,target=/c ln -s / /c/root && ln -s {at} /c/canary && ln -s ../../../../../../..{at} /c/up\n\
         RUN --mount=type=cache,id=c,source=root,target=/host test ! -e /host{at}/secret && ls /host > /seen\n\
         RUN --mount=type=tmpfs,target=/a/b mv /a /was && ln -s {at}/empty /a\n\
         RUN --mount=type=bind,from=base,source=etc,target=/x ! touch /x/new\n\
         RUN ln -s {at} /out && ln -s {at}/secret /file\n\
         COPY --chown=7 --chmod=777 a /out/secret\n\
         COPY --chown=7 --chmod=777 a /file\n\
         ADD --chown=7 tree.tar /out/\n\
         WORKDIR /out/work\n\
         RUN --mount=type=tmpfs,target=/out/t touch /out/t/x\n"
    );
    let context = Context::new(&[("Dockerfile", &text), ("a", "a"), ("tree/secret", "replaced")]);
    assert!(
        std::process::Command::new("tar")
            .args(["-C"])
            .arg(context.dir().join("tree"))
            .arg("-cf")
            .arg(context.dir().join("tree.tar"))
            .arg("secret")
            .status()
            .unwrap()
            .success()
    );
    build(&world, &context, &["-t", "swapped"]);
    canary.is_unharmed("a build with swapped links");
    assert_eq!(
        sh(&world, "swapped", &format!("cat {at}/secret; stat -c %u:%a /file; cat /seen | tr '\\n' ' '")),
        "replaced7:777\ncanary root up"
    );
    // The source of a mount may not be such a link to nowhere, either; and a whole cache is not the host's.
    for mount in [
        "type=cache,id=c,source=canary,target=/h",
        "type=cache,id=c,source=up,target=/h",
        "type=bind,source=link,target=/h",
    ] {
        context.write("Dockerfile", &format!("FROM base\nRUN --mount={mount} true\n"));
        let _ = std::os::unix::fs::symlink(at, context.dir().join("link"));
        let failed = world.refused("docker", &["build", context.path()]);
        assert!(failed.contains("cannot mount"), "{mount}: {failed}");
    }
    canary.is_unharmed("mounts of links");
    for (text, wanted) in [
        ("FROM base\nRUN --security=insecure true\n", "security.insecure is not allowed"),
        ("FROM base\nRUN --network=host true\n", "network.host is not allowed"),
        ("FROM base AS onb\nONBUILD RUN --security=insecure true\n", ""),
    ] {
        context.write("Dockerfile", text);
        if wanted.is_empty() {
            build(&world, &context, &["-t", "onb"]);
            context.write("Dockerfile", "FROM onb\nRUN true\n");
        }
        let failed = world.refused("docker", &["build", context.path()]);
        assert!(failed.contains("is not allowed"), "{text}: {failed}");
    }
}

/// Python that writes a hostile archive: entries as (name, kind, link).
const ARCHIVE: &str = r#"
import io, sys, tarfile
out, canary = sys.argv[1], sys.argv[2]
def entry(name, kind=tarfile.REGTYPE, link="", data=b"evil"):
    info = tarfile.TarInfo(name); info.type = kind; info.linkname = link; info.mode = 0o777
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    info.devmajor, info.devminor = 1, 3
    return info, data
sets = {
    "up": [entry("../../../../../../../.." + canary + "/new"), entry("x")],
    "absolute": [entry(canary + "/new")],
    "through": [entry("l", tarfile.SYMTYPE, canary), entry("l/new"), entry("l/secret")],
    "hard": [entry("h", tarfile.LNKTYPE, canary + "/secret"), entry("h")],
    "device": [entry("d/null", tarfile.CHRTYPE)],
    "pipe": [entry("d/p", tarfile.FIFOTYPE)],
    "link": [entry("link", tarfile.SYMTYPE, canary + "/secret"), entry("dir", tarfile.SYMTYPE, canary), entry("plain")],
}
for name, entries in sets.items():
    with tarfile.open(f"{out}/{name}.tar", "w") as tar:
        if name != "link" or True:
            text = b"FROM base\nCOPY . /all/\n"
            info = tarfile.TarInfo("Dockerfile"); info.size = len(text); tar.addfile(info, io.BytesIO(text))
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data) if info.size else None)
"#;

#[test]
fn hostile_contexts_and_archives_reach_nothing_outside() {
    let world = world();
    let canary = Canary::new();
    let out = tempfile::tempdir().unwrap();
    world.ok("python3", &["-c", ARCHIVE, harness::path(out.path()), canary.path()]);
    for name in ["up", "absolute", "through", "hard", "device", "pipe", "link"] {
        let tar = out.path().join(format!("{name}.tar"));
        // As a context, and as an archive that ADD unpacks; by both builders.
        for client in [&["build"][..], &["buildx", "build"]] {
            let script = format!("docker {} -t hostile - < $0", client.join(" "));
            let built = world.run("sh", &["-c", &script, harness::path(&tar)]);
            canary.is_unharmed(&format!("context {name}: {}", harness::text(&built.stderr)));
            if built.status.success() {
                assert!(!sh(&world, "hostile", "find /all -type f | xargs cat").contains("of the host"), "{name}");
            }
        }
        let added = Context::new(&[("Dockerfile", "FROM base\nADD archive.tar /all/\n")]);
        std::fs::copy(&tar, added.dir().join("archive.tar")).unwrap();
        let built = world.run("docker", &["build", "-t", "hostile", added.path()]);
        canary.is_unharmed(&format!("archive {name}: {}", harness::text(&built.stderr)));
        if built.status.success() {
            assert!(!sh(&world, "hostile", "find /all -type f | xargs cat").contains("of the host"), "{name}");
        }
    }
    // A link in a context is copied as a link where its folder is copied, and leads to nothing where it is named.
    let links = Context::new(&[("in/plain", "plain")]);
    std::os::unix::fs::symlink(format!("{}/secret", canary.path()), links.dir().join("in/link")).unwrap();
    std::os::unix::fs::symlink(canary.path(), links.dir().join("in/dir")).unwrap();
    for (text, works) in [
        ("FROM base\nCOPY in /all\n", true),
        ("FROM base\nCOPY in/link /got\n", false),
        ("FROM base\nCOPY in/dir/secret /got\n", false),
        ("FROM base\nCOPY in/dir /got\n", false),
        ("FROM base\nCOPY ../../../../../../etc/passwd /got\n", false),
    ] {
        links.write("Dockerfile", text);
        let built = world.run("docker", &["build", "-t", "links", links.path()]);
        assert_eq!(built.status.success(), works, "{text}: {}", harness::text(&built.stderr));
    }
    assert_eq!(sh(&world, "links", "readlink /all/link; cat /all/plain"), format!("{}/secret\nplain", canary.path()));
    nothing_half_made(&world);
}

#[test]
fn kill_9_in_mid_build_leaves_nothing_half_made() {
    let world = world();
    let context = Context::new(&[
        (
            "Dockerfile",
            "FROM base\nRUN echo first > /first\nRUN --mount=type=cache,target=/c --mount=target=/src touch /c/kept; sleep 98765\n",
        ),
        ("file", "x"),
    ]);
    let images = || world.ok("docker", &["images", "-aq"]);
    let before = images();
    for client in [&["build"][..], &["buildx", "build"]] {
        let mut building = world
            .command("docker")
            .args(client)
            .arg(context.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let waited = std::time::Instant::now();
        while !has_step(&world.root) || !step_runs() {
            assert!(waited.elapsed().as_secs() < 60, "the step never ran");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        world.ok("kill", &["-9", &world.pid().to_string()]);
        let _ = building.wait();
        world.up();
        nothing_half_made(&world);
        assert_eq!(images(), before);
        assert!(!has_step(&world.root) && !step_runs());
    }
    // What was done before the kill is not done again, and the files that a step was shown are still the client's.
    context.write("Dockerfile", "FROM base\nRUN echo first > /first\nRUN --mount=type=cache,target=/c ls /c > /kept\n");
    assert_eq!(build(&world, &context, &["-t", "after"]).matches("Using cache").count(), 1);
    assert_eq!(sh(&world, "after", "cat /first /kept"), "first\nkept");
    assert_eq!(std::fs::read_to_string(context.dir().join("file")).unwrap(), "x");
}

/// Whether a process of the step that sleeps is there.
fn step_runs() -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else { return false };
    let lines = entries.flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let step = |line: &Vec<u8>| {
        let text = String::from_utf8_lossy(line);
        text.contains("98765") && (text.starts_with("/bin/sh") || text.starts_with("sleep"))
    };
    lines.filter(step).count() > 0
}

fn has_step(root: &Path) -> bool {
    std::fs::read_dir(root.join("steps")).is_ok_and(|mut steps| steps.next().is_some())
}

/// No step's folder, mount, container, or temporary file.
fn nothing_half_made(world: &World) {
    let script =
        "ls $0/builds/tmp $0/steps 2>/dev/null | grep -v :$; grep -c $0/builds /proc/self/mounts; docker ps -aq";
    let left = world.ok("sh", &["-c", script, harness::path(&world.root)]);
    assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["0"], "{left}");
}
