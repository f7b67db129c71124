//! The server's secret, and the check that it belongs to the database.

use super::database::make_folder;
use super::outcome::{Outcome, one_line, print};
use crate::config::Config;
use crate::db::{Db, Share, nodes};
use crate::domains::dkim::DkimKey;
use crate::domains::name::DomainName;
use crate::domains::store as domains_store;
use crate::secret::ServerSecret;

/// Why a secret does not belong to the database.
enum Wrong {
    Missing,
    Other,
    /// It cannot open the key of this domain.
    DoesNotOpen(DomainName),
}

/// The secret that belongs to the database, even before its tables are up to date. A secret is
/// created only if the database needs none yet: a new one in place of a lost one would hide the
/// loss.
pub fn read(config: &Config, db: &Db) -> Result<ServerSecret, String> {
    let secret = ServerSecret::find(&config.secret_file)?;
    match find_fault(db, secret.as_ref())? {
        Some(wrong) => Err(explain(&wrong, config, db)),
        None => secret.map_or_else(|| read_or_make(config), Ok),
    }
}

/// Whether the secret is there; if not, the server may make it. Changes nothing.
///
/// # Errors
/// Why the server would not start.
pub fn check(config: &Config, db: &Db) -> Result<bool, String> {
    let secret = ServerSecret::find(&config.secret_file)?;
    match find_fault(db, secret.as_ref())? {
        Some(wrong) => Err(explain(&wrong, config, db)),
        None => Ok(secret.is_some()),
    }
}

/// Records that the secret belongs to the database, unless another one does. The tables must be up
/// to date.
pub fn record(config: &Config, db: &Db, secret: &ServerSecret) -> Outcome {
    let hash = secret.hash();
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
        let secret = read(config, db)?;
        record(config, db, &secret)?;
        return Ok(Some(secret));
    }
    let Some(secret) = ServerSecret::find(&config.secret_file)? else {
        return Ok(None);
    };
    let shared = find_shared(db)?;
    Ok(shared
        .is_some_and(|shared| shared == secret.hash())
        .then_some(secret))
}

/// Makes the secret in the file, or a new one, the one of this database.
pub fn adopt(config: &Config, db: &Db) -> Outcome {
    let secret = read_or_make(config)?;
    db.write_blocking(|conn| nodes::adopt_secret(conn, &secret.hash()))
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

fn read_or_make(config: &Config) -> Result<ServerSecret, String> {
    make_folder(config.secret_file.parent().unwrap_or("".as_ref()))?;
    ServerSecret::read_or_make(&config.secret_file)
}

fn find_shared(db: &Db) -> Result<Option<Vec<u8>>, String> {
    db.read_blocking(nodes::find_secret)
        .map_err(|e| one_line(&e.to_string()))
}

fn find_fault(db: &Db, secret: Option<&ServerSecret>) -> Result<Option<Wrong>, String> {
    if let Some(shared) = find_shared(db)? {
        return Ok(match secret {
            Some(secret) if shared == secret.hash() => None,
            Some(_) => Some(Wrong::Other),
            None => Some(Wrong::Missing),
        });
    }
    // Databases created before secrets were recorded: only domain keys show which secret was used.
    let sealed = db
        .read_blocking(domains_store::list_sealed_of_any_account)
        .map_err(|e| one_line(&e.to_string()))?;
    let Some(secret) = secret else {
        return Ok((!sealed.is_empty()).then_some(Wrong::Missing));
    };
    let unopened = sealed
        .into_iter()
        .find(|(name, key)| DkimKey::open(key, secret, name).is_err());
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
