//! Every page and fragment, in each of its states, is valid HTML; and a page is small.

mod checker;
mod sources;
mod walk;

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::files::root;
use crate::support::*;
use walk::Walk;

/// Of a page with everything that it needs, compressed.
const PAGE_BYTES: usize = 70_000;

#[test]
fn every_page_and_fragment_is_valid_html() {
    let mut walk = Walk::new();
    signing_up(&mut walk);
    signing_up_where_anyone_may(&mut walk);
    let app = App::start(Backend::Sqlite, |_| {});
    let owner = app.owner();
    walk.every_page(&owner, 1..=1);
    walk.get(&owner, "/api-keys?show=ended");
    errors(&mut walk, &owner);
    domains(&mut walk, &app, &owner);
    creating(&mut walk, &owner);
    changing(&mut walk, &owner);
    finding(&mut walk, &app, &owner);
    furnish(&app, &owner);
    walk.every_page(&owner, 1..=18);
    emails(&mut walk, &app, &owner);
    many_domains(&mut walk, &app, &owner);
    wrong_name(&mut walk, &owner);
    longer_lists(&mut walk, &owner);
    a_paused_account(&mut walk, &app, &owner);
    forgotten_activity(&mut walk, &app, &owner);
    walk.assert_complete();
    copy_pictures(walk.folder());

    let errors = checker::errors(walk.folder());
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

fn signing_up(walk: &mut Walk) {
    let app = App::start(Backend::Sqlite, |_| {});
    let visitor = app.visitor();
    walk.every_page(&visitor, 1..=1);
    let elsewhere = |method: &str| {
        let request = visitor.same_origin(method, "/signup");
        request.header("host", "dash.test")
    };
    walk.keep("sign-up with a code", visitor.send(elsewhere("GET")));
    let wrong = [
        ("title", ""),
        ("email", "nobody"),
        ("password", "short"),
        ("setup_code", "wrong"),
    ];
    walk.keep(
        "sign-up, wrong",
        visitor.send(elsewhere("POST").form(&wrong)),
    );
    visitor.sign_up();
    walk.every_page(&app.visitor(), 1..=1);
    let wrong = [("email", EMAIL), ("password", "wrong")];
    walk.keep("sign-in, wrong", app.visitor().post("/login", &wrong));
}

fn signing_up_where_anyone_may(walk: &mut Walk) {
    let app = App::start(Backend::Sqlite, |settings| settings.signup = "open".into());
    app.owner();
    walk.every_page(&app.visitor(), 1..=1);
    let taken = [("title", TITLE), ("email", EMAIL), ("password", PASSWORD)];
    walk.keep("sign-up, taken", app.visitor().post("/signup", &taken));
}

fn errors(walk: &mut Walk, owner: &Visitor) {
    walk.keep("nothing", owner.get("/nothing"));
    walk.keep("not allowed", owner.post("/activity", &[]));
    walk.keep(
        "too long",
        owner.post("/domains", &[("name", &"x".repeat(70_000))]),
    );
    let from_elsewhere = owner
        .request("POST", "/domains")
        .header("sec-fetch-site", "cross-site");
    walk.keep("cross-site", owner.send(from_elsewhere));
}

fn domains(walk: &mut Walk, app: &App, owner: &Visitor) {
    walk.keep(
        "domain, wrong",
        owner.post("/domains", &[("name", "http://<x>\"/")]),
    );
    // So that no domain moves while it is looked at.
    app.dns().trouble(Some(Trouble::ServerFailure));
    let pending = owner.add_domain("pending.test");
    let verified = owner.add_domain("acme.test");
    attest(&app.database, "acme.test");
    for id in [&pending, &verified] {
        walk.get(owner, &format!("/domains/{id}"));
        walk.get(owner, &format!("/domains/{id}/delete"));
    }
    records(walk, app, owner, &pending);
}

/// What DNS may say of a domain, and what becomes of it.
fn records(walk: &mut Walk, app: &App, owner: &Visitor, id: &str) {
    let path = format!("/domains/{id}");
    for notice in ["checked", "silent", "wait"] {
        walk.get(owner, &format!("{path}?notice={notice}"));
    }
    let elsewhere = ["domain", "add", "--account", "eve@evil.test", "--verified"];
    create_account(&app.database, "eve@evil.test", "Evil Corp");
    cli(
        &app.database,
        &[&elsewhere[..], &["pending.test"]].concat(),
        "",
    )
    .unwrap();
    for state in [
        "dkim_state = 'missing', spf_state = 'missing', dmarc_state = 'missing'",
        "dkim_state = 'different', dkim_seen = '\"<b>&', checked_at = created_at",
        "spf_state = 'different', dmarc_state = 'different'",
        "dkim_state = 'found', dkim_seen = NULL, spf_state = 'found', dmarc_state = 'found'",
        "status = 'failed'",
        "missing_since = created_at",
    ] {
        app.database.execute(&format!(
            "UPDATE sending_domains SET {state} WHERE id = {id}"
        ));
        walk.get(owner, &path);
    }
    let missing = owner.add_domain("missing.test");
    let missing_path = format!("/domains/{missing}");
    app.database.execute(&format!(
        "UPDATE sending_domains SET status = 'verified', missing_since = created_at
         WHERE id = {missing}"
    ));
    walk.get(owner, &missing_path);
    walk.get(owner, "/domains");
    owner.post(&format!("{missing_path}/delete"), &[]);
    app.database.execute(&format!(
        "UPDATE sending_domains SET status = 'pending', missing_since = NULL WHERE id = {id}"
    ));
}

/// The form for a new key in all its states, in the dialog and on its page.
fn creating(walk: &mut Walk, owner: &Visitor) {
    let long = "x".repeat(300);
    let wrong = [
        ("name", &*long),
        ("description", &long),
        ("scope", ""),
        ("expiry", "8"),
        ("senders", "<nobody>"),
        ("recipients", "<nobody>"),
    ];
    walk.keep("new key, wrong", owner.post("/api-keys", &wrong));
    walk.keep("new key, wrong", owner.htmx_post("/api-keys", &wrong));
    let old = [&[("nonce", "old"), ("name", "Old")], &*scope("")].concat();
    walk.keep("new key, too late", owner.post("/api-keys", &old));
    walk.keep("new key, too late", owner.htmx_post("/api-keys", &old));

    let nonces = [owner.nonce(), owner.nonce()];
    let form = |nonce| [&[("nonce", nonce), ("name", "<i>&\"'")], &*scope("1")].concat();
    let [page, dialog] = nonces.each_ref().map(|nonce| form(nonce));
    walk.keep("new key", owner.post("/api-keys", &page));
    walk.keep("new key", owner.htmx_post("/api-keys", &dialog));
    walk.keep("new key, again", owner.post("/api-keys", &page));
    walk.keep("new key, again", owner.htmx_post("/api-keys", &dialog));
    owner.post("/api-keys/1/delete", &[]);
    owner.post("/api-keys/2/delete", &[]);
    walk.keep("new key, again, deleted", owner.post("/api-keys", &page));
    let again = owner.htmx_post("/api-keys", &dialog);
    walk.keep("new key, again, deleted", again);
}

/// What is done with keys, and what goes wrong over it. Leaves keys that were rotated, in each of
/// the ways that this can go on.
fn changing(walk: &mut Walk, owner: &Visitor) {
    let (id, _) = owner.create_key("Shop", "2");
    walk.keep("domain, in use", owner.post("/domains/2/delete", &[]));
    walk.get(owner, "/domains/2/delete");

    let path = |verb: &str| format!("/api-keys/{id}/{verb}");
    walk.keep("pause", owner.htmx_post(&path("pause"), &[]));
    walk.get(owner, &format!("/api-keys/{id}"));
    walk.keep("resume", owner.htmx_post(&path("resume"), &[]));

    let version = owner.get(&path("edit")).field("version");
    let edit = |version, name| {
        let fields = [("version", version), ("name", name)];
        let form = [&fields, &*scope("")].concat();
        let dialog = owner.htmx_post(&path("edit"), &form);
        (owner.post(&path("edit"), &form), dialog)
    };
    let mut keep = |what: &str, (page, dialog)| {
        walk.keep(what, page);
        walk.keep(what, dialog);
    };
    keep("edit, wrong", edit(&version, ""));
    keep("edit, to be confirmed", edit(&version, "Shop"));
    keep("edit, too late", edit("old", "Shop"));
    for notice in [
        "saved",
        "same",
        "ended",
        "paused",
        "resumed",
        "stopped",
        "kept",
        "not-replaced",
    ] {
        walk.get(owner, &format!("/api-keys/{id}?notice={notice}"));
    }

    walk.keep(
        "rotate, wrong",
        owner.post(&path("rotate"), &[("quiet", "x")]),
    );
    let wrong = owner.htmx_post(&path("rotate"), &[("quiet", "x")]);
    walk.keep("rotate, wrong", wrong);
    let rotation = [("overlap", "7d"), ("quiet", "24h"), ("expiry", "none")];
    walk.keep("rotate", owner.post(&path("rotate"), &rotation));
    for (verb, whose, overlap, quiet) in [
        ("stop", 0, "1h", ""),
        ("delete", 1, "7d", ""),
        ("delete", 1, "manual", "24h"),
        ("keep", 0, "7d", "24h"),
    ] {
        let (old, _) = owner.create_key("Rotated", "");
        let rotation = [("overlap", overlap), ("quiet", quiet), ("expiry", "none")];
        owner.post(&format!("/api-keys/{old}/rotate"), &rotation);
        for key in [old, old + 1] {
            walk.get(owner, &format!("/api-keys/{key}"));
            walk.get(owner, &format!("/api-keys/{key}/delete"));
        }
        owner.post(&format!("/api-keys/{}/{verb}", old + whose), &[]);
    }
    let doomed = owner.create_key("Doomed", "").0;
    let delete = format!("/api-keys/{doomed}/delete");
    walk.keep("delete", owner.htmx_post(&delete, &[]));
    for notice in ["deleted", "gone"] {
        walk.get(owner, &format!("/api-keys?notice={notice}"));
    }
}

fn finding(walk: &mut Walk, app: &App, owner: &Visitor) {
    let (id, key) = owner.create_key("Lost", "");
    let mut find = |what: &str, pasted: &str| {
        walk.keep(what, owner.post("/api-keys/find", &[("pasted", pasted)]));
        walk.keep(
            what,
            owner.htmx_post("/api-keys/find", &[("pasted", pasted)]),
        );
    };
    find("find, wrong", "tsend_tooshort");
    find("find", &key);
    let shown = format!("{}…{}", &key[..8], &key[40..]);
    app.database.execute(&format!(
        "UPDATE api_keys SET first8 = '{}', last4 = '{}' WHERE id = 3",
        &key[..8],
        &key[40..]
    ));
    find("find, shown alike", &shown);
    owner.post(&format!("/api-keys/{id}/delete"), &[]);
    find("find, ended", &key);
    find("find, several", &format!("{shown} {key}\ntsend_tooshort"));
    walk.keep("uses", owner.get(&format!("/api-keys/first-uses?ids={id}")));
}

/// A key of more domains than the list names.
fn many_domains(walk: &mut Walk, app: &App, owner: &Visitor) {
    let names = ["a.test", "b.test", "c.test", "d.test"];
    for name in names {
        attest(&app.database, name);
    }
    let mut create = vec!["key", "create", "--account", EMAIL, "--name", "Many"];
    create.extend(names.iter().flat_map(|name| ["--domain", name]));
    cli(&app.database, &create, "").unwrap();
    let list = walk.get(owner, "/api-keys").body;
    assert!(list.contains(">2 more</a>"), "{list}");
}

/// Keys with everything that a key can have, and what they were used for.
fn furnish(app: &App, owner: &Visitor) {
    let run = |rest: &[&str]| {
        let arguments = [&["key", rest[0], "--account", EMAIL], &rest[1..]].concat();
        cli(&app.database, &arguments, "").unwrap();
    };
    let name = |name| ["create", "--name", name];
    let rules = ["--sender", "a@acme.test", "--recipient", "example.org"];
    let expiry = ["--description", "<b>Of & all", "--expires", "30d"];
    run(&[&name("Restricted")[..], &rules, &expiry].concat());
    run(&[
        &name("Both")[..],
        &["--domain", "acme.test", "--domain", "pending.test"],
    ]
    .concat());
    let first = owner.get("/api-keys").key_ids()[1];
    run(&["pause", &first.to_string()]);
    app.database.execute(&format!(
        "INSERT INTO api_key_uses VALUES
         ({first}, strftime('%F %R:%f', 'now', '-2 hours'), '::1', 'curl/8 <\"&>')"
    ));
    for (hours, outcome) in [
        (0, "accepted"),
        (2, "recipient_not_allowed"),
        (500, "accepted"),
    ] {
        app.database.execute(&format!(
            "INSERT INTO api_key_calls VALUES
             ({first}, strftime('%F %H:00:00', 'now', '-{hours} hours'), '{outcome}', 9)"
        ));
    }
    for verb in ["", "/pause", "/delete"] {
        assert_eq!(owner.get(&format!("/api-keys/{first}{verb}")).status, 200);
    }
    for days in [100, 40] {
        let id = owner.create_key("Old", "").0;
        app.database.execute(&format!(
            "UPDATE api_keys SET created_at = strftime('%F %R:%f', 'now', '-{days} days')
             WHERE id = {id}"
        ));
        if days == 100 {
            app.database.execute(&format!(
                "INSERT INTO api_key_uses VALUES ({id}, strftime('%F %R:%f', 'now'), '::1', '');
                 INSERT INTO api_key_calls VALUES ({id}, strftime('%F %H:00:00', 'now'), 'accepted', 1)"
            ));
        }
    }
}

/// Emails in each of their states, and more than a page has.
fn emails(walk: &mut Walk, app: &App, owner: &Visitor) {
    let program = app.program(&owner.create_key("<i>Shop", "").1);
    for _ in 0..52 {
        let mut email = email("ada@acme.test");
        email["to"] = serde_json::json!([{"email": "a&b@example.org"}, {"email": "b@example.org"}]);
        assert_eq!(program.post(&email).status, 200);
    }
    let refused = "[{\"email\": \"a&b@example.org\", \"reply\": \"550 <b>No\"}]";
    app.database.execute(&format!(
        "UPDATE emails SET status = 'deferred', reply = '451 <i>\"Later' WHERE id % 4 = 1;
         UPDATE emails SET status = 'delivered', ended_at = created_at, refused = '{refused}'
         WHERE id % 4 = 2;
         UPDATE emails SET status = 'failed', ended_at = created_at, reply = '550 <b>No', message = NULL
         WHERE id % 4 = 3"
    ));
    walk.get(owner, "/activity/emails?status=failed");
    walk.get(owner, "/activity/emails?status=held&before=1");
    assert_eq!(owner.post("/activity/emails/1/retry", &[]).status, 303);
    walk.get(owner, "/activity/emails?retry=done");
    walk.get(owner, "/activity/emails?retry=not-needed");
    let newest = walk.get(owner, "/activity/emails").body;
    let (_, older) = newest.split_once("rel=\"next\" href=\"").unwrap();
    walk.get(owner, older.split('"').next().unwrap());
    walk.get(owner, "/api-keys");
    let relay = Relay::stopped();
    let url = relay.url();
    let node = App::on(app.database.again(), |settings| {
        settings.smtp_url = Some(url)
    });
    owner.move_to(&node.url(""));
    walk.get(owner, "/activity/emails");
    walk.get(owner, "/api-keys");
    owner.move_to(&app.url(""));
}

/// A key in use is not deleted by a name that is not its own.
fn wrong_name(walk: &mut Walk, owner: &Visitor) {
    let used = owner.get("/api-keys?status=old").key_ids()[0];
    let path = format!("/api-keys/{used}/delete");
    let wrong = [("name", "<b>\"Older")];
    walk.keep("delete, wrong name", owner.post(&path, &wrong));
    walk.keep("delete, wrong name", owner.htmx_post(&path, &wrong));
}

fn longer_lists(walk: &mut Walk, owner: &Visitor) {
    walk.get(owner, "/api-keys?show=ended");
    for _ in 0..50 {
        owner.create("Many", "2");
    }
    walk.get(owner, "/api-keys");
    walk.get(owner, "/api-keys?page=2");
    walk.get(
        owner,
        "/api-keys?q=<b>\"&status=paused&domain=all&sort=-name",
    );
    walk.get(owner, "/api-keys?status=unused&sort=used");
    walk.get(owner, "/api-keys?show=ended&sort=name");
    walk.get(owner, "/activity?who=nobody");
    walk.get(owner, "/activity?key=3");
    let newest = walk.get(owner, "/activity").body;
    let (_, older) = newest.split_once("rel=\"next\" href=\"").unwrap();
    let older = older.split('"').next().unwrap().replace("&#38;", "&");
    walk.get(owner, &older);
}

fn a_paused_account(walk: &mut Walk, app: &App, owner: &Visitor) {
    cli(&app.database, &["account", "pause", "--account", EMAIL], "").unwrap();
    walk.every_page(owner, 1..=16);
    walk.keep("new key, paused account", owner.create("After", ""));
}

fn forgotten_activity(walk: &mut Walk, app: &App, owner: &Visitor) {
    app.database.execute("DELETE FROM events");
    walk.get(owner, "/activity");
    walk.get(owner, "/api-keys/3");
}

fn copy_pictures(folder: &Path) {
    let files = std::fs::read_dir(root().join("static")).unwrap();
    for file in files.map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "svg") {
            std::fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
    }
}

/// The alarm works.
#[test]
fn the_checker_finds_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let write = |body: &str| {
        let document = format!("<!doctype html><html lang=en><title>T</title>{body}</html>");
        std::fs::write(folder.path().join("page.html"), document).unwrap();
    };
    write("<p hx-get=/>Well");
    assert_eq!(checker::errors(folder.path()), [""; 0]);
    write("<p><div id=a></div><div id=a></div>");
    let errors = checker::errors(folder.path()).join("\n");
    assert!(errors.contains("page.html:1: Duplicate ID “a”"), "{errors}");
}

#[test]
fn pages_are_small_with_everything_that_they_need() {
    let app = App::start(Backend::Sqlite, |_| {});
    let owner = app.owner();
    let domain = owner.add_domain("acme.test");
    for n in 0..25 {
        owner.create(&format!("Key {n}"), &domain);
    }
    for path in ["/api-keys", "/docs/api"] {
        let page = owner.get(path).body;
        let mut sizes = vec![(path, zipped(&page))];
        for asset in assets(&page) {
            let answer = owner.get(asset);
            assert_eq!(answer.status, 200, "{asset}");
            sizes.push((asset, zipped(&answer.body)));
        }
        assert!(sizes.len() > 4, "{sizes:?}");
        let sum: usize = sizes.iter().map(|(_, bytes)| bytes).sum();
        assert!(sum <= PAGE_BYTES, "{sum} bytes: {sizes:?}");
    }
}

/// The addresses of the files that a page names, each once.
fn assets(page: &str) -> Vec<&str> {
    let attributes = page.split('"');
    let mut assets: Vec<&str> = attributes
        .filter(|value| value.starts_with("/static/"))
        .map(|value| value.split('#').next().unwrap())
        .collect();
    assets.sort_unstable();
    assets.dedup();
    assets
}

fn zipped(text: &str) -> usize {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap().len()
}
