//! The workflow that publishes: its commands are commands of this project, and the files that it publishes are
//! those that a build makes.

use clap::Parser as _;

use super::*;
use crate::Arguments;

fn workflow() -> (String, Node) {
    let path = workspace().join(".github/workflows/ci.yml");
    (text(&path), documents(&path).remove(0).1)
}

fn scripts(workflow: &Node) -> Vec<String> {
    let jobs = workflow.get("jobs").unwrap().fields();
    let steps = jobs
        .iter()
        .flat_map(|(_, job)| job.get("steps").unwrap().items());
    steps
        .filter_map(|step| Some(step.text_at(&["run"])?.to_owned()))
        .collect()
}

#[test]
fn the_workflows_commands_are_there() {
    let scripts = scripts(&workflow().1);
    let commands = scripts.iter().flat_map(|script| script.lines());
    let commands: Vec<&str> = commands
        .filter(|line| line.starts_with("cargo xtask "))
        .collect();
    assert!(
        commands.contains(&"cargo xtask test --docker"),
        "{commands:?}"
    );
    assert!(commands.contains(&"cargo xtask build"), "{commands:?}");
    for command in commands {
        let words = ["cargo xtask"]
            .into_iter()
            .chain(command.split(' ').skip(2));
        assert!(Arguments::try_parse_from(words).is_ok(), "{command}");
    }
}

#[test]
fn only_tags_are_published_and_only_after_the_tests() {
    let (_, workflow) = workflow();
    let publish = workflow.at(&["jobs", "publish"]).unwrap();
    assert_eq!(publish.text_at(&["if"]), Some("github.ref_type == 'tag'"));
    assert_eq!(
        publish.get("needs").unwrap().value(),
        json!(["test", "reproducible"])
    );
    let writing: Vec<&str> = workflow
        .get("jobs")
        .unwrap()
        .fields()
        .iter()
        .filter(|(_, job)| job.get("permissions").is_some())
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(writing, ["publish"]);
    assert_eq!(
        workflow.get("permissions").unwrap().value(),
        json!({ "contents": "read" })
    );
}

/// The version that is built is the one that the changelog is about, released or to be.
#[test]
fn the_changelog_names_the_version() {
    let changelog = text(&workspace().join("CHANGELOG.md"));
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        changelog.contains(&format!("## {version} "))
            || changelog.contains(&format!("{version} to be"))
    );
    assert!(
        text(&workspace().join("Cargo.toml"))
            .lines()
            .any(|line| line == format!("version = \"{version}\""))
    );
}
