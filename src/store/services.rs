//! The services that a storage can be, and the options of each. OpenDAL takes any text as an option, so a name that none of
//! its services knows would be a setting that does nothing: the known ones are read off its own configurations.

use std::collections::BTreeMap;

#[cfg(any(feature = "s3", feature = "azblob"))]
use http::Method;
use http::Request;
use opendal::Buffer;

use super::{OpenError, local};

/// The size of a part where nothing asks for larger ones, in bytes: the least that S3 takes, since an upload keeps several.
#[cfg(any(feature = "s3", feature = "azblob"))]
const PART: u64 = 5 << 20;

/// The same for GCS, of half a chunk of OpenDAL's.
#[cfg(feature = "gcs")]
const GCS_PART: u64 = 4 << 20;

/// How many parts one object may have. S3 and GCS permit as many, Azure more.
const PARTS: u64 = 10_000;

/// What the size of a part is a multiple of, in bytes.
const PART_UNIT: u64 = 1 << 20;

/// How many uploads there must be room for beside each other before one may send two parts at once.
const LEAST_AT_ONCE: u64 = 4;

/// What uploads there may be.
#[derive(Clone, Copy, Debug)]
pub struct Sizing {
    /// The size of the largest, in bytes.
    pub largest: u64,
    /// How many bytes all of them together may keep in parts.
    pub memory: u64,
}

/// How content is sent in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The size of each but the last, in bytes.
    pub size: u64,
    /// How many one upload sends at once.
    pub at_once: usize,
    /// How many bytes it keeps in memory at most.
    pub kept: u64,
}

/// How the versions of an object are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compares {
    /// By an entity tag.
    #[cfg_attr(
        not(any(feature = "s3", feature = "azblob")),
        expect(dead_code, reason = "no service of this build has such tags")
    )]
    Tag,
    /// By a number that the service counts up.
    #[cfg_attr(not(feature = "gcs"), expect(dead_code, reason = "no service of this build has such numbers"))]
    Generation,
    /// Not at all: nobody else writes there.
    Never,
}

/// One service.
#[derive(Debug)]
pub struct Service {
    /// Its name at OpenDAL.
    pub name: &'static str,
    /// The options that must be there.
    required: &'static [&'static str],
    /// The options that nobody else may read. Each may also be the name of a file, as `{option}_file`.
    secret: &'static [&'static str],
    /// The options that say who asks and prove it: all of them, or none.
    keys: &'static [&'static str],
    /// The options that it has and that are of no use here: OpenDAL calls them deprecated, or they are not text.
    hidden: &'static [&'static str],
    /// All options, as OpenDAL's configuration of the service has them.
    options: fn() -> serde_json::Value,
    /// How it tells versions apart.
    pub compares: Compares,
    /// Whether it says of a bucket that is missing something else than of an object.
    pub names_missing_bucket: bool,
    /// Whether it hands out content at addresses that are signed for a time, with the headers that the address names.
    signs: bool,
    /// The size of a part where nothing asks for larger ones, in bytes. Zero where content is not sent in parts.
    part: u64,
    /// How many parts an upload keeps in memory that sends one at once: that one, those behind it, and one that is gathered.
    parts_kept: u64,
    /// Whether it may send two, and keeps one more.
    two_at_once: bool,
    /// Whether a request puts the parts of an object together, where the service may take long for that and must not be asked
    /// twice.
    pub completes: fn(&Request<Buffer>) -> bool,
    /// How many bytes that pass through it can make use of, where more would only wait in memory instead of in the sockets.
    pub useful_memory: Option<u64>,
}

impl Service {
    /// Whether it is reached over a network, so that an answer can be lost on the way.
    pub fn is_remote(&self) -> bool {
        self.part > 0
    }

    /// Whether the option is a secret.
    pub fn is_secret(&self, option: &str) -> bool {
        self.secret.contains(&option)
    }

    /// The secret that an option names the file of.
    pub fn secret_in_file<'a>(&self, option: &'a str) -> Option<&'a str> {
        option.strip_suffix("_file").filter(|secret| self.is_secret(secret))
    }

    /// The option that says who asks.
    pub fn key(&self) -> &'static str {
        self.keys.first().copied().unwrap_or("options")
    }

    /// The option that proves it.
    pub fn secret_of_key(&self) -> &'static str {
        self.keys.last().copied().unwrap_or("options")
    }

    /// Whether the option is the name of a folder of this machine.
    pub fn is_path(&self, option: &str) -> bool {
        self.name == "fs" && ["root", "atomic_write_dir"].contains(&option)
    }

    /// Whether anybody may read the option: the service has it, and it is no secret.
    pub fn may_show(&self, option: &str) -> bool {
        let has = (self.options)().get(option).is_some();
        self.secret_in_file(option).is_some() || (has && !self.is_secret(option))
    }

    /// Checks that the options are ones that it has, and that those which it needs are there.
    pub fn check(&self, options: &BTreeMap<String, String>) -> Result<(), OpenError> {
        let all = (self.options)();
        let names = all.as_object().into_iter().flat_map(serde_json::Map::keys).map(String::as_str);
        let files: Vec<String> = self.secret.iter().map(|secret| format!("{secret}_file")).collect();
        let known: Vec<&str> =
            names.filter(|name| !self.hidden.contains(name)).chain(files.iter().map(String::as_str)).collect();
        for (option, value) in options {
            let key = format!("options.{option}");
            if !known.contains(&option.as_str()) {
                let nearest = crate::spelling::nearest(option, known.iter().copied());
                return Err(OpenError::new(key, format!("the service {} has no such option; {nearest}", self.name)));
            }
            if let Some(secret) = self.secret_in_file(option)
                && options.contains_key(secret)
            {
                return Err(OpenError::new(key, format!("`{secret}` is there as well; one of the two is enough")));
            }
            if option == "endpoint" && value.contains('@') {
                return Err(OpenError::new(key, "an address holds no secrets; they have options of their own"));
            }
        }
        let given = |option: &str| {
            let has = |name: &str| options.get(name).is_some_and(|value| !value.is_empty());
            has(option) || has(&format!("{option}_file"))
        };
        if let Some(one) = self.keys.iter().find(|option| given(option))
            && let Some(other) = self.keys.iter().find(|option| !given(option))
        {
            return Err(OpenError::new(
                format!("options.{other}"),
                format!(
                    "is missing, and {one} is of no use without it; write both, or neither to use a key of the platform"
                ),
            ));
        }
        match self.required.iter().find(|option| options.get(**option).is_none_or(String::is_empty)) {
            Some(option) => {
                Err(OpenError::new(format!("options.{option}"), format!("the service {} needs it", self.name)))
            }
            None => Ok(()),
        }
    }

    /// Checks that it signs addresses of content, with what these options give it to sign with.
    pub fn check_signing(&self, options: &BTreeMap<String, String>) -> Result<(), String> {
        if !self.signs {
            let name = self.name;
            return Err(format!(
                "the service `{name}` signs no addresses to which downloads could be redirected; write false, or use the service \
                 `s3` or `gcs`"
            ));
        }
        match ["token", "token_file"].into_iter().find(|option| options.contains_key(*option)) {
            Some(option) => Err(format!(
                "storage.options.{option} cannot sign addresses; write false, or use storage.options.credential in its place"
            )),
            None => Ok(()),
        }
    }

    /// How content is sent, if it is sent in parts.
    pub fn parts(&self, sizing: Sizing) -> Option<Parts> {
        let least = sizing.largest.div_ceil(PARTS).div_ceil(PART_UNIT) * PART_UNIT;
        let size = Some(self.part).filter(|part| *part > 0).map(|part| least.max(part))?;
        let whole = sizing.largest.next_multiple_of(PART_UNIT);
        let one = Parts { size, at_once: 1, kept: whole.min(size * self.parts_kept) };
        let two = Parts { size, at_once: 2, kept: whole.min(size * (self.parts_kept + 1)) };
        Some(if self.two_at_once && two.kept <= sizing.memory / LEAST_AT_ONCE { two } else { one })
    }
}

/// Whether a request has this method and a parameter that begins so.
#[cfg(any(feature = "s3", feature = "azblob"))]
fn is(request: &Request<Buffer>, method: &Method, parameter: &str) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method() == method && query.split('&').any(|pair| pair.starts_with(parameter))
}

fn fields(config: impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// Those that this build has.
const SERVICES: &[Service] = &[
    Service {
        name: "fs",
        required: &["root"],
        secret: &[],
        keys: &[],
        hidden: &[],
        options: || fields(local::Options::default()),
        compares: Compares::Never,
        names_missing_bucket: false,
        signs: false,
        part: 0,
        parts_kept: 0,
        two_at_once: false,
        completes: |_| false,
        useful_memory: Some(local::USEFUL_MEMORY),
    },
    Service {
        name: "memory",
        required: &[],
        secret: &[],
        keys: &[],
        hidden: &[],
        options: || fields(opendal::services::MemoryConfig::default()),
        compares: Compares::Never,
        names_missing_bucket: true,
        signs: false,
        part: 0,
        parts_kept: 0,
        two_at_once: false,
        completes: |_| false,
        useful_memory: None,
    },
    #[cfg(feature = "s3")]
    Service {
        name: "s3",
        required: &["bucket"],
        secret: &["access_key_id", "secret_access_key", "session_token", "server_side_encryption_customer_key"],
        keys: &["access_key_id", "secret_access_key"],
        hidden: &[
            "enable_versioning",
            "allow_anonymous",
            "batch_max_operations",
            "delete_max_size",
            "disable_stat_with_override",
            "disable_write_with_if_match",
            "enable_write_with_append",
            "assume_role_session_tags",
        ],
        options: || fields(opendal::services::S3Config::default()),
        compares: Compares::Tag,
        names_missing_bucket: true,
        signs: true,
        part: PART,
        // Behind what is sent OpenDAL keeps the next, since that may turn out to be the last.
        parts_kept: 3,
        two_at_once: true,
        completes: |request| is(request, &Method::POST, "uploadId="),
        useful_memory: None,
    },
    #[cfg(feature = "gcs")]
    Service {
        name: "gcs",
        required: &["bucket"],
        secret: &["credential", "token"],
        keys: &["credential"],
        hidden: &["allow_anonymous"],
        options: || fields(opendal::services::GcsConfig::default()),
        compares: Compares::Generation,
        names_missing_bucket: false,
        signs: true,
        part: GCS_PART,
        // OpenDAL sends chunks of 8 MiB, keeps as much until it knows that more follows, and one part may wait for that.
        parts_kept: 5,
        two_at_once: false,
        // A second try asks first how far the one before has come.
        completes: |_| false,
        useful_memory: None,
    },
    #[cfg(feature = "azblob")]
    Service {
        name: "azblob",
        required: &["container"],
        secret: &["account_key", "sas_token", "encryption_key"],
        keys: &["account_key"],
        hidden: &["batch_max_operations"],
        options: || fields(opendal::services::AzblobConfig::default()),
        compares: Compares::Tag,
        names_missing_bucket: false,
        // OpenDAL signs none of its own, but hands out the token of the operator.
        signs: false,
        part: PART,
        parts_kept: 3,
        two_at_once: true,
        completes: |request| is(request, &Method::PUT, "comp=blocklist"),
        useful_memory: None,
    },
];

/// Those that a build can have, by the feature that brings them.
const FEATURES: [&str; 3] = ["s3", "gcs", "azblob"];

/// Those that cannot keep the promises of a commit, and why.
const UNFIT: [(&str, &str); 1] = [(
    "webdav",
    "a WebDAV server takes a file in one piece, so an upload would have to be held in memory whole; it need not write it to \
     its disk before it answers; and few compare versions, so two replicas could not share it",
)];

/// Finds a service by its name.
pub fn find(name: &str) -> Result<&'static Service, OpenError> {
    if let Some(service) = SERVICES.iter().find(|service| service.name == name) {
        return Ok(service);
    }
    let refusal = |why: String| Err(OpenError::new("service", why));
    if FEATURES.contains(&name) {
        return refusal(format!("this build has no `{name}`: the cargo feature of that name brings it"));
    }
    if let Some((_, why)) = UNFIT.iter().find(|(unfit, _)| *unfit == name) {
        return refusal(format!("`{name}` cannot keep what a 201 promises: {why}"));
    }
    let names: Vec<&str> = SERVICES.iter().map(|service| service.name).collect();
    refusal(format!("unknown service `{name}`; known are: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(options: &[(&str, &str)]) -> BTreeMap<String, String> {
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn refusal(service: &str, given: &[(&str, &str)]) -> String {
        find(service).and_then(|service| service.check(&options(given))).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_service_or_option_is_refused_by_name() {
        let unknown = refusal("fss", &[]);
        assert!(unknown.starts_with("storage.service: unknown service `fss`; known are: fs, memory"), "{unknown}");
        let typo = refusal("fs", &[("rot", "/x")]);
        assert!(typo.starts_with("storage.options.rot: ") && typo.contains("did you mean `root`?"), "{typo}");
        assert!(refusal("fs", &[]).starts_with("storage.options.root: "));
        assert!(refusal("fs", &[("root", "")]).starts_with("storage.options.root: "));
        assert!(find("memory").unwrap().check(&options(&[])).is_ok());
    }

    #[test]
    fn a_service_that_cannot_keep_the_promises_is_refused_with_why() {
        let why = refusal("webdav", &[]);
        assert!(why.starts_with("storage.service: `webdav` cannot keep what a 201 promises: "), "{why}");
    }

    #[cfg(feature = "s3")]
    #[test]
    fn the_options_of_a_service_are_those_of_opendal() {
        let s3 = find("s3").unwrap();
        let good = [("bucket", "b"), ("region", "r"), ("access_key_id", "k"), ("secret_access_key_file", "f")];
        assert!(s3.check(&options(&good)).is_ok());
        for (one, other) in [
            ("access_key_id", "secret_access_key"),
            ("access_key_id_file", "secret_access_key"),
            ("secret_access_key", "access_key_id"),
            ("secret_access_key_file", "access_key_id"),
        ] {
            let lonely = refusal("s3", &[("bucket", "b"), (one, "x")]);
            assert!(lonely.starts_with(&format!("storage.options.{other}: is missing, and ")), "{lonely}");
        }
        assert!(refusal("s3", &[]).starts_with("storage.options.bucket: "));
        let typo = refusal("s3", &[("bucket", "b"), ("regoin", "r")]);
        assert!(typo.contains("did you mean `region`?"), "{typo}");
        for option in s3.hidden.iter().chain(s3.secret) {
            let all = (s3.options)();
            assert!(all.get(option).is_some(), "OpenDAL has no {option} any more");
        }
        for option in s3.hidden {
            assert!(refusal("s3", &[("bucket", "b"), (option, "true")]).contains("has no such option"), "{option}");
        }
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_secret_stands_in_one_place_and_in_no_address() {
        let twice = refusal("s3", &[("bucket", "b"), ("session_token", "x"), ("session_token_file", "y")]);
        assert!(twice.contains("one of the two is enough"), "{twice}");
        let address = refusal("s3", &[("bucket", "b"), ("endpoint", "https://user:hunter2@host")]);
        assert!(address.starts_with("storage.options.endpoint: ") && !address.contains("hunter2"), "{address}");
    }

    #[cfg(feature = "s3")]
    #[test]
    fn the_largest_upload_fits_into_the_parts_that_there_may_be() {
        let part = |largest: u64| find("s3").unwrap().parts(Sizing { largest, memory: 0 }).unwrap().size;
        assert_eq!(part(1), PART);
        assert_eq!(part(PART * PARTS - 1), PART);
        assert_eq!(part(PART * PARTS), PART);
        assert_eq!(part(PART * PARTS + 1), PART + PART_UNIT);
        for largest in [1, 5 << 30, PART * PARTS + 1, 5 << 40, 50 << 40] {
            assert!(largest.div_ceil(part(largest)) <= PARTS, "{largest}");
        }
        assert_eq!(find("fs").unwrap().parts(Sizing { largest: 5 << 40, memory: u64::MAX }), None);
    }

    #[cfg(all(feature = "s3", feature = "gcs"))]
    #[test]
    fn two_parts_are_sent_at_once_where_four_uploads_have_room_to_do_so() {
        let at_once = |service: &str, memory: u64| {
            let parts = find(service).unwrap().parts(Sizing { largest: 5 << 30, memory }).unwrap();
            (parts.at_once, parts.kept >> 20)
        };
        assert_eq!(at_once("s3", (80 << 20) - 1), (1, 15));
        assert_eq!(at_once("s3", 80 << 20), (2, 20));
        assert_eq!(at_once("gcs", u64::MAX), (1, 20));
    }

    #[cfg(feature = "s3")]
    #[test]
    fn an_upload_keeps_no_more_than_the_largest_has() {
        let kept = |largest: u64| find("s3").unwrap().parts(Sizing { largest, memory: u64::MAX }).unwrap().kept;
        assert_eq!([1, PART_UNIT, PART_UNIT + 1].map(|largest| kept(largest) / PART_UNIT), [1, 1, 2]);
        assert_eq!([4 * PART - 1, 4 * PART, 4 * PART + 1].map(kept), [4 * PART; 3]);
        assert_eq!(kept(19 << 20), 19 << 20);
    }
}
