//! The reference of the configuration, made from the types that read it: what a key is for stands in the comment of its
//! field and nowhere else, so a key without one is a test that fails. It knows no key by name.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::overrides::PREFIX;
use super::sections::Config;

/// A table of the configuration.
struct Section {
    /// Its path, `auth.issuers[]` for the entries of a list.
    path: String,
    meaning: String,
    keys: Vec<Setting>,
}

/// A key of the configuration.
struct Setting {
    path: String,
    kind: String,
    /// Its default as it would be written, nothing where it is absent, or that it must be given.
    default: String,
    meaning: String,
}

/// The reference, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    for section in sections() {
        let title = match section.path.strip_suffix("[]") {
            Some(list) => format!("[[{}]]", list.replace("[]", "")),
            None => format!("[{}]", section.path.replace("[]", "")),
        };
        let _ = write!(text, "\n## `{title}`\n{}\n", section.meaning);
        if section.keys.is_empty() {
            continue;
        }
        text.push_str("\n| key | type | default | variable | meaning |\n|---|---|---|---|---|\n");
        for Setting { path, kind, default, meaning } in section.keys {
            let _ = writeln!(text, "| `{path}` | {kind} | {default} | `{}` | {meaning} |", variable(&path));
        }
    }
    text
}

const HEAD: &str = "# Configuration
<!-- Made from the code by `attachd reference configuration`. -->
`attachd serve --config FILE` reads a TOML file. Every key can be overridden by a variable of the environment, named in the
table; `0` in it stands for the number of the entry in a list. A variable's value is TOML where it is TOML (`3`, `true`,
`[\"a\"]`), else text. An unknown key or a bad value ends the start with exit code 2 and a message that names it, before any
port opens. All keys and values in question are reported at once. A variable that begins with `ATTACHD_` and overrides no key
is ignored with a warning, unless Kubernetes set it for a Service named `attachd`.

`attachd check --config FILE` looks at a configuration as `serve` would, and tries the storage. `attachd config show
--config FILE` prints what is in force, with defaults, overrides and masked secrets. Both warn of what is permitted and
dangerous, and so does the log when `serve` starts, whatever `log.filter` says.

A time is a number with a unit, or several: `250ms`, `30s`, `5m`, `1h 30m`, `7d`. A size is a number of bytes, or one with a
unit: `64KiB`, `5GiB` (powers of 1024), `5GB` (powers of 1000).
";

/// The variable that overrides the key of a path.
fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace("[]", ".0").replace('.', "__").to_uppercase())
}

/// The variables of all keys. `0` in one stands for the number of an entry in a list, and `*` at the end for any name.
pub(super) fn variables() -> Vec<String> {
    sections().into_iter().flat_map(|section| section.keys).map(|key| variable(&key.path)).collect()
}

fn sections() -> Vec<Section> {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    let mut sections = Vec::new();
    walk(&schema, "", &Value::Null, &mut sections);
    sections.retain(|section| !section.path.is_empty());
    sections
}

/// Describes a table and the tables in it. `defaults` is what stands where the table is not given.
fn walk(table: &Value, path: &str, defaults: &Value, sections: &mut Vec<Section>) {
    let at = sections.len();
    sections.push(Section { path: path.to_owned(), meaning: meaning(table), keys: Vec::new() });
    let required = |name: &str| table["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    for (name, schema) in table["properties"].as_object().into_iter().flatten() {
        let schema = present(schema);
        let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let default = defaults.get(name).or_else(|| schema.get("default")).unwrap_or(&Value::Null);
        if schema["properties"].is_object() {
            walk(&schema, &inner, default, sections);
        } else if schema["items"]["properties"].is_object() {
            let mut entry = schema["items"].clone();
            entry["description"] = format!("{} {}", text(&schema["description"]), text(&entry["description"])).into();
            entry["default"] = schema["default"].clone();
            walk(&entry, &format!("{inner}[]"), &Value::Null, sections);
        } else {
            let default =
                if required(name) && default.is_null() { "must be given".to_owned() } else { written(default) };
            let path = if schema["additionalProperties"].is_object() { format!("{inner}.*") } else { inner };
            let meaning = meaning(&schema);
            sections[at].keys.push(Setting { path, kind: kind(&schema), default, meaning });
        }
    }
}

/// What an optional value is where it is given.
fn present(schema: &Value) -> Value {
    let some = schema["anyOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null"));
    let Some(some) = some else {
        return schema.clone();
    };
    let mut some = some.clone();
    for field in ["description", "default"] {
        if let Some(said) = schema.get(field) {
            some[field] = said.clone();
        }
    }
    some
}

/// The words that a choice is between, with what each means.
fn choices(schema: &Value) -> Vec<(&str, &str)> {
    let described = schema["oneOf"].as_array().into_iter().flatten();
    let described = described.filter_map(|one| Some((one["const"].as_str()?, one["description"].as_str()?)));
    let plain = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(|one| (one, ""));
    described.chain(plain).collect()
}

/// What a value looks like, for the reader of the reference.
fn kind(schema: &Value) -> String {
    let choices = choices(schema);
    if !choices.is_empty() {
        return choices.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    }
    let kinds: Vec<_> = match &schema["type"] {
        Value::Array(all) => all.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect(),
        one => one.as_str().into_iter().collect(),
    };
    match (kinds.as_slice(), schema["format"].as_str()) {
        (["string"], Some(format)) => format.to_owned(),
        (["string"], None) => "text".to_owned(),
        (["integer"], _) => "number".to_owned(),
        (["number"], _) => "number with a fraction".to_owned(),
        (["boolean"], _) => "`true` or `false`".to_owned(),
        (["array"], _) => format!("list of {}", kind(&schema["items"])),
        (["object"], _) if schema["additionalProperties"].is_object() => kind(&schema["additionalProperties"]),
        _ => UNKNOWN.to_owned(),
    }
}

/// What the reference calls a value whose type it cannot put in words.
const UNKNOWN: &str = "?";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What a schema says of itself, in one line, with the meaning of each choice.
fn meaning(schema: &Value) -> String {
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut said = line(text(&schema["description"])).replace("[`", "`").replace("`]", "`");
    // The default has a column of its own.
    if schema.get("default").is_some_and(|default| !written(default).is_empty())
        && let Some(at) = said.find(" Default ")
    {
        let end = said[at..].find(". ").map_or(said.len(), |end| at + end + 1);
        said.replace_range(at..end, "");
    }
    for (word, means) in choices(schema).into_iter().filter(|(_, means)| !means.is_empty()) {
        let _ = write!(said, " `{word}`: {}", line(means));
    }
    said.replace('|', "\\|")
}

/// A default as it would be written in the file.
fn written(default: &Value) -> String {
    match default {
        Value::Null => String::new(),
        Value::Object(all) if all.is_empty() => String::new(),
        value => format!("`{value}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_every_section_says_what_it_is_for_and_of_which_type_it_is() {
        let sections = sections();
        assert!(sections.len() > 5, "the walk finds sections");
        for section in sections {
            assert!(!section.meaning.is_empty(), "the section {} has no comment", section.path);
            for Setting { path, kind, meaning, .. } in section.keys {
                assert!(!meaning.is_empty(), "the key {path} has no comment");
                assert!(!kind.contains(UNKNOWN), "the key {path} has a type that the reference has no words for");
            }
        }
    }

    #[test]
    fn the_variable_of_each_key_is_the_one_that_overrides_it() {
        for key in sections().into_iter().flat_map(|section| section.keys) {
            let named = [(variable(&key.path), "x".to_owned())].into();
            let overrides = super::super::overrides::overrides(&named);
            let path = key.path.replace("[]", ".0");
            assert_eq!(overrides.keys().collect::<Vec<_>>(), [&path]);
        }
    }

    #[test]
    fn defaults_types_and_choices_are_those_of_the_code() {
        let text = markdown();
        for row in [
            "| `limits.idle_timeout` | time, such as `90s` | `\"30s\"` | `ATTACHD_LIMITS__IDLE_TIMEOUT` |",
            "| `limits.max_upload_size` | bytes, such as `64MiB` | `\"5GiB\"` | `ATTACHD_LIMITS__MAX_UPLOAD_SIZE` |",
            "| `limits.max_waiting_uploads` | number | `1024` |",
            "| `attachments.on_unknown` | `reject` or `create` | `\"reject\"` |",
            "| `storage.service` | text | must be given |",
            "| `auth.issuers[].audience` | list of text | must be given | `ATTACHD_AUTH__ISSUERS__0__AUDIENCE` |",
            "| `rest.listen` | text | `\"0.0.0.0:8080\"` |",
            "| `auth.issuers[].claims.subject` | text | `\"sub\"` | `ATTACHD_AUTH__ISSUERS__0__CLAIMS__SUBJECT` |",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
    }
}
