//! How errors appear on page routes: as a page, a sentence for htmx, or a redirect to sign in.

use std::fmt::Display;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use actix_web::http::{StatusCode, Uri};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use askama::Template;
use url::form_urlencoded::Serializer;

use super::log::RequestId;
use super::{Context, Error, page, panics};
use crate::db::WriteFault;

/// Middleware that renders every error on a page route, including the framework's own.
pub async fn render_errors(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, actix_web::Error> {
    let asker = Asker::of(request.request());
    match panics::caught(next.call(request)).await {
        Ok(response) => {
            let status = response.status();
            if !status.is_client_error() && !status.is_server_error() {
                return Ok(response.map_into_boxed_body());
            }
            // A form sent back with its errors is already rendered.
            if response.response().error().is_none()
                && response.headers().contains_key(CONTENT_TYPE)
            {
                return Ok(response.map_into_boxed_body());
            }
            let error = response.response().error();
            let mut error = error.and_then(|e| e.as_error::<Error>());
            let full;
            if let Some(Error::Unavailable(why)) = error
                && asker.writes_to_a_full_disk()
            {
                full = Error::DiskFull(why.clone());
                error = Some(&full);
            }
            let mut face = face(&asker, status, error);
            if let Some(allow) = response.headers().get(ALLOW) {
                face.headers_mut().insert(ALLOW, allow.clone());
            }
            Ok(response.into_response(face))
        }
        // Only panics arrive like this, and errors of the session middleware when its store fails.
        Err(error) => {
            let error = match error.as_error::<Error>() {
                Some(Error::Internal(why)) => Error::Internal(why.clone()),
                _ if asker.writes_to_a_full_disk() => Error::DiskFull(error.to_string()),
                _ => Error::Unavailable(error.to_string()),
            };
            let face = face(&asker, error.status_code(), Some(&error));
            Err(InternalError::from_response(error, face).into())
        }
    }
}

/// The parts of the request that the rendering needs, saved because an error may come back without
/// it.
struct Asker {
    is_htmx: bool,
    is_safe: bool,
    uri: Uri,
    /// The page that was displayed.
    came_from: Option<String>,
    context: Option<web::Data<Context>>,
    id: Option<RequestId>,
}

impl Asker {
    fn of(request: &HttpRequest) -> Self {
        Self {
            is_htmx: page::is_htmx(request),
            is_safe: request.method().is_safe(),
            uri: request.uri().clone(),
            came_from: page::came_from(request),
            context: request.app_data::<web::Data<Context>>().cloned(),
            id: RequestId::of(request),
        }
    }

    /// The session middleware does not say why its store failed.
    fn writes_to_a_full_disk(&self) -> bool {
        let fault = self.context.as_ref().and_then(|c| c.db.write_fault());
        !self.is_safe && fault == Some(WriteFault::DiskFull)
    }

    /// The address of the login page, with the page the person requested as the target or, if that
    /// cannot be opened again, the page they were on. It also says if a form is lost.
    fn login_path(&self) -> String {
        let mut query = Serializer::new(String::new());
        if let Some(wanted) = self.wanted().filter(|wanted| *wanted != "/") {
            query.append_pair("next", wanted);
        }
        if !self.is_safe {
            query.append_pair("unsent", "yes");
        }
        match query.finish() {
            query if query.is_empty() => "/login".to_owned(),
            query => format!("/login?{query}"),
        }
    }

    fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    fn wanted(&self) -> Option<&str> {
        match self.is_safe && !self.is_htmx {
            true => Some(page::local_path(Some(self.path()))),
            false => self.came_from.as_deref(),
        }
    }
}

fn face(asker: &Asker, status: StatusCode, error: Option<&Error>) -> HttpResponse {
    if let Some(Error::SignInNeeded) = error {
        return page::redirect_for(asker.is_htmx, &asker.login_path());
    }
    log(status, error.map(|e| e as &dyn Display));
    let text = Text::of(status, error, asker);
    let mut face = HttpResponse::build(status);
    match error {
        Some(Error::TooMany {
            retry_after_seconds,
        }) => face.insert_header((RETRY_AFTER, HeaderValue::from(*retry_after_seconds))),
        Some(Error::Unavailable(_) | Error::DiskFull(_)) => {
            face.insert_header((RETRY_AFTER, HeaderValue::from(5)))
        }
        _ => &mut face,
    };
    face.insert_header((CACHE_CONTROL, "no-store"));
    if asker.is_htmx {
        return face
            .content_type("text/plain; charset=utf-8")
            .body(text.sentences());
    }
    match text.render() {
        Ok(html) => face.content_type("text/html; charset=utf-8").body(html),
        Err(_) => face
            .content_type("text/plain; charset=utf-8")
            .body(text.title),
    }
}

fn log(status: StatusCode, error: Option<&dyn Display>) {
    if status.is_server_error() {
        let error = error.map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            status = status.as_u16(),
            error,
            "a page could not be answered"
        );
    }
}

/// The text for the person: what happened, and what to do.
#[derive(Template)]
#[template(path = "error.html")]
struct Text {
    title: &'static str,
    advice: &'static str,
    leads_to_login: bool,
    /// The address to try again, if that may help.
    again: Option<String>,
    /// What finds the request in the log, if the server is to blame.
    request_id: Option<String>,
}

impl Text {
    /// For htmx, which shows them in a message.
    fn sentences(&self) -> String {
        let id = self.request_id.as_ref();
        let id = id.map_or(String::new(), |id| format!(" Request: {id}"));
        format!("{} {}{id}", self.title, self.advice)
    }

    fn of(status: StatusCode, error: Option<&Error>, asker: &Asker) -> Self {
        let (title, advice) = match (status, error) {
            (_, Some(Error::Forbidden(why))) => (why.title, why.advice),
            (_, Some(Error::CrossSite)) => (
                "This request did not come from this site.",
                "Open the page again and repeat what you did. If that does not help, ask the operator whether TOSEND_PUBLIC_URL is the address you use.",
            ),
            (StatusCode::NOT_FOUND, _) => (
                "There is nothing here.",
                "It may have been deleted, or the address is wrong.",
            ),
            (StatusCode::METHOD_NOT_ALLOWED, _) => (
                "This address does not take this kind of request.",
                "Go back to the page and use its buttons.",
            ),
            (StatusCode::PAYLOAD_TOO_LARGE, _) => (
                "This is too much text.",
                "Shorten what you entered and try again.",
            ),
            (StatusCode::TOO_MANY_REQUESTS, _) => (
                "Too many attempts.",
                "Wait a minute, then try again. Nothing is wrong with your account.",
            ),
            (_, Some(Error::DiskFull(_))) => (
                "The server’s disk is full, so this was not saved.",
                "Tell the operator to make room. Until then everything can be looked at, and keys keep working; deleting or pausing a key is still tried.",
            ),
            (StatusCode::SERVICE_UNAVAILABLE, _) => (
                "The server cannot do this right now.",
                "Try again in a few seconds. If you were changing something, check first whether it was changed.",
            ),
            (status, _) if status.is_client_error() => (
                "The server did not understand this request.",
                "Go back, reload the page and try again.",
            ),
            _ => (
                "Something went wrong on the server.",
                "It has been logged. Try again; if it happens again, tell the operator.",
            ),
        };
        Self {
            title,
            advice,
            leads_to_login: matches!(error, Some(Error::Forbidden(why)) if why.leads_to_login),
            again: (status.is_server_error() && asker.is_safe)
                .then(|| page::local_path(Some(asker.path())).to_owned()),
            request_id: asker
                .id
                .as_ref()
                .filter(|_| status.is_server_error())
                .map(|id| id.as_str().to_owned()),
        }
    }
}
