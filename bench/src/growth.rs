//! How the cost of a request grows: with its headers, with its references, with the secrets that are
//! cached, with workers. It gives lines for a plot, and how straight they are.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::compare::{TWELVE, get, micros};
use crate::floor::Floor;
use crate::gateway::{Filter, Gateway, Programs};
use crate::load::Load;
use crate::numbers::{Line, Series};
use crate::process::resident;
use crate::{Effort, LUA_RESOLVE, LUA_SCAN};

const CONNECTIONS: usize = 32;
const HEADERS: [usize; 7] = [1, 25, 50, 75, 100, 150, 200];
const REFERENCES: [usize; 7] = [1, 5, 10, 20, 30, 40, 50];
const CACHED: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];
const WORKERS: [usize; 3] = [1, 2, 4];

/// What is plotted together.
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    /// The first axis in powers of ten.
    pub(crate) logarithmic: bool,
    pub(crate) lines: Vec<(&'static str, Line)>,
}

pub(crate) fn run(programs: &Programs, effort: Effort) -> Result<(Vec<Chart>, String)> {
    let (cached, memory) = cached(programs, effort)?;
    let charts = vec![
        headers(programs, effort)?,
        references(programs, effort)?,
        cached,
        workers(programs, effort)?,
    ];
    let mut out = String::new();
    for chart in &charts {
        writeln!(out, "\n{} ({})\n", chart.title, chart.up)?;
        table(chart, &mut out)?;
    }
    writeln!(
        out,
        "\nMemory of the whole Envoy process, one worker\n\n{memory}"
    )?;
    Ok((charts, out))
}

fn table(chart: &Chart, out: &mut String) -> Result<()> {
    let (_, first) = chart.lines.first().context("a line")?;
    let points: Vec<String> = first.points().map(|(x, _)| format!(" {x:.0} |")).collect();
    writeln!(
        out,
        "| {} |{} straight line |",
        chart.across,
        points.concat()
    )?;
    writeln!(out, "| --- |{} --- |", " --- |".repeat(points.len()))?;
    for (name, line) in &chart.lines {
        let points: Vec<String> = line.points().map(|(_, y)| format!(" {y:.1} |")).collect();
        writeln!(out, "| {name} |{} {} |", points.concat(), line.fit())?;
    }
    Ok(())
}

/// Microseconds of the workers' processor time for each request, in turns, over several Envoys.
pub(crate) fn costs(
    programs: &Programs,
    effort: Effort,
    filters: &[(&str, Filter)],
    requests: &[Vec<(String, String)>],
    (header, value): (&str, Option<&str>),
) -> Result<Vec<Vec<Series>>> {
    let mut all: Vec<Vec<Series>> = filters
        .iter()
        .map(|_| requests.iter().map(|_| Series::default()).collect())
        .collect();
    for _ in 0..effort.starts.div_ceil(2) {
        let gateway = Gateway::start(programs, 1, filters, |azure| {
            for n in 0..50 {
                azure.set_secret(&format!("open-{n}"), &format!("fixed-value-{n:02}"));
            }
        })?;
        let _apart = gateway.workers.apart()?;
        let mut loads = Vec::new();
        for (name, _) in filters {
            for headers in requests {
                let headers = borrowed(headers);
                let value = value.filter(|_| *name != "none");
                gateway.until_it_works(name, &headers, header, value)?;
                loads.push(Load::open(
                    gateway.address(name)?,
                    CONNECTIONS,
                    &get(&headers),
                )?);
            }
        }
        for _ in 0..effort.rounds {
            for (load, into) in loads.iter_mut().zip(all.iter_mut().flatten()) {
                into.push(cost(&gateway, load, effort)?);
            }
        }
    }
    Ok(all)
}

fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect()
}

fn cost(gateway: &Gateway, load: &mut Load, effort: Effort) -> Result<f64> {
    load.saturate(effort.slice / 10)?;
    let before = gateway.workers.busy()?;
    let through = load.saturate(effort.slice / 2)?;
    let busy = gateway.workers.busy()?.saturating_sub(before);
    load.finish()?;
    Ok(micros(busy) / through.requests as f64)
}

/// Each filter's line above the first one's, which is no filter.
fn above(
    names: &[&'static str],
    points: &[usize],
    costs: &[Vec<Series>],
) -> Vec<(&'static str, Line)> {
    let Some((none, filters)) = costs.split_first() else {
        return Vec::new();
    };
    let lines = filters.iter().map(|filter| {
        let above = none
            .iter()
            .zip(filter)
            .map(|(none, filter)| filter.with(none, |filter, none| filter - none).median());
        points.iter().map(|&x| x as f64).zip(above).collect()
    });
    names.iter().copied().zip(lines).collect()
}

fn headers(programs: &Programs, effort: Effort) -> Result<Chart> {
    let filters = [
        ("none", Filter::Nothing),
        ("ours", resolving()),
        ("lua", Filter::Lua(LUA_SCAN)),
        ("map", Filter::Wasm("map")),
        ("floor", Filter::Floor(Floor::Ask)),
    ];
    let requests = HEADERS.map(|n| {
        let header = |i: usize| {
            let (_, value) = TWELVE.get(i % TWELVE.len()).copied().unwrap_or_default();
            (format!("x-header-{i}"), value.to_owned())
        };
        (0..n).map(header).collect::<Vec<_>>()
    });
    let costs = costs(programs, effort, &filters, &requests, ("x-key", None))?;
    let names = [
        "this filter",
        "Lua's search",
        "the SDK's header map",
        "Envoy's part alone",
    ];
    Ok(Chart {
        title: "Headers of a request without a reference",
        across: "headers",
        up: "µs more than without a filter",
        logarithmic: false,
        lines: above(&names, &HEADERS, &costs),
    })
}

fn resolving() -> Filter {
    Filter::Ours(json!({ "resolve": { "headers": ["*"], "allow": ["azure/*"] } }))
}

fn references(programs: &Programs, effort: Effort) -> Result<Chart> {
    let filters = [
        ("none", Filter::Nothing),
        ("ours", resolving()),
        ("lua", Filter::Lua(LUA_RESOLVE)),
    ];
    let requests = REFERENCES.map(|references| {
        let header = |i| {
            let value = format!("{{vault://azure/open-{i}}}");
            (format!("x-key-{i}"), value)
        };
        (0..references).map(header).collect::<Vec<_>>()
    });
    let told = ("x-key-0", Some("fixed-value-00"));
    let costs = costs(programs, effort, &filters, &requests, told)?;
    Ok(Chart {
        title: "References of a request, cached, each in a header",
        across: "references",
        up: "µs more than without a filter",
        logarithmic: false,
        lines: above(&["this filter", "Lua doing the same"], &REFERENCES, &costs),
    })
}

fn cached(programs: &Programs, effort: Effort) -> Result<(Chart, String)> {
    let counts = CACHED.into_iter().filter(|&count| count <= effort.secrets);
    let most = counts.clone().max().unwrap_or_default();
    let filters = [("none", Filter::Nothing), ("ours", resolving())];
    let gateway = Gateway::start(programs, 1, &filters, |azure| {
        for n in 0..most {
            azure.set_secret(&format!("many-{n}"), &format!("{n:0>100}"));
        }
    })?;
    let with = |n: usize| {
        let reference = format!("{{vault://azure/many-{n}}}");
        let mut headers = TWELVE.to_vec();
        headers.push(("x-key", &reference));
        get(&headers)
    };
    let address = gateway.address("ours")?;
    let mut none = Load::open(gateway.address("none")?, CONNECTIONS, &with(0))?;
    let mut filling = Load::open(address, 128, &[])?;
    let mut done = 0;
    let mut line = Vec::new();
    let mut memory = String::from("| cached secrets of 100 bytes | MB |\n| --- | --- |\n");
    for count in counts {
        filling.each((done..count).map(with))?;
        done = count;
        writeln!(
            memory,
            "| {count} | {:.1} |",
            resident(gateway.envoy.process_id())? as f64 / 1e6
        )?;
        let _apart = gateway.workers.apart()?;
        let mut ours = Load::open(address, CONNECTIONS, &with(count / 2))?;
        let mut above = Series::default();
        for _ in 0..(effort.starts * effort.rounds).div_ceil(2) {
            above.push(cost(&gateway, &mut ours, effort)? - cost(&gateway, &mut none, effort)?);
        }
        line.push((count as f64, above.median()));
    }
    let chart = Chart {
        title: "Cached secrets, a request for one of them",
        across: "secrets",
        up: "µs more than without a filter",
        logarithmic: true,
        lines: vec![("this filter", line.into_iter().collect())],
    };
    Ok((chart, memory))
}

fn workers(programs: &Programs, effort: Effort) -> Result<Chart> {
    let filters = [
        ("none", Filter::Nothing),
        ("resolve", resolving()),
        ("empty", Filter::Wasm("empty")),
    ];
    let mut headers = TWELVE.to_vec();
    headers.push(("x-key", "{vault://azure/open-1}"));
    let mut lines = vec![Vec::new(); filters.len() - 1];
    for workers in WORKERS {
        let mut costs: Vec<Series> = filters.iter().map(|_| Series::default()).collect();
        for _ in 0..effort.starts.div_ceil(2) {
            let gateway = Gateway::start(programs, workers, &filters, |azure| {
                azure.set_secret("open-1", "fixed-value-01");
            })?;
            let mut loads = Vec::new();
            for (name, _) in &filters {
                gateway.until_it_works(name, &headers, "x-key", None)?;
                loads.push(Load::open(
                    gateway.address(name)?,
                    CONNECTIONS,
                    &get(&headers),
                )?);
            }
            for _ in 0..effort.rounds {
                for (load, into) in loads.iter_mut().zip(&mut costs) {
                    into.push(cost(&gateway, load, effort)?);
                }
            }
        }
        let (none, rest) = costs.split_first().context("no filter")?;
        for (line, filter) in lines.iter_mut().zip(rest) {
            line.push((workers as f64, filter.with(none, |a, b| a - b).median()));
        }
    }
    let names = ["this filter, one cached reference", "Wasm, does nothing"];
    let lines = lines.into_iter().map(|line| line.into_iter().collect());
    Ok(Chart {
        title: "Workers, on as many cores as the machine has",
        across: "workers",
        up: "µs more than without a filter",
        logarithmic: false,
        lines: names.into_iter().zip(lines).collect(),
    })
}
