//! What Envoy's calls into a Wasm filter cost, whatever the filter does: where the time goes that no filter
//! can save.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;

use crate::Effort;
use crate::compare::TWELVE;
use crate::floor::Floor;
use crate::gateway::{Filter, Programs};
use crate::growth;

/// Runs it and gives the table.
pub(crate) fn run(programs: &Programs, effort: Effort) -> Result<String> {
    let ours = json!({ "resolve": { "headers": ["*"], "allow": ["azure/open-*"] } });
    let floor = |name, what, floor| (name, what, Filter::Floor(floor));
    let filters = [
        ("none", "no filter", Filter::Nothing),
        floor(
            "request",
            "a filter that is told of the request's headers",
            Floor::RequestHeaders,
        ),
        floor("create", "and that a request begins", Floor::Create),
        floor("delete", "and that it ends", Floor::Delete),
        floor(
            "response",
            "and of the response's headers",
            Floor::ResponseHeaders,
        ),
        floor(
            "ask",
            "and asks for the 12 headers, and looks at none",
            Floor::Ask,
        ),
        (
            "ours",
            "**this filter**, which looks at them",
            Filter::Ours(ours),
        ),
        (
            "empty",
            "for comparison: the SDK's empty filter, which is told of six things and asks for none",
            Filter::Wasm("empty"),
        ),
    ];
    let twelve = TWELVE.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let all: Vec<(&str, Filter)> = filters
        .iter()
        .map(|(name, _, filter)| (*name, filter.clone()))
        .collect();
    let costs = growth::costs(programs, effort, &all, &[twelve.to_vec()], ("x-key", None))?;
    let costs: Vec<_> = costs.into_iter().flatten().collect();
    let mut out = String::from(
        "| processor time a request, µs | more than no filter | more than the line above |\n| --- | --- | --- |\n",
    );
    for (at, ((_, what, _), cost)) in filters.iter().zip(&costs).enumerate().skip(1) {
        let above = |other: usize| costs.get(other).map(|other| cost.with(other, |a, b| a - b));
        let (none, line) = (
            above(0).unwrap_or_default(),
            above(at - 1).unwrap_or_default(),
        );
        writeln!(out, "| {what} | {none:.2} | {line:.2} |")?;
    }
    Ok(out)
}
