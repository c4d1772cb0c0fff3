//! `/metrics`: what the server did and holds, under the names that Kubernetes' dashboards and alerts know.
//!
//! Counted by `server` (requests), `handlers::watch` (streams) and `audit`. Invariant: labels come from what is served, never from
//! what a client made up, so their number is bounded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::call::Call;
use crate::keys;
use crate::request::Target;
use crate::server::ApiServer;

/// Upper bounds of the latency histogram, in seconds.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0,
    60.0,
];

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    dry_run: bool,
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "component=\"apiserver\",dry_run=\"{}\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
            if self.dry_run { "All" } else { "" },
            self.group,
            self.resource,
            self.scope,
            self.subresource,
            self.verb,
            self.version
        )
    }
}

impl Labels {
    /// `None` for a request whose resource is not served.
    fn of(call: &Call) -> Option<Self> {
        let dry_run = call.query.get("dryRun").is_some();
        let Target::Resource(path) = &call.info.target else {
            return Some(Self {
                verb: upper(call.info.verb),
                group: String::new(),
                version: String::new(),
                resource: String::new(),
                subresource: known_path(&call.info.path).to_owned(),
                scope: "",
                dry_run,
            });
        };
        let resource = call.server.served.find(&path.group, &path.version, &path.resource)?;
        if !path.subresource.is_empty() && !resource.has_subresource(&path.subresource) {
            return None;
        }
        let scope = match (path.name.is_empty(), path.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        let streams = matches!(path.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
        Some(Self {
            verb: if streams { "CONNECT" } else { upper(call.info.verb) },
            group: path.group.clone(),
            version: path.version.clone(),
            resource: path.resource.clone(),
            subresource: path.subresource.clone(),
            scope,
            dry_run,
        })
    }
}

fn upper(verb: &str) -> &'static str {
    match verb {
        "get" | "head" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    }
}

fn known_path(path: &str) -> &'static str {
    ["/healthz", "/livez", "/readyz", "/version", "/metrics", "/openapi/v2", "/openapi/v3", "/apis", "/api"]
        .into_iter()
        .find(|known| path.starts_with(known))
        .unwrap_or("")
}

#[derive(Default)]
struct Series {
    by_code: BTreeMap<u16, u64>,
    /// Requests within each bucket alone.
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: Duration,
}

#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<Labels, Series>>,
    reading: AtomicI64,
    writing: AtomicI64,
    long_running: Mutex<BTreeMap<Labels, i64>>,
    pub(crate) audited: AtomicU64,
    pub(crate) audit_lost: AtomicU64,
    pub(crate) rejected: AtomicU64,
}

/// A request that is being worked on.
pub(crate) struct InFlight {
    labels: Option<Labels>,
    started: Instant,
    writes: bool,
}

/// A stream that is open; its end is counted when this is dropped.
pub(crate) struct LongRunning {
    metrics: Arc<Metrics>,
    labels: Option<Labels>,
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        if let Some(labels) = &self.labels {
            *lock(&self.metrics.long_running).entry(labels.clone()).or_default() -= 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    pub(crate) fn begin(&self, call: &Call) -> InFlight {
        let writes = !matches!(call.info.verb, "get" | "list" | "watch" | "head");
        self.gauge(writes).fetch_add(1, Ordering::Relaxed);
        InFlight { labels: Labels::of(call), started: Instant::now(), writes }
    }

    fn gauge(&self, writes: bool) -> &AtomicI64 {
        if writes { &self.writing } else { &self.reading }
    }

    pub(crate) fn end(&self, request: InFlight, code: u16) {
        self.gauge(request.writes).fetch_sub(1, Ordering::Relaxed);
        let Some(labels) = request.labels else { return };
        let took = request.started.elapsed();
        let mut requests = lock(&self.requests);
        let series = requests.entry(labels).or_default();
        *series.by_code.entry(code).or_default() += 1;
        series.count += 1;
        series.sum += took;
        if let Some(bucket) = BUCKETS.iter().position(|bound| took.as_secs_f64() <= *bound) {
            series.buckets[bucket] += 1;
        }
    }

    pub(crate) fn long_running(self: &Arc<Self>, call: &Call) -> LongRunning {
        let labels = Labels::of(call);
        if let Some(labels) = &labels {
            *lock(&self.long_running).entry(labels.clone()).or_default() += 1;
        }
        LongRunning { metrics: Arc::clone(self), labels }
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        if labels.is_empty() {
            writeln!(self.0, "{name} {value}").ok();
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}").ok();
        }
    }
}

/// The document, in Prometheus' text form.
pub(crate) fn render(server: &ApiServer) -> String {
    let mut text = Text(String::with_capacity(64 * 1024));
    requests(&server.metrics, &mut text);
    storage(server, &mut text);
    process(&mut text);
    text.0
}

fn requests(metrics: &Metrics, text: &mut Text) {
    let requests = lock(&metrics.requests);
    text.family("apiserver_request_total", "counter", "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.");
    for (labels, series) in requests.iter() {
        for (code, count) in &series.by_code {
            text.sample("apiserver_request_total", &format!("code=\"{code}\",{labels}"), count);
        }
    }
    let name = "apiserver_request_duration_seconds";
    text.family(name, "histogram", "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.");
    for (labels, series) in requests.iter() {
        let mut below = 0;
        for (bound, count) in BUCKETS.iter().zip(series.buckets) {
            below += count;
            text.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), below);
        }
        text.sample(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), series.count);
        text.sample(&format!("{name}_sum"), &labels.to_string(), series.sum.as_secs_f64());
        text.sample(&format!("{name}_count"), &labels.to_string(), series.count);
    }
    drop(requests);
    text.family("apiserver_current_inflight_requests", "gauge", "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.");
    for (kind, gauge) in [("mutating", &metrics.writing), ("readOnly", &metrics.reading)] {
        let labels = format!("request_kind=\"{kind}\"");
        text.sample("apiserver_current_inflight_requests", &labels, gauge.load(Ordering::Relaxed));
    }
    text.family("apiserver_longrunning_requests", "gauge", "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component.");
    for (labels, count) in lock(&metrics.long_running).iter() {
        text.sample("apiserver_longrunning_requests", &labels.to_string(), count);
    }
    for (name, help, counter) in [
        ("apiserver_audit_event_total", "Counter of audit events generated and sent to the audit backend.", &metrics.audited),
        ("apiserver_audit_error_total", "Counter of audit events that failed to be audited properly.", &metrics.audit_lost),
        ("apiserver_dropped_requests_total", "Requests that were answered with Too Many Requests.", &metrics.rejected),
    ] {
        text.family(name, "counter", help);
        text.sample(name, "", counter.load(Ordering::Relaxed));
    }
}

fn storage(server: &ApiServer, text: &mut Text) {
    text.family("apiserver_storage_objects", "gauge", "Number of stored objects at the time of last check split by kind.");
    for resource in server.served.all().iter().filter(|resource| resource.is_stored()) {
        let count = server.store.count(keys::prefix(resource, "").as_bytes(), None);
        let labels = format!("resource=\"{}\"", resource.group_resource());
        text.sample("apiserver_storage_objects", &labels, count);
    }
    text.family("apiserver_storage_size_bytes", "gauge", "Size of the storage database file physically allocated in bytes.");
    text.sample("apiserver_storage_size_bytes", "storage_cluster_id=\"embedded\"", server.store.size());
    text.family("kubernetes_build_info", "gauge", "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.");
    text.sample("kubernetes_build_info", "compiler=\"rustc\",git_version=\"v1.36.0\",major=\"1\",minor=\"36\"", 1);
    text.family("kubernetes_healthcheck", "gauge", "This metric records the result of a single healthcheck.");
    for (name, ok) in crate::health::results(server) {
        text.sample("kubernetes_healthcheck", &format!("name=\"{name}\",type=\"healthz\""), u8::from(ok));
    }
}

/// This process, from what the kernel says of it; what cannot be read is left out.
fn process(text: &mut Text) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses and may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let ticks_a_second = 100.0;
    if let (Some(user), Some(system)) = (number(11), number(12)) {
        text.family("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.");
        text.sample("process_cpu_seconds_total", "", (user + system) as f64 / ticks_a_second);
    }
    if let Some(pages) = number(21) {
        text.family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
        text.sample("process_resident_memory_bytes", "", pages * 4096);
    }
    if let Some(size) = number(20) {
        text.family("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.");
        text.sample("process_virtual_memory_bytes", "", size);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        text.family("process_open_fds", "gauge", "Number of open file descriptors.");
        text.sample("process_open_fds", "", entries.count());
    }
}
