//! The clients of the server: a visitor with a browser, a program with a key, or raw bytes.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use serde_json::Value;

use super::{EMAIL, PASSWORD, TITLE, until};

/// The address at which a program checks its key.
const VERIFY: &str = "/v2/verify";
/// How long a test waits for an answer: catches one that never comes, not a slow one.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a request is repeated.
const LONG_PATIENCE: Duration = Duration::from_secs(1_200);
/// A 503 after more than this is a timeout: the server waits at least two seconds for its database.
/// A faster 503 has another reason.
const LATE: Duration = Duration::from_millis(1_500);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    fn read(response: Response) -> reqwest::Result<Self> {
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text()?,
        })
    }

    /// Sends a request, and repeats it while the server answers that it ran out of time: on a busy
    /// machine that is a correct answer to any request, and not what a test is about.
    fn in_time(request: RequestBuilder) -> Self {
        let started = Instant::now();
        loop {
            let again = request.try_clone().expect("a body that is in memory");
            let begun = Instant::now();
            let answer = again.send().and_then(Self::read).expect("an answer");
            let is_late = answer.status == 503 && begun.elapsed() > LATE;
            if !is_late || started.elapsed() > LONG_PATIENCE {
                return answer;
            }
        }
    }

    /// Sends once. `None`: no answer, or only a part of one.
    pub fn once(request: RequestBuilder) -> Option<Self> {
        request.send().and_then(Self::read).ok()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    pub fn location(&self) -> Option<&str> {
        self.header("location")
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The value of a form's field, unescaped as far as tests need it.
    pub fn field(&self, name: &str) -> String {
        let from = format!("name=\"{name}\" value=\"");
        let rest = self
            .body
            .split_once(&from)
            .unwrap_or_else(|| panic!("no field {name} in {}", self.body))
            .1;
        rest.split('"').next().unwrap().to_owned()
    }

    /// The key shown in this answer.
    pub fn key(&self) -> String {
        self.find_key()
            .unwrap_or_else(|| panic!("no key in {} {}", self.status, self.body))
    }

    pub fn find_key(&self) -> Option<String> {
        self.body.split("tsend_").skip(1).find_map(|tail| {
            let tail = tail.get(..38)?;
            tail.bytes()
                .all(|b| b.is_ascii_alphanumeric())
                .then(|| format!("tsend_{tail}"))
        })
    }

    /// The id of the key with this name, if it is in the list.
    pub fn key_id(&self, name: &str) -> Option<i64> {
        let cell = format!("<bdi>{name}</bdi>");
        let mut rows = self.body.split("<tr id=\"key-").skip(1);
        let row = rows.find(|row| row.contains(&cell))?;
        row.split('"').next()?.parse().ok()
    }

    /// The ids of the sessions in the list, in order.
    pub fn session_ids(&self) -> Vec<String> {
        let forms = self.body.split("action=\"/settings/sessions/").skip(1);
        let ids = forms.filter_map(|form| form.split('"').next()?.strip_suffix("/end"));
        ids.map(str::to_owned).collect()
    }

    /// The ids of the keys in the list, in order.
    pub fn key_ids(&self) -> Vec<i64> {
        let rows = self.body.split("<tr id=\"key-").skip(1);
        rows.map(|row| row.split('"').next().unwrap().parse().unwrap())
            .collect()
    }
}

fn client() -> Client {
    Client::builder()
        .redirect(Policy::none())
        .timeout(PATIENCE)
        // The server closes idle connections: never send on one that may be closing.
        .pool_idle_timeout(Duration::from_secs(1))
        .no_proxy()
        .build()
        .unwrap()
}

/// A person with a browser: keeps the session's cookie, and sends the headers that browsers send.
pub struct Visitor {
    client: Client,
    base: Mutex<String>,
    /// The session cookie.
    cookie: Mutex<Option<String>>,
    /// The cookie of devices on which people signed in.
    device: Mutex<Option<String>>,
}

impl Visitor {
    pub fn new(base: String) -> Self {
        Self {
            client: client(),
            base: base.into(),
            cookie: Mutex::default(),
            device: Mutex::default(),
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path))
    }

    pub fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.send(self.same_origin("POST", path).form(form))
    }

    /// Requests a fragment as htmx does.
    pub fn htmx_get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).header("HX-Request", "true"))
    }

    pub fn htmx_post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let request = self.same_origin("POST", path);
        self.send(request.header("HX-Request", "true").form(form))
    }

    /// A request with this visitor's cookies, for tests that add their own headers.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base.lock().unwrap());
        let request = self.client.request(method.parse().unwrap(), url);
        match self.cookies() {
            cookies if cookies.is_empty() => request,
            cookies => request.header("cookie", cookies),
        }
    }

    pub fn same_origin(&self, method: &str, path: &str) -> RequestBuilder {
        self.request(method, path)
            .header("sec-fetch-site", "same-origin")
    }

    /// In the form in which browsers send them.
    pub fn cookies(&self) -> String {
        let (session, device) = (self.cookie(), self.device.lock().unwrap().clone());
        let both: Vec<String> = session.into_iter().chain(device).collect();
        both.join("; ")
    }

    pub fn device(&self) -> Option<String> {
        self.device.lock().unwrap().clone()
    }

    pub fn set_device(&self, cookie: Option<String>) {
        *self.device.lock().unwrap() = cookie;
    }

    /// Sends, repeats the request if the answer came too late, and keeps the cookies of the answer.
    pub fn send(&self, request: RequestBuilder) -> Answer {
        let answer = Answer::in_time(request);
        for set_cookie in answer.headers.get_all("set-cookie") {
            let pair = set_cookie.to_str().unwrap().split(';').next().unwrap();
            let is_removal = pair.ends_with('=');
            let kept = match pair.contains("tosend_device=") {
                true => &self.device,
                false => &self.cookie,
            };
            *kept.lock().unwrap() = (!is_removal).then(|| pair.to_owned());
        }
        answer
    }

    /// Like `post`, but sends only once, for when the server may die or wait for its database in
    /// vain. `None`: no answer.
    pub fn try_post(&self, path: &str, form: &[(&str, &str)]) -> Option<Answer> {
        Answer::once(self.same_origin("POST", path).form(form))
    }

    pub fn try_htmx_post(&self, path: &str, form: &[(&str, &str)]) -> Option<Answer> {
        let request = self.same_origin("POST", path);
        Answer::once(request.header("HX-Request", "true").form(form))
    }

    pub fn try_get(&self, path: &str) -> Option<Answer> {
        Answer::once(self.request("GET", path))
    }

    pub fn cookie(&self) -> Option<String> {
        self.cookie.lock().unwrap().clone()
    }

    pub fn set_cookie(&self, cookie: Option<String>) {
        *self.cookie.lock().unwrap() = cookie;
    }

    /// Continues at another address, with the same cookies.
    pub fn move_to(&self, base: &str) {
        *self.base.lock().unwrap() = base.to_owned();
    }

    /// Creates the first account.
    pub fn sign_up(&self) {
        let answer = self.post(
            "/signup",
            &[("title", TITLE), ("email", EMAIL), ("password", PASSWORD)],
        );
        assert_eq!(
            (answer.status, answer.location()),
            (303, Some("/api-keys")),
            "{}",
            answer.body
        );
    }

    pub fn sign_in(&self, email: &str) {
        let answer = self.post("/login", &[("email", email), ("password", PASSWORD)]);
        assert_eq!(answer.status, 303, "{}", answer.body);
    }

    /// The nonce of a new form.
    pub fn nonce(&self) -> String {
        self.get("/api-keys/new").field("nonce")
    }

    /// Creates a key with the form. `domain`: empty for all domains, or an id.
    pub fn create(&self, name: &str, domain: &str) -> Answer {
        let nonce = self.nonce();
        let mut form = vec![("nonce", nonce.as_str()), ("name", name)];
        form.extend(scope(domain));
        self.post("/api-keys", &form)
    }

    /// Creates a key and returns its id and the key.
    pub fn create_key(&self, name: &str, domain: &str) -> (i64, String) {
        let answer = self.create(name, domain);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let id = self.get("/api-keys").key_ids()[0];
        (id, answer.key())
    }

    /// Deletes a key as the page requires: if it is in use, by typing its name.
    pub fn delete_key(&self, id: impl Display) -> Answer {
        let path = format!("/api-keys/{id}/delete");
        let asked_for = |page: &str| {
            let (_, rest) = page.split_once("<bdi class=\"selectable\">")?;
            let (name, _) = rest.split_once("</bdi>")?;
            Some(name.replace("&#60;", "<").replace("&#62;", ">"))
        };
        let name = asked_for(&self.get(&path).body);
        let answer = self.post(&path, &[("name", name.as_deref().unwrap_or_default())]);
        // Its first use may have been recorded in between.
        match asked_for(&answer.body).filter(|_| name.is_none()) {
            Some(name) => self.post(&path, &[("name", &name)]),
            None => answer,
        }
    }

    /// Adds a domain and returns its id.
    pub fn add_domain(&self, name: &str) -> String {
        let answer = self.post("/domains", &[("name", name)]);
        assert_eq!(answer.status, 303, "{}", answer.body);
        let location = answer.location().unwrap();
        location.rsplit('/').next().unwrap().to_owned()
    }
}

/// A program that calls the API.
pub struct Program {
    client: Client,
    base: String,
    key: String,
}

impl Program {
    pub fn new(base: String, key: &str) -> Self {
        Self {
            client: client(),
            base,
            key: key.to_owned(),
        }
    }

    pub fn info(&self) -> Answer {
        self.send(self.with_key("GET", "/v2/info"))
    }

    /// Whether the key works; repeated until the server gives a verdict.
    pub fn verify(&self) -> Answer {
        let mut known = None;
        until("a verdict", || {
            let answer = self.try_verify().expect("an answer");
            known = Some(answer).filter(|answer| answer.status != 503);
            known.is_some()
        });
        known.expect("a verdict")
    }

    /// The status of `verify`.
    pub fn verdict(&self) -> u16 {
        self.verify().status
    }

    /// Like `verify`, but sends only once, so there may be no verdict. `None`: no answer.
    pub fn try_verify(&self) -> Option<Answer> {
        Answer::once(self.with_key("GET", VERIFY))
    }

    pub fn post(&self, body: &Value) -> Answer {
        self.send(self.email(body))
    }

    /// Like `post`, but sends only once. `None`: no answer.
    pub fn try_post(&self, body: &Value) -> Option<Answer> {
        Answer::once(self.email(body))
    }

    fn email(&self, body: &Value) -> RequestBuilder {
        self.with_key("POST", "/v2/emails").json(body)
    }

    /// Sends a plain email from this address.
    pub fn email_from(&self, from: &str) -> Answer {
        self.post(&email(from))
    }

    /// A request with the key.
    pub fn with_key(&self, method: &str, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(&self.key)
    }

    /// A request without the key.
    pub fn bare(&self, method: &str, path: &str) -> RequestBuilder {
        self.client
            .request(method.parse().unwrap(), format!("{}{path}", self.base))
    }

    /// Sends, and repeats the request if the answer came too late.
    pub fn send(&self, request: RequestBuilder) -> Answer {
        Answer::in_time(request)
    }
}

/// The form's fields for a key's scope, and no expiry. `domain`: empty for all domains, or an id.
pub fn scope(domain: &str) -> Vec<(&'static str, &str)> {
    match domain {
        "" => vec![("scope", "all"), ("expiry", "none")],
        id => vec![("scope", "domains"), ("domain", id), ("expiry", "none")],
    }
}

/// A plain email, as JSON.
pub fn email(from: &str) -> Value {
    serde_json::json!({
        "from": {"email": from},
        "to": [{"email": "bob@example.org"}],
        "subject": "Hello",
        "text": "It works.",
    })
}

/// Sends the bytes unchanged and reads until the server closes the connection.
pub fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request whose body arrives slowly.
pub struct Slow(TcpStream);

impl Slow {
    /// Sends only the head.
    pub fn begin(address: SocketAddr, head: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        Self(stream)
    }

    /// Reads an interim answer, up to the empty line.
    pub fn interim(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        String::from_utf8(head).unwrap()
    }

    /// Sends a part of the body.
    pub fn send(&mut self, part: &str) {
        self.0.write_all(part.as_bytes()).unwrap();
    }

    /// The same, to a server that may have closed the connection.
    pub fn try_send(&mut self, part: &str) {
        let _ = self.0.write_all(part.as_bytes());
    }

    /// Sends the body and reads until the server closes the connection, which it may have done
    /// before.
    pub fn end(&mut self, body: &str) -> String {
        self.try_send(body);
        let mut answer = Vec::new();
        let _ = self.0.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}
