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
    for attachment in FIRST..FIRST + count {
        let folder = root.join(format!("clients/{CLIENT}/attachments/{attachment}"));
        fs::create_dir_all(folder.join("content"))?;
        let upload = Uuid::now_v7().to_string();
        fs::write(folder.join("content").join(&upload), content)?;
        let record = json!({
            "format": 1, "client_id": CLIENT, "attachment_id": attachment, "state": "stored", "upload_id": upload,
            "registered_at": "2026-01-31T12:00:00Z", "registered_by": "benchmark", "filename": "a.bin",
            "content_type": "application/octet-stream", "size": content.len(), "sha256": sha256,
            "segments": [{"id": upload, "size": content.len()}], "created_at": "2026-01-31T12:00:00Z",
            "uploaded_by": "benchmark",
        });
        fs::write(folder.join("record.json"), serde_json::to_vec_pretty(&record)?)?;
    }
    println!("{count} attachments are stored below {}", root.display());
    Ok(())
}
