//! What a request is about, from its method, path and query alone: the attributes that authorisation, audit and routing
//! share. Called first on every request.
//!
//! Invariant: parsing never fails; a path that is no resource path is a non-resource request.

use http::Method;

/// How the path was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Resource(ResourcePath),
    /// `/version`, `/healthz`, `/apis`, …
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// What follows the subresource (`proxy/a/b` → `a/b`).
    pub(crate) rest: String,
}

#[derive(Debug, Clone)]
pub(crate) struct RequestInfo {
    pub(crate) path: String,
    /// `get`, `list`, `watch`, `create`, … for resources; the method in lower case otherwise.
    pub(crate) verb: &'static str,
    pub(crate) target: Target,
}

impl RequestInfo {
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let target = parse_target(path);
        let verb = match &target {
            Target::Resource(resource) => resource_verb(method, resource, query),
            Target::Other => plain_verb(method),
        };
        Self { path: path.to_owned(), verb, target }
    }
}

fn plain_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "unknown",
    }
}

fn resource_verb(method: &Method, target: &ResourcePath, query: &Query) -> &'static str {
    match (method.as_str(), target.name.is_empty()) {
        ("GET" | "HEAD", true) if query.flag("watch") => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => plain_verb(method),
    }
}

/// `/api/v1/…` and `/apis/GROUP/VERSION/…`, with at least a resource.
fn parse_target(path: &str) -> Target {
    let mut parts: Vec<String> = path.trim_matches('/').split('/').map(percent_decode).collect();
    let (group, version) = match parts.first().map(String::as_str) {
        Some("api") if parts.len() >= 3 => {
            let head: Vec<String> = parts.drain(..2).collect();
            (String::new(), head[1].clone())
        }
        Some("apis") if parts.len() >= 4 => {
            let head: Vec<String> = parts.drain(..3).collect();
            (head[1].clone(), head[2].clone())
        }
        _ => return Target::Other,
    };
    let mut target = ResourcePath { group, version, ..ResourcePath::default() };
    // `namespaces/NAME` is the namespace itself unless something other than its own subresources follows.
    if parts[0] == "namespaces" && parts.len() >= 2 {
        target.namespace.clone_from(&parts[1]);
        if parts.len() >= 3 && !(target.group.is_empty() && matches!(parts[2].as_str(), "status" | "finalize")) {
            parts.drain(..2);
        }
    }
    let mut parts = parts.into_iter();
    target.resource = parts.next().unwrap_or_default();
    target.name = parts.next().unwrap_or_default();
    target.subresource = parts.next().unwrap_or_default();
    target.rest = parts.collect::<Vec<_>>().join("/");
    Target::Resource(target)
}

/// A query string, decoded, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(&key.replace('+', " ")), percent_decode(&value.replace('+', " ")))
                })
                .collect(),
        )
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// The value, unless it is missing or empty, which Kubernetes treats alike.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// `?watch`, `?watch=1` and `?watch=true` are all true, as in Kubernetes.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "0" | "false"))
    }

    pub(crate) fn number(&self, key: &str) -> Option<i64> {
        self.text(key).and_then(|value| value.parse().ok())
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Decodes `%XX`; what is not a valid escape stays as it is, and invalid UTF-8 becomes the replacement character.
pub(crate) fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%' && at + 2 < bytes.len())
            .then(|| Some(hex_value(bytes[at + 1])? * 16 + hex_value(*bytes.get(at + 2)?)?))
            .flatten();
        match escape {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, uri: &str) -> RequestInfo {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        RequestInfo::parse(&method.parse().expect("method"), path, &Query::parse(Some(query)))
    }

    #[test]
    fn paths_and_methods_become_verbs_and_resources() {
        for (method, uri, verb, expected) in [
            ("GET", "/api/v1/pods", "list", "|v1|pods|||"),
            ("GET", "/api/v1/pods?watch", "watch", "|v1|pods|||"),
            ("GET", "/api/v1/pods?watch=false", "list", "|v1|pods|||"),
            ("GET", "/api/v1/namespaces/a", "get", "|v1|namespaces||a|a"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update", "|v1|namespaces|finalize|a|a"),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "get", "|v1|pods|log|a|b"),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "create", "apps|v1|deployments||a|"),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/d/scale", "patch", "apps|v1|deployments|scale|a|d"),
            ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection", "|v1|pods||a|"),
            ("DELETE", "/api/v1/nodes/n%31", "delete", "|v1|nodes|||n1"),
        ] {
            let info = info(method, uri);
            let Target::Resource(path) = info.target else { panic!("{uri} is no resource path") };
            let got = [path.group, path.version, path.resource, path.subresource, path.namespace, path.name].join("|");
            assert_eq!((info.verb, got.as_str()), (verb, expected), "{method} {uri}");
        }
    }

    #[test]
    fn discovery_paths_are_no_resources() {
        for path in ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/healthz/ping"] {
            assert_eq!(info("GET", path).target, Target::Other, "{path}");
        }
    }

    #[test]
    fn broken_escapes_are_kept_and_do_no_harm() {
        for (text, expected) in [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("a%2Fb", "a/b"), ("%ff", "\u{fffd}")] {
            assert_eq!(percent_decode(text), expected);
        }
    }
}
