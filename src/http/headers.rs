//! The security headers of every answer. Pages get all of them; answers of the API, which browsers neither
//! show nor run, those that protect if one is opened as a page all the same.

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

type Header = (HeaderName, HeaderValue);

const fn header(name: &'static str, value: &'static str) -> Header {
    (
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )
}

static OF_PAGES: [Header; 7] = [
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

static OF_PAGES_ON_HTTPS: [Header; 2] = [
    HSTS,
    // On plain http, Chromium logs an error for this header.
    header("cross-origin-opener-policy", "same-origin"),
];

/// ASVS 5.0: 3.4.3 and 3.4.6 (nothing is loaded, run or framed), 3.4.4. Not needed: a referrer policy
/// (3.4.5), because JSON makes no requests; CORP (3.5.8), because without the key in a header, which no page
/// of another site has, an answer says nothing.
static OF_API: [Header; 2] = [
    header(
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    header("x-content-type-options", "nosniff"),
];

/// ASVS 5.0, 3.4.1.
static OF_API_ON_HTTPS: [Header; 1] = [HSTS];

const HSTS: Header = header(
    "strict-transport-security",
    "max-age=31536000; includeSubDomains",
);

/// `for_programs`: an answer in the form of the API.
pub(super) fn insert(headers: &mut HeaderMap, for_programs: bool, is_https: bool) {
    let (always, on_https) = match for_programs {
        true => (&OF_API[..], &OF_API_ON_HTTPS[..]),
        false => (&OF_PAGES[..], &OF_PAGES_ON_HTTPS[..]),
    };
    let on_https = on_https.iter().filter(|_| is_https);
    for (name, value) in always.iter().chain(on_https) {
        headers.insert(name.clone(), value.clone());
    }
}

/// Whether it is an error that a program is told outside the API. Other JSON there is for people who are
/// signed in, such as an export.
pub(super) fn is_error_in_json<B>(answer: &HttpResponse<B>) -> bool {
    let kind = answer.headers().get(CONTENT_TYPE);
    answer.status().is_client_error() && kind.is_some_and(|kind| kind == "application/json")
}
