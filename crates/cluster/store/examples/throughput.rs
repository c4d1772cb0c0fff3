//! Durable 1.5 KB writes a second with 1 and 64 writers at a time: `cargo run --release --example throughput [DIR]`.
use bytes::Bytes;
use std::time::Instant;
use store::{Op, Store, Txn};

#[tokio::main]
async fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = base.join(format!("store-throughput-{}", std::process::id()));
    let store = Store::open(&dir).expect("the directory can be written");
    for writers in [1usize, 64] {
        let (each, start) = (if writers == 1 { 2_000 } else { 500 }, Instant::now());
        let tasks: Vec<_> = (0..writers).map(|w| tokio::spawn(run(store.clone(), w, each))).collect();
        for task in tasks {
            task.await.expect("the writer ends well");
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("{writers} writers: {:.0} writes/s", (writers * each) as f64 / seconds);
    }
    drop(store);
    std::fs::remove_dir_all(dir).expect("the directory can be removed");
}

async fn run(store: Store, writer: usize, count: usize) {
    let value = Bytes::from(vec![b'x'; 1500]);
    for n in 0..count {
        let key = format!("/bench/{writer}/{}", n % 100).into();
        let ops = vec![Op::Put { key, value: value.clone() }];
        store.txn(Txn { compare: vec![], ops }).await.expect("the write is durable");
    }
}
