//! The filter beside its peers: requests a second and processor time of the same request through each of
//! them, in rounds that take turns; and how much longer the slowest requests take.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use envoy_test::client;
use serde_json::json;

use crate::floor::Floor;
use crate::gateway::{Filter, Gateway, Programs};
use crate::load::Load;
use crate::numbers::Series;
use crate::{Effort, LUA_RESOLVE, LUA_SCAN, LUA_SET};

/// What a browser or a service sends, behind a proxy or two.
pub(crate) const TWELVE: [(&str, &str); 12] = [
    ("user-agent", "curl/8.5.0"),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("cache-control", "no-cache"),
    (
        "cookie",
        "session=0123456789abcdef0123456789abcdef; theme=dark",
    ),
    ("x-request-id", "b6c7f1f0-6f0e-4f0a-9f62-0a8f5d5d4e11"),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-forwarded-proto", "https"),
    (
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    ("referer", "https://app.example.test/orders/4711"),
    ("x-tenant", "blue"),
];

/// Connections that always have a request under way.
const CONNECTIONS: usize = 32;
/// Of what the empty filter can do, in the measurement of the slowest requests.
const SHARE: f64 = 0.35;
/// They are measured in short stretches: a virtual machine loses its processor for milliseconds now and
/// then, which would be all that a long stretch's 99th percentile shows.
const TAIL: Duration = Duration::from_millis(50);
/// Stretches for each round.
const TAILS: usize = 4;

/// The bytes of a GET with these headers, for a connection that stays.
pub(crate) fn get(headers: &[(&str, &str)]) -> Vec<u8> {
    let all: Vec<(&str, &[u8])> = std::iter::once(("host", b"gateway.test".as_slice()))
        .chain(
            headers
                .iter()
                .map(|(name, value)| (*name, value.as_bytes())),
        )
        .collect();
    client::request("GET", "/orders?id=4711", &all, b"")
}

struct Contender {
    name: &'static str,
    what: &'static str,
    filter: Filter,
    /// Whether its requests carry a reference in the last of their twelve headers.
    reference: bool,
    /// What `x-key` is behind it.
    value: Option<&'static str>,
}

const FIXED: &str = "Bearer fixed-value-01";

fn contenders() -> Vec<Contender> {
    let contender = |name, what, filter, reference, value| Contender {
        name,
        what,
        filter,
        reference,
        value,
    };
    let ours = Filter::Ours;
    let resolve = json!({ "resolve": { "headers": ["*"], "allow": ["azure/open-*"] } });
    let set = json!({ "set": { "headers": { "x-key": "Bearer {vault://azure/open-1}" } } });
    vec![
        contender("none", "no filter", Filter::Nothing, false, None),
        contender(
            "native",
            "Envoy's `credential_injector`, a fixed header",
            Filter::CredentialInjector,
            false,
            Some(FIXED),
        ),
        contender(
            "lua_set",
            "Lua, a fixed header",
            Filter::Lua(LUA_SET),
            false,
            Some(FIXED),
        ),
        contender(
            "empty",
            "Wasm (SDK), does nothing",
            Filter::Wasm("empty"),
            false,
            None,
        ),
        contender(
            "fixed",
            "Wasm (SDK), a fixed header",
            Filter::Wasm("set"),
            false,
            Some(FIXED),
        ),
        contender(
            "lua_scan",
            "Lua, looks for `{vault://` in 12 headers",
            Filter::Lua(LUA_SCAN),
            false,
            None,
        ),
        contender(
            "fixed_12th",
            "Wasm (SDK), a fixed header in place of the 12th",
            Filter::Wasm("set"),
            true,
            Some(FIXED),
        ),
        contender(
            "sdk_resolve",
            "Wasm (SDK), reads 12 headers and puts one in place of the 12th",
            Filter::Wasm("map"),
            true,
            Some(FIXED),
        ),
        contender(
            "lua_resolve",
            "Lua, looks at 12 headers and puts a value into the 12th",
            Filter::Lua(LUA_RESOLVE),
            true,
            Some(FIXED),
        ),
        contender(
            "floor",
            "Wasm (no SDK), asks Envoy for 12 headers and looks at none",
            Filter::Floor(Floor::Ask),
            false,
            None,
        ),
        contender(
            "sdk_scan",
            "Wasm (SDK), reads 12 headers",
            Filter::Wasm("map"),
            false,
            None,
        ),
        contender(
            "idle",
            "**this filter**, nothing configured",
            ours(json!({})),
            false,
            None,
        ),
        contender(
            "scan",
            "**this filter**, `resolve.headers: [\"*\"]`, no reference in 12 headers",
            ours(resolve.clone()),
            false,
            None,
        ),
        contender(
            "set",
            "**this filter**, cached `set` of one header",
            ours(set),
            false,
            Some(FIXED),
        ),
        contender(
            "resolve",
            "**this filter**, cached `resolve` of one header among 12",
            ours(resolve),
            true,
            Some(FIXED),
        ),
    ]
}

/// A ratio of requests a second that is to be reached.
struct Goal {
    what: &'static str,
    ours: &'static str,
    peer: &'static str,
    /// `None`: worth knowing.
    least: Option<f64>,
}

const GOALS: [Goal; 8] = [
    Goal {
        what: "no reference in 12 headers / empty Wasm filter",
        ours: "scan",
        peer: "empty",
        least: Some(0.95),
    },
    Goal {
        what: "no reference in 12 headers / Lua's search",
        ours: "scan",
        peer: "lua_scan",
        least: Some(1.0),
    },
    Goal {
        what: "asking for 12 headers and looking at none / empty Wasm filter",
        ours: "floor",
        peer: "empty",
        least: None,
    },
    Goal {
        what: "no reference in 12 headers / asking for them and looking at none",
        ours: "scan",
        peer: "floor",
        least: None,
    },
    Goal {
        what: "cached `set` / fixed-header Wasm filter",
        ours: "set",
        peer: "fixed",
        least: Some(0.97),
    },
    Goal {
        what: "cached `set` / Lua, a fixed header",
        ours: "set",
        peer: "lua_set",
        least: Some(1.0),
    },
    Goal {
        what: "cached `resolve` among 12 / fixed-header Wasm filter",
        ours: "resolve",
        peer: "fixed_12th",
        least: Some(0.90),
    },
    Goal {
        what: "cached `resolve` among 12 / Lua doing the same",
        ours: "resolve",
        peer: "lua_resolve",
        least: Some(1.0),
    },
];

/// Nanoseconds at the 99th percentile that a cached secret may add to the empty filter.
const MOST_ADDED: f64 = 20_000.0;

/// What is measured of each contender.
#[derive(Default)]
struct Measured {
    per_second: Series,
    /// Microseconds of the worker's processor time a request.
    processor: Series,
    /// Microseconds.
    p50: Series,
    p99: Series,
}

struct Entry {
    contender: Contender,
    measured: Measured,
}

/// Runs it and gives the table of all of them, and that of the goals.
pub(crate) fn run(programs: &Programs, effort: Effort, only: &[String]) -> Result<[String; 2]> {
    let mut entries: Vec<Entry> = contenders()
        .into_iter()
        .filter(|c| only.is_empty() || only.iter().any(|name| name == c.name))
        .map(|contender| Entry {
            contender,
            measured: Measured::default(),
        })
        .collect();
    let mut rate = None;
    for start in 0..effort.starts {
        one_start(programs, effort, start, &mut entries, &mut rate)?;
    }
    Ok([table(&entries)?, goals(&entries, rate.unwrap_or_default())?])
}

fn find<'e>(entries: &'e [Entry], name: &str) -> Option<&'e Measured> {
    let entry = entries.iter().find(|entry| entry.contender.name == name);
    entry.map(|entry| &entry.measured)
}

/// One Envoy with all of them. Where a process, and what it compiles, lies in memory makes as much of a
/// difference as some of what is measured: each start is another draw.
fn one_start(
    programs: &Programs,
    effort: Effort,
    start: usize,
    entries: &mut [Entry],
    rate: &mut Option<f64>,
) -> Result<()> {
    let mut filters: Vec<(&str, Filter)> = entries
        .iter()
        .map(|entry| (entry.contender.name, entry.contender.filter.clone()))
        .collect();
    let shift = start % filters.len().max(1);
    filters.rotate_left(shift);
    let gateway = Gateway::start(programs, 1, &filters, |azure| {
        azure.set_secret("open-1", "fixed-value-01");
    })?;
    let _apart = gateway.workers.apart()?;
    let mut loads = Vec::new();
    for Entry { contender, .. } in entries.iter() {
        let headers = headers(contender);
        gateway.until_it_works(contender.name, &headers, "x-key", contender.value)?;
        let address = gateway.address(contender.name)?;
        loads.push(Load::open(address, CONNECTIONS, &get(&headers))?);
    }
    for round in 0..effort.rounds {
        for (entry, load) in turns(entries, &mut loads, round) {
            throughput(&gateway, load, effort, &mut entry.measured)?;
        }
    }
    let fastest = find(entries, "empty").or_else(|| entries.first().map(|entry| &entry.measured));
    let fastest = fastest.context("nothing to compare")?;
    let rate = *rate.get_or_insert(SHARE * fastest.per_second.median());
    for round in 0..effort.rounds * TAILS {
        for (entry, load) in turns(entries, &mut loads, round) {
            let took = load.at_rate(rate, TAIL)?;
            let micros = |share| took.value_at_quantile(share) as f64 / 1000.0;
            entry.measured.p50.push(micros(0.50));
            entry.measured.p99.push(micros(0.99));
        }
    }
    let log = gateway.envoy.log();
    anyhow::ensure!(!log.contains("[critical]"), "a filter crashed:\n{log}");
    Ok(())
}

/// All of them, each round beginning with another.
fn turns<'a>(
    entries: &'a mut [Entry],
    loads: &'a mut [Load],
    round: usize,
) -> impl Iterator<Item = (&'a mut Entry, &'a mut Load)> {
    let first = round % entries.len().max(1);
    let (before, from) = entries.split_at_mut(first);
    let (loads_before, loads_from) = loads.split_at_mut(first);
    let from = from.iter_mut().zip(loads_from);
    from.chain(before.iter_mut().zip(loads_before))
}

fn headers(contender: &Contender) -> Vec<(&'static str, &'static str)> {
    let mut headers = TWELVE.to_vec();
    if contender.reference {
        headers.pop();
        headers.push(("x-key", "Bearer {vault://azure/open-1}"));
    }
    headers
}

/// A fifth of the time to get warm, then the time that counts.
fn throughput(
    gateway: &Gateway,
    load: &mut Load,
    effort: Effort,
    into: &mut Measured,
) -> Result<()> {
    load.saturate(effort.slice / 5)?;
    let before = gateway.workers.busy()?;
    let through = load.saturate(effort.slice)?;
    let busy = gateway.workers.busy()?.saturating_sub(before);
    load.finish()?;
    into.per_second.push(through.per_second());
    into.processor.push(micros(busy) / through.requests as f64);
    Ok(())
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn table(entries: &[Entry]) -> Result<String> {
    let mut out = String::new();
    let none = &entries.first().context("a contender")?.measured;
    writeln!(
        &mut out,
        "| filter | requests/s | processor time a request, µs | more than none, µs | p50, µs | p99, µs |"
    )?;
    writeln!(&mut out, "| --- | --- | --- | --- | --- | --- |")?;
    for Entry {
        contender,
        measured,
    } in entries
    {
        let more = measured.processor.with(&none.processor, |a, b| a - b);
        writeln!(
            &mut out,
            "| {} | {:.0} | {:.1} | {more:.1} | {:.0} | {:.0} |",
            contender.what,
            measured.per_second,
            measured.processor.median(),
            measured.p50.median(),
            measured.p99.median()
        )?;
    }
    Ok(out)
}

fn goals(entries: &[Entry], rate: f64) -> Result<String> {
    let mut out = String::new();
    writeln!(
        &mut out,
        "| goal | requests/s, ratio | reached |\n| --- | --- | --- |"
    )?;
    for goal in &GOALS {
        let (Some(ours), Some(peer)) = (find(entries, goal.ours), find(entries, goal.peer)) else {
            continue;
        };
        let ratio = ours.per_second.with(&peer.per_second, |a, b| a / b);
        let (asked, reached) = goal.least.map_or_else(
            || (String::new(), ""),
            |least| {
                (
                    format!(": at least {least:.2}"),
                    verdict(ratio.median() >= least),
                )
            },
        );
        writeln!(
            &mut out,
            "| {}{asked} | {ratio:.3} | {reached} |",
            goal.what
        )?;
    }
    let Some(empty) = find(entries, "empty") else {
        return Ok(out);
    };
    for (name, what) in [
        ("scan", "no reference"),
        ("set", "cached `set`"),
        ("resolve", "cached `resolve`"),
    ] {
        let Some(ours) = find(entries, name) else {
            continue;
        };
        let added = ours.p99.with(&empty.p99, |a, b| a - b);
        let reached = verdict(added.median() * 1000.0 < MOST_ADDED);
        writeln!(
            &mut out,
            "| {what}: added to the empty filter's 99th percentile at {rate:.0} requests/s, below 20 µs | {added:.1} µs | {reached} |"
        )?;
    }
    Ok(out)
}

pub(crate) fn verdict(reached: bool) -> &'static str {
    if reached { "yes" } else { "**no**" }
}
