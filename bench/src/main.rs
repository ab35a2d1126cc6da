//! What the filter costs in a real Envoy, beside filters that do the same or nothing: `cargo xtask bench`
//! builds all of them and runs this.

mod compare;
mod crossings;
mod flood;
mod floor;
mod gateway;
mod growth;
mod load;
mod numbers;
mod plot;
mod process;
mod start;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use envoy_test::envoy::Tools;

use floor::Floor;
use gateway::Programs;

/// Sets a fixed header.
const LUA_SET: &str = r#"
function envoy_on_request(handle)
  handle:headers():replace("x-key", "Bearer fixed-value-01")
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
local values = {}
for i = 0, 49 do
  values["{vault://azure/open-" .. i .. "}"] = string.format("fixed-value-%02d", i)
end
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
    /// Only this part.
    #[arg(long)]
    part: Option<Part>,
    /// Only these of the filters that are compared, by their short names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Requests at once for a secret that nobody has yet.
    #[arg(long, default_value_t = 10_000)]
    flood: usize,
    /// Most secrets that are cached.
    #[arg(long, default_value_t = 100_000)]
    secrets: usize,
    /// A folder for what is printed, a file for each part, and for the plot of how costs grow.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Milliseconds for each in a round.
    #[arg(long, default_value_t = 250)]
    slice: u64,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The filter beside its peers.
    Comparison,
    /// What a call into a filter costs.
    Crossings,
    /// Cold requests at once.
    Flood,
    /// From the start to the first answer.
    Start,
    /// How costs grow.
    Growth,
}

/// How long is measured.
#[derive(Clone, Copy)]
struct Effort {
    starts: usize,
    rounds: usize,
    slice: Duration,
    /// Most secrets that are cached.
    secrets: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir().context("making a folder for the smallest peers")?;
    Floor::assemble(folder.path())?;
    let programs = Programs {
        tools: Tools {
            envoy: arguments.envoy,
            filter: arguments.filter,
        },
        peer: arguments.peer,
        floor: folder.path().to_owned(),
    };
    let effort = Effort {
        starts: arguments.starts,
        rounds: arguments.rounds,
        slice: Duration::from_millis(arguments.slice),
        secrets: arguments.secrets,
    };
    let out = Out(arguments.out);
    out.give("machine", &process::machine())?;
    for part in [
        Part::Comparison,
        Part::Crossings,
        Part::Flood,
        Part::Start,
        Part::Growth,
    ] {
        if arguments.part.is_some_and(|only| only != part) {
            continue;
        }
        match part {
            Part::Comparison => {
                let [table, goals] = compare::run(&programs, effort, &arguments.only)?;
                out.give("comparison", &table)?;
                out.give("goals", &goals)?;
            }
            Part::Crossings => out.give("crossings", &crossings::run(&programs, effort)?)?,
            Part::Flood => out.give("flood", &flood::run(&programs, arguments.flood)?)?,
            Part::Start => out.give("start", &start::run(&programs, effort)?)?,
            Part::Growth => {
                let (charts, tables) = growth::run(&programs, effort)?;
                out.give("growth", &tables)?;
                out.plot(&charts)?;
            }
        }
    }
    Ok(())
}

/// Where results go: to whoever watches, and into a folder.
struct Out(Option<PathBuf>);

impl Out {
    fn give(&self, name: &str, text: &str) -> Result<()> {
        println!("{}\n", text.trim());
        let Some(folder) = &self.0 else {
            return Ok(());
        };
        let path = folder.join(format!("{name}.md"));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))
    }

    fn plot(&self, charts: &[growth::Chart]) -> Result<()> {
        let Some(folder) = &self.0 else {
            return Ok(());
        };
        plot::draw(charts, &folder.join("growth.svg"))
    }
}
