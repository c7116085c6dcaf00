//! What the documentation says of the program is what the program says of itself.

use std::fs;
use std::path::Path;

use crate::harness::{Setup, run};

/// Looks that a document is what the program prints.
fn assert_current(document: &str, command: &[&str]) {
    let printed = run(command);
    assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    let stands = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap_or_default();
    assert!(
        stands.as_bytes() == printed.stdout,
        "{document} is not what this version says. Make it anew: cargo run -- {} > {document}",
        command.join(" ")
    );
}

#[test]
fn the_reference_of_the_configuration_is_that_of_this_version() {
    assert_current("docs/configuration.md", &["reference", "configuration"]);
}

#[test]
fn the_reference_of_the_metrics_is_that_of_this_version() {
    assert_current("docs/metrics.md", &["reference", "metrics"]);
}

#[test]
fn the_description_of_the_rest_port_is_that_of_this_version() {
    assert_current("docs/reference/openapi.json", &["openapi"]);
}

#[test]
fn what_is_in_force_is_shown_without_secrets_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let config = Setup::default().write(folder.path());
    let shown = run(&["config", "show", "--config", config.to_str().unwrap()]);
    assert!(shown.status.success(), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    for line in ["max_upload_size = \"8MiB\"", "idle_timeout = \"30s\"", "on_unknown = \"create\"", "[limits]"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // The secret is in a file of its own, and stays there.
    assert!(!text.contains(crate::harness::SECRET), "{text}");
    let again = folder.path().join("shown.toml");
    fs::write(&again, &text).unwrap();
    let again = run(&["config", "show", "--config", again.to_str().unwrap()]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text);
}

#[test]
fn what_is_dangerous_is_warned_of_by_every_command_that_looks_at_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = Setup::default().write(folder.path());
    let config = config.to_str().unwrap();
    for command in [&["config", "show", "--config", config][..], &["check", "--config", config]] {
        let outcome = run(command);
        assert!(outcome.status.success(), "{outcome:?}");
        let said = String::from_utf8(outcome.stderr).unwrap();
        assert!(said.contains("warning: attachments.on_unknown: "), "{command:?}: {said}");
        assert!(!said.contains("rest.listen"), "{command:?}: {said}");
    }
    let server = Setup::default().start();
    let warned = server.log().iter().any(|line| line.contains("\"WARN\"") && line.contains("attachments.on_unknown"));
    assert!(warned, "{:#?}", server.log());
}

#[test]
fn the_tests_that_the_threat_model_names_are_there() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    let mut folders = vec![repository.join("src"), repository.join("tests/it")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let model = fs::read_to_string(repository.join("SECURITY.md")).unwrap();
    let quoted = model.split('`').skip(1).step_by(2);
    // A path of a test or of a module of tests, as `cargo test` takes it.
    let named: Vec<_> = quoted.filter(|name| name.contains("::") && !name.contains(' ')).collect();
    assert!(named.len() > 20, "{named:?}");
    let is_there = |name: &str| {
        let last = name.rsplit("::").next().unwrap_or_default();
        last.is_empty() || sources.contains(&format!("fn {last}(")) || sources.contains(&format!("mod {last}"))
    };
    let missing: Vec<_> = named.into_iter().filter(|name| !is_there(name)).collect();
    assert_eq!(missing, [""; 0]);
}
