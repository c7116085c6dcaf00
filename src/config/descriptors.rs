//! How the file descriptors of the process are divided among connections, uploads and downloads. It must not know how the system
//! is asked for them.

use super::sections::Config;
use super::warnings::Warning;

/// What the process itself needs: its ports, its log, the directories that it has open, keys and certificates that are read anew.
const PROCESS: u64 = 64;

/// How many connections the admin port may have at least and at most.
const ADMIN: [u64; 2] = [8, 128];

/// How many ports there are beside the admin port.
const PORTS: u64 = 2;

/// What there may be at once, so that no descriptor is lacking.
#[derive(Debug, PartialEq, Eq)]
pub struct Division {
    /// Connections of each of the ports for clients.
    pub connections: usize,
    /// Connections of the admin port.
    pub admin_connections: usize,
    /// Uploads that are under way.
    pub uploads: usize,
    /// Downloads that are under way.
    pub downloads: usize,
    /// Says that there are fewer descriptors than the limits need.
    pub warning: Option<Warning>,
}

impl Config {
    /// Divides the descriptors that the process may have; `None` if nothing limits them.
    pub fn divide(&self, available: Option<u64>) -> Division {
        let limits = &self.limits;
        let costs = [self.storage.descriptors_per_upload(), self.storage.descriptors_per_download()];
        let available = available.unwrap_or(u64::MAX);
        let connections = limits.max_connections as u64;
        let admin = (available / 16).clamp(ADMIN[0], ADMIN[1]).min(connections);
        let reserved = PROCESS.min(available / 4) + admin;
        let usable = available.saturating_sub(reserved);
        let of_connections = connections.saturating_mul(PORTS);
        let cost = |counts: [u64; 2]| {
            let [uploads, downloads] = [0, 1].map(|at| counts[at].saturating_mul(costs[at]));
            uploads.saturating_add(downloads)
        };
        // What is not set is as many as the descriptors permit, unless that is very few.
        let set = [limits.max_uploads, limits.max_downloads].map(|count| count as u64);
        let left = usable.saturating_sub(of_connections).saturating_sub(cost(set));
        let of_each = left.checked_div(cost(set.map(|count| u64::from(count == 0)))).unwrap_or(u64::MAX);
        let of_each = of_each.clamp(connections.div_ceil(4), of_connections);
        let [uploads, downloads] = set.map(|count| if count == 0 { of_each } else { count });
        let wanted = of_connections.saturating_add(cost([uploads, downloads]));
        // All are lowered by the same factor, and what is left over is for uploads.
        let lowered = |count: u64| {
            let share = u128::from(count) * u128::from(usable) / u128::from(wanted.max(1));
            u64::try_from(share).unwrap_or(u64::MAX).max(1)
        };
        let given = if wanted <= usable {
            [connections, uploads, downloads]
        } else {
            let (connections, downloads) = (lowered(connections), lowered(downloads));
            let others = connections.saturating_mul(PORTS).saturating_add(cost([0, downloads]));
            let left = usable.saturating_sub(others).checked_div(costs[0]).unwrap_or(uploads);
            [connections, left.max(1), downloads]
        };
        let given = given.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        let warning = (wanted > usable).then(|| {
            let [given_connections, given_uploads, given_downloads] = given;
            let key = match set {
                [0, 0] => "limits.max_connections",
                [0, _] => "limits.max_downloads",
                _ => "limits.max_uploads",
            };
            let needed = self.needed(wanted);
            let why = format!(
                "{connections} connections on each of two ports, {downloads} downloads and {uploads} uploads need {needed} file \
                 descriptors, and the process may have {available}: only {given_connections} connections on each port, \
                 {given_downloads} downloads and {given_uploads} uploads are served at once; raise the hard limit of open files to \
                 {needed} (ulimit -n, LimitNOFILE=), or lower limits.max_connections, limits.max_uploads and limits.max_downloads"
            );
            Warning { key: key.to_owned(), why }
        });
        let [connections, uploads, downloads] = given;
        let admin_connections = usize::try_from(admin).unwrap_or(usize::MAX);
        Division { connections, admin_connections, uploads, downloads, warning }
    }

    /// How many descriptors are enough for so many of connections, uploads and downloads.
    fn needed(&self, wanted: u64) -> u64 {
        let connections = self.limits.max_connections as u64;
        wanted.saturating_add(PROCESS).saturating_add(ADMIN[1].min(connections))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LEAST, read};
    use super::*;

    fn divided(changes: &[(&str, &str)], available: Option<u64>) -> Division {
        let fs = [("ATTACHD_STORAGE__SERVICE", "fs"), ("ATTACHD_STORAGE__OPTIONS__ROOT", "/data")];
        read(LEAST, &[&fs, changes].concat()).unwrap().divide(available)
    }

    const SET: [(&str, &str); 3] = [
        ("ATTACHD_LIMITS__MAX_CONNECTIONS", "1000"),
        ("ATTACHD_LIMITS__MAX_UPLOADS", "500"),
        ("ATTACHD_LIMITS__MAX_DOWNLOADS", "300"),
    ];

    #[test]
    fn limits_that_fit_are_kept_and_with_one_descriptor_less_they_are_lowered_and_warned_of() {
        // Two ports, three for each upload, one for each download, the admin port, the process.
        let enough = 2 * 1000 + 3 * 500 + 300 + 128 + 64;
        for (available, fits) in [(enough + 1, true), (enough, true), (enough - 1, false)] {
            let division = divided(&SET, Some(available));
            let lowered = [division.connections, division.uploads, division.downloads] != [1000, 500, 300];
            assert_eq!((division.warning.is_none(), lowered), (fits, !fits), "{available}: {division:?}");
        }
        let warning = divided(&SET, Some(1024)).warning.unwrap();
        assert_eq!(warning.key, "limits.max_uploads");
        assert!(warning.why.contains("need 3992 ") && warning.why.contains("may have 1024:"), "{warning}");
    }

    #[test]
    fn what_is_given_never_passes_what_there_is() {
        for available in [64, 100, 256, 300, 1024, 4096, 11_456, 20_000, 65_536, 1 << 20] {
            for changes in [&[][..], &SET, &SET[2..], &[("ATTACHD_LIMITS__MAX_UPLOADS", "1000000")]] {
                let Division { connections, admin_connections, uploads, downloads, .. } =
                    divided(changes, Some(available));
                assert!(connections >= 1 && admin_connections >= 8 && uploads >= 1 && downloads >= 1);
                let process = 64.min(available / 4);
                let given = 2 * connections + 3 * uploads + downloads + admin_connections;
                assert!(given as u64 + process <= available, "{available}: {connections} {uploads}");
            }
        }
    }

    #[test]
    fn the_default_numbers_of_uploads_and_downloads_follow_from_the_descriptors() {
        for available in [None, Some(65_536)] {
            let Division { uploads, downloads, .. } = divided(&[], available);
            assert_eq!([uploads, downloads], [8192, 8192]);
        }
        // One that is set leaves the rest to the other.
        let left = 16_384 - 128 - 64 - 8192;
        for (changes, expected) in [
            (&[][..], [left / 4, left / 4]),
            (&[("ATTACHD_LIMITS__MAX_UPLOADS", "2000")], [2000, left - 6000]),
            (&[("ATTACHD_LIMITS__MAX_DOWNLOADS", "4000")], [(left - 4000) / 3, 4000]),
        ] {
            let Division { connections, admin_connections, uploads, downloads, warning } =
                divided(changes, Some(16_384));
            assert_eq!((connections, admin_connections, warning), (4096, 128, None));
            assert_eq!([uploads, downloads], expected);
        }
        let few = divided(&[], Some(1024));
        assert_eq!(few.warning.map(|warning| warning.key).as_deref(), Some("limits.max_connections"));
    }
}
