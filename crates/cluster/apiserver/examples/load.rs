//! What a running server does over TLS: durable creates, reads, lists, and one write seen by many watchers.
//! `cargo run --release -p apiserver --example load -- DIR [WATCHERS]`; server and clients share this process and its cores.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::{ApiServer, Config, Pki, ServingNames};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request};
use kube_client::Client;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn quantiles(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times.get(((times.len() - 1) as f64 * share) as usize).copied().unwrap_or_default();
    println!("{name}: p50 {:?}, p99 {:?}, n {}", at(0.5), at(0.99), times.len());
}

async fn call(client: &Client, method: Method, uri: &str, body: String) -> Outcome<usize> {
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    Ok(client.fetch(request.body(Bytes::from(body))?).await?.len())
}

fn object(name: &str, bytes: usize) -> String {
    format!("{{\"metadata\":{{\"name\":\"{name}\"}},\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(bytes))
}

/// Each connection is a client of its own; says creates a second.
async fn creates(config: &PathBuf, connections: usize, each: usize, prefix: &str) -> Outcome<f64> {
    let mut writers = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..connections {
        let client = Client::from_kubeconfig(config)?;
        call(&client, Method::GET, "/version", String::new()).await?;
        clients.push(client);
    }
    let started = Instant::now();
    for (writer, client) in clients.into_iter().enumerate() {
        let prefix = prefix.to_owned();
        writers.spawn(async move {
            for index in 0..each {
                call(&client, Method::POST, MAPS, object(&format!("{prefix}-{writer}-{index}"), 1000)).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok((connections * each) as f64 / started.elapsed().as_secs_f64())
}

async fn watchers(config: &PathBuf, count: usize) -> Outcome<()> {
    let (seen, mut times) = tokio::sync::mpsc::unbounded_channel::<Instant>();
    let uri = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dwatched");
    for _ in 0..count {
        let client = Client::from_kubeconfig(config)?;
        let mut body = client.send(Request::get(&uri).body(Bytes::new())?).await?.into_body();
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Some(Ok(_)) = body.next().await {
                if seen.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
    }
    let client = Client::from_kubeconfig(config)?;
    let mut all = Vec::new();
    call(&client, Method::POST, MAPS, object("watched", 100)).await?;
    for _ in 0..count {
        times.recv().await;
    }
    for round in 0..20 {
        let started = Instant::now();
        let patch = format!("{{\"data\":{{\"a\":\"{round}\"}}}}");
        let request = Request::patch(format!("{MAPS}/watched")).header("content-type", "application/merge-patch+json");
        client.fetch(request.body(Bytes::from(patch))?).await?;
        for _ in 0..count {
            let at = times.recv().await.ok_or("the watchers are gone")?;
            all.push(at.duration_since(started));
        }
    }
    quantiles(&format!("one write to {count} watchers"), all);
    Ok(())
}

async fn reads(config: &PathBuf, name: &str, uri: &str, count: usize, connections: usize) -> Outcome<()> {
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (client, uri) = (Client::from_kubeconfig(config)?, uri.to_owned());
        readers.spawn(async move {
            call(&client, Method::GET, &uri, String::new()).await?;
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let started = Instant::now();
                call(&client, Method::GET, &uri, String::new()).await?;
                times.push(started.elapsed());
            }
            Outcome::Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = readers.join_next().await {
        all.extend(times??);
    }
    quantiles(name, all);
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().ok_or("usage: load DIR [WATCHERS]")?);
    let watching: usize = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    std::fs::create_dir_all(&root)?;
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let names = ServingNames { host_name: "localhost".to_owned(), addresses: vec![address] };
    let started = Instant::now();
    let pki = Arc::new(Pki::open(&root.join("pki"), &names)?);
    let store = store::Store::open(root.join("store"))?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let config = root.join("kubeconfig");
    std::fs::write(&config, pki.kubeconfig(&format!("https://127.0.0.1:{port}")))?;
    let server = ApiServer::start(store, pki, Config { advertise_address: address, advertise_port: port }).await?;
    tokio::spawn(apiserver::serve(server, listener, std::future::pending()));
    call(&Client::from_kubeconfig(&config)?, Method::GET, "/readyz", String::new()).await?;
    println!("start to /readyz: {:?}", started.elapsed());

    println!("creates, 1 connection: {:.0}/s", creates(&config, 1, 500, "one").await?);
    println!("creates, 64 connections: {:.0}/s", creates(&config, 64, 50, "many").await?);
    reads(&config, "GET, 1 connection", &format!("{MAPS}/one-0-0"), 1000, 1).await?;
    reads(&config, "GET, 16 connections", &format!("{MAPS}/one-0-0"), 200, 16).await?;
    reads(&config, "LIST of 1,000", &format!("{MAPS}?limit=1000"), 20, 1).await?;
    creates(&config, 64, 110, "more").await?;
    reads(&config, "LIST of 10,000", &format!("{MAPS}?limit=10000"), 10, 1).await?;
    watchers(&config, watching).await
}
