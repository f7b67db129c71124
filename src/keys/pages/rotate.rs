//! Replaces a key: creates a successor with another secret, while the old key keeps working for a
//! while.

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use askama::Template;
use chrono::TimeDelta;
use serde::Deserialize;

use super::super::secret::PlainKey;
use super::super::store::{self, CreateError, Key, RotateError, Rotation};
use super::form::{ExpiryField, expires, expiry_choices, parse_expiry};
use super::new::{account_paused, limit_reached, list_domains, show_created};
use super::{find_key, to_ended};
use crate::accounts::session::{Acting, SignedIn};
use crate::accounts::store::User;
use crate::clock;
use crate::http::choice::Choice;
use crate::http::{Context, Error, page};

#[derive(Template)]
#[template(path = "keys/rotate.html", blocks = ["form"])]
struct RotatePage {
    user: User,
    is_fragment: bool,
    key: Key,
    form: RotateForm,
    overlap_error: Option<String>,
    quiet_error: Option<String>,
    expiry_error: Option<String>,
    form_error: Option<String>,
}

#[derive(Deserialize)]
pub struct RotateForm {
    #[serde(default)]
    overlap: String,
    #[serde(default)]
    quiet: String,
    #[serde(default)]
    expiry: String,
    #[serde(default)]
    expires_on: String,
}

impl RotatePage {
    fn new(request: &HttpRequest, user: User, key: Key, form: RotateForm) -> Self {
        Self {
            user,
            is_fragment: page::is_htmx(request),
            key,
            form,
            overlap_error: None,
            quiet_error: None,
            expiry_error: None,
            form_error: None,
        }
    }

    fn answer(&self, answer: HttpResponseBuilder) -> Result<HttpResponse, Error> {
        match self.is_fragment {
            true => page::answer(answer, &self.as_form()),
            false => page::answer(answer, self),
        }
    }

    /// The choices of how long the old key keeps working, for the template.
    fn overlaps(&self) -> [(&'static str, &'static str, &'static str); 5] {
        [
            (
                "now",
                "Not at all",
                "It stops at once. Choose this for a key that has leaked.",
            ),
            ("1h", "1 hour", ""),
            ("24h", "24 hours", ""),
            ("7d", "7 days", ""),
            ("manual", "Until I stop it", ""),
        ]
    }

    fn quiet_choices(&self) -> Vec<Choice> {
        let choices = [
            ("", "Do not stop it earlier"),
            ("1h", "1 hour"),
            ("24h", "24 hours"),
            ("7d", "7 days"),
        ];
        let choice = |(value, label)| Choice::new(value, label, self.form.quiet == value);
        choices.map(choice).into()
    }

    fn expiry(&self) -> ExpiryField<'_> {
        let form = &self.form;
        let keep = format!("Same as the old key: {}", expires(&self.key));
        ExpiryField {
            label: "The new key expires",
            date_label: "The last day on which the new key works",
            choices: expiry_choices(&form.expiry, Some(keep)),
            date: &form.expires_on,
            is_date: form.expiry == "date",
            error: self.expiry_error.as_deref(),
        }
    }

    /// Whether a field has the focus at first: the first one with an error, else the first field.
    fn starts_at(&self, field: &str) -> bool {
        let in_order = [
            ("form", &self.form_error),
            ("overlap", &self.overlap_error),
            ("quiet", &self.quiet_error),
            ("expiry", &self.expiry_error),
        ];
        let mut wrong = in_order.iter().filter(|(_, error)| error.is_some());
        let first = wrong.next().map_or("overlap", |(field, _)| field);
        match (first, self.form.expiry.as_str()) {
            ("expiry", "date") => field == "date",
            (first, _) => field == first,
        }
    }

    /// Whether a choice has the focus at first: the chosen one, else the first.
    fn is_first_choice(&self, value: &str) -> bool {
        let is_known = self
            .overlaps()
            .iter()
            .any(|(v, ..)| *v == self.form.overlap);
        let first = if is_known { &self.form.overlap } else { "now" };
        self.starts_at("overlap") && value == first
    }

    /// Reads the form; errors are noted beside the fields.
    fn parse(&mut self) -> Option<Rotation> {
        let overlap = match self.form.overlap.as_str() {
            "now" => Some(Some(TimeDelta::zero())),
            "manual" => Some(None),
            text => hours(text).map(Some),
        };
        let quiet = match self.form.quiet.as_str() {
            "" => Some(None),
            text => hours(text).map(Some),
        };
        let expiry = parse_expiry(&self.form.expiry, &self.form.expires_on)
            .map_err(|why| self.expiry_error = Some(why))
            .ok();
        if overlap.is_none() {
            self.overlap_error = Some("Choose how long the old key keeps working.".to_owned());
        }
        if quiet.is_none() {
            self.quiet_error = Some("Choose one of these times.".to_owned());
        }
        Some(Rotation {
            overlap: overlap?,
            stops_when_quiet: quiet?,
            expiry: expiry?,
        })
    }
}

fn hours(text: &str) -> Option<TimeDelta> {
    match text {
        "1h" => Some(TimeDelta::hours(1)),
        "24h" => Some(TimeDelta::hours(24)),
        "7d" => Some(TimeDelta::days(7)),
        _ => None,
    }
}

/// `GET /api-keys/{id}/rotate`
pub async fn rotate_form(
    context: web::Data<Context>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let key = find_key(&context, &user, *id).await?;
    if let Some(answer) = refuse(&request, &user, &key) {
        return answer;
    }
    let form = RotateForm {
        overlap: "24h".to_owned(),
        quiet: String::new(),
        expiry: "keep".to_owned(),
        expires_on: String::new(),
    };
    RotatePage::new(&request, user, key, form).answer(HttpResponse::Ok())
}

/// The answer for a key that cannot be rotated: it already was, possibly by the same form, or it
/// has ended.
fn refuse(request: &HttpRequest, user: &User, key: &Key) -> Option<Result<HttpResponse, Error>> {
    if key.successor.is_some() {
        return Some(already_rotated(request, user.clone(), key.clone()));
    }
    let has_ended = key.end_by(clock::now()).is_some();
    has_ended.then(|| Ok(to_ended(request, key.id)))
}

/// A key that was already rotated: its successor was shown then, and cannot be shown again.
#[derive(Template)]
#[template(path = "keys/already_rotated.html", blocks = ["already"])]
struct AlreadyRotatedPage {
    user: User,
    is_fragment: bool,
    key: Key,
}

fn already_rotated(request: &HttpRequest, user: User, key: Key) -> Result<HttpResponse, Error> {
    let page = AlreadyRotatedPage {
        user,
        is_fragment: page::is_htmx(request),
        key,
    };
    match page.is_fragment {
        true => page::html(&page.as_already()),
        false => page::html(&page),
    }
}

/// `POST /api-keys/{id}/rotate`: creates the new key and shows it in this answer and nowhere else.
/// A form that is sent twice creates only one.
pub async fn rotate(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
    web::Form(form): web::Form<RotateForm>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    let key = find_key(&context, &user, id).await?;
    if let Some(answer) = refuse(&request, &user, &key) {
        return answer;
    }
    let mut page = RotatePage::new(&request, user, key, form);
    let Some(rotation) = page.parse() else {
        return page.answer(HttpResponse::UnprocessableEntity());
    };
    let secret = PlainKey::generate();
    let (limit, plain) = (context.config.key_limit, secret.clone());
    let rotated = session
        .write(&context.db, move |conn| {
            store::rotate(conn, account, id, &rotation, &plain, limit, &actor)
        })
        .await?;
    match rotated {
        Ok(new) => {
            // The new key is shown even if they cannot be read.
            let domains = list_domains(&context, &page.user).await.ok();
            show_created(&context, &request, page.user, &new, &secret, domains).await
        }
        Err(RotateError::NoSuchKey) => Err(Error::NotFound),
        Err(RotateError::Ended(_)) => Ok(to_ended(&request, id)),
        Err(RotateError::AlreadyRotated(_)) => {
            let key = find_key(&context, &page.user, id).await?;
            already_rotated(&request, page.user, key)
        }
        Err(RotateError::Create(CreateError::AccountPaused)) => Err(account_paused()),
        Err(RotateError::Create(CreateError::Db(error))) => Err(error.into()),
        Err(RotateError::Create(why)) => {
            page.form_error = Some(match why {
                CreateError::LimitReached(limit) => limit_reached(limit),
                _ => "A domain of this key has been deleted in the meantime. Try again.".to_owned(),
            });
            page.answer(HttpResponse::UnprocessableEntity())
        }
    }
}
