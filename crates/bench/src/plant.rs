//! Fills a storage root, as it would be after so many uploads of one client: all attachments lie in one directory, which is
//! the hardest case for a file system.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Result;

/// The first id. The ids of what is uploaded lie below.
pub const FIRST: u64 = 1 << 62;

/// The client that uploads.
pub const CLIENT: u64 = 1;

/// What the file of a storage root says that names its layout.
pub const LAYOUT: &str = "{\"layout\":2}\n";

/// Plants attachments of a few bytes, none of which is made durable.
pub fn attachments(root: &Path, count: u64) -> Result {
    let content = b"content";
    let sha256 = hex(digest(&SHA256, content).as_ref());
    let records = root.join(format!("clients/{CLIENT}/records"));
    fs::create_dir_all(&records)?;
    fs::write(root.join("attachd.json"), LAYOUT)?;
    for attachment in FIRST..FIRST + count {
        let upload = Uuid::now_v7().to_string();
        let record = record(attachment, &upload, content.len() as u64, &sha256, &[]);
        fs::write(records.join(format!("{attachment:019}")), [format!("{record}\n").as_bytes(), content].concat())?;
    }
    println!("{count} attachments are stored below {}", root.display());
    Ok(())
}

/// The record of one attachment.
pub fn record(attachment: u64, upload: &str, size: u64, sha256: &str, segments: &[Value]) -> Value {
    json!({
        "format": 2, "client_id": CLIENT, "attachment_id": attachment, "registered_at": "2026-01-31T12:00:00Z",
        "registered_by": "benchmark", "state": "stored", "content": {
            "upload_id": upload, "filename": "a.bin", "content_type": "application/octet-stream", "size": size,
            "sha256": sha256, "segments": segments, "created_at": "2026-01-31T12:00:00Z", "uploaded_by": "benchmark",
        },
    })
}

/// A digest, as records write it.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
