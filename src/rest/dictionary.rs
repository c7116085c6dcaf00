//! Dictionaries as HTTP writes them (RFC 9651 s4.2.2), as far as fields with digests need them: of the values only byte
//! sequences and integers are of use, and parameters are read over. It knows no field.

/// The most digits of a number.
const DIGITS: usize = 15;

/// The value of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A byte sequence, as base64 text.
    Bytes(&'a str),
    /// An integer.
    Integer(i64),
    /// Anything else.
    Other,
}

impl<'a> Item<'a> {
    /// The base64 text of a byte sequence.
    pub(super) fn bytes(self) -> Option<&'a str> {
        match self {
            Item::Bytes(text) => Some(text),
            Item::Integer(_) | Item::Other => None,
        }
    }
}

/// Reads a dictionary: each key with its value. `None` if it is malformed.
pub(super) fn parse(text: &str) -> Option<Vec<(&str, Item<'_>)>> {
    let mut cursor = Cursor(text.trim_matches(' '));
    let mut members = Vec::new();
    if cursor.0.is_empty() {
        return Some(members);
    }
    loop {
        let key = cursor.key()?;
        let value = if cursor.take('=') { cursor.item()? } else { Item::Other };
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

    /// Reads one item.
    fn item(&mut self) -> Option<Item<'a>> {
        match self.0.chars().next()? {
            ':' => {
                self.take(':');
                let bytes = self.run(|char| char.is_ascii_alphanumeric() || "+/=".contains(char));
                return self.take(':').then_some(Item::Bytes(bytes));
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
            first if first == '-' || first.is_ascii_digit() => return self.number(),
            first if first == '*' || first.is_ascii_alphabetic() => {
                self.run(|char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(char));
            }
            _ => return None,
        }
        Some(Item::Other)
    }

    /// Reads a number, which is of use if it is an integer.
    fn number(&mut self) -> Option<Item<'a>> {
        let sign = if self.take('-') { -1 } else { 1 };
        let whole: i64 = self.digits()?.parse().ok()?;
        if self.take('.') {
            return self.digits().map(|_| Item::Other);
        }
        Some(Item::Integer(sign * whole))
    }

    fn digits(&mut self) -> Option<&'a str> {
        let run = self.run(|char| char.is_ascii_digit());
        (1..=DIGITS).contains(&run.len()).then_some(run)
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
        let members =
            vec![("a", Item::Bytes("YQ==")), ("b", Item::Other), ("c", Item::Bytes("")), ("d-._*9", Item::Other)];
        assert_eq!(parse(text), Some(members));
        let text = "sha-256=10, sha-512=-3;q=1, unixsum=0, crc=1.5, at=@7";
        let members = vec![
            ("sha-256", Item::Integer(10)),
            ("sha-512", Item::Integer(-3)),
            ("unixsum", Item::Integer(0)),
            ("crc", Item::Other),
            ("at", Item::Other),
        ];
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
