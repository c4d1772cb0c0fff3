//! Label and field selectors of a list, a watch or a deletecollection.
//!
//! Decodes no more of an object than the selector needs: labels alone for a label selector, nothing for none.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use kube_types::selector::{FieldSelector, LabelSelector};
use kube_types::{Resource, fields, status};
use serde::Deserialize;

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::object;

pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

#[derive(Deserialize)]
struct Labelled<'a> {
    #[serde(borrow)]
    metadata: Labels<'a>,
}

#[derive(Deserialize)]
struct Labels<'a> {
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl Selection {
    pub(crate) fn parse(call: &Call, target: &Target) -> ApiResult<Self> {
        let labels = LabelSelector::parse(call.query.get("labelSelector").unwrap_or_default())
            .map_err(|error| status::bad_request(format!("unable to parse requirement: {error}")))?;
        let fields = FieldSelector::parse(call.query.get("fieldSelector").unwrap_or_default())
            .map_err(|error| status::bad_request(error.to_string()))?;
        for field in fields.field_names() {
            if !fields::is_selectable(&target.resource, field) {
                return Err(status::bad_request(format!("field label not supported: {field}")).into());
            }
        }
        Ok(Self { labels, fields })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can match, when the selector pins it: a list of it is a get.
    pub(crate) fn only_name(&self) -> Option<&str> {
        self.fields.required_value("metadata.name")
    }

    pub(crate) fn matches(&self, resource: &Resource, stored: &Bytes) -> bool {
        self.labels_match(stored)
            && (self.fields.is_empty() || self.fields.matches(&fields::selectable(resource, &object::decode(stored))))
    }

    fn labels_match(&self, stored: &Bytes) -> bool {
        if self.labels.is_empty() {
            return true;
        }
        let Ok(object) = serde_json::from_slice::<Labelled<'_>>(stored) else {
            return false;
        };
        let labels = object.metadata.labels.unwrap_or_default();
        self.labels.matches(|key| labels.get(key).map(|value| value.as_ref()))
    }
}
