//! The first account's keys, changed with the product's own functions on the test's own
//! connections: for changes that have no page, and for thousands of keys.

use std::fmt::Debug;

use chrono::DateTime;
use tosend_dashboard::accounts::email::Email;
use tosend_dashboard::accounts::event::Actor;
use tosend_dashboard::accounts::store::{self as accounts_store, AccountId};
use tosend_dashboard::db::{self, Connection, DatabaseUrl, Db};
use tosend_dashboard::keys::expiry::Expiry;
use tosend_dashboard::keys::name::{Description, KeyName};
use tosend_dashboard::keys::rule::Rule;
use tosend_dashboard::keys::scope::NewScope;
use tosend_dashboard::keys::secret::PlainKey;
use tosend_dashboard::keys::store::{
    self, CreateError, Edit, EditError, Found, Key, NewKey, RotateError, Rotation,
};
use tosend_dashboard::keys::view::Which;

use super::{Database, EMAIL, until};

pub struct KeyStore {
    pub db: Db,
    pub account: AccountId,
}

/// The name of all of them.
pub const NAME: &str = "Production";

/// A key that was created.
#[derive(Debug, Clone)]
pub struct Made {
    pub id: i64,
    pub key: String,
}

/// `store::pause`, `store::delete` and the like.
pub type Change = fn(&mut Connection, AccountId, i64, &Actor) -> db::Result<Found>;

impl KeyStore {
    pub fn of(database: &Database) -> Self {
        let db = Db::open(&DatabaseUrl::parse(&database.url).unwrap()).unwrap();
        let email = Email::parse(EMAIL).unwrap();
        let account = db.write_blocking(|conn| accounts_store::find_id_by_email(conn, &email));
        let account = account.unwrap().expect("somebody has signed up");
        Self { db, account }
    }

    pub fn create(&self, scope: NewScope, expiry: Expiry) -> Result<Made, CreateError> {
        self.write(|conn| self.insert(conn, scope.clone(), expiry))
    }

    /// Creates many equal keys at once.
    pub fn create_many(&self, number: usize, scope: &NewScope) -> Vec<Made> {
        let create = |conn: &mut Connection| {
            (0..number)
                .map(|_| self.insert(conn, scope.clone(), Expiry::NEVER))
                .collect::<Result<_, _>>()
        };
        self.write(create).unwrap()
    }

    /// On a busy machine, a connection or a lock may take longer than the product waits for it. In
    /// that case nothing is done, and the write is repeated.
    pub fn write<T, E: From<db::Error> + Debug>(
        &self,
        work: impl Fn(&mut Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        in_time(|| self.db.write_blocking(&work))
    }

    fn read<T>(&self, work: impl Fn(&mut Connection) -> db::Result<T>) -> T {
        in_time(|| self.db.read_blocking(&work)).unwrap()
    }

    fn insert(
        &self,
        conn: &mut Connection,
        scope: NewScope,
        expiry: Expiry,
    ) -> Result<Made, CreateError> {
        let new = NewKey {
            name: name(),
            description: Description::default(),
            scope,
            expiry,
            rule: Rule::default(),
        };
        let secret = PlainKey::generate();
        let actor = Actor::operator();
        let key = store::create(conn, self.account, &new, &secret, i64::MAX, &actor)?;
        Ok(made(&key, &secret))
    }

    /// `expiry`: `None` leaves it unchanged.
    pub fn edit(&self, id: i64, scope: NewScope, expiry: Option<Expiry>) -> Result<Key, EditError> {
        let edit = Edit {
            name: name(),
            description: Description::default(),
            scope,
            expiry,
            rule: Rule::default(),
        };
        let actor = Actor::operator();
        self.write(|conn| store::edit(conn, self.account, id, None, &edit, &actor))
    }

    /// Returns the successor.
    pub fn rotate(&self, id: i64, rotation: &Rotation) -> Result<Made, RotateError> {
        let secret = PlainKey::generate();
        let (limit, actor) = (i64::MAX, Actor::operator());
        let new = self.write(|conn| {
            store::rotate(conn, self.account, id, rotation, &secret, limit, &actor)
        })?;
        Ok(made(&new, &secret))
    }

    pub fn change(&self, id: i64, change: Change) -> Found {
        self.write(|conn| change(conn, self.account, id, &Actor::operator()))
            .unwrap()
    }

    pub fn live_ids(&self) -> Vec<i64> {
        let list =
            |conn: &mut Connection| store::list(conn, self.account, Which::Live, i64::MAX, 0);
        let keys = self.write(list).unwrap();
        keys.iter().map(|key| key.id).collect()
    }

    /// Records the end of keys that ended by themselves, and ends those that were quiet, like a
    /// server that has run for a long time. Returns how many.
    pub fn end_due(&self) -> usize {
        let mut keys = self.read(|conn| store::find_due_of_any_account(conn, 1_000));
        keys.extend(self.read(store::find_quiet_of_any_account));
        let long_ago = DateTime::UNIX_EPOCH.naive_utc();
        let end = |(account, id)| {
            let ended = self.write(|conn| store::end_if_due(conn, account, id, long_ago));
            usize::from(ended.unwrap())
        };
        keys.into_iter().map(end).sum()
    }
}

/// Uses the database, and repeats the work while it is not available in time.
fn in_time<T, E: Debug>(work: impl Fn() -> Result<T, E>) -> Result<T, E> {
    let mut done = None;
    until("a database that answers", || {
        let result = work();
        let is_late = |error: &E| format!("{error:?}").contains("Unavailable(");
        let is_done = !result.as_ref().err().is_some_and(is_late);
        done = Some(result);
        is_done
    });
    done.expect("it was tried")
}

fn name() -> KeyName {
    KeyName::parse(NAME).unwrap()
}

fn made(key: &Key, secret: &PlainKey) -> Made {
    Made {
        id: key.id,
        key: secret.expose().to_owned(),
    }
}
