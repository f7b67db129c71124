//! The whole story without a pointer: where the focus is after each step, with JavaScript and without,
//! and on plain http under another host name.

use thirtyfour::Key;

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

#[test]
fn the_whole_story_by_keyboard() {
    let app = App::start(Backend::Sqlite, |_| {});
    tell(&app, &Browser::new(&app), true);
}

#[test]
fn the_whole_story_by_keyboard_without_javascript() {
    let app = App::start(Backend::Sqlite, |_| {});
    tell(&app, &Browser::without_javascript(&app), false);
}

#[test]
fn the_whole_story_by_keyboard_on_plain_http_under_another_host_name() {
    let app = App::start(Backend::Sqlite, |_| {});
    tell(&app, &Browser::at_host(&app, "dash.test"), true);
}

/// `has_script`: whether there are dialogs; without JavaScript each of them is a page.
fn tell(app: &App, browser: &Browser, has_script: bool) {
    sign_up(app, browser);

    // Past the navigation by the first link of the page.
    browser.press_key(Key::Tab);
    assert_eq!(focused(browser), "Skip to content");
    browser.press_enter();
    browser.press_key(Key::Tab);
    browser.wait_for_focus("a#find-key");

    add_domain(app, browser);
    let key = create(app, browser, has_script);
    pause_and_resume(app, browser, has_script, &key);
    delete(app, browser, has_script, &key);

    browser.enter("#account-button");
    browser.see("#account-menu:popover-open");
    browser.press_key(Key::Escape);
    browser.miss("#account-menu:popover-open");
    browser.wait_for_focus("button#account-button");
    browser.press_enter();
    browser.enter("form[action='/logout'] button");
    SignIn::see(browser);
    browser.wait_for_focus("input#email");
    browser.type_keys(EMAIL);
    browser.press_key(Key::Tab);
    browser.wait_for_focus("input#password");
    browser.type_keys("not the password");
    browser.press_enter();
    // What is wrong is said, and only the password is typed again.
    browser.see(".note.danger");
    browser.wait_for_focus("input#password");
    assert_eq!(browser.value("#email"), EMAIL);
    browser.type_keys(PASSWORD);
    browser.press_enter();
    Keys::see(browser);
}

/// What the element that has the focus is called.
fn focused(browser: &Browser) -> String {
    browser.script(
        "const e = document.activeElement;
         return e.getAttribute('aria-label') ?? e.innerText.trim();",
    )
}

#[track_caller]
fn wait_for_focus_on(browser: &Browser, name: &str) {
    browser.wait(&format!("the focus on {name}"), || focused(browser) == name);
}

fn sign_up(app: &App, browser: &Browser) {
    let asks_code = SignUp::open(browser).asks_for_code();
    if asks_code {
        browser.wait_for_focus("input#setup_code");
        browser.type_keys(&app.setup_code);
        browser.press_key(Key::Tab);
    }
    browser.wait_for_focus("input#title");
    browser.type_keys(TITLE);
    browser.press_key(Key::Tab);
    browser.wait_for_focus("input#email");
    browser.type_keys(EMAIL);
    browser.press_key(Key::Tab);
    browser.wait_for_focus("input#password");
    browser.type_keys("too short");
    browser.press_enter();
    // What is wrong has the focus, and the rest is kept.
    browser.see("#password-error:not(:empty)");
    if asks_code {
        assert_eq!(browser.value("#setup_code"), "");
        browser.tab_to("#setup_code");
        browser.type_keys(&app.setup_code);
        browser.tab_to("#password");
    }
    browser.wait_for_focus("input#password");
    assert_eq!(browser.value("#email"), EMAIL);
    browser.type_keys(PASSWORD);
    browser.press_enter();
    Keys::see(browser);
}

fn add_domain(app: &App, browser: &Browser) {
    browser.goto("/api-keys");
    browser.enter(".nav a[href='/domains']");
    browser.see("form[action='/domains']");
    browser.tab_to("#name");
    browser.type_keys("ftp://acme.test");
    browser.press_enter();
    browser.see("#name-error:not(:empty)");
    browser.wait_for_focus("input#name");
    browser.press_key(Key::Home);
    for _ in 0.."ftp://".len() {
        browser.press_key(Key::Delete);
    }
    browser.press_enter();
    browser.see("h1 + .lead .badge");
    attest(&app.database, "acme.test");
    browser.enter(".nav a[href='/api-keys']");
    Keys::see(browser);
}

/// Creates a key for one domain; gives it.
fn create(app: &App, browser: &Browser, has_script: bool) -> String {
    browser.enter("#create-key");
    NewKey::see(browser);
    assert_eq!(browser.shows("dialog"), has_script);
    browser.wait_for_focus("input#key-name");
    browser.type_keys("Production");
    // The arrow keys choose between radio buttons.
    browser.tab_to("[name=scope][value=all]");
    browser.press_key(Key::Down);
    browser.wait_for_focus("input#key-scope-domains");
    browser.press_key(Key::Tab);
    browser.press_key(Key::Space);
    browser.enter("form[action='/api-keys'] button.primary");
    let shown = Reveal::see(browser);
    browser.wait_for_focus("input#new-key");
    let key = shown.key();
    if has_script {
        leave_and_come_back(browser);
        copy(browser, &key);
        browser.enter("#stored");
        browser.miss("dialog");
        browser.wait_for_focus("a#create-key");
    } else {
        assert!(!browser.shows("[data-copy]"), "a button that does nothing");
        browser.enter("#stored");
    }
    Keys::see(browser);
    let row = Keys::see(browser).rows().remove(0);
    assert_eq!((&*row.name, &*row.domain), ("Production", "acme.test"));
    assert!(!browser.html().contains(&key));
    assert_eq!(app.program(&key).email_from("hello@acme.test").status, 200);
    key
}

/// Esc asks before the key is gone.
fn leave_and_come_back(browser: &Browser) {
    browser.press_escape();
    browser.see("#leave-dialog");
    browser.wait_for_focus("button#leave-no");
    browser.press_enter();
    browser.miss("#leave-dialog");
    browser.wait_for_focus("input#new-key");
}

fn copy(browser: &Browser, key: &str) {
    browser.press_key(Key::Tab);
    wait_for_focus_on(browser, "Copy key");
    browser.press_enter();
    wait_for_focus_on(browser, "Copied");
    assert!(browser.paste_in_dialog() == key, "another text was copied");

    // One of the tabs is in the way of the Tab key, the arrows lead to the others.
    browser.tab_to("#snippet-env-tab");
    browser.press_key(Key::Right);
    browser.wait_for_focus("button#snippet-curl-tab");
    browser.press_key(Key::End);
    browser.wait_for_focus("button#snippet-wordpress-tab");
    browser.press_key(Key::Right);
    browser.wait_for_focus("button#snippet-env-tab");
    browser.press_key(Key::Tab);
    wait_for_focus_on(browser, "Copy .env");
    browser.press_enter();
    browser.wait("the line is copied", || {
        browser.paste_in_dialog() == format!("TOSEND_API_KEY={key}")
    });
    browser.tab_to("#snippet-env button");
}

fn pause_and_resume(app: &App, browser: &Browser, has_script: bool, key: &str) {
    let keys = Keys::open(browser);
    browser.enter("#key-1-more");
    browser.see(".menu:popover-open");
    browser.press_key(Key::Tab);
    assert_eq!(focused(browser), "Details");
    browser.press_key(Key::Escape);
    browser.miss(".menu:popover-open");
    browser.wait_for_focus("button#key-1-more");
    browser.press_enter();
    browser.enter("#key-1-toggle");
    browser.see("form[action$='/pause']");
    wait_for_focus_on(browser, "Cancel");
    browser.press_enter();
    browser.miss("form[action$='/pause']");
    if has_script {
        browser.wait_for_focus("button#key-1-more");
    } else {
        Keys::open(browser);
        browser.tab_to("#key-1-more");
    }
    assert_eq!(app.program(key).verdict(), 200);
    browser.press_enter();
    browser.enter("#key-1-toggle");
    browser.see("form[action$='/pause']");
    browser.enter("form[action$='/pause'] button.danger");
    browser.miss("form[action$='/pause']");
    if has_script {
        browser.wait_for_focus("button#key-1-more");
    } else {
        browser.see(".lead .badge.paused");
        Keys::open(browser);
        browser.tab_to("#key-1-more");
    }
    keys.wait_for_status("Production", "Paused");
    assert_eq!(app.program(key).verdict(), 403);
    browser.press_enter();
    browser.enter("#key-1-toggle");
    if has_script {
        keys.wait_for_status("Production", "Active");
        browser.wait_for_focus("button#key-1-more");
    } else {
        browser.see(".lead .badge.active");
    }
    assert_eq!(app.program(key).verdict(), 200);
}

fn delete(app: &App, browser: &Browser, has_script: bool, key: &str) {
    let uses = "SELECT count(*) FROM api_key_uses";
    until("the use is written", || app.database.number(uses) == 1);
    Keys::open(browser);
    browser.enter("#key-1-delete");
    DeleteKey::see(browser);
    wait_for_focus_on(browser, "Cancel");
    if has_script {
        browser.press_escape();
        browser.miss("dialog");
        browser.wait_for_focus("a#key-1-delete");
        browser.press_enter();
        DeleteKey::see(browser);
        wait_for_focus_on(browser, "Cancel");
    }
    browser.tab_to("form[action$='/delete'] button.danger");
    // A key that is in use is not deleted by pressing on.
    browser.press_enter();
    assert!(browser.shows("#typed-name"));
    assert_eq!(app.program(key).verdict(), 200);
    // The browser leads to the empty field.
    browser.wait_for_focus("input#typed-name");
    browser.type_keys("production");
    browser.press_enter();
    browser.see("#typed-name-error:not(:empty)");
    if has_script {
        browser.wait_for_focus("input#typed-name");
    }
    browser.fill("#typed-name", "Production");
    browser.press_enter();
    browser.miss("form[action$='/delete']");
    let keys = Keys::see(browser);
    browser.wait("the row goes", || keys.is_empty());
    if has_script {
        browser.wait_for_focus("h1#title");
        let said = "return document.getElementById('toast').textContent";
        let said: String = browser.script(said);
        assert_eq!(
            said,
            "The key “Production” was deleted. It no longer works."
        );
    } else {
        assert!(browser.text(".note").contains("was deleted"));
    }
    assert_eq!(app.program(key).verdict(), 403);
}
