//! `verify` and `gc` without `--delete` send a service nothing but reads, so an identity that may only read is enough for them.

use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::conformance::{Door, upload};
use crate::engines::Engine;
use crate::way;

#[test]
fn verification_and_a_dry_sweep_send_a_service_only_reads() {
    let place = Engine::Moto.place();
    let server = place.setup().start();
    assert_eq!(upload(&server, Door::Rest, 1, b"content", false), 201);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let endpoint = way::to(&place, move |request| {
        seen.lock().unwrap().push(request.line.clone());
        request.pass()
    });
    let mut setup = place.setup();
    setup.variables.insert("ATTACHD_STORAGE__OPTIONS__ENDPOINT", endpoint);
    let folder = tempfile::tempdir().unwrap();
    let config = setup.write(folder.path());
    for words in [["verify"], ["gc"]] {
        lines.lock().unwrap().clear();
        let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
        let ended =
            command.args(words).arg("--config").arg(&config).env_clear().envs(&setup.variables).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(said.contains(" 1 attachments"), "{said}");
        let lines = lines.lock().unwrap();
        assert!(!lines.is_empty());
        let writes: Vec<_> =
            lines.iter().filter(|line| !line.starts_with("GET ") && !line.starts_with("HEAD ")).collect();
        assert!(writes.is_empty(), "{words:?}: {writes:?}");
    }
}
