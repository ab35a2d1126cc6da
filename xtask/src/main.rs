//! The project's commands, `cargo xtask …`: each gets what a fresh machine lacks, and says in a sentence
//! what it cannot get.

mod demo;
mod engines;
mod provision;
mod reference;
mod steps;
mod test;
mod wasm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands for azure-key-vault-filter.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the filter at work: a real Envoy, an emulated Azure, requests cold, cached and after a
    /// rotation.
    Demo {
        /// Leaves it running for curl until Enter or Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
    /// Everything that CI runs.
    Test {
        /// Arguments for `cargo test`, such as a test's name; lints and documentation are then left out.
        filter: Vec<String>,
        /// Leaves out lints and documentation.
        #[arg(long)]
        fast: bool,
    },
    /// Builds the release filter into target/dist.
    Build,
    /// Explains a reference as JSON; `-` explains one a line from standard input.
    Reference {
        /// The reference with its braces, or `-`.
        text: String,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo { keep } => demo::run(keep),
        Command::Test { filter, fast } => return test::all(&filter, fast),
        Command::Build => wasm::build(wasm::Variant::Full)
            .and_then(|full| Ok((wasm::build(wasm::Variant::Standard)?, full)))
            .map(|(built, full)| println!("{built}\n{full}")),
        Command::Reference { text } => reference::run(&text),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
