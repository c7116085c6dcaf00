//! A file and the variables of the process become a configuration: read, overridden and judged by the rules that a type cannot
//! express. The only reader of the environment, which it takes as a map so that a test can supply one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use bytesize::ByteSize;
use toml::{Table, Value};

use super::overrides::{self, PREFIX, overrides, set, value};
use super::problems::{Error, Problems};
use super::sections::{Config, HTTP2_WINDOW, LONGEST_READ_GRACE, LONGEST_UNDELETE_WINDOW};
use super::warnings::{self, Warning};
use super::{address, reference};
use crate::store::Sizing;
use crate::{budget, tls};

/// What is said where there is no storage.
const NO_STORAGE: &str = "is missing, and has no default; for files in a folder write two lines below [storage]: service = \"fs\" \
                          and options.root = \"/var/lib/attachd\"";

impl Config {
    /// Reads `file` and the variables of this process.
    pub fn load(file: &Path) -> Result<Config, Error> {
        Config::load_with(file, &variables()?)
    }

    /// Reads `file` and the given variables.
    pub fn load_with(file: &Path, variables: &BTreeMap<String, String>) -> Result<Config, Error> {
        let text = std::fs::read_to_string(file).map_err(|error| Error::new(error).within(file))?;
        let table: Table = toml::from_str(&text).map_err(|error| Error::new(error).within(file))?;
        let mut config = Config::from_table(table, variables).map_err(|error| error.within(file))?;
        // A key file is named as seen from the file that names it, wherever the process was started.
        let folder = file.parent().unwrap_or(Path::new(""));
        config.storage.resolve(folder);
        config.traces.resolve(folder);
        for issuer in &mut config.auth.issuers {
            for path in issuer.paths_mut() {
                *path = folder.join(&*path);
            }
        }
        for tls in [&mut config.rest.tls, &mut config.grpc.tls].into_iter().flatten() {
            tls.resolve(folder);
        }
        Ok(config)
    }

    fn from_table(mut table: Table, variables: &BTreeMap<String, String>) -> Result<Config, Error> {
        let overrides = overrides(variables);
        let mut problems = Problems::new(&overrides, reference::variables());
        for (path, (_, text)) in &overrides {
            let parts: Vec<&str> = path.split('.').collect();
            // An option of a storage service is text whatever it looks like: a secret may look like a number.
            let value = if path.starts_with("storage.options.") { Value::String(text.clone()) } else { value(text) };
            if let Err(why) = set(&mut table, &parts, value) {
                problems.add(path, &why);
            }
        }
        if !table.contains_key("storage") {
            problems.add("storage", NO_STORAGE);
            table.insert("storage".to_owned(), toml::toml! { service = "memory" }.into());
        }
        let Some(config) = problems.read::<Config>(table) else {
            return problems.check().and_then(|()| Err(Error::new("the configuration cannot be read")));
        };
        config.validate(&mut problems);
        problems.check().map(|()| config)
    }

    /// The rules that a type cannot express.
    fn validate(&self, problems: &mut Problems<'_>) {
        let limits = &self.limits;
        if limits.memory_budget.as_u64() < budget::LEAST {
            problems.add("limits.memory_budget", &format!("must be at least {}", ByteSize::b(budget::LEAST)));
        }
        if limits.download_budget.as_u64() < budget::reading::LEAST {
            let least = ByteSize::b(budget::reading::LEAST);
            problems.add("limits.download_budget", &format!("must be at least {least}"));
        }
        let window = limits.http2_window.as_u64();
        if window > 0 && !HTTP2_WINDOW.contains(&window) {
            problems.add("limits.http2_window", "must be 0, or from 64KiB to 8MiB");
        }
        if !(1..=i64::MAX.cast_unsigned()).contains(&limits.max_upload_size.as_u64()) {
            problems.add("limits.max_upload_size", "must be from 1 to 9223372036854775807 bytes");
        }
        if limits.max_waiting_uploads == 0 {
            problems.add("limits.max_waiting_uploads", "must be at least 1: with 0 every upload is refused");
        }
        for (key, count) in [
            ("limits.max_connections", limits.max_connections),
            ("limits.max_handshakes", limits.max_handshakes),
            ("limits.max_drains", limits.max_drains),
        ] {
            if count == 0 {
                problems.add(key, "must be at least 1");
            }
        }
        for (key, time) in [
            ("limits.idle_timeout", limits.idle_timeout),
            ("limits.write_timeout", limits.write_timeout),
            ("limits.max_upload_time", limits.max_upload_time),
            ("limits.min_rate_window", limits.min_rate_window),
            ("limits.handshake_timeout", limits.handshake_timeout),
            ("limits.drain_time", limits.drain_time),
        ] {
            if time.is_zero() {
                problems.add(key, "must be more than zero");
            }
        }
        for (key, why) in limits.per_client.validate() {
            problems.add(&format!("limits.per_client.{key}"), &why);
        }
        if let Err((key, why)) = self.download.validate() {
            problems.add(key, why);
        }
        if let (true, Err(why)) = (self.download.redirect, self.storage.check_signing()) {
            problems.add("download.redirect", &why);
        }
        for (key, time, longest) in [
            ("attachments.undelete_window", self.attachments.undelete_window, LONGEST_UNDELETE_WINDOW),
            ("attachments.read_grace", self.attachments.read_grace, LONGEST_READ_GRACE),
        ] {
            if time > longest {
                problems.add(key, &format!("must be at most {}", humantime::format_duration(longest)));
            }
        }
        if let Err((key, why)) = self.traces.validate() {
            problems.add(key, &why);
        }
        if let Err((key, why)) = self.log.validate() {
            problems.add(key, why);
        }
        if let Err(why) = self.log.parse_filter() {
            problems.add("log.filter", &why);
        }
        for (section, tls) in [("rest.tls", &self.rest.tls), ("grpc.tls", &self.grpc.tls)] {
            if let Some(Err((key, why))) = tls.as_ref().map(tls::Config::check) {
                problems.add(&format!("{section}.{key}"), &why);
            }
        }
        let asked = [&self.rest.tls, &self.grpc.tls].into_iter().flatten().any(|tls| tls.client_ca_file.is_some());
        if !self.auth.certificates.is_empty() && !asked {
            problems.add("auth.certificates", "no port asks for a certificate: give grpc.tls.client_ca_file");
        }
        if let Err(error) = self.storage.validate() {
            problems.add(&error.key(), error.why());
        }
        self.validate_ports(problems);
        // The rule compares keys, so it says nothing while one of them is in question. If there is little memory, one part is
        // sent at once.
        let sizing = Sizing { memory: 0, ..limits.sizing() };
        if problems.none_at("limits") && problems.none_at("storage") {
            let least = budget::least(self.storage.kept_by_upload(sizing));
            if limits.memory_budget.as_u64() < least {
                let parts = "for the parts that the storage takes uploads of limits.max_upload_size in";
                problems.add("limits.memory_budget", &format!("must be at least {} {parts}", ByteSize::b(least)));
            }
        }
    }

    /// No two ports listen on one address.
    fn validate_ports(&self, problems: &mut Problems<'_>) {
        let (rest, grpc, admin) = (self.rest.listen, self.grpc.listen, self.admin.listen);
        let (rest, grpc, admin) = (("rest.listen", rest), ("grpc.listen", grpc), ("admin.listen", admin));
        for ((first, taken), (second, wanted), free) in [(rest, grpc, 50051), (rest, admin, 9090), (grpc, admin, 9090)]
        {
            if address::collide(taken, wanted) && problems.none_at(first) && problems.none_at(second) {
                let free = if free == wanted.port() { free + 1 } else { free };
                let mend = SocketAddr::new(wanted.ip(), free);
                let why = format!(
                    "{wanted} cannot be listened on beside {first} = {taken}; each port needs an address of its own, such \
                     as \"{mend}\""
                );
                problems.add(second, &why);
            }
        }
    }
}

/// The variables of this process. Those that do not begin as ours do need not be UTF-8.
fn variables() -> Result<BTreeMap<String, String>, Error> {
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.to_uppercase().starts_with(PREFIX))?;
        Some(match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(Error::new(format!("the value of the variable {name} is not UTF-8"))),
        })
    });
    ours.collect()
}

/// The token in the environment, if there is one.
pub fn token() -> Option<std::ffi::OsString> {
    std::env::var_os(overrides::TOKEN).filter(|token| !token.is_empty())
}

/// Warnings of variables that look as if they were meant to override a key and do not.
pub fn ignored_variables() -> Result<Vec<Warning>, Error> {
    Ok(warnings::ignored(&variables()?, &reference::variables()))
}
