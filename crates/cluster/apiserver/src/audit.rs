//! The audit log: who asked for what, when, and how it ended, as far as the policy wants it known.
//!
//! Events are `audit.k8s.io/v1`, one JSON line each, written by a thread of its own. Invariant: no request waits for the log; what
//! the writer cannot keep up with is counted (`apiserver_audit_error_total`), not silently gone.

mod policy;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use jiff::Timestamp;
use kube_types::time;
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::object;
use crate::request::Target;
use crate::respond::Reply;

use policy::{Level, Policy};

const QUEUE: usize = 10_000;
const MAX_FILE_BYTES: u64 = 100 << 20;

/// Where the policy stands and where events go.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    pub policy: PathBuf,
    pub log: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("audit policy {}: {reason}", path.display())]
    Policy { path: PathBuf, reason: String },
    #[error("audit log {}: {source}", path.display())]
    Log { path: PathBuf, source: std::io::Error },
}

pub(crate) struct Audit {
    policy: Policy,
    lines: SyncSender<Vec<u8>>,
    metrics: Arc<Metrics>,
}

/// One request whose events are wanted.
pub(crate) struct Trail {
    level: Level,
    omitted: Vec<String>,
    event: Value,
}

impl Audit {
    pub(crate) fn open(config: &AuditConfig, metrics: Arc<Metrics>) -> Result<Self, AuditError> {
        let failed = |reason: String| AuditError::Policy { path: config.policy.clone(), reason };
        let text = std::fs::read_to_string(&config.policy).map_err(|error| failed(error.to_string()))?;
        let policy = Policy::parse(&text).map_err(failed)?;
        let log = |source| AuditError::Log { path: config.log.clone(), source };
        let file = open_log(&config.log).map_err(log)?;
        let (lines, received) = sync_channel(QUEUE);
        let path = config.log.clone();
        // Ends when the server, which holds the other end, is gone.
        std::thread::Builder::new().name("audit".into()).spawn(move || write(&path, file, &received)).map_err(log)?;
        Ok(Self { policy, lines, metrics })
    }

    /// `None` when the policy wants nothing of this request.
    pub(crate) fn begin(&self, call: &Call) -> Option<Trail> {
        let (level, omitted) = self.policy.level(&call.user, &call.info)?;
        let mut trail = Trail { level, omitted, event: describe(call, level) };
        self.emit(&mut trail, "RequestReceived", None);
        Some(trail)
    }

    /// Reads a finite answer when the policy wants it, and hands it on.
    pub(crate) async fn end(&self, mut trail: Trail, call: &Call, original: &Identity, reply: Reply) -> Reply {
        if *original != call.user {
            trail.event["impersonatedUser"] = user(&call.user);
        }
        let annotations = call.annotations();
        if !annotations.is_empty() {
            trail.event["annotations"] = json!(annotations);
        }
        let streams = call.info.verb == "watch" || reply.status().as_u16() == 101 || call.query.flag("follow");
        let mut status = json!({"metadata": {}, "code": reply.status().as_u16()});
        if streams || trail.level < Level::RequestResponse && reply.status().is_success() {
            trail.event["responseStatus"] = status;
            self.emit(&mut trail, if streams { "ResponseStarted" } else { "ResponseComplete" }, None);
            return reply;
        }
        let (parts, body) = reply.into_parts();
        let bytes = body.collect().await;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if !parts.status.is_success() {
            for field in ["status", "message", "reason", "details"] {
                if let Some(value) = answer.get(field) {
                    status[field] = value.clone();
                }
            }
        }
        trail.event["responseStatus"] = status;
        let shown = (trail.level == Level::RequestResponse && !answer.is_null()).then_some(answer);
        self.emit(&mut trail, "ResponseComplete", shown);
        Reply::from_parts(parts, Body::full(bytes))
    }

    fn emit(&self, trail: &mut Trail, stage: &str, response: Option<Value>) {
        if trail.omitted.iter().any(|omitted| omitted == stage) {
            return;
        }
        trail.event["stage"] = stage.into();
        trail.event["stageTimestamp"] = time::rfc3339_micro(Timestamp::now()).into();
        if let Some(response) = response {
            trail.event["responseObject"] = response;
        }
        let mut line = trail.event.to_string().into_bytes();
        line.push(b'\n');
        let counter = if self.lines.try_send(line).is_ok() { &self.metrics.audited } else { &self.metrics.audit_lost };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn user(user: &Identity) -> Value {
    let mut shown = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        shown["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        shown["extra"] = json!(user.extra);
    }
    shown
}

fn describe(call: &Call, level: Level) -> Value {
    let query = call.raw_query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level.as_str(),
        "auditID": uuid::Uuid::new_v4().to_string(),
        "requestURI": format!("{}{query}", call.info.path), "verb": call.info.verb, "user": user(&call.user),
        "requestReceivedTimestamp": time::rfc3339_micro(Timestamp::now()),
    });
    if let Some(agent) = call.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()) {
        event["userAgent"] = agent.into();
    }
    if let Some(address) = call.remote {
        event["sourceIPs"] = json!([address.to_string()]);
    }
    if let Target::Resource(path) = &call.info.target {
        let mut reference = json!({"resource": path.resource, "apiVersion": path.version});
        for (field, value) in [
            ("namespace", &path.namespace),
            ("name", &path.name),
            ("apiGroup", &path.group),
            ("subresource", &path.subresource),
        ] {
            if !value.is_empty() {
                reference[field] = value.as_str().into();
            }
        }
        event["objectRef"] = reference;
    }
    if level >= Level::Request && !call.body.is_empty() {
        let body = call.loose_body_of_any_type().unwrap_or(Value::Null);
        if !body.is_null() {
            if let Some(name) = body.pointer("/metadata/name").filter(|_| event["objectRef"].get("name").is_none()) {
                event["objectRef"]["name"] = name.clone();
            }
            event["requestObject"] = body;
        }
    }
    event
}

fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn write(path: &Path, mut file: std::fs::File, lines: &Receiver<Vec<u8>>) {
    let mut size = file.metadata().map_or(0, |metadata| metadata.len());
    while let Ok(line) = lines.recv() {
        if size + line.len() as u64 > MAX_FILE_BYTES {
            let rotated = path.with_extension("1.log");
            match std::fs::rename(path, &rotated).and_then(|()| open_log(path)) {
                Ok(fresh) => (file, size) = (fresh, 0),
                Err(error) => tracing::warn!(path = %path.display(), %error, "the audit log cannot be rotated"),
            }
        }
        size += line.len() as u64;
        if let Err(error) = file.write_all(&line) {
            tracing::error!(path = %path.display(), %error, "an audit event was lost");
        }
    }
}

/// What an object's text field says, for the policy.
fn text_list(value: &Value, field: &str) -> Vec<String> {
    let list = value[field].as_array().into_iter().flatten();
    list.filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

fn text(value: &Value, field: &str) -> String {
    object::text(value, &format!("/{field}")).to_owned()
}
