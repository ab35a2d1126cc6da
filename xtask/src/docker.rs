//! The compose files where there is a Docker engine: brought up, asked, taken down. Elsewhere it says that
//! they were left out, and why.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use envoy_test::client;
use serde_json::Value;

use crate::steps::{ask, run, workspace};

/// A compose file with requests, and what the upstream has to get of them.
struct Stack {
    file: &'static str,
    port: u16,
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
        port: 8080,
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
        port: 8000,
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

/// How long a gateway may take from its start to the right answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The outcome of the test.
pub(crate) enum Outcome {
    /// So many stacks did what they should.
    Passed(u64),
    /// There is nothing to run them with.
    Skipped(u64, String),
}

/// Runs every stack.
pub(crate) fn test() -> Result<Outcome> {
    if let Err(why) = engine() {
        let why = format!("{why:#}");
        let first = why.lines().next().unwrap_or_default().to_owned();
        return Ok(Outcome::Skipped(STACKS.len() as u64, first));
    }
    for stack in &STACKS {
        let up = stack.up().and_then(|()| stack.check());
        let logs = up
            .is_err()
            .then(|| stack.compose("reading the logs", &["logs", "--tail=50"]));
        stack.compose("taking it down", &["down", "--volumes"])?;
        up.with_context(|| {
            let logs = logs.and_then(Result::ok).unwrap_or_default();
            format!("{}; its logs end with:\n{logs}", stack.file)
        })?;
    }
    Ok(Outcome::Passed(STACKS.len() as u64))
}

fn engine() -> Result<()> {
    ask(
        "asking for a Docker engine",
        Command::new("docker").arg("info"),
    )
    .map_err(|_| anyhow::anyhow!("there is no Docker engine (`docker info` fails)"))?;
    ask(
        "asking for Compose",
        Command::new("docker").args(["compose", "version"]),
    )
    .map_err(|_| {
        anyhow::anyhow!("Docker is here without Compose (`docker compose version` fails)")
    })?;
    Ok(())
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

    fn check(&self) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        for request in self.requests {
            let start = Instant::now();
            while let Err(error) = request.check(address) {
                if start.elapsed() > PATIENCE {
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
