//! The review of the supply chain covers the dependencies that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const REVIEW: &str = "docs/explanation/supply-chain.md";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The dependencies of a manifest: for what each is, and its features.
fn dependencies(manifest: &str) -> BTreeMap<String, (String, String)> {
    let manifest: toml::Table = manifest.parse().unwrap();
    let mut all: BTreeMap<String, (Vec<&str>, BTreeSet<&str>)> = BTreeMap::new();
    for (section, purpose) in
        [("dependencies", "program"), ("build-dependencies", "build"), ("dev-dependencies", "tests")]
    {
        for (name, asked) in manifest[section].as_table().unwrap() {
            let (purposes, features) = all.entry(name.clone()).or_default();
            purposes.push(purpose);
            let named = asked.get("features").and_then(|features| features.as_array());
            features.extend(named.into_iter().flatten().filter_map(|feature| feature.as_str()));
            let has_default = asked.get("default-features").and_then(|default| default.as_bool()).unwrap_or(true);
            features.extend(has_default.then_some("default"));
        }
    }
    let said = |(purposes, features): (Vec<&str>, BTreeSet<&str>)| {
        let mut features: Vec<_> = features.into_iter().collect();
        features.sort_by_key(|feature| (*feature != "default", *feature));
        let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
        (purposes.join(", "), features)
    };
    all.into_iter().map(|(name, about)| (name, said(about))).collect()
}

/// The rows of the table below a heading.
fn rows<'a>(document: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = document.split_once(&format!("\n### {heading}\n")).expect("there is the heading");
    let section = section.split("\n#").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()).collect()
}

/// Where the review and a manifest do not say the same.
fn differences(review: &str, manifest: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut there = dependencies(manifest);
    let projects: Vec<_> = rows(review, "Projects").into_iter().map(|row| row[0]).collect();
    let mut used = BTreeSet::new();
    for row in rows(review, "Crates") {
        let [name, project, purposes, _, _, features] = row[..] else { panic!("{row:?}") };
        match there.remove(name) {
            None => wrong.push(format!("{name} is no direct dependency, or has two rows")),
            Some(about) if about == (purposes.to_owned(), features.to_owned()) => {}
            Some(about) => wrong.push(format!("{name} is {about:?}")),
        }
        used.insert(project);
    }
    wrong.extend(there.into_keys().map(|name| format!("{name} has no row")));
    wrong.extend(used.iter().filter(|name| !projects.contains(name)).map(|name| format!("no project {name}")));
    wrong.extend(projects.iter().filter(|name| !used.contains(*name)).map(|name| format!("{name} has no crate")));
    wrong
}

#[test]
fn every_direct_dependency_is_reviewed_with_its_features() {
    assert_eq!(differences(&read(REVIEW), &read("Cargo.toml")), [""; 0]);
}

#[test]
fn a_review_that_is_not_that_of_the_manifest_is_noticed() {
    let (review, manifest) = (read(REVIEW), read("Cargo.toml"));
    let row = |name: &str| {
        let begin = format!("| `{name}` |");
        review.lines().find(|line| line.starts_with(&begin)).map(|line| format!("{line}\n")).unwrap()
    };
    let project = review.lines().find(|line| line.starts_with("| tower |")).unwrap();
    for (review, manifest) in [
        (review.replace(&row("tokio"), ""), manifest.clone()),
        (review.replace(&row("tokio"), &row("tokio").repeat(2)), manifest.clone()),
        (review.replace(&row("tokio"), &row("tokio").replace("`tokio`", "`tokyo`")), manifest.clone()),
        (review.replace(&row("tokio"), &row("tokio").replace(", signal", "")), manifest.clone()),
        (review.replace(&row("tokio"), &row("tokio").replace("| program |", "| tests |")), manifest.clone()),
        (review.replace(project, ""), manifest.clone()),
        (review.replace(project, &project.replace("tower", "tover")), manifest.clone()),
        (review.clone(), manifest.replace("[dependencies]\n", "[dependencies]\nserde_yaml = \"1\"\n")),
        (review.clone(), manifest.replace("strsim = \"0.11\"", "strsim = { version = \"0.11\", features = [\"x\"] }")),
    ] {
        assert!(!differences(&review, &manifest).is_empty());
    }
}
