//! Every screen at every width, light and dark: nothing may stick out, be too small to hit or move
//! while it loads, and axe finds nothing. Pictures are left in `target/screenshots` for people to
//! look at.

use serde_json::json;

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

const DESKTOP: u32 = 1280;
const PHONE: u32 = 360;
const PICTURED: [u32; 3] = [DESKTOP, 768, PHONE];
/// A phone's smallest, or 1280 pixels at 400 %.
const SMALLEST: u32 = 320;

const LONG_NAME: &str = "A name with sixty-four characters, which is as long as one gets.";
const LONG_DOMAIN: &str = "a-rather-long-subdomain.of-a-rather-long-name.acme.test";

/// What would have to be scrolled sideways: the page, a dialog, a table.
const STICKING_OUT: &str = "
    const page = document.documentElement;
    const boxes = [page, ...document.querySelectorAll('dialog[open], .table-region')];
    return boxes.filter(b => b.scrollWidth > b.clientWidth).map(b => b.localName + ' ' + b.scrollWidth)";

/// Buttons and links with less than 24 pixels to hit, other than links within a sentence.
const TOO_SMALL: &str = "
    const targets = document.querySelectorAll('button, .button, .nav a, input:not([type=hidden]), select');
    return [...targets].filter(t => t.checkVisibility()).map(t => [t, t.getBoundingClientRect()])
      .filter(([t, r]) => r.width < 24 || r.height < 24).map(([t]) => t.outerHTML)";

/// What has moved since the page began to load, but for what a person moved.
const SHIFTS: &str = "
    const frame = () => new Promise(requestAnimationFrame);
    const tell = ({value, sources}) =>
      `${value}: ${sources.map(({node}) => node?.outerHTML ?? 'what is gone').join(' ')}`;
    return (async () => {
      await document.fonts.ready;
      await frame();
      await frame();
      const observer = new PerformanceObserver(() => {});
      observer.observe({type: 'layout-shift', buffered: true});
      const shifts = observer.takeRecords().filter(shift => !shift.hadRecentInput);
      observer.disconnect();
      return shifts.map(tell);
    })();";

/// Opens a page, where nothing may move, and looks at it.
#[track_caller]
fn visit(browser: &Browser, path: &str, screen: &str) {
    for width in [DESKTOP, PHONE] {
        resize(browser, width, 800);
        browser.goto(path);
        assert_still(browser, &format!("{screen} at {width} pixels"));
    }
    look(browser, screen);
}

#[track_caller]
fn assert_still(browser: &Browser, what: &str) {
    let shifts = shifts(browser);
    assert!(shifts.is_empty(), "{what} moves:\n{}", shifts.join("\n"));
}

#[track_caller]
fn shifts(browser: &Browser) -> Vec<String> {
    browser.script(SHIFTS)
}

/// Looks at what the browser shows: a page, or a dialog over it.
#[track_caller]
fn look(browser: &Browser, screen: &str) {
    for width in PICTURED {
        spread(browser, width);
        for theme in ["light", "dark"] {
            // Without motion: half-way, colours are neither of the two themes.
            let features = json!([
                {"name": "prefers-color-scheme", "value": theme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ]);
            browser.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
            browser.shoot(&format!("{screen}-{width}-{theme}"));
            browser.assert_accessible(&format!("{screen} at {width} pixels, {theme}"));
        }
        assert_fits(browser, screen, width);
    }
    // The colours are those of the width before.
    spread(browser, SMALLEST);
    assert_fits(browser, screen, SMALLEST);
    browser.assert_accessible(&format!("{screen} at {SMALLEST} pixels"));
}

#[track_caller]
fn assert_fits(browser: &Browser, screen: &str, width: u32) {
    let what = format!("{screen} at {width} pixels");
    let sticking_out: Vec<String> = browser.script(STICKING_OUT);
    assert_eq!(sticking_out, [""; 0], "{what}");
    let too_small: Vec<String> = browser.script(TOO_SMALL);
    assert_eq!(too_small, [""; 0], "{what}");
}

/// A window of this width that shows the whole page, and the whole dialog.
fn spread(browser: &Browser, width: u32) {
    resize(browser, width, 800);
    let height = browser.script(
        "const boxes = [document.documentElement, ...document.querySelectorAll('dialog[open]')];
         const margins = 64;
         return Math.max(...boxes.map(b => b.scrollHeight + (b.open ? margins : 0)))",
    );
    resize(browser, width, height);
    browser.script::<()>("scrollTo(0, 0)");
}

fn resize(browser: &Browser, width: u32, height: u32) {
    let is_phone = width < 400;
    let touch = json!({"enabled": is_phone, "maxTouchPoints": 1});
    browser.devtools("Emulation.setTouchEmulationEnabled", touch);
    let size = json!({
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone,
    });
    browser.devtools("Emulation.setDeviceMetricsOverride", size);
}

/// Two domains and keys of every kind: 1 was used and rotated, to 6; 2 is paused; 3 and 4 have the
/// longest names; 5 is for a domain that is not verified.
fn furnish(app: &App) {
    let run = |noun: &str, verb: &str, rest: &[&str]| {
        let arguments = [&[noun, verb, "--account", EMAIL], rest].concat();
        cli(&app.database, &arguments, "").unwrap();
    };
    run("domain", "add", &["acme.test", "--verified"]);
    run("domain", "add", &[LONG_DOMAIN]);
    run(
        "key",
        "create",
        &["--name", "Production server", "--domain", "acme.test"],
    );
    run("key", "create", &["--name", "Laptop"]);
    run("key", "create", &["--name", LONG_NAME]);
    run("key", "create", &["--name", &"W".repeat(64)]);
    run(
        "key",
        "create",
        &["--name", "Newsletter", "--domain", LONG_DOMAIN],
    );
    run("key", "pause", &["2"]);
    for (id, ago) in [(1, "-59 minutes"), (2, "-400 days")] {
        app.database.execute(&format!(
            "INSERT INTO api_key_uses VALUES ({id}, strftime('%F %R:%f', 'now', '{ago}'), '::1', '')"
        ));
    }
    for (hours, outcome, calls) in [
        (0, "accepted", 120),
        (1, "accepted", 80),
        (2, "recipient_not_allowed", 9),
        (7, "accepted", 300),
        (7, "paused", 40),
        (100, "accepted", 900),
        (500, "accepted", 1500),
    ] {
        app.database.execute(&format!(
            "INSERT INTO api_key_calls VALUES
             (1, strftime('%F %H:00:00', 'now', '-{hours} hours'), '{outcome}', {calls})"
        ));
    }
    run("key", "rotate", &["1", "--quiet", "24h"]);
}

/// Of the keys that `furnish` makes, the paused one and one with a long name.
fn delete_two(app: &App) {
    for id in ["2", "4"] {
        let arguments = ["key", "delete", "--account", EMAIL, id];
        cli(&app.database, &arguments, "").unwrap();
    }
}

/// In each state, from and to addresses as long as they may be.
fn emails(app: &App) {
    let long = format!("{}@{LONG_DOMAIN}", "w".repeat(64));
    let words = "550 5.1.1 The email account that you tried to reach does not exist. ".repeat(3);
    let refused = format!("[{{\"email\": \"{long}\", \"reply\": \"{words}\"}}]");
    for (status, ended_at, refused, reply) in [
        ("held", "NULL", "NULL".to_owned(), ""),
        (
            "deferred",
            "NULL",
            "NULL".to_owned(),
            "451 4.7.1 Greylisted",
        ),
        (
            "delivered",
            "created_at",
            format!("'{refused}'"),
            "250 Queued",
        ),
        ("failed", "created_at", "NULL".to_owned(), &*words),
    ] {
        app.database.execute(&format!(
            "INSERT INTO emails (account_id, api_key_id, message_id, status, created_at, internet_id,
                 next_attempt_at, sender, recipient, recipients)
             VALUES (1, 3, '', 'held', '2026-01-15 10:30:00', '', '2026-01-15 10:35:00',
                 'ada@acme.test', '{long}', 3);
             UPDATE emails SET status = '{status}', ended_at = {ended_at}, refused = {refused},
                 reply = '{reply}'
             WHERE id = (SELECT max(id) FROM emails)"
        ));
    }
}

#[test]
fn signing_up_and_domains() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    visit(&browser, "/signup", "sign-up");
    sign_up(&browser);
    visit(&browser, "/api-keys", "keys-empty");
    visit(&browser, "/api-keys?show=ended", "keys-ended-empty");
    visit(&browser, "/domains", "domains-empty");
    Domains::open(&browser).add("acme.test");
    visit(&browser, "/domains/1", "domain-pending");
    Domains::open(&browser).add(LONG_DOMAIN);
    attest(&app.database, "acme.test");
    Domains::open(&browser).add_wrong("http://acme.test/");
    look(&browser, "domains-error");
    visit(&browser, "/domains/1", "domain-verified");
    visit(&browser, "/domains/1/delete", "delete-domain");
    let keys = Keys::open(&browser);
    keys.create().name("Shop").domain("acme.test").submit();
    visit(&browser, "/domains/1/delete", "domain-in-use");
    assert_eq!(browser.complaints(), [""; 0]);
    Keys::open(&browser).sign_out();
    visit(&browser, "/login", "sign-in");
}

#[test]
fn the_list_and_its_dialogs() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    furnish(&app);
    visit(&browser, "/api-keys", "keys");
    let question = Keys::see(&browser).delete(&"W".repeat(64));
    look(&browser, "delete-key");
    question.cancel().create();
    look(&browser, "new-key");
    let form = NewKey::see(&browser).name(&"n".repeat(65)).submit_wrong();
    look(&browser, "new-key-error");
    form.name("Staging").domain("acme.test").submit();
    look(&browser, "new-key-shown");
    delete_two(&app);
    visit(&browser, "/api-keys?show=ended", "keys-ended");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn the_pages_that_change_a_key() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    furnish(&app);
    visit(&browser, "/api-keys/new", "new-key-page");
    NewKey::see(&browser).name("On a page").submit();
    look(&browser, "new-key-shown-page");
    visit(&browser, "/api-keys/1/delete", "delete-key-page");
    visit(&browser, "/api-keys/1/pause", "pause-key-page");
    visit(&browser, "/api-keys/6/rotate", "rotate-key");
    browser.goto("/api-keys/6/edit");
    browser.click(".more summary");
    look(&browser, "edit-key");
    browser.fill("#key-senders", "hello@acme.test");
    browser.fill("#key-recipients", "example.org");
    browser.press("Save");
    browser.see(".changes");
    look(&browser, "edit-key-confirm");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn the_pages_that_tell_of_a_key() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    furnish(&app);
    delete_two(&app);
    visit(&browser, "/api-keys/1", "key-replaced");
    visit(&browser, "/api-keys/6", "key-successor");
    visit(&browser, "/api-keys/4", "key-ended");
    visit(&browser, "/api-keys/find", "find-key");
    browser.fill("#pasted", "tsend_tooshort");
    browser.press("Find");
    browser.see("#pasted-error:not(:empty)");
    look(&browser, "find-key-error");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn activity_settings_and_errors() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    furnish(&app);
    visit(&browser, "/activity", "activity");
    visit(&browser, "/activity?who=nobody", "activity-no-match");
    visit(&browser, "/activity/emails", "emails-none");
    emails(&app);
    visit(&browser, "/activity/emails", "emails");
    visit(&browser, "/settings", "settings");
    assert_eq!(browser.complaints(), [""; 0]);
    visit(&browser, "/nothing", "not-found");
}

/// The alarm works.
#[test]
fn what_moves_is_noticed() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    browser.goto("/signup");
    assert_still(&browser, "a page as it is");
    browser.script::<()>(
        "const late = document.createElement('p');
         late.textContent = 'Late';
         document.body.prepend(late);",
    );
    assert_ne!(shifts(&browser), [""; 0]);
}
