//! An email address with a name.

use std::net::IpAddr;

use lettre::Address;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::members::has_control;
use crate::domains::name::DomainName;

/// For names of people and files, and the ids of attachments.
pub const MAX_NAME_CHARS: usize = 255;
/// RFC 5321, 4.5.3.1.1.
pub const MAX_LOCAL_PART_BYTES: usize = 64;
/// RFC 5321, 4.5.3.1.3: a path has 256, including its brackets.
pub const MAX_ADDRESS_BYTES: usize = 254;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mailbox {
    pub email: String,
    pub name: Option<String>,
}

impl Mailbox {
    /// The maximum length in a message's header.
    pub(super) fn written_bytes(&self) -> usize {
        /// Bytes of text in an encoded word (RFC 2047), and the length of such a word with its
        /// line.
        const TEXT: usize = 40;
        const WORD: usize = 78;
        let name = self.name.as_deref().unwrap_or_default();
        let name_bytes = match name.is_ascii() {
            true => name.len() + name.matches(['"', '\\']).count() + 2,
            false => (name.len() / TEXT + 1) * WORD,
        };
        name_bytes + self.email.len() + " <>,\r\n".len()
    }
}

/// Why a mailbox is not valid.
#[derive(Debug, PartialEq)]
pub(super) enum InvalidMailbox {
    NoAddress,
    /// RFC 6531 allows it, but few servers do.
    NotAscii,
    Name,
}

impl InvalidMailbox {
    pub(super) fn of_recipient(&self) -> &'static str {
        match self {
            Self::NoAddress => "has no valid email address.",
            Self::NotAscii => {
                "has an email with non-ASCII characters before the @, which few mail servers accept."
            }
            Self::Name => {
                "has a name that is not text, has line breaks, or more than 255 characters."
            }
        }
    }
}

/// `{"email": …, "name"?: …}`
pub(super) fn mailbox(value: &Value) -> Result<Mailbox, InvalidMailbox> {
    let email = value.get("email").and_then(Value::as_str);
    let email = address(email.ok_or(InvalidMailbox::NoAddress)?)?;
    let name = match value.get("name") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => display_name(name)?,
        Some(_) => return Err(InvalidMailbox::Name),
    };
    Ok(Mailbox { email, name })
}

pub(super) fn display_name(text: &str) -> Result<Option<String>, InvalidMailbox> {
    let name = text.trim();
    if has_control(text) || name.chars().count() > MAX_NAME_CHARS {
        return Err(InvalidMailbox::Name);
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// An address in the form for mail servers: its domain in A-labels (RFC 5890).
pub(super) fn address(text: &str) -> Result<String, InvalidMailbox> {
    let text = text.trim();
    let (local_part, domain) = text.rsplit_once('@').ok_or(InvalidMailbox::NoAddress)?;
    if !local_part.is_ascii() {
        return Err(InvalidMailbox::NotAscii);
    }
    let email = match domain.is_ascii() {
        true => text.to_owned(),
        false => {
            let domain = DomainName::of_address(domain).ok_or(InvalidMailbox::NoAddress)?;
            format!("{local_part}@{domain}")
        }
    };
    // A quoted local part could contain these characters, but few servers accept that; lettre does
    // not.
    let is_odd = |c: char| c.is_control() || matches!(c, '<' | '>');
    let is_bare_ip = domain.parse::<IpAddr>().is_ok();
    let is_address = email.parse::<Address>().is_ok()
        && !email.contains(is_odd)
        && !is_bare_ip
        && local_part.len() <= MAX_LOCAL_PART_BYTES
        && email.len() <= MAX_ADDRESS_BYTES;
    is_address.then_some(email).ok_or(InvalidMailbox::NoAddress)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Message;
    use super::super::tests::with;

    #[test]
    fn an_address_is_one_that_mail_servers_take() {
        let to = |email: &str| {
            let message = Message::parse(with("to", json!([{"email": email}])));
            message.map(|message| message.to[0].email.clone()).ok()
        };
        for (email, sent) in [
            ("b@bücher.test", "b@xn--bcher-kva.test"),
            (" B@BÜCHER.test ", "B@xn--bcher-kva.test"),
            ("B@Example.ORG", "B@Example.ORG"),
            ("\"b c\"@example.org", "\"b c\"@example.org"),
        ] {
            assert_eq!(to(email).as_deref(), Some(sent), "{email}");
        }
        let long = format!("{}@example.org", "x".repeat(65));
        for email in [
            "bü@example.org",
            "b@exa\tmple.org",
            "b@\u{202E}example.org",
            "\"x>y\"@acme.test",
            "\"<x\"@acme.test",
            "b@127.0.0.1",
            "b@acme.test.",
            "@r.test:b@acme.test",
            "@",
            &long,
        ] {
            assert_eq!(to(email), None, "{email}");
        }
    }
}
