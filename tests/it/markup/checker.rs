//! The Nu HTML checker, which knows the HTML standard.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What is wrong with the files in a folder, as people read it.
pub fn errors(folder: &Path) -> Vec<String> {
    let jar = std::env::var("TOSEND_TEST_VNU")
        .expect("TOSEND_TEST_VNU is not set: run the tests with tests/run");
    let ran = Command::new("java")
        .args(["-jar", &jar, "--format", "json", "--stdout"])
        .args(["--errors-only", "--also-check-svg", "--exit-zero-always"])
        .arg(folder)
        .output()
        .expect("java starts: run the tests with tests/run");
    let complaint = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{jar} fails: {complaint}");
    let told: Value = serde_json::from_slice(&ran.stdout).expect(&complaint);
    let messages = told["messages"].as_array().expect("a list of messages");
    let errors = messages.iter().filter(|message| !is_about_htmx(message));
    errors.map(sentence).collect()
}

/// htmx's attributes are not in the standard.
fn is_about_htmx(message: &Value) -> bool {
    let text = message["message"].as_str().unwrap_or_default();
    text.starts_with("Attribute “hx-")
}

fn sentence(message: &Value) -> String {
    let text = |name: &str| message[name].as_str().unwrap_or_default();
    let (_, file) = text("url").rsplit_once('/').unwrap_or_default();
    let line = &message["lastLine"];
    format!(
        "{file}:{line}: {}\n    {}",
        text("message"),
        text("extract")
    )
}
