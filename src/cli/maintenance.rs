//! What the commands that walk over a whole storage have in common: which storage, how old is old, how many at once, how the
//! walk is stopped, and how it is shown. What is looked for, it must not know.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::serve::ends;
use super::{dev, out, show};
use crate::attachment::Id;
use crate::config::Limits;
use crate::store::{Access, End, Finding, Store, Walk};
use crate::telemetry::{Metrics, TextFile};

/// How many findings may wait to be shown. Past it the walk waits.
const WAITING: usize = 256;

/// How often the progress is drawn, at most.
const DRAWN_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
// The commands' own arguments have the name of their group.
#[group(skip)]
pub struct Arguments {
    /// The configuration that names the storage
    #[arg(long, value_name = "FILE", required_unless_present = "data", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// The data folder of `attachd dev`
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long content may lie there without a record before it is garbage, such as 90m, 24h or 7d. Must be longer than
    /// limits.max_upload_time: until then its upload may be running. Leave minutes more, for the commit that ends an upload
    /// and for clocks that differ
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    pub grace: Duration,
    /// Begin with this client and leave out those with lower numbers, as after a stop
    #[arg(long, value_name = "CLIENT", value_parser = client)]
    from: Option<Id>,
    /// How many attachments to look at at once. Each may hold 4 MiB of memory while it is read back
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Print a line for each object that no record names
    #[arg(long)]
    pub verbose: bool,
    /// Where to write the numbers of the run when it ends, for the textfile collector of the Prometheus node exporter, which
    /// wants a name that ends with .prom
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

fn client(text: &str) -> Result<Id, String> {
    Id::parse("client", text).map_err(|error| error.public_details().into_owned())
}

impl Arguments {
    /// Opens the storage that the arguments name, and says which it is.
    fn open(&self) -> Result<(Arc<Store>, String), Failure> {
        let (storage, limits) = match (&self.config, &self.data) {
            (Some(config), _) => {
                let config = show::load(config)?;
                (config.storage, config.limits)
            }
            // A walk over a folder that is not there would be a success that says nothing.
            (None, Some(data)) if !data.is_dir() => {
                return Err(Failure::usage(format!("--data: {} is not a folder", data.display())));
            }
            (None, Some(data)) => (dev::storage(data)?, Limits::default()),
            (None, None) => return Err(Failure::usage("--config or --data is needed")),
        };
        let max_upload_time = limits.max_upload_time;
        if self.grace <= max_upload_time {
            let longest = humantime::format_duration(max_upload_time);
            return Err(Failure::usage(format!(
                "--grace: must be longer than limits.max_upload_time, which is {longest}: content that is not older may \
                 belong to an upload that is running"
            )));
        }
        let opened = Store::open(&storage, Access::Inspect, limits.sizing(), &Metrics::default());
        opened.map(|store| (Arc::new(store), storage.describe())).map_err(Failure::usage)
    }

    /// Walks over the storage: `begin` starts the walk, `take` is told each finding and says whether to print it.
    /// SIGINT and SIGTERM stop it.
    pub async fn walk<W>(
        &self,
        begin: impl FnOnce(Arc<Store>, Walk, mpsc::Sender<Finding>) -> W,
        mut take: impl FnMut(&Finding) -> bool,
    ) -> Result<Walked, Failure>
    where
        W: Future<Output = End> + Send + 'static,
    {
        let (store, storage) = self.open()?;
        if let Err(error) = store.inspect().await {
            return Err(Failure::running(format!("{storage}: {}", error.for_operator())));
        }
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let ends = ends().map_err(Failure::running)?;
        let ends = tokio::spawn(async move {
            ends.await;
            stopper.cancel();
        });
        let progress = progress()?;
        let (listener, mut findings) = mpsc::channel(WAITING);
        let walk = Walk { from: self.from, concurrency: usize::from(self.concurrency), stop };
        let walking = tokio::spawn(begin(store, walk, listener));
        while let Some(finding) = findings.recv().await {
            if matches!(finding, Finding::Attachment { .. }) {
                progress.inc(1);
            }
            if take(&finding) {
                // A walk that nobody reads need not go on: it ends when `findings` is dropped.
                if progress.suspend(|| out::print(&format!("{finding}\n")))? == out::Reader::Gone {
                    return Err(Failure::unread());
                }
            }
        }
        let end = walking.await.map_err(Failure::running)?;
        ends.abort();
        progress.finish_and_clear();
        Ok(Walked { end, storage })
    }
}

/// A walk that has ended.
pub struct Walked {
    pub end: End,
    /// Which storage it was.
    pub storage: String,
}

impl Arguments {
    /// Whether the walk was to begin at the first client.
    pub fn is_from_the_start(&self) -> bool {
        self.from.is_none()
    }

    /// Writes the numbers of a run, where they are asked for.
    pub fn report(&self, numbers: impl FnOnce(&mut TextFile)) -> Result<(), Failure> {
        let Some(path) = &self.metrics_file else {
            return Ok(());
        };
        let mut file = TextFile::default();
        numbers(&mut file);
        file.write(path).map_err(|error| Failure::running(format!("--metrics-file: {}: {error}", path.display())))
    }
}

/// Prints the totals, and turns what a walk came to into how the process ends.
pub fn conclude(end: End, totals: &str, bad: u64, command: &str) -> Result<(), Failure> {
    out::print(&format!("{totals}\n"))?;
    match end {
        End::Stopped(client) => Err(Failure::running(format!(
            "stopped before the end; `attachd {command} … --from {client}` goes on from there"
        ))),
        End::Complete if bad > 0 => Err(Failure::running(format!("{bad} things are not as they should be"))),
        End::Complete => Ok(()),
    }
}

/// A line that counts, on a terminal; nothing elsewhere.
fn progress() -> Result<ProgressBar, Failure> {
    if !io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} attachments, {per_sec}, {elapsed}");
    let progress = ProgressBar::new_spinner().with_style(style.map_err(Failure::running)?);
    progress.enable_steady_tick(DRAWN_EVERY);
    Ok(progress)
}
