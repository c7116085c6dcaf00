//! A name that is not known, and the known name that was probably meant. This module does not know what is named.

/// The known name that was most likely meant, or all of them, for a message.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let best =
        known.clone().max_by(|a, b| strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b)));
    match best.filter(|best| strsim::jaro_winkler(unknown, best) > 0.75) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("known are {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}
