//! For monitoring: whether the server is alive, and whether it can work.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};

use super::Context;
use crate::background::Parts;
use crate::db::{Db, WriteFault, clock_watch, migrations};
use crate::ending::Ending;

/// How long the server's own request takes at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much of an answer is read.
const MOST_BYTES: usize = 64 * 1024;

const UNRECORDED: &str = "triggers of the database are missing or disabled: every key is looked up; restart the server to put them back";

/// `GET /healthz`: the process answers. Does not touch the database.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .body("ok\n")
}

/// Whether the server at this address answers a request to `/healthz` in time.
pub fn is_answered(address: SocketAddr) -> bool {
    // The first word is the version.
    ask(reachable(address), "/healthz", PATIENCE)
        .is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

/// Where a server that listens on this address can be reached from its own machine.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The answer to a GET, with its head, as far as it fits into 64 KiB.
///
/// # Errors
/// If nobody answers, or the whole takes longer than `patience`.
pub fn ask(address: SocketAddr, path: &str, patience: Duration) -> Result<String> {
    let end = Instant::now() + patience;
    let left = || {
        let left = end.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(Error::new(ErrorKind::TimedOut, "it took too long")),
            false => Ok(left),
        }
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while answer.len() < MOST_BYTES {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => drop(left()?),
            Err(e) => return Err(e),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// `GET /readyz`: the database answers, takes writes and has all migrations, and every part of the
/// server runs; otherwise 503. It also warns if the clock is in doubt, little space is left on the
/// disk, the journal of ends cannot be written, or triggers are missing.
pub async fn ready(
    context: web::Data<Context>,
    parts: web::Data<Parts>,
    ending: web::Data<Ending>,
) -> HttpResponse {
    if ending.has_begun() {
        return HttpResponse::ServiceUnavailable()
            .insert_header((CACHE_CONTROL, "no-store"))
            .body("the server is shutting down\n");
    }
    let mut problems = match migrations::are_complete(&context.db).await {
        _ if context.db.check_place().is_err() => {
            vec![
                "the database’s file was deleted or replaced: put it back, or restore a backup"
                    .to_owned(),
            ]
        }
        Ok(true) => parts.list_down(),
        Ok(false) => vec!["migrations are missing".to_owned()],
        Err(error) => {
            tracing::warn!(%error, "not ready");
            vec!["the database does not answer".to_owned()]
        }
    };
    problems.extend(write_fault(&context.db));
    // Which does not prevent keys from being served.
    let doubt = context
        .db
        .read(clock_watch::find_doubt)
        .await
        .ok()
        .flatten();
    let journal = context.db.journal().filter(|journal| journal.is_failing());
    let journal = journal.map(|_| {
        "the journal of ends cannot be written: keys that end now would work again after a restore"
            .to_owned()
    });
    let space = context.db.little_space_left();
    let space = space.map(|mib| format!("the disk of the database has only {mib} MiB left"));
    let unrecorded = context.db.is_unrecorded().then(|| UNRECORDED.to_owned());
    let warnings = doubt
        .map(|doubt| doubt.to_string())
        .into_iter()
        .chain(journal)
        .chain(space)
        .chain(unrecorded);
    let warnings: String = warnings.map(|warning| format!("\n{warning}")).collect();
    let (mut response, text) = match problems.is_empty() {
        true => (HttpResponse::Ok(), format!("ready{warnings}")),
        false => (HttpResponse::ServiceUnavailable(), problems.join("\n")),
    };
    response
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(text + "\n")
}

fn write_fault(db: &Db) -> Option<String> {
    let sentence = match db.write_fault()? {
        WriteFault::DiskFull if db.is_postgres() => {
            "the disk of the database is full: make room there"
        }
        WriteFault::DiskFull => {
            "the disk of the database is full: only urgent changes are written; make room"
        }
        WriteFault::Other => "the database takes no writes",
    };
    Some(sentence.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_by_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
