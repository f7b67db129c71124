//! Talks to the relay (RFC 5321): one transaction per message, with a reply for each recipient.

use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lettre::Address;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use secrecy::ExposeSecret;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::mime::Mail;
use super::reply::{self, About, Step};
use crate::outbox::store::RELAY_REFUSES;
use crate::relay_url::{RelayUrl, Security, is_whole_name};
use crate::visible::visible;

const CONNECT: Duration = Duration::from_secs(30);
const COMMAND: Duration = Duration::from_secs(60);
/// RFC 5321, 4.5.3.2.6 asks for ten minutes after the final dot, but no relay needs that to queue
/// an email.
const CONTENT: Duration = Duration::from_secs(300);
/// Idle connections are closed after this time; relays close theirs after minutes.
const IDLE: Duration = Duration::from_secs(20);
const GOODBYE: Duration = Duration::from_secs(2);
/// Bytes of a message written at a time.
const PART: usize = 64 * 1024;
/// The length to which a relay's replies are cut.
const MAX_WORDS: usize = 300;

/// The relay, and idle connections for the next messages.
pub struct Relay {
    url: RelayUrl,
    idle: Mutex<VecDeque<(Instant, AsyncSmtpConnection)>>,
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

/// Why a step of the conversation did not succeed.
#[derive(Debug)]
struct Failure {
    /// The relay's code; `None`: there was no answer that could be parsed.
    code: Option<u16>,
    words: String,
    /// Whether the connection was lost.
    is_lost: bool,
}

impl Failure {
    /// What the failure means for an email.
    ///
    /// # Errors
    /// If it says nothing about the email.
    fn fate(&self, step: Step) -> Result<Fate, Trouble> {
        let Some(code) = self.code else {
            let words = "The connection to the relay broke.".to_owned();
            return Ok(Fate::Deferred(words));
        };
        let words = self.words.clone();
        match reply::about(step, code, &self.words) {
            About::Later => Ok(Fate::Deferred(words)),
            About::Email => Ok(Fate::Refused(words)),
            About::Policy => Ok(Fate::PutOff(words)),
            About::Server => Err(self.trouble(false)),
        }
    }

    /// Whether the connection can no longer be used (RFC 5321, 3.8: 421 closes it).
    fn is_the_end(&self) -> bool {
        matches!(self.code, None | Some(421))
    }

    /// The trouble behind a failure that says nothing about a message. Codes of RFC 4954, 6.
    fn trouble(&self, is_login: bool) -> Trouble {
        let words = self.words.clone();
        match self.code {
            Some(530 | 534 | 535 | 538) => Trouble::NotLetIn,
            // Or it offers no login method that we support.
            Some(500..) | None if is_login && !self.is_lost => Trouble::NotLetIn,
            Some(_) if !is_login => Trouble::Refuses(words),
            _ => Trouble::Unreachable(words),
        }
    }
}

impl From<SmtpError> for Failure {
    fn from(error: SmtpError) -> Self {
        let code = error.status().map(u16::from);
        let said = std::error::Error::source(&error).map(ToString::to_string);
        let words = match (code, said) {
            (Some(code), Some(said)) => format!("{code} {said}"),
            (Some(code), None) => code.to_string(),
            (None, _) => error.to_string(),
        };
        Self {
            code,
            words: tidy(&words),
            is_lost: code.is_none() && !error.is_client(),
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
        let _ = timeout(GOODBYE, connection.command(Quit)).await;
        Ok(())
    }

    /// Closes the connections that have been idle for a while.
    pub async fn close_idle(&self) {
        while let Some(mut connection) = self.take(|since| since.elapsed() > IDLE) {
            let _ = timeout(GOODBYE, connection.command(Quit)).await;
        }
    }

    /// An open connection that still answers, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, Trouble> {
        while let Some(mut connection) = self.take(|_| true) {
            if step(COMMAND, connection.command(Rset)).await.is_ok() {
                return Ok(connection);
            }
        }
        self.connect().await
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Trouble> {
        let RelayUrl {
            host,
            port,
            security,
            login,
            hello,
        } = &self.url;
        let unreachable = |failure: Failure| failure.trouble(false);
        // Created each time, so that renewed certificates are used.
        let tls = || TlsParameters::new(host.clone()).map_err(|e| Failure::from(e).trouble(false));
        let wrapper = match security {
            Security::Tls => Some(tls()?),
            Security::None | Security::StartTls => None,
        };
        let us = match hello {
            Some(name) => ClientId::Domain(name.clone()),
            None => own_name(host, *port).await,
        };
        let address = (host.as_str(), *port);
        let connect =
            AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT), &us, wrapper, None);
        let mut connection = step(CONNECT, connect).await.map_err(unreachable)?;
        if *security == Security::StartTls {
            let starttls = connection.starttls(tls()?, &us);
            step(CONNECT, starttls).await.map_err(unreachable)?;
        }
        if let Some(login) = login {
            let password = login.password.expose_secret().to_owned();
            let credentials = Credentials::new(login.user.clone(), password);
            let auth = connection.auth(DEFAULT_MECHANISMS, &credentials);
            step(COMMAND, auth)
                .await
                .map_err(|failure| failure.trouble(true))?;
        }
        Ok(connection)
    }

    fn take(&self, is_wanted: impl Fn(&Instant) -> bool) -> Option<AsyncSmtpConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle.front() {
            Some((since, _)) if is_wanted(since) => idle.pop_front().map(|(_, found)| found),
            _ => None,
        }
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back((Instant::now(), connection));
    }
}

/// The name of this machine if none is configured: its host name if that is a full one, else the
/// address from which it reaches the relay (RFC 5321, 4.1.4), because relays refuse a bare host
/// name.
async fn own_name(host: &str, port: u16) -> ClientId {
    if let ClientId::Domain(name) = ClientId::default()
        && is_whole_name(&name)
    {
        return ClientId::Domain(name);
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
    match local.await {
        Ok(IpAddr::V4(ip)) => ClientId::Ipv4(ip),
        Ok(IpAddr::V6(ip)) => ClientId::Ipv6(ip),
        Err(_) => ClientId::Ipv4(Ipv4Addr::LOCALHOST),
    }
}

/// One transaction. Also returns whether the connection can be used for another.
async fn transact(
    connection: &mut AsyncSmtpConnection,
    mail: &Mail,
    recipients: &[Address],
) -> Result<(Vec<Fate>, bool), Trouble> {
    let all = |fate: Fate| vec![fate; recipients.len()];
    let Some(parameters) = parameters(connection, mail) else {
        let words = "The relay takes only addresses in ASCII (it has no SMTPUTF8, RFC 6531).";
        return Ok((all(Fate::Refused(words.to_owned())), true));
    };
    let from = MailFrom::new(Some(mail.sender.clone()), parameters);
    if let Err(failure) = step(COMMAND, connection.command(from)).await {
        return match failure.is_the_end() {
            true => Err(failure.trouble(false)),
            false => Ok((all(failure.fate(Step::Sender)?), true)),
        };
    }

    let mut fates = Vec::new();
    for recipient in recipients {
        let rcpt = Rcpt::new(recipient.clone(), Vec::new());
        match step(COMMAND, connection.command(rcpt)).await {
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

    if let Err(failure) = step(COMMAND, connection.command(Data)).await {
        let fate = failure.fate(Step::Data)?;
        return Ok((settle(fates, &fate), !failure.is_the_end()));
    }
    // One part at a time, so that no more than that is copied.
    let parts = mail.content.chunks(PART);
    let sent = step(CONTENT, connection.message_iter(parts)).await;
    Ok(match sent {
        Ok(response) => {
            let said: Vec<&str> = response.message().collect();
            let words = tidy(&format!("{} {}", response.code(), said.join(" ")));
            (settle(fates, &Fate::Delivered(words)), true)
        }
        // Without an answer it is unknown whether the relay has the message: it is sent again, with
        // the same Message-ID.
        Err(failure) => {
            let fate = failure.fate(Step::Content)?;
            (settle(fates, &fate), !failure.is_the_end())
        }
    })
}

/// What MAIL says besides the sender; `None`: the relay cannot take the email.
fn parameters(connection: &AsyncSmtpConnection, mail: &Mail) -> Option<Vec<MailParameter>> {
    if !mail.needs_utf8 {
        return Some(Vec::new());
    }
    let server = connection.server_info();
    server.supports_feature(Extension::SmtpUtfEight).then(|| {
        vec![
            MailParameter::SmtpUtfEight,
            MailParameter::Body(MailBodyParameter::EightBitMime),
        ]
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
    work: impl Future<Output = Result<T, SmtpError>>,
) -> Result<T, Failure> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(Failure::from),
        Err(_) => Err(Failure {
            code: None,
            words: "no answer in time".to_owned(),
            is_lost: true,
        }),
    }
}

/// A relay's reply as one line of bounded length.
fn tidy(words: &str) -> String {
    let line: Vec<&str> = words
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    visible(&line.join(" ")).chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relays_words_are_one_short_line() {
        assert_eq!(
            tidy("550 no\r\n such \u{1b}[31muser\0"),
            "550 no such [31muser"
        );
        assert_eq!(tidy(&"é".repeat(1_000)).chars().count(), MAX_WORDS);
        assert_eq!(
            tidy("550 \u{202e}resu\u{200b}"),
            "550 \\u{202e}resu\\u{200b}"
        );
    }
}
