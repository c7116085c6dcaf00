//! From runs to a table for people and a file for programs. Values are medians; a ratio is the median of the ratios within
//! each round, since the speed of a machine drifts from round to round.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cell::{Cell, Load};
use crate::contestant::Contestant;
use crate::load::{Ordeal, Outcome, Stage};
use crate::read::Read;

/// What all others are compared with.
const REFERENCE: &str = "floor-sha";

/// What reads are compared with as well.
const READ_REFERENCE: &str = "nginx";

/// And on S3 with this.
const S3_REFERENCE: &str = "OpenDAL copy";

/// And small uploads with this, since what is durable is compared with what is durable.
const DURABLE_REFERENCE: &str = "floor-fsync";

/// One contestant, one load, once.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the clients saw.
    pub outcome: Outcome,
    /// The processor time of the server.
    pub server_cpu: Duration,
    /// The processor time of the clients.
    pub client_cpu: Duration,
    /// The memory of the server at the end, in bytes.
    pub resident: u64,
    /// The peak memory of the server, in bytes.
    pub peak: u64,
}

/// One contestant, one load, in all rounds.
#[derive(Clone, Debug)]
pub struct Row {
    /// The name of the cell.
    pub cell: String,
    /// Who.
    pub contestant: Contestant,
    /// In the order of the rounds.
    pub runs: Vec<Run>,
}

impl Run {
    fn mib_per_second(&self) -> f64 {
        mib(self.outcome.bytes) / self.outcome.time.as_secs_f64()
    }

    fn uploads_per_second(&self) -> f64 {
        self.outcome.uploads as f64 / self.outcome.time.as_secs_f64()
    }

    /// Seconds of the processor for a GiB.
    fn cpu_per_gib(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1024.0 / mib(self.outcome.bytes)
    }

    fn client_cpu_per_gib(&self) -> f64 {
        self.client_cpu.as_secs_f64() * 1024.0 / mib(self.outcome.bytes)
    }

    /// Microseconds of the processor for an upload.
    fn cpu_per_upload(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.outcome.uploads as f64
    }

    fn client_cpu_per_upload(&self) -> f64 {
        self.client_cpu.as_secs_f64() * 1e6 / self.outcome.uploads as f64
    }

    fn peak_mib(&self) -> f64 {
        mib(self.peak)
    }

    /// In milliseconds.
    fn quantile(&self, share: f64) -> f64 {
        quantile(&self.outcome.latencies, share)
    }
}

/// The time that such a share of uploads did not pass, in milliseconds, of times in microseconds.
fn quantile(latencies: &[u32], share: f64) -> f64 {
    let at = (latencies.len().saturating_sub(1) as f64 * share).round() as usize;
    latencies.get(at).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

impl Row {
    /// The median over the rounds.
    fn median(&self, value: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(value).collect())
    }

    /// The median of the ratios to another row, round by round.
    fn ratio(&self, other: &Row, value: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().zip(&other.runs).map(|(run, other)| value(run) / value(other)).collect())
    }

    /// What a bar of a plot shows: uploads in a second of small ones, memory of slow ones, else MiB in a second.
    pub fn headline(&self) -> f64 {
        match self.cell.split('/').next() {
            Some(name) if name.starts_with("share-") || name.starts_with("overload-") => {
                self.median(Run::uploads_per_second)
            }
            Some(name) if name.starts_with("hostile-") => self.median(|run| run.quantile(0.99)),
            Some("small" | "get-small" | "get-ranges") => self.median(Run::uploads_per_second),
            Some(name) if name.starts_with("list-") => self.median(Run::uploads_per_second),
            Some("slow" | "drip" | "idle" | "get-slow") => self.median(Run::peak_mib),
            _ => self.median(Run::mib_per_second),
        }
    }

    /// Its unit.
    pub fn unit(&self) -> &'static str {
        match self.cell.split('/').next() {
            Some(name) if name == "small" || name.starts_with("share-") || name.starts_with("overload-") => "uploads/s",
            Some(name) if name.starts_with("hostile-") => "ms at p99",
            Some("get-small" | "get-ranges") => "reads/s",
            Some(name) if name.starts_with("list-") => "pages/s",
            Some("slow" | "drip" | "idle" | "get-slow") => "MiB at the peak",
            _ => "MiB/s",
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The head of a table of attacks.
const HOSTILE: &str = "| | ended by the server | server cores | honest p50 ms | p99 ms | lost | peak RSS MiB | RSS after MiB | log KB/s |\n\
                       |---|---|---|---|---|---|---|---|---|\n";

/// A line of such a table.
fn hostile(name: &str, row: &Row) -> String {
    let of = |value: fn(&Ordeal) -> f64| row.median(|run| run.outcome.ordeal.as_ref().map_or(f64::NAN, value));
    let opened = of(|ordeal| ordeal.opened as f64);
    let ended = match opened {
        0.0 => "–".to_owned(),
        _ => format!("{:.0} of {opened:.0}", of(|ordeal| ordeal.ended as f64)),
    };
    format!(
        "| {name} | {ended} | {:.2} | {:.1} | {:.1} | {:.0} of {:.0} | {:.1} | {:.1} | {:.1} |\n",
        of(|ordeal| ordeal.cores),
        row.median(|run| run.quantile(0.5)),
        row.median(|run| run.quantile(0.99)),
        of(|ordeal| ordeal.lost as f64),
        row.median(|run| run.outcome.uploads as f64) + of(|ordeal| ordeal.lost as f64),
        row.median(Run::peak_mib),
        row.median(|run| mib(run.resident)),
        of(|ordeal| ordeal.log) / 1000.0,
    )
}

/// All attacks in one table, if there are any.
pub fn attacks(cells: &[Cell], rows: &[Row]) -> Option<String> {
    let mut table = format!("\n### All attacks\n\n{HOSTILE}");
    let attacks = cells.iter().filter(|cell| matches!(cell.load, Load::Hostile(_)));
    let lines: Vec<_> = attacks
        .flat_map(|cell| {
            let of_cell = rows.iter().filter(|row| row.cell == cell.name());
            of_cell.map(|row| hostile(&format!("{}, {}", cell.title, row.contestant.name), row))
        })
        .collect();
    table.extend(lines.iter().map(String::as_str));
    (!lines.is_empty()).then_some(table)
}

/// The table of one cell.
pub fn table(cell: &Cell, rows: &[Row]) -> String {
    let find = |name: &str| rows.iter().find(|row| row.contestant.name == name);
    let reference = find(REFERENCE).or_else(|| find(S3_REFERENCE));
    let versus = reference.map_or(REFERENCE, |reference| reference.contestant.name);
    let ratio = |row: &Row, reference: Option<&Row>, value: fn(&Run) -> f64| {
        reference.map_or("–".to_owned(), |reference| format!("{:.2}", row.ratio(reference, value)))
    };
    let (what, second) = match cell.load {
        Load::Read(Read::Pages { .. }) => ("page", READ_REFERENCE),
        Load::Read(_) => ("read", READ_REFERENCE),
        _ => ("upload", DURABLE_REFERENCE),
    };
    let mut table = format!("\n### {}: {}\n\n", cell.name(), cell.title);
    match cell.load {
        Load::Idle(_) => {
            table += "| | ms from start to ready | RSS MiB | peak RSS MiB |\n|---|---|---|---|\n";
            for row in rows {
                let _ = writeln!(
                    table,
                    "| {} | {:.1} | {:.1} | {:.1} |",
                    row.contestant.name,
                    row.median(|run| run.outcome.time.as_secs_f64() * 1000.0),
                    row.median(|run| mib(run.resident)),
                    row.median(Run::peak_mib),
                );
            }
        }
        Load::Read(Read::Slow { .. }) => {
            table += "| | peak RSS MiB | an upload beside them, MiB/s |\n|---|---|---|\n";
            for row in rows {
                let beside = |run: &Run| run.outcome.beside.map_or(f64::NAN, |bytes| mib(bytes as u64));
                let beside = row.median(beside);
                let beside = if beside.is_nan() { "–".to_owned() } else { format!("{beside:.0}") };
                let peak = row.median(Run::peak_mib);
                let _ = writeln!(table, "| {} | {peak:.1} | {beside} |", row.contestant.name);
            }
        }
        Load::Bulk { .. } | Load::Read(Read::Bulk { .. }) => {
            let _ = writeln!(
                table,
                "| | MiB/s | × {versus} | × {second} | CPU s/GiB | × {versus} | peak RSS MiB | client CPU s/GiB |"
            );
            table += "|---|---|---|---|---|---|---|---|\n";
            for row in rows {
                let _ = writeln!(
                    table,
                    "| {} | {:.0} | {} | {} | {:.2} | {} | {:.1} | {:.2} |",
                    row.contestant.name,
                    row.median(Run::mib_per_second),
                    ratio(row, reference, Run::mib_per_second),
                    ratio(row, find(second), Run::mib_per_second),
                    row.median(Run::cpu_per_gib),
                    ratio(row, reference, Run::cpu_per_gib),
                    row.median(Run::peak_mib),
                    row.median(Run::client_cpu_per_gib),
                );
            }
        }
        Load::Share(_) => {
            table += "| | uploads/s | alone | × alone | p99 ms | alone | × alone | of the crowd, uploads/s | refused | peak RSS MiB |\n";
            table += "|---|---|---|---|---|---|---|---|---|---|\n";
            for row in rows {
                let alone = |run: &Run, value: fn(&Run) -> f64| {
                    let (outcome, ..) = run.outcome.beside_crowd.as_ref()?;
                    Some(value(&Run { outcome: (**outcome).clone(), ..run.clone() }))
                };
                let crowd = |run: &Run| {
                    run.outcome.beside_crowd.as_ref().map(|(_, accepted, refused)| (*accepted as f64, *refused as f64))
                };
                let p99: fn(&Run) -> f64 = |run| run.quantile(0.99);
                let without = |value| move |run: &Run| alone(run, value).unwrap_or(f64::NAN);
                let of = |value: fn(&Run) -> f64| move |run: &Run| value(run) / alone(run, value).unwrap_or(f64::NAN);
                let _ = writeln!(
                    table,
                    "| {} | {:.1} | {:.1} | {:.2} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {:.1} |",
                    row.contestant.name,
                    row.median(Run::uploads_per_second),
                    row.median(without(Run::uploads_per_second)),
                    row.median(of(Run::uploads_per_second)),
                    row.median(p99),
                    row.median(without(p99)),
                    row.median(of(p99)),
                    row.median(
                        |run| crowd(run).map_or(f64::NAN, |(accepted, _)| accepted / run.outcome.time.as_secs_f64())
                    ),
                    row.median(|run| crowd(run).map_or(f64::NAN, |(_, refused)| refused)),
                    row.median(Run::peak_mib),
                );
            }
        }
        Load::Overload(_) => {
            table += "| | connections | accepted/s | × the first | refused/s | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|\n";
            for row in rows {
                let stages = row.runs.iter().map(|run| run.outcome.stages.len()).min().unwrap_or_default();
                for at in 0..stages {
                    let of = |value: fn(&Stage) -> f64| row.median(|run| value(&run.outcome.stages[at]));
                    let accepted: fn(&Stage) -> f64 = |stage| stage.accepted as f64 / stage.time.as_secs_f64();
                    let again = if at + 1 == stages { ", at once afterwards" } else { "" };
                    let _ = writeln!(
                        table,
                        "| {} | {:.0}{again} | {:.0} | {:.2} | {:.0} | {:.1} | {:.1} |",
                        row.contestant.name,
                        of(|stage| stage.connections as f64),
                        of(accepted),
                        row.median(|run| accepted(&run.outcome.stages[at]) / accepted(&run.outcome.stages[0])),
                        of(|stage| stage.refused as f64 / stage.time.as_secs_f64()),
                        of(|stage| quantile(&stage.latencies, 0.5)),
                        of(|stage| quantile(&stage.latencies, 0.99)),
                    );
                }
            }
        }
        Load::Hostile(_) => {
            table += HOSTILE;
            for row in rows {
                table += &hostile(row.contestant.name, row);
            }
        }
        Load::Paced { .. } => {
            table += "| | peak RSS MiB | MiB/s | CPU µs/upload | client CPU µs/upload |\n|---|---|---|---|---|\n";
            for row in rows {
                let _ = writeln!(
                    table,
                    "| {} | {:.1} | {:.1} | {:.0} | {:.0} |",
                    row.contestant.name,
                    row.median(Run::peak_mib),
                    row.median(Run::mib_per_second),
                    row.median(Run::cpu_per_upload),
                    row.median(Run::client_cpu_per_upload),
                );
            }
        }
        Load::Small { .. } | Load::Read(_) => {
            let _ = writeln!(
                table,
                "| | {what}s/s | × {versus} | × {second} | p50 ms | p99 ms | CPU µs/{what} | peak RSS MiB | client CPU µs/{what} |"
            );
            table += "|---|---|---|---|---|---|---|---|---|\n";
            for row in rows {
                let _ = writeln!(
                    table,
                    "| {} | {:.0} | {} | {} | {:.2} | {:.2} | {:.0} | {:.1} | {:.0} |",
                    row.contestant.name,
                    row.median(Run::uploads_per_second),
                    ratio(row, reference, Run::uploads_per_second),
                    ratio(row, find(second), Run::uploads_per_second),
                    row.median(|run| run.quantile(0.5)),
                    row.median(|run| run.quantile(0.99)),
                    row.median(Run::cpu_per_upload),
                    row.median(Run::peak_mib),
                    row.median(Run::client_cpu_per_upload),
                );
            }
        }
    }
    table
}

/// Every run, for programs.
pub fn csv(rows: &[Row]) -> String {
    let mut csv = "cell,contestant,round,seconds,uploads,bytes,server_cpu_seconds,client_cpu_seconds,rss_bytes,peak_rss_bytes,p50_ms,p99_ms\n".to_owned();
    for row in rows {
        for (round, run) in row.runs.iter().enumerate() {
            let _ = writeln!(
                csv,
                "{},{},{},{:.6},{},{},{:.2},{:.2},{},{},{:.3},{:.3}",
                row.cell,
                row.contestant.name,
                round + 1,
                run.outcome.time.as_secs_f64(),
                run.outcome.uploads,
                run.outcome.bytes,
                run.server_cpu.as_secs_f64(),
                run.client_cpu.as_secs_f64(),
                run.resident,
                run.peak,
                run.quantile(0.5),
                run.quantile(0.99),
            );
        }
    }
    csv
}
