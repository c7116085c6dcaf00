//! `attachd gc`: finds content that no record names, and deletes it when told to.

use std::time::{Duration, Instant, SystemTime};

use bytesize::ByteSize;
use clap::Args;

use super::failure::Failure;
use super::maintenance;
use crate::store::{End, Fate, Finding, Gc};
use crate::telemetry::TextFile;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    common: maintenance::Arguments,
    /// Delete what is found. Without it nothing is changed
    #[arg(long)]
    delete: bool,
}

/// What was come by so far.
#[derive(Default)]
struct Totals {
    attachments: u64,
    objects: u64,
    garbage: u64,
    garbage_bytes: u64,
    young: u64,
    deletions: u64,
    foreign: u64,
    errors: u64,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, delete } = arguments;
    let (mut totals, began) = (Totals::default(), Instant::now());
    let grace = common.grace;
    let maintenance::Walked { end, .. } = common
        .walk(
            |store, walk, listener| async move {
                Gc { walk, grace, now: SystemTime::now(), delete }.run(&store, listener).await
            },
            |finding| {
                totals.take(finding)
                    || common.verbose && matches!(finding, Finding::Orphan { .. } | Finding::Deleted { .. })
            },
        )
        .await?;
    common.report(|file| totals.report(file, &end, delete, began.elapsed()))?;
    maintenance::conclude(end, &totals.words(delete), totals.errors, if delete { "gc --delete" } else { "gc" })
}

impl Totals {
    /// Counts a finding, and says whether it is printed in any case.
    fn take(&mut self, finding: &Finding) -> bool {
        match finding {
            Finding::Attachment { .. } => self.attachments += 1,
            Finding::Content { objects } => self.objects += objects,
            Finding::Orphan { fate: Fate::Young, .. } => self.young += 1,
            Finding::Deleted { fate: Fate::Young, .. } => {}
            Finding::Deleted { .. } => self.deletions += 1,
            Finding::Orphan { size, .. } => {
                self.garbage += 1;
                self.garbage_bytes += size.unwrap_or_default();
            }
            Finding::Foreign { .. } => self.foreign += 1,
            _ => self.errors += 1,
        }
        !matches!(
            finding,
            Finding::Attachment { .. } | Finding::Content { .. } | Finding::Orphan { .. } | Finding::Deleted { .. }
        )
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 are more than there are")]
    fn report(&self, file: &mut TextFile, end: &End, delete: bool, took: Duration) {
        let Totals { attachments, objects, garbage, garbage_bytes, deletions, errors, .. } = self;
        let flag = |holds: bool| f64::from(u8::from(holds));
        file.add_times("attachd_gc_last_run_timestamp_seconds", "attachd_gc_duration_seconds", took);
        file.add("attachd_gc_complete", flag(matches!(end, End::Complete)));
        file.add("attachd_gc_attachments", *attachments as f64);
        file.add("attachd_gc_objects", *objects as f64);
        file.add("attachd_gc_garbage_objects", *garbage as f64);
        file.add("attachd_gc_garbage_bytes", *garbage_bytes as f64);
        file.add("attachd_gc_deleted_attachments", *deletions as f64);
        file.add("attachd_gc_deletes", flag(delete));
        file.add("attachd_gc_errors", *errors as f64);
    }

    fn words(&self, delete: bool) -> String {
        let Totals { attachments, objects, garbage, garbage_bytes, young, deletions, foreign, errors } = self;
        let done = if delete { "deleted" } else { "would delete" };
        let size = ByteSize::b(*garbage_bytes);
        let dry = if delete || garbage + deletions == 0 { "" } else { "; --delete does it" };
        format!(
            "{done} {garbage} objects ({size}) of {objects}, for {attachments} attachments; \
             {young} within the grace, {deletions} deleted attachments past it, {foreign} foreign, {errors} errors{dry}"
        )
    }
}
