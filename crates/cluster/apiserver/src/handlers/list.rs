//! LIST: one consistent picture, in pages when the client asks for them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use kube_types::status;
use serde::{Deserialize, Serialize};
use store::KeyValue;

use super::present::{self, ListMeta};
use super::select::Selection;
use crate::call::{Call, Target};
use crate::error::{ApiResult, too_large_version};
use crate::extension::convert;
use crate::keys;
use crate::respond::Reply;

/// What a `continue` token holds; opaque to clients.
#[derive(Serialize, Deserialize)]
struct Continue {
    #[serde(rename = "rv")]
    revision: u64,
    /// The last key that was handed out, below the prefix.
    #[serde(rename = "start")]
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        BASE64.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(token: &str) -> ApiResult<Self> {
        BASE64
            .decode(token)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| status::bad_request("continue key is not valid: invalid continue token").into())
    }
}

/// Where a list reads from.
struct Page {
    at: Option<u64>,
    after: Option<String>,
    limit: usize,
}

impl Page {
    fn parse(call: &Call) -> ApiResult<Self> {
        let limit = usize::try_from(call.query.number("limit").unwrap_or(0)).unwrap_or(0);
        let version = call.query.text("resourceVersion");
        let rule = call.query.text("resourceVersionMatch");
        let forbidden = |why: &str| {
            status::bad_request(format!("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden {why}"))
        };
        if rule.is_some() && call.query.text("continue").is_some() {
            return Err(forbidden("when continue is provided").into());
        }
        if rule.is_some() && version.is_none() {
            return Err(forbidden("unless resourceVersion is provided").into());
        }
        if let Some(token) = call.query.text("continue") {
            if version.is_some_and(|version| version != "0") {
                return Err(
                    status::bad_request("specifying resource version is not allowed when using continue").into()
                );
            }
            let token = Continue::decode(token)?;
            return Ok(Self { at: Some(token.revision), after: Some(token.after), limit });
        }
        let requested = match version {
            None => 0,
            Some(text) => text
                .parse::<u64>()
                .map_err(|_| status::bad_request(format!("invalid resource version {text:?}: not a number")))?,
        };
        let current = call.server.store.revision();
        if requested > current {
            return Err(too_large_version(requested, current));
        }
        let exact = match rule {
            Some("Exact") if requested == 0 => {
                return Err(status::bad_request(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
                )
                .into());
            }
            Some("Exact") => true,
            Some("NotOlderThan") => false,
            Some(other) => {
                let text = format!(
                    "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
                );
                return Err(status::bad_request(text).into());
            }
            // The old rule: a page of a given version is of exactly that version.
            None => limit > 0 && requested > 0,
        };
        Ok(Self { at: exact.then_some(requested), after: None, limit })
    }
}

pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let selection = Selection::parse(call, target)?;
    let page = Page::parse(call)?;
    if let (Some(name), None) = (selection.only_name(), page.at)
        && (!target.resource.namespaced || !target.namespace.is_empty())
    {
        return one_name(call, target, &selection, name).await;
    }
    let (items, meta) = read_page(call, target, &selection, &page)?;
    let items = convert::to_client(call, &target.resource, items).await?;
    present::many(call, &target.resource, &items, &meta)
}

/// A list that can hold one object at most.
async fn one_name(call: &Call, target: &Target, selection: &Selection, name: &str) -> ApiResult<Reply> {
    // The revision first: an object that is newer than it would only be seen again by a watch.
    let revision = call.server.store.revision();
    let found = keys::is_segment(name).then(|| call.server.store.get(&target.named(name).key())).flatten();
    let items: Vec<Bytes> =
        found.map(|found| found.value).filter(|value| selection.matches(&target.resource, value)).into_iter().collect();
    let items = convert::to_client(call, &target.resource, items).await?;
    present::many(call, &target.resource, &items, &ListMeta { revision, continue_token: None, remaining: None })
}

fn read_page(call: &Call, target: &Target, selection: &Selection, page: &Page) -> ApiResult<(Vec<Bytes>, ListMeta)> {
    let prefix = keys::prefix(&target.resource, &target.namespace);
    let mut after = page.after.as_ref().map(|after| format!("{prefix}{after}").into_bytes());
    let mut at = page.at;
    let mut items = Vec::new();
    loop {
        let wanted = if page.limit == 0 { 0 } else { page.limit - items.len() };
        let range = call.server.store.range(prefix.as_bytes(), after.as_deref(), wanted, at)?;
        at = Some(range.revision);
        let last = range.items.last().map(|item| item.key.to_vec());
        items.extend(matching(target, selection, range.items));
        let full = page.limit > 0 && items.len() >= page.limit;
        if !range.more || full || last.is_none() {
            let token = last.filter(|_| range.more).map(|last| Continue {
                revision: range.revision,
                after: String::from_utf8_lossy(last.get(prefix.len()..).unwrap_or_default()).into_owned(),
            });
            let remaining = token.as_ref().filter(|_| selection.is_everything()).map(|token| {
                call.server.store.count(prefix.as_bytes(), Some(format!("{prefix}{}", token.after).as_bytes()))
            });
            let continue_token = token.map(|token| token.encode());
            return Ok((items, ListMeta { revision: range.revision, continue_token, remaining }));
        }
        after = last;
    }
}

fn matching(target: &Target, selection: &Selection, items: Vec<KeyValue>) -> impl Iterator<Item = Bytes> {
    items.into_iter().map(|item| item.value).filter(move |value| selection.matches(&target.resource, value))
}

/// Everything that a deletecollection is about.
pub(crate) fn names(call: &Call, target: &Target) -> ApiResult<Vec<KeyValue>> {
    let selection = Selection::parse(call, target)?;
    let prefix = keys::prefix(&target.resource, &target.namespace);
    let mut items = call.server.store.range(prefix.as_bytes(), None, 0, None)?.items;
    items.retain(|item| selection.matches(&target.resource, &item.value));
    Ok(items)
}
