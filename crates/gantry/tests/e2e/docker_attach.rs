//! Attaching by the stock client: streams, terminals, detach keys; and over a WebSocket.

use crate::harness::World;

#[test]
fn docker_attach_streams_detaches_by_keys_and_speaks_websocket() {
    let world = World::with_box();
    streams(&world);
    detach_keys(&world);
    websocket(&world);
}

fn streams(world: &World) {
    world.sh("docker run -dit --name shell box sh");
    let said = world
        .sh("printf 'echo hi-$((40+2))\\nexit 4\\n' | timeout 20 script -qec 'docker attach shell' /dev/null || true");
    assert!(said.contains("hi-42"), "{said:?}");
    assert_eq!(world.sh("docker wait shell"), "4");
    world.sh("docker rm shell; docker run -di --name plain box sh -c 'while read line; do echo got $line; done; echo end >&2'");
    // Its input stays open for the next client: it was not started to end with this one.
    assert_eq!(
        world.sh("printf 'a\\nb\\n' | timeout -s KILL 3 docker attach plain 2>/dev/null || true"),
        "got a\ngot b"
    );
    assert_eq!(world.sh("echo c | timeout -s KILL 3 docker attach plain 2>/dev/null || true"), "got c");
    // Two clients, the same output; one of them leaves, the other goes on.
    world.sh("docker rm -f plain; docker run -d --name talker box sh -c 'i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo $i; sleep 0.05; done'");
    let last = world.sh(
        "timeout -s KILL 1 docker attach talker >/dev/null 2>&1 & timeout -s KILL 20 docker attach talker | tail -n 1",
    );
    assert_eq!(last, "40");
    // Signals reach the program through the client.
    world.sh("docker rm -f talker; docker run -d --name signalled box sh -c 'trap \"echo caught; exit 3\" TERM; while true; do sleep 0.1; done'");
    let (code, said) = world.sh_code("timeout -k 10 -s TERM --preserve-status 1 docker attach signalled");
    assert!(code == 3 && said.contains("caught"), "{code} {said}");
    assert!(world.sh_fails("docker attach signalled").contains("cannot attach to a stopped container"));
    world.sh("docker rm signalled");
}

/// The client's own detection is not the point here: a raw connection types the keys.
fn detach_keys(world: &World) {
    world.sh("docker run -dit --name typed box sh -c 'stty raw -echo; while true; do dd bs=1 count=1 2>/dev/null | od -An -tx1; done'");
    let script = r#"
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX); s.connect(os.environ['DOCKER_HOST'][7:])
s.settimeout(10)
s.sendall(b'POST /containers/typed/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,y HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n')
head = b''
while b'\r\n\r\n' not in head: head += s.recv(1)
assert b'101' in head.split(b'\r\n')[0], head
time.sleep(0.5)
s.sendall(b'\x18'); time.sleep(0.5); s.sendall(b'z'); time.sleep(1)
s.sendall(b'\x18y')
out = b''
while True:
    try: part = s.recv(4096)
    except socket.timeout: print('not detached'); break
    if not part: break
    out += part
print(' '.join(out.decode().split()))
"#;
    std::fs::write(world.root.join("typed.py"), script).unwrap();
    let said = world.sh(&format!("sleep 0.5; python3 {}/typed.py", world.root.display()));
    // The first key alone belongs to the program as soon as the second is another one; a whole sequence never reaches it.
    assert_eq!(said, "18 7a");
    assert_eq!(world.sh("docker inspect -f '{{.State.Running}}' typed"), "true");
    assert_eq!(
        world.sh("docker events --since 1m --until $(date +%s.%N) --filter event=detach --format '{{.Action}}'"),
        "detach"
    );
    let client = world
        .sh("(sleep 1; printf '\\020\\021'; sleep 1) | timeout 20 script -qec 'docker attach typed' /dev/null || true");
    assert!(client.contains("read escape sequence"), "{client:?}");
    assert_eq!(world.sh("docker inspect -f '{{.State.Running}}' typed"), "true");
    let refused = world.sh_fails("script -qec \"docker run --rm -it --detach-keys 'ctrl-,' box true\" /dev/null");
    assert!(
        // The client does not show the answer's text, only that there will be no stream.
        refused.contains("received 400"),
        "{refused}"
    );
    world.sh("docker rm -f typed");
}

fn websocket(world: &World) {
    world.sh("docker run -di --name ws box sh -c 'while read line; do echo got $line; done; echo over'");
    let script = r#"
import base64, os, socket, struct
s = socket.socket(socket.AF_UNIX); s.connect(os.environ['DOCKER_HOST'][7:]); s.settimeout(10)
s.sendall(b'GET /v1.43/containers/ws/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ' + base64.b64encode(os.urandom(16)) + b'\r\n\r\n')
head = b''
while b'\r\n\r\n' not in head: head += s.recv(1)
print(head.split(b'\r\n')[0].decode())
def frame(op, data):
    mask = os.urandom(4)
    s.sendall(bytes([0x80 | op, 0x80 | len(data)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
def read():
    b = s.recv(2); n = b[1] & 127
    data = b''
    while len(data) < n: data += s.recv(n - len(data))
    return b[0] & 15, data
frame(2, b'by websocket\n')
out = b''
while b'\n' not in out: out += read()[1]
print(out.decode().strip())
"#;
    std::fs::write(world.root.join("ws.py"), script).unwrap();
    assert_eq!(
        world.sh(&format!("python3 {}/ws.py", world.root.display())),
        "HTTP/1.1 101 Switching Protocols\ngot by websocket"
    );
    world.sh("docker rm -f ws");
}
