//! nginx and Caddy in front of a program, with the lines of docs/gateways.md: they ask the dashboard
//! about every request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder};

use crate::support::*;

/// The client's own address, not that of the gateway.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

struct Scene {
    gateway: Gateway,
    upstream: Upstream,
    network: Proxy,
    owner: Visitor,
    dashboard: Dashboard,
}

impl Scene {
    fn on(database: &Database) -> Self {
        Self::behind(database, Gateway::nginx)
    }

    fn behind_caddy(database: &Database) -> Self {
        Self::behind(database, Gateway::caddy)
    }

    fn behind(database: &Database, start: fn(&str, SocketAddr) -> Gateway) -> Self {
        let args = ["--trusted-proxies", "127.0.0.1"];
        let dashboard = Dashboard::start(database, &args);
        let owner = dashboard.visitor();
        owner.sign_up();
        let network = Proxy::to(dashboard.base.strip_prefix("http://").unwrap());
        let upstream = Upstream::start();
        let gateway = start(&network.address.to_string(), upstream.address);
        Self {
            gateway,
            upstream,
            network,
            owner,
            dashboard,
        }
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let client = Client::builder()
            .local_address(IpAddr::from(CLIENT))
            .timeout(Duration::from_secs(60))
            .no_proxy();
        let url = format!("http://{}{path}", self.gateway.address);
        client
            .build()
            .unwrap()
            .request(method.parse().unwrap(), url)
    }

    fn send(&self, request: RequestBuilder) -> Answer {
        self.owner.send(request)
    }

    /// There is no verdict: the client is told to ask again, and nothing came through.
    fn assert_unknown(&self, request: RequestBuilder) {
        let answer = Answer::once(request).expect("an answer");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("www-authenticate"), None);
        assert_eq!(self.upstream.take().len(), 0);
    }

    fn orders(&self, key: &str) -> RequestBuilder {
        self.request("GET", "/orders").bearer_auth(key)
    }

    fn get(&self, key: &str) -> Answer {
        self.send(self.orders(key))
    }

    /// The one request that came through.
    fn seen(&self) -> Seen {
        let seen = self.upstream.take();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.into_iter().next().unwrap()
    }
}

#[test]
fn a_good_key_passes_and_the_upstream_knows_whose_it_is() {
    let database = Database::new(Backend::Sqlite);
    let scene = Scene::on(&database);
    attest(&database, "a.test");
    let domain = database
        .number("SELECT id FROM sending_domains")
        .to_string();
    let account = database.number("SELECT id FROM accounts").to_string();
    for (domain, scope) in [("", "all"), (domain.as_str(), "a.test")] {
        let (id, key) = scene.owner.create_key("Key", domain);
        let id = id.to_string();
        let forged = scene.request("GET", "/orders?x=1").bearer_auth(&key);
        let forged = ["X-Account", "x-account", "X_Account", "X-Key", "X-Scope"]
            .into_iter()
            .fold(forged, |request, name| request.header(name, "forged"))
            .header("cookie", "a=b");
        let answer = scene.send(forged);
        assert_eq!((answer.status, answer.body.as_str()), (200, "upstream"));
        let seen = scene.seen();
        assert_eq!(seen.line, "GET /orders?x=1 HTTP/1.0");
        for (name, value) in [
            ("x-account", account.as_str()),
            ("x-key", &id),
            ("x-scope", scope),
        ] {
            assert_eq!(seen.header(name), [value], "{seen:?}");
        }
        assert_eq!(seen.header("cookie"), ["a=b"]);
        // Neither what the client made up nor its key.
        let text = format!("{seen:?}");
        assert!(
            !text.contains("forged") && !text.contains("tsend_"),
            "{text}"
        );
    }
}

/// Gateways keep connections for a minute or two and send the next request on them, which would fail
/// if the server had hung up meanwhile.
#[test]
fn a_connection_is_there_for_the_next_request_after_a_while() {
    let database = Database::new(Backend::Sqlite);
    let mut dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    let (_, key) = owner.create_key("Key", "");
    let mut wire = Wire::to(&dashboard.base);
    let mut is_accepted = || known(|| wire.get("/v2/verify", &key)).status == 200;
    assert!(is_accepted());
    std::thread::sleep(Duration::from_secs(10));
    assert!(is_accepted());
    // It keeps no server from ending.
    assert!(dashboard.terminate());
}

#[test]
fn no_key_and_a_bad_key_do_not_pass() {
    let database = Database::new(Backend::Sqlite);
    let scene = Scene::on(&database);
    let (id, key) = scene.owner.create_key("Key", "");
    let (paused_id, paused) = scene.owner.create_key("Paused", "");

    for request in [
        scene.request("GET", "/orders"),
        scene.request("POST", "/orders").body("{}"),
        scene.request("GET", "/orders").basic_auth("ada", Some("b")),
        scene.request("GET", &format!("/orders?api_key={key}")),
        scene.request("GET", "/orders").header("X-Account", "1"),
    ] {
        let answer = scene.send(request);
        assert_eq!(answer.status, 401, "{answer:?}");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, Some(r#"Bearer realm="tosend""#));
    }
    assert_eq!(scene.get("garbage").status, 403);
    // The question itself is not for clients.
    let question = scene.request("GET", "/_verify").bearer_auth(&key);
    assert_eq!(scene.send(question).status, 404);
    assert_eq!(scene.upstream.take().len(), 0);

    // From the very next request on.
    assert_eq!(
        (scene.get(&key).status, scene.get(&paused).status),
        (200, 200)
    );
    scene.owner.delete_key(id);
    assert_eq!(scene.get(&key).status, 403);
    scene
        .owner
        .post(&format!("/api-keys/{paused_id}/pause"), &[]);
    assert_eq!(scene.get(&paused).status, 403);
    assert_eq!(scene.upstream.take().len(), 2);
    scene
        .owner
        .post(&format!("/api-keys/{paused_id}/resume"), &[]);
    assert_eq!(scene.get(&paused).status, 200);
}

#[test]
fn a_body_reaches_the_upstream_whole() {
    let database = Database::new(Backend::Sqlite);
    let scene = Scene::on(&database);
    let (_, key) = scene.owner.create_key("Key", "");
    for length in [0, 2, 300_000] {
        let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
        for method in ["POST", "PUT", "DELETE"] {
            let request = scene.request(method, "/orders").bearer_auth(&key);
            assert_eq!(scene.send(request.body(body.clone())).status, 200);
            let seen = scene.seen();
            assert!(
                seen.line.starts_with(method) && seen.body == body,
                "{}",
                seen.line
            );
        }
    }
    // What the upstream answers is its own.
    let fails = scene.request("POST", "/fails").bearer_auth(&key);
    let answer = scene.send(fails.body("x"));
    assert_eq!((answer.status, answer.body.as_str()), (500, "upstream"));
    assert_eq!(scene.seen().body, b"x");
}

#[test]
fn the_dashboard_learns_who_the_client_is() {
    let database = Database::new(Backend::Sqlite);
    let scene = Scene::on(&database);
    let (id, key) = scene.owner.create_key("Key", "");
    let request = scene.request("GET", "/orders").bearer_auth(&key);
    let request = request.header("x-forwarded-for", "203.0.113.9");
    assert_eq!(
        scene.send(request.header("user-agent", "client/1")).status,
        200
    );
    let used = format!(
        "SELECT count(*) FROM api_key_uses WHERE api_key_id = {id}
         AND address = '{CLIENT}' AND user_agent = 'client/1'"
    );
    until("the use is written", || database.number(&used) == 1);
}

#[test]
fn connections_to_the_dashboard_are_kept() {
    let database = Database::new(Backend::Sqlite);
    let scene = Scene::on(&database);
    let (_, key) = scene.owner.create_key("Key", "");
    let before = scene.network.connections();
    for _ in 0..50 {
        assert_eq!(scene.get(&key).status, 200);
    }
    // Some may have been idle for too long.
    assert!(scene.network.connections() - before < 25);
    // One that was closed meanwhile is not the client's trouble.
    for _ in 0..10 {
        scene.network.cut();
        assert_eq!(scene.get(&key).status, 200);
    }
}

#[test]
fn without_a_dashboard_nobody_is_refused() {
    let database = Database::new(Backend::Sqlite);
    let scene = Scene::on(&database);
    let (_, key) = scene.owner.create_key("Key", "");
    let requests = |scene: &Scene| {
        vec![
            scene.orders(&key),
            scene
                .request("POST", "/orders")
                .bearer_auth(&key)
                .body("{}"),
            scene.orders("garbage"),
            scene.request("GET", "/orders"),
        ]
    };
    assert_nobody_is_refused_without_a_dashboard(scene, &key, requests);
}

/// Neither while nothing answers, nor while it hangs, nor after its end.
fn assert_nobody_is_refused_without_a_dashboard(
    mut scene: Scene,
    key: &str,
    requests: impl Fn(&Scene) -> Vec<RequestBuilder>,
) {
    let everybody = |scene: &Scene| {
        for request in requests(scene) {
            scene.assert_unknown(request);
        }
    };
    scene.network.refuse();
    everybody(&scene);
    scene.network.restore();
    assert_eq!(scene.get(key).status, 200);
    scene.seen();
    // It hangs.
    scene.network.swallow();
    scene.assert_unknown(scene.orders(key));
    scene.network.cut();
    scene.network.restore();
    assert_eq!(scene.get(key).status, 200);
    scene.seen();
    scene.dashboard.kill();
    everybody(&scene);
}

#[test]
fn without_a_database_nobody_is_refused_on_postgres() {
    let mut cluster = Cluster::new();
    let database = Database::on(&cluster);
    let scene = Scene::on(&database);
    let (_, key) = scene.owner.create_key("Key", "");
    assert_eq!(scene.get(&key).status, 200);
    scene.seen();
    cluster.stop(Stop::Immediate);
    for _ in 0..3 {
        scene.assert_unknown(scene.orders(&key));
    }
    cluster.start();
    until("verdicts again", || scene.get(&key).status == 200);
}

#[test]
fn behind_caddy_a_good_key_passes_and_the_upstream_knows_whose_it_is() {
    let database = Database::new(Backend::Sqlite);
    let scene = Scene::behind_caddy(&database);
    attest(&database, "a.test");
    let domain = database
        .number("SELECT id FROM sending_domains")
        .to_string();
    let account = database.number("SELECT id FROM accounts").to_string();
    for (domain, scope) in [("", "all"), (domain.as_str(), "a.test")] {
        let (id, key) = scene.owner.create_key("Key", domain);
        let id = id.to_string();
        let forged = scene.request("POST", "/orders?x=1").bearer_auth(&key);
        let forged = [
            "X-Tosend-Account",
            "x-tosend-key",
            "X_Tosend_Account",
            "x_tosend_key",
            "X-Tosend_Scope",
            "X_Tosend-Scope",
            "X-Forwarded-For",
        ]
        .into_iter()
        .fold(forged, |request, name| request.header(name, "forged"))
        .header("cookie", "a=b")
        .header("user-agent", "client/1")
        .body(vec![0; 300_000]);
        let answer = scene.send(forged);
        assert_eq!((answer.status, answer.body.as_str()), (200, "upstream"));
        let seen = scene.seen();
        assert_eq!(seen.line, "POST /orders?x=1 HTTP/1.1");
        assert_eq!(seen.body, vec![0; 300_000]);
        let headers = format!("{:?}", seen.headers);
        for (name, value) in [
            ("x-tosend-account", account.as_str()),
            ("x-tosend-key", &id),
            ("x-tosend-scope", scope),
            ("cookie", "a=b"),
        ] {
            assert_eq!(seen.header(name), [value], "{headers}");
        }
        assert!(
            !headers.contains("forged") && !headers.contains("tsend_"),
            "{headers}"
        );
        let used = format!(
            "SELECT count(*) FROM api_key_uses WHERE api_key_id = {id}
             AND address = '{CLIENT}' AND user_agent = 'client/1'"
        );
        until("the use is written", || database.number(&used) == 1);
        // What the upstream answers is its own.
        let fails = scene.request("POST", "/fails").bearer_auth(&key);
        assert_eq!(scene.send(fails).status, 500);
        scene.seen();
    }
}

#[test]
fn behind_caddy_no_key_and_a_bad_key_do_not_pass() {
    let database = Database::new(Backend::Sqlite);
    let scene = Scene::behind_caddy(&database);
    let (id, key) = scene.owner.create_key("Key", "");
    for request in [
        scene.request("GET", "/orders"),
        scene.request("POST", "/orders").body("{}"),
        scene.request("GET", &format!("/orders?api_key={key}")),
        scene.request("GET", "/orders").header("X-Tosend-Key", "1"),
    ] {
        let answer = scene.send(request);
        assert_eq!(answer.status, 401, "{answer:?}");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, Some(r#"Bearer realm="tosend""#));
    }
    assert_eq!(scene.get("garbage").status, 403);
    assert_eq!(scene.get(&key).status, 200);
    scene.owner.delete_key(id);
    assert_eq!(scene.get(&key).status, 403);
    assert_eq!(scene.upstream.take().len(), 1);
}

#[test]
fn behind_caddy_nobody_is_refused_without_a_dashboard() {
    let database = Database::new(Backend::Sqlite);
    let scene = Scene::behind_caddy(&database);
    let (_, key) = scene.owner.create_key("Key", "");
    let requests = |scene: &Scene| {
        vec![
            scene.orders(&key),
            scene.orders("garbage"),
            scene.request("POST", "/orders").body("{}"),
        ]
    };
    assert_nobody_is_refused_without_a_dashboard(scene, &key, requests);
}
