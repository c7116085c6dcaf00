//! How the file descriptors of the process are divided among connections and uploads. It must not know how the system is asked
//! for them.

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
    /// Says that there are fewer descriptors than the limits need.
    pub warning: Option<Warning>,
}

impl Config {
    /// Divides the descriptors that the process may have; `None` if nothing limits them.
    pub fn divide(&self, available: Option<u64>) -> Division {
        let (limits, cost) = (&self.limits, self.storage.descriptors_per_upload());
        let available = available.unwrap_or(u64::MAX);
        let connections = limits.max_connections as u64;
        let admin = (available / 16).clamp(ADMIN[0], ADMIN[1]).min(connections);
        let reserved = PROCESS.min(available / 4) + admin;
        let usable = available.saturating_sub(reserved);
        let of_connections = connections.saturating_mul(PORTS);
        let uploads = match limits.max_uploads as u64 {
            // As many as the descriptors permit, unless that is very few.
            0 => {
                let left = usable.saturating_sub(of_connections).checked_div(cost).unwrap_or(u64::MAX);
                left.clamp(connections.div_ceil(4), of_connections)
            }
            uploads => uploads,
        };
        let wanted = of_connections.saturating_add(uploads.saturating_mul(cost));
        // Both are lowered by the same factor.
        let lowered = || {
            let share = u128::from(connections) * u128::from(usable) / u128::from(wanted.max(1));
            let share = u64::try_from(share).unwrap_or(u64::MAX).max(1);
            let left = usable.saturating_sub(share.saturating_mul(PORTS)).checked_div(cost).unwrap_or(uploads);
            (usize::try_from(share).unwrap_or(usize::MAX), usize::try_from(left.max(1)).unwrap_or(usize::MAX))
        };
        let (given_connections, given_uploads) = if wanted <= usable {
            (limits.max_connections, usize::try_from(uploads).unwrap_or(usize::MAX))
        } else {
            lowered()
        };
        let warning = (wanted > usable).then(|| {
            let key = if limits.max_uploads > 0 { "limits.max_uploads" } else { "limits.max_connections" };
            let needed = self.needed(wanted);
            let why = format!(
                "{connections} connections on each of two ports and {uploads} uploads need {needed} file descriptors, and the process \
                 may have {available}: only {given_connections} connections on each port and {given_uploads} uploads are served at \
                 once; raise the hard limit of open files to {needed} (ulimit -n, LimitNOFILE=), or lower limits.max_connections and \
                 limits.max_uploads"
            );
            Warning { key: key.to_owned(), why }
        });
        let admin_connections = usize::try_from(admin).unwrap_or(usize::MAX);
        Division { connections: given_connections, admin_connections, uploads: given_uploads, warning }
    }

    /// How many descriptors are enough for so many of connections and uploads.
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

    const SET: [(&str, &str); 2] =
        [("ATTACHD_LIMITS__MAX_CONNECTIONS", "1000"), ("ATTACHD_LIMITS__MAX_UPLOADS", "500")];

    #[test]
    fn limits_that_fit_are_kept_and_with_one_descriptor_less_they_are_lowered_and_warned_of() {
        // Two ports, three for each upload, the admin port, the process.
        let enough = 2 * 1000 + 3 * 500 + 128 + 64;
        for (available, fits) in [(enough + 1, true), (enough, true), (enough - 1, false)] {
            let division = divided(&SET, Some(available));
            let lowered = (division.connections, division.uploads) != (1000, 500);
            assert_eq!((division.warning.is_none(), lowered), (fits, !fits), "{available}: {division:?}");
        }
        let warning = divided(&SET, Some(1024)).warning.unwrap();
        assert_eq!(warning.key, "limits.max_uploads");
        assert!(warning.why.contains("need 3692 ") && warning.why.contains("may have 1024:"), "{warning}");
    }

    #[test]
    fn what_is_given_never_passes_what_there_is() {
        for available in [64, 100, 256, 300, 1024, 4096, 11_456, 20_000, 65_536, 1 << 20] {
            for changes in [&[][..], &SET, &[("ATTACHD_LIMITS__MAX_UPLOADS", "1000000")]] {
                let Division { connections, admin_connections, uploads, .. } = divided(changes, Some(available));
                assert!(connections >= 1 && admin_connections >= 8 && uploads >= 1);
                let process = 64.min(available / 4);
                let given = 2 * connections + 3 * uploads + admin_connections;
                assert!(given as u64 + process <= available, "{available}: {connections} {uploads}");
            }
        }
    }

    #[test]
    fn the_default_number_of_uploads_follows_from_the_descriptors() {
        assert_eq!(divided(&[], None).uploads, 8192);
        assert_eq!(divided(&[], Some(65_536)).uploads, 8192);
        assert_eq!(
            divided(&[], Some(16_384)),
            Division {
                connections: 4096,
                admin_connections: 128,
                uploads: (16_384 - 128 - 64 - 8192) / 3,
                warning: None
            }
        );
        let few = divided(&[], Some(1024));
        assert_eq!(few.warning.map(|warning| warning.key).as_deref(), Some("limits.max_connections"));
    }
}
