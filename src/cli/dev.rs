//! `attachd dev`: a server that needs nothing but a folder, and says how to use it.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;

use super::failure::Failure;
use super::{out, serve};
use crate::auth::{self, Claims, IssuerConfig, Minter, Scope};
use crate::config::{Attachments, Config, Grpc, Limits, Listen, OnUnknown, Rest, Shutdown};
use crate::rest::DownloadConfig;
use crate::server::Addresses;
use crate::{store, telemetry};

/// The `iss` of the tokens of a development server.
const ISSUER: &str = "attachd-dev";

/// The `aud` of the tokens of a development server.
const AUDIENCE: &str = "attachd";

/// The signing key, in the data folder.
const KEY_FILE: &str = "dev-signing-key";

/// The token that the printed command reads, in the data folder.
const TOKEN_FILE: &str = "dev-token";

/// How long the printed token holds.
const TOKEN_TTL: Duration = Duration::from_secs(12 * 60 * 60);

#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder of the files and of the signing key; made where it is missing
    #[arg(long, value_name = "DIR", default_value = "attachd-data")]
    data: PathBuf,
    /// The address of the REST port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    rest: SocketAddr,
    /// The address of the gRPC port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    grpc: SocketAddr,
    /// The address of the admin port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Where to write the token that is printed [default: dev-token in the data folder]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { data, rest, grpc, admin, token_file } = arguments;
    let issuer = issuer(&data);
    prepare(&data, &issuer).map_err(|error| Failure::running(format!("{}: {error}", data.display())))?;
    let token = mint(&issuer)?;
    let token_file = token_file.unwrap_or_else(|| data.join(TOKEN_FILE));
    write_private(&token_file, token.as_bytes())
        .map_err(|error| Failure::running(format!("{}: {error}", token_file.display())))?;

    let storage = storage(&data)?;
    let log = telemetry::Config::default();
    let traces = telemetry::TracesConfig::default();
    let telemetry = telemetry::start(&log, &traces).map_err(Failure::running)?;
    let config = Config {
        rest: Rest { page: true, ..Rest::plain(rest) },
        grpc: Grpc { reflection: true, ..Grpc::plain(grpc) },
        admin: Listen { listen: admin },
        storage,
        attachments: Attachments { on_unknown: OnUnknown::Create, ..Attachments::default() },
        download: DownloadConfig::default(),
        limits: Limits::default(),
        auth: auth::Config { issuers: vec![issuer], ..auth::Config::default() },
        log,
        traces,
        shutdown: Shutdown { delay: Duration::ZERO, grace: Duration::from_secs(5) },
    };
    serve::run(config, telemetry, |addresses| {
        // A server goes on without a reader: the token is in its file as well.
        out::print(&announcement(addresses, &data, &token, &token_file).map_err(Failure::running)?).map(drop)
    })
    .await
}

/// The storage of a development server, in its data folder.
pub fn storage(data: &Path) -> Result<store::Config, Failure> {
    let root = data.to_str().ok_or_else(|| Failure::usage("--data: the path must be UTF-8"))?.to_owned();
    Ok(store::Config::new("fs", BTreeMap::from([("root".to_owned(), root)])))
}

/// The issuer of a development server's tokens, whose key lies in its data folder.
pub fn issuer(data: &Path) -> IssuerConfig {
    IssuerConfig {
        issuer: ISSUER.to_owned(),
        audience: vec![AUDIENCE.to_owned()],
        algorithms: vec!["HS256".to_owned()],
        hmac_secret_file: Some(data.join(KEY_FILE)),
        ..IssuerConfig::default()
    }
}

fn prepare(data: &Path, issuer: &IssuerConfig) -> io::Result<()> {
    create_durably(data)?;
    // The data folder is the storage's root, and no link below that is followed.
    for name in [KEY_FILE, TOKEN_FILE] {
        if data.join(name).is_symlink() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name} is a symbolic link; delete it, and attachd dev writes a file"),
            ));
        }
    }
    match &issuer.hmac_secret_file {
        Some(key) if !key.exists() => {
            let mut secret = [0; 32];
            aws_lc_rs::rand::fill(&mut secret).map_err(|_| io::Error::other("no random numbers"))?;
            let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            write_private(key, hex.as_bytes())
        }
        _ => Ok(()),
    }
}

/// Creates a directory and those above it, and makes the entries of those that it created durable.
fn create_durably(directory: &Path) -> io::Result<()> {
    let directory = std::path::absolute(directory)?;
    let missing: Vec<&Path> = directory.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(&directory)?;
    let mut above = missing.iter().filter_map(|created| created.parent());
    above.try_for_each(|above| File::open(above)?.sync_all())
}

fn mint(issuer: &IssuerConfig) -> Result<String, Failure> {
    let claims = Claims {
        subject: "developer".to_owned(),
        scopes: Scope::ALL.to_vec(),
        clients: auth::Ids::All,
        projects: auth::Ids::All,
        portfolios: auth::Ids::All,
        ttl: TOKEN_TTL,
        now: SystemTime::now(),
    };
    Minter::from_issuer(issuer, None).map_err(Failure::running)?.mint(&claims).map_err(Failure::running)
}

/// Writes what only the owner may read.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    // The mode above is that of a new file; one that stands keeps its own.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn announcement(addresses: Addresses, data: &Path, token: &str, token_file: &Path) -> io::Result<String> {
    let Addresses { rest, grpc, admin } = addresses;
    let program = std::env::current_exe()?;
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let (program, token_path) = (quoted(&program), quoted(token_file));
    Ok(format!(
        "attachd is ready. The files are in {data}.

  REST   http://{rest}
  gRPC   http://{grpc}
  admin  http://{admin}/readyz

Open this page in a browser to upload files:
http://{rest}/#token={token}

token (12 hours, all clients):
{token}

Upload over REST:
echo 'hello' | curl -sS -H 'Authorization: Bearer {token}' \\
  -F 'file=@-;filename=hello.txt;type=text/plain' http://{rest}/api/v2/clients/1/attachments/1

Upload over gRPC:
{program} upload {program} --client 1 --attachment 2 --to http://{grpc} --token-file {token_path}

Press Ctrl-C to end it.
",
        data = data.display(),
    ))
}
