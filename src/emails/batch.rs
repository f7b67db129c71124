//! A batch as the API accepts it: `{"emails": […]}`, or only the list.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The maximum number of emails per request.
pub const MOST: usize = 100;

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum NoBatch {
    #[error("The request body is not valid JSON.")]
    Unreadable,
    #[error("Emails data is required and must be an array.")]
    NoList,
    #[error("Maximum {MOST} emails allowed per batch request.")]
    TooMany,
}

/// The JSON of each email, in order: 1 to 100.
pub fn split(json: &[u8]) -> Result<Vec<&str>, NoBatch> {
    let whole: &RawValue = serde_json::from_slice(json).map_err(|_| NoBatch::Unreadable)?;
    let list = match whole.get().starts_with('{') {
        true => part::<Members>(whole)?.0.ok_or(NoBatch::NoList)?,
        false => whole,
    };
    if !list.get().starts_with('[') {
        return Err(NoBatch::NoList);
    }
    let Entries(entries) = part(list)?;
    match entries.len() {
        0 => Err(NoBatch::NoList),
        1..=MOST => Ok(entries.into_iter().map(RawValue::get).collect()),
        _ => Err(NoBatch::TooMany),
    }
}

fn part<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Result<T, NoBatch> {
    serde_json::from_str(json.get()).map_err(|_| NoBatch::Unreadable)
}

/// The member `emails` of an object, the last one if repeated.
struct Members<'a>(Option<&'a RawValue>);

/// The entries of a list; no more of them than are needed to see that there are too many.
struct Entries<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut emails = None;
                while let Some(name) = map.next_key::<Cow<'_, str>>()? {
                    match &*name {
                        "emails" => emails = Some(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Members(emails))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while entries.len() <= MOST {
                    match list.next_element()? {
                        Some(entry) => entries.push(entry),
                        None => return Ok(Entries(entries)),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_split_in_order() {
        for json in [
            r#"[{"a": 1}, 2, "x"]"#,
            r#" {"emails": [ {"a": 1},2,"x" ], "api_key": "k"}"#,
            r#"{"emails": null, "emails": [{"a": 1}, 2, "x"]}"#,
        ] {
            assert_eq!(
                split(json.as_bytes()),
                Ok(vec![r#"{"a": 1}"#, "2", r#""x""#]),
                "{json}"
            );
        }
    }

    #[test]
    fn what_is_no_batch_is_told() {
        let list = |number: usize| format!("[{}0]", "0,".repeat(number - 1));
        assert_eq!(
            split(list(100).as_bytes()).map(|emails| emails.len()),
            Ok(100)
        );
        assert_eq!(split(list(101).as_bytes()), Err(NoBatch::TooMany));
        for json in [
            "{}",
            "[]",
            "null",
            "7",
            r#""x""#,
            r#"{"emails": {}}"#,
            r#"{"emails": []}"#,
            r#"{"emails": null}"#,
            r#"{"emails": [0], "emails": "x"}"#,
        ] {
            assert_eq!(split(json.as_bytes()), Err(NoBatch::NoList), "{json}");
        }
        for json in ["", "{", "[0", "[0] 1", "{\"emails\": [}", "[\"\u{1}\"]"] {
            assert_eq!(split(json.as_bytes()), Err(NoBatch::Unreadable), "{json}");
        }
        assert_eq!(split(b"[\"\xff\"]"), Err(NoBatch::Unreadable));
    }
}
