//! How fast the API server is without any network: durable creates a second from 64 writers, and the time of one GET and of
//! one list. `cargo run -p apiserver --example measure -- DIR [OBJECTS]`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use apiserver::{ApiServer, Config, Identity, Pki, ServingNames};
use bytes::Bytes;
use http::Request;

const WRITERS: usize = 64;
const READS: u32 = 2000;

async fn request(server: &Arc<ApiServer>, method: &str, uri: &str, body: Bytes) -> (u16, usize) {
    let request = Request::builder().method(method).uri(uri).body(body).unwrap_or_default();
    let reply = server.handle(Identity::in_process("measure"), request).await;
    (reply.status().as_u16(), reply.into_body().collect().await.len())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().ok_or("usage: measure DIR [OBJECTS]")?);
    let objects: usize = arguments.next().map_or(Ok(5000), |text| text.parse())?;
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    std::fs::create_dir_all(&root)?;
    let names = ServingNames { host_name: "localhost".to_owned(), addresses: vec![address] };
    let pki = Arc::new(Pki::open(&root.join("pki"), &names)?);
    let store = store::Store::open(root.join("store"))?;
    let started = Instant::now();
    let server = ApiServer::start(store, pki, Config { advertise_address: address, advertise_port: 6443 }).await?;
    println!("start {:?}", started.elapsed());

    let maps = "/api/v1/namespaces/default/configmaps";
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let server = Arc::clone(&server);
        writers.spawn(async move {
            for index in (writer..objects).step_by(WRITERS) {
                let body =
                    format!("{{\"metadata\":{{\"name\":\"m{index}\"}},\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(1000));
                let (code, _) = request(&server, "POST", maps, body.into()).await;
                assert_eq!(code, 201);
            }
        });
    }
    writers.join_all().await;
    let seconds = started.elapsed().as_secs_f64();
    println!("creates: {:.0} a second", objects as f64 / seconds);

    let started = Instant::now();
    for _ in 0..READS {
        request(&server, "GET", &format!("{maps}/m0"), Bytes::new()).await;
    }
    println!("get: {:?}", started.elapsed() / READS);
    let started = Instant::now();
    let (_, bytes) = request(&server, "GET", maps, Bytes::new()).await;
    println!("list of {objects}: {:?}, {bytes} bytes", started.elapsed());
    Ok(())
}
