//! Custom headers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::members::{has_control, strings};
use super::problems::Problems;

pub const MAX_HEADERS: usize = 100;
pub const MAX_HEADER_NAME_BYTES: usize = 76;
/// RFC 5322, 2.1.1, for each line of a header, which is folded at white space.
pub const MAX_HEADER_LINE_BYTES: usize = 998;
/// The limit for all custom headers together, including their names.
pub const MAX_HEADERS_BYTES: usize = 16 * 1024;

/// Headers that other fields produce, or that servers add on the way (RFC 5322, 3.6; RFC 8601).
pub const RESERVED_HEADERS: [&str; 16] = [
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "apparently-to",
    "delivered-to",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "return-path",
    "received",
    "received-spf",
    "authentication-results",
    "domainkey-signature",
];
/// MIME (RFC 2045), resending (RFC 5322, 3.6.6), and signatures (RFC 6376, RFC 8617).
pub const RESERVED_PREFIXES: [&str; 5] = ["content-", "mime-", "resent-", "dkim-", "arc-"];

pub(super) fn headers(
    fields: &Map<String, Value>,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let Some(pairs) = strings(fields, "headers", problems) else {
        return BTreeMap::new();
    };
    if pairs.len() > MAX_HEADERS {
        let sentence = format!("An email may have at most {MAX_HEADERS} additional headers.");
        problems.tell("headers", "max_limit", sentence);
        return BTreeMap::new();
    }
    let names = |is_wrong: &dyn Fn(&str, &str) -> bool| {
        let wrong = pairs.iter().filter(|(name, value)| is_wrong(name, value));
        let names: Vec<String> = wrong.map(|(name, _)| shortened(name)).collect();
        names.join(", ")
    };
    let invalid = names(&|name, value| !is_header(name, value));
    if !invalid.is_empty() {
        problems.tell(
            "headers",
            "invalid",
            format!("Not valid as headers: {invalid}. A name has up to {MAX_HEADER_NAME_BYTES} letters, digits, and any of - _ . ; a value has no line breaks, and enough white space to be folded into lines of {MAX_HEADER_LINE_BYTES} bytes."),
        );
    }
    let bytes = |(name, value): (&String, &String)| name.len() + ": \r\n".len() + value.len();
    if pairs.iter().map(bytes).sum::<usize>() > MAX_HEADERS_BYTES {
        let sentence = format!(
            "Headers may have at most {} KB in total, including their names.",
            MAX_HEADERS_BYTES / 1024
        );
        problems.tell("headers", "max_length", sentence);
    }
    let reserved = names(&|name, value| is_header(name, value) && is_reserved(name));
    if !reserved.is_empty() {
        let sentence = format!("These headers cannot be set here: {reserved}.");
        problems.tell("headers", "not_allowed", sentence);
    }
    pairs
}

/// Names use only the characters of RFC 5322, 2.2, that cause no server problems.
pub(super) fn is_header(name: &str, value: &str) -> bool {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=MAX_HEADER_NAME_BYTES).contains(&name.len())
        && name.bytes().all(is_name)
        && !has_control(value)
        && fold(name, value).all(|line| line.len() <= MAX_HEADER_LINE_BYTES)
}

/// The lines of a header, without line ends: folded as short as possible, but no shorter than
/// readers are used to. Each continuation begins with the white space at which it is folded (RFC
/// 5322, 2.2.3).
pub fn fold(name: &str, value: &str) -> impl Iterator<Item = String> {
    const WIDTH: usize = 76;
    let is_space = |c: char| matches!(c, ' ' | '\t');
    let mut line = format!("{name}: ");
    let mut rest = value.trim_matches(is_space);
    let mut is_first = true;
    std::iter::from_fn(move || {
        if rest.is_empty() && !is_first {
            return None;
        }
        loop {
            // A word, with the white space in front of it.
            let word = rest.len() - rest.trim_start_matches(is_space).len();
            let end = rest[word..]
                .find(is_space)
                .map_or(rest.len(), |at| word + at);
            let is_word_of_name = is_first && line.len() == name.len() + ": ".len();
            let fits = line.len() + end <= WIDTH;
            if !rest.is_empty() && (fits || line.is_empty() || is_word_of_name) {
                line.push_str(&rest[..end]);
                rest = &rest[end..];
            } else {
                is_first = false;
                return Some(std::mem::take(&mut line));
            }
        }
    })
}

pub(super) fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let has_prefix = RESERVED_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix));
    has_prefix || RESERVED_HEADERS.contains(&name.as_str())
}

/// The part of the input that an answer quotes.
pub(super) fn shortened(text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    format!("“{}”", shown.escape_debug())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Message;
    use super::super::tests::{problem, with};
    use super::*;

    #[test]
    fn headers_that_others_make_are_refused() {
        let code = |name: &str| problem(&with("headers", json!({ name: "x" })));
        for name in [
            "Sender",
            "TO",
            "cc",
            "Reply-To",
            "Subject",
            "Date",
            "Message-Id",
            "Return-Path",
            "Received",
            "Received-SPF",
            "Resent-From",
            "ARC-Seal",
            "Authentication-Results",
            "MIME-Version",
            "content-transfer-encoding",
            "DKIM-Signature",
        ] {
            assert_eq!(code(name), "headers.not_allowed", "{name}");
        }
        for name in ["X:A", "X A", "", "Ä", "x\0", &"x".repeat(77)] {
            assert_eq!(code(name), "headers.invalid", "{name}");
        }
        assert_eq!(
            problem(&with("headers", json!({"X-A": "x".repeat(994)}))),
            "headers.invalid"
        );
        let many: Map<String, Value> = (0..101).map(|n| (format!("X-{n}"), "x".into())).collect();
        assert_eq!(problem(&with("headers", json!(many))), "headers.max_limit");
        let fine = json!({
            "List-Unsubscribe": "<https://acme.test/u>", "In-Reply-To": "<a@b>", "X-Greeting": "Grüße",
            "X-Long": "x".repeat(990), "References": "<0123456789012345678901234567890123456789012345678901234567@a> ".repeat(20),
            "X-Tabs": "x\t".repeat(2_000), "X-Words": format!("{0} {0}", "x".repeat(980)),
        });
        assert!(Message::parse(with("headers", fine)).is_ok());
    }

    #[test]
    fn headers_have_16_kb_in_all() {
        let headers =
            |bytes: usize| json!({"X-A": "x ".repeat(bytes / 2), "X-B": "x ".repeat(100)});
        let rest = 2 * "X-A: \r\n".len() + 200;
        let most = MAX_HEADERS_BYTES - rest;
        assert!(Message::parse(with("headers", headers(most))).is_ok());
        assert_eq!(
            problem(&with("headers", headers(most + 2))),
            "headers.max_length"
        );
    }

    #[test]
    fn headers_are_folded_where_they_have_white_space() {
        let lines = |value: &str| fold("X-A", value).collect::<Vec<_>>().join("\r\n");
        let long = "y".repeat(70);
        for (value, folded) in [
            ("", "X-A: ".to_owned()),
            (" a  b\tc ", "X-A: a  b\tc".to_owned()),
            (
                &format!("{long} {long}\t{long}"),
                format!("X-A: {long}\r\n {long}\r\n\t{long}"),
            ),
            (
                &format!("a {long}{long}"),
                format!("X-A: a\r\n {long}{long}"),
            ),
            (
                &format!("{long}{long}  b"),
                format!("X-A: {long}{long}\r\n  b"),
            ),
        ] {
            assert_eq!(lines(value), folded, "{value}");
        }
    }

    #[test]
    fn headers_come_as_fluentsmtp_sends_them_too() {
        let listed = json!([{"X-A": "a"}, {"X-B": "b"}]);
        let message = Message::parse(with("headers", listed)).unwrap();
        assert_eq!(json!(message.headers), json!({"X-A": "a", "X-B": "b"}));
        let reserved = json!([{"X-A": "a"}, {"Bcc": "x@y.test"}]);
        assert_eq!(problem(&with("headers", reserved)), "headers.not_allowed");
        assert_eq!(
            problem(&with("headers", json!([["X-A", "a"]]))),
            "headers.invalid"
        );
    }
}
