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

/// Clock ticks a second in what `/proc` says of times (`USER_HZ`): the same on every Linux since 2.6.
const TICKS: f64 = 100.0;

/// What is known of the process now, by the names that Prometheus' own client libraries use.
pub fn read() -> Vec<(&'static str, f64)> {
    let mut values = Vec::new();
    let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let (status, stat) = (text("/proc/self/status"), text("/proc/self/stat"));
    let mut add = |name, value: Option<f64>| values.extend(value.map(|value| (name, value)));
    // After the program's name, which may hold anything, the fields are numbers; the first of them is the third of all.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |number: usize| Some(fields.get(number - 3)?.parse::<f64>().ok()? / TICKS);
    add("process_cpu_seconds_total", ticks(14).zip(ticks(15)).map(|(user, system)| user + system));
    add("process_resident_memory_bytes", number(&status, "VmRSS:").map(|kib| kib * 1024.0));
    add("process_virtual_memory_bytes", number(&status, "VmSize:").map(|kib| kib * 1024.0));
    add("process_threads", number(&status, "Threads:"));
    add("process_max_fds", number(&text("/proc/self/limits"), "Max open files"));
    // The folder itself is open while it is read.
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1));
    add("process_open_fds", open.and_then(|open| u32::try_from(open).ok()).map(f64::from));
    let booted = number(&text("/proc/stat"), "btime");
    add("process_start_time_seconds", booted.zip(ticks(22)).map(|(booted, after)| booted + after));
    values
}

/// The first number after a label at the beginning of a line.
fn number(text: &str, label: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_this_process_is_so() {
        let values: std::collections::BTreeMap<_, _> = read().into_iter().collect();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!((now - 3600.0..=now + 1.0).contains(&values["process_start_time_seconds"]), "{values:?}");
        assert!(values["process_resident_memory_bytes"] > 1e6 && values["process_resident_memory_bytes"] < 1e10);
        assert!(values["process_virtual_memory_bytes"] >= values["process_resident_memory_bytes"]);
        assert!(values["process_open_fds"] >= 3.0 && values["process_open_fds"] <= values["process_max_fds"]);
        assert!(values["process_threads"] >= 1.0 && values["process_cpu_seconds_total"] >= 0.0);
        let before = values["process_open_fds"];
        let _held: Vec<_> = (0..100).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        let after = read().into_iter().find(|(name, _)| *name == "process_open_fds").unwrap().1;
        assert!(after >= before + 50.0, "{before} {after}");
    }

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
