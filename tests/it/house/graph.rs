//! The graph of imports of `src/` and of each crate, read from its text: which file names something of which other file. Tests are left out.
//! Each rule is shown what it must find.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Source, crates, sources};

/// Modules that may have a cycle within them, and why.
const EXCEPTIONS: [(&str, &str); 1] = [("store", "its parts are divided anew")];

/// Which node names something of which other node. A node is a file, as a path below `src/` without the ending.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// A piece of code, as far as paths need it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    PathSeparator,
    Other(char),
}

/// Splits code into tokens. Comments are left out, and so are strings, except those that are a path, as in
/// `#[serde(with = "super::time")]`.
fn tokens(code: &str) -> Vec<Token> {
    let chars: Vec<char> = code.chars().collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        if c == '/' && next == Some('/') {
            at += chars[at..].iter().take_while(|c| **c != '\n').count();
        } else if c == '/' && next == Some('*') {
            let end = chars[at..].windows(2).position(|pair| pair == ['*', '/']);
            at += end.map_or(chars.len(), |end| end + 2);
        } else if let Some((text, length)) = string(&chars[at..]) {
            if text.contains("::") && text.chars().all(|c| is_word(c) || c == ':') {
                tokens.extend(self::tokens(&text));
                tokens.push(Token::Other('"'));
            }
            at += length;
        } else if c == '\'' {
            // A character, or the name of a lifetime.
            let length = if next == Some('\\') {
                chars[at + 3..].iter().position(|c| *c == '\'').map(|at| at + 4)
            } else {
                Some(3)
            };
            let is_char = next == Some('\\') || chars.get(at + 2) == Some(&'\'');
            at += if is_char { length.unwrap_or(1) } else { 1 };
        } else if is_word(c) {
            let word: String = chars[at..].iter().take_while(|c| is_word(**c)).collect();
            at += word.chars().count();
            tokens.push(Token::Word(word));
        } else if c == ':' && next == Some(':') {
            tokens.push(Token::PathSeparator);
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(Token::Other(c));
            }
            at += 1;
        }
    }
    tokens
}

/// The string literal that a text begins with, and its length in the text.
fn string(chars: &[char]) -> Option<(String, usize)> {
    let prefix = chars.iter().take_while(|c| matches!(c, 'b' | 'c' | 'r')).count();
    let hashes = chars[prefix..].iter().take_while(|c| **c == '#').count();
    let is_raw = chars[..prefix].contains(&'r');
    if prefix > 2 || chars.get(prefix + hashes) != Some(&'"') || (hashes > 0 && !is_raw) {
        return None;
    }
    let begin = prefix + hashes + 1;
    let mut end = begin;
    loop {
        match chars.get(end)? {
            '\\' if !is_raw => end += 2,
            '"' if chars[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes => break,
            _ => end += 1,
        }
    }
    Some((chars[begin..end].iter().collect(), end + 1 + hashes))
}

/// All paths that the tokens name, each as its words. Those of an import are named from the file's own module, with what they
/// are renamed to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    imports: Vec<(Vec<String>, String)>,
    paths: Vec<Vec<String>>,
}

fn named(tokens: &[Token]) -> Named {
    let mut named = Named::default();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            Token::Word(word) if word == "use" => {
                at += 1;
                tree(tokens, &mut at, &[], &mut named.imports);
            }
            // `pub(in crate::x)` says who may see, and imports nothing.
            Token::Word(word) if word == "in" && at > 0 && tokens[at - 1] == Token::Other('(') => {
                at += 1;
                path(tokens, &mut at);
            }
            Token::Word(_) => {
                let path = path(tokens, &mut at);
                if path.len() > 1 {
                    named.paths.push(path);
                }
            }
            _ => {
                at += 1;
                // What follows a separator that follows no word is below a type, or of the outside.
                if tokens[at - 1] == Token::PathSeparator {
                    path(tokens, &mut at);
                }
            }
        }
    }
    named
}

/// Reads words between separators, and stops after the last word.
fn path(tokens: &[Token], at: &mut usize) -> Vec<String> {
    let mut path = Vec::new();
    while let Some(Token::Word(word)) = tokens.get(*at) {
        path.push(word.clone());
        *at += 1;
        if tokens.get(*at) != Some(&Token::PathSeparator) || !matches!(tokens.get(*at + 1), Some(Token::Word(_))) {
            break;
        }
        *at += 1;
    }
    path
}

/// Reads one tree of an import.
fn tree(tokens: &[Token], at: &mut usize, above: &[String], imports: &mut Vec<(Vec<String>, String)>) {
    let path = [above, &path(tokens, at)].concat();
    if tokens.get(*at) == Some(&Token::PathSeparator) {
        *at += 1;
    }
    match tokens.get(*at) {
        Some(Token::Other('{')) => {
            *at += 1;
            while tokens.get(*at).is_some_and(|token| *token != Token::Other('}')) {
                tree(tokens, at, &path, imports);
                if tokens.get(*at) == Some(&Token::Other(',')) {
                    *at += 1;
                }
            }
            *at += 1;
        }
        Some(Token::Other('*')) => {
            *at += 1;
            imports.push((path, String::new()));
        }
        _ => {
            let mut path = path;
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            // A rename: `as` is a word of its own after the path.
            let mut name = path.last().cloned().unwrap_or_default();
            if tokens.get(*at) == Some(&Token::Word("as".to_owned())) {
                *at += 1;
                name = match tokens.get(*at) {
                    Some(Token::Word(name)) => name.clone(),
                    _ => String::new(),
                };
                *at += 1;
            }
            imports.push((path, name));
            // Whatever this is, the reader must go on.
            if !matches!(tokens.get(*at), None | Some(Token::Other(',' | '}' | ';'))) {
                *at += 1;
            }
        }
    }
}

/// The words of a file's module. The root is nothing.
fn module(file: &str) -> Vec<String> {
    if file == "lib" { Vec::new() } else { file.split('/').map(str::to_owned).collect() }
}

/// The file that a path leads to from a module, as deep as there are files. None where it leads outside of `src/`.
fn leads_to(
    path: &[String],
    from: &[String],
    aliases: &BTreeMap<String, String>,
    files: &BTreeSet<String>,
) -> Option<String> {
    let (first, mut rest) = path.split_first()?;
    let below = |module: &[String], word: &String| [module, std::slice::from_ref(word)].concat().join("/");
    let mut reached = match first.as_str() {
        "crate" => Vec::new(),
        "self" => from.to_vec(),
        "super" => from[..from.len().checked_sub(1)?].to_vec(),
        _ if files.contains(&below(from, first)) && first != "main" => module(&below(from, first)),
        _ => module(aliases.get(first)?),
    };
    while let Some((word, after)) = rest.split_first() {
        if word == "super" {
            reached.pop();
        } else if files.contains(&below(&reached, word)) {
            reached.push(word.clone());
        } else {
            break;
        }
        rest = after;
    }
    Some(if reached.is_empty() { "lib".to_owned() } else { reached.join("/") })
}

/// The graph between the files.
fn graph(sources: &[Source]) -> Graph {
    let files: BTreeSet<_> =
        sources.iter().filter(|source| !source.is_test()).map(|source| source.path.clone()).collect();
    let reads = |source: &Source| {
        let code = source.code().into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        let named = named(&tokens(&code));
        let from = module(&source.path);
        let mut aliases = BTreeMap::new();
        let mut found = BTreeSet::new();
        for (path, name) in &named.imports {
            if let Some(file) = leads_to(path, &from, &aliases, &files) {
                // A module that is imported by name: paths may begin with the name.
                if file.rsplit('/').next() == path.last().map(String::as_str) {
                    aliases.insert(name.clone(), file.clone());
                }
                found.insert(file);
            }
        }
        found.extend(named.paths.iter().filter_map(|path| leads_to(path, &from, &aliases, &files)));
        found.remove(&source.path);
        found
    };
    sources.iter().filter(|source| !source.is_test()).map(|source| (source.path.clone(), reads(source))).collect()
}

/// The graph between the modules that lie directly below `parent`, each with all that lies below it.
fn among(graph: &Graph, parent: &str) -> Graph {
    let node = |file: &str| {
        let below = if parent.is_empty() { file } else { file.strip_prefix(parent)?.strip_prefix('/')? };
        let name = below.split('/').next()?;
        Some(if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") })
    };
    let mut modules = Graph::new();
    for (file, imports) in graph {
        if let Some(from) = node(file) {
            let onto = imports.iter().filter_map(|import| node(import)).filter(|onto| *onto != from);
            modules.entry(from.clone()).or_default().extend(onto);
        }
    }
    modules
}

/// The shortest way from a node back to it.
fn way_back(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut came_from = BTreeMap::new();
    let mut waiting = VecDeque::from([start.to_owned()]);
    while let Some(node) = waiting.pop_front() {
        for next in graph.get(&node).into_iter().flatten() {
            if next == start {
                let mut way = vec![start.to_owned(), node.clone()];
                while let Some(before) = came_from.get(way.last()?) {
                    way.push(String::clone(before));
                }
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(next) {
                came_from.insert(next.clone(), node.clone());
                waiting.push_back(next.clone());
            }
        }
    }
    None
}

/// Every set of nodes that reach each other, as one of its cycles.
fn cycles(graph: &Graph) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut cycles = Vec::new();
    for node in graph.keys() {
        if seen.contains(node) {
            continue;
        }
        if let Some(way) = way_back(graph, node) {
            let component = component(graph, node);
            cycles.push(format!("{} ({} in the cycle)", way.join(" → "), component.len()));
            seen.extend(component);
        }
    }
    cycles
}

/// The nodes that a node reaches and is reached from.
fn component(graph: &Graph, node: &str) -> BTreeSet<String> {
    let reached = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut waiting = vec![from.to_owned()];
        while let Some(node) = waiting.pop() {
            let onto = graph.get(&node).into_iter().flatten();
            waiting.extend(onto.filter(|onto| reached.insert(String::clone(onto))).cloned());
        }
        reached
    };
    reached(node).into_iter().filter(|other| reached(other).contains(node)).collect()
}

/// The cycles between files, and those between modules at each depth.
fn all_cycles(graph: &Graph) -> Vec<String> {
    let parents: BTreeSet<_> =
        graph.keys().filter_map(|file| file.rsplit_once('/')).map(|(parent, _)| parent).chain([""]).collect();
    let between = parents.into_iter().flat_map(|parent| cycles(&among(graph, parent)));
    cycles(graph).into_iter().chain(between).collect()
}

fn is_excepted(cycle: &str) -> bool {
    let nodes = cycle.split(" (").next().unwrap_or_default();
    EXCEPTIONS.iter().any(|(module, _)| nodes.split(" → ").all(|node| node.split('/').next() == Some(module)))
}

#[test]
fn no_files_and_no_modules_import_each_other_in_a_circle() {
    let mut cycles = all_cycles(&graph(&sources()));
    cycles.retain(|cycle| !is_excepted(cycle));
    assert_eq!(cycles, [""; 0]);
    for (name, sources) in crates() {
        assert_eq!(all_cycles(&graph(&sources)), [""; 0], "{name}");
    }
}

mod rules_that_are_shown_what_they_must_find {
    use super::*;

    /// The cycles of a tree of files.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        all_cycles(&graph(&sources))
    }

    #[test]
    fn a_parent_and_a_child_that_import_each_other_however_they_write_it() {
        let parents = [
            "mod b;\nuse b::B;",
            "mod b;\npub use self::b::B;",
            "mod b;\nfn f() { b::g() }",
            "mod b;\nuse crate::{a::b::B, c};",
            "mod b;\nuse crate::a::{self, b::{self as other, B}};",
            "mod b;\nfn f(b: crate::a::b::B) {}",
            "mod b;\n#[serde(with = \"b::time\")]",
            "mod b;\nfn f() -> char { 'x' }\nuse b::*;",
        ];
        let children = [
            "use super::A;",
            "use super::*;",
            "use super::{A, C};",
            "use crate::a::A;",
            "use crate::a;\nfn f() { a::g() }",
            "use crate::a as other;",
            "pub(super) fn f() -> super::A {}",
            "use std::fmt;\nimpl fmt::Debug for super::A {}",
            "fn f() { let x = \"a \\\" b\"; super::g(x) }",
            "fn f<'a>(x: &'a str) { super::g(x, r#\"\"\"#) }",
        ];
        for parent in parents {
            for child in children {
                let found = found(&[("lib", "mod a;\nmod c;"), ("a", parent), ("a/b", child), ("c", "")]);
                assert_eq!(found, ["a → a/b → a (2 in the cycle)"], "{parent} and {child}");
            }
        }
    }

    #[test]
    fn what_names_a_parent_or_a_child_and_imports_nothing() {
        for parent in [
            "mod b;",
            "mod b;\n// use b::B;",
            "mod b;\n#[cfg(test)]\nmod tests {\n    use super::b::B;\n}",
            "/// [`b::B`]\nmod b;",
        ] {
            for child in ["use super::A;", "fn f() { super::g() }"] {
                assert_eq!(found(&[("a", parent), ("a/b", child)]), [""; 0], "{parent} and {child}");
            }
        }
        for child in [
            "pub(super) fn f() {}",
            "pub(in super::super) fn f() {}",
            "pub(crate) struct B;",
            "const WORD: &str = \"use super::A and more\";",
            "/* use super::A; */",
            "use other::a::A;",
            "use ::a::A;",
            "fn f() { Type::a::<u8>() }",
            "use super::c::C;",
        ] {
            assert_eq!(found(&[("a", "mod b;\nuse b::B;"), ("a/b", child), ("a/c", "")]), [""; 0], "{child}");
        }
    }

    #[test]
    fn a_way_through_several_files_and_one_that_only_their_folders_close() {
        let long = [
            ("a", "use crate::b::B;"),
            ("b", "use crate::c::C;"),
            ("c", "use crate::a::A;"),
            ("d", "use crate::a::A;"),
        ];
        let way = "a → b → c → a (3 in the cycle)";
        assert_eq!(found(&long), [way, way], "between files, and between modules");
        // No file reaches itself, but neither module can be understood without the other.
        let folders = [("a", ""), ("a/x", "use crate::b::y::Y;"), ("b", ""), ("b/y", "use crate::a::A;")];
        assert_eq!(found(&folders), ["a → b → a (2 in the cycle)"]);
        let below = [
            ("z/a", ""),
            ("z/a/x", "use super::super::b::Y;"),
            ("z/b", ""),
            ("z/b/y", "use crate::z::a::A;"),
            ("z", ""),
        ];
        assert_eq!(found(&below), ["z/a → z/b → z/a (2 in the cycle)"]);
    }

    #[test]
    fn only_a_cycle_within_an_excepted_module_is_excepted() {
        assert!(is_excepted("store → store/local → store (2 in the cycle)"));
        assert!(!is_excepted("config → store → config (2 in the cycle)"));
        assert!(!is_excepted("storeroom → storeroom/a → storeroom (2 in the cycle)"));
    }
}
