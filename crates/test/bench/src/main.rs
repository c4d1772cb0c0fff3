//! Gantry beside its peers: `cargo xtask bench` builds it and runs it as root.
//!
//! Each peer and Gantry itself run in network and mount namespaces of their own, on roots of their own; runs of a pair
//! are interleaved, because machines drift: only ratios within one run say anything. Writes docs/benchmarks.md.

mod cluster;
mod docker;
mod gantry;
mod measure;
mod peers;
mod report;

use anyhow::{Context, Result};

/// Pairs measured of each command.
const ROUNDS: usize = 25;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let gantry = args.next().context("usage: bench GANTRY REPORT")?;
    let output = args.next().context("usage: bench GANTRY REPORT")?;
    let mut report = report::Report::new()?;
    let instance = gantry::Instance::start(&gantry)?;
    report.figure(
        "`gantry up` from nothing until everything answers",
        format!("{} ms", instance.ready_ms),
        "< 1,000 ms",
    );
    instance.idle(&mut report)?;
    cluster::run(&instance, &mut report)?;
    docker::run(&instance, &mut report, ROUNDS)?;
    drop(instance);
    report.write(&output)
}
