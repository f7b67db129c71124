//! More connections than the system lets the server have.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::*;

const SOFT: u32 = 64;
const HARD: u32 = 256;

/// For what never comes, not for what is slow. Below the time for which idle connections are kept.
const LIMIT: Duration = Duration::from_secs(60);

fn connect(dashboard: &Dashboard) -> TcpStream {
    let stream = TcpStream::connect(dashboard.base.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Asks, and reads the head of the answer.
fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: node\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).expect("an answer in time");
        assert_ne!(read, 0, "cut off");
        answer.extend(&part[..read]);
    }
    String::from_utf8(answer).unwrap().to_lowercase()
}

fn open_files_limit(dashboard: &Dashboard) -> Vec<String> {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", dashboard.process()));
    let limits = limits.unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words = line.unwrap().split_whitespace().skip(3);
    words.take(2).map(str::to_owned).collect()
}

fn new_clients_are_served_beside_idle_ones(backend: Backend) {
    let database = Database::new(backend);
    let dashboard = Dashboard::start_limited(&database, SOFT, HARD);
    let hard = HARD.to_string();
    assert_eq!(open_files_limit(&dashboard), [hard.clone(), hard]);

    // Clients that keep their connections for later. Those that come when many are open are
    // answered, too, and told to connect again.
    let mut idle = Vec::new();
    let mut closed = 0;
    for _ in 0..2 * HARD {
        let mut stream = connect(&dashboard);
        match ask(&mut stream).contains("connection: close") {
            true => closed += 1,
            false => idle.push(stream),
        }
    }
    assert!(idle.len() as u32 > HARD / 8, "{}", idle.len());
    assert!(closed > HARD, "{closed}");
    let owner = dashboard.visitor();
    owner.sign_up();
    // Those that were kept serve on.
    ask(&mut idle[0]);

    // Clients that connect and say nothing.
    let silent: Vec<_> = (0..HARD).map(|_| connect(&dashboard)).collect();
    ask(&mut connect(&dashboard));
    assert_eq!(owner.get("/api-keys").status, 200);
    let log = std::fs::read_to_string(&dashboard.log).unwrap();
    assert!(!log.contains("Too many open files"), "{log}");

    // When there is room again, connections are kept again.
    drop((idle, silent));
    until("a connection is kept", || {
        !ask(&mut connect(&dashboard)).contains("connection: close")
    });
}

#[test]
fn new_clients_are_served_beside_idle_ones_on_sqlite() {
    new_clients_are_served_beside_idle_ones(Backend::Sqlite);
}

#[test]
fn new_clients_are_served_beside_idle_ones_on_postgres() {
    new_clients_are_served_beside_idle_ones(Backend::Postgres);
}
