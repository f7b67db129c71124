//! Every screen at every width, light and dark: nothing may stick out, be too small to hit or move
//! while it loads, and axe finds nothing. Pictures are left in `target/screenshots` for people to
//! look at. Unless `tests/run --whole` asks for all, axe looks and pictures are taken at two widths,
//! one of them light and one dark.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

const DESKTOP: u32 = 1280;
const PHONE: u32 = 360;
const TABLET: u32 = 768;
/// The widest that is promised.
const WIDEST: u32 = 2560;
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
    const rect = ({x, y, width, height}) => [x, y, width, height].join(' ');
    const tell = ({value, sources}) =>
      `${value}: ${sources.map(source => `${rect(source.previousRect)} to ${rect(source.currentRect)} ${source.node?.outerHTML ?? 'what is gone'}`).join(' ')}`;
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
        // A first page may be drawn before the browser knows its new size.
        browser.goto("/login");
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
    let both = &["light", "dark"][..];
    let pictured = match is_whole_run() {
        true => [(DESKTOP, both), (TABLET, both), (PHONE, both)],
        false => [
            (DESKTOP, &both[..1]),
            (TABLET, &both[..0]),
            (PHONE, &both[1..]),
        ],
    };
    for (width, themes) in pictured {
        spread(browser, width);
        for theme in themes {
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
    for width in [WIDEST, SMALLEST] {
        spread(browser, width);
        assert_fits(browser, screen, width);
        if is_whole_run() {
            browser.assert_accessible(&format!("{screen} at {width} pixels"));
        }
    }
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
fn emails(app: &App, domain: &str) {
    let long = format!("{}@{domain}", "w".repeat(64));
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
            "INSERT INTO emails (account_id, api_key_id, message_id, message, status, created_at,
                 internet_id, next_attempt_at, sender, recipient, recipients)
             VALUES (1, 3, '', '{{}}', 'held', '2026-01-15 10:30:00', '', '2026-01-15 10:35:00',
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
    visit(&browser, "/docs/api", "docs-visitor");
    SignUp::open(&browser).submit_wrong();
    look(&browser, "sign-up-error");
    sign_up(&browser);
    visit(&browser, "/api-keys", "keys-empty");
    browser.press("Hide these steps");
    browser.miss("#start");
    visit(&browser, "/api-keys", "keys-empty-tips");
    visit(&browser, "/api-keys?show=ended", "keys-ended-empty");
    visit(&browser, "/domains", "domains-empty");
    Domains::open(&browser).add("acme.test");
    visit(&browser, "/domains/1", "domain-pending");
    visit(&browser, "/api-keys?start=1", "start-domain");
    Domains::open(&browser).add(LONG_DOMAIN);
    attest(&app.database, "acme.test");
    Domains::open(&browser).add_wrong("http://acme.test/");
    look(&browser, "domains-error");
    visit(&browser, "/domains/1", "domain-verified");
    visit(&browser, "/domains/1/delete", "delete-domain");
    visit(&browser, "/api-keys?start=1", "start-key");
    let keys = Keys::open(&browser);
    keys.create().name("Shop").domain("acme.test").submit();
    visit(&browser, "/api-keys?start=1", "start-email");
    visit(&browser, "/domains/1/delete", "domain-in-use");
    let sign_in = Keys::open(&browser).sign_out();
    visit(&browser, "/login", "sign-in");
    sign_in.submit_wrong();
    look(&browser, "sign-in-error");
}

#[test]
fn signing_up_with_a_code() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::at_host(&app, "dash.test");
    visit(&browser, "/signup", "sign-up-code");
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
    for snippet in ["curl", "python", "php", "wordpress"] {
        browser.click(&format!("#snippet-{snippet}-tab"));
        look(&browser, &format!("new-key-shown-{snippet}"));
    }
    browser.press_escape();
    look(&browser, "leave-key");
    browser.press("Close anyway");
    browser.miss("dialog");
    browser.press("More for Laptop");
    browser.see(".menu:popover-open");
    look(&browser, "keys-menu");
    for (what, screen) in [("Edit", "edit-key-dialog"), ("Rotate", "rotate-key-dialog")] {
        Keys::open(&browser).more("Laptop", what);
        browser.see("dialog[open] form");
        look(&browser, screen);
    }
    Keys::open(&browser).more("Newsletter", "Pause");
    look(&browser, "pause-key");
    browser.press("Cancel");
    browser.miss("dialog");
    browser.click("#key-1-delete");
    DeleteKey::see(&browser).type_name("production server");
    browser.press("Delete key");
    browser.see("#typed-name-error:not(:empty)");
    look(&browser, "delete-key-used");
    Keys::open(&browser);
    browser.click("#account-button");
    browser.see("#account-menu:popover-open");
    look(&browser, "account-menu");
    visit(&browser, "/api-keys?q=nothing", "keys-no-match");
    visit(&browser, "/api-keys?sort=name&status=active", "keys-sorted");
    delete_two(&app);
    visit(&browser, "/api-keys?show=ended", "keys-ended");
}

/// Names of domains as long as they may be, and many of them on one key.
#[test]
fn the_longest_and_the_most_domains() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    let run = |noun: &str, verb: &str, rest: &[&str]| {
        let arguments = [&[noun, verb, "--account", EMAIL], rest].concat();
        cli(&app.database, &arguments, "").unwrap();
    };
    let labels = ["a", "b", "c"].map(|letter| letter.repeat(63));
    let longest = format!("{}.{}.test", labels.join("."), "d".repeat(56));
    assert_eq!(longest.len(), 253);
    let names: Vec<String> = (1..20).map(|n| format!("shop-{n}.test")).collect();
    let names = [vec![longest.clone()], names].concat();
    for name in &names {
        run("domain", "add", &[name]);
    }
    let mut create = vec!["--name", "Shops"];
    create.extend(names.iter().flat_map(|name| ["--domain", name]));
    run("key", "create", &create);
    run(
        "key",
        "create",
        &["--name", &"W".repeat(64), "--domain", &longest],
    );
    run("key", "create", &["--name", "Laptop"]);
    emails(&app, &longest);
    visit(&browser, "/api-keys", "many-domains-keys");
    let height = "return document.getElementById('key-1').offsetHeight";
    resize(&browser, DESKTOP, 800);
    assert!(browser.script::<i64>(height) < 300);
    assert_eq!(browser.text("#key-1-domains"), "18 more");
    Keys::open(&browser).more("Shops", "Pause");
    look(&browser, "many-domains-pause");
    browser.press("Cancel");
    browser.miss("dialog");
    visit(&browser, "/api-keys/new", "many-domains-new");
    let overlaps = "
        const boxes = [...document.querySelectorAll('.sub-choices .choice')].map(c => c.getBoundingClientRect());
        return boxes.some((box, at) => at > 0 && box.top < boxes[at - 1].bottom) ||
          [...document.querySelectorAll('.sub-choices .choice > span')].some(s =>
            s.getBoundingClientRect().bottom > s.parentElement.getBoundingClientRect().bottom + 1)";
    resize(&browser, PHONE, 800);
    assert!(!browser.script::<bool>(overlaps));
    for (path, screen) in [
        ("/api-keys/1", "key"),
        ("/api-keys/1/edit", "edit"),
        ("/api-keys/2/delete", "delete-key"),
        ("/domains", "domains"),
        ("/domains/1", "domain"),
        ("/domains/1/delete", "domain-in-use"),
        ("/domains/2/delete", "delete-domain"),
        ("/activity", "activity"),
        ("/activity/emails", "emails"),
    ] {
        visit(&browser, path, &format!("many-domains-{screen}"));
    }
    run("key", "delete", &["2"]);
    run("key", "delete", &["1"]);
    visit(&browser, "/domains/1/delete", "many-domains-delete");
    visit(&browser, "/api-keys?show=ended", "many-domains-ended");
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
    browser.reload();
    browser.see("main h1");
    look(&browser, "already-created");
    visit(&browser, "/api-keys/1/delete", "delete-key-page");
    visit(&browser, "/api-keys/1/pause", "pause-key-page");
    visit(&browser, "/api-keys/6/rotate", "rotate-key");
    browser.press("Create the new key");
    Reveal::see(&browser);
    browser.reload();
    browser.see("main h1");
    look(&browser, "already-rotated");
    browser.goto("/api-keys/6/edit");
    browser.click(".more summary");
    look(&browser, "edit-key");
    browser.fill("#key-senders", "hello@acme.test");
    browser.fill("#key-recipients", "example.org");
    browser.press("Save");
    browser.see(".changes");
    look(&browser, "edit-key-confirm");
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
    let shown = app
        .database
        .text("SELECT first8 || '…' || last4 FROM api_keys WHERE id = 1");
    browser.fill("#pasted", &shown);
    browser.press("Find");
    browser.see("#found");
    look(&browser, "find-key-found");
}

#[test]
fn activity_and_settings() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    furnish(&app);
    visit(&browser, "/activity", "activity");
    visit(&browser, "/activity?who=nobody", "activity-no-match");
    visit(&browser, "/activity?key=1", "activity-key");
    visit(&browser, "/activity/emails", "emails-none");
    emails(&app, LONG_DOMAIN);
    visit(&browser, "/activity/emails", "emails");
    visit(&browser, "/docs/api", "docs");
    visit(&browser, "/settings", "settings");
    browser.fill("#current-password", PASSWORD);
    browser.fill("#new-password", "short");
    browser.press("Change password");
    browser.see("#new-password-error:not(:empty)");
    look(&browser, "settings-error");
    visit(&browser, "/settings/export", "export");
    visit(&browser, "/settings/delete", "delete-account");
    browser.fill("#account-name", "x");
    browser.fill("#account-password", PASSWORD);
    browser.press("Delete account");
    browser.see("#account-name-error:not(:empty)");
    look(&browser, "delete-account-error");
}

#[test]
fn what_went_wrong() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    let run = |arguments: &[&str]| cli(&app.database, arguments, "").unwrap();
    visit(&browser, "/nothing", "not-found");
    browser.goto("/api-keys/new");
    run(&["account", "pause", "--account", EMAIL]);
    browser.fill("#key-name", "Shop");
    browser.press("Create");
    browser.see("main.plain h1");
    look(&browser, "forbidden");
    visit(&browser, "/api-keys", "keys-account-paused");
    // Something that cannot be: a second event of a kind.
    app.database
        .execute("CREATE UNIQUE INDEX wrong ON events (action)");
    Domains::open(&browser).add("acme.test");
    browser.press("Domains");
    browser.fill("#name", "shop.test");
    browser.press("Add domain");
    browser.see("main.plain h1");
    look(&browser, "internal-error");
    app.database
        .execute("ALTER TABLE sessions RENAME TO gone_too");
    visit(&browser, "/api-keys", "unavailable");
    browser.forgive(&[
        "status of 404",
        "status of 403",
        "status of 500",
        "status of 503",
    ]);
}

/// `docs/api-keys-light.png` and `-dark.png` are these pictures.
#[test]
fn the_page_as_the_readme_shows_it() {
    let app = App::start(Backend::Sqlite, |settings| {
        settings.smtp_url = Some("smtp://127.0.0.1:1".into());
    });
    let browser = Browser::new(&app);
    sign_up(&browser);
    let run = |noun: &str, verb: &str, rest: &[&str]| {
        let arguments = [&[noun, verb, "--account", EMAIL], rest].concat();
        cli(&app.database, &arguments, "").unwrap();
    };
    run("domain", "add", &["acme.com", "--verified"]);
    run("domain", "add", &["news.acme.com", "--verified"]);
    for (name, domain, age, used) in [
        ("Nightly backup", None, "104 days", Some("9 hours")),
        ("Staging", None, "61 days", Some("40 days")),
        (
            "Newsletter",
            Some("news.acme.com"),
            "33 days",
            Some("3 hours"),
        ),
        ("Laptop of Ada", None, "12 days", Some("5 days")),
        (
            "Production server",
            Some("acme.com"),
            "8 days",
            Some("1 minute"),
        ),
        ("Support desk", Some("acme.com"), "0 days", None),
    ] {
        let domain = domain.map(|domain| ["--domain", domain]);
        let named = ["--name", name];
        run(
            "key",
            "create",
            &[&named[..], domain.as_ref().map_or(&[], |d| d)].concat(),
        );
        let ago = |time: &str| format!("strftime('%F %R:%f', 'now', '-{time}')");
        let newest = "(SELECT max(id) FROM api_keys)";
        let created = ago(age);
        app.database.execute(&format!(
            "UPDATE api_keys SET created_at = {created} WHERE id = {newest}"
        ));
        if let Some(used) = used.map(ago) {
            app.database.execute(&format!(
                "INSERT INTO api_key_uses VALUES ({newest}, {used}, '::1', '')"
            ));
        }
    }
    run("key", "pause", &["4"]);
    for theme in ["light", "dark"] {
        browser.goto("/settings");
        browser.click(&format!("[name=theme][value={theme}]"));
        browser.press("Save");
        browser.see(&format!("[data-theme={theme}]"));
        Keys::open(&browser);
        spread(&browser, DESKTOP);
        browser.shoot(&format!("readme-{theme}"));
    }
}

/// Where a page comes in parts, what is drawn of the first would be moved by the next.
#[test]
fn nothing_is_drawn_before_a_page_is_whole() {
    let app = App::start(Backend::Sqlite, |_| {});
    let network = Proxy::to(&app.address.to_string());
    let browser = Browser::through(&network);
    // What pages share comes with the first of them.
    browser.goto("/login");
    for path in ["/signup", "/docs/api", "/nothing"] {
        network.hold_after("</svg>");
        thread::scope(|scope| {
            scope.spawn(|| {
                until("the page has begun", || network.is_holding());
                // Time to draw what there is.
                thread::sleep(Duration::from_secs(1));
                network.restore();
            });
            browser.goto(path);
        });
        assert_still(&browser, path);
    }
    browser.forgive(&["status of 404"]);
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
