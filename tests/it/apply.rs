//! `apply FILE`: an account becomes what a file declares, or stays what it is.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::*;

/// What a run printed.
#[derive(Debug)]
struct Run {
    status: Option<i32>,
    out: String,
    err: String,
}

/// Applies a declaration, beside which relative paths begin.
fn apply(database: &Database, text: &str, args: &[&str]) -> Run {
    std::fs::write(path(database, "keys.toml"), text).unwrap();
    let output = command(database)
        .args(["apply", "keys.toml"])
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run {
        status: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Applies what must work. Gives the lines that were printed.
fn applied(database: &Database, text: &str) -> Vec<String> {
    let run = apply(database, text, &[]);
    assert!(run.status == Some(0) && run.err.is_empty(), "{run:?}");
    run.out.lines().map(str::to_owned).collect()
}

/// Applies what must be refused. Gives the problems.
fn refused(database: &Database, text: &str) -> Vec<String> {
    let run = apply(database, text, &[]);
    assert!(run.status == Some(1) && run.out.is_empty(), "{run:?}");
    let problem = |line: &str| line.strip_prefix("error: keys.toml: ").map(str::to_owned);
    let problems = run.err.lines().map(problem).collect::<Option<_>>();
    problems.unwrap_or_else(|| panic!("{run:?}"))
}

fn path(database: &Database, name: &str) -> PathBuf {
    database.folder.path().join(name)
}

fn keys(database: &Database) -> Value {
    let list = ["key", "list", "--account", EMAIL, "--json"];
    serde_json::from_str(&cli(database, &list, "").unwrap()).unwrap()
}

fn key(database: &Database, name: &str) -> Value {
    let keys = keys(database);
    let mut keys = keys.as_array().unwrap().iter();
    keys.find(|key| key["name"] == name).unwrap().clone()
}

/// How many rows there are that an apply may add.
fn rows(database: &Database) -> [i64; 3] {
    ["sending_domains", "api_keys", "events"]
        .map(|table| database.number(&format!("SELECT COUNT(*) FROM {table}")))
}

const SHOP: &str = r#"
account = "Ada@acme.test"

[[domain]]
name = "Acme.test"
verified = true

[[domain]]
name = "new.test"

[[key]]
name = "Shop"
description = "The shop"
domains = ["acme.test"]
expires = "YEAR-12-31"
senders = ["Hello@acme.test", "shop@acme.test"]
recipients = ["example.org"]
networks = ["127.0.0.1/8"]
secret_file = "shop.key"

[[key]]
name = "Büro"
domains = "all"
paused = true
secret_file = "office.key"
"#;

fn declaration() -> String {
    SHOP.replace("YEAR", &year(1))
}

/// The year after so many.
fn year(later: i32) -> String {
    use chrono::Datelike;
    (chrono::Utc::now().year() + later).to_string()
}

fn minimal(key: &str) -> String {
    format!("account = \"{EMAIL}\"\n[[key]]\n{key}")
}

both! {
    fn a_file_is_applied_once_and_then_there_is_nothing_to_change(app: App) {
        let database = &app.database;
        let owner = app.owner();
        owner.add_domain("kept.test");
        let (kept, _) = owner.create_key("Kept", "");
        let before = rows(database);
        let changes = [
            "domain acme.test: added and verified",
            "domain new.test: added, pending",
            "key “Shop”: created, in shop.key",
            "key “Büro”: created, paused, in office.key",
        ];

        let run = apply(database, &declaration(), &["--dry-run"]);
        let dry = "This was a dry run: nothing was changed.";
        assert_eq!(run.out.lines().collect::<Vec<_>>(), [&changes[..], &[dry]].concat());
        assert_eq!((run.status, rows(database)), (Some(0), before));
        let folder = std::fs::File::open(path(database, "")).unwrap();
        folder.set_modified(std::time::UNIX_EPOCH).unwrap();
        apply(database, &declaration(), &["--dry-run"]);
        let modified = folder.metadata().unwrap().modified().unwrap();
        assert_eq!(modified, std::time::UNIX_EPOCH, "no key is written, not for a moment");

        let run = apply(database, &declaration(), &[]);
        assert_eq!((run.status, run.err.as_str()), (Some(0), ""));
        assert_eq!(run.out.lines().collect::<Vec<_>>(), changes);
        let secrets = ["shop.key", "office.key"].map(|name| {
            let file = path(database, name);
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
            let secret = std::fs::read_to_string(file).unwrap();
            assert!(secret.len() == 44 && secret.starts_with("tsend_"), "the key alone");
            assert!(!run.out.contains(&secret[8..40]));
            secret
        });
        let shop = app.program(&secrets[0]);
        assert_eq!(shop.email_from("hello@acme.test").status, 200);
        assert_eq!(app.program(&secrets[1]).info().status, 403);

        let shop = key(database, "Shop");
        assert_eq!(shop["description"], "The shop");
        assert_eq!(shop["scope"], serde_json::json!(["acme.test"]));
        assert_eq!(shop["expires_at"], format!("{}-01-01T00:00:00Z", year(2)));
        assert_eq!(shop["senders"], serde_json::json!(["hello@acme.test", "shop@acme.test"]));
        assert_eq!(shop["recipients"], serde_json::json!(["example.org"]));
        assert_eq!(shop["networks"], serde_json::json!(["127.0.0.0/8"]));
        let office = key(database, "Büro");
        assert_eq!((&office["scope"], &office["status"]), (&"all".into(), &"paused".into()));

        let after = rows(database);
        for args in [&[][..], &["--dry-run"]] {
            let run = apply(database, &declaration(), args);
            assert_eq!(run.out.lines().next(), Some("Nothing to change."));
        }
        assert_eq!(rows(database), after);
        assert_eq!(std::fs::read_to_string(path(database, "shop.key")).unwrap(), secrets[0]);
        assert!(owner.get("/api-keys").key_ids().contains(&kept));
    }

    fn what_is_declared_otherwise_is_changed_and_what_is_not_declared_stays(app: App) {
        let database = &app.database;
        app.owner();
        applied(database, &declaration());
        let file = r#"
account = "ada@acme.test"
[[domain]]
name = "acme.test"
[[domain]]
name = "new.test"
verified = true
[[key]]
name = "Shop"
domains = ["new.test"]
expires = "never"
senders = "any"
paused = true
[[key]]
name = "Büro"
domains = "all"
paused = false
"#;
        let run = apply(database, file, &["--dry-run"]);
        let shop = format!(
            "key “Shop”: scope: acme.test → new.test; expires: {}-01-01T00:00:00Z → never; \
             senders: hello@acme.test, shop@acme.test → any; paused",
            year(2)
        );
        let changes = ["domain new.test: verified", &shop, "key “Büro”: resumed"];
        assert_eq!(run.out.lines().take(3).collect::<Vec<_>>(), changes);
        assert_eq!(key(database, "Shop")["status"], "active");
        assert_eq!(applied(database, file), changes);
        assert_eq!(applied(database, file), ["Nothing to change."]);

        let shop = key(database, "Shop");
        assert_eq!((&shop["description"], &shop["status"]), (&"The shop".into(), &"paused".into()));
        assert_eq!(shop["recipients"], serde_json::json!(["example.org"]));
        let acme = "SELECT COUNT(*) FROM sending_domains WHERE name = 'acme.test' AND status = 'verified'";
        assert_eq!(database.number(acme), 1);
    }

    fn all_that_is_wrong_is_told_at_once_and_nothing_is_changed(app: App) {
        let database = &app.database;
        app.owner();
        attest(database, "acme.test");
        std::fs::write(path(database, "there"), "kept").unwrap();
        std::os::unix::fs::symlink("nowhere", path(database, "link")).unwrap();
        let before = rows(database);

        let many: Vec<String> = (0..101).map(|n| format!("\"a{n}@acme.test\"")).collect();
        let many = format!("senders = [{}]", many.join(", "));
        let key = |line: &str| minimal(&format!(
            "name = \"x\"\ndomains = [\"acme.test\"]\nsecret_file = \"x.key\"\n{line}\n"
        ));
        for (line, problem) in [
            ("secrets = 1", "line 6: “secrets” is unknown here; known are name, domains, description,"),
            ("expires = \"2020-01-01\"", "line 2: key “x”: This is in the past."),
            ("expires = 2120-01-01", "line 2: key “x”: Choose a time within the next 10 years"),
            ("expires = \"90d\"", "line 6: expires: Enter a day such as 2027-12-31."),
            ("expires = 90", "line 6: expires: expected text in quotes"),
            ("paused = \"no\"", "line 6: paused: expected true or false"),
            (&many, "line 6: senders: Enter at most 100"),
            ("senders = [\"x\"]", "line 6: senders: “x” is not an email address."),
            ("senders = []", "line 6: senders: write \"any\", or list addresses"),
            ("recipients = [\"*@x.test\"]", "line 6: recipients: A * stands for nothing in “*@x.test”: to allow every address of the domain, say @x.test."),
            ("recipients = [\" \"]", "line 6: recipients: an empty list allows nothing"),
            ("senders = [\"a@new.test\"]",
                "line 2: key “x”: the sender a@new.test is not at any of the key's domains"),
            ("[[key]]\nname = \"x\"\ndomains = \"all\"", "line 6: the key “x” is declared twice"),
            ("[[key]]\nname = \"y\"\ndomains = \"all\"\nsecret_file = \"x.key\"",
                "line 6: the secret_file x.key is declared twice"),
            ("[key.more]", "line 6: “more” is unknown here"),
            ("[domain]\nname = \"b.test\"", "line 6: domain: begin each with a line [[domain]]"),
            ("[[domain]]\nname = \"b.test\"\n[[domain]]\nname = \"B.test\"",
                "line 8: the domain b.test is declared twice"),
            ("[[domain]]\nname = \"co.uk\"", "line 7: name: Anyone can register names"),
            ("[[key]]\nname = \"y\"\ndomains = \"all\"",
                "line 6: key “y”: a new key needs a secret_file"),
            ("[[key]]\nname = \"y\"\ndomains = \"all\"\nsecret_file = \"there\"",
                "line 6: key “y”: the secret_file there exists already"),
            ("[[key]]\nname = \"y\"\ndomains = \"all\"\nsecret_file = \"link\"",
                "line 6: key “y”: the secret_file link exists already"),
            ("[[key]]\nname = \"y\"\ndomains = \"all\"\nsecret_file = \"no/y\"",
                "line 6: key “y”: the secret_file no/y cannot be written"),
        ] {
            let problems = refused(database, &key(line));
            assert!(problems.len() == 1 && problems[0].starts_with(problem), "{line}: {problems:?}");
        }
        for (key, problem) in [
            ("name = \"x\"\nsecret_file = \"x.key\"", "line 2: domains is missing"),
            ("name = \"x\"\ndomains = []", "line 4: domains: write \"all\", or list domains"),
            ("name = \"x\"\ndomains = \"acme.test\"", "line 4: domains: write \"all\""),
            ("name = \"x\"\ndomains = [\"no.test\"]", "line 2: key “x”: the account has no domain no.test"),
            ("name = \"\"\ndomains = \"all\"", "line 3: name: Enter a name"),
            ("name = \"x\ndomains = \"all\"", "line 3: "),
        ] {
            let problems = refused(database, &minimal(key));
            assert!(problems[0].starts_with(problem), "{key}: {problems:?}");
        }
        assert_eq!(refused(database, "x = 1\n[[key]]\nverified = true\n[[domain]]\nverified = 1"), [
            "line 1: account is missing",
            "line 1: “x” is unknown here; known are account, domain, key",
            "line 2: domains is missing",
            "line 2: name is missing",
            "line 3: “verified” is unknown here; known are name, domains, description, expires, senders, recipients, networks, paused, secret_file",
            "line 4: name is missing",
            "line 5: verified: expected true or false",
        ]);
        let nobody = refused(database, "account = \"nobody@acme.test\"");
        assert_eq!(nobody, ["there is no account for nobody@acme.test"]);
        let missing = command(database).args(["apply", "missing.toml"]).output().unwrap();
        let missing = String::from_utf8(missing.stderr).unwrap();
        assert!(missing.starts_with("error: the file missing.toml cannot be read"), "{missing}");

        assert_eq!(rows(database), before);
        assert!(!path(database, "x.key").exists(), "no file is left of a key that was not made");
        assert_eq!(std::fs::read_to_string(path(database, "there")).unwrap(), "kept");
    }

    fn a_key_is_known_by_its_name_also_after_a_rotation(app: App) {
        let database = &app.database;
        app.owner();
        let declared = |line: &str| minimal(&format!(
            "name = \"Shop\"\ndomains = \"all\"\nsecret_file = \"shop.key\"\n{line}\n"
        ));
        applied(database, &declared(""));
        let old = key(database, "Shop")["id"].to_string();
        cli(database, &["key", "rotate", "--account", EMAIL, &old], "").unwrap();
        assert_eq!(applied(database, &declared("")), ["Nothing to change."]);
        applied(database, &declared("description = \"new\""));
        let listed = keys(database);
        assert_eq!((&listed[0]["description"], &listed[1]["description"]), (&"new".into(), &"".into()));
        assert_eq!(listed[0]["replaces"].to_string(), old);

        cli(database, &["key", "create", "--account", EMAIL, "--name", "Shop"], "").unwrap();
        let problems = refused(database, &declared("description = \"newer\""));
        let why = "line 2: key “Shop”: the account has several live keys with this name";
        assert!(problems.len() == 1 && problems[0].starts_with(why), "{problems:?}");
    }

    fn a_key_that_expired_as_declared_is_let_be(app: App) {
        let database = &app.database;
        app.owner();
        let declared = |day: &str| minimal(&format!(
            "name = \"Shop\"\ndomains = \"all\"\nexpires = \"{day}\"\nsecret_file = \"shop.key\"\n"
        ));
        applied(database, &declared(&format!("{}-12-31", year(1))));
        let day = |ago| (chrono::Utc::now() - chrono::Days::new(ago)).format("%Y-%m-%d").to_string();
        database.execute(&format!("UPDATE api_keys SET expires_at = '{} 00:00:00'", day(2)));
        let id = key(database, "Shop")["id"].to_string();
        assert_eq!(applied(database, &declared(&day(3))), ["Nothing to change."]);
        // Which writes its end down.
        cli(database, &["key", "pause", "--account", EMAIL, &id], "").unwrap_err();
        assert_eq!(keys(database), Value::Array(vec![]));
        assert_eq!(applied(database, &declared(&day(3))), ["Nothing to change."]);
        let problems = refused(database, &declared(&day(4)));
        assert!(problems[0].contains("This is in the past."), "{problems:?}");
    }

    fn a_limit_holds_for_a_file_too(app: App) {
        let database = &app.database;
        app.owner();
        let run = apply(database, &declaration(), &["--key-limit", "1"]);
        let problem = "key “Büro”: the account has 1 keys, which is its limit";
        assert!(run.status == Some(1) && run.err.contains(problem), "{run:?}");
        assert!(!path(database, "shop.key").exists());
        assert_eq!(rows(database)[..2], [0, 0]);
    }
}
