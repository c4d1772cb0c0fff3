//! Ping, version, info, auth, disk use; what is not served says so in Docker's words.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use engine::Phase;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Body;
use crate::{
    Backend,
    error::{ApiError, Result},
    version, wire,
};

pub(crate) fn routes() -> Router<Backend> {
    Router::new()
        .route("/_ping", get(ping).head(ping))
        .route("/version", get(server_version))
        .route("/info", get(info))
        .route("/auth", post(auth))
        .route("/system/df", get(super::disk::usage))
        .route("/events", get(super::events::events))
}

async fn ping() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
        // BuildKit's protocol is what a client may take for its default.
        (header::HeaderName::from_static("builder-version"), "2"),
        (header::HeaderName::from_static("swarm"), "inactive"),
    ];
    (headers, "OK").into_response()
}

}

fn kernel(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).map(|text| text.trim().to_owned()).unwrap_or_default()
}

async fn server_version(State(backend): State<Backend>) -> Json<Value> {
    let identity = &backend.identity;
    let platform = oci::Platform::host();
    let details = json!({
        "ApiVersion": version::NEWEST.to_string(),
        "Arch": platform.architecture,
        "BuildTime": identity.started.to_string(),
        "Experimental": "false",
        "GitCommit": identity.commit,
        "GoVersion": "",
        "KernelVersion": kernel("osrelease"),
        "MinAPIVersion": version::OLDEST.to_string(),
        "Os": "linux",
    });
    Json(json!({
        "Platform": {"Name": format!("Gantry {}", identity.gantry_version)},
        "Components": [{"Name": "Engine", "Version": version::DOCKER, "Details": details}],
        "Version": version::DOCKER,
        "ApiVersion": version::NEWEST.to_string(),
        "MinAPIVersion": version::OLDEST.to_string(),
        "GitCommit": identity.commit,
        "GoVersion": "",
        "Os": "linux",
        "Arch": platform.architecture,
        "KernelVersion": kernel("osrelease"),
        "BuildTime": identity.started.to_string(),
    }))
}

async fn info(State(backend): State<Backend>) -> Json<Value> {
    let engine = &backend.engine;
    let containers: Vec<_> = engine.containers().into_iter().filter(|c| c.record.pod.is_none()).collect();
    let (mut running, mut paused) = (0, 0);
    for container in &containers {
        match &container.phase {
            Phase::Running(r) if r.paused => paused += 1,
            Phase::Running(_) => running += 1,
            Phase::Created | Phase::Exited(_) | Phase::Restarting(_) | Phase::Removing | Phase::Dead => {}
        }
    }
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let insecure: Vec<&String> = backend.identity.insecure_registries.iter().collect();
    let mut shown = json!({
        "ID": backend.identity.id,
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers.len() - running - paused,
        "Images": engine.content().images().list().len(),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "host"], ["Supports d_type", "true"], ["userxattr", "false"]],
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["json-file", "local", "none"]},
        "MemoryLimit": true, "SwapLimit": true, "CpuCfsPeriod": true, "CpuCfsQuota": true, "CPUShares": true, "CPUSet": true,
        "PidsLimit": true, "IPv4Forwarding": true, "Debug": false, "NFd": 0, "OomKillDisable": !v2, "NGoroutines": 0,
        "SystemTime": jiff::Timestamp::now().to_string(),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if v2 { "2" } else { "1" },
        "NEventsListener": 0,
        "KernelVersion": kernel("osrelease"),
    });
    let more = json!({
        "OperatingSystem": os_name(),
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": null, "AllowNondistributableArtifactsHostnames": null,
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"], "Mirrors": null,
            "IndexConfigs": {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true}},
            "InsecureRegistries": insecure,
        },
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": wire::stats::machine_memory(),
        "GenericResources": null,
        "DockerRootDir": engine.root().display().to_string(),
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        "Name": kernel("hostname"),
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": version::DOCKER,
        "Runtimes": {"runc": {"path": "gantry"}},
        "DefaultRuntime": "runc",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null},
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "CDISpecDirs": [],
        "Warnings": null,
    });
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.extend(more);
    }
    Json(shown)
}

fn os_name() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Credentials {
    username: String,
    password: String,
    serveraddress: String,
    identitytoken: String,
    registrytoken: String,
}

async fn auth(State(backend): State<Backend>, Body(asked): Body<Credentials>) -> Result<Json<Value>> {
    let server = asked.serveraddress.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let auth = distribution::client::Auth {
        username: asked.username,
        password: asked.password,
        identity_token: asked.identitytoken,
        registry_token: asked.registrytoken,
    };
    let refused = |e: distribution::Error| ApiError::new(StatusCode::UNAUTHORIZED, e.to_string());
    backend.engine.registry_client().login(server, &auth).await.map_err(refused)?;
    Ok(Json(json!({"Status": "Login Succeeded", "IdentityToken": ""})))
}
