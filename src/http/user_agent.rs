//! The User-Agent of a client.

use actix_web::HttpRequest;
use actix_web::http::header::USER_AGENT;

use crate::visible::visible;

const MAX_BYTES: usize = 200;

/// The header as received; empty if there is none.
pub fn user_agent(request: &HttpRequest) -> &[u8] {
    let header = request.headers().get(USER_AGENT);
    header.map_or(&b""[..], |value| value.as_bytes())
}

/// Replaces a text by the part of the header that is kept: at most 200 bytes.
pub fn keep_user_agent(text: &mut String, header: &[u8]) {
    text.clear();
    // Includes the rest of a last character of up to four bytes, so that no character is cut.
    let header = &header[..header.len().min(MAX_BYTES + 3)];
    let lossy = String::from_utf8_lossy(header);
    let lossy = visible(&lossy);
    let mut end = lossy.len().min(MAX_BYTES);
    while !lossy.is_char_boundary(end) {
        end -= 1;
    }
    text.push_str(&lossy[..end]);
    // A client's mistake must not put a key into the database.
    if text.contains("tsend_") {
        text.clear();
    }
}
