//! Answers on the wire, from an index that was filled by hand.

use super::*;
use resolver::hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use resolver::hickory_proto::rr::{Name, RData, RecordType};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct World {
    server: SocketAddr,
    _servers: Vec<Server>,
    index: Arc<RwLock<Index>>,
    _directory: std::path::PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self._directory);
    }
}

fn service(
    namespace: &str,
    name: &str,
    spec: serde_json::Value,
    slices: &[Arc<EndpointSlice>],
) -> ((String, String), ServiceRecords) {
    let service: Service =
        serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec})).unwrap();
    ((namespace.into(), name.into()), records(&service, slices, "cluster.local"))
}

/// A server on a port of its own, the index complete.
async fn world(name: &str, resolv_conf: &str) -> World {
    let path = std::env::temp_dir().join(format!("gantry-dns-{name}-{}", std::process::id()));
    std::fs::write(&path, resolv_conf).unwrap();
    let config = DnsConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        host_resolv_conf: path.clone(),
        ..DnsConfig::default()
    };
    let index = Arc::new(RwLock::new(Index::default()));
    let slice: EndpointSlice = serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4", "ports": [{"name": "pg", "port": 5432}],
        "endpoints": [{"addresses": ["10.42.0.8"], "hostname": "db-0"}, {"addresses": ["10.42.0.9"], "hostname": "db-1"}]}))
    .unwrap();
    {
        let mut index = index.write().unwrap();
        index.complete = true;
        for (key, records) in [
            service("shop", "web", json!({"clusterIP": "10.43.1.1", "ports": [{"name": "http", "port": 80}]}), &[]),
            service(
                "shop",
                "db",
                json!({"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]}),
                &[Arc::new(slice)],
            ),
            service("shop", "out", json!({"type": "ExternalName", "externalName": "example.org"}), &[]),
            service(
                "shop",
                "again",
                json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"}),
                &[],
            ),
        ] {
            index.set(key, records);
        }
    }
    let (servers, addresses) = serve(&config, index.clone()).await.unwrap();
    World { server: addresses[0], _servers: servers, index, _directory: path }
}

impl World {
    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let mut query = Message::query();
        query.metadata.op_code = OpCode::Query;
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&query.to_vec().unwrap(), self.server).await.unwrap();
        let mut buffer = [0; 2048];
        let len = tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut buffer)).await.unwrap().unwrap();
        let answer = Message::from_vec(&buffer[..len]).unwrap();
        assert_eq!(answer.metadata.id, query.metadata.id);
        answer
    }

    async fn addresses(&self, name: &str) -> Vec<String> {
        let mut found: Vec<String> =
            self.ask(name, RecordType::A).await.answers.iter().map(|r| r.data.to_string()).collect();
        found.sort();
        found
    }
}

#[tokio::test]
async fn services_endpoints_and_pods_have_their_names() {
    let world = world("names", "").await;
    assert_eq!(world.addresses("web.shop.svc.cluster.local").await, ["10.43.1.1"]);
    assert_eq!(world.addresses("WEB.Shop.svc.cluster.local").await, ["10.43.1.1"]);
    assert_eq!(world.addresses("db.shop.svc.cluster.local").await, ["10.42.0.8", "10.42.0.9"]);
    assert_eq!(world.addresses("db-1.db.shop.svc.cluster.local").await, ["10.42.0.9"]);
    assert_eq!(world.addresses("10-42-0-77.shop.pod.cluster.local").await, ["10.42.0.77"]);
    assert_eq!(world.addresses("again.shop.svc.cluster.local").await, ["10.43.1.1", "web.shop.svc.cluster.local."]);
    let servers = world.ask("_pg._tcp.db.shop.svc.cluster.local", RecordType::SRV).await;
    let mut targets: Vec<String> = servers
        .answers
        .iter()
        .filter_map(|r| if let RData::SRV(s) = &r.data { Some(format!("{} {}", s.target, s.port)) } else { None })
        .collect();
    targets.sort();
    assert_eq!(targets, ["db-0.db.shop.svc.cluster.local. 5432", "db-1.db.shop.svc.cluster.local. 5432"]);
    let pointer = world.ask("1.1.43.10.in-addr.arpa", RecordType::PTR).await;
    assert_eq!(pointer.answers[0].data.to_string(), "web.shop.svc.cluster.local.");
}

#[tokio::test]
async fn what_is_not_there_is_told_apart_from_what_is_empty() {
    // The upstream does not exist: nothing of this may be forwarded, or the query would time out.
    let world = world("empty", "nameserver 192.0.2.254\n").await;
    for (name, kind, code) in [
        ("web.shop.svc.cluster.local", RecordType::AAAA, ResponseCode::NoError),
        ("shop.svc.cluster.local", RecordType::A, ResponseCode::NoError),
        ("svc.cluster.local", RecordType::A, ResponseCode::NoError),
        ("_tcp.web.shop.svc.cluster.local", RecordType::SRV, ResponseCode::NoError),
        ("nobody.shop.svc.cluster.local", RecordType::A, ResponseCode::NXDomain),
        ("web.elsewhere.svc.cluster.local", RecordType::A, ResponseCode::NXDomain),
        ("example.org.shop.svc.cluster.local", RecordType::A, ResponseCode::NXDomain),
        ("example.org.svc.cluster.local", RecordType::A, ResponseCode::NXDomain),
        ("example.org.cluster.local", RecordType::A, ResponseCode::NXDomain),
        ("9.9.43.10.in-addr.arpa", RecordType::PTR, ResponseCode::NXDomain),
    ] {
        let answer = world.ask(name, kind).await;
        assert_eq!(
            (answer.metadata.response_code, answer.answers.len(), answer.authorities.len()),
            (code, 0, 1),
            "{name} {kind}"
        );
    }
    assert_eq!(world.ask("cluster.local", RecordType::SOA).await.answers.len(), 1);
    world.index.write().unwrap().complete = false;
    assert_eq!(
        world.ask("nobody.shop.svc.cluster.local", RecordType::A).await.metadata.response_code,
        ResponseCode::ServFail
    );
}

#[tokio::test]
async fn without_an_upstream_other_names_fail_at_once_and_aliases_are_still_told() {
    let world = world("alone", "search x\n").await;
    assert_eq!(world.ask("example.org", RecordType::A).await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(world.addresses("out.shop.svc.cluster.local").await, ["example.org."]);
}

#[tokio::test]
async fn tcp_serves_too_and_nonsense_is_survived() {
    let world = world("tcp", "").await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for nonsense in [&[0u8; 0][..], &[0xff; 11], &[0xff; 600]] {
        socket.send_to(nonsense, world.server).await.unwrap();
    }
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii("web.shop.svc.cluster.local.").unwrap(), RecordType::A));
    let bytes = query.to_vec().unwrap();
    let mut stream = tokio::net::TcpStream::connect(world.server).await.unwrap();
    for _ in 0..2 {
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 1);
    }
}
