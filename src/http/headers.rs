//! The headers of every answer.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

type Header = (HeaderName, HeaderValue);

const fn header(name: &'static str, value: &'static str) -> Header {
    (
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )
}

static ALWAYS: [Header; 7] = [
    header(
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
         object-src 'none'; frame-ancestors 'none'",
    ),
    header("cross-origin-resource-policy", "same-origin"),
    header("x-content-type-options", "nosniff"),
    header("x-frame-options", "DENY"),
    // With "no-referrer", browsers would send "Origin: null" with forms.
    header("referrer-policy", "same-origin"),
    header(
        "permissions-policy",
        "accelerometer=(), camera=(), clipboard-read=(), clipboard-write=(self), geolocation=(), \
         gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()",
    ),
    header("x-permitted-cross-domain-policies", "none"),
];

static ON_HTTPS: [Header; 2] = [
    header(
        "strict-transport-security",
        "max-age=31536000; includeSubDomains",
    ),
    // On plain http, Chromium logs an error for this header.
    header("cross-origin-opener-policy", "same-origin"),
];

pub(super) fn insert(headers: &mut HeaderMap, is_https: bool) {
    let on_https = ON_HTTPS.iter().filter(|_| is_https);
    for (name, value) in ALWAYS.iter().chain(on_https) {
        headers.insert(name.clone(), value.clone());
    }
}
