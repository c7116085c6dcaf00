//! Dictionaries as HTTP writes them (RFC 9651 s4.2.2), as far as fields with digests need them: of the values only byte
//! sequences are of use, and parameters are read over. It knows no field.

/// The most digits of a number.
const DIGITS: usize = 15;

/// Reads a dictionary: each key with its value, if that is a byte sequence, as base64 text. `None` if it is malformed.
pub(super) fn parse(text: &str) -> Option<Vec<(&str, Option<&str>)>> {
    let mut cursor = Cursor(text.trim_matches(' '));
    let mut members = Vec::new();
    if cursor.0.is_empty() {
        return Some(members);
    }
    loop {
        let key = cursor.key()?;
        let value = if cursor.take('=') { cursor.item()? } else { None };
        cursor.parameters()?;
        members.push((key, value));
        cursor.skip([' ', '\t']);
        if cursor.0.is_empty() {
            return Some(members);
        }
        if !cursor.take(',') {
            return None;
        }
        cursor.skip([' ', '\t']);
    }
}

/// What is still to be read.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip<const N: usize>(&mut self, chars: [char; N]) {
        self.0 = self.0.trim_start_matches(chars);
    }

    fn take(&mut self, char: char) -> bool {
        self.0.strip_prefix(char).map(|rest| self.0 = rest).is_some()
    }

    /// Takes all that `accepts`.
    fn run(&mut self, accepts: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|char| !accepts(char)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        run
    }

    fn key(&mut self) -> Option<&'a str> {
        if !self.0.starts_with(|first: char| first.is_ascii_lowercase() || first == '*') {
            return None;
        }
        Some(self.run(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || "_-.*".contains(char)))
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(';') {
            self.skip([' ']);
            self.key()?;
            if self.take('=') {
                self.item()?;
            }
        }
        Some(())
    }

    /// Reads one item, and returns it if it is a byte sequence.
    fn item(&mut self) -> Option<Option<&'a str>> {
        match self.0.chars().next()? {
            ':' => {
                self.take(':');
                let bytes = self.run(|char| char.is_ascii_alphanumeric() || "+/=".contains(char));
                return self.take(':').then_some(Some(bytes));
            }
            '"' => self.string()?,
            '?' => {
                self.take('?');
                (self.take('0') || self.take('1')).then_some(())?;
            }
            '@' => {
                self.take('@');
                self.number()?;
            }
            '%' => {
                self.take('%');
                self.escaped()?;
            }
            first if first == '-' || first.is_ascii_digit() => self.number()?,
            first if first == '*' || first.is_ascii_alphabetic() => {
                self.run(|char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(char));
            }
            _ => return None,
        }
        Some(None)
    }

    fn number(&mut self) -> Option<()> {
        self.take('-');
        let digits = |run: &str| (1..=DIGITS).contains(&run.len()).then_some(());
        digits(self.run(|char| char.is_ascii_digit()))?;
        if self.take('.') { digits(self.run(|char| char.is_ascii_digit())) } else { Some(()) }
    }

    fn string(&mut self) -> Option<()> {
        self.take('"');
        loop {
            self.run(|char| (' '..='~').contains(&char) && char != '"' && char != '\\');
            if self.take('"') {
                return Some(());
            }
            (self.take('\\') && (self.take('"') || self.take('\\'))).then_some(())?;
        }
    }

    /// Reads a string with escapes in lower-case hex, as a display string has them.
    fn escaped(&mut self) -> Option<()> {
        self.take('"').then_some(())?;
        loop {
            self.run(|char| (' '..='~').contains(&char) && char != '"' && char != '%');
            if self.take('"') {
                return Some(());
            }
            let digit = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
            self.take('%').then_some(())?;
            let (escape, rest) = self.0.split_at_checked(2)?;
            escape.as_bytes().iter().all(digit).then_some(())?;
            self.0 = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_is_cut_into_its_members_whatever_stands_in_their_parameters() {
        let text = r#" a=:YQ==:;x="1,2;\"\\";y=?1;  z=-1.50,	b;c=*t/x:y ,c=:: , d-._*9=@12;e=%"%c3%bc,""#;
        let members = vec![("a", Some("YQ==")), ("b", None), ("c", Some("")), ("d-._*9", None)];
        assert_eq!(parse(text), Some(members));
        assert_eq!(parse(""), Some(Vec::new()));
        assert_eq!(parse("  "), Some(Vec::new()));
    }

    #[test]
    fn a_dictionary_that_is_malformed_is_none() {
        for text in [
            ",",
            "a,",
            ",a",
            "a,,b",
            "a b",
            "A",
            "1",
            "a=",
            "a =1",
            "a= 1",
            "a=:YQ==",
            "a=:Y Q:",
            "a=:Y-_:",
            "a=\"",
            "a=\"\\x\"",
            "a=\"é\"",
            "a=?2",
            "a=?",
            "a=-",
            "a=1.",
            "a=.1",
            "a=--1",
            "a=(1 2)",
            "a=%x",
            "a=%\"%C3\"",
            "a=%\"%c\"",
            "a=%\"%",
            "a=@",
            "a;",
            "a;B",
            "a;b=",
            "a=1;b c",
            "a=1234567890123456",
            "é",
            "a=é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
