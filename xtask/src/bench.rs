//! `cargo xtask bench`: builds release binaries and lets `crates/test/bench` measure them beside the peers.

use anyhow::{Context, Result};

use crate::run::{root, target_dir};

pub(crate) fn run() -> Result<()> {
    crate::setup::install()?;
    crate::setup::peers()?;
    crate::run::run("cargo", &["build", "--release", "--package", "gantry", "--package", "bench"])?;
    let target = target_dir()?;
    let path = |name: &str| {
        target.join("release").join(name).to_str().map(str::to_owned).context("the target folder has an odd name")
    };
    let report = root().join("docs/benchmarks.md");
    crate::run::run(&path("bench")?, &[&path("gantry")?, report.to_str().context("odd path")?])
}
