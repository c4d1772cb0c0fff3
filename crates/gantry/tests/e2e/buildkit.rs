//! BuildKit's protocol with its own clients: buildx (Control, gateway and session) and the older client that has one built in.

use crate::builds::{Context, Server, sh, world};
use crate::harness::{self, World};

/// The client of Debian 12, which speaks to `POST /build?version=2` by itself.
const INTEGRATED: &str = "/usr/local/lib/gantry-tests/docker-20.10";

/// `docker buildx build`; what it said.
fn buildx(world: &World, context: &Context, args: &[&str]) -> String {
    let args = [&["buildx", "build", "--progress=plain"], args, &[context.path()]].concat();
    let output = world.run("docker", &args);
    let told = harness::text(&output.stdout) + &harness::text(&output.stderr);
    assert!(output.status.success(), "{args:?}: {told}");
    told
}

fn refused(world: &World, context: &Context, args: &[&str]) -> String {
    world.refused("docker", &[&["buildx", "build", "--progress=plain"], args, &[context.path()]].concat())
}

const FILE: &str = r#"# syntax=docker/dockerfile:1
FROM base AS tools
RUN --mount=type=secret,id=token,uid=1000,mode=0440 cat /run/secrets/token > /tmp/seen; stat -c %u:%a /run/secrets/token >> /tmp/seen
RUN --mount=type=secret,id=token,env=TOKEN echo "$TOKEN" > /tmp/env
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
RUN --mount=type=cache,id=c,target=/cache,uid=1000,mode=0700 stat -c %u:%a /cache > /tmp/cache; echo run >> /cache/log; cp /cache/log /tmp/log
RUN --mount=type=tmpfs,target=/scratch,size=1m touch /scratch/x && grep scratch /proc/mounts > /tmp/tmpfs
RUN --mount=type=bind,source=dir,target=/src --mount=target=/rw,rw cp /src/x /tmp/x; ! touch /src/y; touch /rw/y
RUN --mount=type=bind,from=base,source=/etc,target=/other grep -c app /other/passwd > /tmp/from
FROM base AS slow
RUN sleep 2; echo slow > /slow
FROM base AS slower
RUN sleep 2; echo slower > /slower
FROM base
COPY --link --from=tools /tmp /from-tools
COPY --link dir /linked
COPY --from=slow /slow /
COPY --from=slower /slower /
LABEL made=here
"#;

#[test]
fn buildx_builds_with_contexts_secrets_caches_and_every_output() {
    let world = world();
    let context = Context::new(&[
        ("Dockerfile", FILE),
        ("dir/x", "x"),
        ("secret", "s3cret"),
        ("ignored", "no"),
        (".dockerignore", "ignored\n"),
    ]);
    let secret = format!("id=token,src={}/secret", context.path());
    let began = std::time::Instant::now();
    let told = buildx(&world, &context, &["--secret", &secret, "-t", "b"]);
    let took = began.elapsed();
    assert!(
        told.contains("[tools 2/8] RUN --mount=type=secret") && told.contains("naming to docker.io/library/b:latest"),
        "{told}"
    );
    assert_eq!(
        sh(&world, "b", "cd /from-tools && cat seen env cache log x from"),
        "s3cret1000:440\ns3cret\n1000:700\nrun\nx1"
    );
    assert_eq!(
        sh(
            &world,
            "b",
            "cat /slow /slower /linked/x; grep -c tmpfs /from-tools/tmpfs; ls -d /cache /src /rw /run /scratch 2>/dev/null | wc -l"
        ),
        "slow\nslower\nx1\n0"
    );
    // The two stages that sleep ran at the same time: their steps began before either was done.
    let at = |text: &str| told.find(text).unwrap_or_else(|| panic!("{text}: {told}"));
    let done = told.lines().position(|line| line.contains("DONE 2.")).unwrap_or(usize::MAX);
    let begun = told.lines().position(|line| line.contains("[slower 2/2] RUN")).unwrap();
    assert!(at("[slow 2/2] RUN") > 0 && begun < done, "took {took:?}: {told}");

    // Again: all from the cache, and the same image.
    let id = || world.ok("docker", &["image", "inspect", "-f", "{{.Id}}", "b"]);
    let made = id();
    let told = buildx(&world, &context, &["--secret", &secret, "-t", "b"]);
    assert_eq!((told.matches("CACHED").count(), id()), (13, made.clone()), "{told}");
    // The classic builder uses the same cache.
    let one = Context::new(&[("Dockerfile", "FROM base\nRUN echo shared > /shared\n")]);
    buildx(&world, &one, &[]);
    assert!(world.ok("docker", &["build", one.path()]).contains("Using cache"));
    // A changed base takes linked layers along without copying anew: same diff IDs.
    let layers = |image: &str| world.ok("docker", &["image", "inspect", "-f", "{{json .RootFS.Layers}}", image]);
    let linked = Context::new(&[("Dockerfile", "FROM b\nCOPY --link dir /linked2\n"), ("dir/x", "x")]);
    buildx(&world, &linked, &["-t", "l1"]);
    linked.write("Dockerfile", "FROM base\nCOPY --link dir /linked2\n");
    buildx(&world, &linked, &["-t", "l2"]);
    let last = |image: &str| serde_json::from_str::<Vec<String>>(&layers(image)).unwrap().pop();
    assert_eq!(last("l1"), last("l2"));

    // Outputs.
    let out = tempfile::tempdir().unwrap();
    let out_path = |name: &str| out.path().join(name).display().to_string();
    buildx(&world, &linked, &["--output", &format!("type=local,dest={}", out_path("dir"))]);
    assert_eq!(std::fs::read_to_string(out.path().join("dir/linked2/x")).unwrap(), "x");
    assert_eq!(std::fs::read_link(out.path().join("dir/bin/sh")).unwrap(), std::path::Path::new("busybox"));
    buildx(&world, &linked, &["--output", &format!("type=tar,dest={}", out_path("tar"))]);
    assert_eq!(world.ok("tar", &["-xOf", &out_path("tar"), "linked2/x"]), "x");

    // Contexts: named ones, from standard input, a Dockerfile apart.
    let other = Context::new(&[("f", "named")]);
    let named =
        Context::new(&[("Dockerfile", "FROM alias\nCOPY --from=src f /f\nCOPY --from=alias2 /etc/passwd /p\n")]);
    let src = format!("src={}", other.path());
    buildx(
        &world,
        &named,
        &[
            "--build-context",
            &src,
            "--build-context",
            "alias=docker-image://base",
            "--build-context",
            "alias2=docker-image://base",
            "-t",
            "n",
        ],
    );
    assert_eq!(sh(&world, "n", "cat /f; wc -l < /p"), "named2");
    let piped = |script: &str| world.ok("sh", &["-c", script, context.path()]);
    piped(
        "tar -C $0 -c dir | docker buildx build -t i -f - - 2>/dev/null || true; printf 'FROM base\\nRUN echo in > /in\\n' | docker buildx build -q -t i -",
    );
    assert_eq!(sh(&world, "i", "cat /in"), "in");
    piped("printf 'FROM base\\nCOPY . /c\\n' | docker buildx build -q -t i -f - $0");
    assert_eq!(sh(&world, "i", "ls -A /c | tr '\\n' ' '"), ".dockerignore Dockerfile dir secret");
    piped(
        "cd $0 && printf 'FROM base\\nCOPY dir/x /tarred\\n' > dir/Dockerfile && tar -c . | docker buildx build -q -t i -f dir/Dockerfile -",
    );
    assert_eq!(sh(&world, "i", "cat /tarred"), "x");

    // What the client's default is: buildx, since the server says that it can.
    let default = world.ok("env", &["-u", "DOCKER_BUILDKIT", "docker", "build", "-q", one.path()]);
    assert!(default.starts_with("sha256:"), "{default}");
    assert!(world.ok("docker", &["buildx", "du"]).contains("Total"));
    assert!(world.ok("docker", &["buildx", "prune", "-af"]).contains("Total"));
    assert!(!world.ok("docker", &["buildx", "du"]).contains("true"));
    let bake = Context::new(&[("docker-bake.hcl", ""), ("Dockerfile", "FROM base\nARG V\nRUN echo $V > /v\n")]);
    let target = format!(
        "target \"default\" {{\n context = \"{}\"\n tags = [\"baked\"]\n args = {{ V = \"7\" }}\n}}\n",
        bake.path()
    );
    bake.write("docker-bake.hcl", &target);
    world.ok("docker", &["buildx", "bake", "-f", &format!("{}/docker-bake.hcl", bake.path())]);
    assert_eq!(sh(&world, "baked", "cat /v"), "7");
    nothing_is_left(&world);
}

#[test]
fn buildx_says_what_is_wrong_and_grants_only_what_the_client_grants() {
    let world = world();
    let context = Context::new(&[("a", "a")]);
    for (text, wanted) in [
        ("FROM base\nRUN exit 3\n", "process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3"),
        ("FROM base\nRUNN x\n", "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM base\nCOPY nothing /\n", "\"/nothing\": not found"),
        ("FROM base\nRUN --mount=type=secret,id=s,required true\n", "secret s: not found"),
        ("FROM base\nRUN --mount=type=ssh,required true\n", "unset ssh forward key default"),
        ("FROM base\nRUN --network=host true\n", "network.host is not allowed"),
        ("FROM base\nRUN --security=insecure true\n", "security.insecure is not allowed"),
        ("# check=error=true\nFROM base\nMAINTAINER x\n", "lint violation found for rules: MaintainerDeprecated"),
        ("FROM --platform=linux/s390x base\n", "no match for platform linux/s390x"),
        ("FROM base\nADD http://127.0.0.1:1/x /\n", "failed to load http://127.0.0.1:1/x"),
    ] {
        context.write("Dockerfile", text);
        let told = refused(&world, &context, &[]);
        assert!(told.contains(wanted), "{text:?}: {told}");
    }
    let told = refused(&world, &context, &["--target", "nowhere"]);
    assert!(told.contains("target stage \"nowhere\" could not be found"), "{told}");
    context.write(
        "Dockerfile",
        "FROM base\nRUN --network=host ls /sys/class/net > /n\nRUN --network=none ls /sys/class/net > /m\n",
    );
    buildx(&world, &context, &["--allow", "network.host", "-t", "h"]);
    assert!(sh(&world, "h", "cat /n").contains("gantry") || sh(&world, "h", "cat /n").lines().count() > 1);
    assert_eq!(sh(&world, "h", "cat /m"), "lo");
    context.write("Dockerfile", "FROM base\nMAINTAINER x\nRUN true\n");
    let told = buildx(&world, &context, &[]);
    assert!(
        told.contains("MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"),
        "{told}"
    );
    nothing_is_left(&world);
}

#[test]
fn the_integrated_client_builds_over_its_session_with_an_ssh_agent() {
    let world = world();
    let context = Context::new(&[("a", "a"), ("secret", "s")]);
    // An agent with one key, and the tool that asks it, with all the libraries that it wants.
    let script = "cd $0 && mkdir -p root && for f in $(command -v ssh-add) $(ldd $(command -v ssh-add) | grep -o '/[^ ]*'); do mkdir -p root$(dirname $f) && cp -L $f root$f; done && ssh-keygen -q -t ed25519 -N '' -C of-the-test -f key && eval $(ssh-agent -a $0/agent) >/dev/null && SSH_AUTH_SOCK=$0/agent ssh-add -q key && echo $SSH_AGENT_PID";
    let pid = world.ok("sh", &["-c", script, context.path()]);
    context.write(".dockerignore", "agent\nkey*\n");
    context.write("Dockerfile", "FROM base\nCOPY root /\nCOPY a /a\nRUN --mount=type=ssh ssh-add -l > /keys\nRUN --mount=type=secret,id=s cp /run/secrets/s /s\nRUN test -z \"$SSH_AUTH_SOCK\"\n");
    let (agent, secret) = (format!("default={}/agent", context.path()), format!("id=s,src={}/secret", context.path()));
    let run = |program: &str, args: &[&str]| {
        let whole =
            [&["DOCKER_BUILDKIT=1", program], args, &["--ssh", &agent, "--secret", &secret, context.path()]].concat();
        let output = world.run("env", &whole);
        let told = harness::text(&output.stdout) + &harness::text(&output.stderr);
        assert!(output.status.success(), "{told}");
        told
    };
    let told = run(INTEGRATED, &["build", "--progress=plain", "-t", "o"]);
    assert!(told.contains("RUN --mount=type=ssh ssh-add -l"), "{told}");
    assert!(sh(&world, "o", "cat /keys").contains("of-the-test"));
    assert_eq!(sh(&world, "o", "cat /s /a"), "sa");
    // buildx finds the work of the other client in the cache.
    assert_eq!(run("docker", &["buildx", "build", "--progress=plain"]).matches("CACHED").count(), 5);
    let failed = world.refused(
        "env",
        &["DOCKER_BUILDKIT=1", INTEGRATED, "build", "--progress=plain", "--target", "no", context.path()],
    );
    assert!(failed.contains("target stage \"no\" could not be found"), "{failed}");
    world.ok("kill", &[&pid]);
    nothing_is_left(&world);
}

#[test]
fn files_from_the_network_are_added_checked_and_found_again_in_the_cache() {
    let world = world();
    let context = Context::new(&[("served/file.txt", "served"), ("c/x", "")]);
    let served = format!("{}/served", context.path());
    let script = "cd $0 && git init -q -b main repo && cd repo && mkdir in && echo one > in/f && git add . && git -c user.name=n -c user.email=e commit -qm one && git tag v1 && git rev-parse HEAD && sha256sum ../served/file.txt";
    let told = world.ok("sh", &["-c", script, context.path()]);
    let words: Vec<&str> = told.split_whitespace().collect();
    let (commit, sum) = (words[0], words[1]);
    let http =
        Server::start(&world, "python3", &["-m", "http.server", "--bind", "127.0.0.1", "8099", "-d", &served], 8099);
    let daemon = format!("{}/git-daemon", world.ok("git", &["--exec-path"]));
    let _git = Server::start(
        &world,
        &daemon,
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
    let file = |checksum: &str| {
        format!(
            "FROM base\nADD --checksum=sha256:{checksum} --chmod=0644 http://127.0.0.1:8099/file.txt /a/\nADD http://127.0.0.1:8099/file.txt /b\nADD git://127.0.0.1/repo#v1:in /g\nADD --keep-git-dir=true git://127.0.0.1/repo#main /k\n"
        )
    };
    let small = Context::new(&[("Dockerfile", &file(sum))]);
    buildx(&world, &small, &["-t", "net"]);
    assert_eq!(
        sh(&world, "net", "cat /a/file.txt /b /g/f; stat -c %a /a/file.txt /b; ls -d /k/.git /k/in; ls -A /g"),
        "servedservedone\n644\n600\n/k/.git\n/k/in\nf"
    );
    assert_eq!(buildx(&world, &small, &[]).matches("CACHED").count(), 4);
    small.write("Dockerfile", &file(&"0".repeat(64)));
    let told = refused(&world, &small, &[]);
    assert!(told.contains("digest mismatch"), "{told}");
    // With its digest given, a file that is in the cache is not asked for again.
    drop(http);
    small.write("Dockerfile", &format!("FROM base\nADD --checksum=sha256:{sum} --chmod=0644 http://127.0.0.1:8099/file.txt /a/\nRUN cat /a/file.txt\n"));
    buildx(&world, &small, &[]);
    // A whole context from Git; its commit's files, and nothing beside the subdirectory.
    world.ok("sh", &["-c", "cd $0/repo && printf 'FROM base\\nCOPY . /all\\n' > in/Dockerfile && ln -s /etc escape && git add . && git -c user.name=n -c user.email=e commit -qm two", context.path()]);
    world.ok("docker", &["buildx", "build", "-q", "-t", "ctx", "git://127.0.0.1/repo#main:in"]);
    assert_eq!(sh(&world, "ctx", "ls /all | tr '\\n' ' '"), "Dockerfile f");
    let told = world.refused("docker", &["buildx", "build", "git://127.0.0.1/repo#main:escape"]);
    assert!(told.contains("no folder escape in it"), "{told}");
    assert_eq!(commit.len(), 40);
    nothing_is_left(&world);
}

#[test]
fn builds_with_a_source_date_are_the_same_bytes_each_time() {
    let world = world();
    let context = Context::new(&[
        ("Dockerfile", "FROM base\nWORKDIR /w\nCOPY a .\nRUN echo x > x && mkdir -p deep/er && ln -s x y\n"),
        ("a", "a"),
    ]);
    let once = |tag: &str, args: &[&str]| {
        buildx(
            &world,
            &context,
            &[&["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-t", tag], args].concat(),
        );
        world.ok("docker", &["image", "inspect", "-f", "{{.Id}} {{json .RootFS.Layers}} {{.Created}}", tag])
    };
    let first = once("r1", &[]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(first, once("r2", &[]));
    assert!(first.contains("2023-11-14T22:13:20Z"), "{first}");
    // A cache that travels in the image: after a prune, only that can be why the steps are found.
    buildx(&world, &context, &["--build-arg", "BUILDKIT_INLINE_CACHE=1", "-t", "carrier"]);
    world.ok("docker", &["buildx", "prune", "-af"]);
    assert_eq!(buildx(&world, &context, &["--cache-from", "carrier"]).matches("CACHED").count(), 3);
    world.ok("docker", &["buildx", "prune", "-af"]);
    assert_eq!(
        world.ok("docker", &["build", "--cache-from", "carrier", context.path()]).matches("Using cache").count(),
        3
    );
}

/// No temporary folder, step, container or mount of a build.
fn nothing_is_left(world: &World) {
    let script = "ls $0/builds/tmp $0/steps | grep -v :$; grep -c $0/builds /proc/self/mounts; docker ps -aq";
    let left = world.ok("sh", &["-c", script, harness::path(&world.root)]);
    assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["0"], "{left}");
}
