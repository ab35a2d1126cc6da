//! Running programs with a progress display: what is going on and for how long, and the end of the
//! output of what failed. It does not know what is run.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Whether somebody is watching: CI machines may give a terminal, but keep what is written on it.
fn interactive() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("CI").is_none()
}

/// A step that is under way; shows a spinner on a terminal, a line elsewhere.
pub(crate) struct Step {
    what: String,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    pub(crate) fn start(what: &str) -> Self {
        let bar = interactive().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]");
            let bar = ProgressBar::new_spinner().with_message(what.to_owned());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            eprintln!("... {what}");
        }
        Self {
            what: what.to_owned(),
            start: Instant::now(),
            bar,
        }
    }

    pub(crate) fn done(self) -> Duration {
        let took = self.start.elapsed();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        // What took a moment only is not worth a line.
        if took > Duration::from_secs(1) {
            eprintln!(" ok {} ({:.1} s)", self.what, took.as_secs_f64());
        }
        took
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Runs a program to its end behind a progress display; its output is shown only when it fails.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<String> {
    let step = Step::start(what);
    let output = ask(what, command)?;
    step.done();
    Ok(output)
}

/// The same without the display, for what takes a moment.
pub(crate) fn ask(what: &str, command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{what}: {name} cannot be run; is it installed?"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines
            .get(lines.len().saturating_sub(25)..)
            .unwrap_or_default()
            .join("\n");
        bail!("{what} failed ({name}, {}):\n{end}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
