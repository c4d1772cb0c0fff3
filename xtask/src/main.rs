//! Chores of the repository. People and CI run the same commands: `cargo xtask ci` is all that `.ci/run` does.
//!
//! It builds nothing that ships and is never part of the product.

mod accept;
mod bench;
mod ci;
mod demo;
mod parity;
mod run;
mod setup;
mod tidy;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the Gantry repository", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Format check, clippy, tidy, parity: everything that needs no root and no clients
    Check,
    /// Install what the tests need (Debian packages, a kubectl), once
    Setup,
    /// All tests (as root); installs what they need first
    Test {
        /// Passed on to cargo nextest
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The article's walk with the stock clients, on a release build
    Accept,
    /// Check the architecture's rules: floors, pure crates, file headers, sizes
    Tidy,
    /// Check that every `yes` on the parity pages is proved by a test that exists
    Parity,
    /// Measure Gantry beside the peers that this machine has, and write docs/benchmarks.md
    Bench,
    /// Simulate whole clusters with faults, from a seed
    Sim {
        /// Passed on to the simulation: --seed N --count N --nodes N --seconds N
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build Gantry, start it, and take a sample application from a Dockerfile to a Service
    Demo,
    /// The cgroup v2 path in a virtual machine (a few minutes; not part of ci)
    VmTest,
    /// Everything that must be green before a change lands
    Ci,
}

fn main() -> Result<()> {
    match Cli::parse().chore {
        Chore::Check => ci::check(),
        Chore::Setup => setup::install(),
        Chore::Test { args } => ci::test(&args),
        Chore::Accept => accept::run(),
        Chore::Tidy => tidy::run(),
        Chore::Parity => parity::run(),
        Chore::Bench => bench::run(),
        Chore::Demo => demo::run(),
        Chore::VmTest => vm::test(),
        Chore::Sim { args } => {
            let mut all = vec!["run", "--release", "-p", "sim", "--"];
            all.extend(args.iter().map(String::as_str));
            run::run("cargo", &all)
        }
        Chore::Ci => ci::all(),
    }
}
