//! Tokens of pages: the client, the project, the portfolio and the last attachment as decimals, `full` or `basic`, and a text,
//! with spaces between them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &str| {
    let words: Vec<&str> = input.splitn(6, ' ').collect();
    let [client, project, portfolio, last, view, text] = words[..] else { return };
    let numbers = [client, project, portfolio, last].map(|number| number.parse().unwrap_or_default());
    attachd::fuzzing::reads::page_token(numbers, view == "full", text);
});
