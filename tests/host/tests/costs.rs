//! Exactly what a request costs: host calls by name, and Wasm instructions. No change slows the filter down
//! unseen: a cost that grows fails here, with the table of all of them.

mod world;

use std::collections::BTreeMap;

use proxy_wasm_host::{Cost, Dialect, Request};
use serde_json::{Value, json};
use world::{World, say};

/// Of the instructions: compilers differ a little, slower code more. What costs less by as much is to be
/// written down too.
const HEADROOM: f64 = 1.10;

const TWELVE: [(&str, &str); 12] = [
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

struct Path {
    /// As the README's table has it.
    name: &'static str,
    request: Value,
    headers: Vec<(&'static str, &'static str)>,
    /// The most instructions.
    fuel: u64,
    calls: &'static [(&'static str, u64)],
}

fn paths() -> Vec<Path> {
    let with = |name, value| {
        let mut headers = TWELVE.to_vec();
        headers[11] = (name, value);
        headers
    };
    vec![
        Path {
            name: "nothing configured for it",
            request: json!({}),
            headers: TWELVE.to_vec(),
            fuel: 3_650,
            calls: &[],
        },
        Path {
            name: "`resolve.headers: [\"*\"]`, no reference in it",
            request: json!({ "resolve": { "headers": ["*"], "allow": ["*"] } }),
            headers: TWELVE.to_vec(),
            fuel: 4_790,
            calls: &[("proxy_get_header_map_pairs", 1)],
        },
        Path {
            name: "cached `set` of one header",
            request: json!({ "set": { "headers": { "x-key": "{vault://azure/db}" } } }),
            headers: TWELVE.to_vec(),
            fuel: 12_670,
            calls: &[
                ("proxy_get_current_time_nanoseconds", 1),
                ("proxy_get_header_map_pairs", 1),
                ("proxy_replace_header_map_value", 1),
            ],
        },
        Path {
            name: "cached `resolve` of one header",
            request: json!({ "resolve": { "headers": ["x-*"], "allow": ["azure/open-*"] } }),
            headers: with("x-key", "{vault://azure/open-1}"),
            fuel: 12_050,
            calls: &[
                ("proxy_get_current_time_nanoseconds", 1),
                ("proxy_get_header_map_pairs", 1),
                ("proxy_set_property", 1),
                ("proxy_replace_header_map_value", 1),
            ],
        },
        Path {
            name: "a reference that is not allowed",
            request: json!({ "resolve": { "headers": ["x-*"], "allow": ["azure/open-*"] } }),
            headers: with("x-key", "{vault://azure/closed}"),
            fuel: 9_140,
            calls: &[("proxy_get_header_map_pairs", 1)],
        },
        Path {
            name: "`resolve.query`, no reference in it",
            request: json!({ "resolve": { "query": ["key"], "allow": ["azure/open-*"] } }),
            headers: TWELVE.to_vec(),
            fuel: 6_630,
            calls: &[("proxy_get_header_map_pairs", 1)],
        },
    ]
}

fn cost(path: &Path) -> Cost {
    let mut world = World::with(
        Dialect::Envoy,
        json!({}),
        path.request.clone(),
        |settings| settings.workers = 1,
    );
    world.warm();
    // What is needed is cached by then, and the allocator has its blocks.
    for _ in 0..20 {
        world
            .gateway
            .request(0, Request::get("/orders?id=4711", &path.headers));
        world.answer_all();
    }
    world.gateway.take_cost();
    world
        .gateway
        .request(0, Request::get("/orders?id=4711", &path.headers));
    world.gateway.take_cost()
}

#[test]
fn every_request_costs_what_it_did() {
    let mut table = String::new();
    let mut grown = Vec::new();
    for path in paths() {
        let cost = cost(&path);
        let expected: BTreeMap<&str, u64> = path.calls.iter().copied().collect();
        table.push_str(&format!(
            "{:>8} instructions, {:?}: {}\n",
            cost.fuel, cost.host_calls, path.name
        ));
        let (fuel, known) = (cost.fuel as f64, path.fuel as f64);
        if cost.host_calls != expected || fuel > known * HEADROOM {
            grown.push(path.name);
        }
    }
    say(&table);
    assert!(grown.is_empty(), "{grown:?} cost otherwise:\n{table}");
}

#[test]
fn the_readme_has_these_costs() {
    let readme = envoy_test::envoy::workspace().join("README.md");
    let readme = std::fs::read_to_string(readme).expect("the README");
    for path in paths() {
        let row = format!("| {} | ", path.name);
        let row = readme.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("no row {:?}", path.name));
        let fuel = match (path.fuel / 1000, path.fuel % 1000) {
            (0, rest) => format!("| {rest} |"),
            (thousands, rest) => format!("| {thousands},{rest:03} |"),
        };
        assert!(row.contains(&fuel), "not {fuel} in {row}");
    }
}

/// One worker, and clients that may ask for as many secrets as they like.
fn with_many() -> World {
    let mut whole = world::configuration(
        &json!({}),
        &json!({ "resolve": { "headers": ["x-*"], "allow": ["azure/many-*"] } }),
    );
    whole["max_fetches_per_second"] = json!(100_000);
    let mut world = World::whole(Dialect::Envoy, whole, |settings| settings.workers = 1);
    world.warm();
    world
}

/// The instructions of a request with so many references to cached secrets, each in a header.
fn referring(references: usize) -> u64 {
    let mut world = with_many();
    let headers: Vec<(String, String)> = (0..references)
        .map(|n| {
            world.azure.set_secret(&format!("many-{n}"), "value");
            (format!("x-key-{n}"), format!("{{vault://azure/many-{n}}}"))
        })
        .collect();
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    for _ in 0..20 {
        world.gateway.take_cost();
        world.gateway.request(0, Request::get("/", &headers));
        world.answer_all();
    }
    world.gateway.take_cost();
    let id = world.gateway.request(0, Request::get("/", &headers));
    assert_eq!(world.upstream(id, "x-key-0"), ["value"]);
    world.gateway.take_cost().fuel
}

#[test]
fn each_of_many_references_costs_the_same() {
    let costs = [10, 30, 50].map(referring);
    say(&format!("10, 30, 50 references: {costs:?} instructions"));
    let [few, more, many] = costs;
    assert!(
        (many - more) as f64 <= (more - few) as f64 * HEADROOM,
        "{costs:?}"
    );
}

/// Every gateway loads and compiles it at its start.
#[test]
fn the_filter_is_not_too_large() {
    const BYTES: usize = 700_000;
    let bytes = world::wasm().len();
    say(&format!("the filter has {bytes} bytes"));
    assert!(bytes <= BYTES, "{bytes} bytes, the limit is {BYTES}");
}

/// What a worker pays for a secret that another one fetched: sealed by a client secret, and not sealed
/// for a machine identity.
#[test]
fn the_price_of_sealing_is_known() {
    let mut prices = Vec::new();
    for vault in [
        json!({}),
        json!({ "tenant_id": null, "client_id": null, "identity": "managed_identity", "identity_cluster": "managed_identity" }),
    ] {
        let mut world = World::with(
            Dialect::Envoy,
            vault.clone(),
            world::resolve(),
            |settings| {
                if vault != json!({}) {
                    settings.environment.clear();
                }
            },
        );
        world.get(0, &[("x-key", "{vault://azure/open-1}")]);
        world.answer_all();
        world.gateway.take_cost();
        let id = world.get(1, &[("x-key", "{vault://azure/open-1}")]);
        prices.push(world.gateway.take_cost().fuel);
        assert_eq!(world.upstream(id, "x-key"), ["pl4nted-open-1"]);
        // A machine identity has nothing to seal with.
        if prices.len() == 2 {
            world.azure = world::emulated();
            world.forgive_unsealed();
        }
    }
    say(&format!(
        "adopting a secret: {} instructions sealed, {} not sealed",
        prices[0], prices[1]
    ));
    assert!(prices[0] > prices[1], "{prices:?}");
    assert!(prices[0] < 500_000, "{prices:?}");
}

/// One worker that holds this many secrets of 100 bytes: its linear memory, and the instructions of one
/// more request for one of them.
fn holding(secrets: usize) -> (usize, u64) {
    let mut world = with_many();
    let value = "v".repeat(100);
    for n in 0..secrets {
        world.azure.set_secret(&format!("many-{n}"), &value);
        let reference = format!("{{vault://azure/many-{n}}}");
        world.get(0, &[("x-key", &reference)]);
        world.answer_all();
    }
    let reference = format!("{{vault://azure/many-{}}}", secrets / 2);
    let mut headers = TWELVE.to_vec();
    headers[11] = ("x-key", &reference);
    // The second time finds the text known, the third the value put together.
    for _ in 0..3 {
        world.gateway.take_cost();
        let id = world.gateway.request(0, Request::get("/", &headers));
        assert_eq!(world.upstream(id, "x-key"), [value.as_str()]);
    }
    let fuel = world.gateway.take_cost().fuel;
    (world.gateway.memory(), fuel)
}

#[test]
fn many_cached_secrets_take_little_memory_and_slow_no_request_down() {
    let sizes = [1, 10, 100, 1_000];
    let costs: Vec<(usize, u64)> = sizes.iter().map(|&n| holding(n)).collect();
    for (n, (memory, fuel)) in sizes.iter().zip(&costs) {
        say(&format!(
            "{n:>5} secrets cached: {memory:>8} bytes of memory in the worker, {fuel:>6} instructions for one"
        ));
    }
    let [(empty, first), .., (full, last)] = costs[..] else {
        panic!("{costs:?}")
    };
    assert!((full - empty) / 1_000 < 2_048, "bytes a secret: {costs:?}");
    assert!(last < first * 3 / 2, "instructions: {costs:?}");
}
