//! The service, for the tests of the edge and of the transcoder.

use std::sync::Arc;

use tempfile::TempDir;

use super::Attachments;
use crate::auth::Verifier;
use crate::budget::Budget;
use crate::config::Config;
use crate::fair::Turns;
use crate::reads::Reads;
use crate::store::{Access, Store};
use crate::telemetry::Metrics;
use crate::throttle::Throttle;
use crate::upload::Uploads;

/// One issuer that signs with a secret, and a storage in memory.
const CONFIG: &str = "[storage]\nservice = \"memory\"\n[[auth.issuers]]\nissuer = \"https://id.example\"\n\
                      audience = [\"attachd\"]\nalgorithms = [\"HS256\"]\nhmac_secret_file = \"key\"\n";

/// A service, its configuration, and the folder that has the secret of its issuer.
pub(crate) fn service() -> (Attachments, Config, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), [7; 64]).unwrap();
    let file = folder.path().join("attachd.toml");
    std::fs::write(&file, CONFIG).unwrap();
    let config = Config::load_with(&file, &Default::default()).unwrap();
    let (metrics, turns, throttle) = (Metrics::default(), Turns::new(1), Throttle::default());
    let store = Arc::new(Store::open(&config.storage, Access::Write, config.limits.sizing(), &metrics).unwrap());
    let memory = Arc::new(config.downloads());
    let reads = Reads::new(Arc::clone(&store), memory, turns.clone(), throttle.clone(), config.reads(8));
    let budget = Arc::new(Budget::new(config.budget()));
    let uploads = Uploads::new(store, budget, turns, throttle, config.upload(8));
    let verifier = Arc::new(Verifier::load(&config.auth).unwrap());
    (Attachments::new(verifier, Arc::new(uploads), Arc::new(reads), metrics), config, folder)
}
