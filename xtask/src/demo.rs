//! `cargo xtask demo`: the filter at work, for somebody who sees it for the first time. Every line that
//! it shows was sent or received.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use envoy_test::emulator::Endpoint;
use envoy_test::envoy::Tools;
use envoy_test::world::{World, configuration};
use serde_json::json;

use crate::steps::Step;
use crate::{provision, wasm};

/// Short, so that a rotation can be watched.
const TTL: Duration = Duration::from_secs(2);

/// Runs the demo; with `keep`, waits for Enter at its end.
pub(crate) fn run(keep: bool) -> Result<()> {
    let tools = Tools {
        filter: wasm::build(wasm::Variant::Standard)?.path,
        envoy: provision::envoy()?,
    };
    let step = Step::start("starting the Azure emulator, an upstream and Envoy");
    let world = start(tools)?;
    step.done();
    show_configuration();
    show_requests(&world)?;
    if keep {
        wait(&world)?;
    }
    Ok(())
}

fn request_rules() -> serde_json::Value {
    json!({
        "set": { "headers": { "authorization": "Bearer {vault://azure/payments/token}" } },
        "resolve": { "headers": ["x-partner-key"], "allow": ["azure/partner-*"] },
    })
}

fn start(tools: Tools) -> Result<World> {
    let configuration = configuration(
        &json!({ "ttl": TTL.as_secs() }),
        &json!({ "request": request_rules() }),
    );
    World::start(tools, &configuration, |azure| {
        azure.set_secret("payments", r#"{"user":"shop","token":"tok-1111"}"#);
        azure.set_secret("partner-acme", "acme-key-1");
        azure.set_secret("internal-root", "never-for-clients");
    })
}

fn show_configuration() {
    println!("The gateway is configured with references only:");
    println!("  {}\n", request_rules());
}

fn show_requests(world: &World) -> Result<()> {
    let acme: &[(&str, &[u8])] = &[("x-partner-key", b"{vault://azure/partner-acme}")];
    show(
        world,
        "1. Cold: the client sends a reference that nobody has asked for before",
        acme,
    )?;
    show(world, "2. Cached: the same request again", acme)?;
    show(
        world,
        "3. Not allowed: a reference that is not on the operator's list stays as it is",
        &[("x-partner-key", b"{vault://azure/internal-root}")],
    )?;
    world.azure.set_secret("partner-acme", "acme-key-2");
    world
        .azure
        .set_secret("payments", r#"{"user":"shop","token":"tok-2222"}"#);
    go_on(world, acme, TTL + TTL / 2)?;
    show(
        world,
        &format!(
            "4. Rotated in Key Vault; clients went on asking for {} s (the ttl is {} s)",
            (TTL + TTL / 2).as_secs(),
            TTL.as_secs()
        ),
        acme,
    )?;
    show(
        world,
        "5. Missing: the request is denied, and says which reference",
        &[("x-partner-key", b"{vault://azure/partner-nobody}")],
    )?;
    let reloads = world.envoy.stat("wasm.azure_key_vault.vm_reload")?;
    println!("Envoy had to restart the filter {reloads} times.");
    Ok(())
}

/// Clients that go on asking: what nobody uses is not renewed, and each of Envoy's workers looks after what it
/// uses.
fn go_on(world: &World, headers: &[(&str, &[u8])], span: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        world.request(headers).context("sending a request")?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn show(world: &World, title: &str, headers: &[(&str, &[u8])]) -> Result<()> {
    let (answer, received) = world.request(headers).context("sending a request")?;
    println!("{title}");
    for (name, value) in headers {
        println!(
            "   client sent      {name}: {}",
            String::from_utf8_lossy(value)
        );
    }
    match received {
        Some(received) => {
            for name in ["authorization", "x-partner-key"] {
                println!(
                    "   upstream got     {name}: {}",
                    received.header(name).join(", ")
                );
            }
        }
        None => println!("   client got       {} {}", answer.status, answer.text()),
    }
    println!(
        "   Azure was asked  {} x token, {} x secret",
        world.azure.count(Endpoint::Token),
        world.azure.count(Endpoint::Secrets)
    );
    println!(
        "   took             {:.1} ms\n",
        answer.took.as_secs_f64() * 1000.0
    );
    Ok(())
}

fn wait(world: &World) -> Result<()> {
    println!("\nIt goes on running until Enter or Ctrl-C:");
    println!(
        "  curl -H 'x-partner-key: {{vault://azure/partner-acme}}' http://{}/echo",
        world.envoy.address
    );
    println!(
        "  curl -X PUT -d acme-key-3 http://{}/admin/secrets/partner-acme",
        world.server.plain
    );
    println!("  curl http://{}/admin/calls", world.server.plain);
    println!("  Envoy's admin interface: http://{}/", world.envoy.admin);
    std::io::stdin()
        .read_line(&mut String::new())
        .context("waiting for Enter")?;
    Ok(())
}
