//! `tosend-dashboard healthcheck`: asks the server whether it is ready, for containers without curl.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::outcome::{Outcome, one_line, print};
use crate::config::Config;

/// The server itself needs up to four seconds while its database does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_BYTES: usize = 64 * 1024;

pub fn run(config: &Config) -> Outcome {
    let address = reachable(config.listen);
    if address.port() == 0 {
        return Err(
            "TOSEND_LISTEN has the port 0, which means any free one: name the server's port".into(),
        );
    }
    let answer = ask(address)
        .map_err(|e| format!("the server at {address} does not answer: {e}; is it running?"))?;
    match parsed(&answer) {
        Some((200, text)) if text.starts_with("ready") => print(text.trim_end()),
        Some((503, text)) => Err(format!(
            "the server at {address} is not ready: {}",
            one_line(text)
        )),
        _ => Err(format!(
            "what answers at {address} is not this server: check TOSEND_LISTEN"
        )),
    }
}

/// Where a server that listens on this address can be reached from its own machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The server's answer as far as it fits.
fn ask(address: SocketAddr) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    let left = || {
        let left = end.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(Error::new(ErrorKind::TimedOut, "it took too long")),
            false => Ok(left),
        }
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
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

/// The status and the body of an HTTP answer.
fn parsed(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    Some((status.parse().ok()?, body))
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

    #[test]
    fn what_is_no_answer_of_http_is_not_understood() {
        let right = "HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nno\n";
        assert_eq!(parsed(right), Some((503, "no\n")));
        for wrong in [
            "",
            "220 relay.test ESMTP\r\n",
            "HTTP/1.1 20",
            "HTTP/1.1 200 OK\r\n",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
