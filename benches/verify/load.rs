//! The load: many connections, each sending its next request when it has the answer to the last.
//! It shares the machine with the servers, so it allocates nothing and parses little.

use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::seed::{DomainText, KeyText};
use crate::server::Server;

const BEARER: &str = "Authorization: Bearer ";
const THREADS: usize = 2;
/// More than the head of any answer.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long after its end a sample may still wait for answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a case sends, and the status that it must get.
pub struct Requests {
    bytes: Vec<u8>,
    /// Where each request's own key goes.
    key_at: usize,
    keys: Arc<[KeyText]>,
    /// Where the name of its key's domain goes, and these names in the order of the keys.
    domain_at: Vec<usize>,
    domains: Arc<[DomainText]>,
    status: u16,
}

impl Requests {
    /// The same request again and again. `header`: empty, or a whole line.
    pub fn same(path: &str, header: &str, status: u16) -> Arc<Self> {
        Arc::new(Self {
            bytes: Self::bytes("GET", path, header, ""),
            key_at: 0,
            keys: Arc::new([]),
            domain_at: Vec::new(),
            domains: Arc::new([]),
            status,
        })
    }

    /// Each request with one of `keys`, chosen at random.
    pub fn with_keys(path: &str, keys: Arc<[KeyText]>, status: u16) -> Arc<Self> {
        let bytes = Self::bytes("GET", path, &Self::bearer(""), "");
        Arc::new(Self {
            key_at: Self::find_key(&bytes),
            bytes,
            keys,
            domain_at: Vec::new(),
            domains: Arc::new([]),
            status,
        })
    }

    /// So many emails per request, from the domain of the key that it carries.
    pub fn emails(
        path: &str,
        keys: Arc<[KeyText]>,
        domains: Arc<[DomainText]>,
        batch: Option<usize>,
    ) -> Arc<Self> {
        let room = str::repeat("_", size_of::<DomainText>());
        let email = format!(
            r#"{{"from": {{"email": "hello@{room}", "name": "Acme"}}, "to": [{{"email": "ada@example.org"}}],
            "subject": "Your order", "text": "Thank you for your order. It will be with you soon."}}"#
        );
        let body = match batch {
            None => email,
            Some(emails) => format!("[{}]", vec![email; emails].join(",")),
        };
        let headers = Self::bearer(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ));
        let bytes = Self::bytes("POST", path, &headers, &body);
        let text = String::from_utf8_lossy(&bytes);
        let sender = format!("@{room}");
        let at = text.match_indices(&sender);
        Arc::new(Self {
            key_at: Self::find_key(&bytes),
            domain_at: at.map(|(at, _)| at + 1).collect(),
            bytes,
            keys,
            domains,
            status: 200,
        })
    }

    fn bearer(others: &str) -> String {
        let room = str::repeat("_", size_of::<KeyText>());
        format!("{BEARER}{room}\r\n{others}")
    }

    fn find_key(bytes: &[u8]) -> usize {
        let at = bytes
            .windows(BEARER.len())
            .position(|w| w == BEARER.as_bytes());
        at.expect("a key's header") + BEARER.len()
    }

    fn bytes(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
        format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n{body}").into()
    }

    /// Puts a random key into a request.
    fn draw(&self, bytes: &mut [u8]) {
        if self.keys.is_empty() {
            return;
        }
        let drawn = rand::random_range(..self.keys.len());
        let key = &self.keys[drawn];
        bytes[self.key_at..][..key.len()].copy_from_slice(key);
        for at in &self.domain_at {
            let domain = &self.domains[drawn];
            bytes[*at..][..domain.len()].copy_from_slice(domain);
        }
    }
}

/// What came of one sample.
pub struct Sample {
    pub requests: usize,
    pub seconds: f64,
    /// CPU seconds that the server's process used.
    pub cpu: f64,
    /// From the first byte sent to the last byte read, in seconds.
    pub p50: f64,
    pub p99: f64,
}

impl Sample {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

/// Drives a server for a time over new connections.
///
/// # Errors
/// If any answer is not the expected one.
pub fn sample(
    server: &Server,
    requests: &Arc<Requests>,
    connections: u32,
    time: Duration,
) -> Result<Sample> {
    let streams = (0..connections).map(|_| StdStream::connect(server.address));
    let mut streams = streams.collect::<std::io::Result<Vec<_>>>()?;
    let (cpu, start) = (server.cpu()?, Instant::now());
    let mut latencies = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let share = streams.split_off(streams.len() - streams.len() / (THREADS - thread));
                scope.spawn(move || drive(share, requests, start + time))
            })
            .collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.collect::<Result<Vec<_>>>()
    })?
    .concat();
    let (cpu, seconds) = (server.cpu()? - cpu, start.elapsed().as_secs_f64());
    let mut percentile = |percent| {
        let rank = latencies.len() * percent / 100;
        let (_, micros, _) = latencies.select_nth_unstable(rank);
        f64::from(*micros) / 1e6
    };
    Ok(Sample {
        p50: percentile(50),
        p99: percentile(99),
        requests: latencies.len(),
        seconds,
        cpu: cpu.as_secs_f64(),
    })
}

/// One thread's connections. Gives the latency of each request in microseconds.
fn drive(streams: Vec<StdStream>, requests: &Arc<Requests>, end: Instant) -> Result<Vec<u32>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for stream in streams {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let stream = TcpStream::from_std(stream)?;
            tasks.push(tokio::spawn(converse(stream, requests.clone(), end)));
        }
        let mut latencies = Vec::new();
        for task in tasks {
            let last_call = tokio::time::Instant::from_std(end + PATIENCE);
            let answered = tokio::time::timeout_at(last_call, task).await;
            latencies.extend(answered.context("a request was not answered")???);
        }
        Ok(latencies)
    })
}

async fn converse(
    mut stream: TcpStream,
    requests: Arc<Requests>,
    end: Instant,
) -> Result<Vec<u32>> {
    let mut bytes = requests.bytes.clone();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut latencies = Vec::with_capacity(1 << 14);
    let mut now = Instant::now();
    while now < end {
        requests.draw(&mut bytes);
        stream.write_all(&bytes).await?;
        let status = read_answer(&mut stream, &mut buffer).await?;
        ensure!(
            status == requests.status,
            "{} was answered, not {}, to: {}",
            status,
            requests.status,
            String::from_utf8_lossy(&bytes).lines().next().unwrap_or("")
        );
        let before = std::mem::replace(&mut now, Instant::now());
        latencies.push((now - before).as_micros() as u32);
    }
    Ok(latencies)
}

/// Reads one answer to its end and gives its status.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<u16> {
    let mut filled = 0;
    let (status, length) = loop {
        filled += read(stream, &mut buffer[filled..]).await?;
        if let Some(head) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            let (status, body) = parse_head(&buffer[..head]).context("an answer is malformed")?;
            break (status, head + 4 + body);
        }
    };
    while filled < length {
        filled += read(stream, buffer).await?;
    }
    ensure!(filled == length, "more was answered than asked for");
    Ok(status)
}

async fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
    match stream.read(buffer).await? {
        0 => bail!("a connection was closed"),
        n => Ok(n),
    }
}

/// The status, and the length of the body.
fn parse_head(head: &[u8]) -> Option<(u16, usize)> {
    const LENGTH: &[u8] = b"content-length: ";
    let mut lines = head.split(|&b| b == b'\n');
    let status = lines.next()?.get(9..12)?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(LENGTH.len())?;
        name.eq_ignore_ascii_case(LENGTH).then_some(value)
    })?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    Some((
        text(status)?.parse().ok()?,
        text(length)?.trim().parse().ok()?,
    ))
}
