//! Metrics, as Prometheus reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tosend_dashboard::keys::secret::PlainKey;
use tosend_dashboard::outbox::store::count_waiting_of_any_account;

use crate::delivery::{LONG_AGO, accept, hasten, sender, to, until_all};
use crate::support::*;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Series that need a disk that the server can see.
const OF_SQLITE: [&str; 2] = ["tosend_disk_free_bytes", "tosend_disk_size_bytes"];

fn get(app: &App, path: &str) -> Answer {
    let address = app.metrics.expect("metrics are on");
    Visitor::new(format!("http://{address}")).get(path)
}

fn text(app: &App) -> String {
    let answer = get(app, "/metrics");
    assert_eq!(answer.status, 200);
    let content = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(content));
    answer.body
}

/// The value of a series, as in `name{label="value"}`.
fn find(app: &App, series: &str) -> Option<f64> {
    let text = text(app);
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn value(app: &App, series: &str) -> f64 {
    find(app, series).unwrap_or_else(|| panic!("no {series} in {}", text(app)))
}

fn until_it_is(app: &App, series: &str, expected: f64) {
    until(&format!("{series} is {expected}"), || {
        find(app, series) == Some(expected)
    });
}

/// What Prometheus' own library makes of the text.
fn parsed(text: &str) -> Value {
    let python = std::env::var("TOSEND_TEST_PYTHON").expect("run the tests with tests/run");
    let mut child = Command::new(python)
        .arg(Path::new(ROOT).join("tests/it/metrics.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The series of docs/metrics.md: by name, the type and the labels.
fn described() -> BTreeMap<String, (String, Vec<String>)> {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/metrics.md")).unwrap();
    let code = |cell: &str| -> Vec<String> {
        let words = cell.split('`').skip(1).step_by(2);
        words.map(str::to_owned).collect()
    };
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `tosend_") || line.starts_with("| `process_"));
    let series = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (name, kind, labels) = (code(cells[1]), cells[2], code(cells[3]));
        (name[0].clone(), (kind.to_owned(), labels))
    });
    series.collect()
}

fn with_a_relay(backend: Backend) -> (App, Relay) {
    let relay = Relay::start();
    let url = relay.url();
    let app = App::start(backend, |settings| {
        settings.smtp_url = Some(url);
        settings.metrics_listen = Some("127.0.0.1:0".into());
    });
    (app, relay)
}

fn on(settings: &mut tosend_dashboard::config::Settings) {
    settings.metrics_listen = Some("127.0.0.1:0".into());
}

both! {
    fn requests_are_counted_by_route_and_status(app: App, with |settings| on(settings)) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Shop", "");
        let count = |route: &str, status| {
            let series = format!("tosend_http_requests_total{{route=\"{route}\",status=\"{status}\"}}");
            find(&app, &series).unwrap_or_default()
        };
        for number in 1..=3 {
            assert_eq!(owner.get(&format!("/api-keys/{id}")).status, 200);
            assert_eq!(owner.get("/api-keys/4711").status, 404);
            assert_eq!(owner.get(&format!("/wp-login.php?{number}")).status, 404);
            assert_eq!(owner.get(&format!("/wp-{number}/tsend_{}", "a".repeat(38))).status, 404);
            assert_eq!(app.program(&key).verify().status, 200);
            assert_eq!(app.program(&key).info().status, 200);
            let envoy = app.program(&key);
            let request = envoy.with_key("PUT", &format!("/v2/verify/orders/{number}"));
            assert_eq!(envoy.send(request).status, 200);
            let number = f64::from(number);
            assert_eq!(count("/api-keys/{id}", 200), number);
            assert_eq!(count("/api-keys/{id}", 404), number);
            assert_eq!(count("none", 404), 2.0 * number);
            assert_eq!(count("/v2/verify", 200), number);
            assert_eq!(count("/v2/info", 200), number);
            assert_eq!(count("/v2/verify/{original:.*}", 200), number);
        }
        assert!(!text(&app).contains("wp-") && !text(&app).contains("tsend_"));
        assert!(value(&app, "tosend_http_connections") >= 1.0);
        assert!(value(&app, "tosend_http_connections_max") > 10.0);
    }

    fn verdicts_and_refusals_are_counted(app: App, with |settings| on(settings)) {
        let (owner, program) = sender(&app);
        let refused = |reason: &str| format!("tosend_refusals_total{{reason=\"{reason}\"}}");
        let verdicts = |verdict: &str| {
            value(&app, &format!("tosend_verdicts_total{{verdict=\"{verdict}\"}}"))
        };
        let (id, deleted) = owner.create_key("Deleted", "");
        owner.delete_key(id);
        assert_eq!((verdicts("works"), verdicts("does_not")), (0.0, 0.0));
        for _ in 0..3 {
            assert_eq!(program.verify().status, 200);
        }
        assert_eq!(app.program(&deleted).verify().status, 403);
        assert_eq!(app.program(PlainKey::generate().expose()).verify().status, 403);
        assert_eq!(app.program("tsend_of_no_use").verify().status, 403);
        assert_eq!(program.send(program.bare("GET", "/v2/verify")).status, 401);
        assert_eq!(program.email_from("ada@elsewhere.test").status, 422);
        // What cannot be a key is not looked up.
        assert_eq!((verdicts("works"), verdicts("does_not")), (4.0, 2.0));
        assert_eq!(verdicts("unavailable"), 0.0);
        assert_eq!(value(&app, "tosend_verdict_seconds_count"), 6.0);
        assert!(value(&app, "tosend_verdict_seconds_sum") > 0.0);
        assert_eq!(value(&app, "tosend_verdict_batch_keys_bucket{le=\"1\"}"), 6.0);
        assert_eq!(value(&app, "tosend_verdicts_waiting"), 0.0);
        assert_eq!(value(&app, "tosend_verdict_threads"), 1.0);
        for reason in ["missing", "malformed", "domain_not_found"] {
            assert_eq!(value(&app, &refused(reason)), 1.0, "{reason}");
        }
        for reason in ["deleted", "unknown"] {
            until_it_is(&app, &refused(reason), 1.0);
        }
        for reason in ["paused", "expired", "invalid_request"] {
            assert_eq!(value(&app, &refused(reason)), 0.0, "{reason}");
        }
    }

    fn emails_that_wait_are_counted(app: App, with |settings| on(settings)) {
        let waiting = |state: &str| format!("tosend_emails_waiting{{state=\"{state}\"}}");
        let (_owner, program) = sender(&app);
        until_it_is(&app, &waiting("held"), 0.0);
        assert_eq!(value(&app, "tosend_emails_oldest_due_seconds"), 0.0);
        for _ in 0..3 {
            accept(&program, &to(&["bob@example.org"]));
        }
        assert_eq!(value(&app, "tosend_emails_accepted_total"), 3.0);
        app.database.execute("UPDATE emails SET status = 'deferred' WHERE id = 2");
        app.database.execute(&format!("UPDATE emails SET next_attempt_at = '{LONG_AGO}' WHERE id = 3"));
        until_it_is(&app, &waiting("held"), 2.0);
        until_it_is(&app, &waiting("deferred"), 1.0);
        let year = 365.0 * 24.0 * 60.0 * 60.0;
        until("the oldest one is old", || {
            find(&app, "tosend_emails_oldest_due_seconds").is_some_and(|age| age > year)
        });
        // Without a relay nothing is said of one.
        assert_eq!(find(&app, "tosend_relay_up"), None);
        assert!(!text(&app).contains("tosend_delivery"));

        // However many there are, no more than this are looked at.
        let db = app.database.open();
        let counted = db.read_blocking(|conn| count_waiting_of_any_account(conn, 2)).unwrap();
        assert_eq!(counted.held + counted.deferred, 2);
    }

    fn the_state_of_the_server_is_told(app: App, with |settings| on(settings)) {
        let owner = app.owner();
        until_it_is(&app, "tosend_database_up", 1.0);
        let before = value(&app, "tosend_database_size_bytes");
        assert!(before > 10_000.0);
        for part in ["upkeep", "the check of domains", "the count of calls", "the record of failed sign-ins"] {
            assert_eq!(value(&app, &format!("tosend_part_up{{part=\"{part}\"}}")), 1.0);
        }
        assert!(value(&app, "process_resident_memory_bytes") > 1_000_000.0);
        assert!(value(&app, "process_open_fds") > 3.0);
        assert!(value(&app, "process_max_fds") >= value(&app, "process_open_fds"));
        assert!(value(&app, "process_start_time_seconds") > 1_000_000_000.0);
        let build = format!("tosend_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        assert_eq!(value(&app, &build), 1.0);
        let is_sqlite = app.database.backend() == Backend::Sqlite;
        for series in OF_SQLITE {
            assert_eq!(find(&app, series).is_some_and(|bytes| bytes > 0.0), is_sqlite, "{series}");
        }

        assert_eq!(value(&app, "tosend_clock_in_doubt"), 0.0);
        app.database.execute("UPDATE clock_seen SET believed_at = '2020-01-01 00:00:00'");
        until_it_is(&app, "tosend_clock_in_doubt", 1.0);

        owner.create_key("Shop", "");
        app.database.execute("CREATE TABLE big AS SELECT * FROM events");
        for _ in 0..12 {
            app.database.execute("INSERT INTO big SELECT * FROM big");
        }
        until("the database has grown", || value(&app, "tosend_database_size_bytes") > before);
    }

    fn a_pool_tells_who_uses_it_and_who_waits(app: App, with |settings| on(settings)) {
        let owner = app.owner();
        let (pool, most) = match app.database.backend() {
            Backend::Sqlite => ("write", 1.0),
            Backend::Postgres => ("all", 16.0),
        };
        let series = |what: &str| format!("tosend_pool_{what}{{pool=\"{pool}\"}}");
        assert_eq!(value(&app, &series("connections_max")), most);
        until_it_is(&app, &series("waiting"), 0.0);
        let lock = app.database.lock("sessions");
        std::thread::scope(|scope| {
            for _ in 0..24 {
                scope.spawn(|| owner.try_post("/settings/title", &[("title", "Other")]));
            }
            until("all are in use, and some wait", || {
                value(&app, &series("connections_in_use")) == most && value(&app, &series("waiting")) > 0.0
            });
            drop(lock);
        });
        until_it_is(&app, &series("waiting"), 0.0);
    }

    fn a_scrape_is_answered_while_the_database_is_not_well(app: App, with |settings| on(settings)) {
        let known = ["tosend_emails_waiting{state=\"held\"}", "tosend_emails_oldest_due_seconds",
            "tosend_database_size_bytes", "tosend_clock_in_doubt"];
        for _ in 0..2 {
            until_it_is(&app, "tosend_database_up", 1.0);
            assert!(known.iter().all(|series| find(&app, series).is_some()));
            app.database.execute("ALTER TABLE emails RENAME TO emails_gone");
            until_it_is(&app, "tosend_database_up", 0.0);
            assert!(known.iter().all(|series| find(&app, series).is_none()), "what is not known is left out");
            app.database.execute("ALTER TABLE emails_gone RENAME TO emails");
        }
    }

    fn metrics_are_on_their_listener_only(app: App, with |settings| on(settings)) {
        assert_eq!(app.visitor().get("/metrics").status, 404);
        for path in ["/", "/login", "/healthz", "/v2/verify", "/metrics/x"] {
            assert_eq!(get(&app, path).status, 404, "{path}");
        }
        let without = App::on(app.database.again(), |_| {});
        assert_eq!(without.metrics, None);
    }
}

fn deliveries_are_counted_by_outcome(backend: Backend) {
    let (app, mut relay) = with_a_relay(backend);
    let attempts =
        |outcome: &str| format!("tosend_delivery_attempts_total{{outcome=\"{outcome}\"}}");
    let up = "tosend_relay_up";
    let (_owner, program) = sender(&app);
    assert_eq!(
        (value(&app, up), value(&app, &attempts("delivered"))),
        (1.0, 0.0)
    );
    accept(&program, &to(&["bob@example.org"]));
    until_it_is(&app, &attempts("delivered"), 1.0);
    relay.order(
        &json!({"rcpt": {"eve@example.org": "550 no such user", "joe@example.org": "450 later"}}),
    );
    accept(&program, &to(&["eve@example.org"]));
    until_it_is(&app, &attempts("failed"), 1.0);
    accept(&program, &to(&["joe@example.org"]));
    until_it_is(&app, &attempts("deferred"), 1.0);
    assert_eq!(
        (value(&app, up), value(&app, &attempts("relay_unreachable"))),
        (1.0, 0.0)
    );
    relay.stop();
    accept(&program, &to(&["bob@example.org"]));
    until_it_is(&app, up, 0.0);
    assert!(value(&app, &attempts("relay_unreachable")) >= 1.0);
    relay.run();
    hasten(&app.database);
    until_it_is(&app, up, 1.0);
    until_all(&app.database, "status = 'delivered' OR id IN (2, 3)");
    assert!(value(&app, &attempts("delivered")) >= 2.0);
    assert_eq!(value(&app, "tosend_part_up{part=\"delivery\"}"), 1.0);
}

#[test]
fn deliveries_are_counted_by_outcome_on_sqlite() {
    deliveries_are_counted_by_outcome(Backend::Sqlite);
}

#[test]
fn deliveries_are_counted_by_outcome_on_postgres() {
    deliveries_are_counted_by_outcome(Backend::Postgres);
}

/// The text is valid, and the table in docs/metrics.md is complete.
fn the_described_series_are_what_prometheus_reads(backend: Backend) {
    let (app, _relay) = with_a_relay(backend);
    let owner = app.owner();
    let (_, key) = owner.create_key("Shop", "");
    assert_eq!(app.program(&key).verify().status, 200);
    until_it_is(&app, "tosend_database_up", 1.0);
    let parsed = parsed(&text(&app));
    let mut read = BTreeMap::new();
    for family in parsed["families"].as_array().unwrap() {
        let (name, kind, labels): (String, String, Vec<String>) =
            serde_json::from_value(family.clone()).unwrap();
        read.insert(name, (kind, labels));
    }
    let mut described = described();
    if backend == Backend::Postgres {
        described.retain(|name, _| !OF_SQLITE.contains(&name.as_str()));
    }
    assert!(described.len() > 20);
    assert_eq!(read, described);
    let samples = parsed["samples"].as_array().unwrap();
    let verified = json!({"route": "/v2/verify", "status": "200"});
    assert!(samples.contains(&json!(["tosend_http_requests_total", verified, 1.0])));
}

#[test]
fn the_described_series_are_what_prometheus_reads_on_sqlite() {
    the_described_series_are_what_prometheus_reads(Backend::Sqlite);
}

#[test]
fn the_described_series_are_what_prometheus_reads_on_postgres() {
    the_described_series_are_what_prometheus_reads(Backend::Postgres);
}

#[test]
fn a_scrape_does_not_wait_for_a_postgres_that_is_frozen() {
    let cluster = Cluster::new();
    let app = App::on(Database::on(&cluster), on);
    until_it_is(&app, "tosend_database_up", 1.0);
    cluster.freeze();
    until_it_is(&app, "tosend_database_up", 0.0);
    // At once: thirty waits for a database would take a minute.
    let began = std::time::Instant::now();
    for _ in 0..30 {
        assert_eq!(find(&app, "tosend_database_up"), Some(0.0));
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(30));
    cluster.thaw();
    until_it_is(&app, "tosend_database_up", 1.0);
}

#[test]
fn alert_rules_name_series_that_are_there() {
    let rules = std::fs::read_to_string(Path::new(ROOT).join("docs/alerts.yml")).unwrap();
    let described = described();
    let expressions = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let text = expressions.collect::<Vec<_>>().join("\n");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: BTreeSet<&str> = words
        .filter(|word| word.starts_with("tosend_") || word.starts_with("process_"))
        .collect();
    assert!(named.len() > 10);
    for name in named {
        let series = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(described.contains_key(series), "{name}");
    }
}
