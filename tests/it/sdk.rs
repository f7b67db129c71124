//! The official Python SDK works against this server.

use std::process::Command;

use crate::support::files::root;
use crate::support::*;

both! {
    fn the_python_sdk_works_unmodified(app: App) {
        let python = std::env::var("TOSEND_TEST_PYTHON")
            .expect("TOSEND_TEST_PYTHON is not set: run the tests with tests/run");
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let (_, key) = owner.create_key("SDK", "");
        let ran = Command::new(python)
            .arg(root().join("tests/it/sdk.py"))
            .args([app.url(""), key])
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(app.database.number("SELECT count(*) FROM emails"), 6);
    }
}
