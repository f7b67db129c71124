//! A key may be limited to networks of clients: from anywhere else it looks like a key that never
//! was, and its owner sees the call.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use reqwest::blocking::RequestBuilder;
use serde_json::{Value, json};
use tosend_dashboard::keys::rule::Allowed;
use tosend_dashboard::keys::secret::PlainKey;

use crate::support::*;

/// A key and its id.
fn key_for(owner: &Visitor, networks: &str) -> (i64, String) {
    let nonce = owner.nonce();
    let mut form = vec![
        ("nonce", nonce.as_str()),
        ("name", "Bound"),
        ("networks", networks),
    ];
    form.extend(scope(""));
    let key = owner.post("/api-keys", &form).key();
    (owner.get("/api-keys").key_ids()[0], key)
}

fn from(request: RequestBuilder, forwarded: &str) -> RequestBuilder {
    request.header("x-forwarded-for", forwarded)
}

/// All that a client can see of an answer, but what differs for each request.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let differs = |name: &str| ["x-request-id", "date"].contains(&name);
    let mut headers: Vec<(String, String)> = (answer.headers.iter())
        .filter(|(name, _)| !differs(name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (answer.status, headers, answer.body.clone())
}

/// Every way in which a program can present its key.
fn requests(app: &App, key: &str) -> Vec<RequestBuilder> {
    let program = app.program(key);
    let in_body = |path: &str| {
        let mut body = email("hello@acme.test");
        body["api_key"] = json!(key);
        program.bare("POST", path).json(&body)
    };
    vec![
        program
            .with_key("POST", "/v2/emails")
            .json(&email("hello@acme.test")),
        program.with_key("POST", "/v2/emails").body("not JSON"),
        program
            .with_key("POST", "/v2/emails/batch")
            .json(&json!({"emails": []})),
        in_body("/v2/emails"),
        program.with_key("GET", "/v2/info"),
        program.bare("GET", &format!("/v2/info?api_key={key}")),
        program.with_key("GET", "/v2/verify"),
        program.with_key("GET", "/v2/verify?domain=acme.test"),
        program.with_key("GET", "/v2/verify/some/path"),
    ]
}

both! {
    fn from_another_network_a_key_looks_like_one_that_never_was(
        app: App, with |s| s.trusted_proxies = "127.0.0.1, 10.0.0.0/8".into()
    ) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let (_, key) = key_for(&owner, "203.0.113.0/24 2001:db8::/32");
        let unknown = PlainKey::generate();
        let program = app.program(&key);
        for client in [
            "198.51.100.1",
            "203.0.112.255",
            "2001:db9::1",
            "::ffff:198.51.100.1",
            // What a client says of itself, in front of what the proxy says.
            "203.0.113.7, 198.51.100.1",
            "203.0.113.7, 198.51.100.1, 10.0.0.2",
            "203.0.113.7, nonsense",
        ] {
            let pairs = requests(&app, &key).into_iter().zip(requests(&app, unknown.expose()));
            for (bound, unknown) in pairs {
                let bound = program.send(from(bound, client));
                let unknown = program.send(from(unknown, client));
                assert_eq!(bound.status, 403, "{client}: {bound:?}");
                assert_eq!(seen(&bound), seen(&unknown), "{client}");
            }
        }
        for client in [
            "203.0.113.7",
            "::ffff:203.0.113.7",
            "2001:db8:1::1",
            "198.51.100.1, 203.0.113.7",
            "198.51.100.1, 203.0.113.7:4711, 10.0.0.2",
        ] {
            let info = program.send(from(program.with_key("GET", "/v2/info"), client));
            assert_eq!(info.status, 200, "{client}: {info:?}");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM emails"), 0);
    }

    fn without_trusted_proxies_the_peer_counts_alone(app: App) {
        let owner = app.owner();
        let (_, away) = key_for(&owner, "203.0.113.7");
        let (_, here) = key_for(&owner, "127.0.0.0/8");
        for (key, verdict) in [(away, 403), (here, 200)] {
            let program = app.program(&key);
            for header in ["x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip"] {
                let request = program.with_key("GET", "/v2/info").header(header, "203.0.113.7");
                assert_eq!(program.send(request).status, verdict, "{header}");
            }
        }
    }

    fn its_owner_sees_who_was_refused(
        app: App, with |s| s.trusted_proxies = "127.0.0.1".into()
    ) {
        let owner = app.owner();
        let (id, key) = key_for(&owner, "203.0.113.7");
        let program = app.program(&key);
        for _ in 0..3 {
            program.send(from(program.with_key("GET", "/v2/info"), "198.51.100.1"));
        }
        until("the page tells it", || {
            let page = owner.get(&format!("/api-keys/{id}")).body;
            page.contains("The client was outside the networks of this key")
                && page.contains("198.51.100.1")
        });
    }

    fn an_edit_holds_from_the_next_request_on_and_tells_whom_it_shuts_out(
        app: App, with |s| s.trusted_proxies = "127.0.0.1".into()
    ) {
        let owner = app.owner();
        let (id, key) = key_for(&owner, "");
        let program = app.program(&key);
        let calls = |client| program.send(from(program.with_key("GET", "/v2/info"), client)).status;
        assert_eq!(calls("198.51.100.1"), 200);
        let edit = format!("/api-keys/{id}/edit");
        until("the form tells the last caller", || {
            let form = owner.get(&edit).body;
            form.contains("You are at 127.0.0.1 now.")
                && form.contains("The key was last used from 198.51.100.1.")
        });
        let version = owner.get(&edit).field("version");
        let mut form = vec![("version", version.as_str()), ("name", "Bound")];
        form.extend([("networks", "203.0.113.0/24"), ("expiry", "keep")]);
        form.extend(scope(""));
        let told = owner.post(&edit, &form).body;
        assert!(told.contains("It will be refused from 198.51.100.1"), "{told}");
        assert_eq!(calls("198.51.100.1"), 200);
        form.push(("confirmed", "yes"));
        assert_eq!(owner.post(&edit, &form).status, 303);
        assert_eq!((calls("198.51.100.1"), calls("203.0.113.9")), (403, 200));
        // Whoever was refused already is not shut out by the next edit.
        let version = owner.get(&edit).field("version");
        form[0] = ("version", &version);
        form[2] = ("networks", "203.0.113.9");
        form.pop();
        let told = owner.post(&edit, &form).body;
        assert!(told.contains("203.0.113.0/24: such"), "{told}");
    }

    fn what_is_no_network_is_refused_beside_its_field(app: App) {
        let owner = app.owner();
        let nonce = owner.nonce();
        let mut form = vec![("nonce", nonce.as_str()), ("name", "Bound"), ("networks", "10.0.0.0/33")];
        form.extend(scope(""));
        let page = owner.post("/api-keys", &form);
        assert_eq!(page.status, 422);
        assert!(page.body.contains("neither an address nor a network"), "{}", page.body);
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    // Of few bits, so that many are in the networks.
    let v4 = (0_u32..64, 0_u32..4).prop_map(|(a, b)| IpAddr::from((b << 30 | a).to_be_bytes()));
    let v6 = (0_u128..64, 0_u128..4).prop_map(|(a, b)| IpAddr::from((b << 126 | a).to_be_bytes()));
    prop_oneof![
        v4,
        v6,
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ]
}

fn network() -> impl Strategy<Value = String> {
    (address(), any::<u8>()).prop_map(|(address, length)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        format!("{address}/{}", length % (most + 1))
    })
}

/// Python's own module answers the same questions.
#[test]
fn addresses_match_as_python_says() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut draw = || {
        let networks = proptest::collection::vec(network(), 1..4).new_tree(&mut runner);
        let address = address().new_tree(&mut runner);
        (networks.unwrap().current(), address.unwrap().current())
    };
    let cases: Vec<(Vec<String>, IpAddr)> = (0..20_000).map(|_| draw()).collect();
    let program = "
import ipaddress, json, sys
def is_in(address, networks):
    nets = [ipaddress.ip_network(n, strict=False) for n in networks]
    return any(address.version == n.version and address in n for n in nets)
cases = json.load(sys.stdin)
json.dump([is_in(ipaddress.ip_address(a), n) for n, a in cases], sys.stdout)";
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = serde_json::to_vec(&cases).unwrap();
    let mut stdin = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&asked).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    let said: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said.len(), cases.len());
    let ours = |(networks, address): &(Vec<String>, IpAddr)| {
        let networks = Allowed::parse_networks(&networks.join("\n")).unwrap();
        networks.allows_client(*address)
    };
    let mut allowed = 0;
    for (case, said) in cases.iter().zip(&said) {
        assert_eq!(ours(case), said.as_bool().unwrap(), "{case:?}");
        allowed += usize::from(ours(case));
    }
    assert!(
        (1_000..19_000).contains(&allowed),
        "both answers are common: {allowed}"
    );
}
