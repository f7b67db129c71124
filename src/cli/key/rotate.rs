//! `tosend-dashboard key rotate`, and `key stop`

use chrono::TimeDelta;
use clap::ValueEnum;

use super::arguments::{KeyArgs, has_ended, live, no_such_key};
use crate::accounts::event::Actor;
use crate::cli::database::find_account;
use crate::cli::outcome::{CommandFailure, CommandResult, failure, hand_over, print};
use crate::config::Config;
use crate::db::{Db, Share};
use crate::keys::expiry::Expiry;
use crate::keys::secret::PlainKey;
use crate::keys::store::{self, RotateError, Rotation};

#[derive(Debug, clap::Args)]
pub struct RotateArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// How long the old key keeps working
    #[arg(long, value_enum, default_value_t = Overlap::Day)]
    overlap: Overlap,
    /// Stop the old key sooner, when it was not used for this long
    #[arg(long, value_enum, value_name = "TIME")]
    quiet: Option<Quiet>,
    /// When the new key expires, as for "key create" [default: like the old key]
    #[arg(long, value_name = "WHEN", value_parser = Expiry::parse_text)]
    expires: Option<Expiry>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Overlap {
    Now,
    #[value(name = "1h")]
    Hour,
    #[value(name = "24h")]
    Day,
    #[value(name = "7d")]
    Week,
    /// Until "key stop"
    Manual,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Quiet {
    #[value(name = "1h")]
    Hour,
    #[value(name = "24h")]
    Day,
    #[value(name = "7d")]
    Week,
}

impl Overlap {
    fn time(self) -> Option<TimeDelta> {
        match self {
            Self::Now => Some(TimeDelta::zero()),
            Self::Hour => Some(TimeDelta::hours(1)),
            Self::Day => Some(TimeDelta::days(1)),
            Self::Week => Some(TimeDelta::days(7)),
            Self::Manual => None,
        }
    }
}

impl Quiet {
    fn time(self) -> TimeDelta {
        match self {
            Self::Hour => TimeDelta::hours(1),
            Self::Day => TimeDelta::days(1),
            Self::Week => TimeDelta::days(7),
        }
    }
}

pub fn rotate(config: &Config, db: &Db, args: &RotateArgs) -> CommandResult {
    let rotation = Rotation {
        overlap: args.overlap.time(),
        stops_when_quiet: args.quiet.map(Quiet::time),
        expiry: args.expires,
    };
    let secret = PlainKey::generate();
    let id = args.key.id;
    db.write_blocking(|conn| {
        let account = find_account(conn, &args.key.account)?;
        let (limit, actor) = (config.key_limit, Actor::operator());
        store::rotate(conn, account, id, &rotation, &secret, limit, &actor)
            .map_err(|why| refusal(id, why))?;
        // Before the commit: a key that could not be printed must not replace one.
        hand_over(secret.expose()).map_err(CommandFailure)
    })?;
    Ok(())
}

fn refusal(id: i64, why: RotateError) -> CommandFailure {
    match why {
        RotateError::NoSuchKey => no_such_key(id),
        RotateError::Ended(key) => has_ended(&key),
        RotateError::AlreadyRotated(key) => match key.successor {
            Some(new) => CommandFailure(format!(
                "the key {id} has been replaced already, by the key {} ({})",
                new.id, new.truncated
            )),
            None => CommandFailure(format!("the key {id} has been replaced already")),
        },
        RotateError::Create(why) => failure(why),
    }
}

/// Stops only replaced keys: ending any other key means deleting it.
pub fn stop(db: &Db, args: &KeyArgs) -> CommandResult {
    let id = args.id;
    let key = db.write_urgently_blocking(Share::All, |conn| {
        let account = find_account(conn, &args.account)?;
        let key = live(id, store::find(conn, account, id)?)?;
        if key.successor.is_none() && key.stops_at.is_none() && key.stops_when_quiet.is_none() {
            return Err(CommandFailure(format!(
                "no other key replaces the key {id}: to end it, delete it"
            )));
        }
        live(id, store::stop(conn, account, id, &Actor::operator())?)
    })?;
    print(format_args!("Stopped {} “{}”.", key.truncated, key.name))
}
