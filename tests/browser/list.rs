//! The list of keys under people's hands, and how pages look to them.

use serde_json::json;

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

/// Three keys by the command line: Production for acme.test, Staging, and Laptop, which is paused.
fn furnish(app: &App) {
    let run = |noun: &str, verb: &str, rest: &[&str]| {
        let arguments = [&[noun, verb, "--account", EMAIL], rest].concat();
        cli(&app.database, &arguments, "").unwrap();
    };
    run("domain", "add", &["acme.test", "--verified"]);
    run(
        "key",
        "create",
        &["--name", "Production", "--domain", "acme.test"],
    );
    run("key", "create", &["--name", "Staging"]);
    run("key", "create", &["--name", "Laptop"]);
    run("key", "pause", &["3"]);
}

/// The path and query that the browser shows.
fn address(browser: &Browser) -> String {
    browser.script("return location.pathname + location.search")
}

#[track_caller]
fn wait_for_names(browser: &Browser, names: &[&str]) {
    let keys = Keys::see(browser);
    browser.wait(&format!("the list is {names:?}"), || keys.names() == names);
}

#[test]
fn the_list_follows_what_is_typed_and_chosen_and_its_address_too() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    furnish(&app);
    Keys::open(&browser);
    browser.script::<()>("window.isSamePage = true");

    // "/" leads to the search, where it is typed as any other letter is.
    browser.type_keys("/");
    browser.wait_for_focus("input#key-search");
    browser.type_keys("st");
    wait_for_names(&browser, &["Staging"]);
    browser.wait("the address follows", || {
        address(&browser) == "/api-keys?q=st"
    });
    assert_eq!(browser.focus(), "input#key-search");
    let said = "return document.getElementById('status').textContent";
    assert_eq!(browser.script::<String>(said), "1 key found");
    browser.type_keys("/c");
    browser.see("#key-results .empty");
    assert!(browser.text("#key-results").contains("No keys match."));
    assert!(!browser.shows("dialog"));
    assert_eq!(browser.value("#key-search"), "st/c");

    browser.fill("#key-search", "");
    wait_for_names(&browser, &["Laptop", "Staging", "Production"]);
    browser.click("#key-status option[value=paused]");
    wait_for_names(&browser, &["Laptop"]);
    browser.wait("the address follows", || {
        address(&browser) == "/api-keys?status=paused"
    });
    browser.click("#key-status option[value='']");
    browser.click("#key-domain option[value='1']");
    wait_for_names(&browser, &["Production"]);
    browser.click("#key-domain option[value='']");
    wait_for_names(&browser, &["Laptop", "Staging", "Production"]);

    // Sorted by a column, and the other way round; the focus stays on it.
    browser.tab_to("#sort-name");
    browser.press_enter();
    wait_for_names(&browser, &["Laptop", "Production", "Staging"]);
    browser.wait_for_focus("a#sort-name");
    assert_eq!(
        browser
            .attribute("th:has(#sort-name)", "aria-sort")
            .as_deref(),
        Some("ascending")
    );
    browser.press_enter();
    wait_for_names(&browser, &["Staging", "Production", "Laptop"]);
    assert_eq!(address(&browser), "/api-keys?sort=-name");
    assert!(browser.script::<bool>("return window.isSamePage === true"));

    // The address alone brings the same list, in the same order.
    browser.reload();
    wait_for_names(&browser, &["Staging", "Production", "Laptop"]);
    // Deleting keeps to it.
    let keys = Keys::see(&browser).delete("Production").confirm();
    browser.wait("the row goes", || keys.names() == ["Staging", "Laptop"]);
    assert_eq!(address(&browser), "/api-keys?sort=-name");
}

/// What was done is said; what was said of the state before goes.
#[test]
fn the_list_says_what_was_done_last() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    furnish(&app);
    // After some seconds it would go anyway.
    let lasting = "const later = window.setTimeout;
        window.setTimeout = (action, time, ...rest) => time === 8000 ? 0 : later(action, time, ...rest);";
    browser.devtools(
        "Page.addScriptToEvaluateOnNewDocument",
        json!({"source": lasting}),
    );
    let keys = Keys::open(&browser);
    let wait_for_toast = |wanted: &str| {
        browser.wait(&format!("“{wanted}” is said"), || {
            let region = "return document.getElementById('toast').textContent";
            browser.script::<String>(region) == wanted
        });
    };
    keys.pause("Production");
    wait_for_toast("The key “Production” is paused.");
    browser.press("Hide these steps");
    wait_for_toast("");
    keys.resume("Production");
    wait_for_toast("The key “Production” is resumed.");
}

#[test]
fn a_domains_page_changes_by_itself_when_the_domain_is_verified() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    let domain = Domains::open(&browser).add("acme.test");
    let said = "return document.getElementById('status').textContent";
    // Where nothing has the focus, nothing gets it.
    for focused in ["body", "button#check-now"] {
        assert_eq!(domain.status(), "Pending");
        browser.script::<()>(&format!(
            "document.querySelector('{focused}').focus();
             document.addEventListener('htmx:afterSettle', () => (window.settled = true))"
        ));
        attest(&app.database, "acme.test");
        browser.wait("the page says so", || domain.status() == "Verified");
        browser.wait("it is read aloud", || {
            browser.script::<String>(said) == "acme.test is verified."
        });
        browser.wait("it is still the same page", || {
            browser.script("return window.settled === true")
        });
        browser.wait_for_focus(focused);
        let unattest = ["domain", "unattest", "--account", EMAIL, "acme.test"];
        cli(&app.database, &unattest, "").unwrap();
        browser.reload();
    }
}

#[test]
fn a_pasted_key_stands_in_the_search_as_it_is_shown() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let keys = sign_up(&browser);
    let key = keys.create_and_store("Shop");
    Keys::see(&browser).create_and_store("Other");
    browser.fill("#key-search", &key);
    wait_for_names(&browser, &["Shop"]);
    assert!(!browser.html().contains(&key));
    assert!(!address(&browser).contains(&key[10..40]));
}

#[test]
fn shortcuts_work_until_they_are_switched_off() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    furnish(&app);
    Keys::open(&browser);
    browser.type_keys("c");
    NewKey::see(&browser);
    // In the dialog it is a letter.
    browser.type_keys("c");
    assert_eq!(browser.value("#key-name"), "c");
    browser.press_escape();
    browser.miss("dialog");

    browser.goto("/settings");
    browser.click("[name=shortcuts][value=off]");
    browser.press("Save");
    browser.see("[name=shortcuts][value=off]:checked");
    Keys::open(&browser);
    browser.type_keys("/");
    browser.type_keys("c");
    assert_ne!(browser.focus(), "input#key-search");
    assert!(!browser.shows("dialog"));
}

#[test]
fn the_theme_changes_at_once_and_stays() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    let features = json!([{"name": "prefers-color-scheme", "value": "light"}]);
    browser.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
    let ground =
        || browser.script::<String>("return getComputedStyle(document.body).backgroundColor");
    let light = ground();
    browser.script::<()>("window.isSamePage = true");
    browser.click("#account-button");
    browser.press("Dark");
    browser.wait("the page is dark", || ground() != light);
    assert!(browser.script::<bool>("return window.isSamePage === true"));
    assert_eq!(
        browser
            .attribute(".segment[value=dark]", "aria-pressed")
            .as_deref(),
        Some("true")
    );
    let dark = ground();
    // From the server's first byte on.
    browser.wait("the server knows", || {
        browser.reload();
        browser.attribute("html", "data-theme").as_deref() == Some("dark")
    });
    assert_eq!(ground(), dark);
    browser.goto("/settings");
    browser.click("[name=theme][value=light]");
    browser.press("Save");
    browser.see("[name=theme][value=light]:checked");
    assert_eq!(ground(), light);
}

#[test]
fn best_practices_can_be_put_away() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    browser.press("Hide these steps");
    browser.miss("#start");
    browser.reload();
    browser.press("Hide best practices");
    browser.miss("#tips");
    browser.wait("the server knows", || {
        browser.reload();
        !browser.shows("#tips")
    });
}

#[test]
fn times_are_told_in_the_language_and_zone_of_the_visitor() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser).create_and_store("Shop");
    app.database
        .execute("UPDATE api_keys SET created_at = '2026-01-15 20:30:00.000000'");
    browser.devtools(
        "Emulation.setTimezoneOverride",
        json!({"timezoneId": "Asia/Tokyo"}),
    );
    browser.goto("/api-keys/1");
    // "Jan 16, 2026, 5:30 AM", with the space that the browser thinks right.
    let created = browser.text(".facts time[datetime='2026-01-15T20:30:00Z']");
    assert!(created.starts_with("Jan 16, 2026, 5:30"), "{created}");

    let plain = Browser::without_javascript(&app);
    plain.goto("/login");
    SignIn::see(&plain).submit();
    plain.goto("/api-keys/1");
    let created = plain.text(".facts time[datetime='2026-01-15T20:30:00Z']");
    assert_eq!(created, "15 Jan 2026, 20:30 UTC");
}

#[test]
fn a_leaked_key_is_found_and_ended_without_leaving_the_list() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let key = sign_up(&browser).create_and_store("Shop");
    let other = Keys::see(&browser).create_and_store("Other");
    browser.script::<()>("window.isSamePage = true");
    browser.press("Find a key");
    browser.fill("#pasted", &format!("{key} {other}"));
    browser.press("Find");
    browser.see("dialog[open] #found");
    assert!(!browser.html().contains(&key));
    browser.click("#found-1-delete");
    browser.see("#alert-dialog[open]");
    browser.press("Delete key");
    browser.miss("#alert-dialog[open]");
    // What was done takes the place of the buttons, and the other key is still there to be ended.
    browser.wait("it says that the key is gone", || {
        browser
            .text("#found")
            .contains("The key “Shop” was deleted.")
    });
    assert!(browser.shows("#found-2-delete") && !browser.shows("#found-1-delete"));
    assert_eq!(app.program(&key).verdict(), 403);
    assert_eq!(app.program(&other).verdict(), 200);
    browser.press("Close");
    browser.miss("dialog[open]");
    assert_eq!(Keys::see(&browser).names(), ["Other"]);
    assert!(browser.script::<bool>("return window.isSamePage === true"));
}

#[test]
fn a_chart_is_read_by_keyboard_and_switched() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser).create_and_store("Shop");
    app.database.execute(
        "INSERT INTO api_key_calls VALUES
           (1, strftime('%F %H:00:00', 'now'), 'accepted', 1234),
           (1, strftime('%F %H:00:00', 'now'), 'paused', 5),
           (1, strftime('%F %H:00:00', 'now', '-500 hours'), 'accepted', 9)",
    );
    browser.goto("/api-keys/1");
    browser.tab_to(".chart.of-24h .plot");
    browser.press_key(thirtyfour::Key::Left);
    let told = || browser.text(".chart.of-24h [data-readout]");
    browser.wait("the last hour is told", || {
        told().contains("1,234 accepted, 5 refused")
    });
    assert!(!told().contains("UTC"), "in local time: {}", told());
    browser.press_key(thirtyfour::Key::Left);
    browser.wait("the hour before it is told", || {
        told().contains(": 0 accepted, 0 refused")
    });
    browser.press_escape();
    browser.wait("nothing is pointed at", || {
        told().contains("use the arrow keys")
    });
    assert!(!browser.shows(".chart.of-30d"));
    browser.click("label:has(#calls-30d)");
    browser.see(".chart.of-30d");
    assert!(
        browser
            .text(".chart.of-30d figcaption")
            .contains("1,243 accepted")
    );
    assert!(!browser.shows(".chart.of-24h"));
}
