//! What `attachd gc` and `attachd verify` cost: plants many attachments in a folder, and garbage in every tenth of them,
//! runs the program over them, and prints a row of a table for each command. Every thousandth attachment holds a mebibyte,
//! the others a kibibyte.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;
use uuid::{NoContext, Timestamp, Uuid};

use crate::error::Result;

/// How many attachments a client has.
const PER_CLIENT: u64 = 1000;

/// How often the memory of the program is looked at. The kernel keeps the peak, so this decides only how late the last look
/// is.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How old everything is.
const AGE: Duration = Duration::from_secs(30 * 60 * 60);

/// Measures a build of attachd in a new folder below `folder`, and prints the table.
pub fn measure(program: &Path, folder: &Path, attachments: u64) -> Result {
    let folder = tempfile::tempdir_in(folder)?;
    let garbage = plant(folder.path(), attachments)?;
    println!("| command | records | content | time | objects/s | peak RSS |");
    println!("|---|---|---|---|---|---|");
    for (command, garbage) in
        [("verify --grace 48h", garbage), ("gc", garbage), ("gc --delete", garbage), ("gc", 0), ("verify", 0)]
    {
        let (elapsed, peak) = run(program, command, folder.path())?;
        let seconds = elapsed.as_secs_f64();
        let (content, peak) = (attachments + garbage, peak as f64 / f64::from(1 << 20));
        let rate = (attachments + content) as f64 / seconds;
        println!("| `{command}` | {attachments} | {content} | {seconds:.2} s | {rate:.0} | {peak:.1} MiB |");
    }
    Ok(())
}

/// Plants the attachments, and returns how many pieces of garbage there are.
fn plant(root: &Path, attachments: u64) -> Result<u64> {
    let begun = (SystemTime::now() - AGE).duration_since(UNIX_EPOCH)?;
    let id = || Uuid::new_v7(Timestamp::from_unix(NoContext, begun.as_secs(), 0)).to_string();
    let (small, large) = (vec![7; 1 << 10], vec![7; 1 << 20]);
    let hex = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let (small_digest, large_digest): (String, String) = (hex(&small), hex(&large));
    let mut garbage = 0;
    fs::write(root.join("attachd.json"), "{\"layout\":2}\n")?;
    for number in 0..attachments {
        let (client, attachment) = (number / PER_CLIENT + 1, number % PER_CLIENT + 1);
        let (records, folder) = (
            root.join(format!("clients/{client}/records")),
            root.join(format!("clients/{client}/content/{attachment:019}")),
        );
        fs::create_dir_all(&records)?;
        fs::create_dir_all(&folder)?;
        let (bytes, sha256) =
            if number.is_multiple_of(1000) { (&large, &large_digest) } else { (&small, &small_digest) };
        let upload = id();
        fs::write(folder.join(format!("{upload}.0")), bytes)?;
        if number.is_multiple_of(10) {
            fs::write(folder.join(format!("{}.0", id())), &small)?;
            garbage += 1;
        }
        let record = json!({
            "format": 2, "client_id": client, "attachment_id": attachment, "registered_at": "2026-01-31T12:00:00Z",
            "registered_by": "benchmark", "state": "stored", "content": {
                "upload_id": upload, "filename": "a.bin", "content_type": "application/octet-stream",
                "size": bytes.len(), "sha256": sha256,
                "segments": [{"number": 0, "size": bytes.len(), "sha256": sha256}],
                "created_at": "2026-01-31T12:00:00Z", "uploaded_by": "benchmark",
            },
        });
        fs::write(records.join(format!("{attachment:019}")), format!("{record}\n"))?;
    }
    Ok(garbage)
}

/// Runs a command over the storage. Returns the time and the peak of the resident set in bytes.
fn run(program: &Path, command: &str, data: &Path) -> Result<(Duration, u64)> {
    let begun = Instant::now();
    let mut child =
        Command::new(program).args(command.split(' ')).arg("--data").arg(data).stdout(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(ended) = child.try_wait()? {
            let elapsed = begun.elapsed();
            return if ended.success() { Ok((elapsed, peak)) } else { Err(format!("{command}: {ended}").into()) };
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse().ok());
        peak = peak.max(kilobytes.unwrap_or(0) * 1024);
        std::thread::sleep(LOOK_EVERY);
    }
}
