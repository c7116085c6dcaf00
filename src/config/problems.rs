//! What is wrong with a configuration, in words: the key, what was given, and what to write instead. The library that reads
//! values stops at the first problem; here the value in question is left out and reading goes on, so that an operator
//! learns of all of them at once. This file must not know what any key means.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use toml::{Table, Value};

use super::overrides::{Overrides, meant};
use crate::spelling::nearest;

/// What is wrong with a configuration, and where.
#[derive(Debug)]
pub struct Error {
    file: Option<PathBuf>,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Problem {
    key: Option<String>,
    why: String,
}

impl Error {
    /// One problem that belongs to no key.
    pub(super) fn new(why: impl ToString) -> Error {
        Error { file: None, problems: vec![Problem { key: None, why: why.to_string() }] }
    }

    /// The file that the problems are in.
    pub(super) fn within(self, file: &Path) -> Error {
        Error { file: Some(file.to_owned()), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let [problem] = self.problems.as_slice() {
            return problem.fmt(f);
        }
        write!(f, "{} problems", self.problems.len())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(self.why.trim_end())
    }
}

impl std::error::Error for Error {}

/// The problems found so far, and the paths of the values that were left out because of them.
pub(super) struct Problems<'a> {
    overrides: &'a Overrides,
    /// The names of all variables that override keys.
    variables: Vec<String>,
    found: Vec<Problem>,
    left_out: Vec<String>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(overrides: &'a Overrides, variables: Vec<String>) -> Problems<'a> {
        Problems { overrides, variables, found: Vec::new(), left_out: Vec::new() }
    }

    /// Whether nothing is wrong with a key, with those below it, or with the table that it is in.
    pub(super) fn none_at(&self, key: &str) -> bool {
        let is_in = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        !self.left_out.iter().any(|left| is_in(left, key) || is_in(key, left))
    }

    /// Adds what is wrong with a key, unless something else is already.
    pub(super) fn add(&mut self, key: &str, why: &str) {
        if !self.none_at(key) {
            return;
        }
        self.left_out.push(key.to_owned());
        // An entry of a list is `[0]` in a path and `0` in a variable. And a section that does not exist may have come from
        // a variable that names a key in it.
        let plain = key.replace('[', ".").replace(']', "");
        let unknown = why.starts_with("unknown key");
        let below = |rest: &str| rest.is_empty() || (unknown && rest.starts_with('.'));
        let variable = self.overrides.iter().find(|(key, _)| key.strip_prefix(&plain).is_some_and(below));
        let Some((_, (variable, _))) = variable else {
            self.found.push(Problem { key: Some(key.to_owned()).filter(|key| key != "."), why: why.to_owned() });
            return;
        };
        let why = match meant(variable, &self.variables).filter(|_| unknown) {
            Some(meant) if meant != *variable => format!("{why} If the variable is at fault, write {meant}"),
            _ => why.to_owned(),
        };
        self.found.push(Problem { key: Some(format!("{key} (from {variable})")), why });
    }

    /// Reads a table. A value that cannot be read is left out of it, and becomes a problem; `None` if reading cannot go on.
    pub(super) fn read<T: DeserializeOwned>(&mut self, table: Table) -> Option<T> {
        let mut value = Value::Table(table);
        loop {
            let error = match serde_path_to_error::deserialize::<_, T>(value.clone()) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let (path, message) = (error.path().to_string(), error.inner().to_string());
            let message = message.lines().next().unwrap_or_default();
            if let Some(missing) = message.strip_prefix("missing field ") {
                let missing = missing.trim_matches('`');
                let key = if path == "." { missing.to_owned() } else { format!("{path}.{missing}") };
                self.add(&key, "is missing, and has no default");
                return None;
            }
            let segments: Vec<&Segment> = error.path().iter().collect();
            self.add(&path, &explain(message, at(&value, &segments)));
            if !leave_out(&mut value, &segments) {
                return None;
            }
        }
    }

    /// What was found, if anything was.
    pub(super) fn check(self) -> Result<(), Error> {
        if self.found.is_empty() { Ok(()) } else { Err(Error { file: None, problems: self.found }) }
    }
}

/// The value at a path.
fn at<'a>(value: &'a Value, path: &[&Segment]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(*index),
        _ => None,
    })
}

/// Takes the value at a path out of its table. An entry of a list stays, since those after it would change their numbers.
fn leave_out(value: &mut Value, path: &[&Segment]) -> bool {
    match (value, path) {
        (Value::Table(table), [Segment::Map { key }]) => table.remove(key).is_some(),
        (Value::Table(table), [Segment::Map { key }, rest @ ..]) => {
            table.get_mut(key).is_some_and(|inner| leave_out(inner, rest))
        }
        (Value::Array(list), [Segment::Seq { index }, rest @ ..]) => {
            list.get_mut(*index).is_some_and(|inner| leave_out(inner, rest))
        }
        _ => false,
    }
}

/// Turns the reading library's words into what was given and what to write instead.
fn explain(message: &str, given: Option<&Value>) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let unknown = quoted.next().unwrap_or_default();
        return format!("unknown key `{unknown}`; {}", nearest(unknown, quoted));
    }
    if message.starts_with("unknown variant") {
        let unknown = quoted.next().unwrap_or_default();
        let known: Vec<_> = quoted.map(|one| format!("\"{one}\"")).collect();
        return format!("{unknown:?} is not one of the permitted values; write {}", known.join(" or "));
    }
    match (message.starts_with("invalid "), message.rsplit_once("expected "), given) {
        (true, Some((_, expected)), Some(given)) => mend(given, expected),
        _ => message.to_owned(),
    }
}

/// What to write instead of a value of another type.
fn mend(given: &Value, expected: &str) -> String {
    match (expected, given) {
        ("a sequence", Value::Table(_)) => {
            "a table is given where a list of tables is needed; write its name in double \
                                            brackets, such as [[auth.issuers]]"
                .to_owned()
        }
        ("a sequence", _) => format!("{given} is not a list; write [{given}]"),
        ("a boolean", _) => format!("{given} is not true or false; write true or false, without quotes"),
        ("usize" | "u8" | "u16" | "u32" | "u64" | "i64", given) => match given.as_str().and_then(whole) {
            Some(number) => format!("{given} is text; write {number}, without quotes"),
            None => format!("{given} is not a whole number of 0 or more; write one such as 1024"),
        },
        ("f64" | "f32", given) => format!("{given} is not a number; write one such as 0.5"),
        (text, Value::Array(list)) if text.contains("string") && list.len() == 1 => {
            format!("{given} is a list; write its value without brackets: {}", list[0])
        }
        (text, Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_))
            if text.contains("string") =>
        {
            format!("{given} is not text; write \"{given}\"")
        }
        (text, _) if text.contains("string") => format!("{given} is not text; write one value in quotes"),
        (table, _) if table.starts_with("struct ") || table == "a map" => {
            format!("{given} is given where a table is needed; write its keys, each with a value of its own")
        }
        (other, _) => format!("{given} is not permitted; {other} is needed"),
    }
}

fn whole(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}
