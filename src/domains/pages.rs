//! The Domains pages.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde::Deserialize;

use super::check::{self, SECONDS_BETWEEN};
use super::dkim::{record_name, record_text};
use super::name::DomainName;
use super::records::RecordState;
use super::store::{self, Deleted, Domain, DomainStatus, Records};
use crate::accounts::session::{Acting, SignedIn};
use crate::accounts::store::User;
use crate::app::State;
use crate::db;
use crate::http::{Error, page};

#[derive(Template)]
#[template(path = "domains/index.html")]
struct IndexPage {
    user: User,
    domains: Vec<Domain>,
    name: String,
    name_error: Option<String>,
}

/// `GET /domains`
pub async fn index(
    state: web::Data<State>,
    SignedIn(user): SignedIn,
) -> Result<HttpResponse, Error> {
    page::html(&index_page(&state, user).await?)
}

async fn index_page(state: &State, user: User) -> Result<IndexPage, Error> {
    let account = user.account;
    let domains = state
        .db
        .read(move |conn| store::list(conn, account))
        .await?;
    Ok(IndexPage {
        user,
        domains,
        name: String::new(),
        name_error: None,
    })
}

#[derive(Deserialize)]
pub struct CreateForm {
    #[serde(default)]
    name: String,
}

/// `POST /domains`: adds a domain, which is pending until it is verified.
pub async fn create(
    state: web::Data<State>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    web::Form(form): web::Form<CreateForm>,
) -> Result<HttpResponse, Error> {
    let account = user.account;
    let problem = match DomainName::parse(&form.name) {
        Ok(name) => {
            let key = state.checker.make_key(name.clone()).await?;
            let added = session
                .write(&state.db, move |conn| {
                    store::add(conn, account, &name, Some(&key), &actor)
                })
                .await??;
            match added {
                Some(domain) => {
                    return Ok(page::redirect(&request, &format!("/domains/{}", domain.id)));
                }
                None => "This domain is in your list already.".to_owned(),
            }
        }
        Err(why) => why.to_string(),
    };
    let mut page = index_page(&state, user).await?;
    page.name = form.name;
    page.name_error = Some(problem);
    page::unprocessable(&page)
}

#[derive(Template)]
#[template(path = "domains/show.html")]
struct ShowPage {
    user: User,
    domain: Domain,
    records: Records,
    /// What belongs where, and what DNS says of it: its key, SPF and DMARC.
    wanted: [Wanted; 3],
    /// The live keys that are restricted to it, by id and name.
    keys: Vec<(i64, String)>,
    /// Its record was found, and still it is not verified.
    is_verified_elsewhere: bool,
    /// What the operator runs to attest a domain.
    command: String,
    notice: Option<String>,
}

/// A TXT record that a domain is to have.
struct Wanted {
    /// Of its parts on the page.
    id: &'static str,
    title: &'static str,
    name: String,
    value: String,
    state: RecordState,
}

impl Wanted {
    fn all(domain: &Domain, records: &Records) -> [Self; 3] {
        let public = records.dkim_public.as_deref().unwrap_or_default();
        [
            Self {
                id: "dkim",
                title: "DKIM",
                name: record_name(&domain.name),
                value: record_text(public),
                state: records.dkim,
            },
            Self {
                id: "spf",
                title: "SPF",
                name: domain.name.clone(),
                value: "v=spf1 mx ~all".to_owned(),
                state: records.spf,
            },
            Self {
                id: "dmarc",
                title: "DMARC",
                name: format!("_dmarc.{}", domain.name),
                value: "v=DMARC1; p=none".to_owned(),
                state: records.dmarc,
            },
        ]
    }

    fn is_required(&self) -> bool {
        self.id == "dkim"
    }
}

#[derive(Deserialize)]
pub struct ShowQuery {
    notice: Option<String>,
}

/// `GET /domains/{id}`
pub async fn show(
    state: web::Data<State>,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
    query: web::Query<ShowQuery>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    let domain = find(&state, &user, id).await?;
    let name = DomainName::known(&domain.name);
    // One that is older than keys of domains gets its own here.
    state.checker.key_of(account, id, &name).await?;
    let found = state
        .db
        .read(move |conn| {
            let Some(records) = store::find_records(conn, account, id)? else {
                return Ok(None);
            };
            // Told to nobody who has not proven that the domain is theirs.
            let is_verified_elsewhere = records.dkim.is_found()
                && !domain.status.is_verified()
                && store::is_verified_elsewhere(conn, account, &name)?;
            let keys = store::list_keys(conn, account, id)?;
            Ok::<_, db::Error>(Some((domain, records, keys, is_verified_elsewhere)))
        })
        .await?;
    let (domain, records, keys, is_verified_elsewhere) = found.ok_or(Error::NotFound)?;
    let command = format!(
        "{} domain add --account={} {} --verified",
        page::shell_quote(&state.program),
        page::shell_quote(&user.email),
        page::shell_quote(&domain.name),
    );
    page::html(&ShowPage {
        wanted: Wanted::all(&domain, &records),
        notice: notice(query.notice.as_deref(), &domain),
        user,
        domain,
        records,
        keys,
        is_verified_elsewhere,
        command,
    })
}

fn notice(which: Option<&str>, domain: &Domain) -> Option<String> {
    match which? {
        "checked" => Some(format!(
            "{} was checked just now: it is {}.",
            domain.name,
            domain.status.as_str()
        )),
        "silent" => Some(
            "DNS gave no answer, so nothing was changed. The server asks again by itself."
                .to_owned(),
        ),
        "wait" => Some(format!(
            "A domain was checked a moment ago. Wait {SECONDS_BETWEEN} seconds, then check again."
        )),
        _ => None,
    }
}

/// `POST /domains/{id}/check`: looks the domain's records up now.
pub async fn check(
    state: web::Data<State>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    // Whether they may ask for a look. What DNS says is then written down whatever becomes of the
    // session: the server looks by itself too.
    let found = move |conn: &mut _| store::find(conn, account, id);
    let domain = session.write(&state.db, found).await??;
    domain.ok_or(Error::NotFound)?;
    let notice = if state.check_limit.admits(account) {
        let checked = state.checker.check(account, id, actor).await?;
        match checked.ok_or(Error::NotFound)?.is_answered {
            true => "checked",
            false => "silent",
        }
    } else {
        "wait"
    };
    Ok(page::redirect(
        &request,
        &format!("/domains/{id}?notice={notice}"),
    ))
}

impl From<check::Error> for Error {
    fn from(error: check::Error) -> Self {
        match error {
            check::Error::Db(error) => error.into(),
            error => Self::Internal(error.to_string()),
        }
    }
}

#[derive(Template)]
#[template(path = "domains/delete.html")]
struct DeletePage {
    user: User,
    domain: Domain,
    /// The live keys that stand against it, by id and name.
    keys: Vec<(i64, String)>,
}

/// `GET /domains/{id}/delete`
pub async fn confirm_delete(
    state: web::Data<State>,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    page::html(&delete_page(&state, user, *id).await?)
}

/// `POST /domains/{id}/delete`: refused while live keys are restricted to the domain.
pub async fn delete(
    state: web::Data<State>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    let deleted = session
        .write(&state.db, move |conn| {
            store::delete(conn, account, id, &actor)
        })
        .await??;
    match deleted {
        Deleted::Yes => Ok(page::redirect(&request, "/domains")),
        Deleted::NoSuchDomain => Err(Error::NotFound),
        Deleted::InUse => page::unprocessable(&delete_page(&state, user, id).await?),
    }
}

async fn delete_page(state: &State, user: User, id: i64) -> Result<DeletePage, Error> {
    let domain = find(state, &user, id).await?;
    let account = user.account;
    let keys = state
        .db
        .read(move |conn| store::list_keys(conn, account, id))
        .await?;
    Ok(DeletePage { user, domain, keys })
}

async fn find(state: &State, user: &User, id: i64) -> Result<Domain, Error> {
    let account = user.account;
    state
        .db
        .read(move |conn| store::find(conn, account, id))
        .await?
        .ok_or(Error::NotFound)
}
