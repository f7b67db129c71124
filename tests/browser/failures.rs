//! What people are told when the network, the database or their session goes away, and that nothing is
//! made twice over it.

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

fn keys(app: &App) -> i64 {
    app.database.number("SELECT count(*) FROM api_keys")
}

#[test]
fn a_cut_while_a_key_is_created_is_told_and_a_retry_makes_no_second_one() {
    let app = App::start(Backend::Sqlite, |_| {});
    let network = Proxy::to(&app.address.to_string());
    let browser = Browser::through(&network);
    sign_up(&browser).create().name("Shop");
    // In the middle of the answer that shows the key.
    network.cut_after(3_000);
    browser.press("Create");
    browser.see("dialog .dialog-alert");
    assert_eq!(network.cuts(), 1);
    assert_eq!(
        browser.text("dialog .dialog-alert"),
        "The connection was lost. The key may or may not have been created. Press Create again: this \
         never creates a second key."
    );
    assert_eq!(browser.value("#key-name"), "Shop");
    assert_eq!(keys(&app), 1);

    browser.press("Create");
    browser.wait("what became of it is told", || {
        browser.text("#dialog-title") == "This key has already been created"
    });
    assert!(
        browser
            .text("dialog")
            .contains("delete it and create another")
    );
    assert_eq!(keys(&app), 1);
    browser.forgive(&["ERR_", "htmx:"]);
}

#[test]
fn without_a_network_the_form_waits_and_then_makes_one_key() {
    let app = App::start(Backend::Sqlite, |_| {});
    let network = Proxy::to(&app.address.to_string());
    let browser = Browser::through(&network);
    let form = sign_up(&browser).create().name("Shop");
    network.refuse();
    browser.press("Create");
    browser.see("dialog .dialog-alert");
    assert_eq!(keys(&app), 0);
    network.restore();
    let shown = form.submit();
    assert!(!browser.shows(".dialog-alert"));
    assert_eq!(app.program(&shown.key()).verify().status, 200);
    let list = shown.stored();
    assert_eq!(list.names(), ["Shop"]);

    // What is only asked for can be asked for again.
    network.refuse();
    browser.press("Create API Key");
    browser.wait("it is told", || {
        browser
            .text("#alert")
            .contains("The server cannot be reached")
    });
    network.restore();
    list.create();
    assert!(!browser.shows("#alert"));
    browser.forgive(&["ERR_", "htmx:"]);
}

#[test]
fn while_the_database_is_locked_nothing_is_lost_but_time() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let form = sign_up(&browser).create().name("Shop");
    let lock = app.database.lock("api_keys");
    browser.press("Create");
    browser.see("dialog .dialog-alert");
    assert!(
        browser
            .text("dialog .dialog-alert")
            .contains("Try again in a few seconds")
    );
    assert_eq!(browser.value("#key-name"), "Shop");
    drop(lock);
    let shown = form.submit();
    assert_eq!(app.program(&shown.key()).verify().status, 200);
    assert_eq!(keys(&app), 1);
    browser.forgive(&["status of 503", "Status Error Code 503"]);
}

#[test]
fn a_session_that_ends_while_a_key_is_created_costs_the_form_and_nothing_else() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let keys_before = sign_up(&browser);
    keys_before.create_and_store("Before");
    Keys::open(&browser).create().name("During");
    app.database.execute("DELETE FROM sessions");
    browser.press("Create");
    let sign_in = SignIn::see(&browser);
    assert!(browser.text("form").contains("nothing was changed"));
    assert!(!browser.shows("dialog"));
    let list = sign_in.submit();
    assert_eq!(browser.path(), "/api-keys");
    assert_eq!(list.names(), ["Before"]);
    list.create_and_store("After");
    assert_eq!(keys(&app), 2);
}
