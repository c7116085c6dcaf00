//! The numbers of a command that ends, in a file: nothing can scrape it, so it leaves them for whoever collects such files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::exposition::register;

/// A number that is handed over once.
type Value = Gauge<f64, std::sync::atomic::AtomicU64>;

/// The numbers of one run.
#[derive(Debug, Default)]
pub struct TextFile(Registry);

impl TextFile {
    /// Adds a number under a name of the catalogue.
    pub fn add(&mut self, name: &'static str, value: f64) {
        let gauge = Value::default();
        gauge.set(value);
        register(&mut self.0, name, gauge);
    }

    /// Adds a number for each value of a label.
    pub fn add_by(&mut self, name: &'static str, label: &'static str, values: &[(&'static str, f64)]) {
        let family = Family::<[(&str, &str); 1], Value>::default();
        for (value, number) in values {
            family.get_or_create(&[(label, *value)]).set(*number);
        }
        register(&mut self.0, name, family);
    }

    /// Adds when the run ended, which is now, and how long it took.
    pub fn add_times(&mut self, ended: &'static str, lasted: &'static str, took: Duration) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.add(ended, now.as_secs_f64());
        self.add(lasted, took.as_secs_f64());
    }

    /// Writes the file in one step: whoever collects it sees the old one or the new one, whole.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0).map_err(io::Error::other)?;
        let mut name = file.file_name().ok_or_else(|| io::Error::other("it names no file"))?.to_owned();
        // Collectors look at names that end with `.prom`.
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = file.with_file_name(name);
        let written = File::create(&temporary).and_then(|mut new| {
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            fs::rename(&temporary, file)
        });
        if written.is_err() {
            // What is left of it is nobody's, and the error is told.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}
