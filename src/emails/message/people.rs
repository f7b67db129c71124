//! The sender, the recipients, and the addresses for replies.

use serde_json::{Map, Value};

use super::mailbox::{InvalidMailbox, Mailbox, address, display_name, mailbox};
use super::members::{has_control, nth, present};
use super::problems::Problems;
use crate::emails::address_list;

pub const MAX_RECIPIENTS: usize = 50;
/// The limit for all addresses and names in `to`, `cc` and `reply_to`, as written in the message:
/// relays accept headers of about 64 KiB.
pub const MAX_ADDRESSES_BYTES: usize = 28 * 1024;

pub(super) fn sender(fields: &Map<String, Value>, problems: &mut Problems) -> Mailbox {
    let nobody = Mailbox {
        email: String::new(),
        name: None,
    };
    let Some(value) = present(fields, "from") else {
        problems.tell("from", "required", "From is required.");
        return nobody;
    };
    let has_email = value
        .get("email")
        .and_then(Value::as_str)
        .is_some_and(|email| !email.trim().is_empty());
    if !has_email {
        problems.tell("from", "email_required", "From email is required.");
        return nobody;
    }
    mailbox(value).unwrap_or_else(|wrong| {
        let (code, sentence) = match wrong {
            InvalidMailbox::NoAddress => (
                "email_invalid",
                "From email is not a valid email address.",
            ),
            InvalidMailbox::NotAscii => (
                "email_invalid",
                "From email may contain only ASCII characters before the @: few mail servers accept others.",
            ),
            InvalidMailbox::Name => (
                "name_invalid",
                "From name must be text of at most 255 characters, without line breaks.",
            ),
        };
        problems.tell("from", code, sentence);
        nobody
    })
}

pub(super) fn recipients(
    fields: &Map<String, Value>,
    field: &'static str,
    problems: &mut Problems,
) -> Vec<Mailbox> {
    let list = match present(fields, field) {
        None => &[][..],
        Some(Value::Array(list)) => list,
        Some(_) => {
            problems.tell(
                field,
                "invalid",
                format!("The {field} field must be a list of objects with an email."),
            );
            return Vec::new();
        }
    };
    if list.is_empty() && field == "to" {
        problems.tell(field, "required", "At least one recipient is required.");
    }
    if list.len() > MAX_RECIPIENTS {
        problems.tell(
            field,
            "max_limit",
            format!("Maximum {MAX_RECIPIENTS} recipient email addresses are allowed."),
        );
        return Vec::new();
    }
    let mut mailboxes = Vec::with_capacity(list.len());
    let mut wrong = Vec::new();
    for (place, value) in (1..).zip(list) {
        match mailbox(value) {
            Ok(mailbox) => mailboxes.push(mailbox),
            Err(why) => wrong.push(format!("{} of {field} {}", nth(place), why.of_recipient())),
        }
    }
    if !wrong.is_empty() {
        problems.tell(field, "invalid", wrong.join(" "));
    }
    mailboxes
}

/// An object, text in the form of RFC 5322, or a list of them; entries that are not addresses are
/// dropped.
pub(super) fn reply_to(fields: &Map<String, Value>, problems: &mut Problems) -> Vec<Mailbox> {
    let values = match present(fields, "reply_to") {
        None => &[][..],
        Some(Value::Array(list)) => list,
        Some(value) => std::slice::from_ref(value),
    };
    let mut found: Vec<Mailbox> = Vec::new();
    for value in values {
        let (text, name) = match value {
            Value::Object(of) => (of.get("email"), of.get("name").and_then(Value::as_str)),
            text => (Some(text), None),
        };
        let text = text.and_then(Value::as_str).unwrap_or_default();
        // It may be folded as in a header (RFC 5322, 2.2.3).
        let text = text.replace("\r\n ", " ").replace("\r\n\t", " ");
        if has_control(&text) {
            continue;
        }
        let entries = address_list::parse(&text);
        let is_one = entries.len() == 1;
        for entry in entries {
            let Ok(email) = address(&entry.address) else {
                continue;
            };
            // If the name cannot be written, the address is still kept.
            let name = name.filter(|_| is_one).unwrap_or(&entry.name);
            let name = display_name(name).unwrap_or_default();
            if found.iter().all(|other| other.email != email) {
                found.push(Mailbox { email, name });
            }
            if found.len() > MAX_RECIPIENTS {
                let sentence =
                    format!("Maximum {MAX_RECIPIENTS} addresses for replies are allowed.");
                problems.tell("reply_to", "max_limit", sentence);
                return Vec::new();
            }
        }
    }
    found
}

/// Uses the format of earlier versions, which allowed at most one address, whenever it suffices:
/// emails that they stored must still be sent, and during a rolling upgrade an old node may have to
/// send a new email.
pub mod one_or_more {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Mailbox;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        More(Vec<Mailbox>),
        One(Option<Mailbox>),
    }

    pub fn serialize<S: Serializer>(list: &[Mailbox], to: S) -> Result<S::Ok, S::Error> {
        match list {
            [] | [_] => list.first().serialize(to),
            more => more.serialize(to),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Mailbox>, D::Error> {
        Ok(match Stored::deserialize(from)? {
            Stored::More(list) => list,
            Stored::One(mailbox) => mailbox.into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Message;
    use super::super::tests::{minimal, problem, with};
    use super::*;

    #[test]
    fn reply_to_takes_both_forms_and_drops_nonsense() {
        let reply_to = |value: Value| Message::parse(with("reply_to", value)).unwrap().reply_to;
        let ada = |name: Option<&str>| {
            vec![Mailbox {
                email: "ada@acme.test".into(),
                name: name.map(Into::into),
            }]
        };
        assert_eq!(reply_to(json!({"email": "ada@acme.test"})), ada(None));
        assert_eq!(reply_to(json!("Ada <ada@acme.test>")), ada(Some("Ada")));
        for nonsense in [
            json!("nobody"),
            json!({"email": 1}),
            json!("a\r\nb@c.test"),
            json!([]),
        ] {
            assert_eq!(reply_to(nonsense), []);
        }
    }

    #[test]
    fn every_address_for_replies_is_kept() {
        let told = |value: Value| {
            let message = Message::parse(with("reply_to", value)).unwrap();
            let stored = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<Message>(&stored).unwrap(), message);
            let told = message
                .reply_to
                .into_iter()
                .map(|mailbox| match mailbox.name {
                    Some(name) => format!("{name}={}", mailbox.email),
                    None => mailbox.email,
                });
            told.collect::<Vec<_>>().join(" ")
        };
        let ada = json!({"email": "ada@acme.test", "name": "Ada"});
        for (value, kept) in [
            (
                json!("ada@acme.test, bob@acme.test"),
                "ada@acme.test bob@acme.test",
            ),
            (
                json!("\"A, B\" <ada@acme.test>, bob@acme.test"),
                "A, B=ada@acme.test bob@acme.test",
            ),
            (
                json!("x, ada@acme.test, @, bob@acme.test"),
                "ada@acme.test bob@acme.test",
            ),
            (
                json!([ada, "Bob <bob@bücher.test>", "x", 7, null, []]),
                "Ada=ada@acme.test Bob=bob@xn--bcher-kva.test",
            ),
            (
                json!({"email": "ada@acme.test,bob@acme.test", "name": "Both"}),
                "ada@acme.test bob@acme.test",
            ),
            (
                json!({"email": "ada@acme.test", "name": 7}),
                "ada@acme.test",
            ),
            (
                json!({"email": "ada@acme.test", "name": "x".repeat(256)}),
                "ada@acme.test",
            ),
            (
                json!({"email": "ada@acme.test", "name": "a\r\nBcc: x"}),
                "ada@acme.test",
            ),
            (
                json!("Ada\r\n <ada@acme.test>,\r\n\tbob@acme.test"),
                "Ada=ada@acme.test bob@acme.test",
            ),
            (
                json!(["ada@acme.test", "Ada <ada@acme.test>"]),
                "ada@acme.test",
            ),
            (
                json!("ada@acme.test\r\nBcc: eve@acme.test, bob@acme.test"),
                "",
            ),
        ] {
            assert_eq!(told(value.clone()), kept, "{value}");
        }
        let many = |number: usize| {
            json!(
                (0..number)
                    .map(|n| format!("a{n}@x.test"))
                    .collect::<Vec<_>>()
            )
        };
        assert_eq!(told(many(50)).split(' ').count(), 50);
        assert_eq!(problem(&with("reply_to", many(51))), "reply_to.max_limit");
        // As stored by earlier versions.
        for (stored, number) in [(json!(null), 0), (ada.clone(), 1), (json!([ada, ada]), 2)] {
            let message = Message::parse(minimal()).unwrap();
            let mut fields = serde_json::to_value(message).unwrap();
            fields["reply_to"] = stored;
            let message: Message = serde_json::from_value(fields).unwrap();
            assert_eq!(message.reply_to.len(), number);
        }
    }

    #[test]
    fn names_and_addresses_are_bounded_together() {
        let many = |name: &str| {
            let all = (0..50).map(|n| json!({"email": format!("a{n}@x.test"), "name": name}));
            Value::from(all.collect::<Vec<_>>())
        };
        let mut email = with("to", many(&"x".repeat(250)));
        assert!(Message::parse(email.clone()).is_ok());
        email["cc"] = many("ä");
        assert!(Message::parse(email.clone()).is_ok());
        email["cc"] = many(&"ä".repeat(250));
        assert_eq!(problem(&email), "cc.max_length");
        email["cc"] = json!([]);
        email["bcc"] = many(&"ä".repeat(250));
        assert!(Message::parse(email).is_ok(), "it stands nowhere");
    }
}
