//! The name of a file that is written without `--output-file`: the recorded one, made safe.

/// The longest name in bytes. Most file systems take 255; the suffixes of a download that is not complete need some of them.
const LONGEST: usize = 240;

/// The longest extension in bytes that is kept when a name is shortened.
const LONGEST_EXTENSION: usize = 16;

/// A name that stays in the current directory, is not hidden, and is no option to another command. `id` is the name if
/// nothing else is left.
pub fn safe(recorded: &str, id: i64) -> String {
    let last = recorded.rsplit(['/', '\\']).next().unwrap_or_default();
    let printable = last.replace(char::is_control, "_");
    let name = printable.trim_start_matches(|c: char| c.is_whitespace() || ['-', '.'].contains(&c)).trim_end();
    if name.is_empty() { id.to_string() } else { shortened(name) }
}

/// A name of at most [`LONGEST`] bytes, with its extension.
fn shortened(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if name.len() - dot <= LONGEST_EXTENSION => name.split_at(dot),
        _ => (name, ""),
    };
    let cut = stem.floor_char_boundary(LONGEST - extension.len());
    format!("{}{extension}", &stem[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_name_never_leaves_the_directory_and_is_no_option() {
        for (recorded, name) in [
            ("report.pdf", "report.pdf"),
            ("with space é.txt", "with space é.txt"),
            ("", "7"),
            (".", "7"),
            ("..", "7"),
            (".-. -", "7"),
            ("/", "7"),
            ("../../etc/passwd", "passwd"),
            ("C:\\temp\\a.txt", "a.txt"),
            ("a/..", "7"),
            (".bashrc", "bashrc"),
            ("-rf", "rf"),
            ("--.-x", "x"),
            ("a\nb\0\u{1b}\u{9b}c", "a_b___c"),
            ("a.txt ", "a.txt"),
        ] {
            assert_eq!(safe(recorded, 7), name, "{recorded:?}");
        }
    }

    #[test]
    fn a_long_name_is_shortened_between_characters_and_keeps_its_extension() {
        for length in [LONGEST - 1, LONGEST] {
            assert_eq!(safe(&"x".repeat(length), 7).len(), length);
        }
        assert_eq!(safe(&"x".repeat(LONGEST + 1), 7).len(), LONGEST);
        let name = safe(&format!("{}.tar", "é".repeat(200)), 7);
        assert_eq!(name, format!("{}.tar", "é".repeat((LONGEST - 4) / 2)));
        let name = safe(&format!("a.{}", "é".repeat(200)), 7);
        assert_eq!(name, format!("a.{}", "é".repeat((LONGEST - 2) / 2)));
    }
}
