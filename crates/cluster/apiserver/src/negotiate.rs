//! What the client wants to get: from `Accept`, and what it sent: from `Content-Type`.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use kube_types::status;

use crate::error::ApiResult;

/// The representation of an object or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The objects themselves.
    Whole,
    /// `as=Table`
    Table,
    /// `as=PartialObjectMetadata`, `as=PartialObjectMetadataList`
    Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    Json,
    Yaml,
    Protobuf,
}

/// How a request's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodySyntax {
    Json,
    Yaml,
    Protobuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) shape: Shape,
    pub(crate) syntax: Syntax,
}

const ACCEPTED_BODIES: [&str; 3] = ["application/json", "application/yaml", crate::protobuf::CONTENT_TYPE];
const OFFERED: [&str; 3] = ["application/json", "application/yaml", crate::protobuf::CONTENT_TYPE];

/// One entry of an `Accept` header.
struct Media<'a> {
    kind: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl<'a> Media<'a> {
    fn parse(entry: &'a str) -> Self {
        let mut parts = entry.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        Self { kind, params: parts.filter_map(|part| part.split_once('=')).collect() }
    }

    fn param(&self, key: &str) -> Option<&'a str> {
        self.params.iter().find(|(own, _)| *own == key).map(|(_, value)| *value)
    }

    fn syntax(&self) -> Option<Syntax> {
        match self.kind {
            "application/json" | "*/*" | "application/*" | "" => Some(Syntax::Json),
            "application/yaml" => Some(Syntax::Yaml),
            // Tables have no form in protobuf.
            crate::protobuf::CONTENT_TYPE if self.param("as") != Some("Table") => Some(Syntax::Protobuf),
            _ => None,
        }
    }

    fn shape(&self) -> Option<Shape> {
        match self.param("as") {
            None => Some(Shape::Whole),
            Some("Table") => (self.param("v") == Some("v1")).then_some(Shape::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Shape::Metadata),
            Some(_) => None,
        }
    }
}

fn accept(headers: &HeaderMap) -> &str {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// The first entry that we can serve; 406 when there is none.
pub(crate) fn output(headers: &HeaderMap) -> ApiResult<Output> {
    accept(headers)
        .split(',')
        .map(Media::parse)
        .find_map(|media| Some(Output { shape: media.shape()?, syntax: media.syntax()? }))
        .ok_or_else(|| status::not_acceptable(&OFFERED).into())
}

/// The version of aggregated discovery that is asked for before the plain form, if any.
pub(crate) fn aggregated_discovery(headers: &HeaderMap) -> Option<&'static str> {
    for media in accept(headers).split(',').map(Media::parse) {
        if media.kind != "application/json" && media.kind != "*/*" {
            continue;
        }
        match (media.param("g"), media.param("v"), media.param("as")) {
            (Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")) => {
                return Some("v2");
            }
            (Some("apidiscovery.k8s.io"), Some("v2beta1"), Some("APIGroupDiscoveryList")) => {
                return Some("v2beta1");
            }
            (None, ..) => return None,
            _ => {}
        }
    }
    None
}

/// Whether only protobuf (in any form) is acceptable.
pub(crate) fn demands_protobuf(headers: &HeaderMap) -> bool {
    let accept = accept(headers);
    !accept.is_empty() && accept.split(',').all(|entry| entry.contains("proto"))
}

pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().split(';').next() == Some("gzip"))
}

/// The media type of the request's body, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim)
}

/// How an object in the request's body is written.
pub(crate) fn body_syntax(headers: &HeaderMap) -> ApiResult<BodySyntax> {
    match content_type(headers) {
        "" | "application/json" | "*/*" => Ok(BodySyntax::Json),
        "application/yaml" => Ok(BodySyntax::Yaml),
        crate::protobuf::CONTENT_TYPE => Ok(BodySyntax::Protobuf),
        _ => Err(status::unsupported_media_type(&ACCEPTED_BODIES).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, accept.parse().expect("header"))])
    }

    #[test]
    fn the_first_form_that_we_can_serve_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, shape) in [
            ("", Shape::Whole),
            ("*/*", Shape::Whole),
            (table, Shape::Table),
            ("application/vnd.kubernetes.protobuf,application/json", Shape::Whole),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
                Shape::Metadata,
            ),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Shape::Whole),
        ] {
            assert_eq!(output(&headers(accept)).expect(accept).shape, shape, "{accept}");
        }
        assert_eq!(output(&headers("text/html")).expect_err("not served").0.code, 406);
    }

    #[test]
    fn aggregated_discovery_is_given_only_to_who_prefers_it() {
        let asks = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated_discovery(&headers(asks)), Some("v2"));
        assert_eq!(aggregated_discovery(&headers("application/json")), None);
        assert_eq!(
            aggregated_discovery(&headers(
                "application/json,application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            )),
            None
        );
    }
}
