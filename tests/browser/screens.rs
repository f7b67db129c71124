//! The screens: what is on each, and where its buttons lead.

use serde::Deserialize;

use crate::browser::Browser;
use crate::support::{EMAIL, PASSWORD, TITLE};

/// Signs up as the first owner.
pub fn sign_up(browser: &Browser) -> Keys<'_> {
    SignUp::open(browser).submit(TITLE)
}

pub struct SignUp<'a>(&'a Browser);

impl<'a> SignUp<'a> {
    pub fn open(browser: &'a Browser) -> Self {
        browser.goto("/");
        browser.see("form[action='/signup']");
        Self(browser)
    }

    pub fn asks_for_code(&self) -> bool {
        self.0.shows("#setup_code")
    }

    pub fn fill_code(self, code: &str) -> Self {
        self.0.fill("#setup_code", code);
        self
    }

    pub fn submit_wrong(self) {
        self.0.fill("#title", TITLE);
        self.0.fill("#email", EMAIL);
        self.0.fill("#password", "short");
        self.0.press("Create account");
        self.0.see("#password-error:not(:empty)");
    }

    pub fn submit(self, title: &str) -> Keys<'a> {
        self.0.fill("#title", title);
        self.0.fill("#email", EMAIL);
        self.0.fill("#password", PASSWORD);
        self.0.press("Create account");
        Keys::see(self.0)
    }
}

pub struct SignIn<'a>(&'a Browser);

impl<'a> SignIn<'a> {
    pub fn see(browser: &'a Browser) -> Self {
        browser.see("form[action='/login']");
        Self(browser)
    }

    pub fn submit(self) -> Keys<'a> {
        self.0.fill("#email", EMAIL);
        self.0.fill("#password", PASSWORD);
        self.0.press("Sign in");
        Keys::see(self.0)
    }

    pub fn submit_wrong(self) {
        self.0.fill("#email", EMAIL);
        self.0.fill("#password", "wrong");
        self.0.press("Sign in");
        self.0.see(".note.danger");
    }
}

/// The API Keys page.
pub struct Keys<'a>(&'a Browser);

/// A row of the list, as it reads.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub key: String,
    pub domain: String,
    pub status: String,
}

impl<'a> Keys<'a> {
    pub fn open(browser: &'a Browser) -> Self {
        browser.goto("/api-keys");
        Self::see(browser)
    }

    pub fn see(browser: &'a Browser) -> Self {
        browser.see("#key-list");
        Self(browser)
    }

    pub fn is_empty(&self) -> bool {
        self.0.shows("#key-list .empty")
    }

    pub fn rows(&self) -> Vec<Row> {
        self.0.script(
            "return [...document.querySelectorAll('#key-rows tr')].map(row => {
               const [name, key, domain, status] = [...row.cells].map(cell => cell.innerText.trim().split('\\n')[0]);
               return {name, key, domain, status};
             })",
        )
    }

    pub fn names(&self) -> Vec<String> {
        self.rows().into_iter().map(|row| row.name).collect()
    }

    #[track_caller]
    pub fn wait_for_status(&self, name: &str, status: &str) {
        self.0.wait(&format!("{name} is {status}"), || {
            self.has_status(name, status)
        });
    }

    fn has_status(&self, name: &str, status: &str) -> bool {
        let mut rows = self.rows().into_iter();
        rows.any(|row| row.name == name && row.status == status)
    }

    /// In the list; without JavaScript the page of the key says so, and the list is opened.
    #[track_caller]
    fn wait_for_change(&self, name: &str, badge: &str, status: &str) {
        let of_page = format!(".lead .badge.{badge}");
        self.0.wait(&format!("{name} has become {status}"), || {
            self.0.shows(&of_page) || self.has_status(name, status)
        });
        if self.0.shows(&of_page) {
            Keys::open(self.0);
        }
        self.wait_for_status(name, status);
    }

    /// By the button beside the heading: to the dialog, or its page.
    pub fn create(self) -> NewKey<'a> {
        self.0.press("Create API Key");
        NewKey::see(self.0)
    }

    /// Creates a key and ends at the list again; gives the key.
    pub fn create_and_store(self, name: &str) -> String {
        let shown = self.create().name(name).submit();
        let key = shown.key();
        shown.stored();
        key
    }

    pub fn pause(&self, name: &str) {
        self.more(name, "Pause");
        self.0.see("form[action$='/pause']");
        self.0.press("Pause key");
        self.0.miss("form[action$='/pause']");
        self.wait_for_change(name, "paused", "Paused");
    }

    /// Chooses from the menu of a key's row.
    pub fn more(&self, name: &str, what: &str) {
        self.0.press(&format!("More for {name}"));
        self.0.see(".menu:popover-open");
        self.0.press(what);
    }

    pub fn resume(&self, name: &str) {
        self.more(name, "Resume");
        self.wait_for_change(name, "active", "Active");
    }

    pub fn delete(self, name: &str) -> DeleteKey<'a> {
        self.0.press(&format!("Delete {name}"));
        DeleteKey::see(self.0)
    }

    pub fn delete_newest(self) -> DeleteKey<'a> {
        self.0.click("#key-rows tr:first-child a[id$=delete]");
        DeleteKey::see(self.0)
    }

    pub fn sign_out(self) -> SignIn<'a> {
        self.0.click("#account-button");
        self.0.press("Sign out");
        SignIn::see(self.0)
    }
}

/// The form for a new key: the dialog, or its page.
pub struct NewKey<'a>(&'a Browser);

impl<'a> NewKey<'a> {
    pub fn see(browser: &'a Browser) -> Self {
        browser.see("form[action='/api-keys'] #key-name");
        Self(browser)
    }

    pub fn name(self, name: &str) -> Self {
        self.0.fill("#key-name", name);
        self
    }

    /// Restricts the key to a domain, by the words beside the box.
    pub fn domain(self, name: &str) -> Self {
        let names = self.domains();
        let at = 1 + names.iter().position(|n| n == name).expect(name);
        self.0.click("#key-scope-domains");
        self.0
            .click(&format!(".sub-choices .choice:nth-of-type({at}) input"));
        self
    }

    pub fn domains(&self) -> Vec<String> {
        self.0.script(
            "return [...document.querySelectorAll('.sub-choices .choice > span')]
               .map(span => span.firstChild.textContent.trim())",
        )
    }

    pub fn submit(self) -> Reveal<'a> {
        self.0.press("Create");
        Reveal::see(self.0)
    }

    pub fn submit_wrong(self) -> Self {
        self.0.press("Create");
        self.0.see(".error:not(:empty)");
        self
    }
}

/// The new key, shown once: in the dialog, or on a page.
pub struct Reveal<'a>(&'a Browser);

impl<'a> Reveal<'a> {
    pub fn see(browser: &'a Browser) -> Self {
        browser.see("[data-reveal] #new-key");
        Self(browser)
    }

    pub fn key(&self) -> String {
        self.0.value("#new-key")
    }

    /// One of the snippets, which JavaScript makes tabs of.
    pub fn snippet(&self, id: &str) -> String {
        if self.0.shows("[role=tablist]") {
            self.0.click(&format!("#snippet-{id}-tab"));
        }
        self.0.text(&format!("#snippet-{id}-code"))
    }

    #[track_caller]
    pub fn copy(&self, what: &str) {
        self.0.press(what);
        self.0.wait("the button says that it copied", || {
            let said = "return document.querySelector('.dialog-status')?.textContent ?? ''";
            self.0.shows("[data-copy]")
                && self.0.text("[data-reveal]").contains("Copied")
                && (!self.0.shows("dialog[open]") || self.0.script::<String>(said) == "Copied.")
        });
    }

    pub fn stored(self) -> Keys<'a> {
        self.0.press("I have stored it");
        self.0.miss("[data-reveal]");
        Keys::see(self.0)
    }
}

/// The question before a key is deleted: the dialog, or its page.
pub struct DeleteKey<'a>(&'a Browser);

impl<'a> DeleteKey<'a> {
    pub fn see(browser: &'a Browser) -> Self {
        browser.see("form[action$='/delete']");
        Self(browser)
    }

    pub fn cancel(self) -> Keys<'a> {
        self.0.press("Cancel");
        self.0.miss("form[action$='/delete']");
        if !self.0.shows("#key-list") {
            return Keys::open(self.0);
        }
        Keys::see(self.0)
    }

    /// Types what the question asks for.
    pub fn type_name(self, name: &str) -> Self {
        self.0.fill("#typed-name", name);
        self
    }

    pub fn confirm(self) -> Keys<'a> {
        self.0.press("Delete key");
        self.0.miss("form[action$='/delete']");
        Keys::see(self.0)
    }
}

pub struct Domains<'a>(&'a Browser);

impl<'a> Domains<'a> {
    pub fn open(browser: &'a Browser) -> Self {
        browser.press("Domains");
        browser.see("form[action='/domains']");
        Self(browser)
    }

    pub fn add(self, name: &str) -> Domain<'a> {
        self.0.fill("#name", name);
        self.0.press("Add domain");
        self.0.see("h1 + .lead .badge");
        Domain(self.0)
    }

    pub fn add_wrong(self, name: &str) -> Self {
        self.0.fill("#name", name);
        self.0.press("Add domain");
        self.0.see("#name-error:not(:empty)");
        self
    }
}

/// The page of one domain.
pub struct Domain<'a>(&'a Browser);

impl Domain<'_> {
    pub fn status(&self) -> String {
        self.0.text(".lead .badge")
    }

    /// What the operator is to run, word by word.
    pub fn command(&self) -> Vec<String> {
        let line = self.0.text("#verify-command");
        line.split_whitespace().map(str::to_owned).collect()
    }

    pub fn check(&self) {
        self.0.press("Check now");
        self.0.miss("#verify-command");
    }
}
