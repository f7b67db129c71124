//! The command line: beside a running server, and what it says when something is wrong.

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use serde_json::{Value, json};

use crate::support::files::root;
use crate::support::*;

const SECRET: &str = "hunter2";

/// Runs a command that must work. Gives its stdout.
fn ok(database: &Database, args: &[&str]) -> String {
    cli(database, args, PASSWORD).unwrap_or_else(|why| panic!("{args:?}: {why}"))
}

/// Runs a command that must fail, with one sentence on stderr and nothing on stdout. Gives it.
fn refused(command: &mut Command) -> String {
    // On a slow machine migrations log their progress.
    let output = finish(command.env("TOSEND_LOG", "warn"));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{command:?} {output:?}");
    assert_eq!(text(&output.stdout), "", "{command:?}");
    assert_eq!(stderr.lines().count(), 1, "{command:?} {stderr}");
    let sentence = stderr
        .strip_prefix("error: ")
        .unwrap_or_else(|| panic!("{stderr}"));
    assert!(
        sentence.trim().len() > 10 && !stderr.contains(SECRET),
        "{stderr}"
    );
    sentence.trim_end().to_owned()
}

/// Runs a command, but not for ever: one that should fail may serve instead.
fn finish(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut waits = 0..6000;
    while child.try_wait().unwrap().is_none() {
        if waits.next().is_none() {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata()
        .unwrap_or_else(|e| panic!("{path:?}: {e}"))
        .permissions()
        .mode()
        & 0o7777
}

fn key_command<'a>(what: &'a str, id: &'a str) -> [&'a str; 5] {
    ["key", what, "--account", EMAIL, id]
}

/// The program as someone starts it who has read nothing, but on a free port; then stopped.
/// Gives its greeting.
fn start_plainly_in(folder: &Path, look: impl FnOnce()) -> String {
    let program = env!("CARGO_BIN_EXE_tosend-dashboard");
    // The files' modes must not depend on the umask.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "umask 0; exec \"$0\" --listen 127.0.0.1:0", program])
        .env_clear()
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut greeting = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut greeting)
        .unwrap();
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
    child.kill().unwrap();
    child.wait().unwrap();
    looked.unwrap();
    greeting
}

both! {
    fn a_paused_account_is_refused_from_the_next_request_on(app: App) {
        let owner = app.owner();
        let (first, key) = owner.create_key("x", "");
        let (second, _) = owner.create_key("y", "");
        let program = app.program(&key);
        let args = ["account", "pause", "--account", "ADA@acme.test"];
        for _ in 0..2 {
            assert_eq!(ok(&app.database, &args), format!("The account of {EMAIL} is paused.\n"));
            assert_eq!(program.info().status, 403);
        }
        app.visitor().sign_in(EMAIL);
        assert!(owner.get("/api-keys").body.contains("This account is paused"));
        let refused_create = owner.create("z", "");
        assert_eq!(refused_create.status, 403);
        assert_eq!(refused_create.find_key(), None);
        assert_eq!(owner.delete_key(second).status, 303);

        let args = ["account", "resume", "--account", EMAIL];
        assert_eq!(ok(&app.database, &args), format!("The account of {EMAIL} is active.\n"));
        assert_eq!(program.info().status, 200);
        assert_eq!(owner.get("/api-keys").key_ids(), [first]);
    }

    fn an_account_is_created_and_its_password_set(app: App) {
        let stranger = app.stranger();
        assert!(stranger.get("/api-keys").body.contains("Evil Corp"));
        assert_eq!(app.visitor().get("/").location(), Some("/api-keys"));
        assert_eq!(app.visitor().get("/signup").status, 403);
        let email = "eve@evil.test";
        let args = ["account", "password", "--account", email, "--password-stdin"];
        let said = cli(&app.database, &args, "another set of quiet tables\r\n").unwrap();
        assert_eq!(said, format!("Set the password of {email} and ended all sessions.\n"));
        assert_eq!(stranger.get("/api-keys").status, 303);
        let form = [("email", email), ("password", "another set of quiet tables")];
        assert_eq!(stranger.post("/login", &form).status, 303);
    }

    fn keys_are_created_paused_resumed_and_deleted_beside_the_server(app: App) {
        let owner = app.owner();
        for domain in ["b.test", "acme.test", "other.test"] {
            assert_eq!(attest(&app.database, domain), format!("{domain} is verified.\n"));
        }
        let list = ["key", "list", "--account", EMAIL, "--json"];
        assert_eq!(ok(&app.database, &list), "[]\n");
        let create = ["key", "create", "--account", EMAIL, "--name", " Production  server "];
        let everywhere = ok(&app.database, &create);
        let create = ["key", "create", "--account", EMAIL, "--name", "Büro <1>",
            "--domain", "B.test", "--domain", "acme.test", "--domain", "b.test."];
        let restricted = ok(&app.database, &create);
        let keys = [&everywhere, &restricted].map(|line| {
            let key = line.strip_suffix('\n').unwrap();
            assert!(key.len() == 44 && key.starts_with("tsend_"), "the key alone");
            key
        });
        let (all, some) = (app.program(keys[0]), app.program(keys[1]));
        let statuses = || {
            let from = |from| [&all, &some].map(|p: &Program| p.email_from(from).status);
            (from("ada@b.test"), from("ada@acme.test"), from("ada@other.test"))
        };
        assert_eq!(statuses(), ([200, 200], [200, 200], [200, 422]));
        let ids = owner.get("/api-keys").key_ids();
        assert_eq!(ids.len(), 2);
        let id = ids[0].to_string();

        let said = ok(&app.database, &key_command("pause", &id));
        assert_eq!(said, format!("The key {id} is paused.\n"));
        assert_eq!((all.info().status, some.info().status), (200, 403));

        let listed: Value = serde_json::from_str(&ok(&app.database, &list)).unwrap();
        let now = chrono::Utc::now().timestamp();
        let at = |i: usize| {
            let at = listed[i]["created_at"].as_str().unwrap();
            let instant = chrono::DateTime::parse_from_rfc3339(at).unwrap().timestamp();
            assert!(at.ends_with('Z') && (now - 3600..=now).contains(&instant), "{at}");
            at
        };
        let truncated = keys.map(|key| format!("{}…{}", &key[..8], &key[40..]));
        let expected = |i: usize, truncated: &str, scope: Value, status: &str| json!({
            "id": ids[i], "name": listed[i]["name"], "description": "", "truncated": truncated,
            "scope": scope, "senders": "any", "recipients": "any",
            "networks": "any", "status": status,
            "created_at": at(i), "expires_at": null, "last_used_at": listed[i]["last_used_at"],
            "stops_at": null, "stops_when_quiet_hours": null, "replaces": null,
            "replaced_by": null, "ended_at": null, "ended_by": null,
        });
        assert_eq!(listed, json!([
            expected(0, &truncated[1], json!(["acme.test", "b.test"]), "paused"),
            expected(1, &truncated[0], json!("all"), "active"),
        ]));
        assert_eq!(listed[0]["name"], "Büro <1>");
        let name = listed[1]["name"].as_str().unwrap();
        assert_eq!(name.split_whitespace().collect::<Vec<_>>(), ["Production", "server"]);
        let lines = ok(&app.database, &list[..4]);
        for (i, line) in lines.lines().enumerate() {
            assert!(line.starts_with(&format!("{}\t{}\t", ids[i], truncated[1 - i])), "{line}");
        }
        assert_eq!(lines.lines().count(), 2);

        ok(&app.database, &key_command("resume", &id));
        assert_eq!(some.info().status, 200);
        let said = ok(&app.database, &key_command("delete", &id));
        assert_eq!(said, format!("Deleted {} “Büro <1>”.\n", truncated[1]));
        assert_eq!((all.info().status, some.info().status), (200, 403));
        assert_eq!(owner.get("/api-keys").key_ids(), ids[1..]);
    }

    fn what_cannot_be_done_is_told_in_one_sentence(app: App) {
        let owner = app.owner();
        let stranger = app.stranger();
        stranger.add_domain("evil.test");
        let (theirs, key) = stranger.create_key("x", "");
        let (deleted, _) = owner.create_key("x", "");
        let (theirs, deleted) = (theirs.to_string(), deleted.to_string());
        ok(&app.database, &key_command("delete", &deleted));
        attest(&app.database, "acme.test");
        let [plain, rotated, expired] = ["a", "b", "c"].map(|name| owner.create_key(name, "").0);
        let yesterday = (chrono::Utc::now() - chrono::Days::new(1)).format("%Y-%m-%d %H:%M:%S");
        app.database.execute(&format!(
            "UPDATE api_keys SET expires_at = '{yesterday}' WHERE id = {expired}"
        ));
        let [plain, rotated, expired] = [plain, rotated, expired].map(|id| id.to_string());
        ok(&app.database, &key_command("rotate", &rotated));
        let nobody = "nobody@acme.test";
        let count = || ["accounts", "users", "sending_domains", "api_keys"].map(|table| {
            app.database.number(&format!("SELECT COUNT(*) FROM {table}"))
        });
        let before = count();

        let cases: &[(&[&str], &str)] = &[
            (&["account", "create", "--email", "x@y.test", "--title", "T"], "--password-stdin"),
            (&["account", "password", "--account", EMAIL], "--password-stdin"),
            (&["account", "create", "--email", "x@y.test", "--title", "T", "--password-stdin"],
                "at least 15 characters"),
            (&["account", "pause", "--account", nobody], "there is no account for nobody@acme.test"),
            (&["account", "resume", "--account", nobody], "there is no account for"),
            (&["domain", "add", "--account", nobody, "acme.test"], "there is no account for"),
            (&["key", "list", "--account", nobody], "there is no account for"),
            (&["key", "create", "--account", nobody, "--name", "x"], "there is no account for"),
            (&["key", "create", "--account", EMAIL, "--name", "x", "--domain", "no.test"],
                "the account has no domain no.test"),
            (&["key", "create", "--account", EMAIL, "--name", "x", "--domain", "evil.test"],
                "the account has no domain evil.test"),
            (&["--key-limit", "1", "key", "create", "--account", "eve@evil.test", "--name", "x"],
                "limit"),
            (&key_command("delete", "999"), "the account has no key 999"),
            (&key_command("delete", &theirs), "the account has no key"),
            (&key_command("delete", &deleted), "has been deleted already"),
            (&key_command("pause", &theirs), "the account has no key"),
            (&key_command("pause", &deleted), "has been deleted already"),
            (&key_command("resume", "0"), "the account has no key"),
            (&key_command("resume", &expired), "has expired already"),
            (&key_command("rotate", "999"), "the account has no key 999"),
            (&key_command("rotate", &theirs), "the account has no key"),
            (&key_command("rotate", &deleted), "has been deleted already"),
            (&key_command("rotate", &expired), "has expired already"),
            (&key_command("rotate", &rotated), "has been replaced already, by the key"),
            (&key_command("edit", &theirs), "the account has no key"),
            (&key_command("edit", &deleted), "has been deleted already"),
            (&key_command("edit", &expired), "has expired already"),
            (&key_command("stop", &plain), "no other key replaces the key"),
            (&key_command("stop", &theirs), "the account has no key"),
            (&key_command("keep", &deleted), "has been deleted already"),
            (&key_command("show", &theirs), "the account has no key"),
        ];
        for (args, why) in cases {
            let sentence = refused(command(&app.database).args(*args));
            assert!(sentence.contains(why), "{args:?}: {sentence}");
        }
        let options: &[(&[&str], &str)] = &[
            (&["--domain", "no.test"], "the account has no domain no.test"),
            (&["--sender", "a@new.test"], "the sender a@new.test is not at any of the key's domains"),
        ];
        for (options, why) in options {
            for key in [&["create", "--name=x"][..], &["edit", &plain]] {
                let args = [&["key"], key, &["--account", EMAIL], *options].concat();
                let sentence = refused(command(&app.database).args(&args));
                assert!(sentence.contains(why), "{args:?}: {sentence}");
            }
        }
        for (args, stdin, why) in [
            (["account", "create", "--email", EMAIL, "--title", "T", "--password-stdin"], PASSWORD,
                "error: this email address is taken\n"),
            (["account", "create", "--email", "x@y.test", "--title", "T", "--password-stdin"],
                "passwordpassword", "error: This password is easy to guess."),
        ] {
            let error = cli(&app.database, &args, stdin).unwrap_err();
            assert!(error.starts_with(why) && error.lines().count() == 1, "{error}");
        }
        let args = ["account", "password", "--account", nobody, "--password-stdin"];
        let error = cli(&app.database, &args, PASSWORD).unwrap_err();
        assert_eq!(error, "error: there is no account for nobody@acme.test\n");

        ok(&app.database, &["account", "pause", "--account", EMAIL]);
        let create = ["key", "create", "--account", EMAIL, "--name", "x"];
        assert!(refused(command(&app.database).args(create)).contains("paused"));
        assert_eq!(count(), before);
        assert_eq!(app.program(&key).info().status, 200);
    }

    fn a_key_is_edited_in_what_is_given_and_nothing_else(app: App) {
        let owner = app.owner();
        for domain in ["acme.test", "b.test"] {
            attest(&app.database, domain);
        }
        let create = ["key", "create", "--account", EMAIL, "--name", "Shop",
            "--description", "The  shop", "--domain", "acme.test", "--expires", "90d",
            "--sender", "Hello@acme.test", "--recipient", "@example.org", "--recipient", "b@c.test"];
        let key = ok(&app.database, &create);
        let id = owner.get("/api-keys").key_ids()[0].to_string();
        let show = || -> Value {
            let args = ["key", "show", "--account", EMAIL, &id, "--json"];
            serde_json::from_str(&ok(&app.database, &args)).unwrap()
        };
        let edit = |options: &[&str]| {
            ok(&app.database, &[&key_command("edit", &id)[..], options].concat())
        };
        let events = || app.database.number("SELECT COUNT(*) FROM events WHERE action = 'key.edited'");
        let created = show();
        assert_eq!(created["description"], "The shop");
        assert_eq!(created["senders"], json!(["hello@acme.test"]));
        assert_eq!(created["recipients"], json!(["example.org", "b@c.test"]));

        for nothing in [&[][..], &["--name", "Shop"], &["--domain", "ACME.test"]] {
            assert_eq!(edit(nothing), "Nothing to change.\n");
        }
        assert_eq!((show(), events()), (created.clone(), 0));
        let said = edit(&["--name", "Store", "--any-sender", "--domain", "b.test"]);
        assert_eq!(said, format!(
            "Changed the key {id}: name: “Shop” → “Store”; scope: acme.test → b.test; \
             senders: hello@acme.test → any.\n"
        ));
        let mut expected = created.clone();
        for (member, value) in [
            ("name", json!("Store")), ("scope", json!(["b.test"])), ("senders", json!("any")),
        ] {
            expected[member] = value;
        }
        let mut edited = show();
        assert_eq!(edited["events"][0]["action"], "key.edited");
        assert_eq!(edited["events"][0]["actor"], "operator");
        expected["events"] = edited["events"].take();
        edited["events"] = expected["events"].clone();
        assert_eq!(edited, expected);

        edit(&["--description", "", "--expires", "none", "--any-recipient", "--all-domains",
            "--sender", "a@acme.test", "--sender", "a@b.test"]);
        let edited = show();
        assert_eq!(edited["senders"], json!(["a@acme.test", "a@b.test"]));
        assert_eq!([&edited["recipients"], &edited["scope"], &edited["description"]], ["any", "all", ""]);
        assert_eq!((&edited["expires_at"], events()), (&json!(null), 2));
        assert_eq!(app.program(key.trim()).info().status, 200, "the secret is the same");
        // A domain that is gone must not stand in the way of another name.
        let domain = app.database.number("SELECT id FROM sending_domains WHERE name = 'b.test'");
        assert_eq!(owner.post(&format!("/domains/{domain}/delete"), &[]).status, 303);
        edit(&["--name", "Shop"]);
        let sentence = refused(command(&app.database).args(key_command("edit", &id)).arg("--all-domains"));
        assert!(sentence.contains("the sender a@b.test"), "{sentence}");
    }

    fn a_key_is_rotated_and_the_old_one_stopped_or_kept(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let rotate = |id: &str, options: &[&str]| {
            let args = [&key_command("rotate", id)[..], options].concat();
            let key = ok(&app.database, &args).trim_end_matches('\n').to_owned();
            assert!(key.len() == 44 && key.starts_with("tsend_"), "the key alone");
            key
        };
        let status = |key: &str| app.program(key).info().status;
        let show = |id: &str| ok(&app.database, &key_command("show", id));
        let new_id = || owner.get("/api-keys").key_ids()[0].to_string();

        let (id, old) = owner.create_key("Shop", "");
        let id = id.to_string();
        let new = rotate(&id, &["--quiet", "1h", "--expires", "90d"]);
        assert_eq!((status(&old), status(&new)), (200, 200));
        let shown = show(&id);
        assert!(shown.contains("in 24 hours, or when it was not used for an hour"), "{shown}");
        let newer = new_id();
        assert!(shown.contains(&format!("Replaced by  {newer} tsend_")), "{shown}");
        let shown = show(&newer);
        assert!(shown.contains(&format!("Replaces     {id} tsend_")), "{shown}");
        assert!(shown.contains("Expires") && shown.contains(", in 90 days"), "{shown}");
        assert_eq!(ok(&app.database, &key_command("keep", &id)), format!("The key {id} keeps working until it is stopped.\n"));
        assert!(!show(&id).contains("Stops"));
        let said = ok(&app.database, &key_command("stop", &id));
        assert_eq!(said, format!("Stopped {}…{} “Shop”.\n", &old[..8], &old[40..]));
        assert_eq!((status(&old), status(&new)), (403, 200));
        let sentence = refused(command(&app.database).args(key_command("stop", &id)));
        assert_eq!(sentence, format!("the key {id} has been stopped already"));

        let newest = rotate(&newer, &["--overlap", "now"]);
        assert_eq!((status(&new), status(&newest)), (403, 200));
        let last = new_id();
        rotate(&last, &["--overlap", "manual"]);
        assert!(!show(&last).contains("Stops"));
        assert_eq!(status(&newest), 200);

        let list = ["key", "list", "--account", EMAIL, "--ended"];
        let lines = ok(&app.database, &list);
        let ended: Vec<Vec<&str>> = lines.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(ended.len(), 2, "{lines}");
        for (line, id) in ended.iter().zip([&newer, &id]) {
            assert_eq!([line[0], line[2], line[4], line[5], line[6]], [id, "stopped", "operator", "All domains", "Shop"]);
        }
        let json: Value = serde_json::from_str(&ok(&app.database, &[&list[..], &["--json"]].concat())).unwrap();
        assert_eq!((&json[1]["status"], &json[1]["ended_by"]), (&json!("stopped"), &json!("operator")));
        assert!(json[1]["ended_at"].as_str().unwrap().ends_with('Z'));
    }

    fn a_key_is_found_by_what_somebody_pasted(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let stranger = app.stranger();
        let (_, theirs) = stranger.create_key("Theirs", "");
        let find = |pasted: &str| {
            let told = cli(&app.database, &["key", "find", "--account", EMAIL], pasted);
            let text = told.as_ref().unwrap_or_else(|error| error);
            for key in pasted.split("tsend_").skip(1).filter(|tail| tail.len() > 20) {
                assert!(!text.contains(&key[2..20]), "{text}");
            }
            told
        };
        let (id, key) = owner.create_key("Shop", "");
        let shown = format!("{}…{}", &key[..8], &key[40..]);
        let works = format!("This is “Shop” ({shown}), which works.\nNumber: {id}\n");
        for line in [&key, &format!("export TOSEND_API_KEY=\"{key}\" # shop\n")] {
            assert_eq!(find(line), Ok(works.clone()));
        }
        for masked in [&shown, &shown.replace('…', "..."), &shown.replace('…', "********")] {
            assert_eq!(find(masked), Ok(works.replace("This is", "This looks like")));
        }
        ok(&app.database, &key_command("pause", &id.to_string()));
        assert!(find(&key).unwrap().contains("which is paused since"));
        ok(&app.database, &["account", "pause", "--account", EMAIL]);
        ok(&app.database, &key_command("resume", &id.to_string()));
        assert!(find(&key).unwrap().contains("which does not work while the account is paused"));
        ok(&app.database, &["account", "resume", "--account", EMAIL]);
        ok(&app.database, &key_command("delete", &id.to_string()));
        for pasted in [&key, &shown] {
            let told = find(pasted).unwrap();
            assert!(told.contains("which was deleted on") && told.contains("by operator and never works again"), "{told}");
        }

        let unknown = "tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ";
        let none = find(unknown).unwrap_err();
        assert!(none.contains("not one of this account's"), "{none}");
        assert_eq!(find(&theirs), Err(none), "whether another account has it is not told");
        for (pasted, why) in [
            (" \n", "Paste a key"),
            ("sk_live_abcdefghijklmnopqrstuvwxyz", "those begin with tsend_"),
            ("tsend_admin_abcdefghijklmnopqrstuvwxyz", "an admin key"),
            (&unknown[..43], "has 43 characters instead of 44"),
            (&format!("{unknown}x"), "has 45 characters instead of 44"),
            (&unknown.replace("efg", "e-g"), "a character that no key has"),
            (&unknown.replace("efg", "egf"), "A character is missing or mistyped"),
            ("tsend_zz…zzzz", "No key of this account looks like this"),
        ] {
            let error = find(pasted).unwrap_err();
            assert!(error.contains(why) && error.lines().count() == 1, "{error}");
        }
    }

    fn readiness_needs_the_database_and_life_does_not(app: App) {
        let visitor = app.visitor();
        let ask = || ["/healthz", "/readyz"].map(|path| {
            let answer = visitor.get(path);
            (answer.status, answer.body)
        });
        let alive = (200, "ok\n".to_owned());
        assert_eq!(ask(), [alive.clone(), (200, "ready\n".to_owned())]);
        let head = visitor.send(visitor.request("HEAD", "/readyz"));
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        app.database.execute(
            "DELETE FROM __diesel_schema_migrations WHERE version =
             (SELECT MAX(version) FROM __diesel_schema_migrations)"
        );
        assert_eq!(ask(), [alive.clone(), (503, "migrations are missing\n".to_owned())]);
        app.database.execute("DROP TABLE __diesel_schema_migrations");
        assert_eq!(ask(), [alive, (503, "the database does not answer\n".to_owned())]);
    }
}

#[test]
fn it_greets_serves_and_ends_when_told_to() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        let mut server = Dashboard::start(&database, &[]);
        let base = server.base.clone();
        let first = "(open it: the first visitor creates the account)";
        assert_eq!(
            server.greeting,
            format!("API Keys dashboard: {base} {first}\n")
        );
        assert!(base.starts_with("http://127.0.0.1:") && !base.ends_with(":0"));
        for path in ["/healthz", "/readyz"] {
            assert_eq!(server.visitor().get(path).status, 200, "{path}");
        }
        let said = create_account(&database, EMAIL, TITLE);
        assert_eq!(said, format!("Created the account “{TITLE}” of {EMAIL}.\n"));
        let visitor = server.visitor();
        visitor.sign_in(EMAIL);
        assert!(server.terminate());

        let mut again = Dashboard::start(&database, &["serve"]);
        assert_eq!(
            again.greeting,
            format!("API Keys dashboard: {}\n", again.base)
        );
        let returning = again.visitor();
        returning.set_cookie(visitor.cookie());
        assert_eq!(returning.get("/api-keys").status, 200);
        assert!(again.terminate());
    }
}

#[test]
fn it_tells_the_first_visitor_what_the_server_is_set_up_for() {
    let database = Database::new(Backend::Sqlite);
    let log = database.folder.path().join("log");
    let read_log = || std::fs::read_to_string(&log).unwrap();
    let greeting = |args: &[&str]| {
        let _ = std::fs::remove_file(&log);
        Dashboard::start(&database, args).greeting.clone()
    };
    let closed = "(sign-up is closed: create an account with “account create”)\n";
    assert!(greeting(&["--signup", "closed"]).ends_with(closed));

    let public = ["--public-url", "http://dash.example.test/"];
    let asked = greeting(&public);
    let begin = "API Keys dashboard: http://dash.example.test (open it: the first visitor creates \
                 the account, with the set-up code ";
    let code = asked
        .strip_prefix(begin)
        .and_then(|rest| rest.strip_suffix(")\n"))
        .unwrap();
    assert_eq!(code.split('-').map(str::len).collect::<Vec<_>>(), [4; 4]);
    let server = Dashboard::start(&database, &public);
    assert_eq!(server.greeting, asked);
    // The log is written by a thread of its own.
    until("both are logged", || {
        ["served without https", "nothing is delivered until"].map(|line| read_log().contains(line))
            == [true; 2]
    });
    assert!(!read_log().contains(code));
}

#[test]
fn a_plain_start_makes_files_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let greeting = start_plainly_in(folder.path(), || {
        assert_eq!(mode(&data), 0o700);
        let files = [
            "tosend.db",
            "tosend.db-wal",
            "tosend.db-shm",
            "tosend.db.ends",
            "tosend.db.lock",
            "tosend.db.reserve",
            "secret",
        ];
        for file in files {
            assert_eq!(mode(&data.join(file)), 0o600, "{file}");
        }
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), files.len());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    });
    assert!(greeting.contains("http://127.0.0.1:"), "{greeting}");
    assert!(greeting.ends_with("(open it: the first visitor creates the account)\n"));
}

#[test]
fn a_folder_that_exists_keeps_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o1755)).unwrap();
    start_plainly_in(folder.path(), || {
        assert_eq!(mode(&data), 0o1755);
        assert_eq!(mode(&data.join("tosend.db")), 0o600);
        assert_eq!(mode(&data.join("secret")), 0o600);
    });
}

#[test]
fn every_problem_of_the_configuration_is_told_at_once() {
    let database = Database::new(Backend::Sqlite);
    let wrong = [
        ("database-url", "mysql://u:hunter2@db.test/x"),
        ("listen", "nowhere"),
        ("public-url", "https://dash.acme.test/path"),
        ("signup", "maybe"),
        ("trusted-proxies", "10.0.0.0/8, proxy"),
        ("key-limit", "0"),
        ("log", "a=b=c"),
    ];
    let variable = |flag: &str| format!("TOSEND_{}", flag.to_uppercase().replace('-', "_"));
    let assert_tells_all = |output: Output| {
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(2), String::new())
        );
        let stderr = text(&output.stderr);
        let told = stderr
            .lines()
            .map(|line| line.split(": ").take(2).collect::<Vec<_>>());
        let mut told: Vec<_> = told.map(|parts| parts.join(": ")).collect();
        told.sort_unstable();
        let mut all = wrong.map(|(flag, _)| format!("error: {}", variable(flag)));
        all.sort_unstable();
        assert_eq!(told, all, "{stderr}");
        assert!(!stderr.contains(SECRET), "{stderr}");
    };
    let args = wrong
        .iter()
        .map(|(flag, value)| format!("--{flag}={value}"));
    assert_tells_all(finish(command(&database).args(args)));
    let env = wrong.map(|(flag, value)| (variable(flag), value));
    assert_tells_all(finish(command(&database).envs(env.clone())));
    let list = ["key", "list", "--account", EMAIL];
    assert_tells_all(finish(command(&database).envs(env).args(list)));
    assert!(!database.file().exists());
}

#[test]
fn wrong_arguments_exit_with_2_before_anything_is_touched() {
    let database = Database::new(Backend::Sqlite);
    let create = ["key", "create", "--account", EMAIL, "--name", "x"];
    let edit = ["key", "edit", "--account", EMAIL, "1"];
    let many: Vec<String> = (0..101)
        .map(|n| format!("--sender=a{n}@acme.test"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let whole: &[(&[&str], &str)] = &[
        (
            &["account", "create", "--email", "x", "--title", "T"],
            "email address",
        ),
        (
            &["account", "create", "--email", "x@y.test", "--title", " "],
            "name of your company",
        ),
        (&["account", "password", "--account", "x"], "email address"),
        (&["account", "pause", "--account", "x"], "email address"),
        (&["account", "resume", "--account", "x"], "email address"),
        (
            &["domain", "add", "--account", EMAIL, "co.uk"],
            "register names under this ending",
        ),
        (
            &["domain", "unattest", "--account", "x", "acme.test"],
            "email address",
        ),
        (
            &["key", "list", "--account", "nobody", "--json"],
            "email address",
        ),
        (&["key", "find", "--account", "nobody"], "email address"),
        (&["key", "show", "--account", EMAIL, "one"], "invalid digit"),
        (
            &[
                "key",
                "rotate",
                "--account",
                EMAIL,
                "1",
                "--expires",
                "soon",
            ],
            "Enter a day",
        ),
        (
            &["key", "rotate", "--account", EMAIL, "1", "--quiet", "2h"],
            "possible values",
        ),
        (
            &["key", "create", "--account", EMAIL, "--name", ""],
            "Enter a name",
        ),
        (
            &["key", "edit", "--account", EMAIL, "1", "--name", ""],
            "Enter a name",
        ),
        (&["key", "edit", "--account", EMAIL], "required"),
        (&["apply"], "required"),
        (&["no such command"], "unrecognized"),
    ];
    let options: &[(&[&str], &str)] = &[
        (
            &["--description", "a\u{202E}b"],
            "invisible control characters",
        ),
        (&["--domain", ""], "domain"),
        (&["--expires", "2020-01-01"], "in the past"),
        (&["--expires", "2120-01-01"], "within the next 10 years"),
        (&["--expires", "4000d"], "within the next 10 years"),
        (&["--expires", ""], "Enter a day"),
        (&many, "at most 100"),
        (&["--sender", "acme.test"], "is not an email address"),
        (&["--sender", "*@acme.test"], "list the addresses"),
        (&["--sender", ""], "an empty list allows nothing"),
        (
            &["--recipient", "com"],
            "is neither an email address nor a domain",
        ),
        (&["--recipient", "*@x.test"], "say @x.test"),
    ];
    let commands = [&create[..], &edit];
    let with_options = options
        .iter()
        .flat_map(|(options, why)| commands.map(|command| ([command, *options].concat(), *why)));
    let whole = whole.iter().map(|(args, why)| (args.to_vec(), *why));
    for (args, why) in whole.chain(with_options) {
        let output = finish(command(&database).args(&args));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(why),
            "{args:?}: {stderr}"
        );
    }
    assert!(!database.file().exists());
}

#[test]
fn a_key_that_nobody_could_read_is_not_made() {
    let database = Database::new(Backend::Sqlite);
    create_account(&database, EMAIL, TITLE);
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let made = command(&database)
        .args(["key", "create", "--account", EMAIL, "--name", "Lost"])
        .stdout(full)
        .status()
        .unwrap();
    assert_eq!(made.code(), Some(1));
    assert_eq!(database.number("SELECT count(*) FROM api_keys"), 0);
}

#[test]
fn the_help_and_errors_show_no_password_of_the_database() {
    let database = Database::new(Backend::Sqlite);
    for rest in [
        "hunter2@127.0.0.1:1/x",
        "hunter2@127.0.0.1:port/x",
        "hunter2@[::1/x",
        "hunter2@[::1]x/x",
        "hunter2@127.0.0.1:1,x:y/x",
        "hunter2@127.0.0.1:1/x?nonsense",
        "100%hunter2@127.0.0.1:1/x",
        "hunter2%00@127.0.0.1:1/x",
        "hunter/2@127.0.0.1:1/x",
        "u@hunter2@127.0.0.1:1/x",
    ] {
        let url = format!("postgres://ada:{rest}");
        let mut command = command(&database);
        let sentence = refused(command.env("TOSEND_DATABASE_URL", &url));
        let begin = "the database of PostgreSQL cannot be opened: ";
        assert!(
            sentence.starts_with(begin) && !sentence.contains("hunter"),
            "{sentence}"
        );
        let help = command.arg("--help").output().unwrap();
        assert!(help.status.success());
        assert!(
            !text(&help.stdout).contains(SECRET) && text(&help.stdout).contains("TOSEND_LISTEN")
        );
    }
}

#[test]
fn a_database_that_cannot_be_used_is_told_in_one_sentence() {
    let database = Database::new(Backend::Sqlite);
    let folder = database.folder.path();
    let garbage = folder.join("garbage");
    std::fs::write(&garbage, "This is no database.\n".repeat(100)).unwrap();
    let mut urls = vec![
        format!("sqlite://{}", folder.display()),
        format!("sqlite://{}", garbage.display()),
        format!("sqlite://{}/tosend.db", garbage.display()),
        "sqlite:///proc/tosend.db".to_owned(),
        "sqlite:///proc/tosend/tosend.db".to_owned(),
    ];
    // Its database is gone already; SQLite would make another one.
    let away = Backend::all().filter(|backend| *backend == Backend::Postgres);
    urls.extend(away.map(|backend| Database::new(backend).url.clone()));
    for url in urls {
        for args in [&[][..], &["migrate"], &["key", "list", "--account", EMAIL]] {
            let sentence = refused(command(&database).args(["--database-url", &url]).args(args));
            let is_told =
                sentence.contains("cannot be") || sentence.contains("there is no database");
            assert!(is_told, "{url}: {sentence}");
        }
    }
    let kept = std::fs::read_to_string(&garbage).unwrap();
    assert_eq!(kept, "This is no database.\n".repeat(100));
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        assert_eq!(ok(&database, &["migrate"]), "The database is up to date.\n");
        assert_eq!(ok(&database, &["migrate"]), "The database is up to date.\n");
        let version = "99990101000000";
        database.execute(&format!(
            "INSERT INTO __diesel_schema_migrations (version) VALUES ('{version}')"
        ));
        for args in [&[][..], &["migrate"], &["key", "list", "--account", EMAIL]] {
            let sentence = refused(command(&database).args(args));
            assert!(
                sentence.contains("newer version") && sentence.contains(version),
                "{sentence}"
            );
        }
    }
}

/// SQLite answers "locked" without waiting to whoever opens the file while the last other one
/// closes it, unless it was told first to wait.
#[test]
fn commands_that_run_at_once_do_not_disturb_each_other() {
    let database = Database::new(Backend::Sqlite);
    ok(&database, &["migrate"]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..60 {
                    let mut migrate = command(&database);
                    let output = finish(migrate.env("TOSEND_LOG", "warn").arg("migrate"));
                    assert!(output.status.success(), "{output:?}");
                    assert_eq!(text(&output.stderr), "");
                }
            });
        }
    });
}

#[test]
fn nodes_of_one_database_share_one_secret_on_postgres() {
    let database = Database::new(Backend::Postgres);
    let first = Dashboard::start(&database, &[]);
    let owner = first.visitor();
    owner.sign_up();

    let other = database.folder.path().join("other/secret");
    let other = other.to_str().unwrap();
    let sentence =
        refused(command(&database).args(["--secret-file", other, "--listen", "127.0.0.1:0"]));
    assert!(
        sentence.contains(other) && sentence.contains("copy theirs"),
        "{sentence}"
    );
    assert!(!Path::new(other).exists());
    // The command line signs nobody in.
    ok(
        &database,
        &["--secret-file", other, "key", "list", "--account", EMAIL],
    );

    let said = ok(&database, &["--secret-file", other, "adopt-secret"]);
    assert!(said.contains(other), "{said}");
    let second = Dashboard::start(&database, &["--secret-file", other]);
    owner.move_to(&second.base);
    assert_eq!(
        owner.get("/api-keys").location(),
        Some("/login?next=%2Fapi-keys")
    );
    let sentence = refused(command(&database).args(["--listen", "127.0.0.1:0"]));
    assert!(sentence.contains("copy theirs"), "{sentence}");
}

/// Where a test keeps the database's secret, and how many of the secrets the database knows.
fn secret_of(database: &Database) -> PathBuf {
    database.folder.path().join("secret")
}

fn known_secrets(database: &Database) -> i64 {
    database.number("SELECT count(*) FROM nodes_secret")
}

fn assert_refused_for(database: &Database, args: &[&str], why: &str) {
    let secret = secret_of(database).display().to_string();
    // Again and again: a start that is refused leaves nothing behind that would let the next one pass.
    for _ in 0..2 {
        let sentence = refused(command(database).args(args));
        for part in [
            &secret,
            why,
            "in this place,",
            "to this place,",
            "run “adopt-secret” here",
        ] {
            let is_there = sentence.contains(part);
            let of_other_backend = match database.backend() {
                Backend::Sqlite => part.starts_with("to "),
                Backend::Postgres => part.starts_with("in "),
            };
            assert_ne!(is_there, of_other_backend, "{part}: {sentence}");
        }
    }
}

#[test]
fn a_lost_secret_is_noticed_and_another_one_adopted() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        let secret = secret_of(&database);
        let aside = database.folder.path().join("aside");
        let mut server = Dashboard::start(&database, &[]);
        let owner = server.visitor();
        owner.sign_up();
        attest(&database, "acme.test");
        assert!(server.terminate());
        assert_eq!(known_secrets(&database), 1);
        std::fs::rename(&secret, &aside).unwrap();

        assert_refused_for(&database, &[], "is missing");
        let add = ["domain", "add", "--account", EMAIL, "other.test"];
        match backend {
            Backend::Sqlite => assert_refused_for(&database, &add, "is missing"),
            // The command line may run on another machine: a node makes the key later.
            Backend::Postgres => {
                let told = ok(&database, &add);
                assert!(
                    told.starts_with("other.test is pending.\nIts page shows the DNS record"),
                    "{told}"
                );
            }
        }
        assert!(!secret.exists(), "a new one would hide the loss");
        std::fs::write(&secret, [7; 64]).unwrap();
        assert_refused_for(&database, &[], "is not the one that");
        assert_eq!(std::fs::read(&secret).unwrap(), [7; 64]);

        std::fs::copy(&aside, &secret).unwrap();
        let mut server = Dashboard::start(&database, &[]);
        owner.move_to(&server.base);
        assert_eq!(owner.get("/api-keys").status, 200, "the old one is back");
        assert!(server.terminate());

        std::fs::remove_file(&secret).unwrap();
        let said = ok(&database, &["adopt-secret"]);
        assert!(said.contains(secret.to_str().unwrap()), "{said}");
        assert_eq!(mode(&secret), 0o600);
        let mut server = Dashboard::start(&database, &[]);
        owner.move_to(&server.base);
        let signed_out = Some("/login?next=%2Fapi-keys");
        assert_eq!(owner.get("/api-keys").location(), signed_out);
        owner.sign_in(EMAIL);
        assert_eq!(owner.get("/api-keys").status, 200);
        let add = ["domain", "add", "--account", EMAIL, "third.test"];
        let told = ok(&database, &add);
        let record = "third.test is pending.\nAdd this TXT record to DNS:\ntosend._domainkey.third.test v=DKIM1; k=rsa; p=";
        assert!(told.starts_with(record), "{told}");
        assert!(server.terminate());

        std::fs::copy(&aside, &secret).unwrap();
        assert_refused_for(&database, &[], "is not the one that");
    }
}

/// On SQLite none was written down in former versions.
#[test]
fn a_database_that_knows_no_secret_takes_the_one_that_opens_its_keys() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        let secret = secret_of(&database);
        let aside = database.folder.path().join("aside");
        // By a server that is killed at once.
        let is_taken = || {
            drop(Dashboard::start(&database, &[]));
            assert_eq!(known_secrets(&database), 1);
        };
        let forget = || database.execute("DELETE FROM nodes_secret");

        // Without any key that it could open, any is as good.
        ok(&database, &["migrate"]);
        assert!(!secret.exists());
        is_taken();
        std::fs::remove_file(&secret).unwrap();
        forget();
        is_taken();

        create_account(&database, EMAIL, TITLE);
        attest(&database, "acme.test");
        forget();
        is_taken();
        forget();
        std::fs::rename(&secret, &aside).unwrap();
        assert_refused_for(&database, &[], "is missing");
        assert!(!secret.exists());
        std::fs::write(&secret, [7; 64]).unwrap();
        assert_refused_for(&database, &[], "the DKIM key of acme.test");
        assert_eq!(known_secrets(&database), 0);
        ok(&database, &["adopt-secret"]);
        is_taken();

        // Also where the table for it is not there yet.
        database.execute(
            "DROP TABLE nodes_secret;
             DELETE FROM __diesel_schema_migrations WHERE version = '20261123100500'",
        );
        assert_refused_for(&database, &[], "the DKIM key of acme.test");
        let migrations = "SELECT count(*) FROM __diesel_schema_migrations";
        let count = database.number(migrations);
        std::fs::copy(&aside, &secret).unwrap();
        is_taken();
        assert_eq!(database.number(migrations), count + 1);
    }
}

/// Undoes the newest migration. Gives a question: has it run again?
fn undo_last_migration(database: &Database) -> impl Fn() -> bool {
    let folder = root().join(match database.backend() {
        Backend::Sqlite => "migrations/sqlite",
        Backend::Postgres => "migrations/postgres",
    });
    let entries = std::fs::read_dir(folder).unwrap();
    let last = entries.map(|entry| entry.unwrap().path()).max().unwrap();
    database.execute(&std::fs::read_to_string(last.join("down.sql")).unwrap());
    let newest = "SELECT max(version) FROM __diesel_schema_migrations";
    database.execute(&format!(
        "DELETE FROM __diesel_schema_migrations WHERE version = ({newest})"
    ));
    let (database, before) = (database.again(), database.text(newest));
    move || database.text(newest) != before
}

#[test]
fn nothing_is_migrated_before_the_address_and_the_secret_are_right() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        drop(Dashboard::start(&database, &[]));
        let is_migrated = undo_last_migration(&database);

        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap().to_string();
        let sentence = refused(command(&database).args(["--listen", &address]));
        assert!(sentence.starts_with(&format!("{address} is in use")));
        let secret = std::fs::read(secret_of(&database)).unwrap();
        std::fs::remove_file(secret_of(&database)).unwrap();
        assert_refused_for(&database, &[], "is missing");
        assert!(!is_migrated());

        std::fs::write(secret_of(&database), secret).unwrap();
        let server = Dashboard::start(&database, &[]);
        assert!(is_migrated());
        assert_eq!(server.visitor().get("/readyz").status, 200);
    }
}

/// As a table of millions of rows does.
#[test]
fn a_migration_that_takes_long_says_so_and_clients_are_refused_meanwhile_on_postgres() {
    let database = Database::new(Backend::Postgres);
    drop(Dashboard::start(&database, &[]));
    let is_migrated = undo_last_migration(&database);
    let mut lock = PgConnection::establish(&database.url).unwrap();
    // The migration cannot be written down, while it can be read which have run.
    lock.batch_execute("BEGIN; LOCK TABLE __diesel_schema_migrations IN SHARE MODE")
        .unwrap();
    let port = Port::reserve();
    let address = port.address().to_string();
    let log = || std::fs::read_to_string(database.folder.path().join("log")).unwrap();
    let lines = |of: &str| log().matches(of).count();
    let during = "bringing the database up to date: migration 1 of 1, “";
    std::thread::scope(|scope| {
        // Let go of also when this fails: else the server never starts, and this never ends.
        let mut lock = lock;
        let server = scope.spawn(|| Dashboard::start(&database, &["--listen", &address]));
        until("it is told, and told again", || {
            lines(during) >= 2 && lines(" s so far") >= 2
        });
        let refused = TcpStream::connect(port.address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        lock.batch_execute("COMMIT").unwrap();
        let server = server.join().unwrap();
        assert_eq!(server.visitor().get("/readyz").status, 200);
    });
    assert!(is_migrated());
    assert_eq!(lines("”: done after "), 1, "{}", log());
}

#[test]
fn what_keeps_the_server_from_starting_is_told_in_one_sentence() {
    let database = Database::new(Backend::Sqlite);
    let server = Dashboard::start(&database, &[]);
    let address = server.base.strip_prefix("http://").unwrap();
    let sentence = refused(command(&database).args(["--listen", address]));
    assert!(
        sentence.starts_with(&format!("{address} is in use")),
        "{sentence}"
    );
    let sentence = refused(command(&database).args(["--listen", "192.0.2.1:8080"]));
    assert!(
        sentence.starts_with("cannot listen on 192.0.2.1:8080"),
        "{sentence}"
    );

    let damaged = database.folder.path().join("damaged");
    std::fs::write(&damaged, "short").unwrap();
    for (file, why) in [
        (damaged.clone(), "does not hold 64 bytes"),
        (database.folder.path().to_owned(), "cannot be read"),
        (damaged.join("secret"), "is missing"),
    ] {
        let file = file.to_str().unwrap();
        let sentence = refused(command(&database).args(["--secret-file", file]));
        assert!(sentence.contains(why), "{sentence}");
    }
    let unused = Database::new(Backend::Sqlite);
    let nowhere = damaged.join("secret");
    let nowhere = nowhere.to_str().unwrap();
    let sentence = refused(command(&unused).args(["--secret-file", nowhere]));
    assert!(sentence.contains("cannot be created"), "{sentence}");
    assert_eq!(server.visitor().get("/readyz").status, 200);
}

/// In the wrong folder, for example.
#[test]
fn a_command_that_only_looks_makes_no_database() {
    let database = Database::new(Backend::Sqlite);
    for args in [
        &["key", "list", "--account", EMAIL][..],
        &["key", "pause", "--account", EMAIL, "1"],
        &["email", "list"],
        &["clock", "show"],
        &["backup", "copy.db"],
        &["adopt-secret"],
        &["domain", "add", "--account", EMAIL, "acme.test"],
        &["account", "pause", "--account", EMAIL],
    ] {
        let told = cli(&database, args, "").unwrap_err();
        let file = database.file().display().to_string();
        assert!(
            told.contains("there is no database") && told.contains(&file),
            "{args:?}: {told}"
        );
        let made = std::fs::read_dir(database.folder.path()).unwrap().count();
        assert_eq!(made, 0, "{args:?}");
    }
    create_account(&database, EMAIL, "Acme");
    cli(&database, &["key", "list", "--account", EMAIL], "").unwrap();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let database = Database::new(Backend::Sqlite);
    create_account(&database, EMAIL, "Acme");
    let run = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(&database)
            .args(args)
            .stdout(writer)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    cli(
        &database,
        &["key", "create", "--account", EMAIL, "--name", "Key"],
        "",
    )
    .unwrap();
    let listed = run(&["key", "list", "--account", EMAIL]);
    assert_eq!(listed, (Some(141), String::new()));
    // A key that nobody has seen is lost.
    let (code, told) = run(&["key", "create", "--account", EMAIL, "--name", "Key"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("the result cannot be written"), "{told}");
}

#[test]
fn what_may_not_be_written_is_named() {
    let database = Database::new(Backend::Sqlite);
    let disk = SmallDisk::mount(&database.folder.path().join("data"), 64);
    create_account(&database, EMAIL, "Acme");
    disk.forbid_writing();
    let output = command(&database).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    let file = database.file().display().to_string();
    assert!(
        told.contains(&format!("{file} may not be written")) && told.contains("chown"),
        "{told}"
    );
    let output = command(&database).arg("check").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.contains("wrong database: ") && told.contains("may not be written"),
        "{told}"
    );
}
