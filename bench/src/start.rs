//! From the start of Envoy to the first request that is answered with a secret in it.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use crate::Effort;
use crate::compare::{TWELVE, micros};
use crate::gateway::{Filter, Gateway, Programs};
use crate::numbers::Series;

pub(crate) fn run(programs: &Programs, effort: Effort) -> Result<String> {
    let set = json!({ "set": { "headers": { "x-key": "Bearer {vault://azure/open-1}" } } });
    let filters = [
        ("no filter", Filter::Nothing, None),
        ("Wasm (SDK), does nothing", Filter::Wasm("empty"), None),
        (
            "**this filter**, `set` of one header",
            Filter::Ours(set),
            Some("Bearer fixed-value-01"),
        ),
    ];
    let mut times: Vec<Series> = filters.iter().map(|_| Series::default()).collect();
    for _ in 0..effort.starts {
        for ((_, filter, value), into) in filters.iter().zip(&mut times) {
            let start = Instant::now();
            let gateway = Gateway::start(programs, 1, &[("one", filter.clone())], |azure| {
                azure.set_secret("open-1", "fixed-value-01");
            })?;
            gateway.until_it_works("one", &TWELVE, "x-key", *value)?;
            into.push(micros(start.elapsed()) / 1000.0);
        }
    }
    let mut out = String::from(
        "| Envoy with one worker and | from its start to the first answer, ms |\n| --- | --- |\n",
    );
    for ((name, ..), time) in filters.iter().zip(&times) {
        writeln!(out, "| {name} | {time:.0} |")?;
    }
    Ok(out)
}
