//! Messages that name something that is not there, in the node's and the API's words.

use super::explanation::{Cause, Finding, namespace_option};
use crate::facts::{Facts, ObjectName};

/// Kinds as messages spell them.
const KINDS: [(&str, &str, Cause); 4] = [
    ("configmap", "ConfigMap", Cause::ConfigMapMissing),
    ("secret", "Secret", Cause::SecretMissing),
    ("persistentvolumeclaim", "PersistentVolumeClaim", Cause::ClaimMissing),
    ("serviceaccount", "ServiceAccount", Cause::ServiceAccountMissing),
];

/// `configmap "x" not found`, `secrets "x" is forbidden … not found`, `couldn't find key k in ConfigMap ns/x`.
pub(crate) fn missing(subject: &ObjectName, message: &str, facts: &Facts) -> Option<Finding> {
    missing_key(subject, message).or_else(|| missing_object(subject, message, facts))
}

fn missing_object(subject: &ObjectName, message: &str, facts: &Facts) -> Option<Finding> {
    if !message.contains("not found") {
        return None;
    }
    let lower = message.to_ascii_lowercase();
    let (word, kind, cause) = *KINDS.iter().find(|(word, _, _)| lower.contains(word))?;
    let name = quoted_after(message, &lower, word)?;
    let finding = Finding::new(
        subject,
        cause,
        format!("it needs {word} {name:?}, which is not in namespace {}", subject.namespace),
    );
    Some(match facts.nearest(kind, &subject.namespace, name) {
        Some(near) => finding
            .seen("status", format!("there is a {word} {near:?}"))
            .next(format!("correct the name to {near:?} in the pod's template")),
        None => finding.next(format!("kubectl get {word}s{}", namespace_option(subject))),
    })
}

fn missing_key(subject: &ObjectName, message: &str) -> Option<Finding> {
    let rest = message
        .split_once("couldn't find key ")
        .or_else(|| message.split_once("references non-existent config key: "))?
        .1;
    let mut words = rest.split_whitespace();
    let key = words.next()?.trim_end_matches([',', '.']);
    let place = words.nth(1).zip(words.next());
    let finding = match place {
        Some((kind, name)) => Finding::new(subject, Cause::KeyMissing, format!("{kind} {name} has no key {key:?}"))
            .next(format!(
                "kubectl get {} {}{} -o yaml",
                kind.to_ascii_lowercase(),
                name.rsplit('/').next().unwrap_or(name).trim_end_matches(','),
                namespace_option(subject)
            )),
        None => Finding::new(subject, Cause::KeyMissing, format!("the key {key:?} that it mounts is not there")),
    };
    Some(finding)
}

/// The first quoted name behind a word, or the first one at all.
fn quoted_after<'a>(message: &'a str, lower: &str, word: &str) -> Option<&'a str> {
    let from = lower.find(word)?;
    let quoted = |text: &'a str| text.split('"').nth(1);
    quoted(message.get(from..)?).or_else(|| quoted(message)).filter(|name| !name.is_empty())
}
