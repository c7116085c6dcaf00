//! `attachd token inspect`: says what a server would make of a token, and why.

use std::fmt::Write;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::super::failure::Failure;
use super::super::{dev, out, show};
use crate::auth::{self, Report, Verdict, Verifier};

/// The most that is read, in bytes. What is longer than a token may be is refused for that.
const MOST: u64 = 64 * 1024;

/// The exit code for a token that is accepted and permits no operation.
const GRANTS_NOTHING: u8 = 4;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Arguments {
    /// The configuration whose issuers are trusted
    #[arg(long, value_name = "FILE", required_unless_present = "data", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// The data folder of `attachd dev`
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A file with the token, with or without `Bearer` in front [default: standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = match (&arguments.config, &arguments.data) {
        (Some(config), _) => show::load(config)?.auth,
        (None, Some(data)) => auth::Config { issuers: vec![dev::issuer(data)], ..auth::Config::default() },
        (None, None) => return Err(Failure::usage("--config or --data is needed")),
    };
    let verifier = Verifier::load(&config).map_err(Failure::usage)?;
    let token = arguments.token()?;
    let report = verifier.inspect(&token, SystemTime::now()).await.map_err(Failure::running)?;
    out::print(&shown(&report))?;
    match report.refused {
        None if report.grants_nothing => {
            Err(Failure { code: GRANTS_NOTHING, why: Some("the token grants nothing".to_owned()) })
        }
        None => Ok(()),
        Some(reason) => Err(Failure::running(format!("the token is refused: {reason}"))),
    }
}

impl Arguments {
    fn token(&self) -> Result<String, Failure> {
        let mut text = String::new();
        let read = match &self.token_file {
            Some(path) => std::fs::File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text)),
            None => io::stdin().lock().take(MOST).read_to_string(&mut text),
        };
        let from = self.token_file.as_ref().map_or("standard input".to_owned(), |path| path.display().to_string());
        read.map_err(|error| Failure::usage(format!("{from}: {error}")))?;
        let text = text.trim();
        let bare = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
            _ => text,
        };
        Ok(bare.to_owned())
    }
}

/// The report as it is printed. Writing to a `String` cannot fail.
fn shown(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let mark = match finding.verdict {
            Verdict::Passed => "ok",
            Verdict::Failed => "FAILED",
            Verdict::NotReached => "-",
        };
        let _ = writeln!(text, "{:10} {mark:7} {}", finding.check, finding.seen);
        if let Some(why) = &finding.why {
            let _ = writeln!(text, "{:10} {:7} {why}", "", "");
        }
    }
    for (name, what) in &report.rights {
        let _ = writeln!(text, "{name:10} {:7} {what}", "");
    }
    for what in &report.missing {
        let _ = writeln!(text, "{:10} {:7} {what}", "missing", "");
    }
    if report.refused.is_none() {
        text.push_str(if report.grants_nothing {
            "the token is accepted, grants nothing\n"
        } else {
            "the token is accepted\n"
        });
    }
    text
}
