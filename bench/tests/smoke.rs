//! That the bench runs to its end: with so little effort that its figures mean nothing. Every filter in it
//! has to do its work, or it stops.

use std::path::PathBuf;
use std::process::Command;

use envoy_test::envoy::{Tools, workspace};

#[test]
fn every_part_runs_and_writes_what_it_found() {
    let tools = Tools::find().expect("Envoy and the filter");
    let peer = std::env::var_os("AKV_PEER_WASM").map_or_else(
        || workspace().join("target/bench/bench_peer.wasm"),
        PathBuf::from,
    );
    assert!(peer.exists(), "no {}: run cargo xtask test", peer.display());
    let out = tempfile::tempdir().expect("a folder");
    let done = Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("--envoy")
        .arg(tools.envoy)
        .arg("--filter")
        .arg(tools.filter)
        .arg("--peer")
        .arg(peer)
        .arg("--out")
        .arg(out.path())
        .args("--starts 1 --rounds 1 --slice 20 --flood 200 --secrets 100".split(' '))
        .output()
        .expect("the bench started");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let read = |name: &str| std::fs::read_to_string(out.path().join(name)).expect(name);
    let flood = read("flood.md");
    assert_eq!(flood.matches("| 200 | 2 | 1 | 1 |").count(), 3, "{flood}");
    for (name, word) in [
        ("machine.md", "cores"),
        ("comparison.md", "`credential_injector`"),
        ("goals.md", "cached `resolve`"),
        ("crossings.md", "that it ends"),
        ("start.md", "does nothing"),
        ("growth.md", "straight line"),
        ("growth.svg", "References of a request"),
    ] {
        let text = read(name);
        assert!(
            text.contains(word) && !text.contains("NaN"),
            "{name}: {text}"
        );
    }
}
