//! A relay for one test (`tests/it/smtp.py`), which behaves as ordered.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};
use serde_json::Value;
use tempfile::TempDir;

use super::Port;
use super::files::root;

pub struct Relay {
    folder: TempDir,
    port: Port,
    has_tls: bool,
    running: Option<(Child, ChildStdin, BufReader<ChildStdout>)>,
}

/// A message that the relay received.
#[derive(Debug, Clone)]
pub struct Got {
    pub from: String,
    pub to: Vec<String>,
    pub content: String,
    pub is_encrypted: bool,
}

impl Got {
    /// The only header of this name.
    pub fn header(&self, name: &str) -> &str {
        let begin = format!("{name}: ");
        let mut lines = self.content.split("\r\n");
        let found = lines.find_map(|line| line.strip_prefix(&begin));
        found.unwrap_or_else(|| panic!("no {name} in {}", self.content))
    }
}

impl Relay {
    pub fn start() -> Self {
        let mut relay = Self::stopped();
        relay.run();
        relay
    }

    /// With a self-signed certificate.
    pub fn with_tls() -> Self {
        let mut relay = Self::stopped();
        let (certificate, key) = self_signed();
        std::fs::write(relay.certificate(), certificate).unwrap();
        std::fs::write(relay.folder.path().join("key.pem"), key).unwrap();
        relay.has_tls = true;
        relay.run();
        relay
    }

    /// Nothing listens there yet.
    pub fn stopped() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            port: Port::reserve(),
            has_tls: false,
            running: None,
        }
    }

    pub fn run(&mut self) {
        let mut command = Command::new(python());
        command
            .arg(script("smtp.py"))
            .arg(self.port.number.to_string())
            .arg(self.folder.path());
        if self.has_tls {
            command.arg(self.certificate());
            command.arg(self.folder.path().join("key.pem"));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        self.running = Some((child, orders, answers));
    }

    pub fn stop(&mut self) {
        if let Some((mut child, ..)) = self.running.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Sets its behaviour from now on.
    pub fn order(&mut self, order: &Value) {
        let (_, orders, answers) = self.running.as_mut().expect("it runs");
        writeln!(orders, "{order}").unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    /// All messages received, in order.
    pub fn got(&self) -> Vec<Got> {
        let got = |line: Value| Got {
            from: line["from"].as_str().unwrap().to_owned(),
            to: serde_json::from_value(line["to"].clone()).unwrap(),
            content: String::from_utf8(STANDARD.decode(line["content"].as_str().unwrap()).unwrap())
                .unwrap(),
            is_encrypted: line["is_encrypted"].as_bool().unwrap(),
        };
        self.lines("mails").into_iter().map(got).collect()
    }

    /// All login attempts.
    pub fn logins(&self) -> Vec<Value> {
        self.lines("logins")
    }

    /// The names with which clients greeted it.
    pub fn hellos(&self) -> Vec<String> {
        let hellos = self.lines("hellos").into_iter();
        hellos
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    /// How many contents began, whether they were taken or not.
    pub fn contents(&self) -> usize {
        self.lines("contents").len()
    }

    /// The last line may be incomplete.
    fn lines(&self, file: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        whole
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub fn url(&self) -> String {
        let tls = if self.has_tls { "?tls=required" } else { "" };
        format!("smtp://{}{tls}", self.port.address())
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A message as Python parses it, and whether its signature is valid with a DNS record.
pub fn read_mail(content: &str, name: &str, record: &str) -> Value {
    let mut child = Command::new(python())
        .arg(script("mail.py"))
        .args([name, record])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(content.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn python() -> String {
    std::env::var("TOSEND_TEST_PYTHON")
        .expect("TOSEND_TEST_PYTHON is not set: run the tests with tests/run")
}

fn script(name: &str) -> PathBuf {
    root().join("tests/it").join(name)
}

/// A certificate for 127.0.0.1, and its key, in PEM.
fn self_signed() -> (Vec<u8>, Vec<u8>) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "relay.test").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    let (from, to) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(7));
    builder.set_not_before(&from.unwrap()).unwrap();
    builder.set_not_after(&to.unwrap()).unwrap();
    let names = SubjectAlternativeName::new()
        .ip("127.0.0.1")
        .build(&builder.x509v3_context(None, None))
        .unwrap();
    builder.append_extension(names).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let pem = builder.build().to_pem().unwrap();
    (pem, key.private_key_to_pem_pkcs8().unwrap())
}
