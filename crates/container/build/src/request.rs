//! What is to be built.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::runner::StepLimits;

/// One build, as `POST /build`, BuildKit's protocol or `gantry build` asks for it.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Path of the Dockerfile inside the context; shown in errors.
    pub dockerfile_name: String,
    /// The Dockerfile's text when it does not come from the context (`-f -`).
    pub dockerfile: Option<String>,
    /// Names for the result.
    pub tags: Vec<String>,
    /// Stage to stop at; the last one when empty.
    pub target: String,
    /// `--build-arg`; `None` takes no value from anywhere but keeps the name declared.
    pub build_args: BTreeMap<String, Option<String>>,
    /// `--label`, added to the image's last step.
    pub labels: BTreeMap<String, String>,
    pub no_cache: bool,
    /// Stages that are built without the cache (`--no-cache-filter`).
    pub no_cache_stages: Vec<String>,
    pub pull: bool,
    /// Network of RUN steps: `default`, `none`, `host` or a name.
    pub network: String,
    pub extra_hosts: Vec<String>,
    pub limits: StepLimits,
    /// `linux/amd64`; empty means this machine's.
    pub platform: String,
    /// What the client granted: `network.host`, `security.insecure`.
    pub entitlements: Vec<String>,
    /// Images whose layers may be used again (`--cache-from`).
    pub cache_from: Vec<String>,
    /// The image carries the records that a later `--cache-from` needs (`BUILDKIT_INLINE_CACHE=1`).
    pub inline_cache: bool,
    /// Named contexts that are images: `alpine` → `docker.io/library/alpine:3.20`.
    pub named_images: BTreeMap<String, String>,
}

impl Default for BuildRequest {
    fn default() -> Self {
        Self {
            dockerfile_name: "Dockerfile".to_owned(),
            dockerfile: None,
            tags: Vec::new(),
            target: String::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_cache: false,
            no_cache_stages: Vec::new(),
            pull: false,
            network: "default".to_owned(),
            extra_hosts: Vec::new(),
            limits: StepLimits::default(),
            platform: String::new(),
            entitlements: Vec::new(),
            cache_from: Vec::new(),
            inline_cache: false,
            named_images: BTreeMap::new(),
        }
    }
}

impl BuildRequest {
    /// The one moment that everything made gets (`SOURCE_DATE_EPOCH`), if the build is to be reproducible.
    pub(crate) fn epoch(&self) -> Option<Timestamp> {
        let text = self.build_args.get("SOURCE_DATE_EPOCH")?.as_deref()?;
        Timestamp::from_second(text.trim().parse().ok()?).ok()
    }

    pub(crate) fn grants(&self, entitlement: &str) -> bool {
        self.entitlements.iter().any(|granted| granted == entitlement)
    }
}
