//! The server's secret, and the check that it belongs to the database.

use super::database::make_folder;
use super::outcome::{CommandResult, one_line, print};
use crate::config::Config;
use crate::db::{Db, Share, nodes};
use crate::domains::dkim::DkimKey;
use crate::domains::name::DomainName;
use crate::domains::store as domains_store;
use crate::secret::{SecretRing, ServerSecret};

/// Why a secret does not belong to the database.
enum Wrong {
    Missing,
    Other,
    /// It cannot open the key of this domain.
    DoesNotOpen(DomainName),
}

/// The secrets in the file, with the one that belongs to the database in use, even before its tables
/// are up to date. A secret is created only if the database needs none yet: a new one in place of a
/// lost one would hide the loss.
pub fn read(config: &Config, db: &Db) -> Result<SecretRing, String> {
    match check(config, db)? {
        Some(secrets) => Ok(secrets),
        None => read_or_make(config),
    }
}

/// The same, and changes nothing. `None`: there is no file, and the server may make it.
///
/// # Errors
/// Why the server would not start.
pub fn check(config: &Config, db: &Db) -> Result<Option<SecretRing>, String> {
    let secrets = SecretRing::find(&config.secret_file)?;
    let shared = find_shared(db)?;
    let fault = match (&shared, &secrets) {
        (Some(_), None) => Some(Wrong::Missing),
        (Some(shared), Some(secrets)) => match secrets.using(shared) {
            Some(secrets) => return Ok(Some(secrets)),
            None => Some(Wrong::Other),
        },
        (None, secrets) => find_unopened(db, secrets.as_ref())?,
    };
    match fault {
        Some(wrong) => Err(explain(&wrong, config, db)),
        None => Ok(secrets),
    }
}

/// Records that the secret belongs to the database, unless another one does. The tables must be up
/// to date.
pub fn record(config: &Config, db: &Db, secrets: &SecretRing) -> CommandResult {
    let hash = secrets.current().hash();
    let is_shared = db
        .write_urgently_blocking(Share::Half, |conn| nodes::share_secret(conn, &hash))
        .map_err(|e| one_line(&e.to_string()))?;
    match is_shared {
        true => Ok(()),
        false => Err(explain(&Wrong::Other, config, db)),
    }
}

/// The secret with which the keys of new domains are sealed. `None` if this machine is not a node
/// of the PostgreSQL database: the server makes the keys later.
pub fn find_for_sealing(config: &Config, db: &Db) -> Result<Option<ServerSecret>, String> {
    if !db.is_postgres() {
        let secrets = read(config, db)?;
        record(config, db, &secrets)?;
        return Ok(Some(secrets.current().clone()));
    }
    let secrets = SecretRing::find(&config.secret_file)?;
    let found = secrets.zip(find_shared(db)?);
    Ok(found.and_then(|(secrets, shared)| secrets.find_by_hash(&shared)))
}

/// Makes the newest secret in the file, or a new one, the one of this database.
pub fn adopt(config: &Config, db: &Db) -> CommandResult {
    let secrets = read_or_make(config)?;
    let hash = secrets.current().hash();
    db.write_blocking(|conn| nodes::adopt_secret(conn, &hash))
        .map_err(|e| one_line(&e.to_string()))?;
    let file = config.secret_file.display();
    match db.is_postgres() {
        true => print(format_args!(
            "The nodes of this database share the secret {file} now: copy it to each of them, and restart them."
        )),
        false => print(format_args!(
            "The secret {file} belongs to this database now: restart the server if it runs."
        )),
    }
}

fn read_or_make(config: &Config) -> Result<SecretRing, String> {
    make_folder(config.secret_file.parent().unwrap_or("".as_ref()))?;
    SecretRing::read_or_make(&config.secret_file)
}

fn find_shared(db: &Db) -> Result<Option<Vec<u8>>, String> {
    db.read_blocking(nodes::find_secret)
        .map_err(|e| one_line(&e.to_string()))
}

/// Databases created before secrets were recorded: only domain keys show which secret was used.
fn find_unopened(db: &Db, secrets: Option<&SecretRing>) -> Result<Option<Wrong>, String> {
    let sealed = db
        .read_blocking(domains_store::list_sealed_of_any_account)
        .map_err(|e| one_line(&e.to_string()))?;
    let Some(secrets) = secrets else {
        return Ok((!sealed.is_empty()).then_some(Wrong::Missing));
    };
    let unopened = sealed
        .into_iter()
        .find(|(name, key)| DkimKey::open_with_any(key, secrets, name).is_err());
    Ok(unopened.map(|(name, _)| Wrong::DoesNotOpen(name)))
}

fn explain(wrong: &Wrong, config: &Config, db: &Db) -> String {
    let file = config.secret_file.display();
    let fault = match wrong {
        Wrong::Missing => "is missing, but this database was used with one already".to_owned(),
        Wrong::Other if db.is_postgres() => {
            "is not the one that the nodes of this database share".to_owned()
        }
        Wrong::Other => "is not the one that this database was used with".to_owned(),
        Wrong::DoesNotOpen(domain) => {
            format!("is not the one that the DKIM key of {domain} was encrypted with")
        }
    };
    let old = match db.is_postgres() {
        true => "copy theirs to this place",
        false => "put the old file back in this place",
    };
    format!(
        "the secret {file} {fault}: {old}, or, if it is lost, run “adopt-secret” here, which signs everyone out, and after which domains need new DKIM keys"
    )
}
