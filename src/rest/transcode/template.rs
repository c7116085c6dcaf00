//! Path templates as `google/api/http.proto` defines them: literals, `*`, `**`, variables that capture a part of the path, and a
//! verb after a colon. This module knows texts alone, and no message.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    /// This text, as it is written.
    Literal(String),
    /// One segment that is not empty.
    One,
    /// Any number of segments, possibly none.
    Many,
}

/// A part of the path that is bound to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    /// The path of the field, with dots.
    field: String,
    /// The segments that it captures: the first, and the one after the last.
    first: usize,
    end: usize,
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    verb: Option<String>,
}

/// What a variable captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture<'a> {
    /// The path of the field, with dots.
    pub field: &'a str,
    /// The text, not decoded.
    raw: String,
    /// Whether the variable is one segment, so that an encoded slash is part of the text.
    single: bool,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Template, String> {
        let wrong = |why: &str| format!("the path template {text} {why}");
        let body = text.strip_prefix('/').ok_or_else(|| wrong("does not begin with a slash"))?;
        // A colon within a variable is part of a literal.
        let last = body.rfind(['/', '}']).map_or(0, |at| at + 1);
        let (mut rest, verb) = match body[last..].split_once(':') {
            Some((before, verb)) => (&body[..last + before.len()], Some(verb)),
            None => (body, None),
        };
        if verb.is_some_and(|verb| verb.is_empty() || !verb.chars().all(is_literal)) {
            return Err(wrong("has a verb that is no text"));
        }
        let (mut segments, mut variables) = (Vec::new(), Vec::<Variable>::new());
        loop {
            if let Some(variable) = rest.strip_prefix('{') {
                let (variable, after) =
                    variable.split_once('}').ok_or_else(|| wrong("has a variable without an end"))?;
                let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
                if !field.split('.').all(is_identifier) {
                    return Err(wrong(&format!("binds {field:?}, which is no name of a field")));
                }
                if variables.iter().any(|known| known.field == field) {
                    return Err(wrong(&format!("binds {field} twice")));
                }
                let first = segments.len();
                for piece in pattern.split('/') {
                    segments.push(Segment::parse(piece).ok_or_else(|| wrong(&format!("has the segment {piece:?}")))?);
                }
                variables.push(Variable { field: field.to_owned(), first, end: segments.len() });
                rest = after;
            } else {
                let (piece, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                segments.push(Segment::parse(piece).ok_or_else(|| wrong(&format!("has the segment {piece:?}")))?);
                rest = after;
            }
            if rest.is_empty() {
                break;
            }
            rest = rest.strip_prefix('/').ok_or_else(|| wrong("has no slash after a variable"))?;
        }
        if segments.iter().filter(|segment| **segment == Segment::Many).count() > 1 {
            return Err(wrong("has ** more than once"));
        }
        Ok(Template { segments, variables, verb: verb.map(str::to_owned) })
    }

    /// The root alone, which no template of the proto can name.
    pub fn root() -> Template {
        Template { segments: vec![Segment::Literal(String::new())], variables: Vec::new(), verb: None }
    }

    /// The paths of the fields that it binds, in order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|variable| variable.field.as_str())
    }

    /// Which of two templates that fit the same path is asked first: the one that says more of it.
    pub fn rank(&self) -> impl Ord + use<> {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::One => 1,
            Segment::Many => 2,
        };
        // The end says less than any segment after `**`.
        (self.verb.is_none(), self.segments.iter().map(rank).chain([3]).collect::<Vec<u8>>())
    }

    /// Whether another template fits the same paths, whatever fields they bind.
    pub fn is_same(&self, other: &Template) -> bool {
        (&self.segments, &self.verb) == (&other.segments, &other.verb)
    }

    /// Whether it ends with a verb.
    pub fn has_verb(&self) -> bool {
        self.verb.is_some()
    }

    /// Whether a path fits, which is given as the texts between its slashes.
    pub fn fits(&self, parts: &[&str]) -> bool {
        let Some((last, _)) = parts.split_last().map(|(last, before)| (*last, before)) else {
            return false;
        };
        let Some(last) = self.without_verb(last) else {
            return false;
        };
        let Some(extra) = self.extra(parts.len()) else {
            return false;
        };
        let part = |at: usize| if at + 1 == parts.len() { last } else { parts[at] };
        let mut at = 0;
        for segment in &self.segments {
            let fits = match segment {
                Segment::Literal(text) => part(at) == text,
                Segment::One => !part(at).is_empty(),
                Segment::Many => true,
            };
            if !fits {
                return false;
            }
            at += if *segment == Segment::Many { extra } else { 1 };
        }
        true
    }

    /// What the variables capture of a path that fits.
    pub fn captures(&self, parts: &[&str]) -> Vec<Capture<'_>> {
        let extra = self.extra(parts.len()).unwrap_or_default();
        let width = |segment: &Segment| if *segment == Segment::Many { extra } else { 1 };
        let mut captures = Vec::with_capacity(self.variables.len());
        for variable in &self.variables {
            let first: usize = self.segments[..variable.first].iter().map(width).sum();
            let captured = &self.segments[variable.first..variable.end];
            let end = first + captured.iter().map(width).sum::<usize>();
            let mut raw = parts[first..end].join("/");
            if end == parts.len() && end > first {
                raw = self.without_verb(&raw).unwrap_or_default().to_owned();
            }
            captures.push(Capture { field: &variable.field, raw, single: captured == [Segment::One] });
        }
        captures
    }

    /// How many parts of a path `**` stands for. None if the path has too few or too many.
    fn extra(&self, parts: usize) -> Option<usize> {
        if self.segments.contains(&Segment::Many) {
            (parts + 1).checked_sub(self.segments.len())
        } else {
            (parts == self.segments.len()).then_some(1)
        }
    }

    fn without_verb<'a>(&self, part: &'a str) -> Option<&'a str> {
        match &self.verb {
            Some(verb) => part.strip_suffix(verb.as_str())?.strip_suffix(':'),
            None => Some(part),
        }
    }
}

impl Segment {
    fn parse(text: &str) -> Option<Segment> {
        match text {
            "*" => Some(Segment::One),
            "**" => Some(Segment::Many),
            "" => None,
            _ if text.chars().all(is_literal) => Some(Segment::Literal(text.to_owned())),
            _ => None,
        }
    }
}

impl Capture<'_> {
    /// The text, decoded. Of several segments an encoded slash stays encoded, since it would look like one that divides them.
    /// None if it is not UTF-8.
    pub fn decoded(&self) -> Option<String> {
        if self.single {
            return decoded(&self.raw);
        }
        let mut text = String::with_capacity(self.raw.len());
        let mut rest = self.raw.as_str();
        while let Some(at) = rest.find("%2F").into_iter().chain(rest.find("%2f")).min() {
            text.push_str(&decoded(&rest[..at])?);
            text.push_str(&rest[at..at + 3]);
            rest = &rest[at + 3..];
        }
        Some(text + &decoded(rest)?)
    }
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

/// Whether a character may stand in a literal: those of a path segment (RFC 3986 s3.3), unless the template itself uses it.
fn is_literal(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@%".contains(character)
}

fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}

#[cfg(test)]
mod tests;
