//! May this user do that? `system:masters` may; a node may what its pods need (`node`); everybody else what roles grant
//! (`rbac`).

pub(crate) mod node;
pub(crate) mod rbac;
pub(crate) mod roles;

use kube_types::status::{self, Details};

use crate::call::{Call, Target};
use crate::error::{ApiError, ApiResult};
use crate::identity::Identity;
use crate::request;
use crate::server::ApiServer;

/// What is to be done, in the words of a `SubjectAccessReview`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// A request that is about no resource; the other fields but the verb are empty.
    pub(crate) path: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub(crate) fn verb(verb: &'a str) -> Self {
        Self { verb, ..Self::default() }
    }

    /// `pods/log`
    pub(crate) fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

pub(crate) fn decide(server: &ApiServer, user: &Identity, attributes: &Attributes<'_>) -> bool {
    user.is_master() || node::allows(server, user, attributes) || server.rbac.allows(user, attributes)
}

/// Refuses the request at the door, before anything is known about its resource.
pub(crate) fn authorize_request(call: &Call) -> ApiResult<()> {
    let selected = selected_name(call);
    let attributes = match &call.info.target {
        request::Target::Other => Attributes { path: Some(&call.info.path), ..Attributes::verb(call.info.verb) },
        request::Target::Resource(path) => Attributes {
            verb: call.info.verb,
            group: &path.group,
            resource: &path.resource,
            subresource: &path.subresource,
            namespace: &path.namespace,
            name: if path.name.is_empty() { &selected } else { &path.name },
            path: None,
        },
    };
    check(call, &attributes)
}

/// The one object that a list or watch is narrowed to by `fieldSelector=metadata.name=…`: rights to that name suffice,
/// as in Kubernetes. Empty where there is no such selector.
fn selected_name(call: &Call) -> String {
    let selector = call.query.text("fieldSelector").unwrap_or_default();
    let name =
        selector.split(',').find_map(|part| part.replace("==", "=").strip_prefix("metadata.name=").map(str::to_owned));
    name.filter(|_| matches!(call.info.verb, "list" | "watch" | "deletecollection")).unwrap_or_default()
}

/// A further permission that a request turns out to need.
pub(crate) fn authorize_verb(call: &Call, target: &Target, verb: &str) -> ApiResult<()> {
    let attributes = Attributes {
        verb,
        group: &target.resource.group,
        resource: &target.resource.plural,
        subresource: &target.subresource,
        namespace: &target.namespace,
        name: &target.name,
        path: None,
    };
    check(call, &attributes)
}

fn check(call: &Call, attributes: &Attributes<'_>) -> ApiResult<()> {
    if !decide(&call.server, &call.user, attributes) {
        return Err(denial(&call.user, attributes));
    }
    node::check_selector(call, attributes)
}

/// 403 in Kubernetes' words.
pub(crate) fn denial(user: &Identity, attributes: &Attributes<'_>) -> ApiError {
    if let Some(path) = attributes.path {
        return status::forbidden_path(&user.name, attributes.verb, path).into();
    }
    let (resource, group) = (attributes.resource, attributes.group);
    let what = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let name = if attributes.name.is_empty() { String::new() } else { format!(" {:?}", attributes.name) };
    let place = if attributes.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", attributes.namespace)
    };
    let mut refusal = status::forbidden_path(&user.name, attributes.verb, "");
    refusal.message = format!(
        "{what}{name} is forbidden: User {:?} cannot {} resource {:?} in API group {group:?} {place}",
        user.name,
        attributes.verb,
        attributes.full_resource()
    );
    refusal.details = Some(Details {
        name: attributes.name.to_owned(),
        group: group.to_owned(),
        kind: resource.to_owned(),
        ..Details::default()
    });
    refusal.into()
}
