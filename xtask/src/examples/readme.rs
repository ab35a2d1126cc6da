//! The README's transcripts are what the commands print.

use super::*;

#[test]
fn the_transcripts_of_check_are_real() {
    let readme = text(&workspace().join("README.md"));
    let lines: Vec<&str> = readme.lines().collect();
    let mut seen = 0;
    for (index, line) in lines.iter().enumerate() {
        let Some(file) = line.strip_prefix("    $ cargo xtask check ") else {
            continue;
        };
        let transcript = lines[index + 1..]
            .iter()
            .map_while(|line| line.strip_prefix("    "));
        let transcript: Vec<&str> = transcript.collect();
        let report = check::check(file, &text(&workspace().join(file)), &OPTIONS).to_string();
        assert_eq!(transcript, report.lines().collect::<Vec<_>>(), "{file}");
        seen += 1;
    }
    assert_eq!(seen, 2);
}

/// The files that the README and its neighbour in filter-config name are there.
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
    let readme = text(&workspace().join("README.md"));
    for word in readme.split([' ', '`', '\n', '(', ')']) {
        if word.starts_with("filter-config/") && word.contains('.') {
            // A transcript has lines behind it.
            let path = word.split(':').next().unwrap().trim_end_matches([',', ';']);
            assert!(workspace().join(path).is_file(), "{word}");
        }
    }
}
