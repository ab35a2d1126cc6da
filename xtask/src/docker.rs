//! The compose files where there is a Docker engine: each is brought up, asked and taken down, whatever became of the
//! others. One that has no engine, no Compose or an image that cannot be had is left out, and it is said why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use envoy_test::client;
use serde_json::Value;

use crate::steps::{ask, run, workspace};

/// A compose file with requests, and what the upstream has to get of them.
struct Stack {
    file: &'static str,
    /// What it builds of the Dockerfile.
    targets: [&'static str; 2],
    port: u16,
    /// How long after `up --wait` the right answer may take.
    patience: Duration,
    requests: &'static [Request],
}

struct Request {
    target: &'static str,
    header: (&'static str, &'static str),
    expected: &'static str,
}

const STACKS: [Stack; 2] = [
    Stack {
        file: "envoy-test/compose.yaml",
        targets: ["emulator", "envoy"],
        port: 8080,
        // Its health check says when it serves.
        patience: Duration::ZERO,
        requests: &[
            Request {
                target: "/",
                header: ("authorization", "theirs"),
                expected: "Bearer compose-token",
            },
            Request {
                target: "/",
                header: ("x-partner-key", "{vault://payments/partner-acme}"),
                expected: "compose-acme",
            },
        ],
    },
    Stack {
        file: "filter-config/kong/compose.yaml",
        targets: ["emulator", "kong"],
        port: 8000,
        patience: Duration::from_secs(60),
        requests: &[
            Request {
                target: "/payments",
                header: ("authorization", "theirs"),
                expected: "Bearer compose-token",
            },
            Request {
                target: "/partners",
                header: ("x-partner-key", "{vault://partners/partner-acme}"),
                expected: "compose-acme",
            },
        ],
    },
];

/// The Compose that has all that is used here: `name:` in the file and `up --wait`.
const COMPOSE: [u32; 2] = [2, 3];

/// What became of one stack.
pub(crate) enum Outcome {
    /// It did what it should.
    Passed,
    /// There is nothing to run it with.
    Skipped(String),
    /// It did not, or could not be started.
    Failed(anyhow::Error),
}

impl fmt::Display for Outcome {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Skipped(why) => write!(f, "skipped, because {}", first_line(why)),
            Self::Failed(error) => write!(f, "FAILED: {}", first_line(&format!("{error:#}"))),
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Runs every stack, and prints a line about each; gives how many passed, failed and were skipped.
pub(crate) fn test() -> [u64; 3] {
    let mut counts = [0; 3];
    let engine = engine();
    let outcomes = STACKS.iter().map(|stack| match &engine {
        Ok(()) => stack.outcome(),
        Err(why) => Outcome::Skipped(format!("{why:#}")),
    });
    let mut lines = Vec::new();
    for (stack, outcome) in STACKS.iter().zip(outcomes) {
        counts[match &outcome {
            Outcome::Passed => 0,
            Outcome::Failed(_) => 1,
            Outcome::Skipped(_) => 2,
        }] += 1;
        if let Outcome::Failed(error) = &outcome {
            eprintln!("error: {}: {error:#}", stack.file);
        }
        lines.push(format!("{}: {outcome}", stack.file));
    }
    println!("{}", lines.join("\n"));
    counts
}

fn engine() -> Result<()> {
    ask(
        "asking for a Docker engine",
        Command::new("docker").arg("info"),
    )
    .map_err(|_| anyhow!("there is no Docker engine (`docker info` fails)"))?;
    let [major, minor] = COMPOSE;
    let version = ask(
        "asking for Compose",
        Command::new("docker").args(["compose", "version", "--short"]),
    )
    .map_err(|_| {
        anyhow!("Compose {major}.{minor} or later is not here (`docker compose version` fails)")
    })?;
    let version = version.trim();
    if !is_enough(version) {
        bail!("Compose {major}.{minor} or later is needed, and this is {version}");
    }
    Ok(())
}

/// `2.40.3`, `v2.3.0`, `2.26.1-4`.
fn is_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => [major, minor] >= COMPOSE,
        _ => false,
    }
}

/// The images of other people's that these targets of a Dockerfile are made from.
fn bases(dockerfile: &str, targets: &[&str]) -> BTreeSet<String> {
    let mut arguments = Vec::new();
    let mut stages: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut current = "";
    for line in dockerfile.lines() {
        if let Some((name, value)) = line.strip_prefix("ARG ").and_then(|a| a.split_once('=')) {
            arguments.push((format!("${{{name}}}"), value));
        } else if let Some((from, name)) = line
            .strip_prefix("FROM ")
            .and_then(|l| l.split_once(" AS "))
        {
            let from = arguments
                .iter()
                .fold(from.to_owned(), |from, (name, value)| {
                    from.replace(name, value)
                });
            current = name;
            stages.entry(current).or_default().insert(from);
        } else if let Some(copy) = line.strip_prefix("COPY --from=") {
            let from = copy.split(' ').next().unwrap_or_default().to_owned();
            stages.entry(current).or_default().insert(from);
        }
    }
    let mut open: Vec<&str> = targets.to_vec();
    let mut found = BTreeSet::new();
    while let Some(name) = open.pop() {
        match stages.get(name) {
            Some(needs) => open.extend(needs.iter().map(String::as_str)),
            None if name == "scratch" => {}
            None => drop(found.insert(name.to_owned())),
        }
    }
    found
}

/// Gets an image that is not here.
fn pull(image: &str) -> Result<()> {
    let here = ask(
        "looking for an image",
        Command::new("docker").args(["image", "inspect", image]),
    );
    if here.is_ok() {
        return Ok(());
    }
    let mut docker = Command::new("docker");
    docker.args(["pull", "--quiet", image]);
    run(&format!("pulling {image}"), &mut docker)
        .map(drop)
        .map_err(|error| {
            let error = format!("{error:#}");
            let why = error.lines().last().unwrap_or_default();
            anyhow!("{image} cannot be pulled: {why}")
        })
}

impl Stack {
    fn compose(&self, what: &str, words: &[&str]) -> Result<String> {
        let mut docker = Command::new("docker");
        docker
            .args(["compose", "--file"])
            .arg(workspace().join(self.file))
            .args(words);
        run(&format!("{what} ({})", self.file), &mut docker)
    }

    fn up(&self) -> Result<()> {
        self.compose("reading the file", &["config", "--quiet"])?;
        self.compose("building and starting", &["up", "--build", "--wait"])
            .map(drop)
    }

    fn outcome(&self) -> Outcome {
        match self.pull() {
            Ok(Err(why)) => Outcome::Skipped(format!("{why:#}")),
            Ok(Ok(())) => match self.run() {
                Ok(()) => Outcome::Passed,
                Err(error) => Outcome::Failed(error),
            },
            Err(error) => Outcome::Failed(error),
        }
    }

    /// The inner error is that an image cannot be had.
    fn pull(&self) -> Result<Result<()>> {
        let dockerfile = workspace().join("Dockerfile");
        let text = fs::read_to_string(&dockerfile)
            .with_context(|| format!("reading {}", dockerfile.display()))?;
        Ok(bases(&text, &self.targets)
            .iter()
            .try_for_each(|image| pull(image)))
    }

    fn run(&self) -> Result<()> {
        let done = self.up().and_then(|()| self.check());
        let logs = match &done {
            Ok(()) => String::new(),
            Err(_) => self
                .compose("reading the logs", &["logs", "--tail=50"])
                .unwrap_or_default(),
        };
        let down = self.compose("taking it down", &["down", "--volumes"]);
        match done {
            Ok(()) => down.map(drop),
            // Nothing was started.
            Err(error) if logs.trim().is_empty() => Err(error),
            Err(error) => Err(anyhow!("{error:#}\nits logs end with:\n{logs}")),
        }
    }

    fn check(&self) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        for request in self.requests {
            let start = Instant::now();
            while let Err(error) = request.check(address) {
                if start.elapsed() >= self.patience {
                    return Err(error);
                }
                thread::sleep(Duration::from_millis(500));
            }
        }
        Ok(())
    }
}

impl Request {
    fn check(&self, address: SocketAddr) -> Result<()> {
        let (name, value) = self.header;
        let answer = client::get(address, self.target, &[(name, value.as_bytes())])?;
        let echo: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if echo["headers"][name] != serde_json::json!([self.expected]) {
            bail!(
                "{}: the upstream did not get {name}: {}, but: {} {}",
                self.target,
                self.expected,
                answer.status,
                answer.text()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_compose_is_told_from_one_that_is_enough() {
        for version in ["2.40.3", "v2.3.0", "2.26.1-4", "5.0.0"] {
            assert!(is_enough(version), "{version}");
        }
        for version in ["1.29.2", "2.2.3", "", "unknown"] {
            assert!(!is_enough(version), "{version}");
        }
    }

    #[test]
    fn only_what_a_target_is_made_from_is_pulled() {
        let dockerfile = fs::read_to_string(workspace().join("Dockerfile")).unwrap();
        let names = |targets: &[&str]| -> Vec<String> {
            bases(&dockerfile, targets)
                .iter()
                .map(|image| image.split(':').next().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(names(&["filter"]), ["rust"]);
        assert_eq!(names(&["emulator"]), ["debian", "rust"]);
        assert_eq!(names(&["envoy"]), ["envoyproxy/envoy", "rust"]);
        assert_eq!(names(&["emulator", "kong"]), ["debian", "kong", "rust"]);
        assert!(
            !bases(&dockerfile, &["envoy"])
                .iter()
                .any(|i| i.contains('$'))
        );
    }

    #[test]
    fn an_outcome_is_one_line() {
        let line = |outcome: Outcome| outcome.to_string();
        assert_eq!(line(Outcome::Passed), "passed");
        assert_eq!(
            line(Outcome::Skipped("no engine\nmore".to_owned())),
            "skipped, because no engine"
        );
        assert_eq!(
            line(Outcome::Failed(anyhow!("it broke\nits logs"))),
            "FAILED: it broke"
        );
    }
}
