//! What one hostile request of up to 1 MB costs a worker: Wasm instructions and memory, with the release
//! filter. The limits hold for every shape in the table.

mod world;

use proxy_wasm_host::{Dialect, Outcome, Request};
use serde_json::{Value, json};
use world::{World, say};

/// Wasm instructions (wasmtime's fuel) in a microsecond. `calibrate` measures 10,000 and more of the filter on two
/// shared cores of a virtual machine; the slowest shape of more than 50 million instructions ran at 7,100 with other
/// work on both. This is about half of that, since a gateway's cores may be slower; Envoy's engine is another one and
/// was not measured. A loop of a few instructions reaches 25,000, so it would be no honest measure of the filter.
const RATE: u64 = 4_000;
/// 50 ms of a worker's time.
const FUEL: u64 = 50_000 * RATE;
const MEMORY: usize = 16 << 20;
/// The longest body that the filter reads; what is longer would end at the check of its length.
const LONGEST: usize = 1 << 20;

struct Shape {
    name: &'static str,
    request: Request,
}

/// So many texts, or as many as fit into a body.
fn numbered(count: usize, text: impl Fn(usize) -> String) -> String {
    let mut all = String::new();
    for text in (0..count).map(text) {
        if all.len() + text.len() > LONGEST - 64 {
            break;
        }
        all += &text;
    }
    all
}

fn bodies() -> Vec<(&'static str, &'static str, String)> {
    let (json, form, text) = (
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
    );
    // Leaves room for what some shapes have around it.
    let fill = |piece: &str| piece.repeat((LONGEST - 64) / piece.len());
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
            format!("{}{{vault://azure/open-1}}", fill("x")),
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
                format!("{{vault://azure/open-{n}/{}a}}", "a/".repeat(480))
            }),
        ),
        (
            "references with sixteen escaped keys that are not allowed",
            text,
            numbered(500, |n| {
                format!(
                    "{{vault://azure/no-{n}/{}}}",
                    ["%2561".repeat(24).as_str(); 16].join("/")
                )
            }),
        ),
        (
            "references with sixteen escaped keys that are allowed",
            text,
            numbered(500, |n| {
                format!(
                    "{{vault://azure/open-{n}/{}}}",
                    ["%2561".repeat(24).as_str(); 16].join("/")
                )
            }),
        ),
        (
            "references with a user before the vault",
            text,
            numbered(900, |n| {
                format!("{{vault://{}@azure/no-{n}}}", "u".repeat(1_000))
            }),
        ),
        (
            "references with an option that is escaped",
            text,
            numbered(500, |n| {
                format!("{{vault://azure/open-{n}?ttl={}}}", "%30".repeat(600))
            }),
        ),
        (
            "strings that nearly begin a reference, and one that does",
            json,
            format!("[{}\"{{vault://azure/open-1}}\"]", fill("\"{\",")),
        ),
        (
            "escapes of braces in strings, and a reference",
            json,
            format!("[{}\"{{vault://azure/open-1}}\"]", fill("\"\\u007b\",")),
        ),
        (
            "nearly the start by numbers, and a reference",
            json,
            format!(
                "[\"{}{{vault://azure/open-1}}\"]",
                fill("\\u007b\\u0076\\u0061\\u0075\\u006c\\u0074x")
            ),
        ),
        ("`{vault:/` in a form", form, fill("{vault:/")),
        ("`%7bvault:/` in a form", form, fill("%7bvault:/")),
        ("`{vault://` in names of a form", form, fill("{vault://&")),
        (
            "`&` before a reference in a form",
            form,
            format!("{}a={{vault://azure/open-1}}", fill("&")),
        ),
        (
            "a form of one escaped reference without an end",
            form,
            format!("a={{vault://{}", fill("%61")),
        ),
        (
            "references in a form with all escaped",
            form,
            fill("a=%7b%76%61%75%6c%74%3a%2f%2f%61%7d&"),
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

fn rules(listed: usize) -> Value {
    let mut allow: Vec<String> = (0..listed).map(|n| format!("azure/listed-{n}")).collect();
    allow.push("azure/open-*".into());
    json!({
        "set": { "query": { "key": "{vault://azure/db}" } },
        "resolve": { "headers": ["x-*"], "query": ["*"], "allow": allow,
            "body": ["application/json", "text/plain", "application/x-www-form-urlencoded"] },
    })
}

/// One worker that has fetched what the shapes name.
fn world(listed: usize) -> World {
    let mut world = World::with(Dialect::Envoy, json!({}), rules(listed), |settings| {
        settings.workers = 1;
    });
    let wide = numbered(1_400, |n| format!("\"key-{n}\":\"{}-{n}\",", world::MARK));
    let wide = format!("{{{}}}", wide.trim_end_matches(','));

    world.azure.set_secret("open-wide", &wide);
    world.azure.set_secret(
        "open-big",
        &format!("{}{}", world::MARK, "B".repeat(20_000)),
    );
    world.warm();
    for secret in ["open-1", "open-wide/key-1", "open-big"] {
        let header = format!("{{vault://azure/{secret}}}");
        world.get(0, &[("x-key", &header)]);
        world.answer_all();
        let again = world.get(0, &[("x-key", &header)]);
        let value = world.upstream(again, "x-key");
        assert!(
            value.iter().all(|value| value.starts_with(world::MARK))
                && world.gateway.calls().is_empty(),
            "{secret} is not cached"
        );
    }
    world.gateway.take_cost();
    world
}

/// Sends a request, and lets its calls be made; the cost of both.
fn cost(world: &mut World, request: &Request) -> (u64, usize, String) {
    let before = world.gateway.memory();
    world.gateway.take_cost();
    let id = world.gateway.request(0, request.clone());
    world.make_calls();
    let fuel = world.gateway.take_cost().fuel;
    let grown = world.gateway.memory() - before;
    let end = match world.gateway.outcome(id) {
        Outcome::Answered(answer) => answer.status.to_string(),
        Outcome::Waiting => "waits".into(),
        Outcome::Reset(_) => "reset".into(),
        Outcome::Gone => "gone".into(),
    };
    (fuel, grown, end)
}

#[test]
fn no_request_costs_a_worker_more_than_its_share() {
    let shapes = shapes();
    assert!(shapes.len() >= 40);
    let mut bad = Vec::new();
    for Shape { name, request } in shapes {
        let length: usize = request.body.iter().map(Vec::len).sum();
        assert!(length <= LONGEST, "{name}");
        // Long lists of exact names must not make a reference cost more.
        let listed = if name.contains("versions") { 19_000 } else { 0 };
        let mut world = world(listed);
        let (fuel, grown, end) = cost(&mut world, &request);
        // The memory of the first one is used again, and what was parsed may be known.
        let start = std::time::Instant::now();
        let (again, more, _) = cost(&mut world, &request);
        let took = start.elapsed().as_micros();
        say(&format!(
            "{fuel:>11} instructions, again {again:>11} in {took:>7} us, {:>6} KB, again {:>6} KB  {end:<6} {name}",
            grown >> 10,
            more >> 10,
        ));
        if fuel.max(again) > FUEL || grown.max(more) > MEMORY {
            bad.push(format!(
                "{name}: {fuel}, {again} instructions, {grown}, {more} bytes"
            ));
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
#[ignore = "fails: each key's value is read out of the whole secret, 490 million instructions for the first request"]
fn many_keys_of_one_secret_cost_one_reading_of_it() {
    let mut world = world(0);
    let text = numbered(100, |n| format!("{{vault://azure/open-wide/key-{n}}}"));
    let request = Request::post("/", "text/plain", text.as_bytes());
    let (fuel, _, end) = cost(&mut world, &request);
    assert_eq!(end, "200");
    assert!(fuel <= FUEL, "{fuel}");
}

/// Else the column of memory above would say nothing.
#[test]
fn a_body_that_is_read_is_seen_in_the_memory() {
    let mut world = world(0);
    let text = "x".repeat(LONGEST);
    let (_, grown, end) = cost(
        &mut world,
        &Request::post("/", "text/plain", text.as_bytes()),
    );
    assert_eq!(end, "200");
    // Some of it fits into what was free before.
    assert!((LONGEST / 4 * 3..MEMORY).contains(&grown), "{grown}");
}

/// A loop that reads a megabyte byte by byte, in the engine that counts the instructions.
fn known_loop() -> (wasmtime::Store<()>, wasmtime::TypedFunc<(), i32>) {
    let text = r#"(module (memory 16) (func (export "run") (result i32) (local i32 i32)
        (loop
            (local.set 1 (i32.add (local.get 1) (i32.eq (i32.load8_u (local.get 0)) (i32.const 123))))
            (local.set 0 (i32.add (local.get 0) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get 0) (i32.const 1048576))))
        (local.get 1)))"#;
    let mut config = wasmtime::Config::new();
    config.consume_fuel(true);
    let engine = wasmtime::Engine::new(&config).expect("an engine");
    let module = wasmtime::Module::new(&engine, wat::parse_str(text).expect("a module"));
    let mut store = wasmtime::Store::new(&engine, ());
    store.set_fuel(u64::MAX / 2).expect("fuel");
    let instance = wasmtime::Instance::new(&mut store, &module.expect("a module"), &[]);
    let run = instance
        .expect("an instance")
        .get_typed_func(&mut store, "run");
    (store, run.expect("a function"))
}

/// The best of some runs: other work on the machine only makes it slower.
fn best_rate(mut run: impl FnMut() -> u64) -> u64 {
    let rates = (0..20).map(|_| {
        let start = std::time::Instant::now();
        let fuel = run();
        fuel * 1_000 / u64::try_from(start.elapsed().as_nanos().max(1)).expect("short")
    });
    rates.max().unwrap_or_default()
}

/// `cargo test --release -p proxy-wasm-host --test hostile_cost calibrate -- --ignored --nocapture`
#[test]
#[ignore = "measures this machine"]
fn calibrate() {
    let (mut store, run) = known_loop();
    let known = best_rate(|| {
        let before = store.get_fuel().expect("fuel");
        run.call(&mut store, ()).expect("it ends");
        before - store.get_fuel().expect("fuel")
    });
    let mut world = world(0);
    let body = "%7bvault:/".repeat(LONGEST / 10);
    let request = Request::post("/", "application/x-www-form-urlencoded", body.as_bytes());
    let filter = best_rate(|| cost(&mut world, &request).0);
    say(&format!(
        "instructions in a microsecond: {known} of a known loop, {filter} of the filter; the bound reckons with {RATE}"
    ));
    assert!(known.min(filter) >= 2 * RATE, "{known}, {filter}");
}
