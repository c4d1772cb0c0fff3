//! Pod Security Standards: which rules of a level a pod breaks, in the words of Kubernetes' PodSecurity plugin.
//!
//! Called by the API server's admission. The rules are those of the newest version; namespaces may pin a version of Kubernetes
//! (`…-version`), which is shown in messages and does not change the rules.

mod baseline;
mod look;
mod restricted;

use serde_json::Value;

/// How much a namespace lets its pods do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `privileged`, `host namespaces`, …
    pub reason: &'static str,
    /// Who breaks it: `container "a" must not set securityContext.privileged=true`.
    pub detail: String,
}

/// Every rule of `level` that a pod (or a pod template: metadata and spec) breaks.
pub fn violations(level: Level, pod: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    if level >= Level::Baseline {
        baseline::check(level, pod, &mut found);
    }
    if level >= Level::Restricted {
        restricted::check(pod, &mut found);
    }
    // One message a rule, in the order of the reasons, so that it reads the same every time.
    found.sort_by_key(|violation| violation.reason);
    found
}

/// `privileged (container "a" must not set …), host namespaces (hostNetwork=true)`
pub fn describe(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations
        .iter()
        .map(|one| if one.detail.is_empty() { one.reason.to_owned() } else { format!("{} ({})", one.reason, one.detail) })
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests;
