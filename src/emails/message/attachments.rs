//! The attachments of an email.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::message::header::ContentType;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::mailbox::MAX_NAME_CHARS;
use super::members::{has_control, nth};
use super::people::MAX_RECIPIENTS;
use super::problems::Problems;

pub const MAX_ATTACHMENTS_BYTES: usize = 10 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    #[serde(rename = "type")]
    pub media_type: String,
    pub name: String,
    /// Base64, as received.
    pub content: String,
    pub content_id: Option<String>,
}

pub(super) fn attachments(
    fields: &mut Map<String, Value>,
    problems: &mut Problems,
) -> Vec<Attachment> {
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

/// Returns the attachment and its decoded size in bytes, or what is wrong with it.
pub(super) fn attachment(mut value: Value) -> Result<(Attachment, usize), &'static str> {
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
    // PHP's chunk_split and Python's encodebytes insert line breaks.
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

/// The decoded size in bytes, computed without decoding everything at once. `None`: not base64.
pub(super) fn decoded_bytes(base64: &str) -> Option<usize> {
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
        // Padding is allowed only at the end.
        is_over = length < decoded.len();
    }
    Some(bytes)
}

/// A media type that may be sent in base64; composite types may not (RFC 2045, 6.4).
pub(super) fn is_media_type(text: &str) -> bool {
    let has_parts = text.to_ascii_lowercase().starts_with("multipart/");
    text.is_ascii() && ContentType::parse(text).is_ok() && !has_parts
}

/// A Content-ID without its brackets (RFC 2392), which some clients include.
pub(super) fn content_id(text: &str) -> Option<String> {
    let inner = text
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    let id = inner.unwrap_or(text);
    let is_id = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'\\');
    (!id.is_empty() && id.bytes().all(is_id)).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Message;
    use super::super::tests::{problem, with};
    use super::*;

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
}
