//! What the documentation says of this repository: transcripts are what the commands print, links lead
//! somewhere, files that are named are there.

use std::collections::BTreeSet;

use super::*;

/// Every page, by its path from the root.
fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "filter-config"] {
        for entry in fs::read_dir(workspace().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "md") {
                let name = path.strip_prefix(workspace()).unwrap();
                pages.push((name.display().to_string(), text(&path)));
            }
        }
    }
    assert!(pages.len() > 10, "{}", pages.len());
    pages.sort();
    pages
}

#[test]
fn the_transcripts_of_check_are_real() {
    let mut seen = 0;
    for (page, text_of_page) in pages() {
        let lines: Vec<&str> = text_of_page.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let Some(file) = line.strip_prefix("    $ cargo xtask check ") else {
                continue;
            };
            let transcript = lines[index + 1..]
                .iter()
                .map_while(|line| line.strip_prefix("    "));
            let transcript: Vec<&str> = transcript.collect();
            let report = check::check(file, &text(&workspace().join(file)), &OPTIONS).to_string();
            let report: Vec<&str> = report.lines().collect();
            assert_eq!(transcript, report, "{page}: {file}");
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut code = false;
    let mut anchors = BTreeSet::new();
    for line in page.lines() {
        code ^= line.starts_with("```");
        let Some(title) = line
            .trim_start_matches('#')
            .strip_prefix(' ')
            .filter(|_| !code && line.starts_with('#'))
        else {
            continue;
        };
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
        anchors.insert(anchor);
    }
    anchors
}

/// Where the links of a page lead, but for those out of the repository.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut dead = Vec::new();
    let mut seen = 0;
    for (name, page) in &pages {
        for link in links(page) {
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if file.is_empty() {
                workspace().join(name)
            } else {
                workspace().join(name).parent().unwrap().join(file)
            };
            let there = match path.canonicalize() {
                Ok(path) if anchor.is_empty() => path.exists(),
                Ok(path) => anchors(&text(&path)).contains(anchor),
                Err(_) => false,
            };
            if !there {
                dead.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(seen > 40, "{seen}");
    assert!(dead.is_empty(), "{dead:#?}");
}

/// A page that nothing leads to is never found.
#[test]
fn every_page_is_linked() {
    let pages = pages();
    let linked: BTreeSet<PathBuf> = pages
        .iter()
        .flat_map(|(name, page)| {
            let folder = workspace().join(name).parent().unwrap().to_owned();
            let files = links(page)
                .into_iter()
                .map(|link| link.split('#').next().unwrap_or_default().to_owned());
            files.filter_map(move |file| folder.join(file).canonicalize().ok())
        })
        .collect();
    for (name, _) in pages.iter().filter(|(name, _)| name != "README.md") {
        let path = workspace().join(name).canonicalize().unwrap();
        assert!(linked.contains(&path), "{name}");
    }
}

/// Files in this repository that the text names, in code or commands.
#[test]
fn the_files_that_are_named_are_there() {
    let folder = folder("");
    let table = text(&folder.join("README.md"));
    let named = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let named: Vec<&str> = named
        .filter(|name| name.contains('.') || name.contains('/'))
        .collect();
    assert!(named.len() > 9, "{named:?}");
    for name in named {
        assert!(folder.join(name).is_file(), "{name}");
    }
    let mut seen = 0;
    for (page, text_of_page) in pages() {
        for word in text_of_page.split([' ', '`', '\n', '(', ')', '"', '|', ';']) {
            let ours = [
                "filter-config/",
                "envoy-test/",
                "bench/",
                "tests/",
                "xtask/",
                "src/",
            ];
            if !ours.iter().any(|start| word.starts_with(start)) || !word.contains('.') {
                continue;
            }
            // A transcript has lines behind it.
            let path = word.split(':').next().unwrap().trim_end_matches([',', '.']);
            assert!(workspace().join(path).exists(), "{page}: {word}");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

/// Every Rust file below a folder of the workspace.
fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// The tests that SECURITY.md names, as `file::function`.
#[test]
fn the_tests_that_security_names_are_there() {
    let mut files = Vec::new();
    for folder in ["src", "tests/host", "envoy-test"] {
        rust_files(&workspace().join(folder), &mut files);
    }
    let page = text(&workspace().join("SECURITY.md"));
    let named = page.split('`').skip(1).step_by(2);
    let named: BTreeSet<(&str, &str)> = named.filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() > 60, "{}", named.len());
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, function)| {
            let file = format!("/{file}.rs");
            let head = format!("fn {function}(");
            let mut candidates = files
                .iter()
                .filter(|p| p.to_string_lossy().ends_with(&file));
            !candidates.any(|path| text(path).contains(&head))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The blocks of commands of a page.
fn commands(page: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in page.lines() {
        match (line.strip_prefix("    "), blocks.last_mut()) {
            (Some(command), Some(block)) => block.push_str(&format!("{command}\n")),
            _ => blocks.push(String::new()),
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// What the quick starts make of the examples has nothing of the examples' vault, tenant and client left, and
/// passes its check: a change of an example would leave a `sed` without effect.
#[test]
fn the_quick_starts_make_good_files_of_the_examples() {
    for (gateway, left) in [
        ("envoy", "address: upstream"),
        ("istio", "ghcr.io/example"),
        ("envoy-gateway", "ghcr.io/example"),
        ("kong", "payments.vault.azure.net"),
    ] {
        let page = text(&workspace().join(format!("docs/quick-start-{gateway}.md")));
        let all = commands(&page);
        let block = all
            .iter()
            .find(|block| block.starts_with("sed -e") && block.contains("> target/"));
        let sed = block.and_then(|block| block.split(" > target/").next());
        let mut bash = Command::new("bash");
        bash.args(["-euc", sed.unwrap_or_else(|| panic!("{gateway}"))])
            .current_dir(workspace())
            .env("VAULT", "ours")
            .env("AZURE_TENANT_ID", "33333333-3333-3333-3333-333333333333")
            .env("AZURE_CLIENT_ID", "44444444-4444-4444-4444-444444444444")
            .env("REGISTRY", "registry.example.com");
        let made = String::from_utf8(bash.output().unwrap().stdout).unwrap();
        let gone = [left, "payments.vault.azure.net", "11111111-", "22222222-"];
        // Comments may say where a thing comes from.
        let lines = made
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        let kept: Vec<&str> = lines
            .filter(|line| gone.iter().any(|text| line.contains(text)))
            .collect();
        assert!(kept.is_empty(), "{gateway}: {kept:?}");
        let report = check::check(&format!("{gateway}.yaml"), &made, &OPTIONS);
        assert_eq!(report.errors, 0, "{report}");
        assert!(
            report.to_string().contains("https://ours.vault.azure.net"),
            "{report}"
        );
    }
}

#[test]
fn the_commands_of_the_docs_are_shell() {
    let mut seen = 0;
    for (name, page) in pages() {
        if !name.contains("quick-start") {
            continue;
        }
        for block in commands(&page) {
            let checked = Command::new("bash").args(["-nc", &block]).output().unwrap();
            let errors = String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success(), "{name}: {errors}\n{block}");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}
