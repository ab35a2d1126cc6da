//! `cargo xtask bench`: builds the filter, its peers and the bench, runs it, and puts what it measured
//! where readers look. It does not know what is measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::steps::{cargo, run as run_step, workspace};
use crate::{provision, wasm};

/// Runs the bench with these arguments; with `write`, its results go into the documentation.
pub(crate) fn run(write: bool, arguments: &[String]) -> Result<()> {
    ensure!(
        !write || arguments.is_empty(),
        "--write takes no further arguments: the documentation has the whole bench"
    );
    let filter = wasm::build(wasm::Variant::Standard)?;
    let peer = wasm::build_peer()?;
    let envoy = provision::envoy()?;
    run_step(
        "building the bench",
        cargo().args([
            "build",
            "--profile",
            "bench",
            "--locked",
            "--package",
            "bench",
        ]),
    )?;
    let out = workspace().join("target/bench");
    let ended = Command::new(wasm::target_folder().join("release/bench"))
        .arg("--envoy")
        .arg(envoy)
        .arg("--filter")
        .arg(&filter.path)
        .arg("--peer")
        .arg(peer)
        .arg("--out")
        .arg(&out)
        .args(arguments)
        .status()
        .context("the bench cannot be run")?;
    ensure!(ended.success(), "the bench ended with {ended}");
    println!("{filter}");
    if write {
        document(&out, filter.size)?;
    }
    Ok(())
}

/// The pages with their marked places, and the parts that go there.
const PAGES: [(&str, &[&str]); 1] = [(
    "docs/benchmark.md",
    &[
        "machine",
        "comparison",
        "goals",
        "crossings",
        "flood",
        "start",
        "growth",
    ],
)];

fn document(out: &Path, size: usize) -> Result<()> {
    for (page, parts) in PAGES {
        let path = workspace().join(page);
        let mut text = fs::read_to_string(&path).with_context(|| format!("reading {page}"))?;
        for part in parts {
            let file = out.join(format!("{part}.md"));
            let result =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            text = replaced(&text, part, &result).with_context(|| page.to_owned())?;
        }
        fs::write(&path, text).with_context(|| format!("writing {page}"))?;
    }
    let plot = workspace().join("docs/benchmark.svg");
    fs::copy(out.join("growth.svg"), &plot)
        .with_context(|| format!("writing {}", plot.display()))?;
    println!("docs/benchmark.md and docs/benchmark.svg have it now; the filter has {size} bytes");
    Ok(())
}

/// The page with this between `<!-- bench: part -->` and `<!-- end -->`.
fn replaced(page: &str, part: &str, result: &str) -> Result<String> {
    let start = format!("<!-- bench: {part} -->");
    let missing = || format!("{start} … {END} is missing");
    let (before, rest) = page.split_once(&start).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    Ok(format!("{before}{start}\n{}\n{END}{after}", result.trim()))
}

const END: &str = "<!-- end -->";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_replaced_and_the_rest_stays() {
        let page =
            "a\n<!-- bench: one -->\nold\n<!-- end -->\nb\n<!-- bench: two --><!-- end -->\n";
        let page = replaced(page, "one", "\nnew\n\n").unwrap();
        let page = replaced(&page, "two", "|2|").unwrap();
        assert_eq!(
            page,
            "a\n<!-- bench: one -->\nnew\n<!-- end -->\nb\n<!-- bench: two -->\n|2|\n<!-- end -->\n"
        );
        let error = replaced("nothing here", "one", "").unwrap_err().to_string();
        assert_eq!(error, "<!-- bench: one --> … <!-- end --> is missing");
    }

    #[test]
    fn every_page_has_a_place_for_each_of_its_parts() {
        for (page, parts) in PAGES {
            let text = fs::read_to_string(workspace().join(page)).expect(page);
            for part in parts {
                replaced(&text, part, "").expect(page);
            }
        }
    }
}
