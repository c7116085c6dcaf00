//! The rules of the house that a compiler does not keep, kept by reading `src/`. Each check is shown what it must find.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

mod graph;

/// Which modules each module may import from. Who is not here is not part of the house.
const ARROWS: [(&str, &[&str]); 33] = [
    ("main", &[]),
    ("cli", &["attachment", "auth", "config", "pb", "rest", "server", "store", "telemetry", "tls"]),
    (
        "config",
        &[
            "auth",
            "budget",
            "edge",
            "origin",
            "reads",
            "rest",
            "spelling",
            "store",
            "telemetry",
            "throttle",
            "tls",
            "units",
            "upload",
        ],
    ),
    (
        "server",
        &[
            "admin",
            "auth",
            "budget",
            "config",
            "edge",
            "error",
            "fair",
            "origin",
            "pb",
            "rate",
            "reads",
            "request",
            "rest",
            "rpc",
            "store",
            "telemetry",
            "throttle",
            "tls",
            "upload",
        ],
    ),
    ("origin", &[]),
    ("tls", &["units"]),
    ("admin", &["auth", "budget", "fair", "reads", "store", "telemetry", "upload"]),
    ("edge", &["auth", "envelope", "error", "operation", "rate", "request", "rpc", "telemetry", "units"]),
    ("rest", &["attachment", "audit", "envelope", "error", "operation", "pb", "request", "rpc", "units"]),
    ("envelope", &["auth", "error"]),
    (
        "rpc",
        &[
            "attachment",
            "audit",
            "auth",
            "error",
            "operation",
            "pb",
            "reads",
            "request",
            "rights",
            "telemetry",
            "upload",
        ],
    ),
    ("request", &["audit", "auth", "error", "operation", "origin", "telemetry"]),
    ("auth", &["error", "tls", "units"]),
    ("audit", &["auth", "error", "operation", "origin", "telemetry"]),
    ("rights", &["attachment", "auth", "error"]),
    (
        "reads",
        &[
            "attachment",
            "auth",
            "budget",
            "error",
            "fair",
            "operation",
            "pace",
            "places",
            "request",
            "rights",
            "store",
            "telemetry",
            "throttle",
        ],
    ),
    (
        "upload",
        &[
            "attachment",
            "budget",
            "error",
            "fair",
            "operation",
            "pace",
            "places",
            "rate",
            "request",
            "rights",
            "store",
            "telemetry",
            "throttle",
        ],
    ),
    ("attachment", &["error"]),
    ("operation", &["auth"]),
    ("budget", &["attachment", "error", "fair"]),
    ("store", &["attachment", "error", "fair", "spelling", "telemetry", "units"]),
    ("error", &[]),
    ("fair", &["attachment"]),
    ("pace", &[]),
    ("places", &["attachment", "error", "fair", "telemetry"]),
    ("spelling", &[]),
    ("rate", &[]),
    ("telemetry", &["attachment", "error", "operation", "rate", "tls", "units"]),
    ("throttle", &["attachment", "error", "rate", "telemetry", "units"]),
    ("units", &[]),
    ("pb", &["operation"]),
    ("fuzzing", &["auth", "reads", "rest", "rpc", "server", "store"]),
    ("lib", &[]),
];

/// Which modules may name each library. A library that is not here may be named anywhere.
const FENCES: [(&str, &[&str]); 15] = [
    ("attachd_multipart", &["rest"]),
    ("opendal", &["store"]),
    ("reqwest", &["auth", "store"]),
    ("jsonwebtoken", &["auth"]),
    ("axum", &["rest", "edge", "envelope", "admin", "server"]),
    ("tonic", &["rpc", "server", "edge/grpc", "error", "pb", "cli/remote", "cli/remote/failed", "rest/transcode/call"]),
    ("prost_reflect", &["rest"]),
    ("hyper", &["server"]),
    ("prometheus_client", &["telemetry"]),
    ("opentelemetry", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("rustls", &["tls"]),
    ("tokio_rustls", &["tls", "server"]),
    ("x509_parser", &["auth", "tls"]),
    (
        "http",
        &[
            "rest",
            "edge",
            "envelope",
            "error",
            "request",
            "rpc/whole",
            "server",
            "store/faults/wire",
            "store/objects/tries",
            "store/services",
        ],
    ),
];

/// A source file: its path below `src/` without the ending, and what it says.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    /// The module at the top that the file belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Whether it is nothing but tests.
    fn is_test(&self) -> bool {
        self.path.split('/').any(|name| name == "tests")
    }

    /// The lines that are neither comments nor within an item that is for tests only, with their numbers.
    fn code(&self) -> Vec<(usize, &str)> {
        let mut code = Vec::new();
        let mut lines = self.text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            if line.trim() == "#[cfg(test)]" {
                // rustfmt ends an item with a semicolon, or with a brace at the depth where it began.
                let depth = line.len() - line.trim_start().len();
                let at_depth = |line: &str| line.len() - line.trim_start().len() == depth;
                let _ = lines.find(|(_, line)| at_depth(line) && (line.ends_with(';') || line.trim() == "}"));
            } else if !line.trim_start().starts_with("//") {
                code.push((number + 1, line));
            }
        }
        code
    }

    /// The lines of code in which `found` finds something, as text that says where.
    fn lines(&self, found: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = self.code().into_iter().filter(|(_, line)| found(line));
        lines.map(|(number, line)| format!("src/{}.rs:{number}: {}", self.path, line.trim())).collect()
    }

    /// The modules that it imports from, other than its own.
    fn imports(&self) -> BTreeSet<String> {
        let code = self.code().into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        let mut modules = BTreeSet::new();
        for from in code.split("crate::").skip(1) {
            if let Some(group) = from.strip_prefix('{') {
                let mut depth = 1;
                let group: String = group
                    .chars()
                    .take_while(|c| {
                        depth += i32::from(*c == '{') - i32::from(*c == '}');
                        depth > 0
                    })
                    // What is inside of inner braces lies below a module that is named before them.
                    .collect();
                let mut depth = 0;
                let tops = group.split(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0
                });
                modules.extend(tops.map(|top| word(top.trim()).to_owned()));
            } else {
                modules.insert(word(from).to_owned());
            }
        }
        modules.remove(self.module());
        modules.remove("");
        modules
    }
}

/// The word that a text begins with.
fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Whether a line names a library: the word itself, as the beginning of a path or the whole of an import.
fn names(line: &str, library: &str) -> bool {
    line.match_indices(library).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + library.len()..];
        let begins = before.is_none_or(|c| !c.is_alphanumeric() && !"_:.\"".contains(c));
        begins
            && (after.starts_with("::")
                || (line.trim_start().starts_with("use ") && after.starts_with([';', ' ', ','])))
    })
}

/// Where a library is named that only other modules may name.
fn fenced(source: &Source) -> Vec<String> {
    let outside = FENCES.iter().filter(|(_, inside)| {
        !source.is_test() && !inside.contains(&source.module()) && !inside.contains(&source.path.as_str())
    });
    // A library's companions, such as hyper-util, are behind its fence.
    let is_named = |line: &str, library: &str| {
        names(line, library)
            || ["util", "body", "types", "otlp", "sdk"].iter().any(|more| names(line, &format!("{library}_{more}")))
    };
    outside.flat_map(|(library, _)| source.lines(|line| is_named(line, library))).collect()
}

/// The arrows that are not drawn.
fn strays(source: &Source) -> Vec<String> {
    if source.is_test() {
        return Vec::new();
    }
    let Some((_, known)) = ARROWS.iter().find(|(module, _)| *module == source.module()) else {
        return vec![format!("{} is not in the list of modules", source.path)];
    };
    let strays = source.imports().into_iter().filter(|import| !known.contains(&import.as_str()));
    strays.map(|import| format!("{} imports {import}", source.path)).collect()
}

/// Where the environment is read by another than the configuration. The program's own path is no setting.
fn environment(source: &Source) -> Vec<String> {
    let reads = ["env::var", "env::args", "env::home", "env::temp", "env::set_var", "option_env!", "use std::env"];
    if source.path == "config/load" {
        return Vec::new();
    }
    source.lines(|line| reads.iter().any(|read| line.contains(read)))
}

/// Where a failure becomes a panic, or something was left that is not meant to stay.
fn panics(source: &Source) -> Vec<String> {
    let words = [
        ".unwrap()",
        ".expect(",
        ".unwrap_err()",
        ".expect_err(",
        "todo!",
        "unimplemented!",
        "unreachable!",
        "dbg!",
        "panic!(",
        // They panic if they cannot write; `cli::out` does not.
        "print!(",
        "println!(",
    ];
    if source.is_test() {
        return Vec::new();
    }
    source.lines(|line| words.iter().any(|word| line.contains(word)))
}

/// Where a crate that does no input or output does some, or reads the time or the environment.
fn input_and_output(source: &Source) -> Vec<String> {
    let ways =
        ["std::fs", "std::io", "std::net", "std::process", "std::thread", "std::time", "std::env", "async ", ".await"];
    if source.is_test() {
        return Vec::new();
    }
    source.lines(|line| ways.iter().any(|way| line.contains(way)))
}

fn says_what_it_is(source: &Source) -> bool {
    source.text.starts_with("//! ")
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All of `src/`.
fn sources() -> Vec<Source> {
    sources_below(&repository().join("src"))
}

/// The sources of each crate below `crates/`, with the name of the crate.
fn crates() -> Vec<(&'static str, Vec<Source>)> {
    let sources = |name| sources_below(&repository().join("crates").join(name).join("src"));
    ["bench", "multipart"].into_iter().map(|name| (name, sources(name))).collect()
}

/// All that is in a folder of sources.
fn sources_below(root: &Path) -> Vec<Source> {
    fn below(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, all);
            } else if path.extension().is_none_or(|extension| extension != "html") {
                all.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    below(root, &mut paths);
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root).unwrap().with_extension("");
        Source { path: name.to_str().unwrap().to_owned(), text: fs::read_to_string(path).unwrap() }
    };
    paths.iter().map(read).collect()
}

fn all_findings(check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    sources().iter().flat_map(check).collect()
}

#[test]
fn libraries_stay_behind_their_fences() {
    assert_eq!(all_findings(fenced), [""; 0]);
}

#[test]
fn modules_import_only_what_the_arrows_say() {
    assert_eq!(all_findings(strays), [""; 0]);
}

#[test]
fn only_the_configuration_reads_the_environment() {
    assert_eq!(all_findings(environment), [""; 0]);
}

#[test]
fn no_failure_becomes_a_panic() {
    assert_eq!(all_findings(panics), [""; 0]);
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let sources: Vec<_> = sources().into_iter().chain(crates().into_iter().flat_map(|(_, sources)| sources)).collect();
    let mute: Vec<_> = sources.iter().filter(|source| !says_what_it_is(source)).map(|source| &source.path).collect();
    assert_eq!(mute, [""; 0]);
}

#[test]
fn the_parser_turns_no_failure_into_a_panic_and_does_no_io() {
    let (_, sources) = crates().into_iter().find(|(name, _)| *name == "multipart").unwrap();
    assert_eq!(sources.iter().flat_map(panics).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(sources.iter().flat_map(input_and_output).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_list_of_crates_is_complete_and_none_is_without_sources() {
    let folders = fs::read_dir(repository().join("crates")).unwrap();
    let folders: BTreeSet<_> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let listed: BTreeSet<_> = crates().into_iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(listed, folders);
    assert!(crates().iter().all(|(_, sources)| !sources.is_empty()));
}

/// The dependencies that a manifest names, of every kind.
fn dependencies(manifest: &str) -> Vec<&str> {
    let sections = manifest
        .split("\n[")
        .filter(|section| section.lines().next().is_some_and(|head| head.ends_with("dependencies]")));
    let lines = sections.flat_map(|section| section.lines().skip(1));
    lines
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with('#'))
        .collect()
}

#[test]
fn what_only_benchmarks_need_is_no_dependency_of_the_service() {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let named = dependencies(&manifest);
    assert!(named.contains(&"tonic") && named.contains(&"tempfile"), "{named:?}");
    let strangers = ["attachd-bench", "criterion", "multer"];
    assert_eq!(named.into_iter().filter(|name| strangers.contains(name)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_library_names_the_modules_that_there_are_and_each_has_its_arrows() {
    let lib = fs::read_to_string(repository().join("src/lib.rs")).unwrap();
    let named: BTreeSet<_> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod ")))
        .map(|name| name.trim_end_matches(';').to_owned())
        .collect();
    let sources = sources();
    let files: BTreeSet<_> = sources
        .iter()
        .map(|source| source.module().to_owned())
        .filter(|name| name != "lib" && name != "main")
        .collect();
    assert_eq!(named, files);
    let drawn: BTreeSet<_> = ARROWS.iter().map(|(module, _)| *module).filter(|m| *m != "lib" && *m != "main").collect();
    assert_eq!(drawn, files.iter().map(String::as_str).collect());
}

/// The beginnings of paths that exist on one machine only. They are put together here so that this file does not have them.
fn machine_paths() -> Vec<String> {
    ["tmp", "root", "home", "work", "Users", "mnt"].iter().map(|folder| format!("/{folder}/")).collect()
}

fn names_a_machine(text: &str) -> bool {
    let begins =
        |at: usize| text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"._-/}~$".contains(c));
    machine_paths().iter().any(|path| text.match_indices(path.as_str()).any(|(at, _)| begins(at)))
}

#[test]
fn no_file_of_the_repository_names_a_path_of_one_machine() {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .expect("git can be run");
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<_> = listed.split('\0').filter(|name| !name.is_empty()).collect();
    assert!(files.contains(&"Cargo.toml"), "{files:?}");
    let found: Vec<_> = files
        .iter()
        // What is deleted and not yet committed is listed as well.
        .filter_map(|name| Some((name, fs::read(repository().join(name)).ok()?)))
        .filter(|(_, bytes)| names_a_machine(&String::from_utf8_lossy(bytes)))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(found, [&""; 0]);
}

mod checks_that_are_shown_what_they_must_find {
    use super::*;

    #[test]
    fn a_library_outside_of_its_fence() {
        for (path, text) in [
            ("upload", "use opendal::Operator;"),
            ("rest", "fn read() -> opendal::Result<()> {}"),
            ("cli/token", "use jsonwebtoken::{Header, encode};"),
            ("rpc", "use axum::Router;"),
            ("upload", "use axum;"),
            ("upload", "use tonic::Status;"),
            ("upload", "let status = http::StatusCode::OK;"),
            ("store/local", "use http::StatusCode;"),
            ("budget", "use hyper::Request;"),
            ("attachment", "use hyper_util::rt;"),
            ("store", "use tonic_types::StatusExt;"),
            ("upload", "use prometheus_client::metrics::counter::Counter;"),
            ("server", "use opentelemetry_sdk::trace::SdkTracerProvider;"),
            ("attachment", "    pub fn status(&self) -> Option<tonic::Status> {"),
            ("cli/dev", "use tonic::Request;"),
            ("rpc", "use attachd_multipart::Parser;"),
            ("rpc", "use prost_reflect::DynamicMessage;"),
            ("rest/transcode", "use tonic::Status;"),
        ] {
            assert_eq!(fenced(&Source::new(path, text)).len(), 1, "{text} in {path}");
        }
        for (path, text) in [
            ("store/local", "use opendal::Operator;"),
            ("cli/remote", "use tonic::Request;"),
            ("upload", "// use axum::Router;"),
            ("upload", "let url = \"http://example\";"),
            ("upload", "use tower_http::catch_panic;"),
            ("upload", "#[cfg(test)]\nmod tests {\n    use axum::Router;\n}\n"),
        ] {
            assert_eq!(fenced(&Source::new(path, text)), [""; 0], "{text} in {path}");
        }
    }

    #[test]
    fn an_arrow_that_is_not_drawn() {
        for (path, text) in [
            ("store", "use crate::upload::Uploads;"),
            ("store/local", "use crate::rest;"),
            ("upload", "use crate::rpc::Attachments;"),
            ("upload", "use crate::{\n    error,\n    rest,\n};"),
            ("auth/keys", "use crate::{error::{Error, Kind}, store};"),
            ("auth", "fn f() { crate::config::nearest() }"),
            ("error", "use crate::auth;"),
            ("surprise", ""),
        ] {
            assert_eq!(strays(&Source::new(path, text)).len(), 1, "{text} in {path}");
        }
        for (path, text) in [
            ("store/local", "use crate::store::OpenError;"),
            ("rights", "use crate::{auth::{Principal, Scope}, error::Result};"),
            ("error", "/// See [`crate::auth`]."),
        ] {
            assert_eq!(strays(&Source::new(path, text)), [""; 0], "{text} in {path}");
        }
    }

    #[test]
    fn a_reader_of_the_environment() {
        for text in ["std::env::var(\"HOME\")", "env::vars().collect()", "use std::env::{self};", "env::var_os(NAME)"] {
            assert_eq!(environment(&Source::new("server", text)).len(), 1, "{text}");
        }
        assert_eq!(environment(&Source::new("config/load", "std::env::vars()")), [""; 0]);
        assert_eq!(environment(&Source::new("cli/dev", "std::env::current_exe()?")), [""; 0]);
    }

    #[test]
    fn a_panic_outside_of_tests_wherever_the_tests_stand() {
        let after =
            "#[cfg(test)]\nmod tests {\n    fn f() {\n        x.unwrap();\n    }\n}\n\nfn g() {\n    x.unwrap();\n}\n";
        assert_eq!(panics(&Source::new("a", after)), ["src/a.rs:9: x.unwrap();"]);
        let between = "#[cfg(test)]\nmod tests;\nfn g() { x.expect(\"y\") }\n";
        assert_eq!(panics(&Source::new("a", between)).len(), 1);
        let within = "impl A {\n    #[cfg(test)]\n    fn f() {\n        x.unwrap();\n    }\n    fn g() {\n        todo!()\n    }\n}\n";
        assert_eq!(panics(&Source::new("a", within)), ["src/a.rs:7: todo!()"]);
        for text in ["x.unwrap()", "x.expect(\"y\")", "todo!()", "dbg!(x)", "unreachable!()", "panic!(\"y\")"] {
            assert_eq!(panics(&Source::new("a", text)).len(), 1, "{text}");
        }
        for text in ["x.unwrap_or(1)", "x.unwrap_or_default()", "// x.unwrap()", "self.expect_field()"] {
            assert_eq!(panics(&Source::new("a", text)), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_dependency_of_every_kind() {
        let manifest = "[package]\nname = \"a\"\n\n[dependencies]\n# multer = \"1\"\nb = \"1\"\n\n[dev-dependencies]\nmulter = \"3\"\n\n[lints]\nc = 1\n";
        assert_eq!(dependencies(manifest), ["b", "multer"]);
    }

    #[test]
    fn a_crate_that_does_input_or_output() {
        for text in ["use std::net::TcpStream;", "let file = std::fs::File::open(path)?;", "pub async fn next() {}"] {
            assert_eq!(input_and_output(&Source::new("lib", text)).len(), 1, "{text}");
        }
        for text in ["use std::mem;", "//! A file of `std::fs`.", "#[cfg(test)]\nuse std::fs;"] {
            assert_eq!(input_and_output(&Source::new("lib", text)), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_file_that_does_not_say_what_it_is() {
        assert!(!says_what_it_is(&Source::new("a", "use std::io;\n//! Late.\n")));
        assert!(!says_what_it_is(&Source::new("a", "//!\n")));
        assert!(says_what_it_is(&Source::new("a", "//! A file.\n")));
    }

    #[test]
    fn a_path_of_one_machine() {
        for path in machine_paths() {
            assert!(names_a_machine(&format!("see {path}x")), "{path}");
            assert!(names_a_machine(&format!("\"{path}x\"")), "{path}");
        }
        assert!(!names_a_machine("target/root/x, ./tmp/x and ${dir}/work/x"));
    }
}
