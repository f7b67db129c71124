//! When, from where and by what a key was last used: written soon after, never waited for.

use chrono::{NaiveDateTime, SubsecRound, Utc};
use reqwest::header::HeaderValue;

use crate::support::*;

const NOT_WRITTEN: &str = "how keys were used could not be written";

#[derive(Debug, Clone, PartialEq)]
struct Use {
    at: NaiveDateTime,
    address: String,
    user_agent: String,
}

/// What is written about a key.
fn last_use(database: &Database, id: i64) -> Option<Use> {
    let of_key = format!("FROM api_key_uses WHERE api_key_id = {id}");
    if database.number(&format!("SELECT count(*) {of_key}")) == 0 {
        return None;
    }
    let column = |name: &str| database.text(&format!("SELECT {name} {of_key}"));
    let at = column("used_at");
    Some(Use {
        at: NaiveDateTime::parse_from_str(&at, "%Y-%m-%d %H:%M:%S%.f").unwrap(),
        address: column("address"),
        user_agent: column("user_agent"),
    })
}

fn wait_for_use(database: &Database, id: i64) -> Use {
    until("a use is written", || last_use(database, id).is_some());
    last_use(database, id).unwrap()
}

fn wait_for_use_by(database: &Database, id: i64, user_agent: &str) -> Use {
    let is_by = |last: Use| last.user_agent == user_agent;
    until(&format!("a use by {user_agent}"), || {
        last_use(database, id).is_some_and(is_by)
    });
    last_use(database, id).unwrap()
}

/// Uses a key as a program that calls itself so.
fn use_by(program: &Program, user_agent: impl AsRef<[u8]>) {
    let value = HeaderValue::from_bytes(user_agent.as_ref()).unwrap();
    let request = program.with_key("GET", "/v2/verify");
    let answer = program.send(request.header("user-agent", value));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Uses a new key, and waits until that is written: so is then whatever happened before.
fn wait_for_all_before(app: &App, owner: &Visitor) {
    let (id, key) = owner.create_key("Marker", "");
    use_by(&app.program(&key), "marker");
    wait_for_use(&app.database, id);
}

/// As precise as what is stored.
fn now() -> NaiveDateTime {
    Utc::now().naive_utc().trunc_subsecs(6)
}

both! {
    fn a_use_is_written_soon_after(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        for (n, path) in ["/v2/verify", "/v2/verify?domain=acme.test", "/v2/verify/original",
            "/v2/info", "/v2/emails"].into_iter().enumerate()
        {
            let (id, key) = owner.create_key(&n.to_string(), "");
            let program = app.program(&key);
            assert_eq!(last_use(&app.database, id), None);
            let before = now();
            let user_agent = format!("agent/{n}");
            let request = match path {
                "/v2/emails" => program.with_key("POST", path).json(&email("ada@acme.test")),
                _ => program.with_key("GET", path),
            };
            let answer = program.send(request.header("user-agent", &user_agent));
            assert_eq!(answer.status, 200, "{path}");
            let after = now();
            let used = wait_for_use(&app.database, id);
            assert!((before..=after).contains(&used.at), "{path}: {used:?}");
            let (address, by) = (used.address.as_str(), used.user_agent.as_str());
            assert_eq!((address, by), ("127.0.0.1", user_agent.as_str()), "{path}");
        }
    }

    fn the_latest_use_stands(app: App) {
        let (id, key) = app.owner().create_key("Key", "");
        let program = app.program(&key);
        let mut earlier = now();
        for user_agent in ["first", "second", "third"] {
            use_by(&program, user_agent);
            let used = wait_for_use_by(&app.database, id, user_agent);
            assert!(used.at >= earlier, "{used:?}");
            earlier = used.at;
        }
        let rows = "SELECT count(*) FROM api_key_uses";
        assert_eq!(app.database.number(rows), 1);
    }

    fn a_use_that_is_refused_is_none(app: App) {
        let owner = app.owner();
        let (deleted_id, deleted) = owner.create_key("Deleted", "");
        let (paused_id, paused) = owner.create_key("Paused", "");
        let (used_id, used) = owner.create_key("Used", "");
        use_by(&app.program(&used), "accepted");
        wait_for_use_by(&app.database, used_id, "accepted");
        owner.delete_key(deleted_id);
        owner.delete_key(used_id);
        owner.post(&format!("/api-keys/{paused_id}/pause"), &[]);
        for key in [&deleted, &paused, &used] {
            let program = app.program(key);
            for path in ["/v2/verify", "/v2/verify/original", "/v2/info"] {
                let request = program.with_key("GET", path).header("user-agent", "refused");
                assert_eq!(program.send(request).status, 403);
            }
        }
        wait_for_all_before(&app, &owner);
        for id in [deleted_id, paused_id] {
            assert_eq!(last_use(&app.database, id), None);
        }
        assert_eq!(last_use(&app.database, used_id).unwrap().user_agent, "accepted");
    }

    fn a_later_use_is_never_overwritten(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Key", "");
        app.database.execute(&format!(
            "INSERT INTO api_key_uses (api_key_id, used_at, address, user_agent)
             VALUES ({id}, '2999-01-01 00:00:00', '192.0.2.1', 'another node')"
        ));
        let future = last_use(&app.database, id).unwrap();
        for _ in 0..2 {
            use_by(&app.program(&key), "now");
            wait_for_all_before(&app, &owner);
            assert_eq!(last_use(&app.database, id).as_ref(), Some(&future));
        }
    }

    fn what_a_client_calls_itself_is_kept_as_text_of_200_bytes(app: App) {
        let owner = app.owner();
        let high: Vec<u8> = (0x80..=0xFF).collect();
        let replaced = |count: usize| "\u{FFFD}".repeat(count);
        let cases: Vec<(Vec<u8>, String)> = vec![
            (b"".into(), String::new()),
            (b"curl/8.5.0".into(), "curl/8.5.0".into()),
            (b"a\tb".into(), "a\tb".into()),
            ("a".repeat(200).into(), "a".repeat(200)),
            ("a".repeat(2_000).into(), "a".repeat(200)),
            // Characters of two, three and four bytes, cut between them wherever 200 bytes end.
            ("é".repeat(1_000).into(), "é".repeat(100)),
            (format!("a{}", "é".repeat(1_000)).into(), format!("a{}", "é".repeat(99))),
            ("€".repeat(600).into(), "€".repeat(66)),
            (format!("aa{}", "€".repeat(600)).into(), format!("aa{}", "€".repeat(66))),
            ("🔑".repeat(500).into(), "🔑".repeat(50)),
            (format!("a{}", "🔑".repeat(500)).into(), format!("a{}", "🔑".repeat(49))),
            (format!("aa{}", "🔑".repeat(500)).into(), format!("aa{}", "🔑".repeat(49))),
            (format!("aaa{}", "🔑".repeat(500)).into(), format!("aaa{}", "🔑".repeat(49))),
            ("\u{202e}moc\u{200b}".into(), "\\u{202e}moc\\u{200b}".into()),
            (vec![0x80], replaced(1)),
            (vec![0xFF; 2_000], replaced(66)),
            (high, replaced(66)),
            ("Zürich".bytes().map(|b| if b == 0xBC { 0xFF } else { b }).collect(),
                "Z\u{FFFD}\u{FFFD}rich".into()),
            (b"'; DROP TABLE api_key_uses; --".into(), "'; DROP TABLE api_key_uses; --".into()),
        ];
        let used: Vec<(i64, String)> = cases
            .into_iter()
            .enumerate()
            .map(|(n, (user_agent, kept))| {
                let (id, key) = owner.create_key(&n.to_string(), "");
                use_by(&app.program(&key), user_agent);
                (id, kept)
            })
            .collect();
        let (missing_id, missing) = owner.create_key("Missing", "");
        let answer = raw(app.address, format!(
            "GET /v2/verify HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {missing}\r\n\
             Connection: close\r\n\r\n"
        ).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        for (id, kept) in used.into_iter().chain([(missing_id, String::new())]) {
            assert_eq!(wait_for_use(&app.database, id).user_agent, kept);
        }
    }

    fn a_key_that_stands_in_the_user_agent_is_not_kept(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Key", "");
        for user_agent in [key.clone(), format!("app/1 ({key})"), format!("{}{key}", "a".repeat(170))] {
            let program = app.program(&key);
            use_by(&program, "before");
            wait_for_use_by(&app.database, id, "before");
            use_by(&program, user_agent);
            assert_eq!(wait_for_use_by(&app.database, id, "").address, "127.0.0.1");
        }
    }

    fn a_forwarded_address_is_not_believed(app: App) {
        let (id, key) = app.owner().create_key("Key", "");
        let program = app.program(&key);
        let request = program.with_key("GET", "/v2/verify");
        let request = request.header("x-forwarded-for", "203.0.113.9");
        let request = request.header("x-real-ip", "203.0.113.9");
        let request = request.header("forwarded", "for=203.0.113.9");
        assert_eq!(program.send(request).status, 200);
        assert_eq!(wait_for_use(&app.database, id).address, "127.0.0.1");
    }

    fn an_address_is_believed_from_a_trusted_proxy(
        app: App, with |settings| settings.trusted_proxies = "127.0.0.1, 10.0.0.0/8".into()
    ) {
        let owner = app.owner();
        let cases: [(&[&str], &str); 8] = [
            (&[], "127.0.0.1"),
            (&["203.0.113.9"], "203.0.113.9"),
            (&["198.51.100.7, 203.0.113.9"], "203.0.113.9"),
            (&["198.51.100.7, 203.0.113.9, 10.1.2.3"], "203.0.113.9"),
            (&["198.51.100.7", "203.0.113.9, 10.1.2.3"], "203.0.113.9"),
            (&["198.51.100.7, garbage"], "127.0.0.1"),
            (&["198.51.100.7, 2001:db8::1"], "2001:db8::1"),
            (&["::ffff:203.0.113.9"], "203.0.113.9"),
        ];
        let used = cases.map(|(forwarded, client)| {
            let (id, key) = owner.create_key("Key", "");
            let program = app.program(&key);
            let request = program.with_key("GET", "/v2/verify");
            let request = forwarded.iter().fold(request, |request, value| {
                request.header("x-forwarded-for", *value)
            });
            assert_eq!(program.send(request).status, 200);
            (id, client, forwarded)
        });
        for (id, client, forwarded) in used {
            assert_eq!(wait_for_use(&app.database, id).address, client, "{forwarded:?}");
        }
    }
}

pub fn has_failed_to_write(dashboard: &Dashboard) -> bool {
    let log = std::fs::read_to_string(&dashboard.log).unwrap();
    log.contains(NOT_WRITTEN)
}

/// What the log says of writes that failed for another reason than that the machine is busy.
pub fn failures_to_write(dashboard: &Dashboard) -> Vec<String> {
    let log = std::fs::read_to_string(&dashboard.log).unwrap();
    let failures = log.lines().filter(|line| line.contains(NOT_WRITTEN));
    failures
        .filter(|line| !is_late(line))
        .map(str::to_owned)
        .collect()
}

/// A server with a key, and the key's id.
fn with_a_key(database: &Database) -> (Dashboard, i64, String) {
    let dashboard = Dashboard::start(database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    let (id, key) = owner.create_key("Key", "");
    (dashboard, id, key)
}

#[test]
fn no_request_waits_for_a_use_to_be_written() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        let (dashboard, id, key) = with_a_key(&database);
        let owner = dashboard.visitor();
        owner.sign_in(EMAIL);
        let (once_id, once) = owner.create_key("Used once", "");
        let program = dashboard.program(&key);
        let lock = database.lock("api_key_uses");
        use_by(&dashboard.program(&once), "kept");
        until("writing fails", || {
            use_by(&program, "while it is locked");
            assert_eq!(program.info().status, 200);
            has_failed_to_write(&dashboard)
        });
        use_by(&program, "the last");
        drop(lock);
        wait_for_use_by(&database, id, "the last");
        wait_for_use_by(&database, once_id, "kept");
    }
}

#[test]
fn a_use_is_kept_while_the_database_is_away_on_postgres() {
    let mut cluster = Cluster::new();
    let database = Database::on(&cluster);
    let (dashboard, id, key) = with_a_key(&database);
    // Until it is away.
    let lock = database.lock("api_key_uses");
    let before = now();
    use_by(&dashboard.program(&key), "kept");
    let after = now();
    cluster.stop(Stop::Immediate);
    drop(lock);
    until("writing fails", || has_failed_to_write(&dashboard));
    cluster.start();
    let used = wait_for_use_by(&database, id, "kept");
    // When it happened, not when it was written.
    assert!((before..=after).contains(&used.at), "{used:?}");
}

#[test]
fn a_use_that_could_not_be_written_gives_way_to_a_newer_one_on_postgres() {
    let database = Database::new(Backend::Postgres);
    let (dashboard, id, key) = with_a_key(&database);
    let program = dashboard.program(&key);
    let lock = database.lock("api_key_uses");
    use_by(&program, "older");
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until("the older is being written", || {
        database.number(waiting) > 0
    });
    use_by(&program, "newer");
    until("writing fails", || has_failed_to_write(&dashboard));
    drop(lock);
    wait_for_use_by(&database, id, "newer");
}

#[test]
fn a_server_that_is_told_to_stop_writes_what_it_knows() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        let (mut dashboard, id, key) = with_a_key(&database);
        for user_agent in ["first", "second", "third"] {
            use_by(&dashboard.program(&key), user_agent);
            assert!(dashboard.terminate());
            let used = last_use(&database, id).expect("it is written");
            assert_eq!(used.user_agent, user_agent);
            dashboard = Dashboard::start(&database, &[]);
        }
    }
}

#[test]
fn a_server_that_is_killed_loses_nothing_but_the_last_uses() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        let (mut dashboard, id, key) = with_a_key(&database);
        use_by(&dashboard.program(&key), "written");
        let written = wait_for_use_by(&database, id, "written");
        for _ in 0..5 {
            use_by(&dashboard.program(&key), "perhaps lost");
            dashboard.kill();
            let left = last_use(&database, id).unwrap();
            assert!(
                left == written || left.user_agent == "perhaps lost",
                "{left:?}"
            );
            dashboard = Dashboard::start(&database, &[]);
            assert_eq!(dashboard.program(&key).verify().status, 200);
        }
        use_by(&dashboard.program(&key), "after it");
        wait_for_use_by(&database, id, "after it");
    }
}

#[test]
fn of_two_nodes_the_latest_use_stands_on_postgres() {
    let database = Database::new(Backend::Postgres);
    let nodes = [(); 2].map(|()| Dashboard::start(&database, &[]));
    let owner = nodes[0].visitor();
    owner.sign_up();
    let keys: Vec<(i64, String)> = (0..10)
        .map(|n| owner.create_key(&n.to_string(), ""))
        .collect();
    // Until both have written often, in whatever order.
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for (n, node) in nodes.iter().enumerate() {
                let keys = &keys;
                scope.spawn(move || {
                    for (_, key) in keys {
                        use_by(&node.program(key), format!("node {n}"));
                    }
                });
            }
        });
        let (id, key) = owner.create_key("Marker", "");
        use_by(&nodes[0].program(&key), "marker");
        wait_for_use(&database, id);
    }
    for (n, (_, key)) in keys.iter().enumerate() {
        use_by(&nodes[n % 2].program(key), "earlier");
        use_by(&nodes[(n + 1) % 2].program(key), "latest");
    }
    for (id, _) in &keys {
        wait_for_use_by(&database, *id, "latest");
    }
    // Also once both have written all that they know.
    for mut node in nodes {
        assert!(node.terminate());
        assert_eq!(failures_to_write(&node), [""; 0]);
    }
    for (id, _) in &keys {
        assert_eq!(last_use(&database, *id).unwrap().user_agent, "latest");
    }
}
