//! The server loop: queries in by UDP and TCP, a [`Zone`] says what they mean, answers out.
//!
//! Invariant: at most [`MAX_IN_FLIGHT`] queries of a server are worked on at a time; more are dropped, as a busy resolver does.

use crate::Forwarder;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const MAX_IN_FLIGHT: usize = 256;
const MAX_QUERY_BYTES: usize = 4096;
const PLAIN_UDP_BYTES: usize = 512;
/// What we tell and take at most by UDP: it passes every path without fragments.
const MAX_UDP_BYTES: u16 = 1232;
const TCP_IDLE: Duration = Duration::from_secs(10);

/// A question in lower case.
#[derive(Clone, Debug)]
pub struct Question {
    pub name: Name,
    pub kind: RecordType,
}

/// What a zone says.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Name, time to live in seconds, data.
    Records(Vec<(Name, u32, RData)>),
    /// The name exists, but nothing of that kind; the record says for how long that may be believed.
    Empty(Option<(Name, u32, RData)>),
    NoSuchName(Option<(Name, u32, RData)>),
    /// Not ours: ask these. The records given are prepended (an alias that leads outside).
    Forward {
        upstreams: Vec<SocketAddr>,
    },
    Failure,
    Refused,
}

pub trait Zone: Send + Sync + 'static {
    fn answer(&self, question: &Question) -> Answer;
    /// Where an alias that a [`Answer::Records`] ends in leads on; none: the client has to ask itself.
    fn upstreams(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}

/// Running tasks of one zone; they end when it is dropped.
#[derive(Debug)]
pub struct Server {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Server {
    pub fn spawn(udp: UdpSocket, tcp: TcpListener, zone: Arc<dyn Zone>, forwarder: Arc<Forwarder>) -> Self {
        let worker = Arc::new(Worker { zone, forwarder, permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT)) });
        Self { tasks: vec![tokio::spawn(worker.clone().serve_udp(Arc::new(udp))), tokio::spawn(worker.serve_tcp(tcp))] }
    }
}

struct Worker {
    zone: Arc<dyn Zone>,
    forwarder: Arc<Forwarder>,
    permits: Arc<Semaphore>,
}

impl Worker {
    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0u8; MAX_QUERY_BYTES];
        loop {
            // An error here is a client's doing (port unreachable): the next query may be fine.
            let Ok((len, peer)) = socket.recv_from(&mut buffer).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let Ok(permit) = self.permits.clone().try_acquire_owned() else {
                continue;
            };
            let Ok(query) = Message::from_vec(&buffer[..len]) else {
                continue;
            };
            let (worker, socket) = (self.clone(), socket.clone());
            tokio::spawn(async move {
                let limit = query
                    .edns
                    .as_ref()
                    .map_or(PLAIN_UDP_BYTES, |e| usize::from(e.max_payload().clamp(512, MAX_UDP_BYTES)));
                if let Some(bytes) = worker.reply(&query).await.and_then(|reply| fit(reply, limit)) {
                    let _ = socket.send_to(&bytes, peer).await;
                }
                drop(permit);
            });
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(permit) = self.permits.clone().try_acquire_owned() else {
                continue;
            };
            let worker = self.clone();
            tokio::spawn(async move {
                let _ = worker.serve_stream(stream).await;
                drop(permit);
            });
        }
    }

    /// Until the client ends it, is silent for too long, or sends what is no query.
    async fn serve_stream(&self, mut stream: TcpStream) -> Option<()> {
        loop {
            let len = usize::from(timeout(TCP_IDLE, stream.read_u16()).await.ok()?.ok()?);
            if len > MAX_QUERY_BYTES {
                return None;
            }
            let mut buffer = vec![0u8; len];
            timeout(TCP_IDLE, stream.read_exact(&mut buffer)).await.ok()?.ok()?;
            let reply = self.reply(&Message::from_vec(&buffer).ok()?).await?;
            let bytes = fit(reply, usize::from(u16::MAX))?;
            let mut framed = u16::try_from(bytes.len()).ok()?.to_be_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            timeout(TCP_IDLE, stream.write_all(&framed)).await.ok()?.ok()?;
        }
    }

    /// None: it was no query, silence is the answer (two resolvers must not talk to each other for ever).
    async fn reply(&self, query: &Message) -> Option<Message> {
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP_BYTES);
            reply.set_edns(edns);
        }
        reply.add_queries(query.queries.iter().cloned());
        let [asked] = query.queries.as_slice() else {
            reply.metadata.response_code = ResponseCode::FormErr;
            return Some(reply);
        };
        if query.metadata.op_code != OpCode::Query || asked.query_class() != DNSClass::IN {
            reply.metadata.response_code = ResponseCode::NotImp;
            return Some(reply);
        }
        let question = Question { name: asked.name().to_lowercase(), kind: asked.query_type() };
        self.fill(&mut reply, query, &question).await;
        Some(reply)
    }

    async fn fill(&self, reply: &mut Message, query: &Message, question: &Question) {
        let answer = self.zone.answer(question);
        reply.metadata.authoritative = !matches!(answer, Answer::Forward { .. });
        let record = |(name, ttl, data): (Name, u32, RData)| Record::from_rdata(name, ttl, data);
        match answer {
            Answer::Records(records) => {
                let outside = match records.last() {
                    Some((_, _, RData::CNAME(target))) if question.kind != RecordType::CNAME => Some(target.0.clone()),
                    _ => None,
                };
                reply.add_answers(records.into_iter().map(record));
                if let Some(target) = outside {
                    self.follow(reply, query, target, question.kind).await;
                }
            }
            Answer::Empty(soa) => {
                reply.add_authorities(soa.map(record));
            }
            Answer::NoSuchName(soa) => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.add_authorities(soa.map(record));
            }
            Answer::Forward { upstreams } => match self.forwarder.ask(query, &upstreams).await {
                Some(found) => {
                    reply.metadata.response_code = found.metadata.response_code;
                    reply.metadata.authentic_data = found.metadata.authentic_data;
                    reply
                        .add_answers(found.answers)
                        .add_authorities(found.authorities)
                        .add_additionals(found.additionals);
                }
                None => reply.metadata.response_code = ResponseCode::ServFail,
            },
            Answer::Failure => reply.metadata.response_code = ResponseCode::ServFail,
            Answer::Refused => reply.metadata.response_code = ResponseCode::Refused,
        }
    }

    /// An alias that leads outside is resolved for the client, as recursion asks.
    async fn follow(&self, reply: &mut Message, query: &Message, target: Name, kind: RecordType) {
        let upstreams = self.zone.upstreams();
        if upstreams.is_empty() {
            return;
        }
        let mut next = query.clone();
        next.queries = vec![hickory_proto::op::Query::query(target, kind)];
        if let Some(found) = self.forwarder.ask(&next, &upstreams).await {
            reply.add_answers(found.answers);
        }
    }
}

/// The reply in wire form; cut, and marked so, where it does not fit.
fn fit(reply: Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    let mut cut = reply;
    cut.additionals.clear();
    cut.authorities.clear();
    while let Some(fewer) = cut.answers.len().checked_sub(1) {
        cut.answers.truncate(fewer.min(cut.answers.len() * limit / bytes.len().max(1)));
        cut.metadata.truncation = true;
        let bytes = cut.to_vec().ok()?;
        if bytes.len() <= limit {
            return Some(bytes);
        }
    }
    None
}
