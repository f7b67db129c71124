//! `tosend-dashboard email retry`, `cancel` and `purge`: in small transactions, so that a server
//! beside them never waits long.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::select::{Filters, Search};
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::accounts::store::{AccountId, events};
use crate::cli::outcome::{CommandFailure, CommandResult, print};
use crate::db::{self, Connection, Db};
use crate::mail::queue::{Selection, Task, TaskTally, store};

/// Emails per transaction.
const BATCH: usize = 100;
/// The pause after a transaction: as long as the transaction took, and at least this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, clap::Args)]
pub struct WorkArgs {
    /// Only the emails with these numbers, as "email list" shows them
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filters: Filters,
    /// All emails that it can be done with
    #[arg(long)]
    all: bool,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl WorkArgs {
    /// Nothing is ever done with all emails by mistake.
    pub fn check(&self) -> CommandResult {
        let is_narrowed = !self.ids.is_empty() || !self.filters.is_empty();
        match (self.all, is_narrowed) {
            (true, true) => Err("--all cannot be used with numbers or filters".to_owned()),
            (false, false) => Err("say which emails: numbers, filters, or --all".to_owned()),
            _ => Ok(()),
        }
    }
}

pub fn run(db: &Db, task: Task, args: &WorkArgs) -> CommandResult {
    let selection = args.filters.selection(db, &args.ids)?;
    let mut work = Work {
        db,
        task,
        args,
        selection: &selection,
        told: HashSet::new(),
        tally: TaskTally::default(),
    };
    let ended = work.run();
    let told = work.tell();
    // What was done before a failure stays done.
    ended.map_err(String::from).and(told)
}

struct Work<'a> {
    db: &'a Db,
    task: Task,
    args: &'a WorkArgs,
    selection: &'a Selection,
    /// The accounts whose activity has it.
    told: HashSet<AccountId>,
    tally: TaskTally,
}

impl Work<'_> {
    fn run(&mut self) -> Result<(), CommandFailure> {
        for ids in Search::new(self.db, self.selection)? {
            for batch in ids?.chunks(BATCH) {
                if self.args.dry_run {
                    self.try_out(batch)?;
                    continue;
                }
                let started = Instant::now();
                self.change(batch)?;
                sleep(started.elapsed().max(SHORTEST_PAUSE));
            }
        }
        Ok(())
    }

    fn try_out(&mut self, batch: &[i64]) -> db::Result<()> {
        let verdicts = self.db.read_blocking(|conn| {
            let verdict =
                |id: &i64| store::try_of_any_account(conn, self.task, *id, self.selection);
            batch.iter().map(verdict).collect::<db::Result<Vec<_>>>()
        })?;
        for verdict in verdicts.into_iter().flatten() {
            self.tally.add(verdict);
        }
        Ok(())
    }

    fn change(&mut self, batch: &[i64]) -> db::Result<()> {
        let (tally, accounts) = self.db.write_blocking(|conn| {
            let (mut tally, mut accounts) = (TaskTally::default(), HashSet::new());
            for id in batch {
                let done = store::do_of_any_account(conn, self.task, *id, self.selection)?;
                let Some((account, verdict)) = done else {
                    continue;
                };
                tally.add(verdict);
                let is_new = verdict.is_done() && !self.told.contains(&account);
                if is_new && accounts.insert(account) {
                    self.record(conn, account)?;
                }
            }
            Ok::<_, db::Error>((tally, accounts))
        })?;
        self.tally.merge(&tally);
        self.told.extend(accounts);
        Ok(())
    }

    /// One event per account says which emails were meant, however many there are.
    fn record(&self, conn: &mut Connection, account: AccountId) -> db::Result<()> {
        let action = match self.task {
            Task::Retry => Action::EmailsRetried,
            Task::Cancel => Action::EmailsCancelled,
            Task::Purge => Action::EmailsDeleted,
        };
        let ids: Vec<String> = self.args.ids.iter().map(ToString::to_string).collect();
        let numbers = match ids.is_empty() {
            true => String::new(),
            false => format!("numbers {}; ", ids.join(", ")),
        };
        let detail = format!("{numbers}{}", self.args.filters);
        let event = NewEvent {
            action,
            subject_id: None,
            subject: "",
            detail: &detail,
        };
        Ok(events::record(conn, account, &Actor::operator(), event)?)
    }

    fn tell(&self) -> CommandResult {
        let emails = match self.tally.done() {
            1 => "1 email".to_owned(),
            count => format!("{count} emails"),
        };
        print(match (self.task, self.args.dry_run) {
            (Task::Retry, false) => format!("{emails} put up for another attempt."),
            (Task::Retry, true) => format!("Would put up {emails} for another attempt."),
            (Task::Cancel, false) => {
                format!("{emails} cancelled: no more attempts are made for them.")
            }
            (Task::Cancel, true) => format!("Would cancel {emails}."),
            (Task::Purge, false) => format!("{emails} deleted."),
            (Task::Purge, true) => format!("Would delete {emails}."),
        })?;
        for (verdict, count) in self.tally.remarks() {
            print(format_args!("{count} {}.", verdict.sentence()))?;
        }
        match self.args.dry_run {
            true => print("This was a dry run: nothing was changed."),
            false => Ok(()),
        }
    }
}
