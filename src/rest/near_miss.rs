//! Tells a name that was meant to be a known one from a name that is unknown. An unknown name is ignored; a near miss is refused,
//! because to ignore it would carry out another request than was meant: an attachment would be stored under no project. This
//! module knows names alone: neither values nor whether a name stands in a query or in a form.

use std::sync::LazyLock;

/// One typing error is forgiven for this many letters, so one in `projectid` and two in `portfolioid`. `product_id` is two
/// typing errors away from `project_id`.
const LETTERS_FOR_ONE_ERROR: usize = 5;

/// Words of the language that are one typing error away from a name.
const OTHER_WORDS: [&str; 1] = ["projected"];

/// The optional ids of an upload. They are fields of `header`, which a client that is generated from the proto may write in front.
pub(super) static UPLOAD: LazyLock<Names> =
    LazyLock::new(|| Names::new(["project_id", "portfolio_id"].map(str::to_owned), &["header"]));

/// The names that are known.
#[derive(Clone, Debug)]
pub(super) struct Names {
    known: Vec<Name>,
    /// What may be written in front of a name, folded.
    prefixes: Vec<String>,
}

#[derive(Clone, Debug)]
struct Name {
    name: String,
    /// Whether the name has several words. A name of one word, such as `view`, is a part of too many others.
    is_compound: bool,
    /// The name of an id without `id`, and its plural. It counts only if it is the whole name, and without typing errors:
    /// `project_name` and `project[name]` are other names.
    alone: Vec<String>,
    /// The name and its plurals, folded. The name comes first.
    forms: Vec<String>,
}

impl Names {
    /// These names, which are written in the proto's way, and what may be written in front of them.
    pub(super) fn new(names: impl IntoIterator<Item = String>, prefixes: &[&str]) -> Names {
        let prefixes = prefixes.iter().map(|prefix| fold(prefix)).collect();
        Names { known: names.into_iter().map(Name::new).collect(), prefixes }
    }

    /// The known name that `name` is, or is a near miss of: another case or separator, a plural, brackets, a path that ends in
    /// it, letters that look alike, a few typing errors.
    pub(super) fn near_miss(&self, name: &str) -> Option<&str> {
        if let Some(exact) = self.known.iter().find(|known| known.name == name) {
            return Some(&exact.name);
        }
        let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        // An index, as in `project_id[0]`, is no part of the name.
        let is_word = |word: &String| !word.bytes().all(|byte| byte.is_ascii_digit());
        let words: Vec<String> = decoded.split(separates_words).map(fold).filter(is_word).collect();
        let whole = words.concat();
        let bare = self.prefixes.iter().filter_map(|prefix| whole.strip_prefix(prefix.as_str()));
        let bare: Vec<&str> = std::iter::once(whole.as_str()).chain(bare).collect();
        self.known.iter().find(|known| known.is_meant_by(&bare, &words)).map(|known| known.name.as_str())
    }
}

impl Name {
    fn new(name: String) -> Name {
        let folded = fold(&name);
        let words: Vec<String> = name.split(['_', '.']).map(fold).collect();
        let is_compound = words.len() > 1;
        let (alone, forms) = match folded.strip_suffix("id").filter(|_| words.last().is_some_and(|last| last == "id")) {
            Some(stem) if !stem.is_empty() => {
                let forms = ["", "s"].map(|plural| [format!("{stem}{plural}id"), format!("{stem}{plural}ids")]);
                (vec![stem.to_owned(), format!("{stem}s")], forms.concat())
            }
            _ => (Vec::new(), vec![folded.clone(), format!("{folded}s")]),
        };
        Name { name, is_compound, alone, forms }
    }

    /// Whether a name means this one, whose words are given, and all of them together, without each prefix that may be there.
    fn is_meant_by(&self, bare: &[&str], words: &[String]) -> bool {
        let is_form = |text: &str| self.forms.iter().any(|form| form == text);
        let is_alone = |text: &str| self.alone.iter().any(|alone| alone == text);
        if bare.iter().any(|whole| is_form(whole) || is_alone(whole)) {
            return true;
        }
        let forgiven = self.forms[0].len() / LETTERS_FOR_ONE_ERROR;
        let is_near_form = |word: &str| !is_alone(word) && self.forms.iter().any(|form| is_near(word, form, forgiven));
        if !self.is_compound {
            return bare.iter().any(|whole| is_near_form(whole));
        }
        words.windows(2).any(|pair| is_form(&pair.concat())) || words.iter().any(|word| is_near_form(word))
    }
}

/// Whether `word` is `form` but for at most `forgiven` typing errors: a letter that is missing, too much, another, or in the
/// place of its neighbour.
fn is_near(word: &str, form: &str, forgiven: usize) -> bool {
    // The distance is quadratic in the length, and a name may be as long as a request line.
    word.chars().count().abs_diff(form.len()) <= forgiven
        && !OTHER_WORDS.contains(&word)
        && strsim::osa_distance(word, form) <= forgiven
}

/// Whether a character separates words: those of a path, as in `header.project_id` and `filter[project_id]`, or of a pair
/// that was split in the wrong place, as in `amp;project_id` and `project_id%3D5`.
fn separates_words(character: char) -> bool {
    character.is_ascii_punctuation() && !matches!(character, '_' | '-' | '%')
}

/// The letters and digits of a text, in lower case, with ASCII letters in place of those that look the same.
fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric()).map(look_alike).collect()
}

/// The ASCII letter that a letter looks like.
fn look_alike(letter: char) -> char {
    match letter {
        // Full-width forms are ASCII, moved.
        '\u{ff10}'..='\u{ff5a}' => char::from_u32(u32::from(letter) - 0xfee0).unwrap_or(letter),
        'а' | 'α' | 'á' | 'à' | 'ä' => 'a',
        'с' | 'ϲ' => 'c',
        'ԁ' => 'd',
        'е' | 'ё' | 'é' | 'è' => 'e',
        'і' | 'ı' | 'ι' | 'í' => 'i',
        'ј' => 'j',
        'ӏ' => 'l',
        'о' | 'ο' | 'ó' | 'ö' => 'o',
        'р' | 'ρ' => 'p',
        'г' => 'r',
        'ѕ' | 'ſ' => 's',
        'т' | 'τ' => 't',
        'х' | 'χ' => 'x',
        'у' | 'γ' => 'y',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every spelling of a name must lead to.
    fn assert_all(meant: Option<&str>, names: &[&str]) {
        for name in names {
            assert_eq!(UPLOAD.near_miss(name), meant, "{name:?}");
        }
    }

    #[test]
    fn another_case_separator_or_number_is_a_near_miss() {
        assert_all(
            Some("project_id"),
            &[
                "project_id",
                "projectId",
                "ProjectId",
                "ProjectID",
                "projectID",
                "PROJECT_ID",
                "Project_id",
                "Project_Id",
                "project-id",
                "Project-ID",
                "project.id",
                "project id",
                "project+id",
                "project/id",
                "project:id",
                "projectid",
                "project__id",
                "_project_id",
                "project_id_",
                "project_ids",
                "projectIds",
                "projects_id",
                "projects_ids",
                "project",
                "Project",
                "projects",
            ],
        );
        assert_all(
            Some("portfolio_id"),
            &[
                "portfolio_id",
                "portfolioId",
                "PortfolioID",
                "PORTFOLIO_ID",
                "portfolio-id",
                "portfolio.id",
                "portfolioid",
                "portfolio_ids",
                "portfolioIds",
                "portfolios_id",
                "portfolio",
                "portfolios",
            ],
        );
    }

    #[test]
    fn brackets_paths_and_what_stands_around_a_name_are_near_misses() {
        assert_all(
            Some("project_id"),
            &[
                "project_id[]",
                "project_id[0]",
                "project_id[10]",
                "project_id[x]",
                "projectId[]",
                "project[id]",
                "project_id.",
                "header.project_id",
                "header.projectId",
                "header[project_id]",
                "header[project][id]",
                "headerProjectId",
                "header_project_id",
                "filter[project_id]",
                "upload.header.project_id",
                "{project_id}",
                "$project_id",
                "\"project_id\"",
                "'project_id'",
                ":project_id",
                "?project_id",
                "#project_id",
                "amp;project_id",
                "project_id=5",
                "project_id:5",
                "project_id%3D5",
                "project%5Fid",
                "project_id%5B%5D",
                "project_id ",
                " project_id",
                "\tproject_id",
                "project_id\0",
                "\u{feff}project_id",
                "project\u{200b}_id",
                "project_id\u{fffd}",
                "project\u{a0}id",
            ],
        );
    }

    #[test]
    fn letters_that_look_alike_are_near_misses() {
        assert_all(
            Some("project_id"),
            &["рrојесt_іd", "ρrοject_ιd", "ｐｒｏｊｅｃｔ＿ｉｄ", "PROJECT_İD", "project_ıd", "projéct_id"],
        );
        assert_all(Some("portfolio_id"), &["роrtfоlіо_іd", "ＰＯＲＴＦＯＬＩＯ＿ＩＤ"]);
    }

    #[test]
    fn one_typing_error_in_project_and_two_in_portfolio_are_near_misses() {
        assert_all(
            Some("project_id"),
            &[
                "projet_id",
                "projekt_id",
                "porject_id",
                "projcet_id",
                "project_di",
                "projectt_id",
                "project_i",
                "project_id2",
                "pr0ject_id",
            ],
        );
        assert_all(
            Some("portfolio_id"),
            &[
                "porfolio_id",
                "portofolio_id",
                "protfolio_id",
                "portfollio_id",
                "portoflio_id",
                "porfolioo_id",
                "portfolioo_idd",
            ],
        );
        assert_all(None, &["projct_i", "porjetc_id", "poject_di", "portflo_d"]);
    }

    #[test]
    fn a_name_that_is_something_else_is_none() {
        assert_all(
            None,
            &[
                "",
                "id",
                "ids",
                "client_id",
                "attachment_id",
                "product_id",
                "productId",
                "object_id",
                "objectId",
                "subject_id",
                "project_name",
                "projectName",
                "project[name]",
                "project.name",
                "project_key",
                "project_type",
                "projection",
                "projections",
                "projected",
                "projectile",
                "projector",
                "project_manager",
                "project[in]",
                "project.is",
                "project_version",
                "portfolio_name",
                "portfolio[name]",
                "portfolios[name]",
                "sort[portfolio]",
                "portal_id",
                "profile_id",
                "protocol_id",
                "page",
                "page_size",
                "utm_source",
                "utm_id",
                "process_id",
                "parent_project_id",
                "prospect_id",
                "property_id",
                "provider_id",
                "port",
                "_",
                "[]",
                ".",
                "%",
                "%zz",
                "=",
                "проект",
                "项目编号",
                "プロジェクト",
            ],
        );
    }

    #[test]
    fn a_name_as_long_as_a_request_line_is_none() {
        for long in ["a".repeat(60_000), "a.".repeat(30_000), "project_".repeat(8_000), "[".repeat(60_000)] {
            assert_eq!(UPLOAD.near_miss(&long), None);
        }
    }
}
