//! Parses JSON from clients within limits: a few bytes may stand for a value that takes a hundred
//! times as much memory.

use actix_web::web::Bytes;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::error::Category;

use super::ApiError;

pub const MOST_VALUES: usize = 20_000;

/// Removes the byte order mark that some programs put first (RFC 8259, 8.1).
pub fn without_mark(mut text: Bytes) -> Bytes {
    match text.starts_with("\u{FEFF}".as_bytes()) {
        true => text.split_off("\u{FEFF}".len()),
        false => text,
    }
}

/// # Errors
/// 400 if it is not JSON or holds more than 20,000 values.
pub fn parse(text: &[u8]) -> Result<Value, ApiError> {
    parse_part(text, text)
}

/// Like `parse`, for a value inside a longer text; an error states its position in that text.
///
/// # Errors
/// 400 if it is not JSON or holds more than 20,000 values.
pub fn parse_part(whole: &[u8], part: &[u8]) -> Result<Value, ApiError> {
    if count_values(part) > MOST_VALUES {
        return Err(ApiError::bad_request(
            "The request body contains too many values.",
        ));
    }
    serde_json::from_slice(part).map_err(|error| {
        let before = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
        told(whole, before, &error)
    })
}

/// The error for a text that is not JSON.
pub fn unreadable(text: &[u8]) -> ApiError {
    match serde_json::from_slice::<IgnoredAny>(text) {
        Err(error) => told(text, 0, &error),
        // An invalid escape.
        Ok(_) => parse(text)
            .err()
            .unwrap_or_else(|| ApiError::bad_request("The request body is not valid JSON.")),
    }
}

/// Reports where and why a text is not JSON, without quoting any of it. `before`: the bytes before
/// the part that the error is about.
fn told(whole: &[u8], before: usize, error: &serde_json::Error) -> ApiError {
    if let Err(error) = std::str::from_utf8(whole) {
        return ApiError::bad_request(format!(
            "The request body is not valid JSON: it is not UTF-8 from byte {} on.",
            error.valid_up_to() + 1
        ));
    }
    let before = whole.get(..before).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + error.line();
    let column = match error.line() {
        1 => {
            before
                .iter()
                .rev()
                .take_while(|byte| **byte != b'\n')
                .count()
                + error.column()
        }
        _ => error.column(),
    };
    let why = why(error);
    ApiError::bad_request(format!(
        "The request body is not valid JSON: {why} (line {line}, column {column})."
    ))
}

fn why(error: &serde_json::Error) -> &'static str {
    let told = error.to_string();
    let is_about = |words: &str| told.starts_with(words);
    match error.classify() {
        Category::Eof => "it ends too early",
        Category::Syntax if is_about("control character") => {
            "a string contains a line break or another control character that is not escaped"
        }
        // The first half of a surrogate pair, and the second.
        Category::Syntax if is_about("unexpected end of hex") || is_about("lone leading") => {
            "a string contains one half of a surrogate pair (\\uD800 to \\uDFFF) without the other"
        }
        Category::Syntax if is_about("invalid escape") => {
            "a string contains a backslash that does not begin an escape sequence"
        }
        Category::Syntax if is_about("trailing comma") => {
            "there is a comma before a closing bracket"
        }
        Category::Syntax if is_about("trailing char") => "there is something after its end",
        Category::Syntax if is_about("expected `:`") => "a colon is missing",
        Category::Syntax if is_about("expected `,`") => "a comma or a closing bracket is missing",
        Category::Syntax if is_about("key must be") => {
            "the name of a member is not in double quotes"
        }
        Category::Syntax if is_about("recursion limit") => "it is nested too deeply",
        Category::Syntax if is_about("number out of") => "a number is too large",
        Category::Syntax if is_about("invalid number") => "a number is not valid",
        _ => "a value was expected",
    }
}

/// An upper bound of the number of values: each begins the text or follows one of these bytes.
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
    #[test]
    fn an_error_says_where_and_why() {
        let told = |text: &[u8]| parse(text).expect_err("an error").to_string();
        for (text, why) in [
            (
                &b"{\"secret\": "[..],
                "it ends too early (line 1, column 11)",
            ),
            (b"", "it ends too early (line 1, column 0)"),
            (
                b"{\n \"a\": secret}",
                "a value was expected (line 2, column 7)",
            ),
            (
                b"{\"a\": 1,\n}",
                "there is a comma before a closing bracket (line 2, column 1)",
            ),
            (b"{\"a\" 1}", "a colon is missing (line 1, column 6)"),
            (
                b"{\"a\": 1 \"b\": 2}",
                "a comma or a closing bracket is missing (line 1, column 9)",
            ),
            (
                b"{a: 1}",
                "the name of a member is not in double quotes (line 1, column 2)",
            ),
            (
                b"{} {}",
                "there is something after its end (line 1, column 4)",
            ),
            (b"[\"a\nb\"]", "a string contains a line break"),
            (br#"["\ud83d"]"#, "one half of a surrogate pair"),
            (br#"["\ud83d\u0041"]"#, "one half of a surrogate pair"),
            (br#"["\ude00"]"#, "one half of a surrogate pair"),
            (
                br#"["\x"]"#,
                "a backslash that does not begin an escape sequence",
            ),
            (b"[01]", "a number is not valid"),
            (b"[1e999]", "a number is too large"),
            (b"[\"Gr\xfc\xdfe\"]", "it is not UTF-8 from byte 5 on."),
            (b"\xff\xfe{\0}\0", "it is not UTF-8 from byte 1 on."),
        ] {
            let told = told(text);
            assert!(told.contains(why), "{told}");
            assert!(!told.contains("secret"), "{told}");
        }
        assert!(told("[".repeat(1_000).as_bytes()).contains("nested too deeply"));
    }

    #[test]
    fn a_part_is_found_in_the_whole() {
        let error = unreadable(br#"{"a\ud800": 1}"#).to_string();
        assert!(error.contains("surrogate"), "{error}");

        let whole = b"[{},\n  {},  {\"a\": x}]";
        let error = parse_part(whole, &whole[12..20])
            .expect_err("an error")
            .to_string();
        assert!(error.contains("(line 2, column 14)"), "{error}");
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let text = |text: &'static str| without_mark(Bytes::from_static(text.as_bytes()));
        assert_eq!(text("\u{FEFF}{}"), "{}");
        assert_eq!(text("{\u{FEFF}}"), "{\u{FEFF}}");
        assert_eq!(text("\u{FEFF}"), "");
    }
}
