//! The article's walk with the stock clients on a release build, where the acceptance script is at hand.

use anyhow::{Context, Result};

use crate::run::{root, run_with, target_dir};

pub(crate) fn run() -> Result<()> {
    crate::run::run("cargo", &["build", "--release", "--package", "gantry"])?;
    let gantry = target_dir()?.join("release/gantry");
    let gantry = gantry.to_str().context("the target folder has an odd name")?;
    let script = root().join("../shared/accept/article.sh");
    // The script lives beside the repository, not in it: a bare clone cannot run it.
    if !script.is_file() {
        println!("skipped: {} is not here", script.display());
        return Ok(());
    }
    let script = script.to_str().context("the repository's path has an odd name")?.to_owned();
    run_with("bash", &[&script], &[("GANTRY", gantry)])
}
