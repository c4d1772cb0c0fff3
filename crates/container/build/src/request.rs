//! What is to be built.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::runner::StepLimits;

/// One build, as `POST /build` or `gantry build` asks for it.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The unpacked build context; nothing outside it is ever read.
    pub context: PathBuf,
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
    pub pull: bool,
    /// Network of RUN steps: `default`, `none`, `host` or a name.
    pub network: String,
    pub extra_hosts: Vec<String>,
    pub limits: StepLimits,
    /// `linux/amd64`; empty means this machine's.
    pub platform: String,
}

impl Default for BuildRequest {
    fn default() -> Self {
        Self {
            context: PathBuf::new(),
            dockerfile_name: "Dockerfile".to_owned(),
            dockerfile: None,
            tags: Vec::new(),
            target: String::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_cache: false,
            pull: false,
            network: "default".to_owned(),
            extra_hosts: Vec::new(),
            limits: StepLimits::default(),
            platform: String::new(),
        }
    }
}
