//! Where emails go: the URL of the relay and the login for it, as configured.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// A relay, in the URL syntax of lettre's `from_url`, without the forms that would expose a login
/// on the network: `smtp://HOST[:25]` without encryption and without a login,
/// `smtp://HOST[:587]?tls=required` with STARTTLS (RFC 3207), `smtps://HOST[:465]` with TLS from
/// the beginning (RFC 8314).
#[derive(Debug, Clone)]
pub struct RelayUrl {
    pub host: String,
    pub port: u16,
    pub security: Security,
    pub login: Option<Login>,
    /// The name with which this server greets the relay; `None`: the machine's name or address.
    pub hello: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    None,
    StartTls,
    Tls,
}

/// Debug shows no password.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: String,
    pub password: SecretString,
}

impl RelayUrl {
    /// # Errors
    /// One sentence that quotes nothing that may be secret.
    pub fn parse(text: &str, login: Option<Login>) -> Result<Self, String> {
        let wrong = || {
            "not of the form smtp://relay.acme.com:25, smtp://relay.acme.com:587?tls=required or smtps://relay.acme.com:465".to_owned()
        };
        let url = Url::parse(text).map_err(|_| wrong())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it must not contain a user or password, which other programs could see: write them to a file, one per line, and name that file in TOSEND_SMTP_CREDENTIALS_FILE".to_owned());
        }
        let (security, usual_port) = match (url.scheme(), url.query()) {
            ("smtp", None) => (Security::None, 25),
            ("smtp", Some("tls=required")) => (Security::StartTls, 587),
            ("smtps", None) => (Security::Tls, 465),
            _ => return Err(wrong()),
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(wrong());
        }
        if login.is_some() && security == Security::None {
            return Err("the password of TOSEND_SMTP_CREDENTIALS_FILE would be sent unencrypted: use smtps://… or smtp://…?tls=required".to_owned());
        }
        Ok(Self {
            host,
            port: url.port().unwrap_or(usual_port),
            security,
            login,
            hello: None,
        })
    }
}

/// Parses the name for the greeting: a host name, or an address in brackets (RFC 5321, 4.1.3).
///
/// # Errors
/// One sentence.
pub fn parse_hello(text: &str) -> Result<String, String> {
    let literal = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let is_right = match literal {
        Some(ip) => match ip.strip_prefix("IPv6:") {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
            None => ip.parse::<Ipv4Addr>().is_ok(),
        },
        None => is_host_name(text),
    };
    is_right.then(|| text.to_owned()).ok_or_else(|| {
        format!(
            "“{text}” is not a host name, such as mail.acme.com, or an address, such as [192.0.2.1]"
        )
    })
}

/// Whether it is a full host name with a domain, which other servers may know.
pub fn is_whole_name(name: &str) -> bool {
    is_host_name(name)
        && name.contains('.')
        && name.parse::<Ipv4Addr>().is_err()
        && !name.ends_with(".localhost")
        && !name.ends_with(".localdomain")
}

fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Only host and port.
impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Login {
    /// A file with the user on its first line and the password on its second.
    ///
    /// # Errors
    /// One sentence on the problem with the file.
    pub fn read(file: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(Path::new(file))
            .map_err(|e| format!("{file} cannot be read: {e}"))?;
        let text = SecretString::from(text);
        let mut lines = text.expose_secret().lines();
        match (lines.next(), lines.next(), lines.next()) {
            (Some(user), Some(password), None | Some(""))
                if !user.is_empty() && !password.is_empty() =>
            {
                Ok(Self {
                    user: user.to_owned(),
                    password: password.into(),
                })
            }
            _ => Err(format!(
                "{file} does not contain a user and a password, one per line"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Option<Login> {
        Some(Login {
            user: "ada".into(),
            password: "hunter2".into(),
        })
    }

    #[test]
    fn a_relay_is_told_by_its_url() {
        for (text, host, port, security) in [
            ("smtp://127.0.0.1:2525", "127.0.0.1", 2525, Security::None),
            ("smtp://relay.test", "relay.test", 25, Security::None),
            (
                "smtp://relay.test/?tls=required",
                "relay.test",
                587,
                Security::StartTls,
            ),
            ("smtps://relay.test", "relay.test", 465, Security::Tls),
            ("smtps://[::1]:9", "::1", 9, Security::Tls),
        ] {
            let url = RelayUrl::parse(text, None).unwrap();
            assert_eq!(
                (url.host.as_str(), url.port, url.security),
                (host, port, security)
            );
        }
        for wrong in [
            "",
            "relay.test:25",
            "http://relay.test",
            "smtp://",
            "smtp://relay.test?tls=maybe",
            "smtp://relay.test/path",
            "smtps://relay.test?tls=none",
        ] {
            assert!(RelayUrl::parse(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_neither_in_the_url_nor_sent_in_clear_nor_shown() {
        let why = RelayUrl::parse("smtps://ada:hunter2@relay.test", None).unwrap_err();
        assert!(why.contains("TOSEND_SMTP_CREDENTIALS_FILE") && !why.contains("hunter2"));
        let why = RelayUrl::parse("smtp://relay.test", login()).unwrap_err();
        assert!(why.contains("unencrypted"));
        let url = RelayUrl::parse("smtps://relay.test", login()).unwrap();
        assert!(!format!("{url:?} {url}").contains("hunter2"));
    }

    #[test]
    fn the_greeting_has_a_host_name_or_an_address_in_brackets() {
        for right in [
            "mail.acme.com",
            "tosend",
            "[192.0.2.1]",
            "[IPv6:2001:db8::1]",
        ] {
            assert_eq!(parse_hello(right).as_deref(), Ok(right));
        }
        for wrong in [
            "",
            "a b",
            "a\r\nMAIL",
            "-a.test",
            "a..b",
            "bücher.example",
            "[a]",
            "[::1]",
            "https://a.test",
        ] {
            assert!(parse_hello(wrong).is_err(), "{wrong}");
        }
        assert!(is_whole_name("dash.acme.com"));
        for part in [
            "tosend",
            "localhost",
            "x.localhost",
            "127.0.0.1",
            "box.localdomain",
        ] {
            assert!(!is_whole_name(part), "{part}");
        }
    }

    #[test]
    fn a_login_is_two_lines_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("login");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Login::read(file.to_str().unwrap())
        };
        for text in ["ada\nfour grey lamps", "ada\r\nfour grey lamps\r\n"] {
            let login = read(text).unwrap();
            assert_eq!(login.user, "ada");
            assert_eq!(login.password.expose_secret(), "four grey lamps");
        }
        for wrong in ["", "ada", "ada\n", "\nx", "ada\nx\ny"] {
            let why = read(wrong).unwrap_err();
            assert!(why.ends_with("one per line"), "{wrong:?}: {why}");
        }
        assert!(Login::read("/nowhere/at/all").is_err());
    }
}
