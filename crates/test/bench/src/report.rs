//! The report: a table on the terminal and docs/benchmarks.md.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use crate::measure::Sample;

pub(crate) struct Report {
    head: String,
    figures: String,
    pairs: String,
    notes: String,
}

impl Report {
    pub(crate) fn new() -> Result<Self> {
        let kernel =
            std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
        let cpus = std::thread::available_parallelism()?;
        let model = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = model
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()))
            .unwrap_or_default();
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let head =
            format!("- {date}, Gantry {}, Linux {}, {cpus} × {model}\n", env!("CARGO_PKG_VERSION"), kernel.trim());
        Ok(Self { head, figures: String::new(), pairs: String::new(), notes: String::new() })
    }

    pub(crate) fn peer(&mut self, peer: &str) {
        let _ = writeln!(self.head, "- {peer}");
    }

    pub(crate) fn figure(&mut self, name: &str, value: String, target: &str) {
        println!("{name:<60} {value:>16}   {target}");
        let _ = writeln!(self.figures, "| {name} | {value} | {target} |");
    }

    pub(crate) fn pair(&mut self, name: &str, ours: &Sample, theirs: &Sample, target: &str) {
        let ratio = ours.median_ms() / theirs.median_ms();
        println!("{name:<60} {:>6.0} ms {:>6.0} ms   ratio {ratio:.2} {target}", ours.median_ms(), theirs.median_ms());
        let spread = |sample: &Sample| {
            format!("{:.0} ({:.0}–{:.0})", sample.median_ms(), sample.percentile_ms(0.0), sample.percentile_ms(1.0))
        };
        let _ = writeln!(self.pairs, "| {name} | {} | {} | {ratio:.2} | {target} |", spread(ours), spread(theirs));
    }

    pub(crate) fn note(&mut self, text: &str) {
        println!("{text}");
        let _ = writeln!(self.notes, "{text}.");
    }

    pub(crate) fn write(&self, path: &str) -> Result<()> {
        let text = format!(
            "# Benchmarks\n\nWritten by `cargo xtask bench`. Runs of a pair are interleaved in one run; compare ratios, not times: machines drift.\n\n{}\n\
             ## Gantry alone\n\n| what | measured | target |\n|---|---|---|\n{}\n\
             ## Beside the peers, through the stock client\n\nMilliseconds: median (least–most).\n\n| command | Gantry | peer (dockerd unless named) | ratio | target |\n|---|---|---|---|---|\n{}\n{}",
            self.head, self.figures, self.pairs, self.notes
        );
        std::fs::write(path, text.trim_end().to_owned() + "\n").with_context(|| format!("cannot write {path}"))
    }
}
