//! Showing objects in the shape that the client asked for. Whole JSON objects are sent as they lie in the store.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::StatusCode;
use jiff::Timestamp;
use kube_types::{Resource, table};
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::ApiResult;
use crate::negotiate::{self, Shape, Syntax};
use crate::object;
use crate::protobuf;
use crate::respond::{self, Reply};

pub(crate) fn one(call: &Call, resource: &Resource, code: StatusCode, stored: &Bytes) -> ApiResult<Reply> {
    let output = negotiate::output(&call.headers)?;
    let bytes = shaped(call, resource, output.shape, &object::in_version(stored, &resource.api_version()));
    Ok(match output.syntax {
        Syntax::Protobuf => match protobuf::encode::object(&object::decode(&bytes)) {
            Some(encoded) => respond::with_type(code, protobuf::CONTENT_TYPE, encoded),
            // A kind that has no form in protobuf: the clients that ask for it read JSON as well.
            None => respond::json_bytes(code, bytes),
        },
        Syntax::Json if code == StatusCode::OK => respond::json_large(&call.headers, bytes),
        Syntax::Json => respond::json_bytes(code, bytes),
        Syntax::Yaml => yaml(code, &bytes),
    })
}

fn yaml(code: StatusCode, bytes: &[u8]) -> Reply {
    let text = serde_yaml_ng::to_string(&object::decode(bytes)).unwrap_or_default();
    respond::with_type(code, "application/yaml", text)
}

/// One object in one shape; also used for each event of a watch.
pub(crate) fn shaped(call: &Call, resource: &Resource, shape: Shape, stored: &Bytes) -> Bytes {
    match shape {
        Shape::Whole => stored.clone(),
        Shape::Metadata => metadata_only(&object::decode(stored)).to_string().into(),
        Shape::Table => {
            let value = object::decode(stored);
            let mut rendered = table::render(resource, &[&value], Timestamp::now(), include_object(call));
            let version = object::text(&value, "/metadata/resourceVersion");
            rendered["metadata"] = json!({"resourceVersion": version});
            rendered.to_string().into()
        }
    }
}

fn metadata_only(value: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]})
}

fn include_object(call: &Call) -> table::IncludeObject {
    match call.query.text("includeObject") {
        Some("None") => table::IncludeObject::None,
        Some("Object") => table::IncludeObject::Object,
        _ => table::IncludeObject::Metadata,
    }
}

/// What a list's `metadata` says.
pub(crate) struct ListMeta {
    pub(crate) revision: u64,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl ListMeta {
    fn to_value(&self) -> Value {
        let mut value = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.continue_token {
            value["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            value["remainingItemCount"] = remaining.into();
        }
        value
    }
}

pub(crate) fn many(call: &Call, resource: &Resource, items: &[Bytes], meta: &ListMeta) -> ApiResult<Reply> {
    let output = negotiate::output(&call.headers)?;
    if output.syntax == Syntax::Protobuf
        && let Some(encoded) = protobuf_list(resource, items, meta, output.shape)
    {
        return Ok(respond::with_type(StatusCode::OK, protobuf::CONTENT_TYPE, encoded));
    }
    let bytes = match output.shape {
        Shape::Whole => whole_list(resource, items, meta),
        Shape::Metadata => {
            let values: Vec<Value> = items.iter().map(|item| metadata_only(&object::decode(item))).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": meta.to_value(), "items": values,
            });
            list.to_string().into()
        }
        Shape::Table => {
            let values: Vec<Value> = items.iter().map(|item| object::decode(item)).collect();
            let references: Vec<&Value> = values.iter().collect();
            let mut rendered = table::render(resource, &references, Timestamp::now(), include_object(call));
            rendered["metadata"] = meta.to_value();
            rendered.to_string().into()
        }
    };
    Ok(match output.syntax {
        Syntax::Json | Syntax::Protobuf => respond::json_large(&call.headers, bytes),
        Syntax::Yaml => yaml(StatusCode::OK, &bytes),
    })
}

fn protobuf_list(resource: &Resource, items: &[Bytes], meta: &ListMeta, shape: Shape) -> Option<Vec<u8>> {
    let values: Vec<Value> = items.iter().map(|item| object::decode(item)).collect();
    match shape {
        Shape::Whole => {
            protobuf::encode::list(&resource.api_version(), &resource.list_kind, &meta.to_value(), &values)
        }
        Shape::Metadata => {
            protobuf::encode::list("meta.k8s.io/v1", "PartialObjectMetadataList", &meta.to_value(), &values)
        }
        Shape::Table => None,
    }
}

/// The stored bytes, one after the other; nothing is encoded again.
fn whole_list(resource: &Resource, items: &[Bytes], meta: &ListMeta) -> Bytes {
    let api_version = resource.api_version();
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
        Value::from(resource.list_kind.as_ref()),
        Value::from(api_version.as_str()),
        meta.to_value()
    );
    let size = head.len() + items.iter().map(|item| item.len() + 1).sum::<usize>() + 2;
    let mut bytes = BytesMut::with_capacity(size);
    bytes.put_slice(head.as_bytes());
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            bytes.put_u8(b',');
        }
        bytes.put_slice(&object::in_version(item, &api_version));
    }
    bytes.put_slice(b"]}");
    bytes.freeze()
}
