//! A container's files by the stock client: cp both ways, diff, export, commit.

use crate::harness::World;

#[test]
fn docker_cp_diff_export_and_commit_carry_files_both_ways() {
    let world = World::with_box();
    copies_in_and_out(&world);
    copies_meet_volumes(&world);
    changes(&world);
    commits(&world);
}

fn copies_in_and_out(world: &World) {
    world.sh("docker create --name stopped box sleep 1000; docker run -d --name running box sleep 1000");
    for name in ["stopped", "running"] {
        let script = format!(
            "d=$(mktemp -d); cd $d; mkdir -p src/sub; echo one > src/one; echo two > src/sub/two; ln -s one src/link; chmod 640 src/one
            docker cp src {name}:/tmp/; docker cp src/. {name}:/root; docker cp src/one {name}:/tmp/renamed
            docker cp {name}:/tmp/src back; docker cp {name}:/root/sub/two two; docker cp {name}:/tmp/src/link link; docker cp -L {name}:/tmp/src/link followed
            find back | sort | tr '\\n' ' '; readlink back/link; stat -c %a back/one; cat two; readlink link; cat followed
            tar -C src -cf - . | docker cp - {name}:/data; docker cp {name}:/data/sub - | tar -tf - | tr '\\n' ' '; rm -rf $d"
        );
        assert_eq!(
            world.sh(&script),
            "back back/link back/one back/sub back/sub/two one\n640\ntwo\none\none\nsub/ sub/two",
            "{name}"
        );
    }
    assert_eq!(world.sh("docker exec running cat /tmp/renamed /root/sub/two"), "one\ntwo");
    let missing = world.sh_fails("docker cp running:/nothing /tmp");
    assert!(missing.contains("Could not find the file /nothing in container running"), "{missing}");
    let missing = world.sh_fails("docker cp /etc/hostname running:/nothing/at/all");
    assert!(missing.contains("Could not find the file") || missing.contains("No such container:path"), "{missing}");
    let directory = world.sh_fails("docker cp /etc/apt running:/etc/passwd");
    assert!(directory.contains("cannot copy"), "{directory}");
    world.sh("docker run -d --name ro --read-only -v rw:/rw box sleep 1000");
    assert!(world.sh_fails("docker cp /etc/hostname ro:/tmp/").contains("rootfs is marked read-only"));
    world.sh("docker cp /etc/hostname ro:/rw/; docker exec ro test -s /rw/hostname; docker rm -f ro stopped; docker volume rm rw");
    // A link inside the container that leads out of it leads nowhere.
    world.sh("docker exec running ln -s /../../../../../../etc/shadow /tmp/evil");
    assert!(world.sh_fails("docker cp -L running:/tmp/evil /tmp/gantry-evil-$$").contains("no such file"));
    world.sh("docker exec running ln -s / /tmp/up; echo x > /tmp/gantry-e2e-x; docker cp /tmp/gantry-e2e-x running:/tmp/up/inside; rm /tmp/gantry-e2e-x; docker exec running cat /inside");
    world.sh("docker rm -f running");
}

fn copies_meet_volumes(world: &World) {
    let script = "docker create --name early -v filled:/vol -v $PWD:/host:ro box cat /vol/hello; echo hello > /tmp/gantry-e2e-$$; docker cp /tmp/gantry-e2e-$$ early:/vol/hello; rm /tmp/gantry-e2e-$$; docker start -a early; docker cp early:/vol/hello - | tar -xOf -";
    assert!(world.sh(script).ends_with("hello\nhello"), "a volume of a container that has not started takes files");
    assert!(world.sh_fails("docker cp /etc/hostname early:/host/").contains("marked read-only"));
    world.sh("docker rm -v early; docker volume rm filled");
}

fn changes(world: &World) {
    world.sh("docker run --name changed -v anon:/vol box sh -c 'echo new > /tmp/new; rm /data/from-image; echo x >> /etc/passwd; mkdir /dir; echo y > /vol/y'");
    let diff = world.sh("docker diff changed | sort");
    assert_eq!(diff, "A /dir\nA /tmp/new\nC /data\nC /etc\nC /etc/passwd\nC /tmp\nD /data/from-image");
    let listed = world.sh("docker export changed | tar -tf - | grep -E '^(tmp/new|dir/|data/from-image|bin/busybox)$' | sort | tr '\\n' ' '");
    assert_eq!(listed, "bin/busybox dir/ tmp/new");
}

fn commits(world: &World) {
    let id = world.sh("docker commit -a Ann -m 'a message' -c 'CMD [\"cat\",\"/tmp/new\"]' -c 'ENV X=y' -c 'EXPOSE 80' -c 'LABEL k=v' changed committed:1");
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(world.sh("docker run --rm committed:1"), "new");
    assert_eq!(
        world.sh("docker inspect -f '{{.Author}}|{{.Comment}}|{{index .Config.Labels \"k\"}}|{{.Config.Env}}|{{.Config.ExposedPorts}}' committed:1"),
        "Ann|a message|v|[FROM_IMAGE=yes X=y]|map[80/tcp:{}]"
    );
    assert_eq!(world.sh("docker history committed:1 --format '{{.Comment}}' | head -n 1"), "a message");
    world.sh("docker export changed | docker import - flat:1; docker run --rm flat:1 test -e /tmp/new; docker rm changed; docker volume rm anon; docker rmi committed:1 flat:1");
}
