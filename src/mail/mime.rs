//! The message for the relay (RFC 5322), built from a stored email and signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::NaiveDateTime;
use lettre::Address;
use lettre::address::Envelope;
use lettre::message::header::{
    Cc, ContentDisposition, ContentId, ContentTransferEncoding, ContentType, Date, From, Header,
    HeaderName, HeaderValue, MIME_VERSION_1_0, MessageId, ReplyTo, Subject, To,
};
use lettre::message::{
    Body, DkimCanonicalization, DkimCanonicalizationType, DkimConfig, DkimSigningAlgorithm,
    DkimSigningKey, Mailbox as RfcMailbox, Mailboxes, Message as RfcMessage, MultiPart, SinglePart,
};
use secrecy::ExposeSecret;

use crate::domains::dkim::{self, DkimKey};
use crate::domains::name::DomainName;
use crate::emails::message::{Attachment, Mailbox, Message, fold};

/// The stack needed to sign a message: lettre parses headers with one nested call per character.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;
/// The most that relays accept: Postfix's `header_size_limit` is 100 KiB.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// RFC 5322, 2.1.1.
const MAX_LINE_BYTES: usize = 998;

/// Signed in every message, and listed once more than they occur (RFC 6376, 5.4.2), so that none
/// can be added on the way.
const ALWAYS_SIGNED: [&str; 9] = [
    "From",
    "Subject",
    "To",
    "Cc",
    "Reply-To",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
];

/// Prefixes of headers that the relays of providers act on and remove.
const OF_RELAYS: [&str; 5] = ["x-ses-", "x-smtpapi", "x-mailgun-", "x-pm-", "x-mc-"];

/// How the emails of a domain are signed.
pub struct Signature {
    domain: DomainName,
    key: DkimSigningKey,
}

impl Signature {
    /// The configuration for a message with these headers: RFC 6376, 5.4.1, and RFC 8058, 4.
    /// Headers that the relay removes are not signed.
    fn config(self, headers: &[HeaderName]) -> DkimConfig {
        let always = ALWAYS_SIGNED.map(HeaderName::new_from_ascii_str);
        let is_kept = |name: &&HeaderName| {
            let name = name.to_ascii_lowercase();
            !OF_RELAYS.iter().any(|begin| name.starts_with(begin))
        };
        let present = headers.iter().filter(is_kept).cloned();
        DkimConfig::new(
            dkim::SELECTOR.to_owned(),
            self.domain.to_string(),
            self.key,
            present.chain(always).collect(),
            DkimCanonicalization {
                header: DkimCanonicalizationType::Relaxed,
                body: DkimCanonicalizationType::Relaxed,
            },
        )
    }
}

/// The message and its envelope for the relay.
pub struct Mail {
    pub sender: Address,
    pub content: Vec<u8>,
    /// An address is not ASCII: only a relay with SMTPUTF8 (RFC 6531) can accept it.
    pub needs_utf8: bool,
}

/// Why an email cannot become a message, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Unsendable {
    #[error("It was stored in a form that cannot be read.")]
    Stored,
    #[error("An address cannot be written in a message.")]
    Address,
    #[error("The header {0} cannot be written in a message.")]
    HeaderName(String),
    #[error("An attachment is not base64.")]
    Attachment,
    #[error("Its headers are too long, or one has a word that is (RFC 5322, 2.1.1).")]
    Header,
    #[error("It cannot be turned into a message.")]
    Message(#[from] lettre::error::Error),
    /// A bug of ours, which must not be retried.
    #[error("It cannot be turned into a message.")]
    Panic,
}

/// The signing key of a domain.
///
/// # Errors
/// If lettre cannot use the key.
pub fn signature(key: &DkimKey, domain: &DomainName) -> Result<Signature, String> {
    let pem = key.private_pem().map_err(|e| e.to_string())?;
    let key = DkimSigningKey::new(pem.expose_secret(), DkimSigningAlgorithm::Rsa)
        .map_err(|e| e.to_string())?;
    Ok(Signature {
        domain: domain.clone(),
        key,
    })
}

/// All recipients, each once, as the relay gets them. Domains are compared case-insensitively.
///
/// # Errors
/// If an address cannot be passed to the relay.
pub fn recipients(message: &Message) -> Result<Vec<Address>, Unsendable> {
    let mut found: Vec<Address> = Vec::new();
    for mailbox in [&message.to, &message.cc, &message.bcc]
        .into_iter()
        .flatten()
    {
        let address = address(&mailbox.email)?;
        let is_same = |other: &Address| {
            other.user() == address.user() && other.domain().eq_ignore_ascii_case(address.domain())
        };
        if !found.iter().any(is_same) {
            found.push(address);
        }
    }
    Ok(found)
}

/// Builds the message. Recipients in bcc do not appear in it. Needs `STACK_BYTES` if it is signed.
///
/// # Errors
/// If it could not be sent as intended.
pub fn build(
    message: &Message,
    internet_id: &str,
    created_at: NaiveDateTime,
    signature: Option<Signature>,
) -> Result<Mail, Unsendable> {
    let sender = address(&message.from.email)?;
    let (content_type, encoding, body) = body(message)?;
    // lettre parses some headers again and does not understand all that it writes itself, so it
    // gets these after the rest.
    let nobody = Address::new_dangerous("nobody", "invalid.invalid");
    let mut built = RfcMessage::builder()
        .envelope(Envelope::new(Some(nobody.clone()), vec![nobody.clone()])?)
        .header(From::from(Mailboxes::from(RfcMailbox::from(nobody))))
        .header(Date::new(created_at.and_utc().into()))
        .body(Body::dangerous_pre_encoded(body, encoding))?;
    let headers = built.headers_mut();
    headers.set(From::from(mailboxes([&message.from])?));
    headers.set(To::from(mailboxes(&message.to)?));
    if !message.cc.is_empty() {
        headers.set(Cc::from(mailboxes(&message.cc)?));
    }
    if !message.reply_to.is_empty() {
        headers.set(ReplyTo::from(mailboxes(&message.reply_to)?));
    }
    headers.insert_raw(text_header(Subject::name(), &message.subject));
    headers.set(MessageId::from(format!(
        "<{internet_id}@{}>",
        sender.domain()
    )));
    for (name, value) in &message.headers {
        let name = HeaderName::new_from_ascii(name.clone())
            .map_err(|_| Unsendable::HeaderName(name.clone()))?;
        headers.insert_raw(text_header(name, value));
    }
    headers.set(MIME_VERSION_1_0);
    headers.set(content_type);
    let text = headers.to_string();
    if text.len() > MAX_HEADER_BYTES || text.lines().any(|line| line.len() > MAX_LINE_BYTES) {
        return Err(Unsendable::Header);
    }
    if let Some(signature) = signature {
        built.sign(&signature.config(&names_in(&text)));
    }
    Ok(Mail {
        sender,
        needs_utf8: !text.is_ascii(),
        content: built.formatted(),
    })
}

/// The names of the headers in their text form.
fn names_in(text: &str) -> Vec<HeaderName> {
    let begins = text.lines().filter(|line| !line.starts_with([' ', '\t']));
    let names = begins.filter_map(|line| Some(line.split_once(':')?.0.to_owned()));
    names
        .filter_map(|name| HeaderName::new_from_ascii(name).ok())
        .collect()
}

/// An address in the form for the relay: the domain in A-labels (RFC 5890).
fn address(email: &str) -> Result<Address, Unsendable> {
    let (user, domain) = email.rsplit_once('@').ok_or(Unsendable::Address)?;
    let domain = match domain.is_ascii() {
        true => domain.to_owned(),
        false => idna::domain_to_ascii(domain).map_err(|_| Unsendable::Address)?,
    };
    let is_line = |text: &str| !text.contains(|c: char| c.is_control() || "<>".contains(c));
    match is_line(user) && is_line(&domain) {
        true => Address::new(user, domain).map_err(|_| Unsendable::Address),
        false => Err(Unsendable::Address),
    }
}

fn mailboxes<'a>(
    mailboxes: impl IntoIterator<Item = &'a Mailbox>,
) -> Result<Mailboxes, Unsendable> {
    let mailbox = |mailbox: &Mailbox| {
        Ok(RfcMailbox::new(
            mailbox.name.clone(),
            address(&mailbox.email)?,
        ))
    };
    mailboxes.into_iter().map(mailbox).collect()
}

/// A header of plain text. If a word does not fit on a line, it is written in encoded words (RFC
/// 2047), which lettre does only for non-ASCII text; and lettre does not fold at tabs.
fn text_header(name: HeaderName, text: &str) -> HeaderValue {
    /// Bytes of text in an encoded word, which has at most 75 characters.
    const WORD_BYTES: usize = 45;
    let lines: Vec<String> = fold(&name, text).collect();
    if text.is_ascii() && lines.iter().all(|line| line.len() <= MAX_LINE_BYTES) {
        let folded = lines.join("\r\n").split_off(name.len() + ": ".len());
        return HeaderValue::dangerous_new_pre_encoded(name, text.to_owned(), folded);
    }
    let room = MAX_LINE_BYTES - name.len() - ": ".len();
    if text.split(' ').all(|word| word.len() < room) {
        return HeaderValue::new(name, text.to_owned());
    }
    let mut words = vec![String::new()];
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if word.len() + c.len_utf8() <= WORD_BYTES => word.push(c),
            _ => words.push(c.into()),
        }
    }
    let encoded: Vec<String> = words
        .iter()
        .map(|word| format!("=?utf-8?b?{}?=", STANDARD.encode(word)))
        .collect();
    HeaderValue::dangerous_new_pre_encoded(name, text.to_owned(), encoded.join("\r\n "))
}

/// A part of a message: lettre has two kinds.
enum Part {
    One(SinglePart),
    Many(MultiPart),
}

impl Part {
    fn into(self, whole: MultiPart) -> MultiPart {
        match self {
            Self::One(part) => whole.singlepart(part),
            Self::Many(part) => whole.multipart(part),
        }
    }
}

/// The body and the headers that describe it, which go into the message's headers so that they are
/// signed.
fn body(message: &Message) -> Result<(ContentType, ContentTransferEncoding, Vec<u8>), Unsendable> {
    let (headers, mut formatted) = match part(message)? {
        Part::One(part) => (part.headers().clone(), part.formatted()),
        Part::Many(part) => (part.headers().clone(), part.formatted()),
    };
    let end = b"\r\n\r\n";
    let begin = formatted
        .windows(end.len())
        .position(|window| window == end)
        .map_or(0, |at| at + end.len());
    // In place, because a message may have many MB.
    formatted.drain(..begin);
    Ok((
        headers.get().ok_or(Unsendable::Header)?,
        // In a multipart message each part has its own encoding.
        headers.get().unwrap_or(ContentTransferEncoding::SevenBit),
        formatted,
    ))
}

/// `mixed(alternative(text, related(html, inline …)), attachment …)` (RFC 2046, 5.1), with only the
/// levels that are needed.
fn part(message: &Message) -> Result<Part, Unsendable> {
    let (inline, attached): (Vec<_>, Vec<_>) = message
        .attachments
        .iter()
        .partition(|attachment| attachment.content_id.is_some());
    let text = message.text.as_deref();
    let text = text.map(|text| text_part(ContentType::TEXT_PLAIN, text));
    let html = message.html.as_deref();
    let html = html.map(|html| text_part(ContentType::TEXT_HTML, html));
    let (first, last) = match (text, html) {
        (Some(text), Some(html)) => (Some(text), html),
        (Some(only), None) | (None, Some(only)) => (None, only),
        (None, None) => (None, SinglePart::plain(String::new())),
    };
    let mut whole = Part::One(last);
    if !inline.is_empty() {
        whole = Part::Many(with(whole.into(MultiPart::related().build()), &inline)?);
    }
    if let Some(text) = first {
        whole = Part::Many(whole.into(MultiPart::alternative().singlepart(text)));
    }
    if !attached.is_empty() {
        whole = Part::Many(with(whole.into(MultiPart::mixed().build()), &attached)?);
    }
    Ok(whole)
}

fn text_part(kind: ContentType, text: &str) -> SinglePart {
    let part = SinglePart::builder().header(kind);
    // lettre would not encode it, but RFC 5321, 4.5.2 and RFC 2045, 2.7 require that.
    let part = match text.contains('\0') {
        true => part.header(ContentTransferEncoding::QuotedPrintable),
        false => part,
    };
    part.body(crlf(text))
}

fn with(mut whole: MultiPart, attachments: &[&Attachment]) -> Result<MultiPart, Unsendable> {
    for attachment in attachments {
        whole = whole.singlepart(attachment_part(attachment)?);
    }
    Ok(whole)
}

fn attachment_part(attachment: &Attachment) -> Result<SinglePart, Unsendable> {
    let content = STANDARD
        .decode(&attachment.content)
        .map_err(|_| Unsendable::Attachment)?;
    // Composite types must not be in base64 (RFC 2045, 6.4).
    let is_of_parts = |kind: &str| {
        let kind = kind.trim_start().to_ascii_lowercase();
        kind.starts_with("multipart/") || kind.starts_with("message/")
    };
    let kind = Some(attachment.media_type.as_str())
        .filter(|kind| !is_of_parts(kind))
        .and_then(|kind| ContentType::parse(kind).ok())
        .unwrap_or_else(octets);
    let part = SinglePart::builder().header(kind);
    let part = match &attachment.content_id {
        Some(id) => part
            .header(ContentId::from(format!(
                "<{}>",
                id.trim_matches(['<', '>'])
            )))
            .header(ContentDisposition::inline_with_name(&attachment.name)),
        None => part.header(ContentDisposition::attachment(&attachment.name)),
    };
    Ok(part.header(ContentTransferEncoding::Base64).body(content))
}

fn octets() -> ContentType {
    ContentType::parse("application/octet-stream").expect("a media type")
}

/// Text with CRLF line ends. (lettre's own conversion takes minutes for a long text.)
fn crlf(text: &str) -> String {
    text.replace("\r\n", "\n")
        .replace('\r', "\n")
        .replace('\n', "\r\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::clock;
    use crate::secret::SecretRing;

    const ID: &str = "0123456789abcdef";

    fn parse(value: &Value) -> Message {
        let message = Message::parse(value.clone()).expect("a valid email");
        let stored = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&stored).unwrap(), message);
        message
    }

    fn email(more: Value) -> Message {
        let mut email = json!({
            "from": {"email": "ada@acme.test", "name": "Ada"},
            "to": [{"email": "bob@example.org"}],
            "subject": "Hello",
            "text": "It works.",
        });
        for (name, value) in more.as_object().unwrap() {
            email[name] = value.clone();
        }
        parse(&email)
    }

    fn built(message: &Message) -> String {
        let mail = build(message, ID, clock::now(), None).unwrap();
        String::from_utf8(mail.content).unwrap()
    }

    /// The names of the headers before the first empty line, in lower case.
    fn header_names(content: &str) -> Vec<String> {
        let (head, _) = content
            .split_once("\r\n\r\n")
            .expect("an end of the headers");
        let is_begin = |line: &&str| !line.starts_with([' ', '\t']);
        head.split("\r\n")
            .filter(is_begin)
            .map(|line| {
                line.split_once(':')
                    .expect("a header")
                    .0
                    .to_ascii_lowercase()
            })
            .collect()
    }

    #[test]
    fn bcc_is_for_the_relay_alone() {
        let message = email(json!({
            "cc": [{"email": "cy@example.org", "name": "Cy"}, {"email": "bob@example.org"}],
            "bcc": [{"email": "dan@bücher.example", "name": "Dan"}],
        }));
        let all: Vec<String> = recipients(&message)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            all,
            [
                "bob@example.org",
                "cy@example.org",
                "dan@xn--bcher-kva.example"
            ]
        );
        let content = built(&message).to_lowercase();
        assert!(
            !content.contains("dan") && !content.contains("bcc"),
            "{content}"
        );
        assert!(content.contains(&format!("message-id: <{ID}@acme.test>\r\n")));
    }

    #[test]
    fn every_line_fits_whatever_the_text_is() {
        let long = "x".repeat(998);
        for (subject, text) in [
            (long.as_str(), "y".repeat(5_000)),
            ("Grüße", "ä".repeat(5_000)),
            ("Hello", "a\0b\rc\n.\n\n..\n".to_owned()),
        ] {
            let content = built(&email(json!({"subject": subject, "text": text})));
            assert!(content.lines().all(|line| line.len() <= MAX_LINE_BYTES));
            assert!(content.is_ascii() && !content.contains('\0'));
            assert_eq!(content.replace("\r\n", "").find(['\r', '\n']), None);
        }
        // Such an email may have been accepted before headers had a limit.
        let mut long = email(json!({"headers": {"X-Long": "x"}}));
        long.headers.insert("X-Long".into(), "x ".repeat(40_000));
        let failed = build(&long, ID, clock::now(), None);
        assert!(matches!(failed, Err(Unsendable::Header)));
    }

    #[test]
    fn a_text_of_very_many_lines_is_no_trouble() {
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let message = email(json!({"text": "\n".repeat(2_000_000) + "x"}));
            send.send(built(&message).len()).unwrap();
        });
        // With lettre's own conversion of line ends it would take hours.
        let bytes = receive.recv_timeout(Duration::from_secs(20 * 60)).unwrap();
        assert!(bytes > 4_000_000);
    }

    #[test]
    fn the_longest_headers_can_be_signed() {
        let folder = tempfile::tempdir().unwrap();
        let ring = SecretRing::read_or_make(&folder.path().join("secret")).unwrap();
        let domain = DomainName::parse("acme.test").unwrap();
        let key = DkimKey::generate().unwrap();
        let sealed = key.seal(ring.current(), &domain).unwrap();
        let key = DkimKey::open_with_any(&sealed, &ring, &domain).unwrap();
        // Such an email may have been accepted before names had a limit.
        let mut message = email(json!({}));
        message.to[0].name = Some("x ".repeat(30_000));
        let signed = move || {
            let signature = signature(&key, &domain).unwrap();
            build(&message, ID, clock::now(), Some(signature)).unwrap()
        };
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let mail = thread.spawn(signed).unwrap().join().unwrap();
        let content = String::from_utf8(mail.content).unwrap();
        assert!(header_names(&content).contains(&"dkim-signature".to_owned()));
        for name in &ALWAYS_SIGNED {
            assert!(content.contains(&name.to_lowercase()));
        }
    }

    fn hostile() -> impl Strategy<Value = String> {
        // Most pieces must be acceptable, or no message would be built.
        let piece = prop_oneof![
            20 => "\\PC{0,8}",
            20 => "[ -~]{0,80}",
            20 => Just("=?utf-8?q?=0D=0ABcc:_x?=".to_owned()),
            20 => Just("\\\"<>,;:@()".to_owned()),
            20 => Just("  \u{a0}\u{2028} ".to_owned()),
            20 => Just("é😀".to_owned()),
            1 => Just("\r\nBcc: eve@evil.test".to_owned()),
            1 => Just("\n\t\u{85}".to_owned()),
            1 => Just("\"; x=\"\r\n\r\n".to_owned()),
        ];
        proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
    }

    fn local_part() -> impl Strategy<Value = String> {
        prop_oneof![
            10 => Just("bob".to_owned()),
            1 => "[a-z!#$%&'*+/=?^_`{|}~.-]{1,10}",
            1 => "\"[ -~]{0,10}\"",
            1 => "\\PC{1,5}",
        ]
    }

    /// Usually an acceptable value.
    fn usually(good: &'static str) -> impl Strategy<Value = String> {
        prop_oneof![9 => good, 1 => hostile()]
    }

    prop_compose! {
        fn hostile_email()(
            user in local_part(),
            texts in proptest::collection::vec(hostile(), 7),
            header in usually("[A-Za-z0-9._-]{1,20}"),
            id in usually("[!#-;=?-\\[\\]-~]{0,20}"),
            kind in usually("(plain|x-y|html)(; name=[a-z]{1,5})?"),
            has_text in any::<bool>(),
        ) -> Value {
            let [from, to, cc, subject, header_value, file, body] = &texts[..] else {
                unreachable!()
            };
            let mailbox = |name| json!({"email": format!("{user}@example.org"), "name": name});
            json!({
                "from": {"email": "ada@acme.test", "name": from},
                "to": [mailbox(to), {"email": "bob@bücher.example"}],
                "cc": [mailbox(cc)],
                "bcc": [{"email": "hidden@secret.test", "name": "Hidden"}],
                "reply_to": {"email": "ada@acme.test", "name": to},
                "subject": format!("x{subject}"),
                "headers": {header: header_value},
                "attachments": [
                    {"type": format!("text/{kind}"), "name": format!("x{file}"), "content": "AAAA", "content_id": format!("x{id}")},
                    {"type": "text/plain", "name": format!("x{file}"), "content": "AAAA"},
                ],
                (if has_text { "text" } else { "html" }): format!("x{body}"),
            })
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_accepted_can_add_a_header(value in hostile_email()) {
            let message = Message::parse(value);
            prop_assume!(message.is_ok());
            let message = message.unwrap();
            let mail = build(&message, ID, clock::now(), None);
            let mail = mail.expect("what is accepted can be sent");
            recipients(&message).expect("what was built can be told");
            let content = String::from_utf8(mail.content).unwrap();
            let mut expected: BTreeMap<String, usize> = BTreeMap::new();
            for name in [
                "from", "to", "cc", "subject", "date", "message-id", "mime-version",
                "content-type", "content-transfer-encoding",
            ] {
                expected.insert(name.to_owned(), 1);
            }
            if !message.reply_to.is_empty() {
                expected.insert("reply-to".to_owned(), 1);
            }
            for name in message.headers.keys() {
                expected.insert(name.to_ascii_lowercase(), 1);
            }
            let mut found: BTreeMap<String, usize> = BTreeMap::new();
            for name in header_names(&content) {
                *found.entry(name).or_default() += 1;
            }
            prop_assert_eq!(found, expected);
            // The headers of the parts, each after a boundary.
            let (_, body) = content.split_once("\r\n\r\n").expect("a body");
            let body = format!("\r\n{body}");
            let parts = body.split("\r\n--").skip(1);
            let parts = parts.filter_map(|part| part.split_once("\r\n"));
            for (_, part) in parts.filter(|(boundary, _)| !boundary.ends_with("--")) {
                for name in header_names(&format!("{part}\r\n\r\n")) {
                    prop_assert!(name.starts_with("content-"), "{name} in {part}");
                }
            }
            prop_assert!(!content.contains("secret.test"));
            prop_assert!(content.lines().all(|line| line.len() <= MAX_LINE_BYTES));
            prop_assert_eq!(content.replace("\r\n", "").find(['\r', '\n', '\0']), None);
        }
    }
}
