//! `Config`: the flags and `TOSEND_*` variables, parsed once at start and typed.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use crate::db::DatabaseUrl;
use crate::logging::{self, Format};
use crate::relay_url::{Login, RelayUrl, is_whole_name, parse_hello};

const DEFAULT_SQLITE_FILE: &str = "data/tosend.db";
const DEFAULT_FOLDER: &str = "data";
const SECRET_FILE: &str = "secret";
const DNS_PORT: u16 = 53;
/// A hundred years.
const MOST_DAYS: i64 = 36_500;
const MOST_DRAIN_SECONDS: u64 = 3_600;
/// They take about 5 GB.
const MOST_REMEMBERED: usize = 10_000_000;

/// The settings as clap reads them: as strings, so that all errors can be reported together.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// sqlite://FILE or postgres://USER:PASSWORD@HOST/NAME [default: sqlite://data/tosend.db]
    #[arg(
        long,
        global = true,
        env = "TOSEND_DATABASE_URL",
        hide_env_values = true
    )]
    pub database_url: Option<String>,

    /// File with the database URL, instead of --database-url: for a URL with a password
    #[arg(long, global = true, env = "TOSEND_DATABASE_URL_FILE")]
    pub database_url_file: Option<String>,

    /// Address and port to listen on
    #[arg(
        long,
        global = true,
        env = "TOSEND_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: String,

    /// Address under which browsers and programs reach this server, such as https://dash.acme.com
    #[arg(long, global = true, env = "TOSEND_PUBLIC_URL")]
    pub public_url: Option<String>,

    /// Who may sign up: "first" (only the first account), "open" or "closed"
    #[arg(long, global = true, env = "TOSEND_SIGNUP", default_value = "first")]
    pub signup: String,

    /// Proxies whose X-Forwarded-For is trusted: addresses or networks, separated by commas
    #[arg(
        long,
        global = true,
        env = "TOSEND_TRUSTED_PROXIES",
        default_value = ""
    )]
    pub trusted_proxies: String,

    /// File with the secret that signs cookies and encrypts DKIM keys; created if missing [default:
    /// beside the SQLite file, or data/secret]
    #[arg(long, global = true, env = "TOSEND_SECRET_FILE")]
    pub secret_file: Option<String>,

    /// File with the journal of ends, from which an older copy of the database learns which keys ended
    /// since; best on another disk than the database [default: beside the SQLite file; none with
    /// PostgreSQL]
    #[arg(long, global = true, env = "TOSEND_JOURNAL")]
    pub journal: Option<String>,

    /// How many days the journal of ends goes back: longer than any backup is kept
    #[arg(
        long,
        global = true,
        env = "TOSEND_JOURNAL_DAYS",
        default_value = "400"
    )]
    pub journal_days: String,

    /// DNS servers for looking up the records of domains: addresses separated by commas, each with a
    /// port if it is not 53 [default: the system's]
    #[arg(long, global = true, env = "TOSEND_DNS_SERVERS", default_value = "")]
    pub dns_servers: String,

    /// Maximum number of live keys per account
    #[arg(long, global = true, env = "TOSEND_KEY_LIMIT", default_value = "1000")]
    pub key_limit: String,

    /// How many keys verification remembers at most, of those in use; 0: each key is looked up each time
    #[arg(
        long,
        global = true,
        env = "TOSEND_REMEMBERED_KEYS",
        default_value = "100000"
    )]
    pub remembered_keys: String,

    /// Maximum number of domains per account
    #[arg(
        long,
        global = true,
        env = "TOSEND_DOMAIN_LIMIT",
        default_value = "200"
    )]
    pub domain_limit: String,

    /// How many days the activity of accounts is kept
    #[arg(
        long,
        global = true,
        env = "TOSEND_ACTIVITY_DAYS",
        default_value = "365"
    )]
    pub activity_days: String,

    /// Relay that delivers emails: smtp://HOST:25, smtp://HOST:587?tls=required or smtps://HOST:465
    #[arg(long, global = true, env = "TOSEND_SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<String>,

    /// File with the user for the relay on its first line and the password on its second
    #[arg(long, global = true, env = "TOSEND_SMTP_CREDENTIALS_FILE")]
    pub smtp_credentials_file: Option<String>,

    /// Name with which this server greets the relay (EHLO), such as mail.acme.com [default: the public
    /// URL's host, otherwise this machine's name or address]
    #[arg(long, global = true, env = "TOSEND_SMTP_HELO")]
    pub smtp_helo: Option<String>,

    /// How many days the content of an email is kept after it was delivered or failed
    #[arg(
        long,
        global = true,
        env = "TOSEND_RETENTION_DAYS",
        default_value = "30"
    )]
    pub retention_days: String,

    /// How many days the row of an email is kept after it was delivered or failed
    #[arg(long, global = true, env = "TOSEND_EMAIL_DAYS", default_value = "365")]
    pub email_days: String,

    /// How many seconds /readyz answers 503 before the server stops accepting connections: longer than
    /// the proxy takes to notice
    #[arg(long, global = true, env = "TOSEND_DRAIN_SECONDS", default_value = "0")]
    pub drain_seconds: String,

    /// Log level (error, warn, info, debug, trace) or tracing filter
    #[arg(
        long,
        global = true,
        env = "TOSEND_LOG",
        default_value = "info,actix_server=warn,actix_session=error"
    )]
    pub log: String,

    /// Form of the log's lines: "text" or "json"
    #[arg(long, global = true, env = "TOSEND_LOG_FORMAT", default_value = "text")]
    pub log_format: String,

    /// Whether the log has a line for each request: "true" or "false"
    #[arg(
        long,
        global = true,
        env = "TOSEND_ACCESS_LOG",
        default_value = "false"
    )]
    pub access_log: String,

    /// Address and port on which Prometheus asks for metrics, such as 127.0.0.1:9464 [default: none]
    #[arg(long, global = true, env = "TOSEND_METRICS_LISTEN")]
    pub metrics_listen: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub database: DatabaseUrl,
    pub database_url_file: Option<PathBuf>,
    pub listen: SocketAddr,
    pub public_url: Option<PublicUrl>,
    pub signup: Signup,
    pub trusted_proxies: Vec<IpNet>,
    pub secret_file: PathBuf,
    /// `None`: there is none.
    pub journal: Option<PathBuf>,
    pub journal_days: i64,
    /// None: the system's DNS servers.
    pub dns_servers: Vec<SocketAddr>,
    pub key_limit: i64,
    pub remembered_keys: usize,
    pub domain_limit: i64,
    pub activity_days: i64,
    /// `None`: emails are held, not delivered.
    pub relay: Option<RelayUrl>,
    pub smtp_credentials_file: Option<PathBuf>,
    pub retention_days: i64,
    pub email_days: i64,
    /// How long `/readyz` fails before the server stops accepting connections.
    pub drain: Duration,
    pub log: String,
    pub log_format: Format,
    /// Whether each request is logged.
    pub access_log: bool,
    /// `None`: nothing is counted.
    pub metrics_listen: Option<SocketAddr>,
}

/// Who may create an account in the browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signup {
    First,
    Open,
    Closed,
}

/// An origin: scheme, host and port, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Url);

impl Settings {
    /// The settings of every command that uses the database.
    pub const USED_BY_ALL: [&str; 5] = [
        "database_url",
        "database_url_file",
        "journal",
        "log",
        "log_format",
    ];
}

impl Config {
    /// # Errors
    /// One sentence for each problem.
    pub fn parse(settings: &Settings) -> Result<Self, Vec<String>> {
        let mut problems = Problems::default();
        let database = parse_database(settings, &mut problems);
        let listen = problems.kept_from("TOSEND_LISTEN", parse_listen(&settings.listen));
        let public_url = given(&settings.public_url).map(PublicUrl::parse);
        let public_url = problems.kept_from("TOSEND_PUBLIC_URL", public_url.transpose());
        let signup = problems.kept_from("TOSEND_SIGNUP", Signup::parse(&settings.signup));
        let trusted_proxies = parse_networks(&settings.trusted_proxies);
        let trusted_proxies = problems.kept_from("TOSEND_TRUSTED_PROXIES", trusted_proxies);
        let dns_servers = parse_dns_servers(&settings.dns_servers);
        let dns_servers = problems.kept_from("TOSEND_DNS_SERVERS", dns_servers);
        let key_limit = problems.kept_from("TOSEND_KEY_LIMIT", parse_number(&settings.key_limit));
        let remembered_keys = parse_remembered(&settings.remembered_keys);
        let remembered_keys = problems.kept_from("TOSEND_REMEMBERED_KEYS", remembered_keys);
        let domain_limit = parse_number(&settings.domain_limit);
        let domain_limit = problems.kept_from("TOSEND_DOMAIN_LIMIT", domain_limit);
        let activity_days = parse_days(&settings.activity_days);
        let activity_days = problems.kept_from("TOSEND_ACTIVITY_DAYS", activity_days);
        let relay = parse_relay(settings, public_url.as_ref(), &mut problems);
        let retention_days = parse_days(&settings.retention_days);
        let retention_days = problems.kept_from("TOSEND_RETENTION_DAYS", retention_days);
        let email_days = parse_days(&settings.email_days);
        let email_days = problems.kept_from("TOSEND_EMAIL_DAYS", email_days);
        let drain = parse_drain(&settings.drain_seconds);
        let drain = problems.kept_from("TOSEND_DRAIN_SECONDS", drain);
        let secret_file = database.as_ref().map(|database| {
            let file = secret_file(given(&settings.secret_file), database);
            problems.kept_from("TOSEND_SECRET_FILE", file)
        });
        let journal = database.as_ref().map(|database| {
            let file = journal_file(given(&settings.journal), database);
            problems.kept_from("TOSEND_JOURNAL", file)
        });
        let journal_days = parse_days(&settings.journal_days);
        let journal_days = problems.kept_from("TOSEND_JOURNAL_DAYS", journal_days);
        let log = problems.kept_from("TOSEND_LOG", logging::check_filter(&settings.log));
        let log_format =
            problems.kept_from("TOSEND_LOG_FORMAT", parse_format(&settings.log_format));
        let access_log = problems.kept_from("TOSEND_ACCESS_LOG", parse_bool(&settings.access_log));
        let metrics_listen = given(&settings.metrics_listen)
            .map(parse_listen)
            .transpose();
        let metrics_listen = problems.kept_from("TOSEND_METRICS_LISTEN", metrics_listen);

        let whole = || {
            Some(Self {
                database: database?,
                listen: listen?,
                public_url: public_url?,
                signup: signup?,
                trusted_proxies: trusted_proxies?,
                secret_file: secret_file??,
                journal: journal??,
                journal_days: journal_days?,
                dns_servers: dns_servers?,
                key_limit: key_limit?,
                remembered_keys: remembered_keys?,
                domain_limit: domain_limit?,
                activity_days: activity_days?,
                relay: relay?,
                smtp_credentials_file: given(&settings.smtp_credentials_file).map(PathBuf::from),
                database_url_file: given(&settings.database_url_file).map(PathBuf::from),
                retention_days: retention_days?,
                email_days: email_days?,
                drain: drain?,
                log: log.map(|()| settings.log.clone())?,
                log_format: log_format?,
                access_log: access_log?,
                metrics_listen: metrics_listen?,
            })
        };
        whole().filter(|_| problems.0.is_empty()).ok_or(problems.0)
    }

    /// Whether cookies may be `Secure` and HSTS is sent, because browsers reach this server by
    /// https.
    pub fn is_https(&self) -> bool {
        self.public_url.as_ref().is_some_and(PublicUrl::is_https)
    }

    /// Whether the configuration lets only this machine reach the server.
    pub fn is_loopback(&self) -> bool {
        self.listen.ip().is_loopback()
            && self.public_url.as_ref().is_none_or(PublicUrl::is_loopback)
    }

    /// A sentence for each setting that is valid and dangerous.
    pub fn dangers(&self) -> Vec<String> {
        let mut dangers = Vec::new();
        if !self.is_https() && !self.is_loopback() {
            dangers.push(
                "served without https: cookies and keys travel unencrypted. Put a proxy with TLS \
                 in front and set TOSEND_PUBLIC_URL=https://…"
                    .to_owned(),
            );
        }
        for net in self
            .trusted_proxies
            .iter()
            .filter(|net| net.prefix_len() == 0)
        {
            dangers.push(format!(
                "TOSEND_TRUSTED_PROXIES: {net} trusts everyone, so any client can choose the \
                 address that limits and logs see; name the addresses of the proxies only"
            ));
        }
        if let Some(address) = self.metrics_listen.filter(|at| !at.ip().is_loopback()) {
            dangers.push(format!(
                "TOSEND_METRICS_LISTEN: the metrics are served on {address} without a password; \
                 let only your Prometheus reach it, or use a loopback address"
            ));
        }
        let files = [
            ("TOSEND_DATABASE_URL_FILE", self.database_url_file.as_ref()),
            ("TOSEND_SECRET_FILE", Some(&self.secret_file)),
            (
                "TOSEND_SMTP_CREDENTIALS_FILE",
                self.smtp_credentials_file.as_ref(),
            ),
        ];
        for (name, file) in files {
            if let Some(file) = file.filter(|file| is_readable_by_all(file)) {
                let file = file.display();
                dangers.push(format!(
                    "{name}: every user of this machine can read {file}; run “chmod o-r {file}”"
                ));
            }
        }
        dangers
    }
}

fn is_readable_by_all(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
}

/// A sentence for each setting that is wrong.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    /// Returns the value of a setting if it is valid, and notes the problem otherwise.
    fn kept_from<T>(&mut self, name: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| self.0.push(format!("{name}: {why}")))
            .ok()
    }
}

impl Signup {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "first" => Ok(Self::First),
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            _ => Err(format!("“{text}” is not first, open or closed")),
        }
    }
}

impl PublicUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("“{text}” is not of the form https://dash.acme.com (no path, user or query)")
        };
        let url = Url::parse(text).map_err(|_| wrong())?;
        let is_origin = matches!(url.scheme(), "http" | "https")
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if is_origin {
            Ok(Self(url))
        } else {
            Err(wrong())
        }
    }

    /// As browsers send it in `Origin`: without a trailing slash or a default port.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    fn is_loopback(&self) -> bool {
        self.0.host().is_some_and(|host| is_loopback_host(&host))
    }
}

/// Whether a `Host` header (with or without a port) names this machine.
pub fn is_loopback_authority(authority: &str) -> bool {
    Url::parse(&format!("http://{authority}/"))
        .is_ok_and(|url| url.host().is_some_and(|host| is_loopback_host(&host)))
}

fn is_loopback_host(host: &Host<&str>) -> bool {
    match host {
        // RFC 6761, 6.3: "localhost" and names below it are always loopback.
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    }
}

/// An empty variable counts as not set.
fn given(setting: &Option<String>) -> Option<&str> {
    setting.as_deref().filter(|text| !text.is_empty())
}

/// From the URL or the file with the URL.
fn parse_database(settings: &Settings, problems: &mut Problems) -> Option<DatabaseUrl> {
    let (url, file) = (
        given(&settings.database_url),
        given(&settings.database_url_file),
    );
    let Some(file) = file else {
        let default = || Ok(DatabaseUrl::sqlite(DEFAULT_SQLITE_FILE));
        let database = url.map_or_else(default, DatabaseUrl::parse);
        return problems.kept_from("TOSEND_DATABASE_URL", database);
    };
    let database = match url {
        Some(_) => Err("TOSEND_DATABASE_URL is set, too: unset one of them".to_owned()),
        None => read_setting(file).and_then(|text| {
            let parsed = DatabaseUrl::parse(text.expose_secret());
            parsed.map_err(|why| format!("in {file}: {why}"))
        }),
    };
    problems.kept_from("TOSEND_DATABASE_URL_FILE", database)
}

/// The value of a setting that is kept in a file, without the line break at its end.
fn read_setting(file: &str) -> Result<SecretString, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{file} cannot be read: {e}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{file} is empty")),
        text => Ok(text.into()),
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| format!("“{text}” is not an address and port, such as 127.0.0.1:8080"))
}

fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("“{text}” is not text or json")),
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| format!("“{text}” is not true or false"))
}

fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse::<IpNet>()
                .or_else(|_| part.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| format!("“{part}” is not an address or network, such as 10.0.0.0/8"))
        })
        .collect()
}

fn parse_dns_servers(text: &str) -> Result<Vec<SocketAddr>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let alone = part.trim_matches(['[', ']']).parse::<IpAddr>();
            part.parse()
                .or(alone.map(|ip| SocketAddr::new(ip, DNS_PORT)))
                .map_err(|_| {
                    format!("“{part}” is not an address, such as 192.0.2.53 or 192.0.2.53:5353")
                })
        })
        .collect()
}

fn parse_number(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(number) if number >= 1 => Ok(number),
        _ => Err(format!("“{text}” is not a whole number of at least 1")),
    }
}

fn parse_remembered(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(keys) if keys <= MOST_REMEMBERED => Ok(keys),
        _ => Err(format!(
            "“{text}” is not a whole number from 0 to {MOST_REMEMBERED}"
        )),
    }
}

fn parse_days(text: &str) -> Result<i64, String> {
    match parse_number(text) {
        Ok(days) if days <= MOST_DAYS => Ok(days),
        _ => Err(format!(
            "“{text}” is not a whole number from 1 to {MOST_DAYS}"
        )),
    }
}

fn parse_drain(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if seconds <= MOST_DRAIN_SECONDS => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "“{text}” is not a whole number from 0 to {MOST_DRAIN_SECONDS}"
        )),
    }
}

/// `Some(None)`: emails are held. `None`: the setting is invalid.
fn parse_relay(
    settings: &Settings,
    public_url: Option<&Option<PublicUrl>>,
    problems: &mut Problems,
) -> Option<Option<RelayUrl>> {
    let login = given(&settings.smtp_credentials_file).map(Login::read);
    let login = problems.kept_from("TOSEND_SMTP_CREDENTIALS_FILE", login.transpose());
    let hello = given(&settings.smtp_helo).map(parse_hello);
    let hello = problems.kept_from("TOSEND_SMTP_HELO", hello.transpose());
    let Some(url) = given(&settings.smtp_url) else {
        if let Some(Some(_)) = login {
            let useless = Err::<(), _>("has no effect without TOSEND_SMTP_URL".to_owned());
            problems.kept_from("TOSEND_SMTP_CREDENTIALS_FILE", useless);
        }
        return Some(None);
    };
    let relay = RelayUrl::parse(url, login.flatten());
    let relay = problems.kept_from("TOSEND_SMTP_URL", relay)?;
    let hello = hello?.or_else(|| {
        let host = public_url?.as_ref()?.0.host_str()?;
        is_whole_name(host).then(|| host.to_owned())
    });
    Some(Some(RelayUrl { hello, ..relay }))
}

fn secret_file(given: Option<&str>, database: &DatabaseUrl) -> Result<PathBuf, String> {
    match (given, database) {
        (Some(secret), DatabaseUrl::Sqlite(file)) if file.is(Path::new(secret)) => {
            Err(format!("{file} is the database: name another file"))
        }
        (Some(secret), _) => Ok(secret.into()),
        (None, DatabaseUrl::Sqlite(file)) => Ok(file.folder().join(SECRET_FILE)),
        (None, DatabaseUrl::Postgres(_)) => Ok(Path::new(DEFAULT_FOLDER).join(SECRET_FILE)),
    }
}

fn journal_file(given: Option<&str>, database: &DatabaseUrl) -> Result<Option<PathBuf>, String> {
    match (given, database) {
        (Some(journal), DatabaseUrl::Sqlite(file)) if file.is(Path::new(journal)) => {
            Err(format!("{file} is the database: name another file"))
        }
        (Some(journal), _) => Ok(Some(journal.into())),
        (None, DatabaseUrl::Sqlite(file)) => Ok(Some(file.beside(".ends"))),
        (None, DatabaseUrl::Postgres(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            database_url: None,
            database_url_file: None,
            listen: "127.0.0.1:8080".into(),
            public_url: None,
            signup: "first".into(),
            trusted_proxies: String::new(),
            secret_file: None,
            journal: None,
            journal_days: "400".into(),
            dns_servers: String::new(),
            key_limit: "1000".into(),
            remembered_keys: "100000".into(),
            domain_limit: "200".into(),
            activity_days: "365".into(),
            smtp_url: None,
            smtp_credentials_file: None,
            smtp_helo: None,
            retention_days: "30".into(),
            email_days: "365".into(),
            drain_seconds: "0".into(),
            log: "info".into(),
            log_format: "text".into(),
            access_log: "false".into(),
            metrics_listen: None,
        }
    }

    #[test]
    fn the_defaults_need_nothing() {
        let config = Config::parse(&settings()).unwrap();
        assert_eq!(config.secret_file, Path::new("data/secret"));
        assert!(config.is_loopback());
        assert!(!config.is_https());
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let wrong = Settings {
            database_url: Some("mysql://x".into()),
            database_url_file: None,
            listen: "nowhere".into(),
            public_url: Some("https://dash.acme.com/path".into()),
            signup: "maybe".into(),
            journal: None,
            journal_days: "400".into(),
            trusted_proxies: "10.0.0.0/8, proxy".into(),
            secret_file: None,
            dns_servers: "192.0.2.53, dns.acme.com".into(),
            key_limit: "0".into(),
            remembered_keys: "-1".into(),
            domain_limit: "0".into(),
            activity_days: "0".into(),
            smtp_url: Some("smtp://ada:hunter2@relay.test".into()),
            smtp_credentials_file: Some("/nowhere/at/all".into()),
            smtp_helo: Some("no name".into()),
            retention_days: "0".into(),
            email_days: "0".into(),
            drain_seconds: "a while".into(),
            log: "a=b=c".into(),
            log_format: "xml".into(),
            access_log: "on".into(),
            metrics_listen: Some("9464".into()),
        };
        let problems = Config::parse(&wrong).unwrap_err();
        assert_eq!(problems.len(), 20);
        assert!(!problems.join(" ").contains("hunter2"));
    }

    #[test]
    fn what_is_dangerous_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            Some(path.display().to_string())
        };
        let with = |mode, proxies: &str, metrics: &str| Settings {
            database_url_file: file("url", "sqlite://a.db", mode),
            secret_file: file("secret", "hunter2", mode),
            smtp_url: Some("smtps://relay.test".into()),
            smtp_credentials_file: file("login", "ada\nhunter2\n", mode),
            trusted_proxies: proxies.into(),
            metrics_listen: Some(metrics.into()),
            ..settings()
        };
        let dangers = |settings: &Settings| Config::parse(settings).unwrap().dangers();
        assert_eq!(dangers(&settings()), [""; 0]);
        let careful = with(0o640, "10.0.0.0/8, 192.0.2.1", "127.0.0.1:9464");
        assert_eq!(dangers(&careful), [""; 0]);
        let careless = with(0o644, "10.0.0.0/8, 0.0.0.0/0, ::/0", "0.0.0.0:9464");
        let told = dangers(&careless);
        let begins = [
            "TOSEND_TRUSTED_PROXIES: 0.0.0.0/0 trusts everyone",
            "TOSEND_TRUSTED_PROXIES: ::/0 trusts everyone",
            "TOSEND_METRICS_LISTEN: the metrics are served on 0.0.0.0:9464 without",
            "TOSEND_DATABASE_URL_FILE: every user of this machine can read",
            "TOSEND_SECRET_FILE: every user of this machine can read",
            "TOSEND_SMTP_CREDENTIALS_FILE: every user of this machine can read",
        ];
        assert_eq!(told.len(), begins.len(), "{told:#?}");
        for (told, begin) in told.iter().zip(begins) {
            assert!(told.starts_with(begin), "{told}");
        }
    }

    #[test]
    fn the_database_url_may_be_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url").display().to_string();
        let from_file = |url: Option<&str>| {
            let settings = Settings {
                database_url: url.map(Into::into),
                database_url_file: Some(file.clone()),
                ..settings()
            };
            Config::parse(&settings).map(|config| config.database)
        };
        let refused = |url, why: &str| {
            let problems = from_file(url).unwrap_err();
            let whole = format!("TOSEND_DATABASE_URL_FILE: {why}");
            assert!(
                problems.len() == 1 && problems[0].starts_with(&whole),
                "{problems:?}"
            );
            assert!(!problems[0].contains("hunter2"));
        };
        refused(None, &format!("{file} cannot be read: "));
        for text in [
            "sqlite://a b.db",
            "sqlite://a b.db\n",
            "sqlite://a b.db\r\n",
        ] {
            std::fs::write(&file, text).unwrap();
            let database = from_file(None).unwrap();
            assert!(matches!(database, DatabaseUrl::Sqlite(file) if file.is(Path::new("a b.db"))));
        }
        // An empty variable is not set.
        assert!(from_file(Some("")).is_ok());
        refused(Some("sqlite://b.db"), "TOSEND_DATABASE_URL is set, too");
        for empty in ["", "\n"] {
            std::fs::write(&file, empty).unwrap();
            refused(None, &format!("{file} is empty"));
        }
        std::fs::write(&file, "mysql://ada:hunter2@db.test/x\n").unwrap();
        refused(None, &format!("in {file}: a database URL begins with"));
    }

    #[test]
    fn the_secret_is_not_kept_in_the_database() {
        let with_secret = |file: &str| {
            Config::parse(&Settings {
                database_url: Some("sqlite://data/tosend.db".into()),
                secret_file: Some(file.into()),
                ..settings()
            })
        };
        assert!(with_secret("data/secret").is_ok());
        for same in ["data/tosend.db", "data//tosend.db", "data/./tosend.db"] {
            let why = "TOSEND_SECRET_FILE: data/tosend.db is the database: name another file";
            assert_eq!(with_secret(same).unwrap_err(), [why], "{same}");
        }
    }

    #[test]
    fn dns_servers_are_addresses_with_or_without_a_port() {
        let servers = parse_dns_servers("192.0.2.53, 192.0.2.54:5353,2001:db8::53,[2001:db8::54]");
        let servers: Vec<_> = servers.unwrap().iter().map(SocketAddr::to_string).collect();
        assert_eq!(
            servers,
            [
                "192.0.2.53:53",
                "192.0.2.54:5353",
                "[2001:db8::53]:53",
                "[2001:db8::54]:53"
            ]
        );
        assert_eq!(parse_dns_servers(" "), Ok(Vec::new()));
        for wrong in ["dns.acme.com", "192.0.2.53:x", "192.0.2", "1;2"] {
            assert!(parse_dns_servers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn activity_is_kept_for_a_whole_number_of_days() {
        let days = |text: &str| {
            Config::parse(&Settings {
                activity_days: text.into(),
                ..settings()
            })
            .map(|config| config.activity_days)
        };
        assert_eq!(days("1"), Ok(1));
        assert_eq!(days("36500"), Ok(36_500));
        for wrong in [
            "",
            "0",
            "-1",
            "1.5",
            "36501",
            "99999999999999999999",
            "forever",
        ] {
            let why =
                format!("TOSEND_ACTIVITY_DAYS: “{wrong}” is not a whole number from 1 to 36500");
            assert_eq!(days(wrong), Err(vec![why]));
        }
    }

    #[test]
    fn clients_are_let_go_within_an_hour() {
        let drain = |text: &str| {
            Config::parse(&Settings {
                drain_seconds: text.into(),
                ..settings()
            })
            .map(|config| config.drain.as_secs())
        };
        assert_eq!(drain("0"), Ok(0));
        assert_eq!(drain("3600"), Ok(3_600));
        for wrong in ["", "-1", "0.5", "3601", "ten"] {
            let why =
                format!("TOSEND_DRAIN_SECONDS: “{wrong}” is not a whole number from 0 to 3600");
            assert_eq!(drain(wrong), Err(vec![why]));
        }
    }

    #[test]
    fn the_relay_is_greeted_with_the_public_name() {
        let hello = |public_url: Option<&str>, smtp_helo: Option<&str>| {
            let config = Config::parse(&Settings {
                public_url: public_url.map(Into::into),
                smtp_url: Some("smtp://relay.test".into()),
                smtp_helo: smtp_helo.map(Into::into),
                ..settings()
            });
            config.unwrap().relay.unwrap().hello
        };
        let public = Some("https://dash.acme.com:8443");
        assert_eq!(hello(public, None).as_deref(), Some("dash.acme.com"));
        assert_eq!(
            hello(public, Some("mail.acme.com")).as_deref(),
            Some("mail.acme.com")
        );
        for none in [
            None,
            Some("http://localhost:8080"),
            Some("http://192.0.2.1"),
        ] {
            assert_eq!(hello(none, None), None);
        }
    }

    #[test]
    fn a_public_url_is_an_origin() {
        let url = PublicUrl::parse("https://Dash.Acme.com:443/").unwrap();
        assert_eq!(url.origin(), "https://dash.acme.com");
        for wrong in [
            "dash.acme.com",
            "ftp://a.com",
            "https://a.com/?x",
            "https://u@a.com",
        ] {
            assert!(PublicUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn loopback_needs_both_listener_and_public_url() {
        for (listen, public_url, loopback) in [
            ("127.0.0.1:80", None, true),
            ("[::1]:80", Some("http://localhost:8080"), true),
            ("0.0.0.0:80", None, false),
            ("127.0.0.1:80", Some("https://dash.acme.com"), false),
        ] {
            let config = Config::parse(&Settings {
                listen: listen.into(),
                public_url: public_url.map(Into::into),
                ..settings()
            })
            .unwrap();
            assert_eq!(config.is_loopback(), loopback, "{listen} {public_url:?}");
        }
        assert!(is_loopback_authority("localhost:8080"));
        assert!(is_loopback_authority("[::1]:8080"));
        assert!(!is_loopback_authority("dash.test:8080"));
        assert!(!is_loopback_authority("127.0.0.1.evil.com"));
        assert!(!is_loopback_authority(""));
    }
}
