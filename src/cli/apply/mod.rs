//! `tosend-dashboard apply FILE`: makes an account have the domains and keys that a file declares.

mod declaration;
mod secret_file;

use std::path::PathBuf;

use self::declaration::{Declaration, DomainEntry, Expires, KeyEntry};
use self::secret_file::SecretFiles;
use super::database::find_account;
use super::domain::{domain_limit_reached, make_domain_key, verified_elsewhere};
use super::key::arguments::{edit_refusal, refuse_senders_outside, scope_of};
use super::outcome::{CommandFailure, CommandResult, failure, print};
use crate::accounts::event::Actor;
use crate::accounts::store::{self as accounts_store, AccountId};
use crate::clock;
use crate::config::Config;
use crate::db::{self, Connection, Db};
use crate::domains::dkim::SealedKey;
use crate::domains::store::{self as domains_store, Added, Domain, DomainStatus};
use crate::keys::expiry::{Expiry, InvalidExpiry};
use crate::keys::name::{Description, KeyName};
use crate::keys::rule::Rule;
use crate::keys::scope::NewScope;
use crate::keys::secret::PlainKey;
use crate::keys::store::{self, Edit, Key, NewKey};
use crate::keys::view::Which;

#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// TOML file that declares domains and keys, as docs/command-line.md explains
    file: PathBuf,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Why a transaction is rolled back.
enum Undo {
    Problems(Vec<String>),
    DryRun(Vec<String>),
}

impl From<db::Error> for Undo {
    fn from(error: db::Error) -> Self {
        CommandFailure::from(error).into()
    }
}

impl From<CommandFailure> for Undo {
    fn from(failure: CommandFailure) -> Self {
        Self::Problems(vec![failure.0])
    }
}

/// Applies everything that the file declares, or changes nothing.
pub fn run(args: &ApplyArgs, config: &Config, db: &Db) -> CommandResult {
    let name = args.file.display();
    let text = std::fs::read_to_string(&args.file)
        .map_err(|e| format!("the file {name} cannot be read: {e}"))?;
    let declaration = Declaration::parse(&text).map_err(|problems| in_file(args, problems))?;
    let domain_keys = make_domain_keys(config, db, &declaration)?;
    // Declared before the transaction and dropped after it, so that the files of keys that were not
    // created are removed.
    let mut files = SecretFiles::default();
    let applied = db.write_blocking(|conn| {
        let changes = apply(
            conn,
            config,
            &declaration,
            &domain_keys,
            &mut files,
            args.dry_run,
        )?;
        match args.dry_run {
            true => Err(Undo::DryRun(changes)),
            false => Ok(changes),
        }
    });
    match applied {
        Ok(changes) => {
            files.keep();
            tell(&changes)
        }
        Err(Undo::DryRun(changes)) => {
            tell(&changes)?;
            print("This was a dry run: nothing was changed.")
        }
        Err(Undo::Problems(problems)) => Err(in_file(args, problems)),
    }
}

/// Keys for the declared domains that are new, made before the transaction, because other
/// transactions may wait for that one.
fn make_domain_keys(
    config: &Config,
    db: &Db,
    declaration: &Declaration,
) -> Result<Vec<Option<SealedKey>>, String> {
    let known = db.read_blocking(|conn| {
        let account = find_account(conn, &declaration.account)?;
        domains_store::list(conn, account).map_err(CommandFailure::from)
    });
    // A missing account is reported later, together with all other problems.
    let known = known.unwrap_or_default();
    let is_known = |entry: &DomainEntry| known.iter().any(|d| d.name == entry.name.as_ref());
    let new = declaration.domains.iter().filter(|entry| !is_known(entry));
    if i64::try_from(known.len() + new.count()).map_or(true, |all| all > config.domain_limit) {
        // The domains will be refused anyway.
        return Ok(vec![None; declaration.domains.len()]);
    }
    let keys = declaration
        .domains
        .iter()
        .map(|entry| match is_known(entry) {
            true => Ok(None),
            false => make_domain_key(config, db, &entry.name),
        });
    keys.collect()
}

/// One line for each problem.
fn in_file(args: &ApplyArgs, problems: Vec<String>) -> String {
    let name = args.file.display();
    let problems = problems.iter().map(|problem| format!("{name}: {problem}"));
    problems.collect::<Vec<_>>().join("\nerror: ")
}

fn tell(changes: &[String]) -> CommandResult {
    if changes.is_empty() {
        return print("Nothing to change.");
    }
    changes.iter().try_for_each(print)
}

/// Returns the changes, or everything that prevents them.
fn apply(
    conn: &mut Connection,
    config: &Config,
    declaration: &Declaration,
    domain_keys: &[Option<SealedKey>],
    files: &mut SecretFiles,
    is_dry: bool,
) -> Result<Vec<String>, Undo> {
    let account = find_account(conn, &declaration.account)?;
    // A concurrent run waits here, and then sees the changes of this one.
    accounts_store::lock(conn, account)?;
    let mut changes = Vec::new();
    let mut problems = Vec::new();
    for (entry, key) in declaration.domains.iter().zip(domain_keys) {
        match apply_domain(conn, config, account, entry, key.as_ref()) {
            Ok(change) => changes.extend(change),
            Err(CommandFailure(why)) => problems.push(format!("line {}: {why}", entry.line)),
        }
    }
    let mut there = There {
        account,
        limit: config.key_limit,
        domains: domains_store::list(conn, account)?,
        live: store::list(conn, account, Which::Live, i64::MAX, 0)?,
        files,
        is_dry,
    };
    for entry in &declaration.keys {
        match there.apply_key(conn, entry) {
            Ok(change) => changes.extend(change.map(|change| format!("{entry}: {change}"))),
            Err(CommandFailure(why)) => {
                problems.push(format!("line {}: {entry}: {why}", entry.line))
            }
        }
    }
    match problems.is_empty() {
        true => Ok(changes),
        false => Err(Undo::Problems(problems)),
    }
}

fn apply_domain(
    conn: &mut Connection,
    config: &Config,
    account: AccountId,
    entry: &DomainEntry,
    key: Option<&SealedKey>,
) -> Result<Option<String>, CommandFailure> {
    let (name, actor) = (&entry.name, Actor::operator());
    let known = domains_store::find_by_name(conn, account, name)?;
    let is_verified = known.as_ref().map(|domain| domain.status.is_verified());
    if is_verified.is_none() {
        let limit = config.domain_limit;
        if let Added::LimitReached(count) =
            domains_store::add(conn, account, name, key, limit, &actor)?
        {
            return Err(domain_limit_reached(count));
        }
    }
    if entry.is_verified
        && is_verified != Some(true)
        && !domains_store::set_status(conn, account, name, DomainStatus::Verified, &actor)?
    {
        return Err(verified_elsewhere(name));
    }
    let change = match (is_verified, entry.is_verified) {
        (None, true) => "added and verified",
        (None, false) => "added, pending",
        (Some(false), true) => "verified",
        (Some(_), _) => return Ok(None),
    };
    Ok(Some(format!("domain {name}: {change}")))
}

/// What the account has, and what was made for it in advance.
struct There<'a> {
    account: AccountId,
    limit: i64,
    domains: Vec<Domain>,
    live: Vec<Key>,
    files: &'a mut SecretFiles,
    is_dry: bool,
}

impl There<'_> {
    /// Makes one key match its declaration. Returns the changes, if any.
    fn apply_key(
        &mut self,
        conn: &mut Connection,
        entry: &KeyEntry,
    ) -> Result<Option<String>, CommandFailure> {
        let scope = match &entry.domains {
            None => NewScope::AllDomains,
            Some(names) => scope_of(names, &self.domains)?,
        };
        match self.find(entry)? {
            Some(key) => self.change(conn, entry, scope, &key),
            None if self.is_over(conn, entry)? => Ok(None),
            None => self.create(conn, entry, scope).map(Some),
        }
    }

    /// The live key of a name; of several, the successor of the others.
    fn find(&self, entry: &KeyEntry) -> Result<Option<Key>, CommandFailure> {
        let now = clock::now();
        let mut keys: Vec<&Key> = self
            .live
            .iter()
            .filter(|key| key.name == entry.name.as_ref() && key.end_by(now).is_none())
            .collect();
        if keys.len() > 1 {
            keys.retain(|key| key.successor.is_none());
        }
        match keys[..] {
            [] => Ok(None),
            [key] => Ok(Some(key.clone())),
            _ => Err(CommandFailure(
                "the account has several live keys with this name: rename or delete all but one"
                    .to_owned(),
            )),
        }
    }

    /// Whether the key matched its declaration, and has expired since.
    fn is_over(&self, conn: &mut Connection, entry: &KeyEntry) -> db::Result<bool> {
        let Some(Expires::At(at)) = entry.expires else {
            return Ok(false);
        };
        let mut live = self.live.iter();
        let is_it = |key: &Key| key.name == entry.name.as_ref() && key.expires_at == Some(at);
        Ok(at <= clock::now()
            && (live.any(is_it) || store::has_expired(conn, self.account, &entry.name, at)?))
    }

    fn create(
        &mut self,
        conn: &mut Connection,
        entry: &KeyEntry,
        scope: NewScope,
    ) -> Result<String, CommandFailure> {
        let new = NewKey {
            name: entry.name.clone(),
            description: entry.description.clone().unwrap_or_default(),
            expiry: checked(entry.expires, None).map_err(failure)?,
            rule: entry.rule.applied_to(&Rule::default()),
            scope,
        };
        refuse_senders_outside(&new.rule, &new.scope, &self.domains)?;
        let path = entry.secret_file.as_ref().ok_or_else(|| {
            CommandFailure("a new key needs a secret_file, to which it is written".to_owned())
        })?;
        let (secret, actor) = (PlainKey::generate(), Actor::operator());
        let key = store::create(conn, self.account, &new, &secret, self.limit, &actor)
            .map_err(failure)?;
        if entry.is_paused == Some(true) {
            store::pause(conn, self.account, key.id, &actor)?;
        }
        match self.is_dry {
            true => secret_file::check(path),
            false => self.files.write(path, &secret),
        }
        .map_err(CommandFailure)?;
        let paused = entry.is_paused.filter(|paused| *paused);
        let paused = paused.map_or("", |_| ", paused");
        Ok(format!("created{paused}, in {}", path.display()))
    }

    fn change(
        &mut self,
        conn: &mut Connection,
        entry: &KeyEntry,
        scope: NewScope,
        key: &Key,
    ) -> Result<Option<String>, CommandFailure> {
        let edit = Edit {
            name: KeyName::known(&key.name),
            description: match &entry.description {
                Some(description) => description.clone(),
                None => Description::known(&key.description),
            },
            scope,
            expiry: Some(checked(entry.expires, Some(key)).map_err(failure)?),
            rule: entry.rule.applied_to(&key.rule),
        };
        refuse_senders_outside(&edit.rule, &edit.scope, &self.domains)?;
        let (account, actor, version) = (self.account, Actor::operator(), key.version());
        let after = store::edit(conn, account, key.id, Some(&version), &edit, &actor)
            .map_err(|why| edit_refusal(key.id, why))?;
        let mut changes = vec![store::describe_changes(key, &after)];
        match entry.is_paused {
            Some(true) if key.paused.is_none() => {
                store::pause(conn, account, key.id, &actor)?;
                changes.push("paused".to_owned());
            }
            Some(false) if key.paused.is_some() => {
                store::resume(conn, account, key.id, &actor)?;
                changes.push("resumed".to_owned());
            }
            _ => {}
        }
        changes.retain(|change| !change.is_empty());
        Ok((!changes.is_empty()).then(|| changes.join("; ")))
    }
}

/// An existing key may expire soon, or in more than ten years; a new expiry may not.
fn checked(expires: Option<Expires>, key: Option<&Key>) -> Result<Expiry, InvalidExpiry> {
    let has = key.and_then(|key| key.expires_at);
    match expires {
        None => Ok(Expiry::known(has)),
        Some(Expires::Never) => Ok(Expiry::NEVER),
        Some(Expires::At(at)) if has == Some(at) => Ok(Expiry::known(has)),
        Some(Expires::At(at)) => Expiry::at(at),
    }
}
