//! A request whose session ends before it is written down: its body is held back, or the database is.

use std::thread;

use tosend_dashboard::keys::store as keys;

use crate::support::*;

const NEW: &str = "five unrelated blue chairs";
const OTHER: &str = "six unrelated red doors";

/// A form of which all but the last byte was sent.
struct Held {
    slow: Slow,
    last: String,
    path: String,
    is_htmx: bool,
}

impl Held {
    fn begin(app: &App, visitor: &Visitor, path: &str, form: &Form, is_htmx: bool) -> Self {
        // Where a form has no field, a body of one byte more or less does not matter.
        let body = match form.is_empty() {
            true => "x=1".to_owned(),
            false => url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(form)
                .finish(),
        };
        let htmx = if is_htmx { "HX-Request: true\r\n" } else { "" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: same-origin\r\n{htmx}\
             Cookie: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Expect: 100-continue\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            visitor.cookies(),
            body.len()
        );
        let mut slow = Slow::begin(app.address, &head);
        // So that the server has the head.
        slow.interim();
        let (most, last) = body.split_at(body.len() - 1);
        slow.send(most);
        Self {
            slow,
            last: last.to_owned(),
            path: path.to_owned(),
            is_htmx,
        }
    }

    fn end(mut self) -> Ended {
        Ended {
            answer: self.slow.end(&self.last).to_ascii_lowercase(),
            path: self.path,
            is_htmx: self.is_htmx,
        }
    }
}

/// What such a form was answered in the end.
struct Ended {
    answer: String,
    path: String,
    is_htmx: bool,
}

impl Ended {
    fn assert_asks_to_sign_in(&self) {
        let Self { answer, path, .. } = self;
        let expected = match self.is_htmx {
            true => ("http/1.1 200 ok\r\n", "\r\nhx-redirect: /login"),
            false => ("http/1.1 303 see other\r\n", "\r\nlocation: /login"),
        };
        assert!(answer.starts_with(expected.0), "{path} {answer}");
        assert!(answer.contains(expected.1), "{path} {answer}");
        assert!(!answer.contains("tsend_"), "{path} {answer}");
    }
}

type Form = [(String, String)];

/// Every form that needs a session, filled in so that it would change something.
fn forms(app: &App, owner: &Visitor) -> Vec<(String, Vec<(String, String)>)> {
    let (pending, verified) = (owner.add_domain("a.test"), owner.add_domain("b.test"));
    attest(&app.database, "b.test");
    let (active, _) = owner.create_key("Active", "");
    let (paused, _) = owner.create_key("Paused", "");
    owner.post(&format!("/api-keys/{paused}/pause"), &[]);
    let (replaced, _) = owner.create_key("Replaced", "");
    let rotation = [("overlap", "24h"), ("quiet", ""), ("expiry", "keep")];
    let rotated = owner.post(&format!("/api-keys/{replaced}/rotate"), &rotation);
    assert_eq!(rotated.status, 200);
    let nonce = owner.nonce();
    let version = owner
        .get(&format!("/api-keys/{active}/edit"))
        .field("version");
    app.visitor().sign_in(EMAIL);
    let elsewhere = owner.get("/settings").session_ids()[1].clone();
    let created = [
        ("nonce", &*nonce),
        ("name", "New"),
        ("scope", "all"),
        ("expiry", "none"),
    ];
    let edited = [
        ("version", &*version),
        ("name", "Other"),
        ("scope", "all"),
        ("expiry", "none"),
        ("confirmed", "yes"),
    ];
    let key = |id: i64, verb: &str| format!("/api-keys/{id}/{verb}");
    let forms: Vec<(String, &[(&str, &str)])> = vec![
        ("/api-keys".into(), &created),
        // One that is wrong shows what the account has.
        ("/api-keys".into(), &[("name", "")]),
        (key(active, "edit"), &edited),
        (key(active, "rotate"), &rotation),
        (key(active, "pause"), &[]),
        (key(paused, "resume"), &[]),
        (key(replaced, "keep"), &[]),
        (key(replaced, "stop"), &[]),
        (key(active, "delete"), &[]),
        ("/api-keys/find".into(), &[("pasted", "Active")]),
        ("/domains".into(), &[("name", "c.test")]),
        (format!("/domains/{pending}/check"), &[]),
        (format!("/domains/{pending}/delete"), &[]),
        (format!("/domains/{verified}/delete"), &[]),
        ("/settings/title".into(), &[("title", "Other")]),
        ("/settings/title".into(), &[("title", "")]),
        (
            "/settings/password".into(),
            &[("current", PASSWORD), ("new", OTHER)],
        ),
        (
            "/settings/password".into(),
            &[("current", NEW), ("new", OTHER)],
        ),
        ("/settings/sessions/end-others".into(), &[]),
        (format!("/settings/sessions/{elsewhere}/end"), &[]),
        ("/logout".into(), &[]),
    ];
    let owned = |form: &[(&str, &str)]| {
        form.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    forms
        .into_iter()
        .map(|(path, form)| (path, owned(form)))
        .collect()
}

/// Everything that the forms change.
fn everything(app: &App) -> Vec<String> {
    [
        "SELECT COUNT(*) FROM events",
        "SELECT COUNT(*) FROM sessions",
        "SELECT COUNT(*) FROM form_nonces",
        "SELECT COUNT(*) FROM form_nonces WHERE used_at IS NULL",
        "SELECT COUNT(*) FROM api_keys",
        "SELECT COUNT(*) FROM api_keys WHERE ended_at IS NULL",
        "SELECT COUNT(*) FROM api_keys WHERE status = 'active'",
        "SELECT COUNT(*) FROM api_keys WHERE stops_at IS NULL",
        "SELECT MAX(name) FROM api_keys",
        "SELECT MIN(name) FROM api_keys",
        "SELECT SUM(key_count) FROM accounts",
        "SELECT MIN(title) FROM accounts",
        "SELECT MIN(password_hash) FROM users",
        "SELECT COUNT(*) FROM sending_domains",
    ]
    .map(|sql| app.database.text(sql))
    .into()
}

/// Holds every form of `victim`, lets its session end, and sends the last bytes.
fn assert_nothing_changes(
    app: &App,
    forms: &[(String, Vec<(String, String)>)],
    victim: &Visitor,
    end: impl FnOnce(),
) {
    let both = forms.iter().flat_map(|form| [(form, false), (form, true)]);
    let held: Vec<Held> = both
        .map(|((path, form), is_htmx)| Held::begin(app, victim, path, form, is_htmx))
        .collect();
    end();
    let before = everything(app);
    // One after the other without a pause: a body has half a minute to come.
    let ended: Vec<_> = held.into_iter().map(Held::end).collect();
    ended.iter().for_each(Ended::assert_asks_to_sign_in);
    assert_eq!(everything(app), before);
}

both! {
    fn a_form_that_is_held_back_does_not_outlive_its_session(app: App) {
        let owner = app.owner();
        let forms = forms(&app, &owner);
        let victim = app.visitor();

        victim.sign_in(EMAIL);
        let id = victim.get("/settings").session_ids().remove(0);
        assert_nothing_changes(&app, &forms, &victim, || {
            let ended = owner.post(&format!("/settings/sessions/{id}/end"), &[]);
            assert_eq!(ended.location(), Some("/settings?notice=ended"));
        });

        victim.sign_in(EMAIL);
        assert_nothing_changes(&app, &forms, &victim, || {
            let changed = owner.post("/settings/password", &[("current", PASSWORD), ("new", NEW)]);
            assert_eq!(changed.location(), Some("/settings?notice=password"));
        });

        assert_eq!(victim.post("/login", &[("email", EMAIL), ("password", NEW)]).status, 303);
        assert_nothing_changes(&app, &forms, &victim, || {
            let args = ["account", "password", "--account", EMAIL, "--password-stdin"];
            cli(&app.database, &args, PASSWORD).unwrap();
        });
    }

    fn a_form_that_is_held_back_makes_no_key_of_an_account_that_is_paused_since(app: App) {
        let owner = app.owner();
        let forms = forms(&app, &owner);
        let makes_a_key = |path: &str, form: &Form| {
            path.ends_with("/rotate") || path == "/api-keys" && form.len() > 1
        };
        let held: Vec<Held> = forms.iter()
            .filter(|(path, form)| makes_a_key(path, form))
            .map(|(path, form)| Held::begin(&app, &owner, path, form, false))
            .collect();
        assert_eq!(held.len(), 2);
        cli(&app.database, &["account", "pause", "--account", EMAIL], "").unwrap();
        let before = everything(&app);
        for held in held {
            let answer = held.end().answer;
            assert!(answer.starts_with("http/1.1 403 "), "{answer}");
            assert_eq!(everything(&app), before);
        }
    }

    fn what_ends_a_session_first_wins(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Active", "");
        let nonce = owner.nonce();
        let create = [("nonce", nonce.as_str()), ("name", "x"), ("scope", "all"), ("expiry", "none")];
        // As a change of the password on another node, which is not committed yet.
        let mut other = app.database.lock("email_totals");
        other.batch_execute(
            "UPDATE users SET password_hash = 'other'; DELETE FROM sessions"
        ).unwrap();
        let (cookie, pause) = (owner.cookie(), format!("/api-keys/{id}/pause"));
        let post = |path: &str, form: &[(&str, &str)]| {
            let visitor = app.visitor();
            visitor.set_cookie(cookie.clone());
            visitor.post(path, form)
        };
        thread::scope(|scope| {
            let answers = [
                scope.spawn(|| post(&pause, &[])),
                scope.spawn(|| post("/api-keys", &create)),
            ];
            // So that they may find their session; whether they do does not matter.
            thread::sleep(std::time::Duration::from_millis(500));
            other.batch_execute("COMMIT").unwrap();
            for answer in answers {
                let answer = answer.join().unwrap();
                let to = (answer.status, answer.location());
                assert_eq!(to, (303, Some("/login?unsent=yes")));
            }
        });
        assert_eq!(app.database.number("SELECT COUNT(*) FROM api_keys WHERE status = 'active'"), 1);
        assert_eq!(app.program(&key).verdict(), 200);
    }

    fn a_person_has_so_many_forms_and_no_more(app: App) {
        let owner = app.owner();
        let oldest = owner.nonce();
        let db = app.database.open();
        let issued = db.write_blocking(|conn| {
            (0..999_u32).try_for_each(|n| {
                let mut hash = [0; 32];
                hash[..4].copy_from_slice(&n.to_be_bytes());
                keys::issue_nonce(conn, 1, &hash)
            })
        });
        issued.unwrap();
        let count = || app.database.number("SELECT COUNT(*) FROM form_nonces");
        assert_eq!(count(), 1_000);
        let newest = owner.nonce();
        assert_eq!(count(), 1_000);
        let create = |nonce: &str| owner.post("/api-keys",
            &[("nonce", nonce), ("name", "x"), ("scope", "all"), ("expiry", "none")]);
        assert_eq!(create(&newest).status, 200);
        let refused = create(&oldest);
        assert_eq!(refused.status, 422);
        assert!(refused.body.contains("This form had expired."));
        assert_eq!(app.database.number("SELECT COUNT(*) FROM api_keys"), 1);
    }
}
