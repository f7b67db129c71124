//! How a client calls itself.

use actix_web::HttpRequest;
use actix_web::http::header::USER_AGENT;

use crate::visible::visible;

const MAX_BYTES: usize = 200;

/// The header as it came; empty if there is none.
pub fn user_agent(request: &HttpRequest) -> &[u8] {
    let header = request.headers().get(USER_AGENT);
    header.map_or(&b""[..], |value| value.as_bytes())
}

/// Replaces a text by what is kept of the header: at most 200 bytes.
pub fn keep_user_agent(text: &mut String, header: &[u8]) {
    text.clear();
    // With what completes a last character of four bytes, so that none is cut in two.
    let header = &header[..header.len().min(MAX_BYTES + 3)];
    let lossy = String::from_utf8_lossy(header);
    let lossy = visible(&lossy);
    let mut end = lossy.len().min(MAX_BYTES);
    while !lossy.is_char_boundary(end) {
        end -= 1;
    }
    text.push_str(&lossy[..end]);
    // Somebody's mistake, which must not leave a key in the database.
    if text.contains("tsend_") {
        text.clear();
    }
}
