//! What must not happen in a browser: a key left behind, a script of a stranger, a lost session.

use std::path::Path;

use crate::browser::Browser;
use crate::screens::*;
use crate::support::*;

/// Everything that a page of this site can find in the browser.
fn traces(browser: &Browser) -> String {
    let stored: String = browser.script(
        "return (async () => {
             // The browser's own page in place of an answer that it may not keep.
             if (origin === 'null') return '';
             const databases = await indexedDB.databases();
             const caches_ = await caches.keys();
             return JSON.stringify({
               databases, caches: caches_, local: {...localStorage}, session: {...sessionStorage},
               history: history.state, address: location.href, cookie: document.cookie,
               name: window.name,
             });
           })()",
    );
    format!("{}{stored}", browser.html())
}

/// The first file below a folder that holds some text.
fn file_with(text: &str, folder: &Path) -> Option<String> {
    std::fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return file_with(text, &path);
        }
        let bytes = std::fs::read(&path).ok()?;
        let is_found = bytes.windows(text.len()).any(|w| w == text.as_bytes());
        is_found.then(|| path.display().to_string())
    })
}

#[test]
fn no_key_is_left_in_the_browser() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let is_clean = |keys: &[&String], when: &str| {
        let traces = traces(&browser);
        assert!(!keys.iter().any(|key| traces.contains(*key)), "{when}");
    };
    let stored = sign_up(&browser).create_and_store("Stored");
    is_clean(&[&stored], "after the dialog");

    // Left by its address while the key is shown, then back.
    let left = Keys::see(&browser).create().name("Left").submit().key();
    browser.goto("/domains");
    browser.back();
    Keys::see(&browser);
    is_clean(&[&stored, &left], "back at the list");

    // The page that shows a key without the dialog.
    browser.goto("/api-keys/new");
    let on_page = NewKey::see(&browser).name("On a page").submit().key();
    Domains::open(&browser);
    browser.back();
    let keys = [&stored, &left, &on_page];
    is_clean(&keys, "back at the page that showed it");

    assert_eq!(browser.complaints(), [""; 0]);
    Keys::open(&browser).sign_out();
    is_clean(&keys, "signed out");
    for _ in 0..4 {
        browser.back();
        assert!(!browser.shows("#key-rows"), "the list is shown to nobody");
        is_clean(&keys, "back after signing out");
    }

    // Back leads to the sign-up, too, which is closed by now.
    let mut complaints = browser.complaints();
    complaints.retain(|told| !told.contains("/signup - Failed to load resource"));
    assert_eq!(complaints, [""; 0]);

    let profile = browser.profile();
    drop(browser);
    for key in keys {
        assert_eq!(file_with(key, profile.path()), None);
    }
    // The search works: the history holds addresses.
    assert!(file_with("/api-keys/new", profile.path()).is_some());
}

const PAYLOADS: [&str; 16] = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "\"><script>alert(1)</script>",
    "\" autofocus onfocus=\"alert(1)",
    "' onmouseover='alert(1)' x='",
    "</bdi></th></tr></table><script>alert(1)</script>",
    "</title></textarea></dialog><iframe srcdoc='<script>alert(1)'>",
    "<div hx-post=/logout hx-trigger=load>x</div>",
    "<form action=//evil.test><button>Sign in</button></form>",
    "<base href=//evil.test/><meta http-equiv=refresh content=0>",
    "<a href=javascript:alert(1)>Delete</a>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "{{7*7}}${7*7}<%=7*7%>{% include 'x' %}",
    "<!--><style>*{display:none}</style>",
    "\\u003cscript\\u003ealert(1)//`+alert(1)+`",
];

/// What no name may bring into a page.
const FOREIGN: &str = "main :is(script, img, iframe, style, base, meta, [srcdoc]), [onerror],
    [onload], [onfocus], [onmouseover], [href^='javascript:'], [action*='evil.test'],
    [hx-post='/logout'], svg[onload]";

#[test]
fn names_are_text_and_never_markup() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let is_clean = |what: &str| {
        assert_eq!(browser.complaints(), [""; 0], "{what}");
        let foreign: u32 = browser.script(&format!(
            "return document.querySelectorAll(`{FOREIGN}`).length"
        ));
        assert_eq!(foreign, 0, "{what}");
    };
    SignUp::open(&browser).submit(PAYLOADS[1]);
    assert_eq!(browser.text("#account-button bdi"), PAYLOADS[1]);

    for payload in PAYLOADS {
        let shown = Keys::see(&browser).create().name(payload).submit();
        assert_eq!(browser.text("label[for=new-key] bdi"), payload);
        is_clean(payload);
        let keys = shown.stored();
        assert_eq!(keys.names()[0], payload);
        let question = keys.delete_newest();
        assert_eq!(browser.text("#dialog-title bdi"), payload);
        is_clean(payload);
        question.cancel();
    }
    let keys = Keys::open(&browser);
    let newest_first: Vec<&str> = PAYLOADS.into_iter().rev().collect();
    assert_eq!(keys.names(), newest_first);
    is_clean("the list");
    for id in 1..=PAYLOADS.len() {
        browser.goto(&format!("/api-keys/{id}/delete"));
        DeleteKey::see(&browser);
        is_clean("the page that asks before deleting");
    }
    let keys = Keys::open(&browser).delete_newest().confirm();
    browser.wait("the row goes", || keys.rows().len() == PAYLOADS.len() - 1);
    is_clean("the notice");

    let mut domains = Domains::open(&browser);
    for payload in PAYLOADS {
        domains = domains.add_wrong(payload);
        assert_eq!(browser.value("#name"), payload);
        is_clean(payload);
    }

    // The alarm works.
    browser.script::<()>(
        "const script = document.createElement('script');
         script.textContent = 'alert(1)';
         document.body.append(script);",
    );
    assert_eq!(browser.complaints().len(), 1);
}

#[test]
fn an_ended_session_leads_to_the_login_page_and_not_into_the_dialog() {
    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    sign_up(&browser);
    app.database.execute("DELETE FROM sessions");
    browser.press("Create API Key");
    let sign_in = SignIn::see(&browser);
    assert_eq!(browser.path(), "/login");
    assert!(!browser.shows("dialog"));
    sign_in.submit();
    assert_eq!(browser.path(), "/api-keys");
}
