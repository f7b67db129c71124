//! Sign-up, sign-in and sign-out in the browser, the account's activity, and its settings.

pub mod activity;
pub mod settings;

use actix_session::Session;
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use secrecy::SecretString;
use serde::Deserialize;

use super::email::Email;
use super::event::Actor;
use super::password::{Busy, Password};
use super::session::{SignedIn, devices_of, sign_in, sign_out};
use super::setup_code::SetupCode;
use super::sign_in::{SignInGuard, SignInPlace};
use super::store::{self, CreateAccountError, NewAccount};
use super::title::Title;
use crate::config::{Signup, is_loopback_authority};
use crate::http::{Context, Error, Explanation, client_address, page};

impl From<Busy> for Error {
    fn from(busy: Busy) -> Self {
        Self::Unavailable(busy.to_string())
    }
}

/// `GET /`
pub async fn home(
    context: web::Data<Context>,
    request: HttpRequest,
) -> Result<HttpResponse, Error> {
    let to = match context.db.read(store::exists_any).await? {
        true => "/api-keys",
        false => "/signup",
    };
    Ok(page::redirect(&request, to))
}

#[derive(Template, Default)]
#[template(path = "accounts/signup.html")]
struct SignupPage {
    is_first: bool,
    asks_code: bool,
    title: String,
    email: String,
    title_error: Option<String>,
    email_error: Option<String>,
    password_error: Option<String>,
    code_error: Option<String>,
}

impl SignupPage {
    /// Whether a field has the focus at first: the first one with an error, or the first of all.
    fn starts_at(&self, field: &str) -> bool {
        let mut fields = vec![
            ("title", &self.title_error),
            ("email", &self.email_error),
            ("password", &self.password_error),
        ];
        if self.asks_code {
            fields.insert(0, ("setup_code", &self.code_error));
        }
        let wrong = fields.iter().find(|(_, error)| error.is_some());
        wrong.unwrap_or(&fields[0]).0 == field
    }
}

/// `GET /signup`
pub async fn signup_form(
    context: web::Data<Context>,
    request: HttpRequest,
    user: Option<SignedIn>,
) -> Result<HttpResponse, Error> {
    if user.is_some() {
        return Ok(page::redirect(&request, "/api-keys"));
    }
    page::html(&signup_page(&context, &request).await?)
}

#[derive(Deserialize)]
pub struct SignupForm {
    #[serde(default)]
    title: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: SecretString,
    #[serde(default)]
    setup_code: String,
}

/// `POST /signup`: creates an account with its first user, signs them in, and redirects to the
/// keys.
pub async fn signup(
    context: web::Data<Context>,
    guard: web::Data<SignInGuard>,
    setup_code: web::Data<SetupCode>,
    request: HttpRequest,
    session: Session,
    web::Form(form): web::Form<SignupForm>,
) -> Result<HttpResponse, Error> {
    let mut page = signup_page(&context, &request).await?;
    guard.admit(client_address(&request))?;
    page.title = form.title.trim().to_owned();
    page.email = form.email.trim().to_owned();

    let title = Title::parse(&form.title).map_err(|why| page.title_error = Some(why.to_string()));
    let email = Email::parse(&form.email).map_err(|why| page.email_error = Some(why.to_string()));
    let password = Password::choose(&form.password, &page.email, &page.title)
        .map_err(|why| page.password_error = Some(why.to_string()));
    if page.asks_code && !setup_code.matches(&form.setup_code) {
        page.code_error =
            Some("This is not the code that the server printed when it started.".into());
    }
    let (Ok(title), Ok(email), Ok(password), None) = (title, email, password, &page.code_error)
    else {
        return page::unprocessable(&page);
    };

    let new = NewAccount {
        title,
        email,
        password_hash: guard.hasher.hash(password).await?,
    };
    let is_open = context.config.signup == Signup::Open;
    let actor = Actor::newcomer(&new.email, client_address(&request));
    let created = context
        .db
        .write(move |conn| match is_open {
            true => store::create(conn, &new, &actor),
            false => store::create_first(conn, &new, &actor),
        })
        .await;
    match created {
        Ok(credentials) => {
            sign_in(&session, &request, &credentials)?;
            Ok(page::redirect(&request, "/api-keys"))
        }
        Err(CreateAccountError::EmailTaken) => {
            page.email_error =
                Some("An account with this address already exists. Sign in instead.".into());
            page::unprocessable(&page)
        }
        Err(CreateAccountError::NotFirst) => Err(signup_closed()),
        Err(CreateAccountError::Db(error)) => Err(error.into()),
    }
}

/// The sign-up page with the fields that are required now.
///
/// # Errors
/// If sign-up is closed.
async fn signup_page(context: &Context, request: &HttpRequest) -> Result<SignupPage, Error> {
    let is_first = !context.db.read(store::exists_any).await?;
    match (context.config.signup, is_first) {
        (Signup::Closed, _) | (Signup::First, false) => return Err(signup_closed()),
        (Signup::First, true) | (Signup::Open, _) => {}
    }
    // A proxy on this machine may send "Host: 127.0.0.1" for every client.
    let is_forwarded = ["forwarded", "via", "x-forwarded-for", "x-real-ip"]
        .iter()
        .any(|name| request.headers().contains_key(*name));
    let is_this_machine =
        context.config.is_loopback() && is_loopback_authority(page::host(request)) && !is_forwarded;
    Ok(SignupPage {
        is_first,
        asks_code: is_first && !is_this_machine,
        ..SignupPage::default()
    })
}

fn signup_closed() -> Error {
    Error::Forbidden(Explanation {
        title: "Sign-up is closed here.",
        advice: "Sign in, or ask the operator for an account.",
        leads_to_login: true,
    })
}

#[derive(Template, Default)]
#[template(path = "accounts/login.html")]
struct LoginPage {
    email: String,
    next: String,
    /// Whether the person was signed out while sending a form, which is lost.
    is_unsent: bool,
    /// Whether they have just deleted their account.
    is_deleted: bool,
    error: Option<String>,
    offers_signup: bool,
}

#[derive(Deserialize)]
pub struct LoginQuery {
    next: Option<String>,
    unsent: Option<String>,
    deleted: Option<String>,
}

/// `GET /login`
pub async fn login_form(
    context: web::Data<Context>,
    request: HttpRequest,
    query: web::Query<LoginQuery>,
    user: Option<SignedIn>,
) -> Result<HttpResponse, Error> {
    let next = page::local_path(query.next.as_deref());
    if user.is_some() {
        return Ok(page::redirect(&request, next));
    }
    // Where sign-up is closed, its page would only lead back here.
    let can_sign_up = context.config.signup != Signup::Closed;
    if can_sign_up && !context.db.read(store::exists_any).await? {
        return Ok(page::redirect(&request, "/signup"));
    }
    page::html(&LoginPage {
        next: next.to_owned(),
        is_unsent: query.unsent.is_some(),
        is_deleted: query.deleted.is_some(),
        offers_signup: context.config.signup == Signup::Open,
        ..LoginPage::default()
    })
}

#[derive(Deserialize)]
pub struct LoginForm {
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: SecretString,
    next: Option<String>,
}

/// `POST /login`: an unknown user and a wrong password get the same answer in the same time.
pub async fn login(
    context: web::Data<Context>,
    guard: web::Data<SignInGuard>,
    request: HttpRequest,
    session: Session,
    web::Form(form): web::Form<LoginForm>,
) -> Result<HttpResponse, Error> {
    let next = page::local_path(form.next.as_deref()).to_owned();
    let proven = match Email::parse(&form.email) {
        Ok(email) => {
            let place = SignInPlace {
                address: client_address(&request),
                devices: &devices_of(&request),
            };
            guard
                .authenticate(&context.db, place, &email, &form.password)
                .await?
        }
        Err(_) => {
            guard.admit(client_address(&request))?;
            None
        }
    };
    match proven {
        Some(credentials) => {
            sign_in(&session, &request, &credentials)?;
            Ok(page::redirect(&request, &next))
        }
        None => page::unprocessable(&LoginPage {
            email: form.email,
            next,
            is_unsent: false,
            is_deleted: false,
            error: Some("The email address or the password is wrong.".into()),
            offers_signup: context.config.signup == Signup::Open,
        }),
    }
}

/// `POST /logout`: ends this session, in the browser and in the database.
pub async fn logout(
    context: web::Data<Context>,
    request: HttpRequest,
    session: Session,
) -> Result<HttpResponse, Error> {
    sign_out(&session, &context.db, client_address(&request)).await?;
    Ok(page::redirect(&request, "/login"))
}
