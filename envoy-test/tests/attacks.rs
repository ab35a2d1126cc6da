//! What one client, or an upstream, can try against everybody else's secrets, memory and time, in a real Envoy with
//! one worker. After each attack the process is about as large as before, other requests were answered within a
//! second, and no VM was lost.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use envoy_test::client::{self, Answer, Connection};
use envoy_test::emulator::{Azure, Endpoint};
use envoy_test::envoy::Listener;
use envoy_test::exchange::{Client, Reader, Version, empty, request, streamed, within};
use envoy_test::lab::Lab;
use envoy_test::scripted::respond;
use envoy_test::world::{BODY_TYPES, CLIENT_SECRET, configuration};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const MARK: &str = "pl4nted";
/// Longest time that another client may wait. The old filter blocked a worker for 5 to 11 s; what a request
/// costs is counted in instructions elsewhere, since this machine may be busy.
const OTHERS_WAIT: Duration = Duration::from_secs(3);
/// Growth that one request may cause, in KiB.
const ONE_REQUEST: u64 = 16 << 10;
/// Growth that all waiting messages may cause: their budget, in KiB.
const ALL_THAT_WAITS: u64 = 64 << 10;
/// The largest body that the filter and Envoy take by default, but for a rest.
const MEGABYTE: usize = 1_000_000;
const FORM: &str = "application/x-www-form-urlencoded";

/// A gateway under attack.
struct Target {
    lab: Lab,
    before: u64,
}

/// Ordinary requests beside an attack.
struct Others {
    stop: Arc<AtomicBool>,
    asking: thread::JoinHandle<Result<Duration>>,
}

fn target(allow: &[&str], rest: &Value, seed: impl FnOnce(&Azure)) -> Target {
    let resolve =
        json!({ "headers": ["x-*"], "query": ["key"], "body": BODY_TYPES, "allow": allow });
    let mut whole = json!({ "request": { "resolve": resolve } });
    for (name, value) in rest.as_object().into_iter().flatten() {
        whole[name] = value.clone();
    }
    let vault = json!({ "ttl": 300, "timeout_ms": 9000 });
    target_with(&configuration(&vault, &whole), |_| {}, seed)
}

fn target_with(
    configuration: &Value,
    change: impl FnOnce(&mut Value),
    seed: impl FnOnce(&Azure),
) -> Target {
    let listener = Listener {
        name: "attacked",
        configuration: configuration.clone(),
        holds_headers: false,
    };
    let lab = Lab::start(1, &[listener], change, |azure| {
        azure.set_secret("open-ok", &format!("{MARK}-ok"));
        seed(azure);
    });
    Target {
        lab: lab.expect("the lab starts"),
        before: 0,
    }
}

impl Target {
    /// Has every buffer grown to its ordinary size, and the ordinary secret in the cache.
    fn warm(&mut self) {
        for content_type in BODY_TYPES {
            let answer = self.post(content_type, &vec![b' '; MEGABYTE]);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        self.key("{vault://azure/open-ok}");
        let _ = self.lab.world.upstream.take();
        self.before = self.lab.world.envoy.resident_kib().expect("a size");
    }

    fn post(&self, content_type: &str, body: &[u8]) -> Answer {
        client::send(self.lab.at("attacked"), &post(content_type, body)).expect("an answer")
    }

    fn get(&self, target: &str, headers: &[(&str, &[u8])]) -> Answer {
        client::get(self.lab.at("attacked"), target, headers).expect("an answer")
    }

    /// What the upstream gets in a header, or what the client is answered.
    fn key(&self, value: &str) -> String {
        let answer = self.get("/echo", &[("x-key", value.as_bytes())]);
        let text = answer.text();
        let found = text.lines().find_map(|line| line.strip_prefix("x-key: "));
        found.map_or_else(|| format!("{} {text}", answer.status), ToOwned::to_owned)
    }

    /// Begins to send ordinary requests.
    fn others(&self) -> Others {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, address) = (Arc::clone(&stop), self.lab.at("attacked"));
        let asking = thread::spawn(move || {
            let mut worst = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let headers: [(&str, &[u8]); 1] = [("x-key", b"{vault://azure/open-ok}")];
                let answer = client::get(address, "/", &headers)?;
                ensure!(
                    answer.status == 200,
                    "another client: {} {}",
                    answer.status,
                    answer.text()
                );
                worst = worst.max(answer.took);
                thread::sleep(Duration::from_millis(30));
            }
            Ok(worst)
        });
        Others { stop, asking }
    }

    fn grown(&self) -> u64 {
        let now = self.lab.world.envoy.resident_kib().expect("a size");
        now.saturating_sub(self.before)
    }

    /// The end of an attack.
    fn assert_well(&self, what: &str, others: Others, most_kib: u64) {
        others.stop.store(true, Ordering::Relaxed);
        let worst = others.asking.join().expect("the others ran");
        let worst = worst.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert!(
            worst < OTHERS_WAIT,
            "{what}: another client waited {worst:?}"
        );
        let grown = self.grown();
        assert!(
            grown < most_kib,
            "{what}: the process has grown by {grown} KiB"
        );
        assert_eq!(
            self.key("{vault://azure/open-ok}"),
            format!("{MARK}-ok"),
            "{what}"
        );
        self.lab.world.assert_clean(&[MARK, CLIENT_SECRET]);
    }
}

fn post(content_type: &str, body: &[u8]) -> Vec<u8> {
    let headers: [(&str, &[u8]); 3] = [
        ("host", b"x"),
        ("connection", b"close"),
        ("content-type", content_type.as_bytes()),
    ];
    client::request("POST", "/p", &headers, body)
}

/// `{vault://azure/NAME}` for each number, one after the other.
fn references(name: &str, numbers: std::ops::Range<usize>) -> String {
    numbers
        .map(|number| format!("{{vault://azure/{name}{number}}}"))
        .collect()
}

// ---- a value under another name ----

/// While one client waits for the one key that it may have, `attack` fills the cache with other names; none of them
/// is given the secret of the one who waits.
fn a_place_in_the_cache_is_not_used_again(attack: impl Fn(&Target) + Send, names: &[&str]) {
    let mut target = target(
        &["azure/payments/token", "azure/partner-*", "azure/open-ok"],
        &json!({}),
        |azure| {
            azure.set_secret(
                "payments",
                r#"{"token":"pl4nted-token","root":"pl4nted-root"}"#,
            )
        },
    );
    target.warm();
    let azure = &target.lab.world.azure;
    azure.set_latency(Endpoint::Secrets, Duration::from_millis(1500));
    let others = target.others();
    let waited = thread::scope(|scope| {
        let one = scope.spawn(|| target.key("{vault://azure/payments/token}"));
        thread::sleep(Duration::from_millis(300));
        attack(&target);
        one.join().expect("it ran")
    });
    azure.set_latency(Endpoint::Secrets, Duration::ZERO);
    assert_eq!(waited, "pl4nted-token");
    for name in names {
        let got = target.key(&format!("{{vault://azure/{name}}}"));
        assert!(!got.contains("pl4nted"), "{name} is {got}");
    }
    assert_eq!(
        target.key("{vault://azure/payments/token}"),
        "pl4nted-token"
    );
    target.assert_well("a place in the cache", others, ALL_THAT_WAITS);
}

#[test]
fn a_place_in_the_cache_is_not_used_again_by_one_large_body() {
    let attack = |target: &Target| {
        let names: Vec<String> = (0..10_001)
            .map(|n| format!("{{vault://azure/partner-{n}}}"))
            .collect();
        let body = serde_json::to_vec(&names).expect("JSON");
        let answer = target.post("application/json", &body);
        assert_eq!(answer.status, 413, "{}", answer.text());
    };
    a_place_in_the_cache_is_not_used_again(attack, &["partner-10000", "partner-9999", "partner-0"]);
}

#[test]
fn a_place_in_the_cache_is_not_used_again_by_versions_in_large_headers() {
    let attack = |target: &Target| {
        for request in 0..14 {
            let versions =
                (0..900).map(|n| format!("{{vault://azure/partner-1#{:032x}}}", request * 900 + n));
            let value: String = versions.collect();
            let answer = target.get("/", &[("x-key", value.as_bytes())]);
            assert_eq!(answer.status, 431, "{}", answer.text());
        }
    };
    // The one that came when the cache was full is among these.
    let names: Vec<String> = (9_990..10_005)
        .map(|n| format!("partner-1#{n:032x}"))
        .collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push("partner-1");
    a_place_in_the_cache_is_not_used_again(attack, &names);
}

/// Each request is as small as the limits demand.
#[test]
fn a_place_in_the_cache_is_not_used_again_by_many_small_requests() {
    let attack = |target: &Target| {
        let mut connections = Vec::new();
        for request in 0..105 {
            let stream = std::net::TcpStream::connect(target.lab.at("attacked"));
            let mut stream = stream.expect("a connection");
            let value = references("partner-", request * 100..request * 100 + 100);
            let headers: [(&str, &[u8]); 2] = [("host", b"x"), ("x-key", value.as_bytes())];
            let sent = stream.write_all(&client::request("GET", "/", &headers, b""));
            sent.expect("the request is taken");
            connections.push(stream);
        }
        thread::sleep(Duration::from_millis(1200));
    };
    let names: Vec<String> = (9_990..10_005).map(|n| format!("partner-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    a_place_in_the_cache_is_not_used_again(attack, &names);
}

// ---- memory ----

#[test]
fn a_result_that_is_too_large_is_refused_and_the_worker_lives() {
    let mut target = target(&["azure/open-*"], &json!({}), |azure| {
        azure.set_secret("open-big", &format!("{MARK}{}", "B".repeat(24_000)));
        azure.set_secret("open-12k", &format!("{MARK}{}", "B".repeat(12_000)));
    });
    target.key("{vault://azure/open-big}");
    target.key("{vault://azure/open-12k}");
    target.warm();
    let big = "{vault://azure/open-big}";
    let many = MEGABYTE / big.len();
    let array = |count| format!("[{}0]", format!("\"{big}\",").repeat(count)).into_bytes();
    let encoded = "a=%7Bvault%3A%2F%2Fazure%2Fopen-big%7D&";
    for (what, content_type, body) in [
        (
            "a text of references",
            "text/plain",
            big.repeat(many).into_bytes(),
        ),
        (
            "references to 12 KB",
            "text/plain",
            "{vault://azure/open-12k}".repeat(many).into_bytes(),
        ),
        ("99 references", "text/plain", big.repeat(99).into_bytes()),
        (
            "a JSON array of references",
            "application/json",
            array(37_000),
        ),
        ("a JSON array of 99", "application/json", array(99)),
        (
            "a form of references",
            FORM,
            encoded.repeat(25_000).into_bytes(),
        ),
        ("a form of 99", FORM, encoded.repeat(99).into_bytes()),
    ] {
        let others = target.others();
        let answer = target.post(content_type, &body);
        assert_eq!(answer.status, 413, "{what}: {}", answer.text());
        target.assert_well(what, others, ONE_REQUEST);
    }
    for (what, count, status) in [
        ("2,375 in a header", 2375, 431),
        ("99 in a header", 99, 503),
    ] {
        let others = target.others();
        let answer = target.get("/", &[("x-key", big.repeat(count).as_bytes())]);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        target.assert_well(what, others, ONE_REQUEST);
    }
    for (what, count, status) in [("2,000 in a query", 2000, 414), ("99 in a query", 99, 503)] {
        let others = target.others();
        let answer = target.get(&format!("/p?key={}", big.repeat(count)), &[]);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        target.assert_well(what, others, ONE_REQUEST);
    }
    let got = target.lab.world.upstream.take();
    let largest = got
        .iter()
        .map(|received| received.body.len() + received.head().len())
        .max();
    assert!(largest < Some(2_000), "the upstream got {largest:?} bytes");
}

/// Bodies whose parts are many and small.
fn hostile_bodies() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let fill = |part: &str| part.repeat(MEGABYTE / part.len());
    let json = |part: &str| format!("[{}0]", fill(part)).into_bytes();
    vec![
        ("ampersands", FORM, fill("&").into_bytes()),
        ("short fields", FORM, fill("a=b&").into_bytes()),
        ("encoded braces", FORM, fill("%7B=%7B&").into_bytes()),
        ("braces in JSON", "application/json", json("\"{\",")),
        ("empty strings in JSON", "application/json", json("\"\",")),
        (
            "beginnings in JSON",
            "application/json",
            json("\"{vault://\","),
        ),
        (
            "escaped braces in JSON",
            "application/json",
            json("\"\\u007b\","),
        ),
        (
            "deep JSON",
            "application/json",
            "[".repeat(MEGABYTE).into_bytes(),
        ),
        ("braces", "text/plain", fill("{").into_bytes()),
        (
            "beginnings",
            "text/plain",
            fill("{vault://azure/").into_bytes(),
        ),
        (
            "unlisted references",
            "text/plain",
            fill("{vault://a/b}").into_bytes(),
        ),
        (
            "escaped references",
            "text/plain",
            fill("\\{vault://azure/open-ok}").into_bytes(),
        ),
    ]
}

#[test]
fn bodies_of_small_parts_cost_little() {
    let mut target = target(&["azure/open-*"], &json!({}), |_| {});
    target.warm();
    for (what, content_type, body) in hostile_bodies() {
        let others = target.others();
        let answer = target.post(content_type, &body);
        assert!(
            answer.status < 500 || answer.status == 503,
            "{what}: {}",
            answer.status
        );
        target.assert_well(what, others, ONE_REQUEST);
    }
}

/// The same while a secret is fetched: each is held, within one budget.
#[test]
fn bodies_of_small_parts_that_wait_stay_within_the_budget() {
    let mut target = target(&["azure/open-*"], &json!({}), |azure| {
        for number in 0..4 {
            azure.set_secret(&format!("open-slow-{number}"), &format!("{MARK}-slow"));
        }
    });
    target.warm();
    let azure = &target.lab.world.azure;
    let last = |content_type: &str, number: usize| match content_type {
        FORM => format!("&a=%7Bvault%3A%2F%2Fazure%2Fopen-slow-{number}%7D"),
        "application/json" => format!("\"{{vault://azure/open-slow-{number}}}\"]"),
        _ => format!("{{vault://azure/open-slow-{number}}}"),
    };
    let shapes = hostile_bodies().into_iter().filter(|(what, ..)| {
        ["ampersands", "encoded braces", "braces in JSON", "braces"].contains(what)
    });
    for (number, (what, content_type, mut body)) in shapes.enumerate() {
        azure.set_latency(Endpoint::Secrets, Duration::from_millis(1200));
        if content_type == "application/json" {
            body.truncate(body.len() - "0]".len());
        }
        body.extend(last(content_type, number).bytes());
        let others = target.others();
        let (bytes, address) = (
            Arc::new(post(content_type, &body)),
            target.lab.at("attacked"),
        );
        let clients: Vec<_> = (0..12)
            .map(|_| {
                let bytes = Arc::clone(&bytes);
                thread::spawn(move || client::send(address, &bytes))
            })
            .collect();
        thread::sleep(Duration::from_millis(800));
        let waiting = target.grown();
        assert!(
            waiting < ALL_THAT_WAITS,
            "{what}: {waiting} KiB while twelve wait"
        );
        for client in clients {
            let answer = client.join().expect("it ran").expect("an answer");
            let right = answer.status == 200
                || answer.status == 503 && answer.header("retry-after").is_some();
            assert!(right, "{what}: {} {}", answer.status, answer.text());
        }
        azure.set_latency(Endpoint::Secrets, Duration::ZERO);
        target.assert_well(what, others, ALL_THAT_WAITS);
    }
}

/// An upstream whose answers `response.resolve` collects sends them nearly whole, and then waits.
#[test]
fn answers_that_are_collected_stay_within_the_budget() {
    const ANSWERS: usize = 160;
    const LENGTH: usize = 900_000;
    let response = json!({ "resolve": { "body": ["text/plain"], "allow": ["azure/open-*"] } });
    let rest = json!({ "response": response, "on_error": "keep" });
    let mut target = target(&["azure/open-*"], &rest, |_| {});
    target.warm();
    let others = target.others();
    let end = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&end);
    target.lab.upstream.on("slow", move |_| {
        let waiting = Arc::clone(&waiting);
        async move {
            let (writer, body) = streamed();
            tokio::spawn(async move {
                drop(writer.send(vec![b'a'; LENGTH]).await);
                let _ = waiting.acquire().await;
                drop(writer.send("end").await);
            });
            respond(200, &[("content-type", "text/plain")], body)
        }
    });
    let address = target.lab.at("attacked");
    target.lab.run(&[MARK], async {
        let mut clients = Vec::new();
        let passed = Arc::new(AtomicUsize::new(0));
        for _ in 0..ANSWERS {
            let passed = Arc::clone(&passed);
            clients.push(tokio::spawn(async move {
                let mut client = Client::connect(address, Version::Http1).await?;
                let response = client
                    .send(request(Version::Http1, "GET", "/h1/slow", &[], empty()))
                    .await?;
                let mut body = Reader::new(response.into_body());
                body.until(LENGTH).await?;
                passed.fetch_add(1, Ordering::Relaxed);
                body.to_end().await?;
                anyhow::Ok(body.read.len())
            }));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        // Those beyond the budget have gone on; memory of the process also has what Envoy buffers of them.
        let held = ANSWERS - passed.load(Ordering::Relaxed);
        end.add_permits(ANSWERS);
        for client in clients {
            let length = within("an answer", client).await??;
            let length = length.context("an answer that was too much to hold goes on as it is")?;
            ensure!(
                length == LENGTH + "end".len(),
                "{length} bytes of an answer"
            );
        }
        let budget = (64 << 20) / LENGTH + 1;
        ensure!(held <= budget, "{held} of {ANSWERS} answers are held");
        ensure!(held > 0, "none was collected");
        Ok(())
    });
    target.assert_well("collected answers", others, 3 * ALL_THAT_WAITS);
}

/// Shared data cannot delete: names that were made up must not stay there.
#[test]
fn made_up_names_leave_nothing_behind() {
    let rest = json!({ "max_fetches_per_second": 100_000, "max_fetches_in_flight": 100_000 });
    let mut target = target(&["azure/open-*"], &rest, |_| {});
    target.warm();
    let mut connection = Connection::open(target.lab.at("attacked")).expect("a connection");
    let mut ask = |names: std::ops::Range<usize>| {
        for from in names.step_by(90) {
            let value = references("open-made-up-with-a-long-name-", from..from + 90);
            let headers: [(&str, &[u8]); 2] = [("host", b"x"), ("x-key", value.as_bytes())];
            let answer = connection
                .send(&client::request("GET", "/", &headers, b""))
                .expect("an answer");
            assert_eq!(answer.status, 503);
        }
    };
    // Whatever has a fixed size is full after these.
    ask(0..3600);
    target.before = target.lab.world.envoy.resident_kib().expect("a size");
    let others = target.others();
    ask(3600..10_800);
    target.assert_well("7,200 made-up names", others, 4 << 10);
}

// ---- time ----

#[test]
fn many_names_in_one_request_keep_others_waiting_for_less_than_a_second() {
    let keys: Vec<String> = (0..1400)
        .map(|n| format!("\"key-{n:04}\":\"v{n:04}\""))
        .collect();
    let keys = format!("{{{}}}", keys.join(","));
    let allow = ["azure/open-*", "azure/exact"];
    let mut target = target(&allow, &json!({}), |azure| {
        azure.set_secret("open-keys", &keys)
    });
    target.key("{vault://azure/open-keys/key-0001}");
    target.warm();
    let versions: String = (0..18_000)
        .map(|n| format!("{{vault://azure/exact#{n:032x}}}"))
        .collect();
    let views: String = (0..33_000)
        .map(|n| format!("{{vault://azure/open-keys/key-{:04}}}", n % 1400))
        .collect();
    for (what, body) in [
        ("40,000 names", references("open-n", 0..40_000)),
        ("18,000 versions", versions),
        ("33,000 keys", views),
    ] {
        let calls = target.lab.world.azure.calls().len();
        let others = target.others();
        let start = Instant::now();
        let answer = target.post("text/plain", body.as_bytes());
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{what}: {:?}",
            start.elapsed()
        );
        assert_eq!(answer.status, 413, "{what}: {}", answer.text());
        target.assert_well(what, others, ONE_REQUEST);
        let calls = target.lab.world.azure.calls().len() - calls;
        assert!(calls < 110, "{what}: {calls} calls to Azure");
    }
    for (what, count, status) in [
        ("2,500 names in a header", 2500, 431),
        ("2,500 in a query", 2500, 414),
    ] {
        let others = target.others();
        let names = references("open-m", 0..count);
        let answer = if status == 431 {
            target.get("/", &[("x-key", names.as_bytes())])
        } else {
            target.get(&format!("/?key={names}"), &[])
        };
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        target.assert_well(what, others, ONE_REQUEST);
    }
}

/// A hundred different keys of one large secret are one message's work.
#[test]
fn the_keys_of_a_large_secret_are_found_at_once() {
    let keys: Vec<String> = (0..1400)
        .map(|n| format!("\"key-{n:04}\":\"v{n:04}\""))
        .collect();
    let keys = format!("{{{}}}", keys.join(","));
    let mut target = target(&["azure/open-*"], &json!({}), |azure| {
        azure.set_secret("open-keys", &keys)
    });
    target.key("{vault://azure/open-keys/key-0001}");
    target.warm();
    let others = target.others();
    for round in 0..10 {
        let numbers = (0..100).map(|n| (round * 100 + n) % 1400);
        let body: String = numbers
            .clone()
            .map(|n| format!("{{vault://azure/open-keys/key-{n:04}}}"))
            .collect();
        let answer = target.post("text/plain", body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let received = target.lab.world.upstream.take();
        let expected: String = numbers.map(|n| format!("v{n:04}")).collect();
        assert!(
            received
                .iter()
                .any(|received| received.body == expected.as_bytes()),
            "round {round}"
        );
    }
    target.assert_well("1,000 keys", others, ONE_REQUEST);
}

// ---- one client against another ----

#[test]
fn made_up_names_do_not_use_up_what_listed_secrets_need() {
    let exact: Vec<String> = (0..6).map(|n| format!("azure/exact-{n}")).collect();
    let mut allow: Vec<&str> = exact.iter().map(String::as_str).collect();
    allow.push("azure/open-*");
    let mut target = target(&allow, &json!({}), |azure| {
        for number in 0..6 {
            azure.set_secret(&format!("exact-{number}"), &format!("{MARK}-{number}"));
        }
    });
    target.warm();
    let others = target.others();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, address) = (Arc::clone(&stop), target.lab.at("attacked"));
    let flood = thread::spawn(move || {
        let mut number = 0;
        while !stopped.load(Ordering::Relaxed) {
            let value = references("open-made-up-", number..number + 90);
            let answer = client::get(address, "/", &[("x-key", value.as_bytes())]);
            assert_eq!(answer.expect("an answer").status, 503);
            number += 90;
            // Enough for any budget, and a log that can be read.
            thread::sleep(Duration::from_millis(10));
        }
    });
    thread::sleep(Duration::from_millis(300));
    for number in 0..6 {
        let got = target.key(&format!("{{vault://azure/exact-{number}}}"));
        assert_eq!(
            got,
            format!("{MARK}-{number}"),
            "while another client makes names up"
        );
        thread::sleep(Duration::from_millis(200));
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().expect("it ran");
    target.assert_well("a flood of made-up names", others, ONE_REQUEST);
}
