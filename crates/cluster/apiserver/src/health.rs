//! `/healthz`, `/livez`, `/readyz`: the checks behind them, one by one, with `?verbose` and `?exclude=`.

use http::StatusCode;
use kube_types::status;

use crate::call::Call;
use crate::error::ApiResult;
use crate::respond::{self, Reply};
use crate::server::ApiServer;

const PLAIN: &str = "text/plain; charset=utf-8";

/// Whether each check holds now.
pub(crate) fn results(server: &ApiServer) -> Vec<(&'static str, bool)> {
    let stores = server.store.accepts_writes();
    vec![
        ("ping", true),
        ("log", true),
        ("etcd", stores),
        // The bootstrap objects are written before the server answers at all.
        ("poststarthook/rbac/bootstrap-roles", true),
        ("poststarthook/scheduling/bootstrap-system-priority-classes", true),
    ]
}

fn checks(server: &ApiServer, endpoint: &str) -> Vec<(&'static str, bool)> {
    let mut all = results(server);
    if endpoint == "readyz" {
        all.push(("etcd-readiness", server.store.accepts_writes()));
        all.push(("informer-sync", true));
        all.push(("shutdown", !*server.closing().borrow()));
    }
    all
}

/// `check` is what follows the endpoint in the path.
pub(crate) fn serve(call: &Call, endpoint: &str, check: &[&str]) -> ApiResult<Reply> {
    let all = checks(&call.server, endpoint);
    if !check.is_empty() {
        let name = check.join("/");
        let (_, ok) = all.iter().find(|(own, _)| *own == name).ok_or_else(status::path_not_found)?;
        return Ok(if *ok {
            respond::with_type(StatusCode::OK, PLAIN, "ok")
        } else {
            let text = format!("internal server error: {name}: failed\n");
            respond::with_type(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, text)
        });
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let (mut text, mut failed) = (String::new(), false);
    for (name, ok) in &all {
        text.push_str(&match (excluded.contains(name), ok) {
            (true, _) => format!("[+]{name} excluded: ok\n"),
            (false, true) => format!("[+]{name} ok\n"),
            (false, false) => format!("[-]{name} failed: reason withheld\n"),
        });
        failed |= !ok && !excluded.contains(name);
    }
    for name in excluded.iter().filter(|name| !all.iter().any(|(own, _)| own == *name)) {
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {name:?}\n"));
    }
    if failed {
        text.push_str(&format!("{endpoint} check failed\n"));
        return Ok(respond::with_type(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, text));
    }
    if call.query.get("verbose").is_none() {
        return Ok(respond::with_type(StatusCode::OK, PLAIN, "ok"));
    }
    text.push_str(&format!("{endpoint} check passed\n"));
    Ok(respond::with_type(StatusCode::OK, PLAIN, text))
}
