//! Variables that override keys: which they are, which key each means, how it gets its value, and which variables look as if
//! they were meant to override a key and do not. This file must not know what any key means.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// What every overriding variable begins with. What stands after it is the path of a key, its parts joined by `__`.
pub(super) const PREFIX: &str = "ATTACHD_";

/// The path of a key, to the variable that overrides it and its value.
pub(super) type Overrides = BTreeMap<String, (String, String)>;

/// The variable that holds the token of `attachd upload` and `attachd register`.
pub(super) const TOKEN: &str = "ATTACHD_TOKEN";

/// The variables that override keys: those with `__` between the parts of a key.
pub(super) fn overrides(variables: &BTreeMap<String, String>) -> Overrides {
    let ours = variables.iter().filter_map(|(name, value)| {
        let path = name.strip_prefix(PREFIX)?;
        let is_key = path.contains("__") && !is_from_kubernetes(path, value);
        is_key.then(|| (path.to_lowercase().replace("__", "."), (name.clone(), value.clone())))
    });
    ours.collect()
}

/// The variables that begin as ours do and override nothing, each with the one that was probably meant, of those that `known`
/// lists.
pub(super) fn ignored(variables: &BTreeMap<String, String>, known: &[String]) -> Vec<(String, Option<String>)> {
    let ours = variables.iter().filter(|(name, value)| {
        let upper = name.to_uppercase();
        let overriding = name.starts_with(PREFIX) && name[PREFIX.len()..].contains("__");
        upper.starts_with(PREFIX)
            && !overriding
            && name.as_str() != TOKEN
            && !is_from_kubernetes(&upper[PREFIX.len()..], value)
    });
    ours.map(|(name, _)| (name.clone(), meant(name, known))).collect()
}

/// Whether a variable is one of those that Kubernetes and Docker set in every container for a Service whose name begins with
/// `attachd`. `name` comes without the prefix.
fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    let is_port = |three: &[&str]| {
        three[0] == "PORT"
            && !three[1].is_empty()
            && three[1].bytes().all(|byte| byte.is_ascii_digit())
            && ["TCP", "UDP", "SCTP"].contains(&three[2])
    };
    words.ends_with(&["SERVICE", "HOST"])
        || words.windows(2).any(|two| two == ["SERVICE", "PORT"])
        || words.windows(3).any(is_port)
        || words.ends_with(&["PORT"]) && value.contains("://")
}

/// The variable that was meant by one that overrides nothing: the one that differs in its underscores alone, else one that
/// is spelt almost like it.
pub(super) fn meant(name: &str, known: &[String]) -> Option<String> {
    // Numbers stand for the entries of lists, which are all 0 in what is known.
    let numbers = || name.split('_').filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()));
    let letters = |text: &str| {
        let words = text.split('_').map(|word| if numbers().any(|number| number == word) { "0" } else { word });
        words.collect::<String>().to_uppercase().trim_start_matches("ATTACHD").to_owned()
    };
    let wanted = letters(name);
    let exact = known.iter().find(|known| match known.strip_suffix('*') {
        Some(open) => wanted.len() > letters(open).len() && wanted.starts_with(&letters(open)),
        None => letters(known) == wanted,
    });
    let likeness = |known: &&String| strsim::jaro_winkler(&letters(known), &wanted);
    let near = || {
        let closed = known.iter().filter(|known| !known.ends_with('*'));
        closed.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|best| likeness(best) > 0.9)
    };
    let found = exact.or_else(near)?;
    if let Some(open) = found.strip_suffix('*') {
        return Some(format!("{open}{}", after(name, letters(open).len() + "ATTACHD".len()).to_uppercase()));
    }
    let mut numbers = numbers();
    let words = found.split('_').map(|word| if word == "0" { numbers.next().unwrap_or(word) } else { word });
    Some(words.collect::<Vec<_>>().join("_"))
}

/// What comes after so many characters that are not underscores, and the underscores that follow them.
fn after(name: &str, letters: usize) -> &str {
    let mut marks = name.char_indices().filter(|(_, c)| *c != '_').skip(letters);
    marks.next().map_or("", |(at, _)| &name[at..])
}

/// A variable's value: what is a TOML value stands for itself, anything else for its text.
pub(super) fn value(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("v = {text}")).ok().and_then(|mut table| table.remove("v"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Puts a value at a path, making the tables on the way. A number names the entry of a list, or the one after its last.
pub(super) fn set(table: &mut Table, path: &[&str], value: Value) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        return Ok(());
    };
    if rest.is_empty() {
        table.insert((*first).to_owned(), value);
        return Ok(());
    }
    let mut inner = table.entry(*first).or_insert_with(|| match rest[0].parse::<usize>() {
        Ok(_) => Value::Array(Vec::new()),
        Err(_) => Value::Table(Table::new()),
    });
    let mut rest = rest;
    if let Value::Array(list) = inner {
        let index = rest[0].parse::<usize>().map_err(|_| format!("`{}` must be a number", rest[0]))?;
        if index > list.len() {
            return Err(format!("there are {} entries before it, not {index}", list.len()));
        }
        rest = &rest[1..];
        if index == list.len() {
            list.push(if rest.is_empty() { Value::Boolean(false) } else { Value::Table(Table::new()) });
        }
        inner = &mut list[index];
        if rest.is_empty() {
            *inner = value;
            return Ok(());
        }
    }
    match inner {
        Value::Table(inner) => set(inner, rest, value),
        _ => Err(format!("`{first}` is a value and has no keys")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = [
        "ATTACHD_LIMITS__MAX_UPLOAD_SIZE",
        "ATTACHD_REST__LISTEN",
        "ATTACHD_STORAGE__OPTIONS__*",
        "ATTACHD_AUTH__ISSUERS__0__GRANTS__0__SUBJECT",
        "ATTACHD_AUTH__ISSUERS__0__AUDIENCE",
    ];

    fn ignored(name: &str, value: &str) -> Vec<(String, Option<String>)> {
        let variables = [(name.to_owned(), value.to_owned())].into();
        super::ignored(&variables, &KNOWN.map(str::to_owned))
    }

    #[test]
    fn a_variable_that_overrides_nothing_is_told_with_the_one_that_was_meant() {
        for (name, meant) in [
            ("ATTACHD_LIMITS_MAX_UPLOAD_SIZE", Some("ATTACHD_LIMITS__MAX_UPLOAD_SIZE")),
            ("ATTACHD_LIMITS_MAX_UPLAOD_SIZE", Some("ATTACHD_LIMITS__MAX_UPLOAD_SIZE")),
            ("attachd_limits__max_upload_size", Some("ATTACHD_LIMITS__MAX_UPLOAD_SIZE")),
            ("ATTACHD_REST_LISTEN", Some("ATTACHD_REST__LISTEN")),
            ("ATTACHD_STORAGE_OPTIONS_SECRET_ACCESS_KEY", Some("ATTACHD_STORAGE__OPTIONS__SECRET_ACCESS_KEY")),
            ("ATTACHD_AUTH_ISSUERS_3_AUDIENCE", Some("ATTACHD_AUTH__ISSUERS__3__AUDIENCE")),
            ("ATTACHD_AUTH_ISSUERS_1_GRANTS_0_SUBJECT", Some("ATTACHD_AUTH__ISSUERS__1__GRANTS__0__SUBJECT")),
            ("ATTACHD_WHATEVER", None),
            ("ATTACHD_", None),
        ] {
            assert_eq!(ignored(name, "1"), [(name.to_owned(), meant.map(str::to_owned))], "{name}");
        }
        assert!(ignored("ATTACHD_PORT", "8080").len() == 1);
        for name in ["ATTACHD_LIMITS__MAX_UPLOAD_SIZE", "ATTACHD_TOKEN", "ATTACHD", "PATH", "MY_ATTACHD_X"] {
            assert_eq!(ignored(name, "1"), [], "{name}");
        }
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_of_our_name_is_no_mistake() {
        for service in ["", "REST_", "ADMIN_PORT_", "_B_"] {
            for (name, value) in [
                ("SERVICE_HOST", "10.0.0.1"),
                ("SERVICE_PORT", "8080"),
                ("SERVICE_PORT_GRPC", "50051"),
                ("SERVICE_PORT_HTTP_REST", "8080"),
                ("PORT", "tcp://10.0.0.1:8080"),
                ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
                ("PORT_8080_TCP_PROTO", "tcp"),
                ("PORT_8080_TCP_PORT", "8080"),
                ("PORT_8080_TCP_ADDR", "10.0.0.1"),
                ("PORT_53_UDP", "udp://10.0.0.1:53"),
            ] {
                let name = format!("{PREFIX}{service}{name}");
                assert_eq!(ignored(&name, value), [], "{name}");
                assert!(overrides(&[(name.clone(), value.to_owned())].into()).is_empty(), "{name}");
            }
        }
    }
}
