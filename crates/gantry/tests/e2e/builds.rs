//! `docker build` through the stock client and the classic builder: whole builds, looked at from inside their images.

use std::path::Path;
use std::process::Stdio;

use crate::harness::{self, World};

/// A build context.
pub struct Context(tempfile::TempDir);

impl Context {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let context = Self(tempfile::tempdir().expect("a temporary folder"));
        for (name, text) in files {
            context.write(name, text);
        }
        context
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the context")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self) -> &str {
        harness::path(self.0.path())
    }
}

/// A world with an image `base`: busybox with all its applets, two users.
pub fn world() -> World {
    let world = World::new();
    world.up();
    world.import_busybox();
    let base = Context::new(&[(
        "Dockerfile",
        "FROM busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN mkdir -p /etc /tmp && chmod 1777 /tmp && printf 'root:x:0:0::/root:/bin/sh\\napp:x:1000:1001::/:/bin/sh\\n' > /etc/passwd && printf 'root:x:0:\\nusers:x:100:app\\napp:x:1001:\\n' > /etc/group\n",
    )]);
    build(&world, &base, &["-t", "base"]);
    world
}

/// Builds a context; what the client printed.
pub fn build(world: &World, context: &Context, args: &[&str]) -> String {
    world.ok("docker", &[&["build"], args, &[context.path()]].concat())
}

/// What a shell prints in a container of an image.
pub fn sh(world: &World, image: &str, script: &str) -> String {
    world.ok("docker", &["run", "--rm", "--net=none", "--entrypoint", "/bin/sh", image, "-c", script])
}

fn inspect(world: &World, image: &str, template: &str) -> String {
    world.ok("docker", &["image", "inspect", "-f", &format!("{{{{json .Config.{template}}}}}"), image])
}

const EVERYTHING: &str = r#"# syntax=docker/dockerfile:1
ARG BASE=base
FROM ${BASE} AS one
MAINTAINER somebody
ARG WHO=nobody
ENV GREETING="hello ${WHO}" EMPTY=
LABEL who=$WHO "a label"="x y"
WORKDIR /srv
WORKDIR app
COPY a.txt b.txt ./
COPY --chown=app:users --chmod=640 a.txt owned.txt
COPY --chmod=u+x,go-r a.txt symbolic.txt
COPY --chown=77 dir /srv/dir/
COPY --exclude=*.md dir /srv/filtered/
COPY --parents dir/./deep/x.txt dir/y.md /srv/parents/
ADD archive.tar.gz /unpacked/
ADD a.txt /added/
ADD --chown=5:6 archive.tar.gz /chowned
COPY <<EOF <<'RAW' /heredocs/
expanded $GREETING
EOF
raw $GREETING
RAW
RUN <<EOF
set -e
echo first > /heredoc-run
echo second >> /heredoc-run
EOF
RUN cat <<ONE > /one && cat <<-TWO > /two
a $WHO
ONE
	b
TWO
RUN <<EOF
#!/bin/awk -f
BEGIN { print "from awk" > "/awk" }
EOF
SHELL ["/bin/sh", "-ec"]
RUN echo "$WHO:$GREETING:$(pwd):$0" > /seen
RUN --network=none ls /sys/class/net > /links
USER app
RUN echo "$(id -u):$(id -g):$(id -G)" > /tmp/ids
USER root
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s --retries=2 CMD true
ENTRYPOINT ["/bin/echo"]
CMD ["from", "cmd"]
ONBUILD RUN echo triggered > /triggered
ONBUILD COPY a.txt /onbuild.txt

FROM one AS two
RUN test ! -e /triggered

FROM base AS unused
RUN exit 7

FROM scratch
COPY --from=one /srv/app/a.txt /
COPY --from=0 /seen /copied/
COPY --from=busybox:latest /bin/busybox /bin/
COPY --from=two /etc/passwd /etc/
CMD ["/bin/busybox", "ls"]
"#;

fn everything() -> Context {
    let context = Context::new(&[
        ("Dockerfile", EVERYTHING),
        ("a.txt", "a\n"),
        ("b.txt", "b\n"),
        ("dir/deep/x.txt", "x\n"),
        ("dir/y.md", "y\n"),
        ("tree/packed.txt", "packed\n"),
    ]);
    let script = "tar -C $0/tree --owner=12 --group=34 -czf $0/archive.tar.gz packed.txt && rm -r $0/tree && ln -s deep/x.txt $0/dir/link";
    assert!(std::process::Command::new("sh").args(["-c", script, context.path()]).status().unwrap().success());
    context
}

#[test]
fn every_instruction_ends_in_the_image_as_written() {
    let world = world();
    let context = everything();
    let told = build(&world, &context, &["-t", "one", "--target", "one", "--build-arg", "WHO=me", "--label", "more=1"]);
    assert!(told.contains("Step 2/") && told.contains("Successfully tagged one:latest"), "{told}");
    let seen = |script: &str| sh(&world, "one", script);
    assert_eq!(seen("cat /srv/app/a.txt /srv/app/b.txt /added/a.txt"), "a\nb\na");
    assert_eq!(seen("stat -c '%u:%g %a' /srv/app/owned.txt /srv/app/symbolic.txt"), "1000:100 640\n0:0 700");
    assert_eq!(
        seen("stat -c '%u:%g' /srv/dir /srv/dir/deep/x.txt; readlink /srv/dir/link"),
        "77:77\n77:77\ndeep/x.txt"
    );
    assert_eq!(seen("cd /srv/filtered && find . | sort | tr '\\n' ' '"), ". ./deep ./deep/x.txt ./link");
    assert_eq!(seen("cd /srv/parents && find . -type f | sort | tr '\\n' ' '"), "./deep/x.txt ./dir/y.md");
    assert_eq!(
        seen("cat /unpacked/packed.txt; stat -c %u:%g /unpacked/packed.txt /chowned/packed.txt"),
        "packed\n12:34\n5:6"
    );
    assert_eq!(seen("cat /heredocs/EOF /heredocs/RAW"), "expanded hello me\nraw $GREETING");
    assert_eq!(seen("cat /heredoc-run /one /two /awk"), "first\nsecond\na me\nb\nfrom awk");
    assert_eq!(seen("cat /seen /links /tmp/ids"), "me:hello me:/srv/app:/bin/sh\nlo\n1000:1001:1001 100");
    assert_eq!(seen("pwd; echo $GREETING; ls /triggered 2>&1 | wc -l"), "/srv/app\nhello me\n1");
    assert_eq!(world.ok("docker", &["run", "--rm", "one"]), "from cmd");
    for (field, want) in [
        ("Env", r#"["GREETING=hello me","EMPTY="]"#),
        ("Labels", r#"{"a label":"x y","more":"1","who":"me"}"#),
        ("ExposedPorts", r#"{"53/udp":{},"80/tcp":{}}"#),
        ("Volumes", r#"{"/data":{}}"#),
        ("StopSignal", r#""SIGQUIT""#),
        ("Healthcheck", r#"{"Test":["CMD-SHELL","true"],"Interval":5000000000,"Retries":2}"#),
        ("Entrypoint", r#"["/bin/echo"]"#),
        ("Cmd", r#"["from","cmd"]"#),
        ("Shell", r#"["/bin/sh","-ec"]"#),
        ("OnBuild", r#"["RUN echo triggered \u003e /triggered","COPY a.txt /onbuild.txt"]"#),
        ("WorkingDir", r#""/srv/app""#),
        ("User", r#""root""#),
    ] {
        assert_eq!(inspect(&world, "one", field).replace("\\u003e", ">"), want.replace("\\u003e", ">"), "{field}");
    }
    assert_eq!(world.ok("docker", &["image", "inspect", "-f", "{{.Author}}", "one"]), "somebody");
    // A layer holds what its instruction made, and no trace of how it was run.
    let layer =
        world.ok("docker", &["image", "inspect", "-f", "{{len .RootFS.Layers}}", "one"]).parse::<usize>().unwrap();
    assert!(layer > 10);
    let script = "docker save one -o $0/one.tar && mkdir $0/s && tar -C $0/s -xf $0/one.tar && for l in $(find $0/s -type f); do tar -tf $l 2>/dev/null; done | grep -E '^(etc/(hosts|resolv.conf)|proc|sys|dev)' | sort -u";
    let out = tempfile::tempdir().unwrap();
    assert_eq!(world.ok("sh", &["-c", script, harness::path(out.path())]), "");

    // ONBUILD: run by the image that is built from this one, and not kept.
    let child = Context::new(&[("Dockerfile", "FROM one\nRUN cat /triggered /onbuild.txt > /both"), ("a.txt", "A")]);
    build(&world, &child, &["-t", "child"]);
    assert_eq!(sh(&world, "child", "cat /both"), "triggered\nA");
    assert_eq!(inspect(&world, "child", "OnBuild"), "null");

    // Several stages: the whole file leaves out what nothing needs.
    let told = build(&world, &context, &["-t", "last"]);
    assert!(!told.contains("exit 7"), "{told}");
    let listed = world
        .ok("docker", &["run", "--rm", "last", "/bin/busybox", "find", "/a.txt", "/copied", "/etc/passwd", "/bin"]);
    assert_eq!(
        listed.split_whitespace().collect::<Vec<_>>(),
        ["/a.txt", "/copied", "/copied/seen", "/etc/passwd", "/bin", "/bin/busybox"]
    );
    let failed = world.refused("docker", &["build", "--target", "unused", context.path()]);
    assert!(failed.contains("The command '/bin/sh -c exit 7' returned a non-zero code: 7"), "{failed}");
    let failed = world.refused("docker", &["build", "--target", "nowhere", context.path()]);
    assert!(failed.contains("failed to reach build target nowhere in Dockerfile"), "{failed}");
    assert_eq!(world.ok("docker", &["ps", "-aq"]), "", "no step's container is left");
}

#[test]
fn layers_are_reused_exactly_when_nothing_they_depend_on_changed() {
    let world = world();
    let text = "FROM base\nARG V=1\nCOPY a.txt /a\nRUN echo $V > /v; cat /proc/sys/kernel/random/uuid > /u\nCOPY b.txt /b\nCMD true\n";
    let context = Context::new(&[("Dockerfile", text), ("a.txt", "a"), ("b.txt", "b")]);
    let cached = |args: &[&str]| {
        let told = build(&world, &context, &[&["-t", "c"], args].concat());
        (told.matches("Using cache").count(), sh(&world, "c", "cat /u"))
    };
    let id = || world.ok("docker", &["image", "inspect", "-f", "{{.Id}}", "c"]);
    let (hits, first) = cached(&[]);
    assert_eq!(hits, 0);
    let made = id();
    assert_eq!(cached(&[]), (4, first.clone()), "nothing changed");
    assert_eq!(id(), made, "the same image, not one that looks like it");
    context.write("b.txt", "other");
    assert_eq!(cached(&[]), (2, first.clone()), "what comes before the change stays");
    let touched =
        std::process::Command::new("touch").args(["-d", "2001-01-01"]).arg(context.dir().join("a.txt")).status();
    assert!(touched.unwrap().success());
    assert_eq!(cached(&[]).0, 4, "times do not count");
    assert_eq!(cached(&["--build-arg", "V=2"]).0, 1, "an argument that RUN sees counts");
    assert_ne!(cached(&["--no-cache"]).1, first);
    context.write("a.txt", "new");
    assert_eq!(cached(&[]).0, 0, "everything after a change is made again");
    std::process::Command::new("chmod").args(["600"]).arg(context.dir().join("a.txt")).status().unwrap();
    assert_eq!(cached(&[]).0, 0, "a mode counts");
    context.write("ignored", "1");
    context.write(".dockerignore", "ignored\n.dockerignore\n");
    context.write("Dockerfile", "FROM base\nCOPY . /all\n");
    build(&world, &context, &["-t", "all"]);
    assert_eq!(sh(&world, "all", "ls -A /all | tr '\\n' ' '"), "Dockerfile a.txt b.txt");
    context.write("ignored", "2");
    assert!(build(&world, &context, &[]).contains("Using cache"), "what is ignored does not count");
    let pruned = world.ok("docker", &["builder", "prune", "-af"]);
    assert!(pruned.contains("Total"), "{pruned}");
    assert!(!build(&world, &context, &[]).contains("Using cache"));
    assert!(build(&world, &context, &["-q"]).starts_with("sha256:"));
}

#[test]
fn contexts_come_from_standard_input_urls_and_git() {
    let world = world();
    let context = Context::new(&[
        ("Dockerfile", "FROM base\nCOPY word /w\n"),
        ("word", "local"),
        ("sub/Other", "FROM base\nRUN echo other > /w\n"),
    ]);
    let piped = |script: &str| {
        let output = world.command("sh").args(["-c", script, context.path()]).stdin(Stdio::null()).output().unwrap();
        assert!(
            output.status.success(),
            "{script}: {}{}",
            harness::text(&output.stdout),
            harness::text(&output.stderr)
        );
    };
    piped("printf 'FROM base\\nRUN echo stdin > /w\\n' | docker build -t i -");
    assert_eq!(sh(&world, "i", "cat /w"), "stdin");
    piped("tar -C $0 -cz . | docker build -t i -");
    assert_eq!(sh(&world, "i", "cat /w"), "local");
    piped("printf 'FROM base\\nCOPY word /w2\\n' | docker build -t i -f - $0");
    assert_eq!(sh(&world, "i", "cat /w2"), "local");
    build(&world, &context, &["-t", "i", "-f", &format!("{}/sub/Other", context.path())]);
    assert_eq!(sh(&world, "i", "cat /w"), "other");

    let _server = Server::start(
        &world,
        "python3",
        &["-m", "http.server", "--bind", "127.0.0.1", "8099", "-d", context.path()],
        8099,
    );
    piped("cd $0 && tar -czf context.tgz word Dockerfile");
    world.ok("docker", &["build", "-t", "u", "http://127.0.0.1:8099/context.tgz"]);
    assert_eq!(sh(&world, "u", "cat /w"), "local");
    world.ok("docker", &["build", "-t", "u", "http://127.0.0.1:8099/sub/Other"]);
    assert_eq!(sh(&world, "u", "cat /w"), "other");

    let script = "cd $0 && git init -q -b master repo && cd repo && mkdir in && printf 'FROM base\\nRUN echo git > /w\\n' > Dockerfile && printf 'FROM base\\nRUN echo sub > /w\\n' > in/Dockerfile && git add . && git -c user.name=n -c user.email=e commit -qm one && git branch side";
    piped(script);
    let _git = Server::start(
        &world,
        &format!("{}/git-daemon", world.ok("git", &["--exec-path"])),
        &[
            "--export-all",
            "--reuseaddr",
            "--listen=127.0.0.1",
            "--port=9418",
            &format!("--base-path={}", context.path()),
            context.path(),
        ],
        9418,
    );
    world.ok("docker", &["build", "-t", "g", "git://127.0.0.1/repo"]);
    assert_eq!(sh(&world, "g", "cat /w"), "git");
    world.ok("docker", &["build", "-t", "g", "git://127.0.0.1/repo#side:in"]);
    assert_eq!(sh(&world, "g", "cat /w"), "sub");

    // The API's own `remote`, which the command line never sends: it fetches by itself.
    let api = |query: &str| {
        let socket = world.root.join("run/docker.sock");
        world.ok(
            "curl",
            &[
                "-sS",
                "--unix-socket",
                harness::path(&socket),
                "-X",
                "POST",
                &format!("http://d/v1.41/build?t=r&{query}"),
            ],
        )
    };
    let told = api("remote=http://127.0.0.1:8099/sub/Other");
    assert!(told.contains("Successfully tagged r:latest"), "{told}");
    assert_eq!(sh(&world, "r", "cat /w"), "other");
    api("remote=http://127.0.0.1:8099/context.tgz");
    assert_eq!(sh(&world, "r", "cat /w"), "local");
    api("remote=git://127.0.0.1/repo%23master:in");
    assert_eq!(sh(&world, "r", "cat /w"), "sub");
    let told = api("remote=http://127.0.0.1:8099/nothing");
    assert!(told.contains("404"), "{told}");
}

#[test]
fn build_mistakes_name_file_line_and_text_and_leave_nothing() {
    let world = world();
    let images = || world.ok("docker", &["images", "-aq"]);
    let before = images();
    let refused = |text: &str| {
        let context = Context::new(&[("Dockerfile", text), ("a", "a")]);
        world.refused("docker", &["build", context.path()])
    };
    for (text, wanted) in [
        (
            "FROM base\n\nRUN true\nCOPPY a b\n",
            "dockerfile parse error on line 4: unknown instruction: COPPY (did you mean COPY?) (Dockerfile:4: COPPY a b)",
        ),
        ("FROM base\nRUN false\n", "The command '/bin/sh -c false' returned a non-zero code: 1"),
        (
            "FROM base\nCOPY nothing /\n",
            "COPY failed: nothing: file not found in build context or excluded by .dockerignore",
        ),
        (
            "FROM base AS first\nCOPY --from=later /a /a\nFROM base AS later\nCOPY --from=first /a /a\n",
            "invalid from flag value later: it refers to a later stage",
        ),
        ("FROM base\nENV A=${B:?must be given}\n", "(Dockerfile:2: ENV A=${B:?must be given})"),
        ("FROM base\nUSER nobody-such\nRUN true\n", "nobody-such"),
        ("FROM base\nCOPY --chown=nobody-such a /a\n", "nobody-such"),
        ("FROM base\nCOPY --chmod=9 a /a\n", "invalid chmod parameter: '9'"),
        ("FROM base\nADD --checksum=sha256:00 a /a\n", "checksum"),
        ("FROM base\nRUN --security=insecure true\n", "security.insecure is not allowed"),
        ("", "cannot be empty"),
    ] {
        let told = refused(text);
        assert!(told.contains(wanted), "{text:?}: {told}");
    }
    assert_eq!(images(), before, "a failed build leaves no image");
    assert_eq!(world.ok("docker", &["ps", "-aq"]), "");
    let left = world.ok("sh", &["-c", "ls $0/builds/tmp $0/steps", harness::path(&world.root)]);
    assert!(!left.lines().any(|line| !line.is_empty() && !line.ends_with(':')), "{left}");
}

/// A server inside the world that ends with the test.
pub struct Server(std::process::Child);

impl Server {
    pub fn start(world: &World, program: &str, args: &[&str], port: u16) -> Self {
        let child = world
            .command(program)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let script =
            "for i in $(seq 200); do (exec 3<>/dev/tcp/127.0.0.1/$0) 2>/dev/null && exit 0; sleep 0.1; done; exit 1";
        world.ok("bash", &["-c", script, &port.to_string()]);
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nsenter became the program: its process is the server.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
