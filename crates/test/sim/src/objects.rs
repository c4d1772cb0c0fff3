//! The kinds of the simulated cluster, in one type: what the store keeps and watches carry.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

/// Kind and name; there is one namespace.
pub(crate) type Key = (Kind, String);

macro_rules! kinds {
    ($($kind:ident),+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Kind { $($kind),+ }

        impl Kind {
            pub(crate) const ALL: &'static [Kind] = &[$(Kind::$kind),+];
        }

        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Object { $($kind(Arc<$kind>)),+ }

        impl Object {
            pub(crate) fn kind(&self) -> Kind {
                match self { $(Object::$kind(_) => Kind::$kind),+ }
            }

            pub(crate) fn meta(&self) -> &ObjectMeta {
                match self { $(Object::$kind(o) => &o.metadata),+ }
            }

            pub(crate) fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Object::$kind(o) => &mut Arc::make_mut(o).metadata),+ }
            }
        }

        $(
            impl Typed for $kind {
                const KIND_OF: Kind = Kind::$kind;
                fn wrap(self) -> Object { Object::$kind(Arc::new(self)) }
                fn unwrap(object: &Object) -> Option<Arc<Self>> {
                    if let Object::$kind(o) = object { Some(o.clone()) } else { None }
                }
            }
        )+
    };
}

/// One kind, typed.
pub(crate) trait Typed: Clone {
    const KIND_OF: Kind;
    fn wrap(self) -> Object;
    fn unwrap(object: &Object) -> Option<Arc<Self>>;
}

kinds!(
    Node,
    Pod,
    ReplicaSet,
    Deployment,
    StatefulSet,
    DaemonSet,
    ControllerRevision,
    PersistentVolumeClaim,
    Job,
    PodDisruptionBudget
);

impl Object {
    pub(crate) fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    pub(crate) fn key(&self) -> Key {
        (self.kind(), self.name().to_owned())
    }

    pub(crate) fn version(&self) -> u64 {
        self.meta().resource_version.as_ref().and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }
}
