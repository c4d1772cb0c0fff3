//! `cargo xtask sim`: runs seeds, and says which one failed.

use anyhow::Result;
use clap::Parser;
use sim::Scale;

#[derive(Parser)]
#[command(name = "sim", about = "Simulates whole clusters with faults, from a seed")]
struct Cli {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Nodes of the cluster
    #[arg(long, default_value_t = Scale::SMALL.nodes)]
    nodes: usize,
    /// Virtual seconds with faults
    #[arg(long, default_value_t = Scale::SMALL.faulty_seconds)]
    seconds: u64,
    /// Measure placements a second at 5,000 nodes and 50,000 pods instead
    #[arg(long)]
    decisions: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if cli.decisions {
        for rate in sim::decisions::measure(5000, 2000)? {
            println!("{}: {} pods, {:.0} a second", rate.what, rate.pods, rate.per_second);
        }
        return Ok(());
    }
    let scale = Scale { nodes: cli.nodes, faulty_seconds: cli.seconds, ..Scale::SMALL };
    for seed in cli.seed..cli.seed.saturating_add(cli.count) {
        let outcome = sim::run(seed, scale)?;
        println!(
            "seed {seed}: {} writes, {} crashes, {} evictions, at rest {} ms after the faults",
            outcome.writes, outcome.crashes, outcome.evictions, outcome.calm_after_ms
        );
    }
    Ok(())
}
