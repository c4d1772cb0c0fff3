//! Other people's clients of Docker's API: the Python SDK, docker-compose 1.29, dockerode, testcontainers. `cargo xtask setup` installs them.

use crate::harness::World;

fn client(path: &str) -> String {
    format!("{}/.cache/gantry/clients/{path}", std::env::var("HOME").expect("HOME"))
}

fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.root.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

const PYTHON: &str = r#"
import docker, io, tarfile
c = docker.from_env()
assert c.ping() and c.version()['ApiVersion'] == '1.50'
assert c.containers.run('box', 'echo hello', remove=True) == b'hello\n'
try:
    c.containers.run('box', 'sh -c "echo bad >&2; exit 3"', remove=True)
    raise SystemExit('no error')
except docker.errors.ContainerError as e:
    assert e.exit_status == 3 and b'bad' in e.stderr, e
try:
    c.containers.get('nothing'); raise SystemExit('found')
except docker.errors.NotFound: pass
net = c.networks.create('pynet', driver='bridge', labels={'a': 'b'})
vol = c.volumes.create('pyvol')
k = c.containers.run('box', ['sh', '-c', 'echo first; sleep 1000'], name='py', detach=True, network='pynet', environment={'A': '1'},
    volumes={'pyvol': {'bind': '/v', 'mode': 'rw'}}, ports={'80/tcp': None}, mem_limit='64m', labels=['x'], healthcheck={'test': ['CMD', 'true'], 'interval': 200000000})
assert k.status == 'created' or k.status == 'running'
code, out = k.exec_run(['sh', '-c', 'echo $A; echo err >&2; exit 4'], demux=True)
assert code == 4 and out == (b'1\n', b'err\n'), (code, out)
tar = io.BytesIO(); t = tarfile.open(fileobj=tar, mode='w:gz'); info = tarfile.TarInfo('f'); info.size = 3; t.addfile(info, io.BytesIO(b'abc')); t.close()
assert k.put_archive('/v', tar.getvalue())
bits, stat = k.get_archive('/v/f')
got = tarfile.open(fileobj=io.BytesIO(b''.join(bits))).extractfile('f').read()
assert got == b'abc' and stat['size'] == 3, (got, stat)
assert k.logs() == b'first\n' and next(iter(k.logs(stream=True, follow=True))) == b'first\n'
s = k.stats(stream=False)
assert s['memory_stats']['usage'] > 0 and s['pids_stats']['current'] >= 1
assert k.top()['Titles'][1] == 'PID'
k.reload()
assert k.attrs['NetworkSettings']['Networks']['pynet']['IPAddress'] and k.ports['80/tcp'][0]['HostPort']
k.pause(); k.reload(); assert k.status == 'paused'; k.unpause(); k.rename('py2'); k.update(mem_limit='128m', memswap_limit='256m')
img = k.commit('pycommit', tag='1'); assert 'pycommit:1' in img.tags
assert [x.name for x in c.containers.list(filters={'label': 'x'})] == ['py2']
net.disconnect(k); net.connect(k, aliases=['al'])
k.stop(timeout=1); assert k.wait()['StatusCode'] in (137, 143)
events = list(c.events(since=0, until=int(__import__('time').time()) + 1, decode=True, filters={'container': 'py2', 'event': 'die'}))
assert events and events[0]['Actor']['Attributes']['name'] == 'py2', events
k.remove(v=True); net.remove(); vol.remove(); c.images.remove('pycommit:1')
a = c.api; k = a.create_container('box', 'cat', stdin_open=True, tty=False, host_config=a.create_host_config())
sock = a.attach_socket(k, params={'stdin': 1, 'stdout': 1, 'stream': 1}); a.start(k)
sock._sock.sendall(b'echo\n'); import socket
header = sock._sock.recv(8); assert header[0] == 1 and header[7] == 5, header
assert sock._sock.recv(5) == b'echo\n'
a.remove_container(k, force=True)
assert c.df()['Images'] and c.info()['Images'] >= 1
print('python sdk ok', docker.__version__.split('.')[0])
"#;

const NODE: &str = r#"
const Docker = require(process.argv[2] + '/node_modules/dockerode');
const { PassThrough } = require('stream');
(async () => {
  const docker = new Docker({ socketPath: process.env.DOCKER_HOST.slice(7) });
  const collect = () => { const s = new PassThrough(); s.text = ''; s.on('data', d => s.text += d); return s; };
  const [out, err] = [collect(), collect()];
  const [result] = await docker.run('box', ['sh', '-c', 'echo out; echo err >&2; exit 5'], [out, err], { Tty: false, HostConfig: { AutoRemove: true } });
  if (result.StatusCode !== 5 || out.text !== 'out\n' || err.text !== 'err\n') throw new Error(JSON.stringify([result, out.text, err.text]));
  const c = await docker.createContainer({ Image: 'box', Cmd: ['sh', '-c', 'echo up; sleep 1000'], name: 'node', ExposedPorts: { '80/tcp': {} }, HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '' }] } } });
  await c.start();
  const info = await c.inspect();
  if (!info.State.Running || !info.NetworkSettings.Ports['80/tcp'][0].HostPort) throw new Error('inspect');
  const exec = await c.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  const said = collect(); docker.modem.demuxStream(stream, said, said);
  stream.write('typed\n'); stream.end();
  await new Promise(r => stream.on('end', r));
  if (said.text !== 'typed\n') throw new Error('exec: ' + said.text);
  if ((await exec.inspect()).ExitCode !== 0) throw new Error('exit code');
  const logs = await c.logs({ stdout: true, stderr: true });
  if (!logs.toString().includes('up')) throw new Error('logs');
  const stats = await c.stats({ stream: false });
  if (!(stats.memory_stats.usage > 0)) throw new Error('stats');
  const events = await docker.getEvents({ filters: { event: ['destroy'] } });
  const seen = new Promise(r => events.on('data', d => r(JSON.parse(d).Actor.Attributes.name)));
  await c.remove({ force: true });
  if (await seen !== 'node') throw new Error('events');
  events.destroy();
  const net = await docker.createNetwork({ Name: 'nodenet' }); await net.inspect(); await net.remove();
  const vol = await docker.createVolume({ Name: 'nodevol' }); await vol.remove();
  try { await docker.getContainer('nothing').inspect(); throw new Error('found'); } catch (e) { if (e.statusCode !== 404) throw e; }
  if (!(await docker.listImages()).some(i => i.RepoTags.includes('box:latest'))) throw new Error('images');
  console.log('dockerode ok');
})().catch(e => { console.error(e); process.exit(1); });
"#;

const TESTCONTAINERS: &str = r#"
import urllib.request
from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import wait_for_logs
with DockerContainer('box').with_command("sh -c 'mkdir /w; echo served > /w/index.html; echo ready; httpd -f -p 80 -h /w'").with_exposed_ports(80).with_env('A', 'b') as c:
    wait_for_logs(c, 'ready', timeout=20)
    host, port = c.get_container_host_ip(), c.get_exposed_port(80)
    import time; time.sleep(0.3)
    assert urllib.request.urlopen(f'http://{host}:{port}/', timeout=5).read() == b'served\n'
    assert c.exec(['sh', '-c', 'echo $A']).output == b'b\n'
print('testcontainers ok')
"#;

#[test]
fn the_python_sdk_dockerode_and_testcontainers_notice_nothing() {
    let world = World::with_box();
    let python = client("docker-python/bin/python3");
    let path = script(&world, "sdk.py", PYTHON);
    assert_eq!(world.sh(&format!("timeout -k 5 60 {python} {path}")), "python sdk ok 7");
    let path = script(&world, "client.js", NODE);
    assert_eq!(world.sh(&format!("timeout -k 5 60 node {path} {}", client("docker-node"))), "dockerode ok");
    let path = script(&world, "containers.py", TESTCONTAINERS);
    assert_eq!(
        world.sh(&format!(
            "TESTCONTAINERS_RYUK_DISABLED=true timeout -k 5 60 {python} {path} 2>{path}.err || (cat {path}.err; false)"
        )),
        "testcontainers ok"
    );
    assert_eq!(world.sh("docker ps -aq; docker volume ls -q; docker network ls -q --filter type=custom"), "");
}

const COMPOSE: &str = r#"
version: "2.4"
services:
  db:
    image: box
    command: sh -c "sleep 1; touch /tmp/ready; sleep 1000"
    stop_grace_period: 1s
    volumes: ["data:/data"]
    networks: [back]
    healthcheck: {test: ["CMD", "test", "-e", "/tmp/ready"], interval: 200ms, retries: 50}
  api:
    image: box
    command: sh -c "ping -c 1 -W 2 db && echo database reached; sleep 1000"
    stop_grace_period: 1s
    depends_on: {db: {condition: service_healthy}}
    environment: {GREETING: hello}
    networks: {back: {}, front: {aliases: [backend]}}
  web:
    image: box
    command: sh -c "mkdir /w; echo served > /w/index.html; httpd -f -p 80 -h /w"
    stop_grace_period: 1s
    depends_on: [api]
    ports: ["8085:80"]
    networks: [front]
networks: {back: {internal: true}, front: {}}
volumes: {data: {}}
"#;

#[test]
fn docker_compose_1_29_brings_an_application_up_scales_it_and_takes_it_away() {
    let world = World::with_box();
    let dir = world.root.join("app");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("docker-compose.yml"), COMPOSE).unwrap();
    let compose = |words: &str| format!("cd {}; timeout -k 5 60 docker-compose --no-ansi {words}", dir.display());
    world.sh(&compose("up -d 2>&1"));
    let names = world.sh("docker ps --format '{{.Names}}' | sort | tr '\\n' ' '");
    assert_eq!(names, "app_api_1 app_db_1 app_web_1");
    // The order that the health check asks for.
    let started = world.sh("docker inspect -f '{{.State.Health.Status}}' app_db_1");
    assert_eq!(started, "healthy");
    world.sh_until(&compose("logs api 2>/dev/null"), |said| said.contains("database reached"));
    world.sh_until("wget -qO- http://127.0.0.1:8085/", |said| said == "served");
    assert_eq!(
        world.sh(&compose("exec -T api sh -c 'echo $GREETING; ping -c 1 -W 2 db >/dev/null && echo db'")),
        "hello\ndb"
    );
    assert_eq!(world.sh(&compose("exec -T web sh -c 'ping -c 1 -W 2 backend >/dev/null && echo reached; ping -c 1 -W 1 db >/dev/null 2>&1 || echo not the database'")), "reached\nnot the database");
    assert!(world.sh(&compose("ps")).contains("app_db_1"));
    world.sh(&compose("up -d --scale api=3 2>&1"));
    assert_eq!(world.sh("docker ps -q --filter label=com.docker.compose.service=api | wc -l"), "3");
    world.sh(&compose("stop -t 1 web 2>&1"));
    assert_eq!(world.sh("docker inspect -f '{{.State.Status}}' app_web_1"), "exited");
    // Nothing has changed: nothing is made again.
    let before = world.sh("docker inspect -f '{{.Id}}' app_db_1");
    world.sh(&compose("up -d --scale api=3 2>&1"));
    assert_eq!(world.sh("docker inspect -f '{{.Id}}' app_db_1"), before);
    assert!(world.sh(&compose("top db")).contains("sleep 1000"));
    world.sh(&compose("down -v -t 1 2>&1"));
    assert_eq!(world.sh("docker ps -aq; docker volume ls -q; docker network ls -q --filter type=custom"), "");
}
