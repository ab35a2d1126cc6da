//! What one hostile request of up to 1 MB costs a worker: Wasm instructions and memory, with the release
//! filter. The limits hold for every shape in the table.

mod world;

use proxy_wasm_host::{Dialect, Outcome, Request};
use serde_json::{Value, json};
use world::{World, say};

/// Instructions (wasmtime's fuel) in 50 ms at 1,000 in a microsecond, which is an assumption: `calibrate`
/// measured 592 on a shared two-core machine, where 50 ms are 29.6 million.
const FUEL: u64 = 50_000 * 1_000;
const MEMORY: usize = 16 << 20;

struct Shape {
    name: &'static str,
    request: Request,
}

fn numbered(count: usize, text: impl Fn(usize) -> String) -> String {
    (0..count).map(text).collect()
}

fn bodies() -> Vec<(&'static str, &'static str, String)> {
    let (json, form, text) = (
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
    );
    let fill = |piece: &str| piece.repeat((1 << 20) / piece.len());
    let names = |prefix: &'static str| move |n| format!("{{vault://azure/{prefix}{n}}} ");
    vec![
        (
            "40,000 names that are allowed",
            text,
            numbered(40_000, names("open-")),
        ),
        (
            "40,000 names that are not",
            text,
            numbered(40_000, names("no-")),
        ),
        (
            "40,000 names in a form",
            form,
            numbered(33_000, |n| format!("a={{vault://azure/open-{n}}}&")),
        ),
        (
            "30,000 names in JSON",
            json,
            numbered(30_000, |n| format!("\"{{vault://azure/open-{n}}}\",")),
        ),
        (
            "40,000 references to one secret",
            text,
            fill("{vault://azure/open-1}"),
        ),
        (
            "1,400 keys of one secret",
            text,
            numbered(1_400, |n| format!("{{vault://azure/open-wide/key-{n}}}")),
        ),
        (
            "100 keys of one secret",
            text,
            numbered(100, |n| format!("{{vault://azure/open-wide/key-{n}}}")),
        ),
        (
            "100 keys of one secret that are not there",
            text,
            numbered(100, |n| format!("{{vault://azure/open-wide/no-{n}}}")),
        ),
        (
            "19,000 versions",
            text,
            numbered(17_000, |n| format!("{{vault://azure/open-1#{n:032x}}}")),
        ),
        (
            "100 references to a large secret",
            text,
            numbered(100, |_| "{vault://azure/open-big}".into()),
        ),
        (
            "40 references to a large secret",
            text,
            numbered(40, |_| "{vault://azure/open-big}".into()),
        ),
        ("a form of `&`", form, fill("&")),
        ("a form of `=&`", form, fill("=&")),
        ("a form of `%7b`", form, fill("%7b")),
        ("a form of `%`", form, fill("%")),
        ("a form of `{vault://`", form, fill("a={vault://&")),
        ("a form of `+`", form, fill("+")),
        ("`\"{\",` in JSON", json, fill("\"{\",")),
        ("`[` in JSON", json, fill("[")),
        ("`{\"a\":` in JSON", json, fill("{\"a\":")),
        ("`\"` in JSON", json, fill("\"")),
        ("`\\` in JSON", json, fill("\\")),
        (
            "`\\\\` in a JSON string",
            json,
            format!("\"{}\"", fill("\\\\")),
        ),
        (
            "`\\u007b` in a JSON string",
            json,
            format!("\"{}\"", fill("\\u007b")),
        ),
        (
            "`\\u007bvault://` in a JSON string",
            json,
            format!("\"{}\"", fill("\\u007bvault://")),
        ),
        (
            "blanks behind JSON strings",
            json,
            format!("\"{{\"{}:1", fill(" ")),
        ),
        (
            "keys with references",
            json,
            fill("\"{vault://azure/open-1}\":1,"),
        ),
        ("`{vault://` in text", text, fill("{vault://")),
        (
            "`{vault://` with an end",
            text,
            format!("{}}}", fill("{vault://")),
        ),
        ("`{vault://}` in text", text, fill("{vault://}")),
        ("`{` in text", text, fill("{")),
        ("`\\` in text", text, fill("\\")),
        ("`\\{vault://}` in text", text, fill("\\{vault://}")),
        (
            "one reference at the end",
            text,
            format!("{}{{vault://azure/open-1}}", "x".repeat((1 << 20) - 64)),
        ),
        (
            "1,000 references of 1,000 bytes",
            text,
            numbered(1_000, |n| {
                format!("{{vault://azure/open-{n}?{}}}", "a=%41&".repeat(165))
            }),
        ),
        (
            "references with deep keys",
            text,
            numbered(1_000, |n| {
                format!("{{vault://azure/open-{n}/{}}}", "a/".repeat(480))
            }),
        ),
    ]
}

fn shapes() -> Vec<Shape> {
    let header = |value: &str| Request::get("/", &[("x-key", value)]);
    let many = |name: &dyn Fn(usize) -> String, value: &str, count: usize| {
        let names: Vec<String> = (0..count).map(name).collect();
        let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value)).collect();
        Request::get("/", &pairs)
    };
    let query = |text: String| Request::get(&format!("/?{text}"), &[]);
    let mut shapes: Vec<Shape> = bodies()
        .into_iter()
        .map(|(name, kind, body)| Shape {
            name,
            request: Request::post("/", kind, body.as_bytes()),
        })
        .collect();
    for (name, request) in [
        (
            "a header with 2,500 names",
            header(&numbered(2_500, |n| format!("{{vault://azure/open-{n}}}"))),
        ),
        (
            "a header of 57 KB of `{vault://`",
            header(&"{vault://".repeat(6_300)),
        ),
        (
            "a header of 57 KB of references to a large secret",
            header(&"{vault://azure/open-big}".repeat(2_300)),
        ),
        (
            "a header of ten references to a large secret",
            header(&"{vault://azure/open-big}".repeat(10)),
        ),
        (
            "2,000 headers with a reference",
            many(&|n| format!("x-{n}"), "{vault://azure/open-1}", 2_000),
        ),
        (
            "2,000 headers of one name",
            many(&|_| "x-same".into(), "{vault://azure/open-1}", 2_000),
        ),
        (
            "4,000 headers with `{vault://`",
            many(&|n| format!("x-{n}"), "{vault://", 4_000),
        ),
        (
            "a query with 2,500 names",
            query(numbered(2_500, |n| {
                format!("a={{vault://azure/open-{n}}}&")
            })),
        ),
        ("a query of 60 KB of `&`", query("&".repeat(60_000))),
        ("a query of 60 KB of our name", query("key&".repeat(15_000))),
    ] {
        shapes.push(Shape { name, request });
    }
    shapes
}

fn rules() -> Value {
    let mut allow: Vec<String> = (0..19_000).map(|n| format!("azure/listed-{n}")).collect();
    allow.push("azure/open-*".into());
    json!({
        "set": { "query": { "key": "{vault://azure/db}" } },
        "resolve": { "headers": ["x-*"], "query": ["*"], "allow": allow,
            "body": ["application/json", "text/plain", "application/x-www-form-urlencoded"] },
    })
}

fn world() -> World {
    let world = World::with(Dialect::Envoy, json!({}), rules(), |settings| {
        settings.workers = 1;
    });
    let wide = numbered(1_400, |n| format!("\"key-{n}\":\"{}-{n}\",", world::MARK));
    let wide = format!("{{{}}}", wide.trim_end_matches(','));
    world.azure.set_secret("open-wide", &wide);
    world.azure.set_secret(
        "open-big",
        &format!("{}{}", world::MARK, "B".repeat(25_000)),
    );
    world
}

#[test]
fn no_request_costs_a_worker_more_than_its_share() {
    let shapes = shapes();
    assert!(shapes.len() >= 40);
    let mut bad = Vec::new();
    for Shape { name, request } in shapes {
        let mut world = world();
        world.warm();
        for secret in ["open-1", "open-wide", "open-big"] {
            world.get(0, &[("x-key", &format!("{{vault://azure/{secret}}}"))]);
            world.answer_all();
        }
        world.gateway.take_cost();
        let before = world.gateway.memory();
        let id = world.gateway.request(0, request);
        let fuel = world.gateway.take_cost().fuel;
        let grown = world.gateway.memory() - before;
        let end = match world.gateway.outcome(id) {
            Outcome::Answered(answer) => answer.status.to_string(),
            Outcome::Waiting => "waits".into(),
            Outcome::Gone => "gone".into(),
        };
        say(&format!(
            "{fuel:>11} instructions {:>6} KB  {end:<6} {name}",
            grown >> 10
        ));
        if fuel > FUEL || grown > MEMORY {
            bad.push(format!("{name}: {fuel} instructions, {grown} bytes"));
        }
        // Large and odd messages are not what the host's own rules are about here.
        world.expected = |_| true;
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// `cargo test --release -p proxy-wasm-host --test hostile_cost calibrate -- --ignored --nocapture`
#[test]
#[ignore = "prints a figure of this machine"]
fn calibrate() {
    let mut world = world();
    world.warm();
    world.gateway.take_cost();
    let body = "{".repeat(1 << 20);
    let start = std::time::Instant::now();
    for _ in 0..20 {
        world
            .gateway
            .request(0, Request::post("/", "text/plain", body.as_bytes()));
    }
    let took = start.elapsed().as_micros();
    let fuel = u128::from(world.gateway.take_cost().fuel);
    say(&format!(
        "{fuel} instructions in {took} µs: {} in a microsecond",
        fuel / took.max(1)
    ));
}
