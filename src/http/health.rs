//! For monitoring: whether the server is alive, and whether it can work.

use std::io::{Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};

use super::Context;
use crate::background::Parts;
use crate::db::{Db, WriteFault, clock_watch, migrations};
use crate::ending::Ending;

/// How long the server's own request waits: to connect, to send, and for the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process answers. Does not touch the database.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .body("ok\n")
}

/// Whether the server at this address answers a request to `/healthz` in time.
pub fn is_answered(address: SocketAddr) -> bool {
    // The first word is the version.
    ask(address).is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

fn ask(address: SocketAddr) -> Result<String> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// `GET /readyz`: the database answers, takes writes and has all migrations, and every part of the
/// server runs; otherwise 503. It also warns if the clock is in doubt, little space is left on the
/// disk, or the journal of ends cannot be written.
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
    let warnings = doubt
        .map(|doubt| doubt.to_string())
        .into_iter()
        .chain(journal)
        .chain(space);
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
