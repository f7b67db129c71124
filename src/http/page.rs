//! Answers for browsers: whole pages, fragments for htmx, redirects.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HOST, HeaderName, HeaderValue, LOCATION, REFERER};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use askama::Template;

use super::Error;
use crate::config::Config;

/// Longer paths are not accepted as targets.
const LONGEST_PATH: usize = 2_000;

/// A page or fragment; neither browsers nor proxies may store it.
pub fn html(template: &impl Template) -> Result<HttpResponse, Error> {
    answer(HttpResponse::Ok(), template)
}

/// A form sent back with its errors.
pub fn unprocessable(template: &impl Template) -> Result<HttpResponse, Error> {
    answer(HttpResponse::UnprocessableEntity(), template)
}

pub fn answer(
    mut response: HttpResponseBuilder,
    template: &impl Template,
) -> Result<HttpResponse, Error> {
    Ok(response
        .content_type("text/html; charset=utf-8")
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(template.render()?))
}

/// Redirects.
pub fn redirect(request: &HttpRequest, to: &str) -> HttpResponse {
    redirect_for(is_htmx(request), to)
}

/// htmx would put the target of a plain redirect into the fragment, so it gets its own header and
/// an empty 200.
pub(super) fn redirect_for(is_htmx: bool, to: &str) -> HttpResponse {
    let mut response = if is_htmx {
        let mut response = HttpResponse::Ok();
        response.insert_header(("HX-Redirect", to));
        response
    } else {
        let mut response = HttpResponse::SeeOther();
        response.insert_header((LOCATION, to));
        response
    };
    response.insert_header((CACHE_CONTROL, "no-store")).finish()
}

/// Makes htmx stop polling, and leaves the page as it is.
pub fn stop_polling() -> HttpResponse {
    let stop = StatusCode::from_u16(286).expect("a status");
    HttpResponseBuilder::new(stop)
        .insert_header(("HX-Reswap", "none"))
        .finish()
}

/// Makes htmx display another address than the requested one.
pub fn replace_url(answer: &mut HttpResponse, path: &str) {
    if let Ok(path) = HeaderValue::from_str(path) {
        let name = HeaderName::from_static("hx-replace-url");
        answer.headers_mut().insert(name, path);
    }
}

/// Makes htmx replace this element with the answer, instead of the one that asked.
pub fn retarget(answer: &mut HttpResponse, selector: &'static str) {
    for (name, value) in [("hx-retarget", selector), ("hx-reswap", "outerHTML")] {
        let name = HeaderName::from_static(name);
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}

/// The path and query of the page that sent the request, if the browser provides them.
pub fn came_from(request: &HttpRequest) -> Option<String> {
    let headers = request.headers();
    let url = headers.get("hx-current-url").or(headers.get(REFERER))?;
    let url = url::Url::parse(url.to_str().ok()?).ok()?;
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    Some(local_path(Some(path)).to_owned())
}

/// Whether htmx sent the request, for a fragment.
pub fn is_htmx(request: &HttpRequest) -> bool {
    request.headers().contains_key("hx-request")
}

/// The path on this server to open after signing in, or the default: never another site.
pub fn local_path(next: Option<&str>) -> &str {
    match next {
        Some(path)
            if path.len() <= LONGEST_PATH
                && path.starts_with('/')
                && !path[1..].starts_with(['/', '\\'])
                && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') =>
        {
            path
        }
        _ => "/api-keys",
    }
}

/// The address of this server: the public URL, otherwise the one this request was sent to.
pub fn origin(request: &HttpRequest, config: &Config) -> String {
    match &config.public_url {
        Some(url) => url.origin(),
        None => format!("http://{}", host(request)),
    }
}

/// The request's own `Host` header, not a forwarded one.
pub fn host(request: &HttpRequest) -> &str {
    request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default()
}

/// Quotes a text for a POSIX shell, where only a single quote ends single quotes.
pub fn shell_quote(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&b);
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Quotes a text for PHP, which has two escapes inside single quotes.
pub fn php_quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_paths_are_gone_to() {
        for good in ["/", "/api-keys?page=2", "/domains/7"] {
            assert_eq!(local_path(Some(good)), good);
        }
        for evil in [
            "",
            "api-keys",
            "//evil.test",
            "/\\evil.test",
            "https://evil.test",
            "/a\\b",
            "/a\nb",
            "/\t/evil.test",
            "javascript:alert(1)",
            &format!("/{}", "a".repeat(LONGEST_PATH)),
        ] {
            assert_eq!(local_path(Some(evil)), "/api-keys", "{evil:?}");
        }
        assert_eq!(local_path(None), "/api-keys");
    }

    #[test]
    fn shell_words_are_quoted_where_needed() {
        assert_eq!(
            shell_quote("https://dash.acme.com:8080/v2"),
            "https://dash.acme.com:8080/v2"
        );
        assert_eq!(
            shell_quote("it's; rm -rf $HOME"),
            r"'it'\''s; rm -rf $HOME'"
        );
        assert_eq!(shell_quote(""), "''");
    }
}
