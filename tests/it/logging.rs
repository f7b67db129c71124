//! What an operator finds in the log, and what strangers cannot do to it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tosend_dashboard::keys::secret::PlainKey;

use crate::support::*;

/// How a TLS connection begins.
const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\0\0\0\0\0\0\0\0\0\0\0\0";

fn log(dashboard: &Dashboard) -> String {
    std::fs::read_to_string(&dashboard.log).unwrap()
}

fn lines(dashboard: &Dashboard, text: &str) -> Vec<String> {
    let log = log(dashboard);
    let lines = log.lines().filter(|line| line.contains(text));
    lines.map(str::to_owned).collect()
}

/// The lines of a log in JSON.
fn objects(dashboard: &Dashboard) -> Vec<Value> {
    let log = log(dashboard);
    let lines = log.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// The program's exit code and stderr, with these variables.
fn ended(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let database = Database::new(Backend::Sqlite);
    let mut command = command(&database);
    command.envs(variables.iter().copied()).stdin(Stdio::null());
    // A server would not end.
    let output = command.arg("migrate").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

#[test]
fn what_is_not_http_does_not_fill_the_log() {
    let database = Database::new(Backend::Sqlite);
    let mut dashboard = Dashboard::start(&database, &[]);
    let address = dashboard.base.strip_prefix("http://").unwrap().to_owned();
    const STRANGERS: usize = 200;
    for number in 0..STRANGERS {
        let mut stream = TcpStream::connect(&address).unwrap();
        let garbage: &[u8] = match number % 2 {
            0 => TLS_HELLO,
            _ => b"\0\xff\xfe garbage\r\n\r\n",
        };
        stream.write_all(garbage).unwrap();
        // Until it is answered or hung up on.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(dashboard.terminate());
    let singles = lines(&dashboard, "ERROR").len();
    assert!((1..=5).contains(&singles), "{}", log(&dashboard));
    let totals = lines(&dashboard, "more of the same in the last minute");
    let more: usize = totals
        .iter()
        .map(|line| line.split("more=").nth(1).unwrap())
        .map(|rest| rest.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(singles + more, STRANGERS, "{}", log(&dashboard));
}

#[test]
fn a_misspelt_setting_or_level_is_refused() {
    assert_eq!(ended(&[]).0, Some(0));
    assert_eq!(ended(&[("TOSEND_TEST_POSTGRES", "x")]).0, Some(0));
    assert_eq!(ended(&[("TOSEND_LISTNE", "127.0.0.1:80")]).0, Some(2));
    let (code, stderr) = ended(&[("TOSEND_LISTNE", "127.0.0.1:80"), ("TOSEND_LOG", "inof")]);
    assert_eq!(code, Some(2));
    for line in [
        "error: TOSEND_LISTNE: there is no such setting; did you mean TOSEND_LISTEN?\n",
        "error: TOSEND_LOG: “inof” is not a level (error, warn, info, debug, trace or off)",
    ] {
        assert!(stderr.contains(line), "{stderr}");
    }
}

#[test]
fn what_is_dangerous_is_warned_of_at_start() {
    let database = Database::new(Backend::Sqlite);
    drop(Dashboard::start(&database, &[]));
    let secret = database.folder.path().join("secret");
    let mut permissions = secret.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&secret, permissions).unwrap();
    let dashboard = Dashboard::start_with(
        &database,
        &[],
        &[
            ("TOSEND_TRUSTED_PROXIES", "0.0.0.0/0"),
            ("TOSEND_METRICS_LISTEN", "0.0.0.0:0"),
        ],
    );
    for danger in [
        "TOSEND_TRUSTED_PROXIES: 0.0.0.0/0 trusts everyone",
        "TOSEND_METRICS_LISTEN: the metrics are served on 0.0.0.0:0 without a password",
        "TOSEND_SECRET_FILE: every user of this machine can read",
    ] {
        until(danger, || {
            lines(&dashboard, danger)
                .iter()
                .any(|line| line.contains("WARN"))
        });
    }
    assert_eq!(
        lines(&dashboard, "metrics are served on http://0.0.0.0:").len(),
        1
    );
}

#[test]
fn an_access_log_in_json_says_who_asked_for_what() {
    let database = Database::new(Backend::Sqlite);
    let dashboard = Dashboard::start_with(
        &database,
        &[],
        &[("TOSEND_LOG_FORMAT", "json"), ("TOSEND_ACCESS_LOG", "true")],
    );
    let owner = dashboard.visitor();
    owner.sign_up();
    let (id, key) = owner.create_key("Shop", "");
    let page = owner.get(&format!("/api-keys/{id}?notice=tsend_{}", "a".repeat(38)));
    assert_eq!(page.status, 200);
    let program = dashboard.program(&key);
    assert_eq!(
        program
            .send(program.bare("GET", &format!("/v2/info?api_key={key}")))
            .status,
        200
    );
    assert_eq!(
        dashboard
            .program(PlainKey::generate().expose())
            .verify()
            .status,
        403
    );
    let unknown = program.bare(&format!("TSEND_{}", "B".repeat(38)), "/no/such/page");
    assert_eq!(program.send(unknown).status, 404);

    let find = |route: &str, status: u64| {
        let mut found = None;
        until("it is logged", || {
            let is_it = |line: &Value| {
                line["target"] == "access" && line["route"] == route && line["status"] == status
            };
            found = objects(&dashboard).into_iter().rfind(is_it);
            found.is_some()
        });
        found.unwrap()
    };
    let of_page = find("/api-keys/{id}", 200);
    assert_eq!(of_page["level"], "INFO");
    assert_eq!(
        (&of_page["method"], &of_page["client"]),
        (&"GET".into(), &"127.0.0.1".into())
    );
    assert_eq!(
        (&of_page["account"], &of_page["key"]),
        (&1.into(), &Value::Null)
    );
    assert!(of_page["milliseconds"].as_f64().unwrap() > 0.0);
    assert_eq!(of_page["id"].as_str(), page.header("x-request-id"));
    let of_api = find("/v2/info", 200);
    assert_eq!(
        (&of_api["account"], &of_api["key"]),
        (&1.into(), &id.into())
    );
    assert_eq!(find("/v2/verify", 403)["key"], Value::Null);
    assert_eq!(find("none", 404)["method"], "other");
    let log = log(&dashboard);
    for secret in [
        "tsend_",
        "TSEND_",
        &key[10..26],
        PASSWORD,
        "tosend_session",
        "no/such",
    ] {
        assert!(!log.contains(secret), "{secret}");
    }
}

both! {
    fn a_proxy_names_requests_and_strangers_do_not(app: App) {
        let ask = |server: &Visitor, id: &str| {
            let request = server.same_origin("GET", "/login").header("x-request-id", id);
            let answer = server.send(request);
            answer.header("x-request-id").expect("an id").to_owned()
        };
        let given = "7f9c-1b.2:3";
        let alone = app.visitor();
        let (first, second) = (ask(&alone, given), ask(&alone, given));
        assert!(first.len() == 32 && first != second, "{first} {second}");
        let behind = App::on(app.database.again(), |settings| {
            settings.trusted_proxies = "127.0.0.1".into();
        });
        let behind = behind.visitor();
        assert_eq!(ask(&behind, given), given);
        for wrong in ["", "a b", "<b>", "tsend_abc", &"a".repeat(101)] {
            assert_eq!(ask(&behind, wrong).len(), 32, "{wrong}");
        }
    }

    fn a_page_that_fails_shows_the_id_that_its_line_in_the_log_has(app: App) {
        let dashboard = Dashboard::start_with(&app.database, &[], &[("TOSEND_TRUSTED_PROXIES", "127.0.0.1")]);
        let owner = dashboard.visitor();
        owner.sign_up();
        let (_, key) = owner.create_key("Shop", "");
        let get = |path: &str| owner.send(owner.same_origin("GET", path).header("x-request-id", "proxy-7"));
        for (path, has_it) in [("/api-keys", true), ("/nothing", true), ("/static/1/x", false),
            ("/healthz", false), ("/readyz", false), ("/v2/verify", false)]
        {
            let answer = get(path);
            assert_eq!(answer.header("x-request-id"), has_it.then_some("proxy-7"), "{path}");
            assert!(!answer.body.contains("proxy-7"), "{path}");
        }
        app.database.execute("ALTER TABLE api_key_domains RENAME TO gone");
        let answer = get("/api-keys");
        assert!(answer.status >= 500, "{answer:?}");
        assert!(answer.body.contains("Request: <span class=\"mono\">proxy-7</span>"), "{}", answer.body);
        assert_eq!(answer.header("x-request-id"), Some("proxy-7"));
        until("it is logged", || {
            let told = lines(&dashboard, "a page could not be answered");
            told.iter().any(|line| line.contains("id=\"proxy-7\"") && line.contains("route=\"/api-keys\""))
        });
        let htmx = owner.same_origin("GET", "/api-keys").header("hx-request", "true");
        let htmx = owner.send(htmx.header("x-request-id", "proxy-8"));
        assert!(htmx.body.ends_with("Request: proxy-8"), "{}", htmx.body);

        let program = dashboard.program(&key);
        let request = program.with_key("GET", "/v2/info").header("x-request-id", "proxy-9");
        let answer = program.send(request);
        assert!(answer.status >= 500 && !answer.body.contains("proxy-9"), "{answer:?}");
        assert_eq!(answer.header("x-request-id"), None);
        // Without a setting, there is no line for each request.
        assert!(lines(&dashboard, " access: ").is_empty());
    }

    fn a_slow_query_is_logged_by_its_name(app: App) {
        let dashboard = Dashboard::start(&app.database, &[]);
        let owner = dashboard.visitor();
        owner.sign_up();
        let rename = || owner.post("/settings/title", &[("title", "Slow & Sons")]);
        assert_eq!(rename().status, 303);
        let name = "query=\"tosend_dashboard::accounts::pages::settings::rename\"";
        until("it is logged", || {
            let lock = app.database.lock("events");
            let began = Instant::now();
            std::thread::scope(|scope| {
                let renamed = scope.spawn(|| owner.post("/settings/title", &[("title", "Slower & Sons")]));
                // For what is slow, and not for what has a time limit of five seconds.
                std::thread::sleep(Duration::from_millis(1_500));
                drop(lock);
                renamed.join().unwrap();
            });
            assert!(began.elapsed() >= Duration::from_millis(1_500));
            let slow = lines(&dashboard, "a slow query");
            assert!(slow.iter().all(|line| !line.contains("Sons") && line.contains("WARN")));
            slow.iter().any(|line| line.contains(name) && line.contains("milliseconds="))
        });
    }
}
