//! Which variables an instruction sees (pure): global ARGs, a stage's own ARGs, its ENV, the build's arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use oci::Platform;

use crate::expand::Expander;

/// Arguments that need no ARG line to be passed to RUN, and never count in the cache (Dockerfile reference, "Predefined ARGs").
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Arguments that steer the builder itself.
const FRONTEND: [&str; 5] = [
    "SOURCE_DATE_EPOCH",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SYNTAX",
];

/// The arguments of a whole build.
pub(crate) struct Arguments {
    given: BTreeMap<String, Option<String>>,
    platform: BTreeMap<&'static str, String>,
    /// ARGs before the first FROM.
    global: BTreeMap<String, Option<String>>,
    /// Stages run at the same time.
    used: Mutex<BTreeSet<String>>,
}

impl Arguments {
    pub(crate) fn new(given: BTreeMap<String, Option<String>>, host: &Platform) -> Self {
        let platform = [
            ["BUILDPLATFORM", "BUILDOS", "BUILDARCH", "BUILDVARIANT"],
            ["TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT"],
        ]
        .into_iter()
        .flat_map(|names| {
            let whole = format!("{}/{}", host.os, host.architecture);
            let variant = host.variant.clone().unwrap_or_default();
            names.into_iter().zip([whole, host.os.clone(), host.architecture.clone(), variant])
        })
        .collect();
        Self { given, platform, global: BTreeMap::new(), used: Mutex::default() }
    }

    /// An ARG before the first FROM; its default is already expanded.
    pub(crate) fn declare_global(&mut self, name: &str, default: Option<String>) {
        let value = self.passed(name).or(default);
        self.global.insert(name.to_owned(), value);
    }

    /// What FROM lines see.
    pub(crate) fn global(&self, name: &str) -> Option<String> {
        match self.global.get(name) {
            Some(value) => value.clone(),
            None => self.platform.get(name).cloned(),
        }
    }

    fn passed(&self, name: &str) -> Option<String> {
        let value = self.given.get(name)?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        value.clone()
    }

    /// `--build-arg`s that no ARG line asked for.
    pub(crate) fn unused(&self) -> Vec<String> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |name: &str| PREDEFINED.contains(&name) || FRONTEND.contains(&name);
        self.given.keys().filter(|name| !used.contains(*name) && !known(name)).cloned().collect()
    }
}

/// The variables of one stage.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    args: BTreeMap<String, Option<String>>,
}

impl Scope {
    /// An ARG line inside a stage: what was passed, else its own default, else the global one.
    pub(crate) fn declare(&mut self, arguments: &Arguments, name: &str, default: Option<String>) {
        let value = arguments.passed(name).or(default).or_else(|| arguments.global(name));
        self.args.insert(name.to_owned(), value);
    }

    /// A variable's value: ENV wins over ARG.
    pub(crate) fn lookup(&self, env: &[String], name: &str) -> Option<String> {
        env.iter()
            .find_map(|entry| {
                entry.split_once('=').filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
            })
            .or_else(|| self.args.get(name).cloned().flatten())
    }

    /// Expands a word with this stage's variables.
    pub(crate) fn expand(&self, env: &[String], escape: char, text: &str) -> Result<String, String> {
        Expander { escape, lookup: &|name| self.lookup(env, name) }.word(text)
    }

    /// Expands a heredoc's content: quotes are its own.
    pub(crate) fn expand_text(&self, env: &[String], escape: char, text: &str) -> Result<String, String> {
        Expander { escape, lookup: &|name| self.lookup(env, name) }.text(text)
    }

    /// `NAME=value` of the declared arguments that RUN gets beside ENV (sorted), those that count in the cache.
    pub(crate) fn run_args(&self, env: &[String]) -> Vec<String> {
        let in_env = |name: &str| env.iter().any(|entry| entry.split_once('=').is_some_and(|(known, _)| known == name));
        self.args
            .iter()
            .filter(|(name, _)| !in_env(name) && !PREDEFINED.contains(&name.as_str()))
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}")))
            .collect()
    }
}

/// Proxy settings that were passed: RUN gets them, the cache key does not.
pub(crate) fn predefined(given: &BTreeMap<String, Option<String>>) -> Vec<String> {
    given
        .iter()
        .filter(|(name, _)| PREDEFINED.contains(&name.as_str()))
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(given: &[(&str, &str)]) -> Arguments {
        Arguments::new(
            given.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect(),
            &Platform::new("linux", "amd64", None),
        )
    }

    #[test]
    fn a_global_arg_is_seen_in_a_stage_only_when_it_is_declared_there() {
        let mut arguments = arguments(&[]);
        arguments.declare_global("V", Some("1".into()));
        let mut scope = Scope::default();
        assert_eq!(scope.lookup(&[], "V"), None);
        scope.declare(&arguments, "V", None);
        assert_eq!(scope.lookup(&[], "V").as_deref(), Some("1"));
    }

    #[test]
    fn build_args_win_over_defaults_and_env_wins_over_args() {
        let arguments = arguments(&[("V", "given")]);
        let mut scope = Scope::default();
        scope.declare(&arguments, "V", Some("default".into()));
        assert_eq!(scope.lookup(&[], "V").as_deref(), Some("given"));
        assert_eq!(scope.lookup(&["V=env".into()], "V").as_deref(), Some("env"));
        assert_eq!(scope.run_args(&["V=env".into()]), Vec::<String>::new());
        assert_eq!(scope.run_args(&[]), ["V=given"]);
    }

    #[test]
    fn unused_build_args_are_told_and_platform_args_are_there() {
        let arguments = arguments(&[("X", "1"), ("http_proxy", "p")]);
        assert_eq!(arguments.unused(), ["X"]);
        assert_eq!(arguments.global("TARGETARCH").as_deref(), Some("amd64"));
        let mut scope = Scope::default();
        scope.declare(&arguments, "X", None);
        assert!(arguments.unused().is_empty());
    }
}
