//! The server ends and starts again, and its clients do not notice. The orders to end, the sockets
//! and the messages of a service manager.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::*;

const DOMAIN: &str = "acme.com";
/// A 503 after more than this is a timeout, which is a right answer on a busy machine.
const LATE: Duration = Duration::from_millis(1_500);
/// For an answer that never comes, such as from a listener that nobody serves any more.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests of each kind that show that all is well between two restarts.
const MANY: usize = 50;

/// Programs that verify a key and send emails without a pause, with a new connection each time.
struct Load<'a> {
    program: &'a Program,
    is_over: AtomicBool,
    /// Answers with 200.
    gets: AtomicUsize,
    posts: AtomicUsize,
    /// Emails about which a late 503 says nothing.
    unknown: AtomicUsize,
    wrong: Mutex<Vec<String>>,
    /// How often each node, or row of nodes, has answered.
    nodes: Mutex<BTreeMap<String, usize>>,
}

impl<'a> Load<'a> {
    fn new(program: &'a Program) -> Self {
        Self {
            program,
            is_over: AtomicBool::default(),
            gets: AtomicUsize::default(),
            posts: AtomicUsize::default(),
            unknown: AtomicUsize::default(),
            wrong: Mutex::default(),
            nodes: Mutex::default(),
        }
    }

    /// Runs `meanwhile` beside four programs that verify and two that send.
    fn beside(&self, meanwhile: impl FnOnce()) {
        std::thread::scope(|scope| {
            let _end = SetWhenDropped(&self.is_over);
            for _ in 0..4 {
                scope.spawn(|| self.keep_asking("GET"));
            }
            for _ in 0..2 {
                scope.spawn(|| self.keep_asking("POST"));
            }
            meanwhile();
        });
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    fn keep_asking(&self, method: &str) {
        while !self.is_over.load(Ordering::SeqCst) {
            let request = match method {
                "GET" => self.program.with_key("GET", "/v2/verify"),
                _ => {
                    let body = email(&format!("hello@{DOMAIN}"));
                    self.program.with_key("POST", "/v2/emails").json(&body)
                }
            };
            let begun = Instant::now();
            let result = request
                .header("connection", "close")
                .timeout(PATIENCE)
                .send();
            let answer = match result {
                Ok(answer) => answer,
                Err(error) => {
                    self.note(format!("{method}: {error:?}"));
                    continue;
                }
            };
            if let Some(node) = answer.headers().get("x-node") {
                let mut nodes = self.nodes.lock().unwrap();
                *nodes.entry(node.to_str().unwrap().into()).or_default() += 1;
            }
            let count = match (answer.status().as_u16(), method) {
                (200, "GET") => &self.gets,
                (200, _) => &self.posts,
                (503, _) if begun.elapsed() > LATE => &self.unknown,
                (status, _) => {
                    self.note(format!("{method}: {status} {:?}", answer.text()));
                    continue;
                }
            };
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn note(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    /// Waits until many requests of each kind were answered, after now.
    fn see_answers(&self) {
        let counts = [&self.gets, &self.posts];
        let before = counts.map(|count| count.load(Ordering::SeqCst));
        until("requests are answered", || {
            let is_enough = |(count, before): (&&AtomicUsize, usize)| {
                count.load(Ordering::SeqCst) >= before + MANY
            };
            counts.iter().zip(before).all(is_enough) || !self.wrong.lock().unwrap().is_empty()
        });
    }

    /// Waits until this node, and no other one, has answered a request, after now.
    fn see_node(&self, node: SocketAddr) {
        let name = node.to_string();
        let answers = || self.nodes.lock().unwrap().get(&name).copied();
        let before = answers();
        until("the node is asked", || answers() > before);
    }

    /// Every email that was answered 200 is stored, and none twice.
    fn assert_stored_once(&self, database: &Database) {
        let stored = database.number("SELECT count(*) FROM emails") as usize;
        let sent = self.posts.load(Ordering::SeqCst);
        let unknown = self.unknown.load(Ordering::SeqCst);
        assert!(
            (sent..=sent + unknown).contains(&stored),
            "{sent} sent, {unknown} unknown, {stored} stored"
        );
    }
}

/// An account with a domain and a key for it.
fn make_key(dashboard: &Dashboard, database: &Database) -> String {
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(database, DOMAIN);
    owner.create_key("Key", "").1
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn address(dashboard: &Dashboard) -> SocketAddr {
    let address = dashboard.base.strip_prefix("http://").unwrap();
    address.parse().unwrap()
}

fn restarts_on_a_listener_that_stays_open(backend: Backend) {
    let database = Database::new(backend);
    let listener = listener();
    let start = || Dashboard::on_listener(&database, &listener, &[]);
    let mut dashboard = start();
    let address = listener.local_addr().unwrap();
    assert_eq!(dashboard.base, format!("http://{address}"));
    let program = dashboard.program(&make_key(&dashboard, &database));
    let load = Load::new(&program);
    load.beside(|| {
        for _ in 0..rounds("TOSEND_TEST_RESTARTS", 5, 20) {
            load.see_answers();
            assert!(dashboard.terminate());
            dashboard = start();
        }
        load.see_answers();
    });
    load.assert_stored_once(&database);
}

#[test]
fn a_restart_on_a_listener_that_stays_open_fails_no_request() {
    restarts_on_a_listener_that_stays_open(Backend::Sqlite);
}

#[test]
fn a_restart_on_a_listener_that_stays_open_fails_no_request_on_postgres() {
    restarts_on_a_listener_that_stays_open(Backend::Postgres);
}

/// With the lines of docs/scaling.md.
#[test]
fn nodes_on_postgres_are_replaced_one_after_the_other_behind_nginx_without_a_failed_request() {
    let database = Database::new(Backend::Postgres);
    let ports = [(); 2].map(|()| Port::reserve());
    let start = |port: &Port| {
        let listen = port.address().to_string();
        Dashboard::start(&database, &["--listen", &listen])
    };
    let mut nodes = [start(&ports[0]), start(&ports[1])];
    let key = make_key(&nodes[0], &database);
    let nginx = Gateway::balancing([ports[0].address(), ports[1].address()]);
    let program = Program::new(format!("http://{}", nginx.address), &key);
    let load = Load::new(&program);
    load.beside(|| {
        for _ in 0..rounds("TOSEND_TEST_RESTARTS", 2, 10) {
            for (node, port) in nodes.iter_mut().zip(&ports) {
                load.see_answers();
                assert!(node.terminate());
                load.see_answers();
                *node = start(port);
                load.see_node(port.address());
            }
        }
    });
    load.assert_stored_once(&database);
}

#[test]
fn readiness_ends_first_and_a_second_order_ends_the_wait() {
    let database = Database::new(Backend::Sqlite);
    let mut dashboard = Dashboard::start(&database, &["--drain-seconds", "3600"]);
    let program = dashboard.program(&make_key(&dashboard, &database));
    let visitor = dashboard.visitor();
    let kept = visitor.get("/readyz");
    assert_eq!((kept.status, kept.header("connection")), (200, None));

    dashboard.signal("TERM");
    until("readiness ends", || {
        let answer = visitor.get("/readyz");
        answer.status == 503 && answer.body == "the server is shutting down\n"
    });
    // Everything else goes on, over connections that are not used again.
    let verdict = program.verify();
    assert_eq!(verdict.status, 200);
    assert_eq!(verdict.header("connection"), Some("close"));
    assert_eq!(program.email_from(&format!("hello@{DOMAIN}")).status, 200);
    assert_eq!(visitor.get("/healthz").status, 200);
    assert!(dashboard.is_running());

    assert!(dashboard.terminate());
    let refused = TcpStream::connect(address(&dashboard));
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn every_order_to_end_lets_requests_finish() {
    for order in ["TERM", "INT", "QUIT"] {
        let database = Database::new(Backend::Sqlite);
        let mut dashboard = Dashboard::start(&database, &[]);
        let key = make_key(&dashboard, &database);
        let body = email(&format!("hello@{DOMAIN}")).to_string();
        let head = format!(
            "POST /v2/emails HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {key}\r\n\
             expect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut slow = Slow::begin(address(&dashboard), &head);
        // Now its handler is running.
        assert!(slow.interim().starts_with("HTTP/1.1 100 "));
        dashboard.signal(order);
        until("nobody is let in any more", || {
            TcpStream::connect(address(&dashboard)).is_err()
        });
        let answer = slow.end(&body).to_lowercase();
        assert!(answer.starts_with("http/1.1 200 "), "{order}: {answer}");
        assert!(
            answer.contains("\r\nconnection: close\r\n"),
            "{order}: {answer}"
        );
        assert!(dashboard.ends_well(), "{order}");
    }
}

#[test]
fn no_stray_signal_ends_it() {
    let database = Database::new(Backend::Sqlite);
    let mut dashboard = Dashboard::start(&database, &[]);
    for stray in ["HUP", "PIPE", "ALRM", "IO", "USR1", "USR2"] {
        dashboard.signal(stray);
        // Signals are delivered before the process runs on.
        assert_eq!(dashboard.visitor().get("/healthz").status, 200, "{stray}");
        assert!(dashboard.is_running(), "{stray}");
    }
    // A client that hangs up before it is answered.
    let mut stream = TcpStream::connect(address(&dashboard)).unwrap();
    stream
        .write_all(b"GET /docs/api HTTP/1.1\r\nhost: node\r\n\r\n")
        .unwrap();
    drop(stream);
    assert_eq!(dashboard.visitor().get("/docs/api").status, 200);
    assert!(dashboard.terminate());
}

/// Connections that nobody uses are closed, not waited for: requests would get 8 seconds.
#[test]
fn idle_connections_do_not_delay_the_end() {
    let database = Database::new(Backend::Sqlite);
    within(Duration::from_secs(6), |_| {
        let mut dashboard = Dashboard::start(&database, &[]);
        let silent = TcpStream::connect(address(&dashboard)).unwrap();
        let mut idle = TcpStream::connect(address(&dashboard)).unwrap();
        idle.set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: node\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let mut byte = [0];
            idle.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        dashboard.signal("TERM");
        assert_eq!(idle.read(&mut [0]).unwrap(), 0, "it is closed");
        assert!(dashboard.ends_well());
        drop(silent);
    });
}

#[test]
fn who_can_reach_a_passed_socket_decides_about_the_set_up_code() {
    let database = Database::new(Backend::Sqlite);
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let args = ["--listen", "127.0.0.1:0"];
    let dashboard = Dashboard::on_listener(&database, &everywhere, &args);
    assert!(
        dashboard.greeting.contains("set-up code"),
        "{}",
        dashboard.greeting
    );
}

#[test]
fn what_is_passed_must_be_one_listener() {
    let database = Database::new(Backend::Sqlite);
    let run = |sockets: &[OwnedFd]| {
        let mut server = with_sockets(&command(&database), sockets);
        let server = server.stderr(Stdio::piped()).spawn().unwrap();
        let mut server = Ended(server);
        let mut ended = None;
        until("it ends", || {
            ended = server.0.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().code(), Some(1));
        let mut told = String::new();
        server
            .0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();
        told
    };
    let told = run(&[listener().into(), listener().into()]);
    assert!(
        told.contains("2 sockets were passed by LISTEN_FDS: the server serves exactly one"),
        "{told}"
    );

    let open = listener();
    let connected = TcpStream::connect(open.local_addr().unwrap()).unwrap();
    let datagrams = UnixDatagram::unbound().unwrap();
    for wrong in [connected.into(), datagrams.into()] {
        let told = run(&[wrong]);
        assert!(
            told.contains("is not one that listens for TCP: write ListenStream="),
            "{told}"
        );
    }
}

/// A child of the test, ended with it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// systemd's own program passes the socket, as the unit does.
#[test]
fn systemd_passes_a_socket() {
    let database = Database::new(Backend::Sqlite);
    let port = Port::reserve();
    let server = command(&database);
    let mut activate = Command::new("systemd-socket-activate");
    activate.arg(format!("--listen={}", port.address()));
    for (name, value) in server.get_envs() {
        let (name, value) = (name.to_str().unwrap(), value.unwrap().to_str().unwrap());
        activate.arg(format!("--setenv={name}={value}"));
    }
    let activated = activate
        .arg(server.get_program())
        .current_dir(database.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _activated = Ended(activated);
    until("systemd listens", || {
        TcpStream::connect(port.address()).is_ok()
    });
    let visitor = Visitor::new(format!("http://{}", port.address()));
    assert_eq!(visitor.get("/healthz").status, 200);
}

/// What the service manager was told, one message after the other.
struct Told(UnixDatagram);

impl Told {
    fn listen(database: &Database) -> (Self, String) {
        let path = database.folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        (Self(socket), path.to_str().unwrap().to_owned())
    }

    fn next(&self) -> String {
        let mut told = [0; 100];
        let length = self.0.recv(&mut told).expect("a message");
        String::from_utf8(told[..length].to_vec()).unwrap()
    }

    fn skip_all(&self) {
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut [0; 100]).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
    }
}

#[test]
fn the_service_manager_is_told_of_readiness_life_and_end() {
    let database = Database::new(Backend::Sqlite);
    let (told, socket) = Told::listen(&database);
    let env = [("NOTIFY_SOCKET", &*socket), ("WATCHDOG_USEC", "1000000")];
    let mut dashboard = Dashboard::start_limited_with(&database, 64, 64, &env);
    assert_eq!(told.next(), "READY=1");
    assert_eq!(dashboard.visitor().get("/healthz").status, 200);
    assert_eq!([told.next(), told.next()], ["WATCHDOG=1", "WATCHDOG=1"]);

    // Clients that hold every connection: the process lives, and serves nobody.
    let head = "POST /v2/emails HTTP/1.1\r\nhost: node\r\ncontent-length: 100\r\n\r\n";
    let hold = || Slow::begin(address(&dashboard), head);
    let held: Vec<Slow> = (0..64).map(|_| hold()).collect();
    until("it does not answer itself", || {
        let log = std::fs::read_to_string(&dashboard.log).unwrap();
        log.contains("the server does not answer its own request")
    });
    told.skip_all();
    drop(held);
    assert_eq!(told.next(), "WATCHDOG=1");

    dashboard.signal("TERM");
    until("the end is told", || told.next() == "STOPPING=1");
    assert!(dashboard.ends_well());
}
