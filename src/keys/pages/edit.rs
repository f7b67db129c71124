//! Edits a key without changing its secret. The page shows what changes for the programs that use
//! it before the change is made.

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use askama::Template;

use super::super::changes::{Change, changes};
use super::super::store::{self, EditError, Key};
use super::end::changed;
use super::form::{CHOOSE_DOMAINS, KeyForm, Pairs, expires, value};
use super::new::list_domains;
use super::{find_live, path_of, to_ended};
use crate::accounts::session::{Acting, SignedIn};
use crate::accounts::store::User;
use crate::db::Share;
use crate::domains::store::Domain;
use crate::http::{Context, Error, client_address, page};

const CHANGED: &str = "Someone has changed this key since you opened the form. What you entered is kept below: compare it with the key, then save again.";

#[derive(Template)]
#[template(path = "keys/edit.html", blocks = ["form"])]
struct EditPage {
    user: User,
    is_fragment: bool,
    key: Key,
    /// The version of the key when the form was opened.
    version: String,
    form: KeyForm,
    domains: Vec<Domain>,
    /// The current expiry.
    expires: String,
}

impl EditPage {
    fn new(
        request: &HttpRequest,
        user: User,
        key: Key,
        version: String,
        form: KeyForm,
        domains: Vec<Domain>,
    ) -> Self {
        Self {
            is_fragment: page::is_htmx(request),
            expires: expires(&key),
            user,
            key,
            version,
            form,
            domains,
        }
    }

    fn answer(&self, answer: HttpResponseBuilder) -> Result<HttpResponse, Error> {
        match self.is_fragment {
            true => page::answer(answer, &self.as_form()),
            false => page::answer(answer, self),
        }
    }
}

/// The effects of a change, to be confirmed; the form is carried along in hidden fields.
#[derive(Template)]
#[template(path = "keys/edit_confirm.html", blocks = ["confirm"])]
struct ConfirmPage {
    user: User,
    is_fragment: bool,
    key: Key,
    changes: Vec<Change>,
    fields: Pairs,
}

impl ConfirmPage {
    fn answer(&self) -> Result<HttpResponse, Error> {
        match self.is_fragment {
            true => page::html(&self.as_confirm()),
            false => page::html(self),
        }
    }
}

/// `GET /api-keys/{id}/edit`
pub async fn edit(
    context: web::Data<Context>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let Some(key) = find_live(&context, &user, *id).await? else {
        return Ok(to_ended(&request, *id));
    };
    let domains = list_domains(&context, &user).await?;
    let form = KeyForm::of(&key).with_addresses(client_address(&request), key.last_use.as_ref());
    let version = key.version();
    EditPage::new(&request, user, key, version, form, domains).answer(HttpResponse::Ok())
}

/// `POST /api-keys/{id}/edit`: shows what would change for programs, unless that has been
/// confirmed; then saves the change.
pub async fn save(
    context: web::Data<Context>,
    request: HttpRequest,
    acting: Acting,
    id: web::Path<i64>,
    web::Form(pairs): web::Form<Pairs>,
) -> Result<HttpResponse, Error> {
    #[rustfmt::skip]
    let Acting { user, actor, session } = acting;
    let (account, id) = (user.account, *id);
    let Some(key) = find_live(&context, &user, id).await? else {
        return Ok(to_ended(&request, id));
    };
    let domains = list_domains(&context, &user).await?;
    let mut form =
        KeyForm::read(&pairs).with_addresses(client_address(&request), key.last_use.as_ref());
    let version = value(&pairs, "version").to_owned();
    let Some(edit) = form.parse(&domains) else {
        return EditPage::new(&request, user, key, version, form, domains)
            .answer(HttpResponse::UnprocessableEntity());
    };
    if value(&pairs, "back") == "yes" {
        return EditPage::new(&request, user, key, version, form, domains)
            .answer(HttpResponse::Ok());
    }
    let changes = changes(&key, &edit, &domains);
    if !changes.is_empty() && version == key.version() && value(&pairs, "confirmed") != "yes" {
        return ConfirmPage {
            user,
            is_fragment: page::is_htmx(&request),
            key,
            changes,
            fields: pairs,
        }
        .answer();
    }
    let wanted = version.clone();
    let saved = session
        .write_urgently(&context.db, Share::All, move |conn| {
            store::edit(conn, account, id, Some(&wanted), &edit, &actor)
        })
        .await?;
    let refusal = match saved {
        Ok(now) => return answer_saved(&context, &request, &user, &version, &now).await,
        Err(refusal) => refusal,
    };
    let (status, version) = match refusal {
        EditError::NoSuchKey => return Err(Error::NotFound),
        EditError::Ended(_) => return Ok(to_ended(&request, id)),
        EditError::Db(error) => return Err(error.into()),
        EditError::UnknownDomain => {
            form.errors.scope = Some(CHOOSE_DOMAINS.to_owned());
            (HttpResponse::UnprocessableEntity(), version)
        }
        EditError::Changed => {
            form.errors.form = Some(CHANGED.to_owned());
            // htmx shows no other error than 422 in the dialog.
            let status = match page::is_htmx(&request) {
                true => HttpResponse::UnprocessableEntity(),
                false => HttpResponse::Conflict(),
            };
            (status, key.version())
        }
    };
    EditPage::new(&request, user, key, version, form, domains).answer(status)
}

/// `before`: the version of the key when the form was opened.
async fn answer_saved(
    context: &Context,
    request: &HttpRequest,
    user: &User,
    before: &str,
    now: &Key,
) -> Result<HttpResponse, Error> {
    let (notice, said) = match now.version() == before {
        true => ("same", "Nothing was changed.".to_owned()),
        false => ("saved", format!("The changes of “{}” are saved.", now.name)),
    };
    let elsewhere = format!("{}?notice={notice}", path_of(now.id));
    changed(context, request, user, said, &elsewhere).await
}
