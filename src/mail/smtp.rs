//! A connection to the relay (RFC 5321): commands, and replies whatever their bytes are.
//!
//! SMTP libraries take a reply in Latin-1, or one of a bare code, for a broken connection. After the
//! message has gone out, that means to send it again, so replies are read here.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::relay_url::{Login, RelayUrl, Security};
use crate::visible::visible;

/// Bytes of one reply, all its lines together.
const MAX_REPLY: u64 = 100_000;
/// The length to which the relay's words are cut.
const MAX_WORDS: usize = 300;
/// Bytes of a message written at a time.
const PART: usize = 64 * 1024;

/// The relay's reply to a command: its code, and the text of its lines without the code.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub lines: Vec<String>,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub enum SmtpFailure {
    /// The relay says so: its code, and its words as one line.
    Refused(u16, String),
    /// It does not offer what is needed.
    Lacking(&'static str),
    /// There was no answer that could be understood. The connection can no longer be used.
    Lost(String),
}

/// What bytes travel on: TCP, or TLS over it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

pub struct Connection<S = Box<dyn Stream>> {
    stream: BufReader<S>,
    /// What the relay offers: the lines of its answer to EHLO, in capitals.
    extensions: Vec<String>,
}

impl Connection {
    /// Connects and greets, encrypted as the URL says. `us`: the name of this machine.
    ///
    /// # Errors
    /// If the relay cannot be reached, is not encrypted as asked, or refuses the greeting.
    pub async fn open(url: &RelayUrl, us: &str) -> Result<Self, SmtpFailure> {
        let tcp = TcpStream::connect((url.host.as_str(), url.port)).await?;
        // A message's last part must not wait until the relay has confirmed the one before.
        tcp.set_nodelay(true)?;
        let mut connection = Self::over(match url.security {
            Security::None => Box::new(tcp) as Box<dyn Stream>,
            Security::Tls => Box::new(encrypted(tcp, &url.host).await?),
            Security::StartTls => {
                let tcp = start_tls(tcp, us).await?;
                Box::new(encrypted(tcp, &url.host).await?)
            }
        });
        if url.security != Security::StartTls {
            connection.greeting().await?;
        }
        connection.hello(us).await?;
        Ok(connection)
    }
}

impl<S: Stream> Connection<S> {
    fn over(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
            extensions: Vec::new(),
        }
    }

    /// Logs in by PLAIN (RFC 4616) or LOGIN, whichever the relay offers.
    ///
    /// # Errors
    /// If it offers neither, or refuses.
    pub async fn log_in(&mut self, login: &Login) -> Result<(), SmtpFailure> {
        let (user, password) = (&login.user, login.password.expose_secret());
        let encode = |text: &str| STANDARD.encode(text);
        if self.offers_login("PLAIN") {
            let both = encode(&format!("\0{user}\0{password}"));
            self.command(&format!("AUTH PLAIN {both}"), 2).await?;
        } else if self.offers_login("LOGIN") {
            self.command("AUTH LOGIN", 3).await?;
            self.command(&encode(user), 3).await?;
            self.command(&encode(password), 2).await?;
        } else {
            return Err(SmtpFailure::Lacking("it offers no login by PLAIN or LOGIN"));
        }
        Ok(())
    }

    /// Whether the relay offers this extension, such as "SMTPUTF8".
    pub fn offers(&self, extension: &str) -> bool {
        let mut lines = self.extensions.iter();
        lines.any(|line| line.split_whitespace().next() == Some(extension))
    }

    fn offers_login(&self, mechanism: &str) -> bool {
        // Old servers write "AUTH=LOGIN".
        let words = |line: &str| line.replace('=', " ");
        let mut lines = self.extensions.iter().map(|line| words(line));
        lines.any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("AUTH") && words.any(|word| word == mechanism)
        })
    }

    /// Sends a command, without its line end. `class`: the first digit of the code that means
    /// success.
    ///
    /// # Errors
    /// If the reply is another one.
    pub async fn command(&mut self, command: &str, class: u16) -> Result<Reply, SmtpFailure> {
        self.expect_silence()?;
        self.write(format!("{command}\r\n").as_bytes()).await?;
        self.reply(class).await
    }

    /// Sends a message, whose lines end with CRLF, after the relay agreed to DATA.
    ///
    /// # Errors
    /// If the relay does not take it.
    pub async fn message(&mut self, content: &[u8]) -> Result<Reply, SmtpFailure> {
        self.expect_silence()?;
        let mut stuffed = Vec::with_capacity(PART + PART / 8);
        let mut is_line_start = true;
        // One part at a time, so that no more than that is copied.
        for part in content.chunks(PART) {
            if !stuffed.is_empty() {
                self.write(&stuffed).await?;
                stuffed.clear();
            }
            is_line_start = stuff(part, is_line_start, &mut stuffed);
        }
        if !is_line_start {
            stuffed.extend_from_slice(b"\r\n");
        }
        // The end leaves together with the last part.
        stuffed.extend_from_slice(b".\r\n");
        self.write(&stuffed).await?;
        self.reply(2).await
    }

    async fn greeting(&mut self) -> Result<(), SmtpFailure> {
        self.reply(2).await.map(drop)
    }

    async fn hello(&mut self, us: &str) -> Result<(), SmtpFailure> {
        let reply = self.command(&format!("EHLO {us}"), 2).await?;
        let lines = reply.lines.iter().skip(1);
        self.extensions = lines.map(|line| line.to_ascii_uppercase()).collect();
        Ok(())
    }

    /// What came before a command is no answer to it, and before TLS it may come from anybody.
    fn expect_silence(&self) -> Result<(), SmtpFailure> {
        match self.stream.buffer() {
            [] => Ok(()),
            _ => Err(SmtpFailure::Lost(
                "it answered before it was asked".to_owned(),
            )),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SmtpFailure> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    async fn reply(&mut self, class: u16) -> Result<Reply, SmtpFailure> {
        let reply = self.read_reply().await?;
        match reply.code / 100 {
            found if found == class => Ok(reply),
            4 | 5 => Err(SmtpFailure::Refused(reply.code, reply.words())),
            _ => Err(SmtpFailure::Lost(format!("unexpected: {}", reply.words()))),
        }
    }

    /// RFC 5321, 4.2.1: the last line has no hyphen after its code. A line without a code belongs to
    /// the text, as other mail servers read it.
    async fn read_reply(&mut self) -> Result<Reply, SmtpFailure> {
        let mut lines = Vec::new();
        let mut room = MAX_REPLY;
        loop {
            let mut line = Vec::new();
            let mut stream = (&mut self.stream).take(room);
            room -= stream.read_until(b'\n', &mut line).await? as u64;
            if line.pop() != Some(b'\n') {
                let why = if room == 0 {
                    "its reply is too long"
                } else {
                    "it hung up"
                };
                return Err(SmtpFailure::Lost(why.to_owned()));
            }
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            let Some((code, text)) = split_code(&line) else {
                lines.push(decode(&line));
                continue;
            };
            let is_last = text.first() != Some(&b'-');
            lines.push(decode(text.get(1..).unwrap_or_default()));
            if is_last {
                return Ok(Reply { code, lines });
            }
        }
    }
}

impl Reply {
    /// The code and the text as one line of bounded length, without control characters.
    pub fn words(&self) -> String {
        tidy(&format!("{} {}", self.code, self.lines.join(" ")))
    }
}

impl From<std::io::Error> for SmtpFailure {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(tidy(&error.to_string()))
    }
}

/// Asks for TLS (RFC 3207) and returns the connection on which it begins.
async fn start_tls(tcp: TcpStream, us: &str) -> Result<TcpStream, SmtpFailure> {
    let mut plain = Connection::over(tcp);
    plain.greeting().await?;
    plain.hello(us).await?;
    if !plain.offers("STARTTLS") {
        return Err(SmtpFailure::Lacking("it does not offer STARTTLS"));
    }
    plain.command("STARTTLS", 2).await?;
    plain.expect_silence()?;
    Ok(plain.stream.into_inner())
}

async fn encrypted(tcp: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, SmtpFailure> {
    // Read each time, so that renewed certificates are used.
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| SmtpFailure::Lacking("this build has no usable TLS"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| SmtpFailure::Lacking("its name cannot be that of a certificate"))?;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?)
}

/// Doubles dots at the beginning of lines (RFC 5321, 4.5.2). Returns whether the next byte begins a
/// line.
fn stuff(part: &[u8], mut is_line_start: bool, stuffed: &mut Vec<u8>) -> bool {
    for line in part.split_inclusive(|byte| *byte == b'\n') {
        if is_line_start && line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
        is_line_start = line.ends_with(b"\n");
    }
    is_line_start
}

/// The code at the beginning of a line of a reply, and what follows it.
fn split_code(line: &[u8]) -> Option<(u16, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    let is_code = matches!(code, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9']);
    let is_separate = matches!(rest, [] | [b' ' | b'-' | b'\t', ..]);
    if !(is_code && is_separate) {
        return None;
    }
    let digits = code.iter().map(|digit| u16::from(digit - b'0'));
    Some((digits.fold(0, |code, digit| code * 10 + digit), rest))
}

/// Text in UTF-8, or else in Latin-1, in which every byte is a character.
fn decode(text: &[u8]) -> String {
    match std::str::from_utf8(text) {
        Ok(text) => text.to_owned(),
        Err(_) => text.iter().copied().map(char::from).collect(),
    }
}

/// A relay's words as one line of bounded length.
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

    async fn read(bytes: &'static [u8]) -> Result<Reply, SmtpFailure> {
        let stream = tokio::io::join(bytes, tokio::io::sink());
        Connection::over(stream).read_reply().await
    }

    #[tokio::test]
    async fn replies_are_read_whatever_their_bytes_are() {
        for (bytes, code, words) in [
            (&b"250 2.0.0 queued\r\n"[..], 250, "250 2.0.0 queued"),
            (b"250 f\xfcr Sie\r\n", 250, "250 f\u{fc}r Sie"),
            ("250 für Sie\r\n".as_bytes(), 250, "250 f\u{fc}r Sie"),
            (b"250\r\n", 250, "250"),
            (b"250 ok\n", 250, "250 ok"),
            (b"250-a\r\n250-b\r\n250 c\r\n", 250, "250 a b c"),
            (b"250-a\r\n250\r\n", 250, "250 a"),
            (b"a notice\r\n250 c\r\n", 250, "250 a notice c"),
            (
                b"2500 is no code\r\n550\t\x00no\x1b\r\n",
                550,
                "550 2500 is no code no",
            ),
        ] {
            let reply = read(bytes).await.unwrap();
            assert_eq!((reply.code, reply.words().as_str()), (code, words));
        }
    }

    #[tokio::test]
    async fn half_a_reply_is_none_and_a_long_one_ends() {
        for bytes in [&b""[..], b"250", b"250-a\r\n", b"250 ok\r", b"nonsense\r\n"] {
            assert!(matches!(read(bytes).await, Err(SmtpFailure::Lost(_))));
        }
        let endless = b"250-".repeat(MAX_REPLY as usize).leak();
        let lost = read(endless).await.unwrap_err();
        assert!(matches!(lost, SmtpFailure::Lost(why) if why == "its reply is too long"));
    }

    #[test]
    fn dots_at_the_beginning_of_lines_are_doubled_across_parts() {
        let mut stuffed = Vec::new();
        let mut is_line_start = true;
        for part in [".a\r\n.", "\r\nb.", ".c\r\n", ".\r", "\n"] {
            is_line_start = stuff(part.as_bytes(), is_line_start, &mut stuffed);
        }
        assert_eq!(stuffed, b"..a\r\n..\r\nb..c\r\n..\r\n");
        assert!(is_line_start);
    }

    #[test]
    fn a_relays_words_are_one_short_line() {
        assert_eq!(
            tidy("550 no\r\n such \u{1b}[31muser\0"),
            "550 no such [31muser"
        );
        assert_eq!(tidy(&"\u{e9}".repeat(1_000)).chars().count(), MAX_WORDS);
        assert_eq!(
            tidy("550 \u{202e}resu\u{200b}"),
            "550 \\u{202e}resu\\u{200b}"
        );
    }
}
