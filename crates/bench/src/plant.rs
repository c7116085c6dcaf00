//! Fills a storage root, as it would be after so many uploads of one client: all attachments lie in one directory, which is
//! the hardest case for a file system.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;
use uuid::Uuid;

use crate::error::Result;

/// The first id. The ids of what is uploaded lie below.
const FIRST: u64 = 1 << 62;

/// The client that uploads.
const CLIENT: u64 = 1;

/// Plants attachments of a few bytes, none of which is made durable.
pub fn attachments(root: &Path, count: u64) -> Result {
    let content = b"content";
    let sha256: String = digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let records = root.join(format!("clients/{CLIENT}/records"));
    fs::create_dir_all(&records)?;
    fs::write(root.join("attachd.json"), "{\"layout\":2}\n")?;
    for attachment in FIRST..FIRST + count {
        let record = json!({
            "format": 2, "client_id": CLIENT, "attachment_id": attachment, "registered_at": "2026-01-31T12:00:00Z",
            "registered_by": "benchmark", "state": "stored", "content": {
                "upload_id": Uuid::now_v7().to_string(), "filename": "a.bin", "content_type": "application/octet-stream",
                "size": content.len(), "sha256": sha256, "segments": [], "created_at": "2026-01-31T12:00:00Z",
                "uploaded_by": "benchmark",
            },
        });
        fs::write(records.join(format!("{attachment:019}")), [format!("{record}\n").as_bytes(), content].concat())?;
    }
    println!("{count} attachments are stored below {}", root.display());
    Ok(())
}
