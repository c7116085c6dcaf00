//! `attachd token mint`: makes a token where a secret or private key is at hand.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::super::failure::Failure;
use super::super::{dev, out, show};
use crate::attachment::Id;
use crate::auth::{Claims, Ids, Minter, Scope};

#[derive(Debug, Args)]
// The commands' own arguments have the name of their group.
#[group(skip)]
pub struct Arguments {
    /// The configuration whose issuer signs
    #[arg(long, value_name = "FILE", required_unless_present = "data", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// The data folder of `attachd dev`, whose key signs
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Which issuer of the configuration [default: the first]
    #[arg(long, value_name = "NAME", requires = "config")]
    issuer: Option<String>,
    /// The private key in PEM, where the configuration names a public key
    #[arg(long, value_name = "FILE", requires = "config")]
    key: Option<PathBuf>,
    /// A client that the token covers; may be repeated, `*` is all
    #[arg(long, value_name = "N", num_args = 1.., required = true)]
    client: Vec<String>,
    /// A project that the token covers; may be repeated, `*` is all
    #[arg(long, value_name = "N", num_args = 1..)]
    project: Vec<String>,
    /// A portfolio that the token covers; may be repeated, `*` is all
    #[arg(long, value_name = "N", num_args = 1..)]
    portfolio: Vec<String>,
    /// What the token permits: attachments:write, attachments:read, attachments:manage; may be repeated
    #[arg(long, value_name = "SCOPE", num_args = 1.., default_value = "attachments:write", value_parser = scope)]
    scope: Vec<Scope>,
    /// How long it holds, such as 90s, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Whose token it is
    #[arg(long, value_name = "NAME", default_value = "developer")]
    subject: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let issuer = match (&arguments.config, &arguments.data) {
        (Some(config), _) => {
            let issuers = show::load(config)?.auth.issuers;
            let wanted = |name: &str| arguments.issuer.as_deref().is_none_or(|wanted| wanted == name);
            let found = issuers.into_iter().find(|issuer| wanted(&issuer.issuer));
            found.ok_or_else(|| Failure::usage("--issuer: the configuration has no such issuer"))?
        }
        (None, Some(data)) => dev::issuer(data),
        (None, None) => return Err(Failure::usage("--config or --data is needed")),
    };
    let claims = Claims {
        subject: arguments.subject.clone(),
        scopes: arguments.scope.clone(),
        clients: ids("--client", &arguments.client)?,
        projects: ids("--project", &arguments.project)?,
        portfolios: ids("--portfolio", &arguments.portfolio)?,
        ttl: arguments.ttl,
        now: SystemTime::now(),
    };
    let minter = Minter::from_issuer(&issuer, arguments.key.as_deref()).map_err(Failure::usage)?;
    let token = minter.mint(&claims).map_err(Failure::usage)?;
    out::print(&format!("{token}\n")).map(drop)
}

fn scope(name: &str) -> Result<Scope, String> {
    let known = || Scope::ALL.map(Scope::as_str).join(", ");
    Scope::from_name(name).ok_or_else(|| format!("known are {}", known()))
}

fn ids(option: &'static str, texts: &[String]) -> Result<Ids, Failure> {
    if texts == ["*"] {
        return Ok(Ids::All);
    }
    let ids = texts.iter().map(|text| Id::parse(option, text).map(Id::get));
    Ok(Ids::Only(ids.collect::<Result<_, _>>().map_err(Failure::usage)?))
}
