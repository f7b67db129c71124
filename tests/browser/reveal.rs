//! A key that is shown once: hard to lose by accident, and nowhere afterwards.

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

#[test]
fn esc_and_the_backdrop_ask_before_the_key_is_gone() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let shown = sign_up(&browser).create().name("Shop").submit();
    let key = shown.key();
    let is_shown = || browser.shows("dialog#dialog:modal") && shown.key() == key;

    browser.press_escape();
    browser.see("#leave-dialog");
    assert!(
        browser
            .text("#leave-text")
            .contains("cannot be shown again")
    );
    // Esc again closes the question only, and so does its first button.
    browser.press_escape();
    browser.miss("#leave-dialog");
    assert!(is_shown());
    browser.click_corner();
    browser.see("#leave-dialog");
    browser.press("Back to the key");
    browser.miss("#leave-dialog");
    assert!(is_shown());

    browser.press_escape();
    browser.see("#leave-dialog");
    browser.press("Close anyway");
    browser.miss("dialog");
    assert!(!browser.html().contains(&key));
    browser.wait_for_focus("a#create-key");
    assert_eq!(Keys::see(&browser).names(), ["Shop"]);
}

/// Chromium lets no page keep a dialog open by its own means when nobody has touched the page.
#[test]
fn esc_asks_although_nobody_has_touched_the_page() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    browser.goto("/api-keys");
    let by_script = |script: &str| browser.script::<()>(script);
    by_script("document.getElementById('create-key').click()");
    browser.see("#key-name");
    by_script(
        "document.getElementById('key-name').value = 'Shop';
         document.querySelector('dialog [type=submit]').click();",
    );
    let key = Reveal::see(&browser).key();
    let was_touched = "return navigator.userActivation.hasBeenActive";
    assert!(!browser.script::<bool>(was_touched));
    for _ in 0..3 {
        browser.press_escape();
        browser.see("#leave-dialog");
        browser.press_escape();
        browser.miss("#leave-dialog");
        assert!(Reveal::see(&browser).key() == key);
    }
}

#[test]
fn leaving_the_page_asks_while_a_key_is_shown() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let asks = || {
        browser.script::<bool>(
            "const leaving = new Event('beforeunload', {cancelable: true});
             window.dispatchEvent(leaving);
             return leaving.defaultPrevented;",
        )
    };
    let keys = sign_up(&browser);
    assert!(!asks());
    let form = keys.create().name("Shop");
    assert!(!asks());
    let shown = form.submit();
    assert!(asks());
    shown.stored();
    assert!(!asks());

    // The page without a dialog asks too, until it is left by its own button.
    browser.goto("/api-keys/new");
    let shown = NewKey::see(&browser).name("On a page").submit();
    assert!(asks());
    shown.stored();
    assert!(!asks());
}

#[test]
fn a_key_is_never_printed() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let keys = sign_up(&browser);
    let in_dialog = keys.create().name("Shop").submit();
    let key = in_dialog.key();
    let printed = browser.print();
    assert!(!printed.contains(&key[..20]), "{printed}");
    assert!(printed.contains("never printed"), "{printed}");
    in_dialog.stored();

    browser.goto("/api-keys/new");
    let on_page = NewKey::see(&browser).name("On a page").submit();
    let key = on_page.key();
    let printed = browser.print();
    assert!(!printed.contains(&key[..20]), "{printed}");
    assert!(printed.contains("never printed"), "{printed}");
    // The alarm works: without the rule, it is.
    browser.script::<()>("document.querySelector('[data-reveal]').style.display = 'block'");
    assert!(browser.print().contains(&key));

    // Of the list, what it says and not what it offers.
    on_page.stored();
    let printed = browser.print();
    assert!(
        printed.contains("On a page") && printed.contains("Shop"),
        "{printed}"
    );
    for chrome in ["Settings", "Create API Key", "Best practices", "Any status"] {
        assert!(!printed.contains(chrome), "{chrome}: {printed}");
    }
}

/// What keeps keys out of the browser's storage is how htmx is set up.
#[test]
fn htmx_as_it_comes_would_store_the_key() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let key = sign_up(&browser).create().name("Shop").submit().key();
    let go_on = "return (async () => {
        await htmx.ajax('GET', '/api-keys', {target: '#key-list', select: '#key-list', push: '/api-keys?page=1'});
        return JSON.stringify({...sessionStorage, ...localStorage});
    })()";
    let pushing = |browser: &Browser| {
        browser.script::<()>(
            "document.addEventListener('htmx:configRequest', ({detail}) => {
               detail.elt.setAttribute('hx-push-url', 'true');
             })",
        );
        browser.script::<String>(go_on)
    };
    assert!(!pushing(&browser).contains(&key));
    browser.script::<()>("htmx.config.historyCacheSize = 10");
    assert!(pushing(&browser).contains(&key));
}

#[test]
fn the_row_of_a_new_key_tells_its_first_use_by_itself() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let shown = sign_up(&browser).create().name("Shop").submit();
    let key = shown.key();
    shown.stored();
    browser.script::<()>("window.isSamePage = true");
    assert_eq!(browser.text("#key-1-use"), "Waiting for first use");
    assert_eq!(app.program(&key).verify().status, 200);
    browser.wait("the use is shown", || {
        browser.text("#key-1-use").to_lowercase() == "just now"
    });
    assert!(browser.script::<bool>("return window.isSamePage === true"));
    let said = "return document.getElementById('status').textContent";
    assert_eq!(
        browser.script::<String>(said),
        "The key “Shop” was used for the first time."
    );
    assert_eq!(browser.attribute("#key-1-use", "data-awaits-use"), None);
}

#[test]
fn a_new_key_tells_of_its_first_request_while_it_is_shown() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    Domains::open(&browser).add("acme.test");
    attest(&app.database, "acme.test");
    let shown = Keys::open(&browser).create().name("Shop").submit();
    let program = app.program(&shown.key());
    let said = || browser.text("#first-request");
    assert!(said().contains("Waiting for the first request"));
    assert_eq!(program.post(&serde_json::json!({})).status, 422);
    browser.wait("it says why it was refused", || said().contains("Refused."));
    assert!(said().contains("“from”"), "{}", said());
    browser.assert_accessible("a refused first request");
    assert_eq!(program.email_from("hello@acme.test").status, 200);
    browser.wait("it says that it was accepted", || said().contains("✓ 200."));
    // The key is still there, and the dialog still asks before it closes.
    assert!(!shown.key().is_empty());
    browser.press_escape();
    browser.see("#leave-dialog[open]");
}

/// 25 rows that wait ask one question together, less and less often.
#[test]
fn a_list_of_new_keys_asks_one_question_with_growing_pauses() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    for n in 0..25 {
        let name = format!("Key {n}");
        let create = ["key", "create", "--account", EMAIL, "--name", &name];
        cli(&app.database, &create, "").unwrap();
    }
    // A clock that runs a hundred times as fast, and notes how long the page wanted to wait.
    let fast = "const later = window.setTimeout;
        window.pauses = [];
        window.setTimeout = (action, time, ...rest) => {
          if (action.name === 'askUses') window.pauses.push(Math.round(time));
          return later(action, time / 100, ...rest);
        };";
    browser.devtools(
        "Page.addScriptToEvaluateOnNewDocument",
        serde_json::json!({"source": fast}),
    );
    Keys::open(&browser);
    let pauses = || browser.script::<Vec<i64>>("return window.pauses");
    browser.wait("it has asked often", || pauses().len() >= 11);
    let asked: Vec<String> = browser.script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)
           .filter(name => name.includes('first-uses'))",
    );
    let waited = pauses();
    assert!(asked.len() <= waited.len(), "{asked:?} {waited:?}");
    assert!(asked.iter().all(|url| url.matches(',').count() == 24));
    assert_eq!(waited[0], 3_000);
    assert!(waited.is_sorted() && waited[2] > 6_000, "{waited:?}");
    assert_eq!(waited[10], 60_000);
}
