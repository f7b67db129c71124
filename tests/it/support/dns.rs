//! A DNS server in this process, with records set by the test.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{NS, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use super::{App, until};

/// The maximum for an answer by UDP; a longer one is requested again by TCP (RFC 1035, 4.2.1).
const UDP_BYTES: usize = 512;
/// The maximum length of a string in a TXT record.
const STRING_BYTES: usize = 255;
/// In seconds; long enough that a test would notice a cache.
const TTL: u32 = 3600;

/// Answers queries for TXT records; a name without records does not exist. Names are
/// case-insensitive.
pub struct Dns {
    pub address: SocketAddr,
    zone: Arc<Zone>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A failure of every query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// "SERVFAIL": the server could not find out.
    ServerFailure,
    /// "REFUSED": it does not serve this client.
    Refusal,
    /// "NOTIMP".
    NotImplemented,
    /// "FORMERR" for queries with EDNS, which it does not support.
    NoEdns,
    /// No answer to queries with EDNS, as behind some firewalls.
    SilenceToEdns,
    /// It refers to other servers, like one without recursion.
    Referral,
    /// No answer at all.
    Silence,
}

#[derive(Default)]
struct Zone {
    /// The records of each name, and the strings of each record.
    records: Mutex<HashMap<String, Vec<Vec<String>>>>,
    trouble: Mutex<Option<Trouble>>,
    /// Names below this one get no answer.
    silent: Mutex<Option<String>>,
    /// The names that were queried, in order.
    names: Mutex<Vec<String>>,
    asked: AtomicUsize,
    by_tcp: AtomicUsize,
}

impl Dns {
    pub fn start() -> Self {
        let zone = Arc::new(Zone::default());
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let of_thread = zone.clone();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(async {
                    let (udp, tcp) = sockets().await;
                    tell.send(udp.local_addr().unwrap()).unwrap();
                    tokio::select! {
                        () = serve_udp(&of_thread, &udp) => {}
                        () = serve_tcp(&of_thread, &tcp) => {}
                        _ = stopped => {}
                    }
                });
        });
        Self {
            address: told.recv().unwrap(),
            zone,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Replaces the TXT records of a name by these.
    pub fn set(&self, name: &str, texts: &[&str]) {
        let strings = |text: &&str| {
            let strings = text.as_bytes().chunks(STRING_BYTES);
            let strings = strings.map(|part| String::from_utf8(part.to_vec()).unwrap());
            strings.collect()
        };
        let records = texts.iter().map(strings).collect();
        self.zone.records.lock().unwrap().insert(key(name), records);
    }

    pub fn remove(&self, name: &str) {
        self.zone.records.lock().unwrap().remove(&key(name));
    }

    /// The TXT records of a name, each as one text, as a verifier of signatures would find them.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let records = self.zone.records.lock().unwrap();
        let records = records.get(&key(name)).into_iter().flatten();
        records.map(|strings| strings.concat()).collect()
    }

    /// Applies from now on, until the next call.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        *self.zone.trouble.lock().unwrap() = trouble;
    }

    /// From now on, names below this one get no answer.
    pub fn silence(&self, below: &str) {
        *self.zone.silent.lock().unwrap() = Some(format!(".{below}"));
    }

    /// The names that were queried so far, in order.
    pub fn names(&self) -> Vec<String> {
        self.zone.names.lock().unwrap().clone()
    }

    /// The number of queries, by UDP and TCP.
    pub fn asked(&self) -> usize {
        self.zone.asked.load(Ordering::SeqCst)
    }

    /// The number of queries by TCP.
    pub fn asked_by_tcp(&self) -> usize {
        self.zone.by_tcp.load(Ordering::SeqCst)
    }

    /// Publishes the record that a domain's page shows, for the first domain of this name.
    pub fn publish(&self, app: &App, domain: &str) {
        let text = dkim_text(app, first(app, domain));
        self.set(&dkim_name(domain), &[&text]);
    }

    /// Publishes a domain's record, and waits until the server's own check finds it.
    pub fn verify(&self, app: &App, domain: &str) {
        self.publish(app, domain);
        let id = first(app, domain);
        check_until(app, id, || status(app, id) == "verified");
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The name of a domain's key record.
pub fn dkim_name(domain: &str) -> String {
    format!("tosend._domainkey.{domain}")
}

/// The text of that record. Waits for the domain's key.
pub fn dkim_text(app: &App, id: i64) -> String {
    let has_key =
        format!("SELECT COUNT(*) FROM sending_domains WHERE id = {id} AND dkim_public IS NOT NULL");
    until("the domain has a key", || {
        app.database.number(&has_key) == 1
    });
    let public = format!("SELECT dkim_public FROM sending_domains WHERE id = {id}");
    format!("v=DKIM1; k=rsa; p={}", app.database.text(&public))
}

/// The id of the first domain of this name.
pub fn first(app: &App, domain: &str) -> i64 {
    app.database.number(&format!(
        "SELECT MIN(id) FROM sending_domains WHERE name = '{domain}'"
    ))
}

pub fn status(app: &App, id: i64) -> String {
    app.database.text(&format!(
        "SELECT status FROM sending_domains WHERE id = {id}"
    ))
}

/// Repeatedly makes the server's own check of a domain due, until a condition holds: a check that
/// was already in progress reschedules the next one.
pub fn check_until(app: &App, id: i64, mut is_so: impl FnMut() -> bool) {
    until("the server checks the domain by itself", || {
        app.database.execute(&format!(
            "UPDATE sending_domains SET next_check_at = NULL WHERE id = {id}"
        ));
        std::thread::sleep(Duration::from_millis(100));
        is_so()
    });
}

/// The same port for both.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(zone: &Zone, socket: &UdpSocket) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let Some(mut answer) = zone.answer(&buffer[..length]) else {
            continue;
        };
        let mut bytes = answer.to_vec().unwrap();
        if bytes.len() > UDP_BYTES {
            answer.answers.clear();
            answer.metadata.truncation = true;
            bytes = answer.to_vec().unwrap();
        }
        let _ = socket.send_to(&bytes, from).await;
    }
}

async fn serve_tcp(zone: &Arc<Zone>, listener: &TcpListener) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let zone = zone.clone();
            tokio::spawn(async move {
                let _ = converse(&zone, stream).await;
            });
        }
    }
}

/// Serves a connection until the client closes it. Each message is preceded by its length (RFC
/// 1035, 4.2.2).
async fn converse(zone: &Zone, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        zone.by_tcp.fetch_add(1, Ordering::SeqCst);
        if let Some(answer) = zone.answer(&question) {
            let bytes = answer.to_vec().unwrap();
            stream.write_u16(bytes.len().try_into().unwrap()).await?;
            stream.write_all(&bytes).await?;
        }
    }
}

impl Zone {
    fn answer(&self, question: &[u8]) -> Option<Message> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let mut answer = Message::new(
            question.metadata.id,
            MessageType::Response,
            question.metadata.op_code,
        );
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        let name = key(&query.name().to_ascii());
        self.names.lock().unwrap().push(name.clone());
        let silent = self.silent.lock().unwrap();
        if silent.as_ref().is_some_and(|below| name.ends_with(below)) {
            return None;
        }
        let has_edns = question.edns.is_some();
        let refused = |mut answer: Message, code| {
            answer.metadata.response_code = code;
            Some(answer)
        };
        match *self.trouble.lock().unwrap() {
            Some(Trouble::Silence) => return None,
            Some(Trouble::SilenceToEdns) if has_edns => return None,
            Some(Trouble::NoEdns) if has_edns => return refused(answer, ResponseCode::FormErr),
            Some(Trouble::Refusal) => return refused(answer, ResponseCode::Refused),
            Some(Trouble::NotImplemented) => return refused(answer, ResponseCode::NotImp),
            Some(Trouble::ServerFailure) => return refused(answer, ResponseCode::ServFail),
            Some(Trouble::Referral) => {
                let elsewhere = Name::from_ascii("ns.elsewhere.test.").unwrap();
                let data = RData::NS(NS(elsewhere));
                answer.metadata.recursion_available = false;
                answer.add_authority(Record::from_rdata(query.name().clone(), TTL, data));
                return Some(answer);
            }
            Some(Trouble::NoEdns | Trouble::SilenceToEdns) | None => {}
        }
        let records = self.records.lock().unwrap();
        match records.get(&name) {
            None => answer.metadata.response_code = ResponseCode::NXDomain,
            Some(texts) if query.query_type() == RecordType::TXT => {
                for strings in texts {
                    let data = RData::TXT(TXT::new(strings.clone()));
                    answer.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
                }
            }
            Some(_) => {}
        }
        Some(answer)
    }
}

/// Normalizes a name: equal in any case, and with or without a trailing dot.
fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
