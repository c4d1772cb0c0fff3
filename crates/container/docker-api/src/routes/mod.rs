//! Routes by topic, and what their handlers share.

mod absent;
mod archive;
mod attach;
mod build;
mod build_session;
mod build_text;
mod container_list;
mod containers;
mod disk;
mod events;
mod execs;
mod image_load;
mod image_pull;
mod images;
mod logs;
mod networks;
mod system;
mod volumes;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

pub(crate) use absent::routes as absent;
pub(crate) use build::routes as build;
pub(crate) use containers::routes as containers;
pub(crate) use execs::routes as execs;
pub(crate) use images::routes as images;
pub(crate) use networks::routes as networks;
pub(crate) use system::routes as system;
pub(crate) use volumes::routes as volumes;

/// A JSON body, whatever its content type says; absent counts as `{}`.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|e| ApiError::new(e.status(), e.body_text()))?;
        let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Body).map_err(|e| ApiError::bad_request(format!("invalid JSON: {e}")))
    }
}

/// The query as text; `1`, `true` are yes. Docker takes anything that is not an explicit no as yes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or("")
    }

    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.clone()).collect()
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    pub(crate) fn flag_or(&self, key: &str, default: bool) -> bool {
        match self.get(key).map(str::to_ascii_lowercase).as_deref() {
            None => default,
            Some("0" | "no" | "false" | "none") => false,
            Some(_) => true,
        }
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        let invalid = |text: &str| ApiError::bad_request(format!("invalid value for \"{key}\": \"{text}\""));
        self.get(key).map(|text| text.parse().map_err(|_| invalid(text))).transpose()
    }
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, ApiError> {
        type Pairs = axum::extract::Query<Vec<(String, String)>>;
        let pairs = Pairs::from_request_parts(parts, state).await.map_err(|e| ApiError::bad_request(e.body_text()))?;
        Ok(Self(pairs.0))
    }
}
