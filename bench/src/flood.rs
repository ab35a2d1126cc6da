//! Thousands of requests at once for one secret that nobody has yet: how often Azure is asked, and how
//! long it takes until all are answered.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use envoy_test::emulator::Endpoint;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::compare::{TWELVE, get, verdict};
use crate::gateway::{Filter, Gateway, Programs};
use crate::load::Load;

/// So slow that every request is there before the answer.
const AZURE_TAKES: Duration = Duration::from_secs(2);
/// As often as needed to see that it is no accident.
const TIMES: usize = 3;

pub(crate) fn run(programs: &Programs, requests: usize) -> Result<String> {
    let mut out = String::from(
        "| cold requests at once | workers | tokens asked for | secrets asked for | all answered after | goal: 1 and 1 |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    allow_connections(requests)?;
    for _ in 0..TIMES {
        let resolve = json!({ "resolve": { "headers": ["*"], "allow": ["azure/open-*"] } });
        let gateway = Gateway::start(programs, 2, &[("cold", Filter::Ours(resolve))], |azure| {
            azure.set_secret("open-1", "fixed-value-01");
            azure.set_latency(Endpoint::Secrets, AZURE_TAKES);
        })?;
        let mut headers = TWELVE.to_vec();
        headers.push(("x-key", "Bearer {vault://azure/open-1}"));
        let mut load = Load::open(gateway.address("cold")?, requests, &get(&headers))?;
        let took = load.at_once().with_context(|| gateway.envoy.log())?;
        let asked = [Endpoint::Token, Endpoint::Secrets].map(|e| gateway.azure.count(e));
        writeln!(
            out,
            "| {requests} | 2 | {} | {} | {:.1} s, of which Azure took {} s | {} |",
            asked[0],
            asked[1],
            took.as_secs_f64(),
            AZURE_TAKES.as_secs(),
            verdict(asked == [1, 1])
        )?;
    }
    Ok(out)
}

/// Both ends of every connection are files of this process or of Envoy, which inherits the limit.
fn allow_connections(requests: usize) -> Result<()> {
    let needed = requests as u64 + 1_000;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let raised = Rlimit {
            current: Some(needed),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised)
            .with_context(|| format!("{requests} connections: `ulimit -n` allows too few files"))?;
    }
    Ok(())
}
