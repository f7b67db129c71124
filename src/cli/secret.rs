//! `tosend-dashboard secret …`: another secret takes the place of the server's.
//!
//! Both stand in the file until the old one is forgotten, and the database says which one is in use.
//! So after each step, and if the command is killed between two, every server that has the file
//! opens every key.

use std::time::{Duration, Instant};

use clap::Subcommand;

use super::outcome::{CommandFailure, CommandResult, failure, one_line, print};
use super::server_secret;
use crate::config::Config;
use crate::db::{Connection, Db, nodes};
use crate::domains::dkim::DkimKey;
use crate::domains::store as domains_store;
use crate::secret::{SecretRing, ServerSecret};

/// Keys of domains that are encrypted anew per transaction.
const KEYS: i64 = 100;
/// The pause after each is as long as it took, and at least this: a server beside this command must
/// be able to write.
const SHORTEST_REST: Duration = Duration::from_millis(5);

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new secret and use it; what the old one signed is accepted until it is forgotten
    Rotate {
        /// With PostgreSQL: the file with the new secret is on all nodes now, so that it can be used
        #[arg(long)]
        copied: bool,
    },
    /// Delete the old secret from the file: what it signed is refused
    ForgetOld,
}

pub fn run(command: &Command, config: &Config, db: &Db) -> CommandResult {
    // Also makes sure that the file belongs to the database, before anything is changed.
    let secrets = server_secret::read(config, db)?;
    server_secret::record(config, db, &secrets)?;
    match command {
        Command::Rotate { copied } => rotate(config, db, *copied),
        Command::ForgetOld => forget_old(config, db),
    }
}

/// What is done next in a rotation.
enum Step {
    /// The new secret is in the file, and has to be copied to the other nodes.
    Copy,
    /// It is in use. Also if it was before, by a rotation that was interrupted.
    Encrypt { was_in_use: bool },
}

fn rotate(config: &Config, db: &Db, is_copied: bool) -> CommandResult {
    let file = config.secret_file.display();
    let step = db.write_blocking(|conn| {
        let (secrets, current) = find(conn, config)?;
        let [newest, ..] = &secrets.all()[..] else {
            return Err(failure("the file is empty"));
        };
        match (secrets.all().len(), db.is_postgres()) {
            (1, true) if is_copied => Err(failure(format!(
                "{file} has no new secret: run “secret rotate” without --copied first"
            ))),
            (1, is_postgres) => {
                secrets.add_new()?;
                match is_postgres {
                    true => Ok(Step::Copy),
                    false => switch(conn, &secrets.all()[0]),
                }
            }
            _ if *newest == current => Ok(Step::Encrypt { was_in_use: true }),
            (_, true) if !is_copied => Ok(Step::Copy),
            _ => switch(conn, newest),
        }
    })?;
    let Step::Encrypt { was_in_use } = step else {
        return print(format_args!(
            "A new secret is in {file}, and not in use yet. Copy the file to each node of this database, in the place of theirs; none needs a restart for that. Then run “secret rotate --copied”."
        ));
    };
    let done = encrypt_anew(config, db)?;
    if was_in_use && done.changed == 0 {
        return Err(format!(
            "the secret was rotated already, and {file} still holds the old one, too: run “secret forget-old” before you rotate it again"
        ));
    }
    print(format_args!(
        "The new secret in {file} is in use. {done} Restart the server, on all nodes, so that it signs with the new one, too. Seven days later, when no session is left that the old one signed, run “secret forget-old”. Until then, keep the file as it is: it holds both."
    ))
}

fn switch(conn: &mut Connection, to: &ServerSecret) -> Result<Step, CommandFailure> {
    nodes::adopt_secret(conn, &to.hash())?;
    Ok(Step::Encrypt { was_in_use: false })
}

fn forget_old(config: &Config, db: &Db) -> CommandResult {
    let file = config.secret_file.display();
    let done = encrypt_anew(config, db)?;
    db.write_blocking(|conn| {
        let (secrets, current) = find(conn, config)?;
        let all = secrets.all();
        match all.len() {
            1 => Err(failure(format!("{file} holds no old secret"))),
            _ if all[0] != current => Err(failure(format!(
                "the new secret in {file} is not in use yet: finish with “secret rotate”"
            ))),
            _ => Ok(secrets.keep_only(&current)?),
        }
    })?;
    let nodes = match db.is_postgres() {
        true => " Copy the file to each node of this database.",
        false => "",
    };
    print(format_args!(
        "{file} holds only the secret in use. {done}{nodes} Servers that run accept the old one until they are restarted."
    ))
}

/// The secrets in the file and the one in use. Another command like this one waits until this
/// transaction ends.
fn find(
    conn: &mut Connection,
    config: &Config,
) -> Result<(SecretRing, ServerSecret), CommandFailure> {
    let secrets = SecretRing::find(&config.secret_file)?;
    let shared = nodes::lock_secret(conn)?;
    let found = secrets.zip(shared).and_then(|(secrets, shared)| {
        let current = secrets.find_by_hash(&shared)?;
        Some((secrets, current))
    });
    found.ok_or_else(|| {
        failure(format!(
            "the secret {} was changed meanwhile: run the command again",
            config.secret_file.display()
        ))
    })
}

/// What became of the keys of domains.
#[derive(Default)]
struct Encrypted {
    changed: usize,
    /// Neither secret opens them.
    lost: usize,
}

impl std::fmt::Display for Encrypted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys of domains encrypted with it: {}.", self.changed)?;
        match self.lost {
            0 => Ok(()),
            lost => write!(
                f,
                " Keys of domains that neither secret opens: {lost}; the pages of these domains offer another key."
            ),
        }
    }
}

/// Encrypts the keys of domains with the secret in use, in small steps.
fn encrypt_anew(config: &Config, db: &Db) -> Result<Encrypted, String> {
    let secrets = server_secret::read(config, db)?;
    let (mut done, mut after) = (Encrypted::default(), 0);
    loop {
        let started = Instant::now();
        let list =
            |conn: &mut _| domains_store::list_sealed_after_of_any_account(conn, after, KEYS);
        let some = db
            .read_blocking(list)
            .map_err(|e| one_line(&e.to_string()))?;
        let Some((last, ..)) = some.last() else {
            return Ok(done);
        };
        after = *last;
        let mut changes = Vec::new();
        for (id, name, old) in some {
            if DkimKey::open(&old, secrets.current(), &name).is_ok() {
                continue;
            }
            match DkimKey::open_with_any(&old, &secrets, &name) {
                Ok(key) => {
                    let new = key.seal(secrets.current(), &name);
                    changes.push((id, old, new.map_err(|e| e.to_string())?));
                }
                Err(_) => done.lost += 1,
            }
        }
        if changes.is_empty() {
            continue;
        }
        db.write_blocking(|conn| {
            changes.iter().try_for_each(|(id, old, new)| {
                domains_store::reseal_of_any_account(conn, *id, old, new)
            })
        })
        .map_err(|e: crate::db::Error| one_line(&e.to_string()))?;
        done.changed += changes.len();
        std::thread::sleep(started.elapsed().max(SHORTEST_REST));
    }
}
