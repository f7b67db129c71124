//! The form for a new key, when people mistype or click twice.

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

#[test]
fn a_wrong_name_is_told_beside_its_field_and_the_same_form_then_succeeds() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let long = "n".repeat(65);
    let form = sign_up(&browser).create().name(&long).submit_wrong();
    assert!(browser.shows("dialog:modal"));
    assert_eq!(
        browser.text("#key-name-error"),
        "Use at most 64 characters."
    );
    assert_eq!(browser.value("#key-name"), long);
    assert_eq!(
        browser.attribute("#key-name", "aria-invalid").as_deref(),
        Some("true")
    );
    browser.wait_for_focus("input#key-name");

    let shown = form.name("Staging").submit();
    let key = shown.key();
    assert_eq!(shown.stored().names(), ["Staging"]);
    assert_eq!(app.program(&key).info().status, 200);
}

#[test]
fn three_fast_clicks_on_create_make_one_key() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser).create().name("Impatient");
    browser.triple_press("Create");
    let shown = Reveal::see(&browser);
    let key = shown.key();
    assert_eq!(shown.stored().names(), ["Impatient"]);
    assert_eq!(app.program(&key).info().status, 200);
    assert_eq!(app.database.number("SELECT COUNT(*) FROM api_keys"), 1);
}

#[test]
fn esc_and_cancel_close_the_form_and_nothing_is_made() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let keys = sign_up(&browser);
    keys.create().name("Never");
    browser.press_escape();
    browser.miss("dialog");
    browser.wait_for_focus("a#create-key");

    Keys::see(&browser).create().name("Never");
    browser.press("Cancel");
    browser.miss("dialog");
    browser.wait_for_focus("a#create-key");
    assert_eq!(app.database.number("SELECT COUNT(*) FROM api_keys"), 0);
}
