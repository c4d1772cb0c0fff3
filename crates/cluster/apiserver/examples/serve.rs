//! Serves the API alone, with no controllers and no nodes: `cargo run -p apiserver --example serve -- DIR PORT`, then
//! `kubectl --kubeconfig DIR/kubeconfig …`. Stops on ctrl-c.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use apiserver::{ApiServer, Config, Pki, ServingNames};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().ok_or("usage: serve DIR PORT")?);
    let port: u16 = arguments.next().ok_or("usage: serve DIR PORT")?.parse()?;
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    std::fs::create_dir_all(&root)?;
    let store = store::Store::open(root.join("store"))?;
    let names = ServingNames { host_name: "localhost".to_owned(), addresses: vec![address] };
    let pki = Arc::new(Pki::open(&root.join("pki"), &names)?);
    std::fs::write(root.join("kubeconfig"), pki.kubeconfig(&format!("https://127.0.0.1:{port}")))?;
    let server = ApiServer::start(store, pki, Config { advertise_address: address, advertise_port: port }).await?;
    let listener = tokio::net::TcpListener::bind((address, port)).await?;
    println!("ready");
    let stop = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("no ctrl-c: {error}");
        }
    };
    Ok(apiserver::serve(server, listener, stop).await?)
}
