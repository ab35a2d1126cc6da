//! What the filter costs in a real Envoy, beside filters that do the same or nothing: `cargo xtask bench`
//! builds all of them and runs this.

mod compare;
mod gateway;
mod load;
mod numbers;
mod process;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use envoy_test::envoy::Tools;

use gateway::Programs;

/// Sets a fixed header.
const LUA_SET: &str = r#"
function envoy_on_request(handle)
  handle:headers():replace("x-key", "Bearer fixed-value-0123456789")
end"#;

/// Looks at every header.
const LUA_SCAN: &str = r#"
function envoy_on_request(handle)
  local found = false
  for _, value in pairs(handle:headers()) do
    if string.find(value, "{vault://", 1, true) then
      found = true
    end
  end
end"#;

/// Looks at every header and puts in values that are known.
const LUA_RESOLVE: &str = r#"
local values = { ["{vault://azure/open-1}"] = "fixed-value-0123456789" }
function envoy_on_request(handle)
  local found
  for name, value in pairs(handle:headers()) do
    if string.find(value, "{vault://", 1, true) then
      found = found or {}
      found[name] = string.gsub(value, "{vault://[^}]*}", values)
    end
  end
  if found then
    for name, value in pairs(found) do
      handle:headers():replace(name, value)
    end
  end
end"#;

#[derive(Parser)]
struct Arguments {
    /// Envoy's binary.
    #[arg(long)]
    envoy: PathBuf,
    /// The filter.
    #[arg(long)]
    filter: PathBuf,
    /// The Wasm peer (bench/peer).
    #[arg(long)]
    peer: PathBuf,
    /// How often Envoy is started anew for the comparison.
    #[arg(long, default_value_t = 6)]
    starts: usize,
    /// Rounds of each measurement in one Envoy.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these of the filters that are compared, by their short names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Milliseconds for each in a round.
    #[arg(long, default_value_t = 250)]
    slice: u64,
}

/// How long is measured.
#[derive(Clone, Copy)]
struct Effort {
    starts: usize,
    rounds: usize,
    slice: Duration,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let programs = Programs {
        tools: Tools {
            envoy: arguments.envoy,
            filter: arguments.filter,
        },
        peer: arguments.peer,
    };
    let effort = Effort {
        starts: arguments.starts,
        rounds: arguments.rounds,
        slice: Duration::from_millis(arguments.slice),
    };
    println!("{}\n", process::machine());
    println!("{}", compare::run(&programs, effort, &arguments.only)?);
    Ok(())
}
