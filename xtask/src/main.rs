//! The project's commands, `cargo xtask …`: each gets what a fresh machine lacks, and says in a sentence
//! what it cannot get.

mod bench;
mod check;
mod demo;
mod docker;
mod document;
mod engines;
mod errors;
#[cfg(test)]
mod examples;
mod provision;
mod reference;
mod release;
mod schema;
mod steps;
mod test;
mod wasm;

use std::path::PathBuf;
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
        /// Simulates a million requests in place of a hundred thousand.
        #[arg(long)]
        long: bool,
        /// Also runs the compose files, where there is a Docker engine.
        #[arg(long)]
        docker: bool,
    },
    /// Runs the compose files, where there is a Docker engine with Compose; says what was left out, and why.
    Integration,
    /// Measures what the filter costs in a real Envoy beside an empty Wasm filter, Lua and
    /// `credential_injector`; about a quarter of an hour in which the machine has nothing else to do.
    Bench {
        /// Puts what it measured into docs/benchmark.md.
        #[arg(long)]
        write: bool,
        /// Arguments for the bench itself, such as `--part flood`; `--help` tells them.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Builds the release filter into target/dist, with its hash, its bill of materials and Kong's schema.
    Build {
        /// Leaves out the variant with every feature.
        #[arg(long)]
        standard: bool,
    },
    /// Checks a configuration, or a gateway's file with one in it: every error with its line, or what the
    /// filter would do.
    Check {
        /// JSON or YAML: the filter's configuration, or Kong's, Envoy's, Istio's or Envoy Gateway's with it;
        /// `-` for standard input.
        file: PathBuf,
        /// A variable that the filter will see, beside those of this process: `NAME=VALUE`, or `NAME` for a
        /// credential of any value.
        #[arg(long = "env", value_name = "NAME[=VALUE]")]
        variables: Vec<check::Variable>,
        /// A credential that is not here is an error; else it is assumed that the gateway passes it on.
        #[arg(long)]
        strict: bool,
    },
    /// Writes what is generated: the configuration's JSON Schema and Kong's `.meta.json` in filter-config, its
    /// reference and that of errors in docs.
    Schema,
    /// Explains a reference as JSON; `-` explains one a line from standard input.
    Reference {
        /// The reference with its braces, or `-`.
        text: String,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo { keep } => demo::run(keep),
        Command::Test {
            filter,
            fast,
            long,
            docker,
        } => return test::all(&filter, fast, long, docker),
        Command::Integration => {
            let [passed, failed, skipped] = docker::test();
            println!("{passed} passed, {failed} failed, {skipped} skipped");
            return ExitCode::from(u8::from(failed > 0));
        }
        Command::Bench { write, arguments } => bench::run(write, &arguments),
        Command::Build { standard: true } => {
            wasm::build(wasm::Variant::Standard).map(|built| println!("{built}"))
        }
        Command::Build { standard: false } => wasm::build(wasm::Variant::Full)
            .and_then(|full| Ok((wasm::build(wasm::Variant::Standard)?, full)))
            .map(|(built, full)| println!("{built}\n{full}")),
        Command::Check {
            file,
            variables,
            strict,
        } => match check::run(&file, &variables, strict) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Schema => schema::write(),
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
