//! The server's secret is replaced by another one, beside a running server.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rand::RngExt;
use tosend_dashboard::domains::dkim::DkimKey;
use tosend_dashboard::domains::name::DomainName;
use tosend_dashboard::secret::SecretRing;

use crate::support::*;

fn file_of(database: &Database) -> PathBuf {
    database.folder.path().join("secret")
}

fn secret(database: &Database, args: &[&str]) -> Result<String, String> {
    cli(database, &[&["secret"], args].concat(), "")
}

/// What `check` says of it.
fn check(database: &Database) -> String {
    let output = command(database).arg("check").output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let line = out.lines().find(|line| line[6..].starts_with("secret: "));
    line.unwrap_or_else(|| panic!("{out}")).to_owned()
}

/// Rotates it in as many steps as the database needs.
fn rotate(database: &Database) -> String {
    let mut told = secret(database, &["rotate"]).unwrap();
    if database.backend() == Backend::Postgres {
        assert!(told.contains("not in use yet"), "{told}");
        told = secret(database, &["rotate", "--copied"]).unwrap();
    }
    told
}

/// The domains and their keys, as they are stored.
fn sealed_keys(database: &Database) -> Vec<(DomainName, Vec<u8>)> {
    let list = match database.backend() {
        Backend::Sqlite => "group_concat(name || ':' || hex(dkim_private), ',')",
        Backend::Postgres => "string_agg(name || ':' || encode(dkim_private, 'hex'), ',')",
    };
    let text = database.text(&format!("SELECT {list} FROM sending_domains"));
    let key = |line: &str| {
        let (name, hex) = line.split_once(':').unwrap();
        let bytes = (0..hex.len()).step_by(2);
        let bytes = bytes.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        (DomainName::parse(name).unwrap(), bytes.collect())
    };
    text.split(',').map(key).collect()
}

/// Whether all keys of domains can be opened with what is in the file.
fn are_all_opened(database: &Database) -> bool {
    let secrets = SecretRing::find(&file_of(database)).unwrap().unwrap();
    let keys = sealed_keys(database);
    assert!(!keys.is_empty());
    keys.iter()
        .all(|(name, key)| DkimKey::open_with_any(key, &secrets, name).is_ok())
}

both! {
    fn a_secret_is_rotated_beside_a_server_and_nothing_is_lost(app: App) {
        let owner = app.owner();
        let path = format!("/domains/{}", owner.add_domain("acme.test"));
        let lost = "cannot be decrypted";
        let before = std::fs::read(file_of(&app.database)).unwrap();
        let old_keys = sealed_keys(&app.database);
        let told = rotate(&app.database);
        assert!(told.contains("is in use. Keys of domains encrypted with it: 1. Restart the server"), "{told}");
        let both = std::fs::read(file_of(&app.database)).unwrap();
        assert_eq!((both.len(), &both[64..]), (128, &before[..]));
        assert_ne!(old_keys, sealed_keys(&app.database));

        // The server that runs goes on: with the session, the key, and new domains.
        assert!(!owner.get(&path).body.contains(lost));
        owner.add_domain("shop.test");
        let again = secret(&app.database, &["rotate"]).unwrap_err();
        assert!(again.contains("rotated already") && again.contains("secret forget-old"), "{again}");
        let both_told = check(&app.database);
        assert!(both_told.starts_with("note ") && both_told.contains("also holds another one"), "{both_told}");

        // So does one that starts now, and each accepts whom the other signed in.
        let other = App::on(app.database.again(), |_| {});
        let newcomer = other.visitor();
        newcomer.sign_in(EMAIL);
        newcomer.move_to(&app.url(""));
        owner.move_to(&other.url(""));
        for person in [&newcomer, &owner] {
            for path in ["/api-keys", &path, &format!("{path}/changes")] {
                let answer = person.get(path);
                assert!(matches!(answer.status, 200 | 204) && !answer.body.contains(lost), "{path} {}", answer.status);
            }
        }

        let told = secret(&app.database, &["forget-old"]).unwrap();
        assert!(told.contains("holds only the secret in use. Keys of domains encrypted with it: 0."), "{told}");
        assert_eq!(std::fs::read(file_of(&app.database)).unwrap(), &both[..64]);
        assert!(are_all_opened(&app.database));
        assert!(secret(&app.database, &["forget-old"]).unwrap_err().contains("holds no old secret"));
        let last = App::on(app.database.again(), |_| {});
        for (person, status) in [(&newcomer, 200), (&owner, 303)] {
            person.move_to(&last.url(""));
            assert_eq!(person.get("/api-keys").status, status);
        }
        assert!(!newcomer.get(&path).body.contains(lost));
        assert!(check(&app.database).starts_with("ok "));
    }

    fn a_rotation_that_stopped_half_way_goes_on(app: App) {
        let owner = app.owner();
        owner.add_domain("acme.test");
        let database = &app.database;
        secret(database, &["forget-old"]).unwrap_err();
        let secrets = SecretRing::find(&file_of(database)).unwrap().unwrap();
        secrets.add_new().unwrap();
        // The new secret is in the file, and not in use.
        let told = secret(database, &["forget-old"]).unwrap_err();
        assert!(told.contains("is not in use yet"), "{told}");
        assert!(are_all_opened(database));
        cli(database, &["domain", "add", "--account", EMAIL, "shop.test"], "").unwrap();
        assert!(are_all_opened(database));
        let told = rotate(database);
        assert!(told.contains("Keys of domains encrypted with it: 2."), "{told}");
        assert_eq!(SecretRing::find(&file_of(database)).unwrap().unwrap().all(), secrets.all());
    }
}

/// Whenever the command dies, what is left opens all keys, and running it again finishes it.
#[test]
fn a_rotation_that_is_killed_loses_nothing() {
    for backend in Backend::all() {
        let app = App::start(backend, |_| {});
        let owner = app.owner();
        for name in ["a.test", "b.test", "c.test"] {
            owner.add_domain(name);
        }
        for _ in 0..rounds("TOSEND_TEST_ROTATIONS", 5, 100) {
            let steps: [&[&str]; 3] = [
                &["secret", "rotate"],
                &["secret", "rotate", "--copied"],
                &["secret", "forget-old"],
            ];
            for args in steps {
                let mut child = command(&app.database)
                    .args(args)
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                std::thread::sleep(Duration::from_millis(rand::rng().random_range(1..60)));
                child.kill().unwrap();
                child.wait().unwrap();
                assert!(are_all_opened(&app.database));
                let told = check(&app.database);
                assert!(!told.starts_with("wrong"), "{told}");
            }
            // Whatever was done already is refused.
            for args in [&["rotate"][..], &["rotate", "--copied"], &["forget-old"]] {
                let _ = secret(&app.database, args);
            }
            assert!(are_all_opened(&app.database));
            assert_eq!(std::fs::read(file_of(&app.database)).unwrap().len(), 64);
        }
        assert_eq!(owner.get("/api-keys").status, 200);
    }
}

#[test]
fn a_node_without_the_new_secret_makes_no_key_that_others_cannot_open_on_postgres() {
    let app = App::start(Backend::Postgres, |_| {});
    let owner = app.owner();
    owner.add_domain("acme.test");
    let file = app.database.folder.path().join("other-secret");
    std::fs::copy(file_of(&app.database), &file).unwrap();
    let node = App::on(app.database.again(), |settings| {
        settings.secret_file = Some(file.display().to_string());
    });
    owner.move_to(&node.url(""));
    secret(&app.database, &["rotate"]).unwrap();
    owner.add_domain("before.test");
    assert!(are_all_opened(&app.database));
    let too_early = secret(&app.database, &["rotate", "--copied"]);
    too_early.unwrap();
    // Its file is still the old one.
    let path = format!("/domains/{}", dns::first(&app, "acme.test"));
    assert!(owner.get(&path).body.contains("cannot be decrypted"));
    assert_eq!(
        owner.post("/domains", &[("name", "after.test")]).status,
        500
    );
    std::fs::copy(file_of(&app.database), &file).unwrap();
    assert!(!owner.get(&path).body.contains("cannot be decrypted"));
    owner.add_domain("after.test");
    assert!(are_all_opened(&app.database));
}
