//! `tosend-dashboard domain …`

use clap::Subcommand;

use super::{Failure, Outcome, find_account, print};
use crate::accounts::event::Actor;
use crate::db::Db;
use crate::domains::name::DomainName;
use crate::domains::store::{self, DomainStatus};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a sending domain; running it again changes nothing
    Add {
        /// The address of one of the account's people
        #[arg(long)]
        account: String,
        /// The domain, as in acme.com
        name: String,
        /// Attest, as the operator, that the account owns the domain
        #[arg(long)]
        verified: bool,
    },
}

pub fn run(command: Command, db: &Db) -> Outcome {
    let Command::Add {
        account,
        name,
        verified,
    } = command;
    let name = DomainName::parse(&name).map_err(|e| e.to_string())?;
    let actor = Actor::operator();
    let status = db.write_blocking(|conn| {
        let account = find_account(conn, &account)?;
        store::add(conn, account, &name, &actor)?;
        if verified {
            store::set_status(conn, account, &name, DomainStatus::Verified, &actor)?;
        }
        let domain = store::find_by_name(conn, account, &name)?;
        domain
            .map(|domain| domain.status)
            .ok_or_else(|| Failure("the domain was deleted meanwhile".into()))
    })?;
    print(format_args!("{name} is {}.", status.as_str()))
}
