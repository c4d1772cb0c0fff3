//! What happens in a build as BuildKit's clients draw it: vertexes, their logs, their states.
//!
//! Everything is kept until the build's end, because a client may ask for the status before, during or after its build;
//! a step's output is clipped, so the memory is bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::pb;
use build::{BuildEvent, Check, OutputStream, StepId};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};

use crate::proto::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};

/// Bytes of one step's output that are kept and shown, as with BuildKit.
const MAX_LOG_BYTES: usize = 2 << 20;

/// One build's progress.
pub(crate) struct Progress {
    reference: String,
    state: Mutex<State>,
    /// How much there is, and whether that is all.
    seen: watch::Sender<(usize, bool)>,
}

#[derive(Default)]
struct State {
    all: Vec<StatusResponse>,
    steps: HashMap<StepId, Vertex>,
    /// The last vertex of each stage: the input of its next.
    last: HashMap<usize, String>,
    logged: HashMap<String, usize>,
    /// The Dockerfile's text, for warnings that point into it.
    source: Option<(String, Vec<u8>)>,
}

/// A vertex of our own: loading, exporting.
pub(crate) struct OwnVertex<'a> {
    progress: &'a Progress,
    vertex: Vertex,
}

pub(crate) fn now() -> Option<Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 })
}

impl Progress {
    pub(crate) fn new(reference: &str) -> Self {
        let (seen, _) = watch::channel((0, false));
        Self { reference: reference.to_owned(), state: Mutex::default(), seen }
    }

    fn digest(&self, of: &str) -> String {
        let hash = Sha256::digest(format!("{}\0{of}", self.reference).as_bytes());
        format!("sha256:{}", hex::encode(hash))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, state: &mut State, status: StatusResponse) {
        state.all.push(status);
        let count = state.all.len();
        self.seen.send_modify(|seen| seen.0 = count);
    }

    /// Nothing will follow.
    pub(crate) fn finish(&self) {
        self.seen.send_modify(|seen| seen.1 = true);
    }

    /// Sends everything there is and will be, until the build ends or the reader goes.
    pub(crate) async fn follow(self: Arc<Self>, out: mpsc::Sender<Result<StatusResponse, tonic::Status>>) {
        let mut seen = self.seen.subscribe();
        let mut next = 0;
        loop {
            let (count, done) = *seen.borrow_and_update();
            while next < count {
                let status = self.state().all[next].clone();
                next += 1;
                if out.send(Ok(status)).await.is_err() {
                    return;
                }
            }
            if done {
                return;
            }
            tokio::select! {
                changed = seen.changed() => if changed.is_err() { return },
                () = out.closed() => return,
            }
        }
    }

    pub(crate) fn source(&self, name: &str, text: &[u8]) {
        self.state().source = Some((name.to_owned(), text.to_vec()));
    }

    /// A vertex of our own that begins now.
    pub(crate) fn vertex(&self, name: &str) -> OwnVertex<'_> {
        let vertex = Vertex { digest: self.digest(name), name: name.to_owned(), started: now(), ..Vertex::default() };
        self.push(&mut self.state(), vertexes(vertex.clone()));
        OwnVertex { progress: self, vertex }
    }

    /// Takes an event of the builder's.
    pub(crate) fn event(&self, id: StepId, event: BuildEvent) {
        let mut state = self.state();
        match event {
            BuildEvent::Step { vertex: Some(name), .. } => {
                let digest = self.digest(&format!("{}/{}", id.stage, id.index));
                let inputs = state.last.insert(id.stage, digest.clone()).into_iter().collect();
                let vertex = Vertex { digest, inputs, name, started: now(), ..Vertex::default() };
                state.steps.insert(id, vertex.clone());
                self.push(&mut state, vertexes(vertex));
            }
            BuildEvent::UsingCache => self.change(&mut state, id, |vertex| vertex.cached = true),
            BuildEvent::Result { .. } => self.change(&mut state, id, |vertex| vertex.completed = now()),
            BuildEvent::Failed { message } => {
                // Steps that have no vertex of their own fail in the stage's last one, or the client would never show why.
                self.change(&mut state, id, |vertex| {
                    vertex.completed = now();
                    vertex.error = message;
                });
            }
            BuildEvent::Output { stream, bytes } => self.log(&mut state, id, stream, bytes),
            BuildEvent::Progress { json } => self.pull(&mut state, id, &json),
            BuildEvent::Check(check) => self.check(&mut state, &check),
            BuildEvent::Warning { text } => {
                let vertex = self.digest(DOCKERFILE_VERTEX);
                let warning = VertexWarning { vertex, level: 1, short: text.into_bytes(), ..VertexWarning::default() };
                self.push(&mut state, StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
            }
            BuildEvent::Step { vertex: None, .. }
            | BuildEvent::Triggers { .. }
            | BuildEvent::RunningIn { .. }
            | BuildEvent::Removed { .. }
            | BuildEvent::StageDone
            | BuildEvent::Built { .. }
            | BuildEvent::Tagged { .. } => {}
        }
    }

    fn change(&self, state: &mut State, id: StepId, change: impl FnOnce(&mut Vertex)) {
        let Some(vertex) = state.steps.get_mut(&id) else { return };
        change(vertex);
        let status = vertexes(vertex.clone());
        self.push(state, status);
    }

    fn log(&self, state: &mut State, id: StepId, stream: OutputStream, mut msg: Vec<u8>) {
        let Some(vertex) = state.steps.get(&id).map(|vertex| vertex.digest.clone()) else { return };
        let logged = state.logged.entry(vertex.clone()).or_default();
        if *logged >= MAX_LOG_BYTES {
            return;
        }
        *logged += msg.len();
        if *logged >= MAX_LOG_BYTES {
            msg.extend_from_slice(b"\n[output clipped, log limit 2MiB reached]\n");
        }
        let stream = match stream {
            OutputStream::Stdout => 1,
            OutputStream::Stderr => 2,
        };
        let log = VertexLog { vertex, timestamp: now(), stream, msg };
        self.push(state, StatusResponse { logs: vec![log], ..StatusResponse::default() });
    }

    /// A pull's line of progress: one state of the vertex a layer.
    fn pull(&self, state: &mut State, id: StepId, json: &str) {
        let Some(vertex) = state.steps.get(&id).map(|vertex| vertex.digest.clone()) else { return };
        let Ok(line) = serde_json::from_str::<serde_json::Value>(json) else { return };
        let (Some(layer), Some(status)) = (line["id"].as_str(), line["status"].as_str()) else { return };
        let detail = &line["progressDetail"];
        let number = |key: &str| detail[key].as_i64().unwrap_or_default();
        let complete = status.ends_with("complete") || status == "Already exists";
        let status = VertexStatus {
            id: layer.to_owned(),
            vertex,
            name: status.to_lowercase(),
            current: number("current"),
            total: number("total"),
            timestamp: now(),
            started: now(),
            completed: if complete { now() } else { None },
        };
        self.push(state, StatusResponse { statuses: vec![status], ..StatusResponse::default() });
    }

    fn check(&self, state: &mut State, check: &Check) {
        let line = i32::try_from(check.line).unwrap_or(i32::MAX);
        let at = Some(pb::Position { line, character: 0 });
        let info =
            state.source.clone().map(|(filename, data)| pb::SourceInfo { filename, data, ..pb::SourceInfo::default() });
        let warning = VertexWarning {
            vertex: self.digest(DOCKERFILE_VERTEX),
            level: 1,
            short: format!("{}: {} (line {})", check.rule, check.detail, check.line).into_bytes(),
            detail: vec![check.description.as_bytes().to_vec()],
            url: check.url(),
            info,
            ranges: vec![pb::Range { start: at, end: at }],
        };
        self.push(state, StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
    }
}

/// Where complaints about the Dockerfile are shown.
pub(crate) const DOCKERFILE_VERTEX: &str = "[internal] load build definition from Dockerfile";

fn vertexes(vertex: Vertex) -> StatusResponse {
    StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }
}

impl OwnVertex<'_> {
    /// `transferring context: 12kB done`
    pub(crate) fn transferred(&self, what: &str, bytes: u64) {
        let status = VertexStatus {
            id: what.to_owned(),
            vertex: self.vertex.digest.clone(),
            name: "transferring".to_owned(),
            current: i64::try_from(bytes).unwrap_or(i64::MAX),
            total: 0,
            timestamp: now(),
            started: self.vertex.started,
            completed: now(),
        };
        self.status(status);
    }

    /// A state that is reached: `naming to docker.io/library/x`.
    pub(crate) fn reached(&self, what: &str) {
        let status = VertexStatus {
            id: what.to_owned(),
            vertex: self.vertex.digest.clone(),
            timestamp: now(),
            started: now(),
            completed: now(),
            ..VertexStatus::default()
        };
        self.status(status);
    }

    fn status(&self, status: VertexStatus) {
        let mut state = self.progress.state();
        self.progress.push(&mut state, StatusResponse { statuses: vec![status], ..StatusResponse::default() });
    }

    pub(crate) fn done(mut self) {
        self.vertex.completed = now();
        let mut state = self.progress.state();
        self.progress.push(&mut state, vertexes(self.vertex.clone()));
    }

    pub(crate) fn failed(mut self, message: &str) {
        message.clone_into(&mut self.vertex.error);
        self.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(vertex: Option<&str>) -> BuildEvent {
        BuildEvent::Step { number: 1, total: 1, text: "x".into(), vertex: vertex.map(str::to_owned) }
    }

    #[tokio::test]
    async fn steps_become_vertexes_and_a_late_reader_sees_all() {
        let progress = Arc::new(Progress::new("r"));
        let id = |index| StepId { stage: 0, index };
        progress.event(id(0), step(Some("[1/2] FROM x")));
        progress.event(id(0), BuildEvent::Result { id: "a".into() });
        progress.event(id(1), step(None));
        progress.event(id(2), step(Some("[2/2] RUN y")));
        progress.event(id(2), BuildEvent::Output { stream: OutputStream::Stderr, bytes: b"hi".to_vec() });
        progress.event(id(2), BuildEvent::UsingCache);
        progress.event(id(2), BuildEvent::Failed { message: "no".into() });
        progress.finish();
        let (out, mut all) = mpsc::channel(64);
        progress.follow(out).await;
        let mut seen = Vec::new();
        while let Some(status) = all.recv().await {
            seen.push(status.unwrap());
        }
        let first = &seen[0].vertexes[0];
        assert!(first.completed.is_none() && seen[1].vertexes[0].completed.is_some());
        assert_eq!(seen[2].vertexes[0].inputs, std::slice::from_ref(&first.digest));
        assert_eq!((seen[3].logs[0].stream, seen[3].logs[0].msg.as_slice()), (2, b"hi".as_slice()));
        let last = &seen.last().unwrap().vertexes[0];
        assert!(last.cached && last.error == "no");
    }

    #[test]
    fn output_is_clipped() {
        let progress = Progress::new("r");
        let id = StepId { stage: 0, index: 0 };
        progress.event(id, step(Some("v")));
        for _ in 0..5 {
            let bytes = vec![b'x'; 1 << 20];
            progress.event(id, BuildEvent::Output { stream: OutputStream::Stdout, bytes });
        }
        let logs: usize = progress.state().all.iter().flat_map(|status| &status.logs).map(|log| log.msg.len()).sum();
        assert!(logs < 3 << 20);
    }
}
