//! `attachd verify`: reads all that is stored back and compares it with its records.

use std::time::{Duration, Instant, SystemTime};

use bytesize::ByteSize;
use clap::Args;

use super::failure::Failure;
use super::maintenance;
use crate::store::{End, Fate, Finding, Verify};
use crate::telemetry::TextFile;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    common: maintenance::Arguments,
    /// Pass on a storage that holds nothing. Without it that is a failure: it may be the wrong storage, or a volume that is
    /// not mounted
    #[arg(long)]
    allow_empty: bool,
}

/// What was come by so far.
#[derive(Default)]
struct Totals {
    attachments: u64,
    objects: u64,
    bytes: u64,
    missing: u64,
    damaged: u64,
    unreadable: u64,
    orphaned: u64,
    young: u64,
    foreign: u64,
    links: u64,
    failed: u64,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, allow_empty } = arguments;
    let (mut totals, began) = (Totals::default(), Instant::now());
    let grace = common.grace;
    let maintenance::Walked { end, storage } = common
        .walk(
            |store, walk, listener| async move {
                Verify { walk, grace, now: SystemTime::now() }.run(&store, listener).await
            },
            |finding| totals.take(finding) || common.verbose && matches!(finding, Finding::Orphan { .. }),
        )
        .await?;
    common.report(|file| totals.report(file, &end, began.elapsed()))?;
    let words = format!("storage: {storage}\n{}", totals.words());
    maintenance::conclude(end, &words, totals.bad(), "verify")?;
    if totals.attachments == 0 && totals.objects == 0 && common.is_from_the_start() && !allow_empty {
        return Err(Failure::running(format!(
            "{storage}: the storage holds no attachments; name the right one, or mount its volume, or pass --allow-empty"
        )));
    }
    Ok(())
}

impl Totals {
    /// Counts a finding, and says whether it is printed in any case.
    fn take(&mut self, finding: &Finding) -> bool {
        match finding {
            Finding::Attachment { bytes } => {
                self.attachments += 1;
                self.bytes += bytes;
            }
            Finding::Content { objects } => self.objects += objects,
            Finding::Orphan { fate: Fate::Young, .. } => self.young += 1,
            // Only a sweep looks for them.
            Finding::Deleted { .. } => {}
            Finding::Orphan { .. } => self.orphaned += 1,
            Finding::Foreign { .. } => self.foreign += 1,
            Finding::Link { .. } => self.links += 1,
            Finding::Unreadable { .. } => self.unreadable += 1,
            Finding::Missing { .. } => self.missing += 1,
            Finding::Damaged { .. } => self.damaged += 1,
            Finding::Failed { .. } => self.failed += 1,
        }
        !matches!(
            finding,
            Finding::Attachment { .. } | Finding::Content { .. } | Finding::Orphan { fate: Fate::Young, .. }
        )
    }

    /// How many findings there are that should not be. Orphans past the grace are among them: what lost its record looks
    /// like that, and a sweep would delete it.
    fn bad(&self) -> u64 {
        self.missing + self.damaged + self.unreadable + self.orphaned + self.failed + self.links
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 are more than there are")]
    fn report(&self, file: &mut TextFile, end: &End, took: Duration) {
        let Totals { attachments, bytes, missing, damaged, unreadable, orphaned, failed, links, .. } = self;
        file.add_times("attachd_verify_last_run_timestamp_seconds", "attachd_verify_duration_seconds", took);
        file.add("attachd_verify_complete", f64::from(u8::from(matches!(end, End::Complete))));
        file.add("attachd_verify_attachments", *attachments as f64);
        file.add("attachd_verify_bytes", *bytes as f64);
        let findings = [
            ("missing", *missing as f64),
            ("damaged", *damaged as f64),
            ("unreadable", *unreadable as f64),
            ("orphaned", *orphaned as f64),
            ("failed", *failed as f64),
            ("link", *links as f64),
        ];
        file.add_by("attachd_verify_findings", "finding", &findings);
    }

    fn words(&self) -> String {
        let Totals { attachments, objects, bytes, missing, damaged, unreadable, .. } = self;
        let Totals { orphaned, young, foreign, failed, links, .. } = self;
        let size = ByteSize::b(*bytes);
        format!(
            "read {attachments} attachments ({size}); {objects} objects of content: {missing} missing, {damaged} damaged, {unreadable} unreadable, \
             {orphaned} orphaned, {failed} failed, {links} links; {young} within the grace, {foreign} foreign"
        )
    }
}
