//! An object of which only the metadata matters.
//!
//! Garbage collection watches many kinds by it: the rest of an object is read past and never kept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ListableResource, Metadata, Resource};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// The metadata of a `K`.
#[derive(Deserialize, Serialize)]
#[serde(bound = "")]
pub struct Partial<K> {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Partial<K> {
    fn clone(&self) -> Self {
        Partial { metadata: self.metadata.clone(), kind: PhantomData }
    }
}

impl<K: Resource> Resource for Partial<K> {
    const API_VERSION: &'static str = K::API_VERSION;
    const GROUP: &'static str = K::GROUP;
    const KIND: &'static str = K::KIND;
    const VERSION: &'static str = K::VERSION;
    const URL_PATH_SEGMENT: &'static str = K::URL_PATH_SEGMENT;
    type Scope = K::Scope;
}

impl<K: ListableResource> ListableResource for Partial<K> {
    const LIST_KIND: &'static str = K::LIST_KIND;
}

impl<K: Resource> Metadata for Partial<K> {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
