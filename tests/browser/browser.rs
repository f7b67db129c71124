//! One Chromium with an empty profile, as calls that block and that wait for what they need.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::action_chain::ActionChain;
use thirtyfour::error::{WebDriverErrorInner, WebDriverResult};
use thirtyfour::prelude::*;
use thirtyfour::{ChromiumLikeCapabilities, LoggingPrefsLogLevel};
use tokio::runtime::{Builder, Runtime};

use crate::support::{App, Proxy};

const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";
const PATIENCE: Duration = Duration::from_secs(60);
/// For one step of a browser, such as to load a page or to run axe over a long one.
const LONG_PATIENCE: Duration = Duration::from_secs(300);

/// With the pipe Chromium ends when its driver does, however that happens.
const ARGUMENTS: [&str; 11] = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--lang=en",
    "--window-size=1280,900",
];

pub struct Browser {
    base: String,
    driver: WebDriver,
    runtime: Runtime,
    _chromedriver: ChromeDriver,
    profile: Rc<TempDir>,
}

impl Browser {
    pub fn new(app: &App) -> Self {
        Self::start(app.url(""), &[], json!({}))
    }

    pub fn without_javascript(app: &App) -> Self {
        let off = json!({"profile.managed_default_content_settings.javascript": 2});
        Self::start(app.url(""), &[], off)
    }

    /// Reaches the server under another name than this machine's.
    pub fn at_host(app: &App, host: &str) -> Self {
        let rule = format!("--host-resolver-rules=MAP {host} 127.0.0.1");
        let base = format!("http://{host}:{}", app.address.port());
        Self::start(base, &[rule], json!({}))
    }

    /// Reaches the server over a network that may fail.
    pub fn through(network: &Proxy) -> Self {
        Self::start(format!("http://{}", network.address), &[], json!({}))
    }

    fn start(base: String, arguments: &[String], preferences: Value) -> Self {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let mut wishes = DesiredCapabilities::chrome();
        let profile_argument = format!("--user-data-dir={}", profile.path().display());
        let more = arguments.iter().map(String::as_str);
        for argument in ARGUMENTS
            .into_iter()
            .chain([&*profile_argument])
            .chain(more)
        {
            wishes.add_arg(argument).unwrap();
        }
        wishes.set_binary(CHROMIUM).unwrap();
        wishes
            .add_experimental_option("prefs", preferences)
            .unwrap();
        wishes
            .set_browser_log_level(LoggingPrefsLogLevel::All)
            .unwrap();

        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        // ChromeDriver gives Chromium a minute to start, which is short on a busy machine.
        let mut tries = 0..5;
        let (chromedriver, driver) = loop {
            let chromedriver = ChromeDriver::start();
            let driver = WebDriver::builder(chromedriver.url.clone(), wishes.clone())
                .request_timeout(LONG_PATIENCE);
            match runtime.block_on(driver.connect()) {
                Ok(driver) => break (chromedriver, driver),
                Err(_) if tries.next().is_some() => {}
                Err(error) => panic!("{CHROMIUM} does not start: {error}"),
            }
        };
        let browser = Self {
            base,
            driver,
            runtime,
            _chromedriver: chromedriver,
            profile: Rc::new(profile),
        };
        browser.run(browser.driver.set_script_timeout(LONG_PATIENCE));
        browser
    }

    /// Chromium's folder, which outlives the browser as long as it is held.
    pub fn profile(&self) -> Rc<TempDir> {
        self.profile.clone()
    }

    // Where the browser is.

    #[track_caller]
    pub fn goto(&self, path: &str) {
        self.run(self.driver.goto(format!("{}{path}", self.base)));
    }

    #[track_caller]
    pub fn reload(&self) {
        self.run(self.driver.refresh());
    }

    #[track_caller]
    pub fn back(&self) {
        self.run(self.driver.back());
    }

    pub fn path(&self) -> String {
        self.run(self.driver.current_url()).path().to_owned()
    }

    /// The page as it is now, with what its fields hold.
    pub fn html(&self) -> String {
        self.script::<String>(
            "const values = [...document.querySelectorAll('input, textarea')].map(i => i.value);
             return document.documentElement.outerHTML + values.join('\\n');",
        )
    }

    // What the browser shows.

    /// Waits until an element can be seen.
    #[track_caller]
    pub fn see(&self, css: &str) -> WebElement {
        self.displayed(By::Css(css))
    }

    /// Waits until no element can be seen.
    #[track_caller]
    pub fn miss(&self, css: &str) {
        self.until(&format!("{css} goes"), async |driver| {
            let found = find_displayed(driver, By::Css(css)).await?;
            Ok(found.is_none().then_some(()))
        });
    }

    /// Whether an element can be seen right now.
    pub fn shows(&self, css: &str) -> bool {
        self.until(&format!("whether {css} is seen"), async |driver| {
            let found = find_displayed(driver, By::Css(css)).await?;
            Ok(Some(found.is_some()))
        })
    }

    #[track_caller]
    pub fn text(&self, css: &str) -> String {
        self.until(
            &format!("the text of {css}"),
            async |driver| match find_displayed(driver, By::Css(css)).await? {
                Some(element) => element.text().await.map(Some),
                None => Ok(None),
            },
        )
    }

    #[track_caller]
    pub fn value(&self, css: &str) -> String {
        self.run(self.see(css).value()).unwrap_or_default()
    }

    #[track_caller]
    pub fn attribute(&self, css: &str, name: &str) -> Option<String> {
        self.run(self.see(css).attr(name))
    }

    /// The element that has the focus, as a CSS selector would begin: tag, then id.
    pub fn focus(&self) -> String {
        self.script(
            "const e = document.activeElement;
             return e.localName + (e.id && '#' + e.id);",
        )
    }

    #[track_caller]
    pub fn wait_for_focus(&self, wanted: &str) {
        self.wait(&format!("the focus on {wanted}"), || self.focus() == wanted);
    }

    // What a person does.

    #[track_caller]
    pub fn click(&self, css: &str) {
        self.click_on(By::Css(css));
    }

    /// Presses the button or follows the link of this name.
    #[track_caller]
    pub fn press(&self, name: &str) {
        self.click_on(By::XPath(named(name)));
    }

    #[track_caller]
    pub fn double_press(&self, name: &str) {
        let button = self.displayed(By::XPath(named(name)));
        self.run(self.at_once().double_click_element(&button).perform());
    }

    #[track_caller]
    pub fn triple_press(&self, name: &str) {
        let button = self.displayed(By::XPath(named(name)));
        let thrice = self.at_once().double_click_element(&button).click();
        self.run(thrice.perform());
    }

    /// What is done without a pause between.
    fn at_once(&self) -> ActionChain {
        let none = Some(Duration::ZERO);
        self.driver.action_chain_with_delay(none, none)
    }

    #[track_caller]
    pub fn fill(&self, css: &str, text: &str) {
        let field = self.see(css);
        self.run(async {
            field.clear().await?;
            field.send_keys(text).await
        });
    }

    /// Clicks beside everything, in the corner of the window.
    #[track_caller]
    pub fn click_corner(&self) {
        let chain = self.driver.action_chain().move_to(2, 2).click();
        self.run(chain.perform());
    }

    #[track_caller]
    pub fn press_escape(&self) {
        self.press_key(Key::Escape);
    }

    #[track_caller]
    pub fn press_key(&self, key: Key) {
        let typing = self.driver.action_chain().send_keys(key);
        self.run(typing.perform());
    }

    /// As one event: ChromeDriver would send a key's character after what its going down led to,
    /// so into the next page.
    #[track_caller]
    pub fn press_enter(&self) {
        for (what, text) in [("keyDown", "\r"), ("keyUp", "")] {
            let event = json!({
                "type": what, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13,
                "text": text,
            });
            self.devtools("Input.dispatchKeyEvent", event);
        }
    }

    /// Types where the focus is.
    #[track_caller]
    pub fn type_keys(&self, text: &str) {
        let typing = self.driver.action_chain().send_keys(text);
        self.run(typing.perform());
    }

    /// Goes on by the Tab key until the focus is there, and presses Enter.
    #[track_caller]
    pub fn enter(&self, css: &str) {
        self.tab_to(css);
        self.press_enter();
    }

    /// Goes on by the Tab key until the focus is there.
    #[track_caller]
    pub fn tab_to(&self, css: &str) {
        let is_there = "return document.activeElement.matches(arguments[0])";
        let is_there = is_there.replace("arguments[0]", &json!(css).to_string());
        for _ in 0..60 {
            if self.script(&is_there) {
                return;
            }
            self.press_key(Key::Tab);
        }
        panic!("Tab never comes to {css}");
    }

    /// What is on the clipboard, read as a person would: by pasting it.
    #[track_caller]
    pub fn paste(&self) -> String {
        self.paste_into("body")
    }

    /// The same beside an open dialog, which keeps the focus; it gets it back.
    #[track_caller]
    pub fn paste_in_dialog(&self) -> String {
        self.script::<()>("window.before = document.activeElement");
        let text = self.paste_into("dialog[open]");
        self.script::<()>("window.before.focus()");
        text
    }

    #[track_caller]
    fn paste_into(&self, place: &str) -> String {
        self.script::<()>(&format!(
            "const area = document.createElement('textarea');
             area.id = 'paste-here';
             document.querySelector('{place}').append(area);"
        ));
        // Again, since the page may take the focus back while it copies.
        self.wait("something is pasted", || {
            self.script::<()>(
                "const area = document.getElementById('paste-here');
                 area.focus();
                 area.select();",
            );
            let chord = self.driver.action_chain().key_down(Key::Control);
            self.run(chord.send_keys("v").key_up(Key::Control).perform());
            !self.value("#paste-here").is_empty()
        });
        let text = self.value("#paste-here");
        self.script::<()>("document.getElementById('paste-here').remove()");
        text
    }

    // What only a test does.

    /// Runs the body of a function; if that gives a promise, it is waited for.
    #[track_caller]
    pub fn script<T: DeserializeOwned>(&self, source: &str) -> T {
        self.until("a script runs", async |driver| {
            driver.execute(source, []).await?.convert().map(Some)
        })
    }

    #[track_caller]
    pub fn devtools(&self, method: &str, parameters: Value) -> Value {
        self.run(self.driver.cdp().send_raw(method, parameters))
    }

    /// What comes out of the printer, as text.
    pub fn print(&self) -> String {
        let printed = self.devtools("Page.printToPDF", json!({}));
        let pdf = STANDARD.decode(printed["data"].as_str().unwrap()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, pdf).unwrap();
        let run = Command::new("pdftotext").arg(file.path()).arg("-").output();
        let run = run.expect("pdftotext starts: run the tests with tests/run");
        assert!(run.status.success(), "pdftotext: {run:?}");
        String::from_utf8(run.stdout).unwrap()
    }

    /// What the console holds that should not be there, and forgets it: errors and refusals of
    /// the content security policy. A 422 is an answer, which Chromium logs as an error; and htmx logs
    /// a question that gives way to a newer one, as on a busy machine. Nothing may be left of this
    /// when the browser is closed.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.run(self.driver.browser_log());
        log.into_iter()
            .filter(|entry| entry.level == "SEVERE" || entry.message.contains("Content Security"))
            .map(|entry| entry.message)
            .filter(|message| !message.contains("status of 422") && !is_of_replacement(message))
            .collect()
    }

    /// Forgets the complaints that a test provoked, each with one of these words in it.
    #[track_caller]
    pub fn forgive(&self, provoked: &[&str]) {
        let complaints = self.complaints();
        let is_known = |complaint: &&String| provoked.iter().any(|words| complaint.contains(words));
        let (known, others): (Vec<_>, Vec<_>) = complaints.iter().partition(is_known);
        assert!(others.is_empty() && !known.is_empty(), "{complaints:?}");
    }

    /// Saves what can be seen as `target/screenshots/<name>.png`.
    pub fn shoot(&self, name: &str) {
        let file = screenshots().join(format!("{name}.png"));
        self.run(self.driver.screenshot(&file));
    }

    #[track_caller]
    pub fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{}", self.overdue(what, None));
            pause();
        }
    }

    #[track_caller]
    fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut(&WebDriver) -> WebDriverResult<Option<T>>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let why = match self.runtime.block_on(look(&self.driver)) {
                Ok(Some(found)) => return found,
                Ok(None) => None,
                Err(error) if is_passing(&error) => Some(error),
                Err(error) => panic!("{what}: {error}"),
            };
            assert!(Instant::now() < deadline, "{}", self.overdue(what, why));
            pause();
        }
    }

    fn overdue(&self, what: &str, why: Option<WebDriverError>) -> String {
        let why = why.map(|e| e.to_string()).unwrap_or_default();
        format!("waited for this in vain at {}: {what}. {why}", self.path())
    }

    #[track_caller]
    fn displayed(&self, by: By) -> WebElement {
        self.until(&format!("{by} is seen"), async |driver| {
            find_displayed(driver, by.clone()).await
        })
    }

    #[track_caller]
    fn click_on(&self, by: By) {
        self.until(
            &format!("{by} is clicked"),
            async |driver| match find_displayed(driver, by.clone()).await? {
                Some(element) => element.click().await.map(Some),
                None => Ok(None),
            },
        );
    }

    #[track_caller]
    fn run<T>(&self, action: impl Future<Output = WebDriverResult<T>>) -> T {
        match self.runtime.block_on(action) {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let mut left = Vec::new();
        if std::thread::panicking() {
            let test = std::thread::current();
            let name = test.name().unwrap_or("a test").replace("::", "-");
            let file = screenshots().join(format!("failed-{name}.png"));
            let _ = self.runtime.block_on(self.driver.screenshot(&file));
        } else {
            left = self.complaints();
        }
        let _ = self.runtime.block_on(self.driver.clone().quit());
        assert!(left.is_empty(), "the console: {left:?}");
    }
}

/// Whether htmx says that it gave a request up for a newer one. It ends with two lines: a request
/// that fails otherwise has another in the place of the first, which is kept.
fn is_of_replacement(message: &str) -> bool {
    message.contains("\"htmx:sendAbort\"") || message.contains("\"htmx:afterRequest\"")
}

async fn find_displayed(driver: &WebDriver, by: By) -> WebDriverResult<Option<WebElement>> {
    for element in driver.find_all(by).await? {
        if element.is_displayed().await? {
            return Ok(Some(element));
        }
    }
    Ok(None)
}

fn named(name: &str) -> String {
    let is_it = format!("normalize-space() = '{name}' or @aria-label = '{name}'");
    format!("//*[self::a or self::button][{is_it}]")
}

/// Whether an error may go away by itself, since the page is just changing.
fn is_passing(error: &WebDriverError) -> bool {
    use WebDriverErrorInner as E;
    let is_of_change = matches!(
        **error,
        E::StaleElementReference(_)
            | E::ElementNotInteractable(_)
            | E::ElementClickIntercepted(_)
            | E::NoSuchElement(_)
    );
    let text = error.to_string();
    // How ChromeDriver calls it, as long as it does not know yet that the page has gone.
    let of_other_page = [
        "does not belong to the document",
        "aborted by navigation",
        "document unloaded while waiting",
        "Cannot find context",
        "navigated or closed",
    ];
    is_of_change || of_other_page.iter().any(|words| text.contains(words))
}

fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn screenshots() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// ChromeDriver on a free port; killed when dropped, and Chromium with it.
struct ChromeDriver {
    child: Child,
    url: String,
    /// Held open: ChromeDriver would end by writing to a closed pipe.
    _output: BufReader<ChildStdout>,
}

impl ChromeDriver {
    /// Tried again a few times: ChromeDriver ends at once if another program takes the port that it
    /// chose.
    fn start() -> Self {
        assert!(Path::new(CHROMIUM).exists(), "{CHROMIUM} is missing");
        let started = (0..10).find_map(|_| Self::try_to_start());
        started.unwrap_or_else(|| panic!("{CHROMEDRIVER} names no port"))
    }

    fn try_to_start() -> Option<Self> {
        let mut child = Command::new(CHROMEDRIVER)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{CHROMEDRIVER} does not start: {e}"));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            if output.read_line(&mut line).unwrap() == 0 {
                child.wait().unwrap();
                return None;
            }
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim().trim_end_matches('.').to_owned();
            }
        };
        Some(Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            _output: output,
        })
    }
}

impl Drop for ChromeDriver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
