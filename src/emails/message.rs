//! An email as the API takes it: parsed from JSON with all problems told at once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::Address;
use lettre::message::header::ContentType;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{address_list, plain_text};
use crate::domains::name::DomainName;

pub const MAX_RECIPIENTS: usize = 50;
/// RFC 5321, 4.5.3.1.1.
pub const MAX_LOCAL_PART_BYTES: usize = 64;
/// RFC 5321, 4.5.3.1.3: a path has 256 with its brackets.
pub const MAX_ADDRESS_BYTES: usize = 254;
/// Of a person, of a file, and of an attachment's id.
pub const MAX_NAME_CHARS: usize = 255;
/// RFC 5322, 2.1.1, for the line that the subject becomes.
pub const MAX_SUBJECT_CHARS: usize = 998;
pub const MAX_HEADERS: usize = 100;
pub const MAX_HEADER_NAME_BYTES: usize = 76;
/// RFC 5322, 2.1.1, for each line of a header: it is folded where it has white space.
pub const MAX_HEADER_LINE_BYTES: usize = 998;
/// Of all of them together, with their names.
pub const MAX_HEADERS_BYTES: usize = 16 * 1024;
/// Of the addresses and names in `to`, `cc` and `reply_to`, as they are written in the message:
/// relays take heads of some 64 KiB.
pub const MAX_ADDRESSES_BYTES: usize = 28 * 1024;
pub const MAX_ATTACHMENTS_BYTES: usize = 10 * 1024 * 1024;
pub const MAX_TAGS: usize = 100;
pub const MAX_TAG_KEY_CHARS: usize = 128;
pub const MAX_TAG_VALUE_CHARS: usize = 256;
pub const MAX_MESSAGE_HASH_CHARS: usize = 255;

/// Headers that the other fields make, or that servers add on the way (RFC 5322, 3.6; RFC 8601).
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
/// MIME (RFC 2045), resending (RFC 5322, 3.6.6), and what signs (RFC 6376, RFC 8617).
pub const RESERVED_PREFIXES: [&str; 5] = ["content-", "mime-", "resent-", "dkim-", "arc-"];

/// A valid email. Serialized, it is what is stored.
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mailbox {
    pub email: String,
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Reads an email's JSON object; members that are none of the contract's are ignored. What is
    /// long is taken out of it.
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
        if !problems.0.is_empty() {
            return Err(problems);
        }
        Ok(message)
    }

    /// With a text, if it has only HTML.
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

    /// About how long it is when it is stored.
    pub fn estimated_bytes(&self) -> usize {
        let texts = [&self.html, &self.text].into_iter().flatten();
        let attachments = self
            .attachments
            .iter()
            .map(|attachment| &attachment.content);
        let bytes: usize = texts.chain(attachments).map(String::len).sum();
        bytes + bytes / 16 + 4 * 1024
    }

    /// How many were named, each as often as they were.
    pub fn count_recipients(&self) -> usize {
        self.to.len() + self.cc.len() + self.bcc.len()
    }

    /// The part of the sender's address behind the `@`.
    pub fn from_domain(&self) -> &str {
        self.from
            .email
            .rsplit_once('@')
            .map_or("", |(_, domain)| domain)
    }
}

impl Mailbox {
    /// At most how long it is in a message's head.
    fn written_bytes(&self) -> usize {
        /// Bytes of text in an encoded word (RFC 2047), and such a word with its line.
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

/// In the form of earlier versions, which had one at most, wherever that can say it: emails that they
/// stored are still to be sent, and while nodes are renewed an old one may be to send a new one.
mod one_or_more {
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
    mailbox(value).unwrap_or_else(|wrong| {
        let (code, sentence) = match wrong {
            Wrong::NoAddress => (
                "email_invalid",
                "From email is not a valid email address.",
            ),
            Wrong::NotAscii => (
                "email_invalid",
                "From email may contain only ASCII characters before the @: few mail servers accept others.",
            ),
            Wrong::Name => (
                "name_invalid",
                "From name must be text of at most 255 characters, without line breaks.",
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

/// As a person counts the entries of a list, from 1.
fn nth(place: usize) -> String {
    format!("Entry {place}")
}

/// What is wrong with a mailbox.
#[derive(Debug, PartialEq)]
enum Wrong {
    NoAddress,
    /// RFC 6531 allows it, and few servers do.
    NotAscii,
    Name,
}

impl Wrong {
    fn of_recipient(&self) -> &'static str {
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
fn mailbox(value: &Value) -> Result<Mailbox, Wrong> {
    let email = value.get("email").and_then(Value::as_str);
    let email = address(email.ok_or(Wrong::NoAddress)?)?;
    let name = match value.get("name") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => display_name(name)?,
        Some(_) => return Err(Wrong::Name),
    };
    Ok(Mailbox { email, name })
}

fn display_name(text: &str) -> Result<Option<String>, Wrong> {
    let name = text.trim();
    if has_control(text) || name.chars().count() > MAX_NAME_CHARS {
        return Err(Wrong::Name);
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// An address as mail servers take it: its domain in A-labels (RFC 5890).
fn address(text: &str) -> Result<String, Wrong> {
    let text = text.trim();
    let (local_part, domain) = text.rsplit_once('@').ok_or(Wrong::NoAddress)?;
    if !local_part.is_ascii() {
        return Err(Wrong::NotAscii);
    }
    let email = match domain.is_ascii() {
        true => text.to_owned(),
        false => {
            let domain = DomainName::of_address(domain).ok_or(Wrong::NoAddress)?;
            format!("{local_part}@{domain}")
        }
    };
    // In a quoted part these would be allowed, and few servers take them; lettre does not.
    let is_odd = |c: char| c.is_control() || matches!(c, '<' | '>');
    let is_bare_ip = domain.parse::<IpAddr>().is_ok();
    let is_address = email.parse::<Address>().is_ok()
        && !email.contains(is_odd)
        && !is_bare_ip
        && local_part.len() <= MAX_LOCAL_PART_BYTES
        && email.len() <= MAX_ADDRESS_BYTES;
    is_address.then_some(email).ok_or(Wrong::NoAddress)
}

/// An object, text in the form of RFC 5322, or a list of them; what is no address is dropped.
fn reply_to(fields: &Map<String, Value>, problems: &mut Problems) -> Vec<Mailbox> {
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
        // As it may stand in a header (RFC 5322, 2.2.3).
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
            // A name that cannot be written is no reason to lose the address.
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

fn headers(fields: &Map<String, Value>, problems: &mut Problems) -> BTreeMap<String, String> {
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
            format!("Not valid as headers: {invalid}. A name has letters, digits and hyphens; a value has no line breaks, and enough white space to be folded into lines of {MAX_HEADER_LINE_BYTES} bytes."),
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

/// Of the characters that RFC 5322, 2.2, allows in a name, those that no server stumbles over.
fn is_header(name: &str, value: &str) -> bool {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=MAX_HEADER_NAME_BYTES).contains(&name.len())
        && name.bytes().all(is_name)
        && !has_control(value)
        && fold(name, value).all(|line| line.len() <= MAX_HEADER_LINE_BYTES)
}

/// The lines of a header, without their ends: as short as they can be, but not for less than what
/// readers are used to. Each begins with the white space that it is folded at (RFC 5322, 2.2.3).
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
            // A word, with the white space before it.
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

fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let has_prefix = RESERVED_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix));
    has_prefix || RESERVED_HEADERS.contains(&name.as_str())
}

/// What an answer quotes of something that was sent.
fn shortened(text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    format!("“{}”", shown.escape_debug())
}

fn attachments(fields: &mut Map<String, Value>, problems: &mut Problems) -> Vec<Attachment> {
    let list = match fields.remove("attachments") {
        None | Some(Value::Null) => return Vec::new(),
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
    let mut wrong = Vec::new();
    for (place, value) in (1..).zip(list) {
        match attachment(value) {
            Ok((attachment, bytes)) => {
                decoded_bytes += bytes;
                attachments.push(attachment);
            }
            Err(_) if wrong.len() == MAX_RECIPIENTS => {}
            Err(what) => wrong.push(format!("{} of attachments {what}", nth(place))),
        }
    }
    if !wrong.is_empty() {
        problems.tell("attachments", "invalid", wrong.join(" "));
    }
    if decoded_bytes > MAX_ATTACHMENTS_BYTES {
        let sentence = "Attachments may have at most 10 MB in total.";
        problems.tell("attachments", "max_size", sentence);
    }
    attachments
}

/// With the number of bytes that the content decodes to; else what it needs.
fn attachment(mut value: Value) -> Result<(Attachment, usize), &'static str> {
    let content = value.get_mut("content").map(Value::take);
    let line = |field: &str| {
        let text = value.get(field)?.as_str()?.trim();
        let is_line = (1..=MAX_NAME_CHARS).contains(&text.chars().count()) && !has_control(text);
        is_line.then_some(text)
    };
    let media_type = line("type").filter(|text| is_media_type(text));
    let media_type = media_type.ok_or("needs a type such as image/png.")?;
    let name = line("name").ok_or("needs a name of at most 255 characters.")?;
    let content_id = match value.get("content_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(_) => {
            let id = line("content_id").and_then(content_id);
            Some(id.ok_or("has a content_id with spaces or other special characters.")?)
        }
    };
    let needs_content = "needs its content in base64.";
    let Some(Value::String(mut content)) = content else {
        return Err(needs_content);
    };
    // PHP's chunk_split and Python's encodebytes break lines.
    content.retain(|c| !c.is_ascii_whitespace());
    let bytes = decoded_bytes(&content).ok_or(needs_content)?;
    let attachment = Attachment {
        media_type: media_type.to_owned(),
        name: name.to_owned(),
        content,
        content_id,
    };
    Ok((attachment, bytes))
}

/// How many bytes it stands for, found without holding them. `None`: it is no base64.
fn decoded_bytes(base64: &str) -> Option<usize> {
    const CHUNK: usize = 4 * 1024;
    let mut decoded = [0; CHUNK / 4 * 3];
    let mut bytes = 0;
    let mut is_over = false;
    for chunk in base64.as_bytes().chunks(CHUNK) {
        if is_over {
            return None;
        }
        let length = STANDARD.decode_slice(chunk, &mut decoded).ok()?;
        bytes += length;
        // Only the end may be padded.
        is_over = length < decoded.len();
    }
    Some(bytes)
}

/// One that may be sent in base64, which no part that has parts may be (RFC 2045, 6.4).
fn is_media_type(text: &str) -> bool {
    let has_parts = text.to_ascii_lowercase().starts_with("multipart/");
    text.is_ascii() && ContentType::parse(text).is_ok() && !has_parts
}

/// What stands between the brackets of a Content-ID (RFC 2392), which some clients send with it.
fn content_id(text: &str) -> Option<String> {
    let inner = text
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    let id = inner.unwrap_or(text);
    let is_id = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'\\');
    (!id.is_empty() && id.bytes().all(is_id)).then(|| id.to_owned())
}

fn tags(fields: &Map<String, Value>, problems: &mut Problems) -> BTreeMap<String, String> {
    let Some(pairs) = strings(fields, "tags", problems) else {
        return BTreeMap::new();
    };
    let is_short = |(key, value): (&String, &String)| {
        key.chars().count() <= MAX_TAG_KEY_CHARS && value.chars().count() <= MAX_TAG_VALUE_CHARS
    };
    if pairs.len() > MAX_TAGS {
        let sentence = format!("An email may have at most {MAX_TAGS} tags.");
        problems.tell("tags", "max_limit", sentence);
    } else if pairs
        .iter()
        .any(|(key, value)| has_control(key) || has_control(value))
    {
        problems.tell("tags", "invalid", "A tag must not contain line breaks.");
    } else if !pairs.iter().all(is_short) {
        problems.tell("tags", "max_length", format!("A tag may have at most {MAX_TAG_KEY_CHARS} characters in its key and {MAX_TAG_VALUE_CHARS} in its value."));
    }
    pairs
}

/// An object of strings. PHP encodes an empty one as `[]`, and FluentSMTP sends its headers as a list
/// of objects with one string each.
fn strings(
    fields: &Map<String, Value>,
    field: &'static str,
    problems: &mut Problems,
) -> Option<BTreeMap<String, String>> {
    let value = present(fields, field)?;
    let objects = value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice);
    let mut pairs = Some(BTreeMap::new());
    for object in objects {
        pairs = pairs.and_then(|mut pairs| {
            for (key, value) in object.as_object()? {
                pairs.insert(key.clone(), value.as_str()?.to_owned());
            }
            Some(pairs)
        });
    }
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
                    "The message_hash must be text of at most {MAX_MESSAGE_HASH_CHARS} characters."
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
    fn attachments_have_10_mb_in_all() {
        let half = STANDARD.encode(vec![0; MAX_ATTACHMENTS_BYTES / 2]);
        let file =
            |content: &str| json!({"type": "text/plain", "name": "a.txt", "content": content});
        assert!(Message::parse(with("attachments", json!([file(&half), file(&half)]))).is_ok());
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
        // As earlier versions stored it.
        for (stored, number) in [(json!(null), 0), (ada.clone(), 1), (json!([ada, ada]), 2)] {
            let message = Message::parse(minimal()).unwrap();
            let mut fields = serde_json::to_value(message).unwrap();
            fields["reply_to"] = stored;
            let message: Message = serde_json::from_value(fields).unwrap();
            assert_eq!(message.reply_to.len(), number);
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

    #[test]
    fn an_inline_attachment_keeps_its_id_without_brackets() {
        let id = |id: Value| {
            let file =
                json!({"type": "image/png", "name": "a.png", "content": "AAAA", "content_id": id});
            let message = Message::parse(with("attachments", json!([file])));
            message
                .map(|message| message.attachments[0].content_id.clone())
                .ok()
        };
        assert_eq!(id(json!("logo")), Some(Some("logo".into())));
        assert_eq!(
            id(json!("<logo@acme.test>")),
            Some(Some("logo@acme.test".into()))
        );
        assert_eq!(id(json!("")), Some(None));
        for wrong in [
            json!("a b"),
            json!("a>"),
            json!(7),
            json!("a\r\nb"),
            json!("<>"),
        ] {
            assert_eq!(id(wrong.clone()), None, "{wrong}");
        }
    }

    /// All that becomes a line of a message's head, or of a part's.
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

    /// Often fine, sometimes with what would begin another line.
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
