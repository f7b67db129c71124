//! The whole story, from the first account to a key's end, with and without JavaScript.

use std::process::Command;

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

/// Runs a line that the dashboard shows: the status and the body of the answer. Where the server could
/// not answer in time, curl asks again.
fn shell(line: &str) -> (u16, String) {
    let line = format!("{line} --retry 9 --silent --show-error --write-out '\n%{{http_code}}'");
    let run = Command::new("bash").args(["-c", &line]).output().unwrap();
    let output = String::from_utf8(run.stdout).unwrap();
    let (body, status) = output.rsplit_once('\n').expect(&line);
    (status.parse().expect(&line), body.to_owned())
}

both! {
    fn a_person_signs_up_sends_an_email_and_deletes_the_key(app: App) {
        let browser = Browser::new(&app);
        let sign_up = SignUp::open(&browser);
        assert!(!sign_up.asks_for_code());
        assert!(sign_up.submit(TITLE).is_empty());

        // A domain, verified by the command that its page shows.
        let domain = Domains::open(&browser).add("acme.test");
        assert_eq!(domain.status(), "Pending");
        let command = domain.command();
        assert_eq!(
            command[1..],
            ["domain", "add", &format!("--account={EMAIL}"), "acme.test", "--verified"]
        );
        let arguments: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        cli(&app.database, &arguments, "").expect("the command on the page works");
        domain.check();
        assert_eq!(domain.status(), "Verified");

        // A key, in a dialog over the page.
        let keys = Keys::open(&browser);
        browser.script::<()>("window.isSamePage = true");
        let form = keys.create();
        assert!(browser.shows("dialog#dialog:modal"));
        browser.wait_for_focus("input#key-name");
        assert_eq!(form.domains(), ["acme.test"]);
        let shown = form.name("Production").domain("acme.test").submit();

        // It is shown once.
        let key = shown.key();
        assert!(key.starts_with("tsend_") && key.len() == 44, "{} characters", key.len());
        assert!(browser.text("dialog .note.warning").contains("will not be shown again"));
        browser.wait_for_focus("input#new-key");
        let row = Keys::see(&browser).rows().remove(0);
        assert_eq!((&*row.name, &*row.domain, &*row.status), ("Production", "acme.test", "Active"));
        assert!(browser.script::<bool>("return window.isSamePage === true"));
        let curl = shown.snippet("curl");
        let (status, body) = shell(&curl);
        assert_eq!(status, 200, "{body}");
        assert!(body.contains("\"message_id\""), "{body}");

        // What Copy says it copied is on the clipboard.
        shown.copy("Copy curl");
        shown.copy("Copy key");
        let keys = shown.stored();
        assert!(!browser.shows("dialog"));
        assert_ne!(browser.focus(), "body");
        assert!(browser.paste() == key, "Copy put something else on the clipboard");
        assert!(!browser.html().contains(&key));
        browser.reload();
        assert!(!browser.html().contains(&key));

        // Paused, the key is refused, until it is resumed.
        keys.pause("Production");
        browser.wait_for_focus("button#key-1-more");
        assert_eq!(shell(&curl).0, 403);
        keys.resume("Production");
        assert_eq!(shell(&curl).0, 200);

        // Deleted, it is refused for ever.
        let question = keys.delete("Production");
        assert!(browser.shows("dialog[role=alertdialog]:modal"));
        assert!(browser.text("#dialog-title").contains("Production"));
        let focused: String = browser.script("return document.activeElement.innerText");
        assert_eq!(focused, "Cancel");
        let keys = question.cancel();
        browser.wait_for_focus("a#key-1-delete");
        let keys = keys.delete("Production").type_name("Production").confirm();
        browser.wait("the row goes", || keys.rows().is_empty());
        assert!(keys.is_empty());
        browser.wait_for_focus("h1#title");
        let said = "return document.getElementById('toast').textContent";
        assert_eq!(
            browser.script::<String>(said),
            "The key “Production” was deleted. It no longer works."
        );
        let (status, body) = shell(&curl);
        assert_eq!(status, 403, "{body}");
    }
}

#[test]
fn copy_works_on_plain_http_under_another_host_name() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::at_host(&app, "dash.test");
    let sign_up = SignUp::open(&browser);
    assert!(sign_up.asks_for_code());
    let keys = sign_up.fill_code(&app.setup_code).submit(TITLE);
    assert!(browser.script::<bool>("return navigator.clipboard === undefined"));

    let shown = keys.create().name("Laptop").submit();
    let (key, curl) = (shown.key(), shown.snippet("curl"));
    assert!(curl.contains(&format!(
        "http://dash.test:{}/v2/emails",
        app.address.port()
    )));
    shown.copy("Copy key");
    shown.stored();
    assert!(
        browser.paste() == key,
        "Copy put something else on the clipboard"
    );

    let shown = Keys::see(&browser).create().name("Desktop").submit();
    let curl = shown.snippet("curl");
    shown.copy("Copy curl");
    shown.stored();
    assert!(
        browser.paste() == curl,
        "Copy curl put something else on the clipboard"
    );
}

#[test]
fn everything_works_without_javascript() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::without_javascript(&app);
    let form = sign_up(&browser).create();
    assert_eq!(browser.path(), "/api-keys/new");
    browser.wait_for_focus("input#key-name");
    let form = form.name(&"x".repeat(65)).submit_wrong();
    assert_eq!(browser.path(), "/api-keys");

    let shown = form.name("Backup").submit();
    let key = shown.key();
    assert_eq!(app.program(&key).info().status, 200);

    // Sending the form again by reloading makes no second key.
    browser.reload();
    browser.wait("the page says that the key exists", || {
        browser.text("h1") == "This key has already been created"
    });
    assert!(!browser.html().contains(&key));
    let keys = Keys::open(&browser);
    assert_eq!(keys.names(), ["Backup"]);

    keys.pause("Backup");
    assert_eq!(app.program(&key).info().status, 403);
    keys.resume("Backup");
    let keys = keys.delete("Backup").cancel().delete("Backup");
    let keys = keys.type_name("Backup").confirm();
    assert!(keys.is_empty());
    assert!(browser.text(".note").contains("was deleted"));
    assert_eq!(app.program(&key).info().status, 403);

    let domain = Domains::open(&browser).add("acme.test");
    assert_eq!(domain.status(), "Pending");
    Keys::open(&browser).sign_out().submit();
}
