//! An email as the API accepts it, parsed from JSON; all errors are reported together.

mod attachments;
mod headers;
mod mailbox;
mod members;
mod people;
mod problems;
mod tags;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::attachments::attachments;
pub use self::attachments::{Attachment, MAX_ATTACHMENTS_BYTES};
use self::headers::headers;
pub use self::headers::{
    MAX_HEADER_LINE_BYTES, MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_HEADERS_BYTES, RESERVED_HEADERS,
    RESERVED_PREFIXES, fold,
};
pub use self::mailbox::{MAX_ADDRESS_BYTES, MAX_LOCAL_PART_BYTES, MAX_NAME_CHARS, Mailbox};
use self::members::{has_control, present};
pub use self::people::{MAX_ADDRESSES_BYTES, MAX_RECIPIENTS};
use self::people::{one_or_more, recipients, reply_to, sender};
pub use self::problems::Problems;
pub use self::tags::{MAX_MESSAGE_HASH_CHARS, MAX_TAG_KEY_CHARS, MAX_TAG_VALUE_CHARS, MAX_TAGS};
use self::tags::{message_hash, tags};
use super::plain_text;

/// RFC 5322, 2.1.1, for the line of the subject.
pub const MAX_SUBJECT_CHARS: usize = 998;

/// A valid email. It is stored in its serialized form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub from: Mailbox,
    pub to: Vec<Mailbox>,
    pub cc: Vec<Mailbox>,
    pub bcc: Vec<Mailbox>,
    #[serde(with = "self::one_or_more")]
    pub reply_to: Vec<Mailbox>,
    pub subject: String,
    pub html: Option<String>,
    pub text: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub attachments: Vec<Attachment>,
    pub tags: BTreeMap<String, String>,
    pub message_hash: Option<String>,
}

impl Message {
    /// Parses an email's JSON object; members that the API does not define are ignored. Long values
    /// are moved, not copied.
    pub fn parse(value: Value) -> Result<Self, Problems> {
        let mut fields = match value {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let mut problems = Problems::default();
        let message = Self {
            from: sender(&fields, &mut problems),
            to: recipients(&fields, "to", &mut problems),
            cc: recipients(&fields, "cc", &mut problems),
            bcc: recipients(&fields, "bcc", &mut problems),
            reply_to: reply_to(&fields, &mut problems),
            subject: subject(&fields, &mut problems),
            html: content(&mut fields, "html", &mut problems),
            text: content(&mut fields, "text", &mut problems),
            headers: headers(&fields, &mut problems),
            attachments: attachments(&mut fields, &mut problems),
            tags: tags(&fields, &mut problems),
            message_hash: message_hash(&fields, &mut problems),
        };
        message.check_addresses(&mut problems);
        let is_content_wrong = problems.iter().any(|p| matches!(p.field, "html" | "text"));
        if message.html.is_none() && message.text.is_none() && !is_content_wrong {
            problems.tell(
                "content",
                "required",
                "Either html or text content is required.",
            );
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(message)
    }

    /// Adds a text if the email has only HTML.
    pub fn with_text(mut self) -> Self {
        if self.text.is_none() {
            self.text = self.html.as_deref().and_then(plain_text::of_html);
        }
        self
    }

    fn check_addresses(&self, problems: &mut Problems) {
        let fields = [
            ("to", &self.to),
            ("cc", &self.cc),
            ("reply_to", &self.reply_to),
        ];
        let mut bytes = 0;
        for (field, mailboxes) in fields {
            bytes += mailboxes.iter().map(Mailbox::written_bytes).sum::<usize>();
            if bytes > MAX_ADDRESSES_BYTES {
                let sentence = format!(
                    "The names and addresses in to, cc and reply_to may have at most {} KB in total.",
                    MAX_ADDRESSES_BYTES / 1024
                );
                return problems.tell(field, "max_length", sentence);
            }
        }
    }

    /// Its approximate length when stored.
    pub fn estimated_bytes(&self) -> usize {
        let texts = [&self.html, &self.text].into_iter().flatten();
        let attachments = self
            .attachments
            .iter()
            .map(|attachment| &attachment.content);
        let bytes: usize = texts.chain(attachments).map(String::len).sum();
        bytes + bytes / 16 + 4 * 1024
    }

    /// The number of recipients, counting repeated ones each time.
    pub fn count_recipients(&self) -> usize {
        self.to.len() + self.cc.len() + self.bcc.len()
    }

    /// The part of the sender's address after the `@`.
    pub fn from_domain(&self) -> &str {
        self.from
            .email
            .rsplit_once('@')
            .map_or("", |(_, domain)| domain)
    }
}

fn subject(fields: &Map<String, Value>, problems: &mut Problems) -> String {
    let subject = match present(fields, "subject") {
        None => "",
        Some(Value::String(text)) => text.trim(),
        Some(_) => {
            problems.tell("subject", "invalid", "Subject must be text.");
            return String::new();
        }
    };
    if subject.is_empty() {
        problems.tell("subject", "required", "Subject is required.");
    } else if has_control(subject) {
        problems.tell(
            "subject",
            "invalid",
            "Subject must not contain line breaks or control characters.",
        );
    } else if subject.chars().count() > MAX_SUBJECT_CHARS {
        problems.tell(
            "subject",
            "max_length",
            format!("Subject may have at most {MAX_SUBJECT_CHARS} characters."),
        );
    }
    subject.to_owned()
}

fn content(
    fields: &mut Map<String, Value>,
    field: &'static str,
    problems: &mut Problems,
) -> Option<String> {
    match fields.remove(field)? {
        Value::Null => None,
        Value::String(text) => (!text.trim().is_empty()).then_some(text),
        _ => {
            problems.tell(field, "invalid", format!("The {field} field must be text."));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub(super) fn minimal() -> Value {
        json!({
            "from": {"email": "a@acme.test", "name": "Acme"},
            "to": [{"email": "b@example.org"}],
            "subject": "Hi",
            "text": "Hello",
        })
    }

    pub(super) fn with(field: &str, value: Value) -> Value {
        let mut message = minimal();
        message[field] = value;
        message
    }

    pub(super) fn problem(message: &Value) -> String {
        let problems = Message::parse(message.clone()).expect_err("a problem");
        let told: Vec<String> = problems
            .iter()
            .map(|p| format!("{}.{}", p.field, p.code))
            .collect();
        told.join(" ")
    }

    #[test]
    fn a_minimal_message_is_taken() {
        let message = Message::parse(minimal()).unwrap();
        assert_eq!(message.from_domain(), "acme.test");
        assert_eq!(message.to[0].email, "b@example.org");
        assert_eq!(message.html, None);
    }

    #[test]
    fn nothing_at_all_is_told_field_by_field() {
        for nothing in [json!({}), json!([]), json!(null), json!(7)] {
            assert_eq!(
                problem(&nothing),
                "from.required to.required subject.required content.required"
            );
        }
    }

    #[test]
    fn each_problem_has_its_code() {
        let many = vec![json!({"email": "b@example.org"}); 51];
        for (field, value, code) in [
            ("from", json!("a@acme.test"), "from.email_required"),
            ("from", json!({"email": ""}), "from.email_required"),
            ("from", json!({"email": "nobody"}), "from.email_invalid"),
            (
                "from",
                json!({"email": "a@b.test\r\nBcc: x@y.test"}),
                "from.email_invalid",
            ),
            (
                "from",
                json!({"email": "a@b.test", "name": "x\r\nBcc: x@y.test"}),
                "from.name_invalid",
            ),
            ("to", json!([]), "to.required"),
            ("to", json!({"email": "b@example.org"}), "to.invalid"),
            ("to", json!([{"email": "b"}]), "to.invalid"),
            ("to", json!(many), "to.max_limit"),
            ("cc", json!(many), "cc.max_limit"),
            ("bcc", json!(many), "bcc.max_limit"),
            ("bcc", json!(["b@example.org"]), "bcc.invalid"),
            ("subject", json!(" "), "subject.required"),
            ("subject", json!(1), "subject.invalid"),
            ("subject", json!("a\r\nBcc: x@y.test"), "subject.invalid"),
            ("subject", json!("x".repeat(999)), "subject.max_length"),
            ("text", json!(""), "content.required"),
            ("html", json!(["x"]), "html.invalid"),
            ("headers", json!({"X-A": 1}), "headers.invalid"),
            ("headers", json!({"X-A": "a\nb"}), "headers.invalid"),
            ("headers", json!({"X A": "a"}), "headers.invalid"),
            ("headers", json!({"bcc": "x@y.test"}), "headers.not_allowed"),
            (
                "headers",
                json!({"From": "x@y.test"}),
                "headers.not_allowed",
            ),
            (
                "headers",
                json!({"DKIM-Signature": "x"}),
                "headers.not_allowed",
            ),
            (
                "headers",
                json!({"Content-Type": "x"}),
                "headers.not_allowed",
            ),
            ("attachments", json!({}), "attachments.invalid"),
            (
                "attachments",
                json!([{"type": "a/b", "name": "n", "content": "%%%"}]),
                "attachments.invalid",
            ),
            ("tags", json!({"k": "v".repeat(257)}), "tags.max_length"),
            ("tags", json!({"k".repeat(129): "v"}), "tags.max_length"),
            (
                "message_hash",
                json!("h".repeat(256)),
                "message_hash.invalid",
            ),
        ] {
            assert_eq!(problem(&with(field, value.clone())), code, "{value}");
        }
    }

    #[test]
    fn an_api_key_in_the_request_is_not_part_of_the_message() {
        let message = Message::parse(with("api_key", json!("tsend_secret"))).unwrap();
        assert!(
            !serde_json::to_string(&message)
                .unwrap()
                .contains("tsend_secret")
        );
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let bad = json!({
            "from": {"email": "a@acme.test", "name": 7},
            "to": [{"email": "b@example.org"}, "c", {"email": "zoë@example.org"}],
            "cc": [{"email": "b@example.org", "name": "x".repeat(256)}],
            "subject": "",
            "headers": {"From": "x", "X-A": "a\nb", "X Y": "c", "Bcc": "d", "X-Ok": "e"},
            "attachments": [
                {"type": "image/png", "name": "a", "content": "AAAA"},
                {"type": "image", "name": "a", "content": "AAAA"},
                {"type": "image/png", "content": "AAAA"},
                {"type": "image/png", "name": "a", "content": "?"},
                {"type": "image/png", "name": "a", "content": "AAAA", "content_id": "a b"},
            ],
            "tags": {"a\nb": "c"},
        });
        assert_eq!(
            problem(&bad),
            "from.name_invalid to.invalid cc.invalid subject.required headers.invalid \
             headers.not_allowed attachments.invalid tags.invalid content.required"
        );
        let problems = Message::parse(bad.clone()).unwrap_err();
        let sentence = |field: &str, code: &str| {
            let mut problems = problems.iter();
            let problem = problems.find(|p| (p.field, p.code) == (field, code));
            problem.unwrap().sentence.clone().into_owned()
        };
        let to = sentence("to", "invalid");
        assert!(
            to.contains("Entry 2 of to") && to.contains("Entry 3 of to") && to.contains("ASCII")
        );
        let invalid = sentence("headers", "invalid");
        assert!(invalid.contains("X-A") && invalid.contains("X Y") && !invalid.contains("X-Ok"));
        let reserved = sentence("headers", "not_allowed");
        assert!(reserved.contains("From") && reserved.contains("Bcc"));
        let attachments = sentence("attachments", "invalid");
        for place in 2..=5 {
            assert!(
                attachments.contains(&format!("Entry {place} of")),
                "{attachments}"
            );
        }
        assert!(!attachments.contains("Entry 1 of"));
    }

    #[test]
    fn html_alone_gets_a_text() {
        let mut message = with("html", json!("<p>Hello <b>you</b></p>"));
        assert_eq!(
            Message::parse(message.clone())
                .unwrap()
                .with_text()
                .text
                .as_deref(),
            Some("Hello")
        );
        message["text"] = Value::Null;
        let text = Message::parse(message.clone())
            .unwrap()
            .with_text()
            .text
            .unwrap();
        assert!(text.contains("Hello") && text.contains("you") && !text.contains('<'));
        message["html"] = json!("<div>".repeat(5_000));
        assert_eq!(
            Message::parse(message.clone()).unwrap().with_text().text,
            None
        );
    }

    /// All texts that become a header line of the message or one of its parts.
    fn header_texts(message: &Message) -> Vec<&str> {
        let mailboxes = [&message.to, &message.cc, &message.bcc]
            .into_iter()
            .flatten();
        let mailboxes = mailboxes.chain([&message.from]).chain(&message.reply_to);
        let mut texts = vec![message.subject.as_str()];
        for mailbox in mailboxes {
            texts.push(&mailbox.email);
            texts.extend(mailbox.name.as_deref());
        }
        for (name, value) in message.headers.iter().chain(&message.tags) {
            texts.extend([name.as_str(), value]);
        }
        for attachment in &message.attachments {
            texts.extend([attachment.media_type.as_str(), &attachment.name]);
            texts.extend(attachment.content_id.as_deref());
        }
        texts.extend(message.message_hash.as_deref());
        texts
    }

    /// Usually valid text, sometimes with characters that would begin another line.
    fn any_text(fine: &'static str) -> impl Strategy<Value = String> {
        let odd = prop_oneof![
            Just("\r\nBcc: e@evil.test"),
            Just("\n"),
            Just("\r"),
            Just("\0"),
            Just("\t"),
            Just("\u{85}"),
            Just("\u{2028}"),
            Just("ü"),
            Just("\""),
            Just("<"),
            Just(","),
            Just(" "),
        ];
        prop_oneof![
            12 => Just(fine.to_owned()),
            1 => (0..=fine.len(), odd).prop_map(move |(place, odd)| {
                let (before, after) = fine.split_at(place);
                format!("{before}{odd}{after}")
            }),
        ]
    }

    fn any_email() -> impl Strategy<Value = Value> {
        let address = || (any_text("b@example.org"), any_text("Bob"));
        let mailbox = |(email, name): (String, String)| json!({"email": email, "name": name});
        let texts = (any_text("Hi"), any_text("Ada <a@b.test>"), any_text("hash"));
        let pairs = (any_text("X-A"), any_text("a"), any_text("k"), any_text("v"));
        let parts = (any_text("image/png"), any_text("a.png"), any_text("logo"));
        (address(), address(), texts, pairs, parts).prop_map(
            move |(from, to, (subject, reply_to, hash), (header, value, tag, label), parts)| {
                let (media_type, name, content_id) = parts;
                json!({
                    "from": mailbox(from),
                    "to": [mailbox(to)],
                    "reply_to": reply_to,
                    "subject": subject,
                    "text": "Hello",
                    "headers": {header: value},
                    "tags": {tag: label},
                    "attachments": [
                        {"type": media_type, "name": name, "content": "AAAA", "content_id": content_id},
                    ],
                    "message_hash": hash,
                })
            },
        )
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,20}".prop_map(Value::from),
        ];
        let field = prop_oneof![
            Just("from"),
            Just("to"),
            Just("cc"),
            Just("subject"),
            Just("email"),
            Just("name"),
            Just("headers"),
            Just("attachments"),
            Just("tags"),
            Just("reply_to"),
            Just("content"),
        ];
        leaf.prop_recursive(4, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::hash_map(field.clone().prop_map(str::to_owned), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn parsing_never_panics(value in any_json()) {
            let _ = Message::parse(value);
        }

        #[test]
        fn what_is_accepted_begins_no_line_of_its_own(email in any_email()) {
            if let Ok(message) = Message::parse(email) {
                for text in header_texts(&message) {
                    prop_assert!(!text.contains(['\r', '\n', '\0']), "{text:?}");
                }
            }
        }
    }
}
