//! What the system says of this process. Where it says nothing, as outside of Linux, there is nothing to report.

use std::fs;
use std::path::Path;

/// Where a control group says how much memory its processes may have, in its second and its first version.
const MEMORY_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// A limit of this many bytes or more is what the first version says where there is none.
const NO_LIMIT: u64 = 1 << 60;

/// How much memory the process may have, in bytes, where its container bounds it.
pub fn memory_limit() -> Option<u64> {
    MEMORY_LIMITS.iter().find_map(|file| limit_in(Path::new(file)))
}

fn limit_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_and_the_words_for_none_are_not_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, limit) in [("536870912\n", Some(512 << 20)), ("max\n", None), ("9223372036854771712\n", None)] {
            fs::write(file.path(), text).unwrap();
            assert_eq!(limit_in(file.path()), limit, "{text}");
        }
        assert_eq!(limit_in(Path::new("/no/such/file")), None);
    }
}
