//! An email as the API takes it: parsed from JSON with all problems told at once.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::Address;
use lettre::message::Mailbox as RfcMailbox;
use serde::Serialize;
use serde_json::{Map, Value};

pub const MAX_RECIPIENTS: usize = 50;
/// RFC 5322, 2.1.1, for the line that the subject becomes.
pub const MAX_SUBJECT_CHARS: usize = 998;
pub const MAX_ATTACHMENTS_BYTES: usize = 10 * 1024 * 1024;
pub const MAX_TAG_KEY_CHARS: usize = 128;
pub const MAX_TAG_VALUE_CHARS: usize = 256;
pub const MAX_MESSAGE_HASH_CHARS: usize = 255;

/// Headers that the other fields, the relay or the signature make.
pub const RESERVED_HEADERS: [&str; 11] = [
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "dkim-signature",
    "return-path",
];
/// So are all that begin like this.
pub const RESERVED_PREFIXES: [&str; 3] = ["content-", "mime-", "resent-"];

/// A valid email. Serialized, it is what is stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    pub from: Mailbox,
    pub to: Vec<Mailbox>,
    pub cc: Vec<Mailbox>,
    pub bcc: Vec<Mailbox>,
    pub reply_to: Option<Mailbox>,
    pub subject: String,
    pub html: Option<String>,
    pub text: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub attachments: Vec<Attachment>,
    pub tags: BTreeMap<String, String>,
    pub message_hash: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mailbox {
    pub email: String,
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attachment {
    #[serde(rename = "type")]
    pub media_type: String,
    pub name: String,
    /// Base64, as it came.
    pub content: String,
    pub content_id: Option<String>,
}

/// What is wrong with an email, in the order of its fields.
#[derive(Debug, Default, PartialEq)]
pub struct Problems(Vec<Problem>);

#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub field: &'static str,
    pub code: &'static str,
    pub sentence: Cow<'static, str>,
}

impl Problems {
    /// The one sentence for those who read only that.
    pub fn headline(&self) -> Cow<'static, str> {
        match self.0.first() {
            Some(Problem {
                field: "subject" | "content",
                code: "required",
                ..
            }) => "Subject and either html or text content are required.".into(),
            Some(problem) => problem.sentence.clone(),
            None => "The email is not valid.".into(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    fn tell(
        &mut self,
        field: &'static str,
        code: &'static str,
        sentence: impl Into<Cow<'static, str>>,
    ) {
        self.0.push(Problem {
            field,
            code,
            sentence: sentence.into(),
        });
    }
}

impl Message {
    /// Reads an email's JSON object; members that are none of the contract's are ignored.
    pub fn parse(value: &Value) -> Result<Self, Problems> {
        let no_fields = Map::new();
        let fields = value.as_object().unwrap_or(&no_fields);
        let mut problems = Problems::default();
        let message = Self {
            from: sender(fields, &mut problems),
            to: recipients(fields, "to", &mut problems),
            cc: recipients(fields, "cc", &mut problems),
            bcc: recipients(fields, "bcc", &mut problems),
            reply_to: reply_to(fields),
            subject: subject(fields, &mut problems),
            html: content(fields, "html", &mut problems),
            text: content(fields, "text", &mut problems),
            headers: headers(fields, &mut problems),
            attachments: attachments(fields, &mut problems),
            tags: tags(fields, &mut problems),
            message_hash: message_hash(fields, &mut problems),
        };
        let is_content_wrong = problems.iter().any(|p| matches!(p.field, "html" | "text"));
        if message.html.is_none() && message.text.is_none() && !is_content_wrong {
            problems.tell(
                "content",
                "required",
                "Either html or text content is required.",
            );
        }
        if problems.0.is_empty() {
            Ok(message)
        } else {
            Err(problems)
        }
    }

    /// The part of the sender's address behind the `@`.
    pub fn from_domain(&self) -> &str {
        self.from
            .email
            .rsplit_once('@')
            .map_or("", |(_, domain)| domain)
    }
}

fn sender(fields: &Map<String, Value>, problems: &mut Problems) -> Mailbox {
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
    mailbox(value).unwrap_or_else(|| {
        let (code, sentence) = match address(value) {
            None => ("email_invalid", "From email is not a valid email address."),
            Some(_) => (
                "name_invalid",
                "From name must be text without line breaks.",
            ),
        };
        problems.tell("from", code, sentence);
        nobody
    })
}

fn recipients(
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
    let mailboxes: Vec<Mailbox> = list.iter().filter_map(mailbox).collect();
    if mailboxes.len() < list.len() {
        problems.tell(
            field,
            "invalid",
            format!("The {field} field holds an invalid email address or name."),
        );
    }
    mailboxes
}

/// `{"email": …, "name"?: …}`
fn mailbox(value: &Value) -> Option<Mailbox> {
    let address = address(value)?;
    let name = match value.get("name") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if !has_control(name) => Some(name.trim().to_owned()),
        Some(_) => return None,
    };
    Some(Mailbox {
        email: address.to_string(),
        name: name.filter(|name| !name.is_empty()),
    })
}

fn address(value: &Value) -> Option<Address> {
    value.get("email")?.as_str()?.trim().parse().ok()
}

/// An object, or a mailbox in the form of RFC 5322; an invalid one is dropped.
fn reply_to(fields: &Map<String, Value>) -> Option<Mailbox> {
    match present(fields, "reply_to")? {
        Value::String(text) if !has_control(text) => {
            let parsed: RfcMailbox = text.parse().ok()?;
            Some(Mailbox {
                email: parsed.email.to_string(),
                name: parsed.name,
            })
        }
        object => mailbox(object),
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
            "Subject must not hold line breaks or control characters.",
        );
    } else if subject.chars().count() > MAX_SUBJECT_CHARS {
        problems.tell(
            "subject",
            "max_length",
            format!("Subject may have {MAX_SUBJECT_CHARS} characters at most."),
        );
    }
    subject.to_owned()
}

fn content(
    fields: &Map<String, Value>,
    field: &'static str,
    problems: &mut Problems,
) -> Option<String> {
    match present(fields, field)? {
        Value::String(text) => (!text.trim().is_empty()).then(|| text.clone()),
        _ => {
            problems.tell(field, "invalid", format!("The {field} field must be text."));
            None
        }
    }
}

fn headers(fields: &Map<String, Value>, problems: &mut Problems) -> BTreeMap<String, String> {
    let Some(pairs) = strings(fields, "headers", problems) else {
        return BTreeMap::new();
    };
    for (name, value) in &pairs {
        let lower = name.to_ascii_lowercase();
        // RFC 5322, 2.2: printable ASCII but for the colon.
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        if !is_name || has_control(value) {
            problems.tell(
                "headers",
                "invalid",
                "A custom header has an invalid name or a line break in its value.",
            );
            break;
        }
        let is_reserved = RESERVED_HEADERS.contains(&lower.as_str())
            || RESERVED_PREFIXES.iter().any(|p| lower.starts_with(p));
        if is_reserved {
            problems.tell(
                "headers",
                "not_allowed",
                format!("The header {name} cannot be set here."),
            );
            break;
        }
    }
    pairs
}

fn attachments(fields: &Map<String, Value>, problems: &mut Problems) -> Vec<Attachment> {
    let list = match present(fields, "attachments") {
        None => return Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => {
            problems.tell(
                "attachments",
                "invalid",
                "Attachments must be a list of objects.",
            );
            return Vec::new();
        }
    };
    let mut decoded_bytes = 0;
    let mut attachments = Vec::new();
    for value in list {
        let Some((attachment, bytes)) = attachment(value) else {
            problems.tell(
                "attachments",
                "invalid",
                "Each attachment needs a type, a name and its content in base64.",
            );
            return Vec::new();
        };
        decoded_bytes += bytes;
        attachments.push(attachment);
    }
    if decoded_bytes > MAX_ATTACHMENTS_BYTES {
        problems.tell(
            "attachments",
            "max_size",
            "Attachments may have 10 MB in all.",
        );
        return Vec::new();
    }
    attachments
}

/// With the number of bytes that the content decodes to.
fn attachment(value: &Value) -> Option<(Attachment, usize)> {
    let line = |field: &str| {
        let text = value.get(field)?.as_str()?.trim();
        (!text.is_empty() && !has_control(text)).then(|| text.to_owned())
    };
    let mut content = value.get("content")?.as_str()?.to_owned();
    // PHP's chunk_split and Python's encodebytes break lines.
    content.retain(|c| !c.is_ascii_whitespace());
    let bytes = STANDARD.decode(&content).ok()?.len();
    let content_id = match value.get("content_id") {
        None | Some(Value::Null) => None,
        Some(_) => Some(line("content_id")?),
    };
    let attachment = Attachment {
        media_type: line("type")?,
        name: line("name")?,
        content,
        content_id,
    };
    Some((attachment, bytes))
}

fn tags(fields: &Map<String, Value>, problems: &mut Problems) -> BTreeMap<String, String> {
    let Some(pairs) = strings(fields, "tags", problems) else {
        return BTreeMap::new();
    };
    let is_short = |(key, value): (&String, &String)| {
        key.chars().count() <= MAX_TAG_KEY_CHARS && value.chars().count() <= MAX_TAG_VALUE_CHARS
    };
    if !pairs.iter().all(is_short) {
        problems.tell("tags", "max_length", format!("A tag may have {MAX_TAG_KEY_CHARS} characters in its key and {MAX_TAG_VALUE_CHARS} in its value."));
    }
    pairs
}

/// An object of strings. PHP encodes an empty one as `[]`.
fn strings(
    fields: &Map<String, Value>,
    field: &'static str,
    problems: &mut Problems,
) -> Option<BTreeMap<String, String>> {
    let pairs: Option<BTreeMap<String, String>> = match present(fields, field)? {
        Value::Array(list) if list.is_empty() => return None,
        Value::Object(object) => object
            .iter()
            .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        _ => None,
    };
    if pairs.is_none() {
        problems.tell(
            field,
            "invalid",
            format!("The {field} field must be an object of strings."),
        );
    }
    pairs
}

fn message_hash(fields: &Map<String, Value>, problems: &mut Problems) -> Option<String> {
    let hash = present(fields, "message_hash")?;
    match hash.as_str() {
        Some("") => None,
        Some(text) if text.chars().count() <= MAX_MESSAGE_HASH_CHARS && !has_control(text) => {
            Some(text.to_owned())
        }
        _ => {
            problems.tell(
                "message_hash",
                "invalid",
                format!(
                    "The message_hash must be text of {MAX_MESSAGE_HASH_CHARS} characters at most."
                ),
            );
            None
        }
    }
}

fn present<'a>(fields: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

/// Line breaks above all: they would make new headers.
fn has_control(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && c != '\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn minimal() -> Value {
        json!({
            "from": {"email": "a@acme.test", "name": "Acme"},
            "to": [{"email": "b@example.org"}],
            "subject": "Hi",
            "text": "Hello",
        })
    }

    fn with(field: &str, value: Value) -> Value {
        let mut message = minimal();
        message[field] = value;
        message
    }

    fn problem(message: &Value) -> String {
        let problems = Message::parse(message).expect_err("a problem");
        let told: Vec<String> = problems
            .iter()
            .map(|p| format!("{}.{}", p.field, p.code))
            .collect();
        told.join(" ")
    }

    #[test]
    fn a_minimal_message_is_taken() {
        let message = Message::parse(&minimal()).unwrap();
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
    fn attachments_have_10_mb_in_all() {
        let half = STANDARD.encode(vec![0; MAX_ATTACHMENTS_BYTES / 2]);
        let file =
            |content: &str| json!({"type": "text/plain", "name": "a.txt", "content": content});
        assert!(Message::parse(&with("attachments", json!([file(&half), file(&half)]))).is_ok());
        assert_eq!(
            problem(&with(
                "attachments",
                json!([file(&half), file(&half), file("AA==")])
            )),
            "attachments.max_size"
        );
    }

    #[test]
    fn reply_to_takes_both_forms_and_drops_nonsense() {
        let reply_to = |value: Value| Message::parse(&with("reply_to", value)).unwrap().reply_to;
        let ada = |name: Option<&str>| {
            Some(Mailbox {
                email: "ada@acme.test".into(),
                name: name.map(Into::into),
            })
        };
        assert_eq!(reply_to(json!({"email": "ada@acme.test"})), ada(None));
        assert_eq!(reply_to(json!("Ada <ada@acme.test>")), ada(Some("Ada")));
        for nonsense in [
            json!("nobody"),
            json!({"email": 1}),
            json!("a\r\nb@c.test"),
            json!([]),
        ] {
            assert_eq!(reply_to(nonsense), None);
        }
    }

    #[test]
    fn an_api_key_in_the_request_is_not_part_of_the_message() {
        let message = Message::parse(&with("api_key", json!("tsend_secret"))).unwrap();
        assert!(
            !serde_json::to_string(&message)
                .unwrap()
                .contains("tsend_secret")
        );
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
            let _ = Message::parse(&value);
        }
    }
}
