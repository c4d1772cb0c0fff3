//! The order of checks, and how long each took.

use std::time::Instant;

use anyhow::Result;

use crate::run::run;
use crate::{accept, parity, setup, tidy};

pub(crate) fn check() -> Result<()> {
    run("cargo", &["fmt", "--all", "--check"])?;
    run("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    run("cargo", &["deny", "--log-level", "error", "check", "bans", "licenses", "sources"])?;
    tidy::run()?;
    parity::run()
}

pub(crate) fn test(args: &[String]) -> Result<()> {
    setup::install()?;
    let mut all = vec!["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail"];
    all.extend(args.iter().map(String::as_str));
    run("cargo", &all)
}

/// One stage of CI.
type Stage = fn() -> Result<()>;

pub(crate) fn all() -> Result<()> {
    let start = Instant::now();
    let stages: [(&str, Stage); 4] =
        [("setup", setup::install), ("check", check), ("test", || test(&[])), ("accept", accept::run)];
    for (name, stage) in stages {
        let began = Instant::now();
        stage()?;
        println!("== {name}: {} s ({} s in all)", began.elapsed().as_secs(), start.elapsed().as_secs());
    }
    Ok(())
}
