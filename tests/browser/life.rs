//! Pausing, editing, replacing and finding a key, by keyboard alone and without JavaScript.

use thirtyfour::Key;

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

/// An owner with two verified domains and a key, whose page is open.
fn key_page(app: &App, browser: &Browser) -> String {
    let keys = sign_up(browser);
    let key = keys.create_and_store("Shop");
    for name in ["acme.test", "shop.test"] {
        Domains::open(browser).add(name);
        attest(&app.database, name);
    }
    browser.goto("/api-keys/1");
    browser.see("h1#title");
    key
}

fn from(app: &App, key: &str, domain: &str) -> u16 {
    let program = app.program(key);
    program.email_from(&format!("hello@{domain}")).status
}

#[test]
fn a_key_is_paused_edited_rotated_and_found_by_keyboard() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let key = key_page(&app, &browser);

    // Paused in a dialog that begins at Cancel, and resumed.
    browser.tab_to("#pause");
    browser.press_enter();
    browser.see("dialog[open] #dialog-title");
    browser.wait("Cancel has the focus", || {
        browser.script::<String>("return document.activeElement.innerText") == "Cancel"
    });
    browser.press_key(Key::Escape);
    browser.miss("dialog[open]");
    browser.wait_for_focus("a#pause");
    browser.press_enter();
    browser.see("dialog[open] #dialog-title");
    browser.tab_to("dialog[open] button.danger");
    browser.press_enter();
    browser.see(".lead .badge.paused");
    let lead = browser.text(".lead").replace('\n', " ");
    assert!(lead.contains("Paused by ada@acme.test"), "{lead}");
    assert_eq!(app.program(&key).verdict(), 403);
    browser.tab_to("#resume");
    browser.press_enter();
    browser.see(".lead .badge.active");
    assert_eq!(app.program(&key).verdict(), 200);

    // Restricted to one domain: to tick it is to choose "Only these".
    browser.tab_to("#edit");
    browser.press_enter();
    browser.wait_for_focus("input#key-name");
    browser.tab_to("[name=domain][value='1']");
    browser.press_key(Key::Space);
    let scope = "return document.querySelector('[name=scope]:checked').value";
    assert_eq!(browser.script::<String>(scope), "domains");
    browser.press_enter();
    browser.see(".changes");
    assert!(
        browser
            .text(".changes")
            .contains("It can send from acme.test only.")
    );
    assert_eq!(from(&app, &key, "shop.test"), 200);
    // A stray Enter confirms nothing, and whoever goes back finds what was entered.
    browser.wait_for_focus("h2#dialog-title");
    browser.press_enter();
    browser.tab_to("button[name=back]");
    browser.press_enter();
    browser.see("#key-name");
    assert_eq!(browser.script::<String>(scope), "domains");
    browser.tab_to("dialog[open] form button.primary");
    browser.press_enter();
    browser.see(".changes");
    browser.tab_to("dialog[open] form button.primary");
    browser.press_enter();
    browser.wait("it says that the changes are saved", || {
        browser.shows(".note") && browser.text(".note").contains("The changes are saved.")
    });
    assert_eq!(from(&app, &key, "acme.test"), 200);
    assert_eq!(from(&app, &key, "shop.test"), 422);

    // Replaced.
    browser.tab_to("#rotate");
    browser.press_enter();
    browser.see("[name=overlap]:checked");
    browser.tab_to("[name=overlap]:checked");
    browser.press_key(Key::Down);
    let overlap = "return document.querySelector('[name=overlap]:checked').value";
    assert_eq!(browser.script::<String>(overlap), "7d");
    browser.tab_to("dialog[open] form button.primary");
    browser.press_enter();
    let shown = Reveal::see(&browser);
    browser.wait_for_focus("input#new-key");
    let new = shown.key();
    assert_eq!(from(&app, &key, "acme.test"), 200);
    assert_eq!(from(&app, &new, "acme.test"), 200);
    shown.stored();

    // Found by what somebody pasted, and stopped.
    browser.tab_to("#find-key");
    browser.press_enter();
    browser.wait_for_focus("textarea#pasted");
    browser.type_keys(&format!("TOSEND_API_KEY={new}"));
    browser.tab_to("dialog[open] form button.primary");
    browser.press_enter();
    browser.see("#found");
    assert!(!browser.html().contains(&new));
    browser.tab_to("#found a[href='/api-keys/2']");
    browser.press_enter();
    browser.see(".rotation");
    assert!(browser.text(".rotation").contains("It stops in 7 days"));
    browser.tab_to("#stop-old, #stop");
    browser.press_enter();
    browser.see("dialog[open] #dialog-title");
    assert_eq!(app.program(&key).verdict(), 200);
    browser.tab_to("dialog[open] button.danger");
    browser.press_enter();
    browser.see(".note[role=status]");
    assert_eq!(
        (app.program(&key).verdict(), app.program(&new).verdict()),
        (403, 200)
    );
}

#[test]
fn a_key_is_edited_rotated_and_found_without_javascript() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::without_javascript(&app);
    let key = key_page(&app, &browser);

    // Ticked domains beside "All domains" are no choice: nothing is widened by a slip.
    browser.press("Edit");
    browser.see("#key-name");
    browser.click("[name=domain][value='1']");
    browser.press("Save");
    browser.see("#key-scope-error:not(:empty)");
    browser.click("#key-scope-domains");
    browser.press("Save");
    browser.see(".changes");
    browser.press("Save these changes");
    browser.see("h1#title");
    assert_eq!(from(&app, &key, "shop.test"), 422);

    browser.press("Pause");
    browser.see("form[action$='/pause']");
    browser.press("Pause key");
    browser.see(".lead .badge.paused");
    assert_eq!(app.program(&key).verdict(), 403);
    browser.press("Resume");
    browser.see(".lead .badge.active");

    browser.press("Rotate");
    browser.see("[name=overlap]");
    browser.press("Create the new key");
    let new = Reveal::see(&browser).key();
    assert_eq!(from(&app, &new, "acme.test"), 200);
    // Sending the form again by reloading makes no third key.
    browser.reload();
    browser.wait("the page says that it was rotated", || {
        browser.text("h1") == "This key has already been rotated"
    });
    assert!(!browser.html().contains(&new));

    browser.goto("/api-keys/find");
    browser.fill("#pasted", &key);
    browser.press("Find");
    browser.see("#found");
    browser.click("#found a.danger");
    browser.see("form[action$='/delete']");
    browser.fill("#typed-name", "Shop");
    browser.press("Delete key");
    Keys::see(&browser);
    assert_eq!(
        (app.program(&key).verdict(), app.program(&new).verdict()),
        (403, 200)
    );
}

#[test]
fn a_double_click_on_rotate_shows_the_one_key_that_it_makes() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let old = key_page(&app, &browser);
    browser.press("Rotate");
    browser.see("[name=overlap]");
    browser.double_press("Create the new key");
    let new = Reveal::see(&browser).key();
    assert_eq!(
        (app.program(&old).verdict(), app.program(&new).verdict()),
        (200, 200)
    );
    assert_eq!(app.database.number("SELECT count(*) FROM api_keys"), 2);
    // Back, the form can be sent again, and says that it was.
    browser.back();
    browser.see("[name=overlap], h1");
    assert!(!browser.html().contains(&new));
}
