//! `healthcheck`, `check` and `completions`: what the program tells of itself.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::*;

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Asks for the health of a server with this address to listen on.
fn health(database: &Database, listen: &str) -> (Option<i32>, String, String) {
    output(command(database).args(["healthcheck", "--listen", listen]))
}

fn check(database: &Database, args: &[&str]) -> (Option<i32>, String, String) {
    output(command(database).arg("check").args(args))
}

/// Every file below a folder with its content.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let paths = crate::support::files::files(folder);
    let read = |path: std::path::PathBuf| {
        let content = std::fs::read(&path).unwrap();
        (path.display().to_string(), content)
    };
    let mut all: Vec<_> = paths.into_iter().map(read).collect();
    // SQLite makes these for whoever reads the database.
    all.retain(|(name, _)| !name.ends_with("-shm") && !name.ends_with("-wal"));
    all.sort();
    all
}

both! {
    fn the_health_of_a_server_is_an_exit_code(app: App) {
        let listen = app.address.to_string();
        let everywhere = format!("0.0.0.0:{}", app.address.port());
        for listen in [&listen, &everywhere] {
            let healthy = (Some(0), "ready\n".to_owned(), String::new());
            until("all parts run", || health(&app.database, listen) == healthy);
        }
        app.database.execute("DELETE FROM __diesel_schema_migrations WHERE version =
            (SELECT max(version) FROM __diesel_schema_migrations)");
        let (code, out, err) = health(&app.database, &listen);
        assert_eq!((code, &*out), (Some(1), ""));
        assert_eq!(err, format!("error: the server at {listen} is not ready: migrations are missing\n"));
    }

    fn a_server_that_could_start_has_nothing_wrong(app: App) {
        let (code, out, err) = check(&app.database, &[]);
        assert_eq!((code, &*err), (Some(0), ""), "{out}");
        let name = match app.database.backend() {
            Backend::Sqlite => app.database.file().display().to_string(),
            Backend::Postgres => "PostgreSQL".to_owned(),
        };
        assert!(out.contains(&format!("ok    database: {name} answers\n")), "{out}");
        for line in ["ok    database: ", "ok    tables: ", "ok    secret: ", "ok    clock: ", "ok    DNS: 127.0.0.1:", "note  relay: "] {
            assert_eq!(out.matches(line).count(), 1, "{line} {out}");
        }
        let settings = out.lines().filter(|line| line.starts_with("ok    TOSEND_"));
        assert!(settings.count() > 15, "{out}");
        assert!(!out.contains("wrong") && !out.contains("danger"), "{out}");
    }

    fn what_is_valid_and_dangerous_is_noted(app: App) {
        let dangerous = ["--trusted-proxies", "0.0.0.0/0", "--metrics-listen", "0.0.0.0:9464"];
        let (code, out, err) = check(&app.database, &dangerous);
        assert_eq!((code, &*err), (Some(0), ""), "{out}");
        for line in [
            "note  danger: TOSEND_TRUSTED_PROXIES: 0.0.0.0/0 trusts everyone",
            "note  danger: TOSEND_METRICS_LISTEN: the metrics are served on 0.0.0.0:9464 without a password",
        ] {
            assert_eq!(out.matches(line).count(), 1, "{line} {out}");
        }
    }

    fn what_is_wrong_is_told_with_what_to_do(app: App) {
        cli(&app.database, &["adopt-secret"], "").unwrap();
        app.database.execute("DELETE FROM __diesel_schema_migrations WHERE version =
            (SELECT max(version) FROM __diesel_schema_migrations)");
        std::fs::write(app.database.folder.path().join("secret"), [7; 64]).unwrap();
        app.dns().trouble(Some(dns::Trouble::Refusal));
        let (code, out, err) = check(&app.database, &["--smtp-url", "smtp://127.0.0.1:9", "--send-to", "bob@example.org"]);
        assert_eq!((code, &*err), (Some(1), "error: 4 things are wrong: see above\n"), "{out}");
        for line in [
            "note  tables: migrations that have not run: 1;",
            "wrong secret: ",
            "wrong DNS: 127.0.0.1:",
            "wrong relay: the relay cannot be reached",
            "wrong test email: the relay cannot be reached",
        ] {
            assert!(out.contains(line), "{line} {out}");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM __diesel_schema_migrations"), known_migrations() - 1);
    }

    fn a_test_email_goes_through_the_relay(app: App) {
        let mut relay = Relay::start();
        let (url, bob) = (relay.url(), "bob@example.org");
        let send = ["--smtp-url", &url, "--send-to", bob];
        let (code, out, _) = check(&app.database, &send);
        assert_eq!(code, Some(0), "{out}");
        assert!(out.contains("ok    relay: ") && out.contains("ok    test email: the relay took it"), "{out}");
        let got = relay.got();
        assert_eq!((got.len(), &*got[0].from, &got[0].to[..]), (1, bob, &[bob.to_owned()][..]));
        let (code, ..) = check(&app.database, &[&send[..], &["--send-from", "ada@acme.test"]].concat());
        assert_eq!((code, &*relay.got()[1].from), (Some(0), "ada@acme.test"));

        relay.order(&serde_json::json!({"rcpt": {(bob): "550 5.1.1 No such user"}}));
        let (code, out, _) = check(&app.database, &send);
        assert_eq!(code, Some(1));
        assert!(out.contains("wrong test email: ") && out.contains("550 5.1.1 No such user"), "{out}");
        // Without an address nothing is sent.
        assert_eq!(check(&app.database, &["--smtp-url", &url]).0, Some(0));
        assert_eq!(relay.got().len(), 2);
        assert_eq!(app.database.number("SELECT count(*) FROM emails"), 0);
    }
}

fn known_migrations() -> i64 {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
    std::fs::read_dir(folder).unwrap().count() as i64
}

#[test]
fn where_no_server_of_this_kind_answers_is_told() {
    let database = Database::new(Backend::Sqlite);
    let nothing = Port::reserve();
    let (code, _, err) = health(&database, &nothing.address().to_string());
    assert!(code == Some(1) && err.contains("does not answer"), "{err}");
    let (code, _, err) = health(&database, "127.0.0.1:0");
    assert!(
        code == Some(1) && err.contains("name the server's port"),
        "{err}"
    );

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let answer = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = other.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello");
    });
    let (code, _, err) = health(&database, &address);
    assert!(
        code == Some(1) && err.contains("is not this server"),
        "{err}"
    );
    answer.join().unwrap();
    assert!(!database.file().exists());
}

#[test]
fn a_check_changes_nothing() {
    let database = Database::new(Backend::Sqlite);
    let folder = database.folder.path();
    let (code, out, _) = check(&database, &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("note  database: ") && out.contains("note  secret: "),
        "{out}"
    );
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);

    // Neither does it in the database of another program.
    std::fs::create_dir(folder.join("data")).unwrap();
    database.execute("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)");
    let before = files(folder);
    let (code, out, _) = check(&database, &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("migrations that have not run: "), "{out}");
    // Their bytes would fill the screen.
    assert!(files(folder) == before, "the database was changed");

    std::fs::write(database.file(), "This is no database.\n".repeat(100)).unwrap();
    let before = files(folder);
    let (code, out, _) = check(&database, &[]);
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("wrong database: ") && out.contains("check TOSEND_DATABASE_URL"),
        "{out}"
    );
    assert!(files(folder) == before, "the file was changed");
}

#[test]
fn wrong_settings_are_listed_beside_the_right_ones() {
    let database = Database::new(Backend::Sqlite);
    let password = "postgres://ada:hunter2@127.0.0.1:1/x";
    let args = [
        "--key-limit=0",
        "--signup=maybe",
        "--database-url",
        password,
    ];
    let (code, out, err) = check(&database, &args);
    assert_eq!(code, Some(2), "{out}");
    for line in [
        "wrong TOSEND_KEY_LIMIT: ",
        "wrong TOSEND_SIGNUP: ",
        "ok    TOSEND_DATABASE_URL: set\n",
    ] {
        assert!(out.contains(line), "{line} {out}");
    }
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(!format!("{out}{err}").contains("hunter2"));
}

#[test]
fn completions_are_printed_whatever_the_settings_are() {
    let database = Database::new(Backend::Sqlite);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let mut command = command(&database);
        command
            .args(["completions", shell])
            .env("TOSEND_LISTEN", "nowhere");
        let (code, out, err) = output(&mut command);
        assert_eq!((code, &*err), (Some(0), ""));
        assert!(
            out.contains("tosend-dashboard") && out.contains("adopt-secret"),
            "{shell}"
        );
    }
    let script = output(command(&database).args(["completions", "bash"])).1;
    let ask = "COMP_WORDS=(tosend-dashboard ema); COMP_CWORD=1; _tosend__dashboard tosend-dashboard ema tosend-dashboard; echo ${COMPREPLY[@]}";
    let mut bash = Command::new("bash");
    let file = database.folder.path().join("completions");
    std::fs::write(&file, format!("{script}\n{ask}\n")).unwrap();
    bash.arg(&file);
    assert_eq!(output(&mut bash).1, "email\n");
}
