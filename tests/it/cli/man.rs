//! `attachd man`: a page for each command that the help names, with its options.

use std::collections::BTreeSet;
use std::fs;

use super::attachd;

#[test]
fn every_command_has_a_page_with_its_options() {
    let here = tempfile::tempdir().unwrap();
    let outcome = attachd(here.path(), &["man", "pages/man1"], &[]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (Some(0), "", ""));
    let folder = here.path().join("pages/man1");
    let names: BTreeSet<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let help = attachd(here.path(), &["--help"], &[]).stdout;
    let listed = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.contains(&"download") && commands.contains(&"man"), "{help}");
    for command in commands.iter().filter(|command| **command != "help") {
        let name = format!("attachd-{command}.1");
        assert!(names.contains(&name), "{name}: {names:?}");
        let page = fs::read_to_string(folder.join(&name)).unwrap();
        assert!(
            page.contains(&format!(".TH attachd-{command} 1 \" \" \"attachd ")) && page.contains(".SH SYNOPSIS"),
            "{page}"
        );
    }
    for name in ["attachd.1", "attachd-token-mint.1", "attachd-config-show.1"] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("help")), "{names:?}");
    let page = fs::read_to_string(folder.join("attachd-download.1")).unwrap();
    for text in ["\\-\\-output\\-file", "\\-\\-retry", "Exit codes", concat!("attachd ", env!("CARGO_PKG_VERSION"))] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

#[test]
fn pages_that_cannot_be_written_are_an_error_with_the_directory() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("file"), "").unwrap();
    let outcome = attachd(here.path(), &["man", "file"], &[]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.starts_with("attachd: file: "), "{outcome:?}");
}
