//! Members of an email's JSON object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::problems::Problems;

pub(super) fn present<'a>(fields: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

/// An object of strings. PHP encodes an empty one as `[]`, and FluentSMTP sends its headers as a
/// list of objects with one string each.
pub(super) fn strings(
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

/// Control characters, above all line breaks, which would create new headers.
pub(super) fn has_control(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && c != '\t')
}

/// The position in a list, counted from 1 as people do.
pub(super) fn nth(place: usize) -> String {
    format!("Entry {place}")
}
