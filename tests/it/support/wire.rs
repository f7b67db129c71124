//! A connection that is kept open, for thousands of requests with the start time of each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Catches what never happens, not what is slow.
const LIMIT: Duration = Duration::from_secs(60);

/// Repeats a request while the server had no answer in time, which is neither an acceptance nor a
/// refusal.
pub fn known(mut ask: impl FnMut() -> Answered) -> Answered {
    let started = Instant::now();
    loop {
        let answer = ask();
        if answer.status != 503 || started.elapsed() > LIMIT {
            return answer;
        }
    }
}

/// Connected at the first request, because the server closes connections that send nothing.
pub struct Wire {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

#[derive(Debug)]
pub struct Answered {
    /// Taken before the first byte of the request was sent.
    pub begun: Instant,
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Wire {
    pub fn to(base: &str) -> Self {
        Self {
            address: base.strip_prefix("http://").unwrap().to_owned(),
            stream: None,
        }
    }

    fn stream(&mut self) -> &mut BufReader<TcpStream> {
        self.stream.get_or_insert_with(|| {
            let stream = TcpStream::connect(&self.address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            BufReader::new(stream)
        })
    }

    /// Whether the key works; for a domain, if the path contains one.
    pub fn get(&mut self, path: &str, key: &str) -> Answered {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {key}\r\n\r\n"
        ))
    }

    /// Sends an email.
    pub fn post(&mut self, key: &str, email: &Value) -> Answered {
        let body = email.to_string();
        self.send(&format!(
            "POST /v2/emails HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Returns when the answer is complete.
    pub fn send(&mut self, request: &str) -> Answered {
        let stream = self.stream();
        let begun = Instant::now();
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).unwrap(), 0, "cut off: {head}");
        }
        let (_, length) = head.split_once("content-length: ").expect("a length");
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let status = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
        Answered {
            begun,
            status,
            head,
            body: String::from_utf8(body).unwrap(),
        }
    }
}

impl Answered {
    /// `accepted`, or the code of the refusal.
    pub fn verdict(&self) -> String {
        if self.status == 200 {
            return "accepted".to_owned();
        }
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let errors = body["errors"].as_object().into_iter().flatten();
        let mut codes = errors.filter_map(|(_, codes)| codes.as_object()?.keys().next().cloned());
        codes.next_back().unwrap_or_else(|| self.status.to_string())
    }
}
