//! `tosend-dashboard check`: looks at everything that the server needs, and changes nothing.

use lettre::Address;
use serde_json::json;

use super::outcome::{CommandResult, one_line, print};
use super::{database, server_secret};
use crate::background::Runtime;
use crate::clock;
use crate::config::Config;
use crate::db::{DatabaseUrl, Db, clock_watch, migrations};
use crate::domains::dns::Dns;
use crate::emails::message::Message;
use crate::mail::mime;
use crate::mail::relay::{Fate, Relay, Trouble};
use crate::recovery;
use crate::token;

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Also send one test email through the relay to this address
    #[arg(long, value_name = "ADDRESS")]
    send_to: Option<Address>,
    /// The sender of the test email [default: the address it is sent to]
    #[arg(long, value_name = "ADDRESS", requires = "send_to")]
    send_from: Option<Address>,
}

/// A setting as the program got it.
#[derive(Debug, Clone)]
pub struct Given {
    /// The variable.
    pub name: String,
    /// Nothing secret.
    pub value: String,
}

/// The result of looking at one thing.
enum Finding {
    Fine(String),
    /// Not as it will be, or perhaps not as intended; the server starts all the same.
    Note(String),
    Wrong(String),
}
use Finding::{Fine, Note, Wrong};

/// Prints one line for each setting. `problems`: those of the configuration, which begin with the
/// name of the setting.
pub fn settings(all: &[Given], problems: &[String]) -> CommandResult {
    for Given { name, value } in all {
        let mut problems = problems
            .iter()
            .filter_map(|problem| problem.strip_prefix(name)?.strip_prefix(": "))
            .peekable();
        if problems.peek().is_none() {
            tell(name, &Fine(value.clone()))?;
        }
        for problem in problems {
            tell(name, &Wrong(problem.to_owned()))?;
        }
    }
    Ok(())
}

/// Prints one line for everything else.
///
/// # Errors
/// Something would keep the server from starting or from doing its work.
pub fn run(args: &CheckArgs, config: &Config) -> CommandResult {
    let runtime = Runtime::new(Some(mime::STACK_BYTES)).map_err(|e| e.to_string())?;
    let mut wrong = 0;
    let mut report = |what: &str, finding: Finding| {
        wrong += usize::from(matches!(finding, Wrong(_)));
        tell(what, &finding)
    };
    for danger in config.dangers() {
        report("danger", Note(danger))?;
    }
    for (what, finding) in look_at_database(config) {
        report(what, finding)?;
    }
    for finding in runtime.block_on(look_at_dns(config)) {
        report("DNS", finding)?;
    }
    report("relay", runtime.block_on(look_at_relay(config)))?;
    if let Some(to) = &args.send_to {
        let from = args.send_from.as_ref().unwrap_or(to);
        report("test email", runtime.block_on(send(config, from, to)))?;
    }
    match wrong {
        0 => Ok(()),
        1 => Err("one thing is wrong: see above".to_owned()),
        count => Err(format!("{count} things are wrong: see above")),
    }
}

fn tell(what: &str, finding: &Finding) -> CommandResult {
    let (mark, text) = match finding {
        Fine(text) => ("ok", text),
        Note(text) => ("note", text),
        Wrong(text) => ("wrong", text),
    };
    print(format_args!("{mark:<5} {what}: {}", one_line(text)))
}

/// The database, its tables, the secret that belongs to it, and its clock.
fn look_at_database(config: &Config) -> Vec<(&'static str, Finding)> {
    let database = match &config.database {
        DatabaseUrl::Sqlite(file) => file.to_string(),
        DatabaseUrl::Postgres(_) => "PostgreSQL".to_owned(),
    };
    let db = match Db::look(&config.database) {
        Ok(Some(db)) => db,
        Ok(None) => {
            if let Some(journal) = config.journal.as_deref().filter(|path| path.exists()) {
                let why = database::lost(config, journal, "is not there");
                return vec![("database", Wrong(why))];
            }
            let secret = config.secret_file.display();
            return vec![
                (
                    "database",
                    Note(format!(
                        "{database} is not there: the server makes it at its start"
                    )),
                ),
                (
                    "secret",
                    Note(format!(
                        "{secret} is read or made at the start of the server"
                    )),
                ),
            ];
        }
        Err(why) => {
            let advice = "check TOSEND_DATABASE_URL, and that this user may read and write there";
            let why = format!("{database} cannot be used: {}; {advice}", one_line(&why));
            return vec![("database", Wrong(why))];
        }
    };
    let mut found = vec![("database", Fine(format!("{database} answers")))];
    let missing = migrations::count_missing(&db);
    found.push(("journal of ends", look_at_journal(config, &db)));
    found.push(("tables", match &missing {
        Ok(0) => Fine("they are up to date".to_owned()),
        Ok(count) => Note(format!(
            "migrations that have not run: {count}; the next start, or “migrate”, runs them: make a copy of the database first"
        )),
        Err(why) => Wrong(why.to_string()),
    }));
    found.push((
        "secret",
        match server_secret::check(config, &db) {
            Ok(Some(secrets)) if secrets.all().len() > 1 => Note(format!(
                "{} belongs to this database, and also holds another one: “secret rotate” finishes a rotation, “secret forget-old” ends the time for which both are accepted",
                config.secret_file.display()
            )),
            Ok(Some(_)) => Fine(format!(
                "{} belongs to this database",
                config.secret_file.display()
            )),
            Ok(None) => Note(format!(
                "{} is not there: the server makes it at its start",
                config.secret_file.display()
            )),
            Err(why) => Wrong(why),
        },
    ));
    if matches!(missing, Ok(0)) {
        found.push((
            "clock",
            match db.read_blocking(clock_watch::find_doubt) {
                Ok(None) => Fine(clock::for_people(&clock::now())),
                Ok(Some(doubt)) => Wrong(doubt.to_string()),
                Err(error) => Wrong(error.to_string()),
            },
        ));
    }
    found
}

fn look_at_journal(config: &Config, db: &Db) -> Finding {
    let path = config.journal.as_deref();
    match (recovery::find_fault(db, config), path) {
        (Err(error), _) => Wrong(error.to_string()),
        (Ok(Some(why)), _) => Wrong(why),
        (Ok(None), None) => Note(
            "there is none: after a restore, nobody knows which keys have ended since; name a file in TOSEND_JOURNAL".to_owned(),
        ),
        (Ok(None), Some(path)) => match path.try_exists() {
            Ok(false) => Note(format!("{} is not there: the server makes it at its start", path.display())),
            _ if database::is_empty(db) == Ok(true) => Wrong(database::lost(config, path, "is empty")),
            _ => Fine(format!("{} is whole", path.display())),
        },
    }
}

async fn look_at_dns(config: &Config) -> Vec<Finding> {
    let servers = match Dns::new(&config.dns_servers).try_each().await {
        Ok(servers) => servers,
        Err(why) => {
            return vec![Wrong(format!(
                "the system’s DNS servers are not known: {why}; name some in TOSEND_DNS_SERVERS"
            ))];
        }
    };
    let finding = |(server, problem)| match problem {
        None => Fine(format!("{server} answers")),
        Some(why) => Wrong(format!(
            "{server} gives no answer: {why}; without DNS no domain is verified: check the network, or name other servers in TOSEND_DNS_SERVERS"
        )),
    };
    servers.into_iter().map(finding).collect()
}

async fn look_at_relay(config: &Config) -> Finding {
    let Some(url) = &config.relay else {
        return Note("there is none: emails are held until TOSEND_SMTP_URL names one".to_owned());
    };
    match Relay::new(url.clone()).greet().await {
        Ok(()) if url.login.is_some() => Fine(format!("{url} answers and accepts the login")),
        Ok(()) => Fine(format!("{url} answers")),
        Err(trouble) => Wrong(advice(&trouble)),
    }
}

async fn send(config: &Config, from: &Address, to: &Address) -> Finding {
    let Some(url) = &config.relay else {
        return Wrong("it cannot be sent without a relay: set TOSEND_SMTP_URL".to_owned());
    };
    let message = json!({
        "from": { "email": from.to_string() },
        "to": [{ "email": to.to_string() }],
        "subject": "Test of the relay",
        "text": "The operator of an API Keys dashboard tests its relay with “check --send-to”.\n",
    });
    let Ok(message) = Message::parse(message) else {
        return Wrong(format!(
            "{from} and {to} are not addresses of the kind that the API accepts"
        ));
    };
    let now = clock::now();
    let made = mime::build(&message, &token::random(), now, None);
    let (mail, recipients) = match made.and_then(|mail| Ok((mail, mime::recipients(&message)?))) {
        Ok(made) => made,
        Err(why) => return Wrong(why.to_string()),
    };
    match Relay::new(url.clone()).send(&mail, &recipients).await {
        Err(trouble) => Wrong(advice(&trouble)),
        Ok(fates) => match fates.first() {
            Some(Fate::Delivered(words)) => Fine(format!("the relay took it for {to}: {words}")),
            Some(Fate::Deferred(words) | Fate::PutOff(words) | Fate::Refused(words)) => {
                Wrong(format!(
                    "the relay did not take it from {from} for {to}: {words}; if it refuses the sender, try another with --send-from"
                ))
            }
            None => Wrong("the relay said nothing of it".to_owned()),
        },
    }
}

/// What to do about a relay that cannot be used.
fn advice(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Unreachable(why) => format!(
            "the relay cannot be reached: {why}; check TOSEND_SMTP_URL, and that the network lets this machine out to that port"
        ),
        Trouble::NotLetIn => {
            "the relay does not let this server in: check the user and the password in TOSEND_SMTP_CREDENTIALS_FILE".to_owned()
        }
        Trouble::Refuses(words) => {
            format!("the relay refuses this server: {words}; check TOSEND_SMTP_HELO")
        }
    }
}
