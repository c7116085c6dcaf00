//! The limits that SECURITY.md lists are those that the program has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::harness::Server;

/// The keys outside of `[limits]` that bound what a caller can use up or do.
const OTHERS: [&str; 14] = [
    "auth.keys.cooldown",
    "auth.keys.max_age",
    "auth.keys.refresh",
    "auth.keys.timeout",
    "auth.leeway",
    "auth.max_token_lifetime",
    "auth.token_cache",
    "grpc.reflection",
    "log.audit_timeout",
    "log.queue",
    "log.refusals_per_second",
    "shutdown.grace",
    "storage.min_free",
    "storage.timeout",
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The cells of the rows of the first table below a heading.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = document.split_once(&format!("# {heading}\n")).expect("there is the heading");
    let lines = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.skip(2).map(cells).collect()
}

/// The text within the first pair of backticks.
fn code(cell: &str) -> Option<&str> {
    cell.split('`').nth(1)
}

/// The keys that bound something, by the reference of the configuration, with their defaults.
fn bounding(reference: &str) -> BTreeMap<String, String> {
    let keys = reference.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let key = cells.next()?.trim_end_matches('`');
        let default = cells.nth(1)?.trim().trim_matches('`');
        // The exceptions for single clients say the same as the keys that they are exceptions from.
        let is_exception = key.starts_with("limits.per_client.overrides");
        let bounds = key.starts_with("limits.") && !is_exception || OTHERS.contains(&key);
        bounds.then(|| (key.to_owned(), if default.is_empty() { "none" } else { default }.to_owned()))
    });
    keys.collect()
}

/// Where a list of limits differs from the keys that there are.
fn differences(security: &str, reference: &str) -> Vec<String> {
    let mut keys = bounding(reference);
    let mut wrong = Vec::new();
    for row in rows(security, "Configured limits").iter().filter(|row| !row[0].is_empty()) {
        let key = code(&row[0]).unwrap_or_default();
        let default = code(&row[1]).unwrap_or(&row[1]);
        match keys.remove(key) {
            None => wrong.push(format!("{key} is no such key, or has two rows")),
            Some(known) if known != default => wrong.push(format!("{key} is {known} by default")),
            Some(_) => {}
        }
    }
    wrong.extend(keys.into_keys().map(|key| format!("{key} has no row")));
    wrong
}

#[test]
fn every_key_that_bounds_something_has_a_row_with_its_default() {
    let (security, reference) = (read("SECURITY.md"), read("docs/configuration.md"));
    assert_eq!(differences(&security, &reference), [""; 0]);
    assert!(OTHERS.iter().all(|key| bounding(&reference).contains_key(*key)));
}

#[test]
fn a_limit_that_is_left_out_renamed_or_changed_is_noticed() {
    let (security, reference) = (read("SECURITY.md"), read("docs/configuration.md"));
    for (from, to) in [
        ("| `limits.drain_time` |", "| `limits.drain_tome` |"),
        ("| `limits.drain_time` |", "| `limits.drain_bytes` |"),
        ("| `limits.drain_time` | `\"30s\"` |", "| `limits.drain_time` | `\"31s\"` |"),
        ("| `auth.max_token_lifetime` | none |", "| `auth.max_token_lifetime` | `\"1h\"` |"),
    ] {
        let changed = security.replace(from, to);
        assert!(changed != security && !differences(&changed, &reference).is_empty(), "{from}");
    }
    let more = reference
        .replace("| `limits.drain_time` |", "| `limits.more` | text | `1` | `M` | More. |\n| `limits.drain_time` |");
    assert_eq!(differences(&security, &more), ["limits.more has no row"]);
}

#[test]
fn what_a_limit_is_answered_with_is_in_the_table_of_errors() {
    let errors: BTreeSet<[String; 3]> = rows(&read("docs/reference/errors.md"), "Errors")
        .into_iter()
        .map(|row| [row[1].clone(), row[2].clone(), row[3].clone()])
        .collect();
    assert!(errors.len() > 20, "{errors:?}");
    for row in rows(&read("SECURITY.md"), "Configured limits") {
        let response: Vec<_> = row[3].split(", ").map(str::to_owned).collect();
        let known = <[String; 3]>::try_from(response).is_ok_and(|response| errors.contains(&response));
        assert!(known || row[3] == "–", "{row:?}");
    }
}

#[test]
fn the_metrics_of_the_limits_are_served() {
    let server = Server::start();
    let numbers = server.numbers();
    let mut seen = 0;
    for row in rows(&read("SECURITY.md"), "Configured limits") {
        for metric in row[4].split('`').skip(1).step_by(2) {
            let (name, labels) = metric.split_once('{').unwrap_or((metric, ""));
            let is_it = |series: &String| {
                let (known, more) = series.split_once('{').unwrap_or((series, ""));
                known == name && more.contains(labels.trim_end_matches('}'))
            };
            assert!(numbers.keys().any(is_it), "{metric}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}
