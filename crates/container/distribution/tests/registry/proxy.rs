//! What stands between a client and a registry and may misbehave: every request is counted, and a rule says what to do.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Act {
    Forward,
    /// The registry's answer, but the connection breaks after so many bytes of the body.
    BreakAfter(usize),
    /// The registry's answer with another body, as long as that is.
    Replace(Vec<u8>),
    /// An answer of our own: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, &'static str),
    /// No answer, ever.
    Silence,
}

/// `METHOD path` and how often it came before.
type Rule = dyn Fn(&str, usize) -> Act + Send + Sync;
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub struct Proxy {
    pub address: SocketAddr,
    /// `METHOD path range` of every request.
    pub seen: Arc<Mutex<Vec<String>>>,
}

struct State {
    target: SocketAddr,
    rule: Box<Rule>,
    counts: Mutex<HashMap<String, usize>>,
    seen: Arc<Mutex<Vec<String>>>,
    http: Client<HttpConnector, Incoming>,
}

impl Proxy {
    pub async fn start(target: SocketAddr, rule: impl Fn(&str, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let http = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let state =
            Arc::new(State { target, rule: Box::new(rule), counts: Mutex::default(), seen: seen.clone(), http });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                let service = hyper::service::service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(state.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, seen }
    }
}

impl State {
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path_and_query().unwrap().to_string();
        let line = format!("{} {path}", request.method());
        let range = request.headers().get("range").map_or("", |r| r.to_str().unwrap());
        self.seen.lock().unwrap().push(format!("{line} {range}").trim().to_owned());
        let before = {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry(line.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let act = (self.rule)(&line, before);
        match act {
            Act::Silence => std::future::pending().await,
            Act::Answer(status, headers, body) => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                return response.body(full(body)).unwrap();
            }
            Act::Forward | Act::BreakAfter(_) | Act::Replace(_) => {}
        }
        *request.uri_mut() = format!("http://{}{path}", self.target).parse().unwrap();
        let (mut parts, body) = self.http.request(request).await.unwrap().into_parts();
        match act {
            Act::BreakAfter(n) => {
                let bytes = body.collect().await.unwrap().to_bytes();
                let start = bytes.slice(..n.min(bytes.len()));
                let first = futures_util::stream::iter([Ok(Frame::data(start))]);
                // The pause lets the first piece leave before the connection goes.
                let then = futures_util::stream::once(async {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    Err(std::io::Error::other("broken on purpose"))
                });
                let frames = futures_util::StreamExt::chain(first, then);
                Response::from_parts(parts, StreamBody::new(frames).boxed_unsync())
            }
            Act::Replace(bytes) => {
                parts.headers.insert("content-length", bytes.len().into());
                Response::from_parts(parts, full(bytes))
            }
            _ => Response::from_parts(parts, body.map_err(std::io::Error::other).boxed_unsync()),
        }
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
