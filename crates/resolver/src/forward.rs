//! Asking upstream resolvers: over UDP with retries, over TCP when the answer was cut, through a small cache.

use crate::cache::{Cache, Key};
use hickory_proto::op::{Message, MessageType, Query};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const PER_ATTEMPT: Duration = Duration::from_millis(1_500);
const ROUNDS: usize = 2;

/// The `nameserver` lines of a resolv.conf.
pub fn parse_upstreams(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split(['#', ';']).next()?.split_ascii_whitespace();
            (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
        })
        .map(|ip| SocketAddr::from((ip, 53)))
        .take(3)
        .collect()
}

/// Shared by all zones of a process.
#[derive(Debug, Default)]
pub struct Forwarder {
    cache: Mutex<Cache>,
}

impl Forwarder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The first useful answer of one of the upstreams, asked in turn; None when none gave one in time.
    pub async fn ask(&self, query: &Message, upstreams: &[SocketAddr]) -> Option<Message> {
        let question = query.queries.first()?;
        let key = Key {
            name: question.name().to_lowercase(),
            kind: question.query_type(),
            class: question.query_class(),
            upstreams: upstreams.to_vec(),
        };
        if let Some(found) = self.cache.lock().unwrap_or_else(|e| e.into_inner()).get(&key, Instant::now()) {
            return Some(found);
        }
        for _ in 0..ROUNDS {
            for upstream in upstreams {
                if let Some(answer) = ask_one(query, question, *upstream).await {
                    self.cache.lock().unwrap_or_else(|e| e.into_inner()).put(key, &answer, Instant::now());
                    return Some(answer);
                }
            }
        }
        None
    }
}

async fn ask_one(query: &Message, question: &Query, upstream: SocketAddr) -> Option<Message> {
    // A number that the client does not choose: it is what keeps forged answers out.
    let mut outgoing = query.clone();
    outgoing.metadata.id = rand::random();
    let bytes = outgoing.to_vec().ok()?;
    let answer =
        timeout(PER_ATTEMPT, over_udp(&bytes, outgoing.metadata.id, question, upstream)).await.ok().flatten()?;
    if !answer.metadata.truncation {
        return Some(answer);
    }
    let whole = timeout(PER_ATTEMPT, over_tcp(&bytes, outgoing.metadata.id, question, upstream)).await.ok().flatten();
    Some(whole.unwrap_or(answer))
}

async fn over_udp(bytes: &[u8], id: u16, question: &Query, upstream: SocketAddr) -> Option<Message> {
    let local: SocketAddr =
        if upstream.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(local).await.ok()?;
    // Connected: the kernel drops what others send.
    socket.connect(upstream).await.ok()?;
    socket.send(bytes).await.ok()?;
    let mut buffer = vec![0u8; 4096];
    loop {
        let len = socket.recv(&mut buffer).await.ok()?;
        if let Some(answer) = accept(&buffer[..len], id, question) {
            return Some(answer);
        }
    }
}

async fn over_tcp(bytes: &[u8], id: u16, question: &Query, upstream: SocketAddr) -> Option<Message> {
    let mut stream = TcpStream::connect(upstream).await.ok()?;
    let mut framed = u16::try_from(bytes.len()).ok()?.to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await.ok()?;
    let len = stream.read_u16().await.ok()?;
    let mut buffer = vec![0u8; usize::from(len)];
    stream.read_exact(&mut buffer).await.ok()?;
    accept(&buffer, id, question)
}

fn accept(bytes: &[u8], id: u16, question: &Query) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.queries.first().is_some_and(|q| {
        q.query_type() == question.query_type() && q.name().to_lowercase() == question.name().to_lowercase()
    });
    (answer.metadata.id == id && answer.metadata.message_type == MessageType::Response && same).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_come_from_nameserver_lines() {
        let text = "# x\nnameserver 10.0.0.1\n nameserver ::1 # y\nnameserver fe80::1%eth0\nsearch a\nnameserver";
        assert_eq!(parse_upstreams(text), ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse::<SocketAddr>().unwrap()]);
    }
}
