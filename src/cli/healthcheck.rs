//! `tosend-dashboard healthcheck`: asks the server whether it is ready, for containers without curl.

use std::time::Duration;

use super::outcome::{CommandResult, one_line, print};
use crate::config::Config;
use crate::http::health::{ask, reachable};

/// The server itself needs up to four seconds while its database does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(config: &Config) -> CommandResult {
    let address = reachable(config.listen);
    if address.port() == 0 {
        return Err(
            "TOSEND_LISTEN has the port 0, which means any free one: name the server's port".into(),
        );
    }
    let answer = ask(address, "/readyz", PATIENCE)
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
