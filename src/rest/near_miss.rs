//! Tells a name that was meant to be an optional id of the upload from a name that is unknown. An unknown name is ignored; a
//! near miss is refused, because to ignore it would store the attachment under no project. This module knows names alone:
//! neither values nor whether a name stands in a query or in a form.

/// The optional ids of an upload, each with its words.
const IDS: [Name; 2] = [
    Name {
        id: "project_id",
        alone: ["project", "projects"],
        with_id: ["projectid", "projectids", "projectsid", "projectsids"],
    },
    Name {
        id: "portfolio_id",
        alone: ["portfolio", "portfolios"],
        with_id: ["portfolioid", "portfolioids", "portfoliosid", "portfoliosids"],
    },
];

/// One typing error is forgiven for this many letters, so one in `projectid` and two in `portfolioid`. `product_id` is two
/// typing errors away from `project_id`.
const LETTERS_FOR_ONE_ERROR: usize = 5;

/// Words of the language that are one typing error away from a name.
const OTHER_WORDS: [&str; 1] = ["projected"];

/// The field of the request message that holds the ids. A client that is generated from the proto may write it in front.
const MESSAGE: &str = "header";

struct Name {
    id: &'static str,
    /// The name without `id`. It counts only if it is the whole name, and without typing errors: `project_name` and
    /// `project[name]` are other names.
    alone: [&'static str; 2],
    /// The name and its plurals, folded. The name comes first.
    with_id: [&'static str; 4],
}

/// The optional id that `name` is, or is a near miss of: another case or separator, a plural, brackets, a path that ends in
/// it, letters that look alike, a few typing errors.
pub(super) fn near_miss(name: &str) -> Option<&'static str> {
    if let Some(exact) = IDS.iter().find(|known| known.id == name) {
        return Some(exact.id);
    }
    let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    // An index, as in `project_id[0]`, is no part of the name.
    let is_word = |word: &String| !word.bytes().all(|byte| byte.is_ascii_digit());
    let words: Vec<String> = decoded.split(separates_words).map(fold).filter(is_word).collect();
    let whole = words.concat();
    let whole = whole.strip_prefix(MESSAGE).unwrap_or(&whole);
    let is_meant = |known: &&Name| {
        let is_form = |text: &str| known.with_id.contains(&text);
        let forgiven = known.with_id[0].len() / LETTERS_FOR_ONE_ERROR;
        known.alone.contains(&whole)
            || is_form(whole)
            || words.windows(2).any(|pair| is_form(&pair.concat()))
            || words.iter().any(|word| {
                !known.alone.contains(&word.as_str()) && known.with_id.iter().any(|form| is_near(word, form, forgiven))
            })
    };
    IDS.iter().find(is_meant).map(|known| known.id)
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

/// The ASCII letter that a letter looks like, among those of the names.
fn look_alike(letter: char) -> char {
    match letter {
        // Full-width forms are ASCII, moved.
        '\u{ff10}'..='\u{ff5a}' => char::from_u32(u32::from(letter) - 0xfee0).unwrap_or(letter),
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
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every spelling of a name must lead to.
    fn assert_all(meant: Option<&str>, names: &[&str]) {
        for name in names {
            assert_eq!(near_miss(name), meant, "{name:?}");
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
            assert_eq!(near_miss(&long), None);
        }
    }
}
