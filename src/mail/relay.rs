//! Talks to the relay (RFC 5321): one transaction per message, with a reply for each recipient.

use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lettre::Address;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::mime::Mail;
use super::reply::{self, About, Step};
use super::smtp::{Connection, SmtpFailure};
use crate::outbox::store::RELAY_REFUSES;
use crate::relay_url::{RelayUrl, is_whole_name};

const CONNECT: Duration = Duration::from_secs(30);
const COMMAND: Duration = Duration::from_secs(60);
/// RFC 5321, 4.5.3.2.6 asks for ten minutes after the final dot, but no relay needs that to queue
/// an email.
const CONTENT: Duration = Duration::from_secs(300);
/// Idle connections are closed after this time; relays close theirs after minutes.
const IDLE: Duration = Duration::from_secs(20);
const GOODBYE: Duration = Duration::from_secs(2);
/// The code with which a relay closes the connection (RFC 5321, 3.8).
const CLOSING: u16 = 421;

/// The relay, and idle connections for the next messages.
pub struct Relay {
    url: RelayUrl,
    idle: Mutex<VecDeque<(Instant, Connection)>>,
}

/// The result for one recipient, in the relay's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Delivered(String),
    /// To be retried.
    Deferred(String),
    /// To be retried: the relay refuses this server or the sender, not the recipient.
    PutOff(String),
    /// Permanently.
    Refused(String),
}

/// The relay cannot be used at all, which says nothing about the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// With the reason, which only the operator sees.
    Unreachable(String),
    /// It rejects our login, or requires one.
    NotLetIn,
    /// It answers, but refuses this server whatever the email is. In its words.
    Refuses(String),
}

/// The text about it for an account.
pub fn refuses(words: &str) -> String {
    format!("{RELAY_REFUSES}{words}")
}

impl Trouble {
    /// The part that the account may know.
    pub fn sentence(&self) -> String {
        match self {
            Self::Unreachable(_) => "The relay cannot be reached.".to_owned(),
            Self::NotLetIn => "The relay does not let this server in.".to_owned(),
            Self::Refuses(words) => refuses(words),
        }
    }
}

impl SmtpFailure {
    /// What the failure means for an email.
    ///
    /// # Errors
    /// If it says nothing about the email.
    fn fate(&self, step: Step) -> Result<Fate, Trouble> {
        let Self::Refused(code, words) = self else {
            let words = "The connection to the relay broke.".to_owned();
            return Ok(Fate::Deferred(words));
        };
        match reply::about(step, *code, words) {
            About::Later => Ok(Fate::Deferred(words.clone())),
            About::Email => Ok(Fate::Refused(words.clone())),
            About::Policy => Ok(Fate::PutOff(words.clone())),
            About::Server => Err(self.trouble()),
        }
    }

    /// Whether the connection can no longer be used.
    fn is_the_end(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Refused(CLOSING, _))
    }

    /// The trouble behind a failure that says nothing about a message. Codes of RFC 4954, 6.
    fn trouble(&self) -> Trouble {
        match self {
            Self::Refused(530 | 534 | 535 | 538, _) => Trouble::NotLetIn,
            Self::Refused(CLOSING, words) | Self::Lost(words) => {
                Trouble::Unreachable(words.clone())
            }
            Self::Refused(_, words) => Trouble::Refuses(words.clone()),
            Self::Lacking(what) => Trouble::Unreachable((*what).to_owned()),
        }
    }

    /// The trouble behind a failed login.
    fn trouble_with_login(&self) -> Trouble {
        match self {
            Self::Refused(500.., _) | Self::Lacking(_) => Trouble::NotLetIn,
            Self::Refused(_, words) => Trouble::Unreachable(words.clone()),
            Self::Lost(_) => self.trouble(),
        }
    }
}

impl Relay {
    pub fn new(url: RelayUrl) -> Self {
        Self {
            url,
            idle: Mutex::default(),
        }
    }

    /// Sends a message to these recipients. The results are in the same order.
    ///
    /// # Errors
    /// If the result for the message is unknown.
    pub async fn send(&self, mail: &Mail, recipients: &[Address]) -> Result<Vec<Fate>, Trouble> {
        let mut connection = self.connection().await?;
        let (fates, is_usable) = transact(&mut connection, mail, recipients).await?;
        if is_usable {
            self.keep(connection);
        }
        Ok(fates)
    }

    /// Connects, logs in if there is a login, and hangs up.
    ///
    /// # Errors
    /// If the relay cannot be used.
    pub async fn greet(&self) -> Result<(), Trouble> {
        let mut connection = self.connect().await?;
        let _ = timeout(GOODBYE, connection.command("QUIT", 2)).await;
        Ok(())
    }

    /// Closes the connections that have been idle for a while.
    pub async fn close_idle(&self) {
        while let Some(mut connection) = self.take(|since| since.elapsed() > IDLE) {
            let _ = timeout(GOODBYE, connection.command("QUIT", 2)).await;
        }
    }

    /// An open connection that still answers, or a new one.
    async fn connection(&self) -> Result<Connection, Trouble> {
        while let Some(mut connection) = self.take(|_| true) {
            if step(COMMAND, connection.command("RSET", 2)).await.is_ok() {
                return Ok(connection);
            }
        }
        self.connect().await
    }

    async fn connect(&self) -> Result<Connection, Trouble> {
        let RelayUrl {
            host,
            port,
            login,
            hello,
            ..
        } = &self.url;
        let us = match hello {
            Some(name) => name.clone(),
            None => own_name(host, *port).await,
        };
        let mut connection = step(CONNECT, Connection::open(&self.url, &us))
            .await
            .map_err(|failure| failure.trouble())?;
        if let Some(login) = login {
            step(COMMAND, connection.log_in(login))
                .await
                .map_err(|failure| failure.trouble_with_login())?;
        }
        Ok(connection)
    }

    fn take(&self, is_wanted: impl Fn(&Instant) -> bool) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle.front() {
            Some((since, _)) if is_wanted(since) => idle.pop_front().map(|(_, found)| found),
            _ => None,
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back((Instant::now(), connection));
    }
}

/// The name of this machine if none is configured: its host name if that is a full one, else the
/// address from which it reaches the relay (RFC 5321, 4.1.4), because relays refuse a bare host
/// name.
async fn own_name(host: &str, port: u16) -> String {
    let system = rustix::system::uname();
    if let Ok(name) = system.nodename().to_str()
        && is_whole_name(name)
    {
        return name.to_owned();
    }
    // Sends nothing, but makes the system choose the address.
    let local = async {
        for any in ["0.0.0.0:0", "[::]:0"] {
            let socket = UdpSocket::bind(any).await?;
            if socket.connect((host, port)).await.is_ok() {
                return Ok(socket.local_addr()?.ip());
            }
        }
        Err(std::io::Error::other("no way to the relay"))
    };
    match local.await.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}

/// One transaction. Also returns whether the connection can be used for another.
async fn transact(
    connection: &mut Connection,
    mail: &Mail,
    recipients: &[Address],
) -> Result<(Vec<Fate>, bool), Trouble> {
    let all = |fate: Fate| vec![fate; recipients.len()];
    if mail.needs_utf8 && !connection.offers("SMTPUTF8") {
        let words = "The relay takes only addresses in ASCII (it has no SMTPUTF8, RFC 6531).";
        return Ok((all(Fate::Refused(words.to_owned())), true));
    }
    let parameters = if mail.needs_utf8 {
        " SMTPUTF8 BODY=8BITMIME"
    } else {
        ""
    };
    let from = format!("MAIL FROM:<{}>{parameters}", mail.sender);
    if let Err(failure) = step(COMMAND, connection.command(&from, 2)).await {
        return match failure.is_the_end() {
            true => Err(failure.trouble()),
            false => Ok((all(failure.fate(Step::Sender)?), true)),
        };
    }

    let mut fates = Vec::new();
    for recipient in recipients {
        let rcpt = format!("RCPT TO:<{recipient}>");
        match step(COMMAND, connection.command(&rcpt, 2)).await {
            Ok(_) => fates.push(None),
            Err(failure) if failure.is_the_end() => {
                fates.resize(recipients.len(), None);
                return Ok((settle(fates, &failure.fate(Step::Recipient)?), false));
            }
            Err(failure) => fates.push(Some(failure.fate(Step::Recipient)?)),
        }
    }
    if fates.iter().all(Option::is_some) {
        return Ok((fates.into_iter().flatten().collect(), true));
    }

    if let Err(failure) = step(COMMAND, connection.command("DATA", 3)).await {
        let fate = failure.fate(Step::Data)?;
        return Ok((settle(fates, &fate), !failure.is_the_end()));
    }
    let sent = step(CONTENT, connection.message(&mail.content)).await;
    Ok(match sent {
        Ok(reply) => (settle(fates, &Fate::Delivered(reply.words())), true),
        // Without an answer it is unknown whether the relay has the message: it is sent again, with
        // the same Message-ID.
        Err(failure) => {
            let fate = failure.fate(Step::Content)?;
            (settle(fates, &fate), !failure.is_the_end())
        }
    })
}

/// Gives this result to all recipients that have none yet.
fn settle(fates: Vec<Option<Fate>>, fate: &Fate) -> Vec<Fate> {
    let settled = fates.into_iter();
    settled
        .map(|own| own.unwrap_or_else(|| fate.clone()))
        .collect()
}

async fn step<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, SmtpFailure>>,
) -> Result<T, SmtpFailure> {
    let too_late = |_| Err(SmtpFailure::Lost("no answer in time".to_owned()));
    timeout(limit, work).await.unwrap_or_else(too_late)
}
