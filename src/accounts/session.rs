//! The signed-in person: sessions in the database behind actix-session, and the `SignedIn`
//! argument.

use std::collections::HashMap;
use std::future::{Future, Ready, ready};
use std::net::IpAddr;
use std::pin::Pin;

use actix_session::storage::{LoadError, SaveError, SessionKey, SessionStore, UpdateError};
use actix_session::{Session, SessionExt};
use actix_web::body::MessageBody;
use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest};

use super::event::Actor;
use super::sign_in::SignInGuard;
use super::store::sessions::{self, SessionId};
use super::store::{Credentials, User};
use crate::db::{self, Connection, Db, Share};
use crate::http::{Context, Error, client_address, keep_user_agent, log, part, user_agent};
use crate::token;

/// The session's user and row. Set only between `load` and the handler.
const USER: &str = "user";
const ID: &str = "id";
/// The user, the hash that the password was compared with, and the address. Set only between
/// `sign_in` and `save`.
const USER_ID: &str = "user_id";
const PASSWORD_HASH: &str = "password_hash";
const ADDRESS: &str = "address";
const USER_AGENT: &str = "user_agent";
/// The row's new key. Set only between `go_on` and `update`.
const NEXT_KEY: &str = "next_key";

/// How long a browser remembers who signed in on it, counted from the last time.
const DEVICE_KEPT: Duration = Duration::days(365);

/// A session holds only the user's id, so a row belongs to a user, and only people who signed in
/// have one. Rows are keyed by the hash of the session key.
#[derive(Clone)]
pub struct DbSessions {
    pub db: Db,
    /// Whether a request shows that the person is there, which extends the session.
    pub keeps_alive: bool,
}

impl SessionStore for DbSessions {
    async fn load(&self, key: &SessionKey) -> Result<Option<HashMap<String, String>>, LoadError> {
        let id = SessionId::of_key(key.as_ref());
        let found = self
            .db
            .read(move |conn| sessions::find_of_any_account(conn, id))
            .await
            .map_err(|e| LoadError::Other(e.into()))?;
        let Some((user, is_due)) = found else {
            return Ok(None);
        };
        if self.keeps_alive && is_due {
            let touched = self.db.write(move |conn| sessions::touch(conn, id)).await;
            if let Err(error) = touched
                && !matches!(error, db::Error::DiskFull(_))
            {
                // The session may end earlier than it should; the request does not fail because of
                // that.
                tracing::warn!(%error, "the last use of a session could not be written");
            }
        }
        let known = || {
            Ok::<_, serde_json::Error>(HashMap::from([
                (USER.to_owned(), serde_json::to_string(&user)?),
                (ID.to_owned(), serde_json::to_string(&id)?),
            ]))
        };
        known().map(Some).map_err(|e| LoadError::Other(e.into()))
    }

    async fn save(
        &self,
        state: HashMap<String, String>,
        _ttl: &Duration,
    ) -> Result<SessionKey, SaveError> {
        let (proven, address, user_agent) = sign_in_of(&state)
            .ok_or_else(|| SaveError::Other(anyhow::anyhow!("a session without a user")))?;
        let key = token::random();
        let id = SessionId::of_key(&key);
        let is_started = self
            .db
            .write_urgently(Share::Half, move |conn| {
                sessions::insert(conn, id, &proven, address, &user_agent)
            })
            .await
            .map_err(|e| SaveError::Other(e.into()))?;
        if !is_started {
            let why = anyhow::anyhow!("the password was changed during the sign-in");
            return Err(SaveError::Other(why));
        }
        key.try_into()
            .map_err(|_| SaveError::Other(anyhow::anyhow!("the session key is too long")))
    }

    /// A session's state never changes, and saving it again here would revive a session that was
    /// ended while the request ran. Its key may have changed: then the cookie gets the new one.
    async fn update(
        &self,
        key: SessionKey,
        state: HashMap<String, String>,
        _ttl: &Duration,
    ) -> Result<SessionKey, UpdateError> {
        let Some(next) = state.get(NEXT_KEY) else {
            return Ok(key);
        };
        let next: String = serde_json::from_str(next).map_err(|e| UpdateError::Other(e.into()))?;
        next.try_into()
            .map_err(|_| UpdateError::Other(anyhow::anyhow!("the session key is too long")))
    }

    /// A cookie expires no later than its session; a session's last use is recorded when it is
    /// loaded.
    async fn update_ttl(&self, _key: &SessionKey, _ttl: &Duration) -> Result<(), anyhow::Error> {
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        let id = SessionId::of_key(key.as_ref());
        self.db
            .write_urgently(Share::Half, move |conn| sessions::delete(conn, id))
            .await?;
        Ok(())
    }
}

/// The data that `sign_in` put into a new session.
fn sign_in_of(state: &HashMap<String, String>) -> Option<(Credentials, IpAddr, String)> {
    let proven = Credentials {
        user_id: serde_json::from_str(state.get(USER_ID)?).ok()?,
        password_hash: serde_json::from_str(state.get(PASSWORD_HASH)?).ok()?,
    };
    let address = serde_json::from_str(state.get(ADDRESS)?).ok()?;
    let user_agent = serde_json::from_str(state.get(USER_AGENT)?).ok()?;
    Some((proven, address, user_agent))
}

/// Signs in a user whose password was right, under a new session id (ASVS 5.0, 7.2.4).
pub fn sign_in(
    session: &Session,
    request: &HttpRequest,
    proven: &Credentials,
) -> Result<(), Error> {
    let address = client_address(request);
    let mut kept = String::new();
    keep_user_agent(&mut kept, user_agent(request));
    session.renew();
    session
        .insert(USER_ID, proven.user_id)
        .and_then(|()| session.insert(PASSWORD_HASH, &proven.password_hash))
        .and_then(|()| session.insert(ADDRESS, address))
        .and_then(|()| session.insert(USER_AGENT, kept))
        .map_err(|e| Error::Internal(e.to_string()))?;
    note_device(request, proven);
    Ok(())
}

/// Tells the browser the session's new key. (`renew` would start another session, after the
/// handler, and might fail.) `now`: the credentials with the password that was just set.
pub fn go_on(
    session: &Session,
    request: &HttpRequest,
    key: &str,
    now: &Credentials,
) -> Result<(), Error> {
    session
        .insert(NEXT_KEY, key)
        .map_err(|e| Error::Internal(e.to_string()))?;
    note_device(request, now);
    Ok(())
}

/// What the browser should remember, passed from a handler to `remember_device`.
struct Device(String);

fn note_device(request: &HttpRequest, person: &Credentials) {
    let devices = &part::<SignInGuard>(request).known_devices;
    let device = Device(devices.remember(&devices_of(request), person));
    request.extensions_mut().insert(device);
}

/// Middleware around the session middleware: lets the browser remember a person after they sign in.
pub async fn remember_device<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let mut response = next.call(request).await?;
    let device = response.request().extensions_mut().remove();
    if let Some(Device(value)) = device {
        let cookie = Cookie::build(device_cookie(response.request()), value)
            .path("/")
            .same_site(SameSite::Lax)
            .secure(Context::of(response.request()).config.is_https())
            .http_only(true)
            .max_age(DEVICE_KEPT)
            .finish();
        response.response_mut().add_cookie(&cookie)?;
    }
    Ok(response)
}

/// The device cookie as received; empty if there is none.
pub fn devices_of(request: &HttpRequest) -> String {
    let cookie = request.cookie(device_cookie(request));
    cookie.map_or_else(String::new, |cookie| cookie.value().to_owned())
}

fn device_cookie(request: &HttpRequest) -> &'static str {
    match Context::of(request).config.is_https() {
        true => "__Host-tosend_device",
        false => "tosend_device",
    }
}

/// Signs out: the session has ended when this returns `Ok`.
pub async fn sign_out(session: &Session, db: &Db, address: IpAddr) -> Result<(), Error> {
    let id: Option<SessionId> = session.get(ID).ok().flatten();
    let user: Option<User> = session.get(USER).ok().flatten();
    if let Some((id, user)) = id.zip(user) {
        db.write_urgently(Share::Half, move |conn| {
            sessions::end(conn, user.id, id, address)
        })
        .await?;
    }
    session.purge();
    Ok(())
}

/// The user who sent the request and is about to change something. Writes go through the session;
/// there is no other way to write on a person's behalf.
pub struct Acting {
    pub user: User,
    pub actor: Actor,
    pub session: ThisSession,
}

impl FromRequest for Acting {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let address = client_address(request);
        let user = SignedIn::from_request(request, payload);
        let session = ThisSession::from_request(request, payload);
        Box::pin(async move {
            let SignedIn(user) = user.await?;
            let actor = Actor::user(user.id, &user.email, address);
            Ok(Self {
                user,
                actor,
                session: session.await?,
            })
        })
    }
}

/// The user who sent the request. A handler without this argument, or
/// [`Acting`], is public.
pub struct SignedIn(pub User);

impl FromRequest for SignedIn {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let user: Option<User> = request.get_session().get(USER).ok().flatten();
        if let Some(user) = &user {
            log::note_caller(request, None, user.account.0);
        }
        ready(user.map(Self).ok_or(Error::SignInNeeded))
    }
}

/// The session that the request came in.
#[derive(Debug, Clone, Copy)]
pub struct ThisSession {
    pub id: SessionId,
    user_id: i64,
}

impl ThisSession {
    /// Runs a change like [`Db::write`], if the session is still live at that time: it may have
    /// ended since the request was admitted, and a session that ended before the commit must not
    /// change anything.
    ///
    /// # Errors
    /// The session has ended, or the database did not answer. The change's own result is inside.
    pub async fn write<T, E>(
        &self,
        db: &Db,
        change: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<T, E>, Error>
    where
        T: Send + 'static,
        E: From<db::Error> + Send + 'static,
    {
        let this = *self;
        let written = db.write_as(db::name_of(&change), move |conn| {
            this.hold(conn)?;
            change(conn).map_err(Unwritten::Refused)
        });
        told(written.await)
    }

    /// The same like [`Db::write_urgently`].
    ///
    /// # Errors
    /// As above.
    pub async fn write_urgently<T, E>(
        &self,
        db: &Db,
        share: Share,
        mut change: impl FnMut(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<T, E>, Error>
    where
        T: Send + 'static,
        E: From<db::Error> + Send + 'static,
    {
        let this = *self;
        let written = db.write_urgently_as(db::name_of(&change), share, move |conn| {
            this.hold(conn)?;
            change(conn).map_err(Unwritten::Refused)
        });
        told(written.await)
    }

    fn hold<E: From<db::Error>>(self, conn: &mut Connection) -> Result<(), Unwritten<E>> {
        match sessions::hold(conn, self.user_id, self.id)? {
            true => Ok(()),
            false => Err(Unwritten::SessionEnded),
        }
    }
}

fn told<T, E>(written: Result<T, Unwritten<E>>) -> Result<Result<T, E>, Error> {
    match written {
        Ok(value) => Ok(Ok(value)),
        Err(Unwritten::Refused(error)) => Ok(Err(error)),
        Err(Unwritten::SessionEnded) => Err(Error::SignInNeeded),
    }
}

/// Why a person's change was not made.
enum Unwritten<E> {
    SessionEnded,
    Refused(E),
}

impl<E: From<db::Error>> From<db::Error> for Unwritten<E> {
    fn from(error: db::Error) -> Self {
        Self::Refused(error.into())
    }
}

impl FromRequest for ThisSession {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let session = request.get_session();
        let id: Option<SessionId> = session.get(ID).ok().flatten();
        let user: Option<User> = session.get(USER).ok().flatten();
        let this = id.zip(user).map(|(id, user)| Self {
            id,
            user_id: user.id,
        });
        ready(this.ok_or(Error::SignInNeeded))
    }
}
