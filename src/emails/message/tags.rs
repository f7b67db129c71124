//! Data that programs attach to an email for their own use: tags and an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::members::{has_control, present, strings};
use super::problems::Problems;

pub const MAX_TAGS: usize = 100;
pub const MAX_TAG_KEY_CHARS: usize = 128;
pub const MAX_TAG_VALUE_CHARS: usize = 256;
pub const MAX_MESSAGE_HASH_CHARS: usize = 255;

pub(super) fn tags(
    fields: &Map<String, Value>,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
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

pub(super) fn message_hash(fields: &Map<String, Value>, problems: &mut Problems) -> Option<String> {
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
