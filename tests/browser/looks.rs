//! Every screen at three widths, light and dark: nothing may stick out, and pictures of each are
//! left in `target/screenshots` for people to look at.

use serde_json::json;

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

const WIDTHS: [u32; 4] = [1280, 768, 360, 320];

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

fn look(browser: &Browser, screen: &str) {
    for width in WIDTHS {
        let is_phone = width < 400;
        let touch = json!({"enabled": is_phone, "maxTouchPoints": 1});
        browser.devtools("Emulation.setTouchEmulationEnabled", touch);
        let resize = |height: u32| {
            let size = json!({
                "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone,
            });
            browser.devtools("Emulation.setDeviceMetricsOverride", size);
        };
        resize(800);
        let height = browser.script("return document.documentElement.scrollHeight");
        resize(height);
        browser.script::<()>("scrollTo(0, 0)");
        for theme in ["light", "dark"] {
            let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
            browser.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
            browser.shoot(&format!("{screen}-{width}-{theme}"));
        }
        let what = format!("{screen} at {width} pixels");
        assert_eq!(
            browser.script::<Vec<String>>(STICKING_OUT),
            [""; 0],
            "{what}"
        );
        assert_eq!(browser.script::<Vec<String>>(TOO_SMALL), [""; 0], "{what}");
    }
}

#[test]
fn every_screen_fits_every_width() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    SignUp::open(&browser);
    look(&browser, "sign-up");
    sign_up(&browser);
    look(&browser, "keys-empty");
    let domains = Domains::open(&browser);
    look(&browser, "domains-empty");
    domains.add("acme.test");
    look(&browser, "domain-pending");
    Domains::open(&browser).add("a-rather-long-subdomain.of-a-rather-long-name.acme.test");
    attest(&app.database, "acme.test");
    Domains::open(&browser).add_wrong("http://acme.test/");
    look(&browser, "domains-error");

    Keys::open(&browser).create();
    look(&browser, "new-key");
    let form = NewKey::see(&browser).name(&"n".repeat(65)).submit_wrong();
    look(&browser, "new-key-error");
    let shown = form.name("Production server").domain("acme.test").submit();
    look(&browser, "new-key-shown");
    let keys = shown.stored();
    keys.create_and_store("Laptop");
    let long = "A name with sixty-four characters, which is as long as one gets.";
    Keys::see(&browser).create_and_store(long);
    Keys::see(&browser).create_and_store(&"W".repeat(64));
    let unverified = "a-rather-long-subdomain.of-a-rather-long-name.acme.test";
    let shown = Keys::see(&browser)
        .create()
        .name("Newsletter")
        .domain(unverified)
        .submit();
    let keys = shown.stored();
    keys.pause("Laptop");
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
    let arguments = ["key", "rotate", "--account", EMAIL, "1", "--quiet", "24h"];
    cli(&app.database, &arguments, "").unwrap();
    let keys = Keys::open(&browser);
    look(&browser, "keys");
    let question = keys.delete(&"W".repeat(64));
    look(&browser, "delete-key");
    question.cancel();

    browser.goto("/api-keys/new");
    look(&browser, "new-key-page");
    NewKey::see(&browser).name("On a page").submit();
    look(&browser, "new-key-shown-page");
    browser.goto("/api-keys/1/delete");
    look(&browser, "delete-key-page");
    browser.goto("/api-keys/1/pause");
    look(&browser, "pause-key-page");
    browser.goto("/api-keys/1");
    look(&browser, "key-replaced");
    browser.goto("/api-keys/7");
    look(&browser, "key-successor");
    browser.goto("/api-keys/7/rotate");
    look(&browser, "rotate-key");
    browser.goto("/api-keys/7/edit");
    browser.click(".more summary");
    look(&browser, "edit-key");
    browser.fill("#key-senders", "hello@acme.test");
    browser.fill("#key-recipients", "example.org");
    browser.press("Save");
    browser.see(".changes");
    look(&browser, "edit-key-confirm");
    browser.goto("/api-keys/find");
    look(&browser, "find-key");
    browser.fill("#pasted", "tsend_tooshort");
    browser.press("Find");
    browser.see("#pasted-error:not(:empty)");
    look(&browser, "find-key-error");
    browser.goto("/api-keys?show=ended");
    look(&browser, "keys-ended-empty");
    for id in [2, 4] {
        cli(
            &app.database,
            &["key", "delete", "--account", EMAIL, &id.to_string()],
            "",
        )
        .unwrap();
    }
    browser.goto("/api-keys?show=ended");
    look(&browser, "keys-ended");
    browser.goto("/api-keys/4");
    look(&browser, "key-ended");
    browser.goto("/activity");
    look(&browser, "activity");
    browser.goto("/activity?who=nobody");
    look(&browser, "activity-no-match");
    browser.goto("/domains/1");
    look(&browser, "domain-verified");
    browser.goto("/domains/1/delete");
    look(&browser, "domain-in-use");
    assert_eq!(browser.complaints(), [""; 0]);
    browser.goto("/nothing");
    look(&browser, "not-found");
    Keys::open(&browser).sign_out();
    look(&browser, "sign-in");
}
