//! The configuration as it is in force, for people: every key with its value, defaults and overrides included, and nothing
//! secret. Of the options of a storage those are masked of which its service does not know that they are harmless.

use toml::{Table, Value};

use super::problems::Error;
use super::sections::Config;

/// What stands in place of a secret.
const MASK: &str = "***";

impl Config {
    /// The configuration in force, in TOML, with secrets masked.
    pub fn shown(&self) -> Result<String, Error> {
        let mut table = Table::try_from(self).map_err(Error::new)?;
        if let Some(Value::Table(options)) = table.get_mut("storage").and_then(|storage| storage.get_mut("options")) {
            for (_, value) in options.iter_mut().filter(|(option, _)| !self.storage.may_show(option)) {
                *value = Value::String(MASK.to_owned());
            }
        }
        table.iter_mut().for_each(|(_, value)| mask_addresses(value));
        toml::to_string(&table).map_err(Error::new)
    }
}

/// Masks what stands before the host of every address: `https://name:password@host` has a secret in it.
fn mask_addresses(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(masked) = without_credentials(text) {
                *text = masked;
            }
        }
        Value::Array(all) => all.iter_mut().for_each(mask_addresses),
        Value::Table(all) => all.iter_mut().for_each(|(_, value)| mask_addresses(value)),
        _ => {}
    }
}

fn without_credentials(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (credentials, _) = authority.rsplit_once('@')?;
    Some(format!("{scheme}://{MASK}{}", &rest[credentials.len()..]))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LEAST, read};
    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_the_same_configuration() {
        let shown = read(LEAST, &[("ATTACHD_LIMITS__MAX_UPLOAD_SIZE", "1000001")]).unwrap().shown().unwrap();
        assert!(
            shown.contains("max_upload_size = \"1000001B\"") && shown.contains("idle_timeout = \"30s\""),
            "{shown}"
        );
        assert_eq!(read(&shown, &[]).unwrap().shown().unwrap(), shown);
    }

    #[test]
    fn an_option_of_a_storage_that_is_not_known_to_be_harmless_is_masked() {
        let mut config = read(LEAST, &[]).unwrap();
        for (name, value) in [("root", "/data"), ("secret_access_key", "hunter2"), ("brand_new_option", "hunter2")] {
            config.storage.options.insert(name.to_owned(), value.to_owned());
        }
        let shown = config.shown().unwrap();
        assert!(shown.contains("root = \"/data\"") && shown.contains("secret_access_key = \"***\""), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    #[cfg(feature = "s3")]
    fn of_a_service_all_but_its_secrets_is_shown() {
        let mut config = read(LEAST, &[]).unwrap();
        config.storage.service = "s3".to_owned();
        for (option, value) in [("bucket", "b"), ("secret_access_key_file", "f"), ("session_token", "hunter2")] {
            config.storage.options.insert(option.to_owned(), value.to_owned());
        }
        let shown = config.shown().unwrap();
        for line in ["bucket = \"b\"", "secret_access_key_file = \"f\"", "session_token = \"***\""] {
            assert!(shown.contains(line), "{shown}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_masked() {
        for (text, masked) in [
            ("https://me:hunter2@host/path?q=a@b", Some("https://***@host/path?q=a@b")),
            ("https://hunter2@host", Some("https://***@host")),
            ("https://a@b@host:1", Some("https://***@host:1")),
            ("https://host/a@b", None),
            ("me@host", None),
            ("https://", None),
        ] {
            assert_eq!(without_credentials(text).as_deref(), masked, "{text}");
        }
        let mut config = read(LEAST, &[]).unwrap();
        config.auth.issuers[0].issuer = "https://me:hunter2@id.example".to_owned();
        assert!(!config.shown().unwrap().contains("hunter2"));
    }
}
