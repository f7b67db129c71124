//! JSON that a client sends, within bounds: a few bytes may stand for a value that takes a hundred
//! times as much memory.

use serde_json::Value;

use super::ApiError;

pub const MOST_VALUES: usize = 20_000;

/// # Errors
/// 400, if it is not JSON or holds more than 20,000 values.
pub fn parse(text: &[u8]) -> Result<Value, ApiError> {
    if count_values(text) > MOST_VALUES {
        return Err(ApiError::bad_request(
            "The request body holds too many values.",
        ));
    }
    serde_json::from_slice(text).map_err(|_| unreadable())
}

pub fn unreadable() -> ApiError {
    ApiError::bad_request("The request body is not valid JSON.")
}

/// At least as many as there are: each stands at the beginning, or behind one of these bytes.
fn count_values(text: &[u8]) -> usize {
    let mut values = 1;
    let (mut is_in_string, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_in_string => is_escaped = true,
            b'"' => is_in_string = !is_in_string,
            b',' | b'[' | b'{' if !is_in_string => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded_and_text_is_not() {
        let list = |number: usize| format!("[{}0]", "0,".repeat(number - 2));
        assert!(parse(list(MOST_VALUES).as_bytes()).is_ok());
        assert!(parse(list(MOST_VALUES + 1).as_bytes()).is_err());
        assert!(parse(format!("[{}{{}}]", "{},".repeat(MOST_VALUES)).as_bytes()).is_err());
        let text = r#"\",[{"#.repeat(MOST_VALUES);
        assert!(parse(format!("[\"{text}\"]").as_bytes()).is_ok());
    }
}
