//! One request on its way through the server: who asks, what for, with which options.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method};
use hyper::upgrade::OnUpgrade;
use kube_types::{Resource, status};
use serde_json::Value;

use crate::error::ApiResult;
use crate::identity::Identity;
use crate::negotiate::{self, BodySyntax};
use crate::request::{Query, RequestInfo};
use crate::server::ApiServer;
use crate::{keys, object, protobuf};

/// The address that a request came from, among its extensions.
#[derive(Clone, Copy)]
pub(crate) struct Remote(pub(crate) IpAddr);

pub(crate) struct Call {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) user: Identity,
    pub(crate) info: RequestInfo,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    /// As the client wrote it, to be passed on.
    pub(crate) raw_query: Option<String>,
    pub(crate) body: Bytes,
    /// Who sent it, of what came in over the listener.
    pub(crate) remote: Option<IpAddr>,
    upgrade: Mutex<Option<OnUpgrade>>,
    warnings: Mutex<Vec<String>>,
    /// What admission has to say to the audit log.
    annotations: Mutex<BTreeMap<String, String>>,
}

/// What a resource request is about, once the resource is known to be served.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
}

impl Target {
    pub(crate) fn key(&self) -> Bytes {
        keys::object(&self.resource, &self.namespace, &self.name)
    }

    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    pub(crate) fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }
}

/// How unknown and duplicate fields in a body are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Options that all writes share.
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) manager: String,
}

impl Call {
    pub(crate) fn new(server: &Arc<ApiServer>, user: Identity, mut request: http::Request<Bytes>) -> Self {
        let query = Query::parse(request.uri().query());
        let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
        let raw_query = request.uri().query().map(str::to_owned);
        let remote = request.extensions_mut().remove::<Remote>().map(|Remote(address)| address);
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let (parts, body) = request.into_parts();
        Self {
            server: Arc::clone(server),
            user,
            info,
            method: parts.method,
            headers: parts.headers,
            query,
            raw_query,
            body,
            remote,
            upgrade: Mutex::new(upgrade),
            warnings: Mutex::default(),
            annotations: Mutex::default(),
        }
    }

    /// What a stream needs to know of the request that opened it.
    pub(crate) fn for_stream(&self) -> Self {
        Self {
            server: Arc::clone(&self.server),
            user: self.user.clone(),
            info: self.info.clone(),
            method: self.method.clone(),
            headers: self.headers.clone(),
            query: self.query.clone(),
            raw_query: None,
            body: Bytes::new(),
            remote: None,
            upgrade: Mutex::default(),
            warnings: Mutex::default(),
            annotations: Mutex::default(),
        }
    }

    /// The connection itself, for a WebSocket. There is none on the in-process transport.
    pub(crate) fn take_upgrade(&self) -> Option<OnUpgrade> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
    }

    /// Something that admission has to say to the audit log.
    pub(crate) fn annotate(&self, key: impl Into<String>, value: &str) {
        let mut all = self.annotations.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(key.into()).or_insert_with(|| value.to_owned());
    }

    /// What admission said to the audit log.
    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn write_options(&self) -> ApiResult<WriteOptions> {
        self.write_options_with(&Value::Null)
    }

    /// Options from the query, and from a `DeleteOptions` body.
    pub(crate) fn write_options_with(&self, body: &Value) -> ApiResult<WriteOptions> {
        let listed = body.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let mut dry_run = false;
        for value in self.query.all("dryRun").chain(listed) {
            match value {
                "All" => dry_run = true,
                "" => {}
                other => {
                    let text = format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"");
                    return Err(status::bad_request(format!("invalid options: {text}")).into());
                }
            }
        }
        Ok(WriteOptions { dry_run, manager: self.field_manager() })
    }

    /// `fieldManager`, or else what comes before the slash in the user agent, as in Kubernetes.
    fn field_manager(&self) -> String {
        if let Some(manager) = self.query.text("fieldManager") {
            return manager.to_owned();
        }
        let agent = self.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("");
        let manager = agent.split('/').next().unwrap_or_default();
        if manager.is_empty() { "unknown".to_owned() } else { manager.chars().take(128).collect() }
    }

    fn field_validation(&self) -> ApiResult<FieldValidation> {
        match self.query.text("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(status::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))
            .into()),
        }
    }

    /// Acts on unknown and duplicate fields as the request wants it.
    pub(crate) fn judge_fields(&self, resource: &Resource, complaints: Vec<String>) -> ApiResult<()> {
        match self.field_validation()? {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => complaints.into_iter().for_each(|complaint| self.warn(complaint)),
            FieldValidation::Strict if complaints.is_empty() => {}
            FieldValidation::Strict => {
                let text = format!(
                    "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                    resource.kind,
                    resource.version,
                    resource.kind,
                    complaints.join(", ")
                );
                return Err(status::bad_request(text).into());
            }
        }
        Ok(())
    }

    /// The object in the body, of the kind of `resource`.
    pub(crate) fn decode_body(&self, resource: &Resource) -> ApiResult<Value> {
        let (mut value, complaints) = match negotiate::body_syntax(&self.headers)? {
            BodySyntax::Json => kube_types::strict::decode(resource, &self.body)?,
            BodySyntax::Protobuf => {
                let object = protobuf::decode(&self.body)?.to_string();
                kube_types::strict::decode(resource, object.as_bytes())?
            }
            BodySyntax::Yaml => kube_types::strict::decode_yaml(resource, &self.body)?,
        };
        self.judge_fields(resource, complaints)?;
        self.check_kind(resource, &mut value)?;
        Ok(value)
    }

    /// A body may leave `apiVersion` and `kind` out, but must not claim to be something else.
    fn check_kind(&self, resource: &Resource, value: &mut Value) -> ApiResult<()> {
        let (api_version, kind) = (object::text(value, "/apiVersion"), object::text(value, "/kind"));
        let expected = resource.api_version();
        if (!kind.is_empty() && kind != resource.kind) || (!api_version.is_empty() && api_version != expected) {
            let text = format!(
                "the API version in the data ({api_version}) does not match the expected API version ({expected})"
            );
            let text = if kind.is_empty() || kind == resource.kind {
                text
            } else {
                format!("{kind} in version {api_version:?} cannot be handled as a {}", resource.kind)
            };
            return Err(status::bad_request(text).into());
        }
        value["apiVersion"] = expected.into();
        value["kind"] = resource.kind.as_ref().into();
        Ok(())
    }

    /// A JSON body whatever type it claims, for patches of small kinds.
    pub(crate) fn loose_body_of_any_type(&self) -> ApiResult<Value> {
        if negotiate::content_type(&self.headers) == protobuf::CONTENT_TYPE {
            return Ok(protobuf::decode(&self.body)?);
        }
        // YAML is a superset, and is what an apply patch is written in.
        match negotiate::content_type(&self.headers) {
            "application/yaml" | "application/apply-patch+yaml" => {
                serde_yaml_ng::from_slice(&self.body).map_err(|error| status::bad_request(error.to_string()).into())
            }
            _ => serde_json::from_slice(&self.body).map_err(|error| status::bad_request(error.to_string()).into()),
        }
    }

    /// A loose JSON or YAML body (`DeleteOptions` and its like); null when there is none.
    pub(crate) fn loose_body(&self) -> ApiResult<Value> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        match negotiate::body_syntax(&self.headers)? {
            BodySyntax::Protobuf => Ok(protobuf::decode(&self.body)?),
            BodySyntax::Json => {
                serde_json::from_slice(&self.body).map_err(|error| status::bad_request(error.to_string()).into())
            }
            BodySyntax::Yaml => {
                serde_yaml_ng::from_slice(&self.body).map_err(|error| status::bad_request(error.to_string()).into())
            }
        }
    }
}
