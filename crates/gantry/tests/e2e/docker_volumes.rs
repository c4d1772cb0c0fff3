//! Volumes and mounts by the stock client.

use crate::harness::World;

#[test]
fn docker_volumes_keep_share_fill_and_go() {
    let world = World::with_box();
    named_and_anonymous(&world);
    driver_options(&world);
    mounts(&world);
    listings(&world);
}

fn named_and_anonymous(world: &World) {
    world.sh("docker run --rm -v data:/data box sh -c 'echo more > /data/more'");
    assert_eq!(world.sh("docker run --rm -v data:/elsewhere:ro box sh -c 'cat /elsewhere/from-image /elsewhere/more; touch /elsewhere/x 2>/dev/null || echo refused'"), "image\nmore\nrefused", "copied up once, kept, shared");
    assert_eq!(world.sh("docker run --rm -v fresh:/data:nocopy box ls /data"), "");
    assert_eq!(
        world.sh("docker run --rm --mount type=volume,source=fresh2,target=/data,volume-nocopy box ls /data"),
        ""
    );
    world.sh("docker run -d --name keeper -v /anonymous -v data:/named box sleep 1000");
    assert!(world.sh_fails("docker volume rm data").contains("volume is in use - ["));
    assert_eq!(world.sh("docker run --rm --volumes-from keeper:ro box sh -c 'cat /named/more; touch /anonymous/x 2>/dev/null || echo refused'"), "more\nrefused");
    let anonymous =
        world.sh("docker inspect -f '{{range .Mounts}}{{if ne .Name \"data\"}}{{.Name}}{{end}}{{end}}' keeper");
    assert_eq!(anonymous.len(), 64);
    world.sh("docker rm -f keeper");
    assert_eq!(
        world.sh(&format!("docker volume inspect -f '{{{{.Name}}}}' {anonymous}")),
        anonymous,
        "kept without -v"
    );
    assert_eq!(world.sh("docker volume prune -f | head -n 2"), format!("Deleted Volumes:\n{anonymous}"));
    world.sh("docker run --rm -v /gone box true; docker create --name cc -v /gone box; docker rm -v cc");
    assert_eq!(world.sh("docker volume ls -q | tr '\\n' ' '"), "data fresh fresh2");
    assert_eq!(world.sh("docker volume rm data fresh fresh2"), "data\nfresh\nfresh2");
}

fn driver_options(world: &World) {
    world.sh("docker volume create -d local -o type=tmpfs -o device=tmpfs -o o=size=64k,uid=1000 --label k=v memory");
    assert_eq!(world.sh("docker run --rm -v memory:/m box sh -c 'df -k /m | tail -n 1 | tr -s \" \" | cut -d\" \" -f1,2; stat -c %u /m'"), "tmpfs 64\n1000");
    world.sh(&format!("mkdir {0}/host; echo host > {0}/host/file; docker volume create -o type=none -o o=bind -o device={0}/host bound", world.root.display()));
    assert_eq!(world.sh("docker run --rm -v bound:/b box cat /b/file"), "host");
    assert!(world.sh_fails("docker volume create -o type=nfs -o device=x bad").contains("is not supported"));
    assert!(world.sh_fails("docker volume create -d nosuch x1").contains("plugin \"nosuch\" not found"));
    assert!(
        world.sh_fails("docker volume create 'a/b'").contains("includes invalid characters for a local volume name")
    );
    world.sh("docker volume rm memory bound");
    assert!(world.sh_fails("docker volume rm bound").contains("no such volume"));
}

fn mounts(world: &World) {
    let host = world.root.join("host");
    let host = host.display();
    world.sh(&format!(
        "mkdir -p {host}/sub {host}/below; echo inside > {host}/sub/file; mount -t tmpfs tmpfs {host}/below"
    ));
    let run = |options: &str, script: &str| world.sh(&format!("docker run --rm {options} box sh -c '{script}'"));
    assert_eq!(
        run(
            &format!("-v {host}:/h:ro"),
            "cat /h/sub/file; touch /h/x 2>/dev/null || echo refused; touch /h/below/x 2>/dev/null || echo below too"
        ),
        "inside\nrefused\nbelow too"
    );
    assert_eq!(
        run(
            &format!("--mount type=bind,source={host},target=/h,readonly,bind-recursive=writable"),
            "touch /h/x 2>/dev/null || echo refused; touch /h/below/x && echo below writable"
        ),
        "refused\nbelow writable"
    );
    assert_eq!(run(&format!("--mount type=bind,source={host},target=/h,bind-recursive=disabled"), "ls /h/below"), "");
    assert_eq!(
        run(
            "--mount type=tmpfs,target=/t,tmpfs-size=64k,tmpfs-mode=1700",
            "stat -c %a /t; df -k /t | tail -n 1 | tr -s \" \" | cut -d\" \" -f2"
        ),
        "1700\n64"
    );
    let missing = world.sh_fails("docker run --rm --mount type=bind,source=/no/such/path,target=/h box true");
    assert!(missing.contains("bind source path does not exist: /no/such/path"), "{missing}");
    assert_eq!(run(&format!("-v {host}/made/by/docker:/h"), "ls /h"), "");
    assert!(world.sh_fails("docker run --rm -v /a:/x -v /b:/x box true").contains("Duplicate mount point: /x"));
    assert!(
        world
            .sh_fails("docker run --rm -v relative/path:/x box true")
            .contains("includes invalid characters for a local volume name")
    );
    // A part of a volume; the files of an image.
    world.sh("docker run --rm -v parts:/p box sh -c 'mkdir /p/one; echo part > /p/one/file; ln -s /etc /p/out'");
    assert_eq!(run("--mount type=volume,source=parts,target=/p,volume-subpath=one", "cat /p/file"), "part");
    for outside in ["nothing", "../..", "out"] {
        let refused = world.sh_fails(&format!(
            "docker run --rm --mount type=volume,source=parts,target=/p,volume-subpath={outside} box true"
        ));
        assert!(refused.contains("in volume parts") || refused.contains("subpath"), "{refused}");
    }
    assert_eq!(
        run(
            "--mount type=image,source=box,target=/i",
            "cat /i/data/from-image; touch /i/x 2>/dev/null || echo refused"
        ),
        "image\nrefused"
    );
    assert_eq!(run("--mount type=image,source=box,target=/i,image-subpath=data", "cat /i/from-image"), "image");
    assert!(
        world
            .sh_fails("docker run --rm --mount type=image,source=nosuch,target=/i box true")
            .contains("No such image: nosuch:latest")
    );
    world.sh(&format!("umount {host}/below; docker volume rm parts"));
}

fn listings(world: &World) {
    world.sh(
        "docker volume create --label tier=a one; docker volume create two; docker create --name user -v two:/x box",
    );
    let names = |filter: &str| world.sh(&format!("docker volume ls -q {filter}")).replace('\n', " ");
    for (filter, wanted) in [
        ("", "one two"),
        ("--filter dangling=true", "one"),
        ("--filter label=tier=a", "one"),
        ("--filter name=w", "two"),
        ("--filter driver=local", "one two"),
    ] {
        assert_eq!(names(filter), wanted, "{filter}");
    }
    assert!(world.sh_fails("docker volume inspect nosuch").contains("no such volume"));
    assert!(world.sh("docker volume prune -af").starts_with("Deleted Volumes:\none\n"));
    world.sh("docker rm user; docker volume rm two");
}
