//! Variables that override keys: which they are, which key each means, and how it gets its value. This file must not know
//! what any key means.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// What every overriding variable begins with. What stands after it is the path of a key, its parts joined by `__`.
pub(super) const PREFIX: &str = "ATTACHD_";

/// The path of a key, to the variable that overrides it and its value.
pub(super) type Overrides = BTreeMap<String, (String, String)>;

/// The variables that override keys. One without `__` is not meant for us: Kubernetes sets `ATTACHD_PORT` and the like for
/// a Service of that name.
pub(super) fn overrides(variables: &BTreeMap<String, String>) -> Overrides {
    let ours = variables.iter().filter_map(|(name, value)| {
        let path = name.strip_prefix(PREFIX)?;
        path.contains("__").then(|| (path.to_lowercase().replace("__", "."), (name.clone(), value.clone())))
    });
    ours.collect()
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
