//! Which events the log has: how the filter is written, and what is said of one that would silently leave out what it was
//! meant to show. The library takes any word for the name of a library whose events are wanted, and then shows no others.

use tracing::Level;
use tracing::subscriber::with_default;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry};

/// The levels, from none to all.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The name of this program in the targets of its events.
const OURS: &str = "attachd";

/// What may follow it: the modules of the library.
const MODULES: [&str; 30] = [
    "cli",
    "config",
    "server",
    "origin",
    "tls",
    "admin",
    "edge",
    "rest",
    "envelope",
    "rpc",
    "request",
    "audit",
    "auth",
    "reads",
    "rights",
    "upload",
    "attachment",
    "budget",
    "operation",
    "store",
    "error",
    "fair",
    "pace",
    "places",
    "rate",
    "spelling",
    "telemetry",
    "throttle",
    "units",
    "pb",
];

/// Reads a filter: a level, or levels for targets, between commas. Where `info` or `warn` is asked for, libraries have their
/// errors alone: they warn of what anybody can send them, as often as it is sent.
pub(super) fn parse(text: &str) -> Result<EnvFilter, String> {
    let directives = || text.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    if directives().next().is_none() {
        return Err(format!("the filter is empty; write a level: {}", LEVELS.join(", ")));
    }
    directives().try_for_each(directive)?;
    let of_all = |level: &str| match level.to_lowercase().as_str() {
        "info" | "3" | "warn" | "2" => format!("error,{OURS}={level}"),
        _ => level.to_owned(),
    };
    // What is asked of ours by name comes after what is asked of all, and holds.
    let (named, all): (Vec<_>, Vec<_>) = directives().partition(|directive| directive.contains('='));
    all.into_iter()
        .map(of_all)
        .chain(named.into_iter().map(str::to_owned))
        .collect::<Vec<_>>()
        .join(",")
        .parse()
        .map_err(|error| format!("`{text}` is not a filter such as `info,attachd=debug`: {error}"))
}

/// Whether a filter shows the audit trail.
pub(super) fn shows_audit(filter: EnvFilter) -> bool {
    with_default(Registry::default().with(filter), || tracing::enabled!(target: "attachd::audit", Level::INFO))
}

fn directive(text: &str) -> Result<(), String> {
    let Some((target, level)) = text.split_once('=') else {
        return match (is_level(text), text.split("::").next()) {
            (true, _) => Ok(()),
            (false, Some(OURS)) => target(text).and(Err(format!("`{text}` has no level; write `{text}=info`"))),
            (false, _) => Err(format!("`{text}` is not a level{}; {}", meant(text, &LEVELS), usage())),
        };
    };
    if !target.chars().all(|c| c.is_alphanumeric() || "_:-".contains(c)) {
        return Err(format!("`{target}` is not the path of a module; {}, with commas between", usage()));
    }
    if !is_level(level) {
        return Err(format!("`{level}` in `{text}` is not a level{}; {}", meant(level, &LEVELS), usage()));
    }
    self::target(target)
}

fn usage() -> String {
    format!("write one of {}, or one for a target, such as `info,attachd=debug`", LEVELS.join(", "))
}

/// As the library reads it: a word in any case, or its number.
fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text)) || matches!(text.as_bytes(), [b'0'..=b'5'])
}

/// Refuses a target that was meant to be one of ours and is none.
fn target(text: &str) -> Result<(), String> {
    let mut parts = text.split("::");
    let first = parts.next().unwrap_or_default();
    if first != OURS {
        return match strsim::jaro_winkler(&first.to_lowercase(), OURS) > 0.85 {
            true => Err(format!("there are no events of `{first}`; did you mean `{OURS}`?")),
            false => Ok(()),
        };
    }
    match parts.next() {
        Some(module) if !MODULES.contains(&module) => {
            Err(format!("there are no events of `{OURS}::{module}`{}", meant(module, &MODULES)))
        }
        _ => Ok(()),
    }
}

/// The known word that is nearest to another, for the middle of a sentence; nothing if none is near.
fn meant(text: &str, known: &[&str]) -> String {
    let text = text.to_lowercase();
    let likeness = |word: &&&str| strsim::jaro_winkler(word, &text);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|best| likeness(best) > 0.8);
    best.map(|best| format!(" (did you mean `{best}`?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_would_show_less_than_it_says_is_refused() {
        for (filter, words) in [
            ("", "the filter is empty; write a level"),
            (" , ", "the filter is empty; write a level"),
            ("verbose", "`verbose` is not a level; write one of off, error, warn"),
            ("warning", "`warning` is not a level (did you mean `warn`?)"),
            ("inof", "(did you mean `info`?)"),
            ("info,attachd::audti=info", "no events of `attachd::audti` (did you mean `audit`?)"),
            ("info,atachd=debug", "no events of `atachd`; did you mean `attachd`?"),
            ("info,Attachd::audit=info", "did you mean `attachd`?"),
            ("attachd::audit", "`attachd::audit` has no level; write `attachd::audit=info`"),
            ("attachd::audti", "no events of `attachd::audti`"),
            ("attachd", "`attachd` has no level"),
            ("hyper", "`hyper` is not a level"),
            ("attachd::audit=verbose", "`verbose` in `attachd::audit=verbose` is not a level"),
            ("attachd=", "`` in `attachd=` is not a level"),
            ("a=b=c", "is not a level"),
            ("attachd[request]=info", "`attachd[request]` is not the path of a module"),
            ("info;attachd=debug", "with commas between"),
        ] {
            let said = parse(filter).unwrap_err();
            assert!(said.contains(words), "{filter}: {said}");
        }
        for filter in ["info", "INFO", "off", "3", "info,", "warn,attachd=info", "warn, attachd::audit=info,h2=debug"] {
            assert!(parse(filter).is_ok(), "{filter}: {:?}", parse(filter).err());
        }
    }

    #[test]
    fn libraries_warn_only_if_they_are_asked_to() {
        for (filter, ours, theirs) in [
            ("info", true, false),
            ("warn", true, false),
            ("INFO", true, false),
            ("3", true, false),
            ("error", false, false),
            ("debug", true, true),
            ("info,h2=warn", true, true),
            ("warn,attachd=error", false, false),
            ("attachd=error,warn", false, false),
        ] {
            let said = with_default(Registry::default().with(parse(filter).unwrap()), || {
                let ours = tracing::enabled!(target: "attachd::server", Level::WARN);
                (
                    ours,
                    tracing::enabled!(target: "h2::proto", Level::WARN),
                    tracing::enabled!(target: "h2", Level::ERROR),
                )
            });
            assert_eq!(said, (ours, theirs, true), "{filter}");
        }
    }

    #[test]
    fn it_is_known_whether_a_filter_shows_the_audit_trail() {
        for (filter, shown) in [
            ("info", true),
            ("debug", true),
            ("warn,attachd=info", true),
            ("off,attachd::audit=info", true),
            ("attachd::audit=trace", true),
            ("warn", false),
            ("off", false),
            ("error", false),
            ("hyper=info", false),
            ("info,attachd=warn", false),
            ("info,attachd::audit=off", false),
            ("debug,attachd::audit=warn", false),
        ] {
            assert_eq!(shows_audit(parse(filter).unwrap()), shown, "{filter}");
        }
    }

    #[test]
    fn every_module_of_the_library_may_be_a_target() {
        let named =
            include_str!("../lib.rs").lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
        // The module for the fuzz targets is in no program.
        let named: Vec<_> = named.map(|name| name.trim_end_matches(';')).filter(|name| *name != "fuzzing").collect();
        assert_eq!(named, MODULES);
    }
}
