//! Looks up the TXT records of domains.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::{Instant, timeout_at};

use super::dkim::record_name;
use super::records::{self, Findings, RecordState};
use crate::visible::visible;

/// The timeout of one query to one server.
const PATIENCE: Duration = Duration::from_secs(2);
/// The deadline for everything about one domain.
const DEADLINE: Duration = Duration::from_secs(8);
/// How many characters are kept of the other records at the name of a key's record.
const SEEN: usize = 500;
/// A name for trying out a resolver (RFC 6761, 6.5).
const KNOWN_NAME: &str = "example.com";
const DNS_PORT: u16 = 53;

/// Which servers to query. Nothing is cached: the next check notices that a record was removed.
#[derive(Debug, Clone)]
pub struct Dns {
    /// None: the system's servers.
    servers: Vec<SocketAddr>,
}

/// One DNS server. The servers are queried here, one after the other, because hickory takes a
/// refusal by the first of several for the answer of all.
struct Server {
    /// With EDNS (RFC 6891), which allows long answers without TCP.
    usual: TokioResolver,
    /// Without EDNS, for servers that do not support it.
    plain: TokioResolver,
}

impl Dns {
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self {
            servers: servers.to_vec(),
        }
    }

    /// The DNS records of a domain that signs with this public key.
    pub async fn look(&self, domain: &str, public: &str) -> Findings {
        let servers = match self.servers() {
            Ok(servers) => servers,
            Err(error) => {
                tracing::warn!(%error, "DNS cannot be queried");
                return Findings::default();
            }
        };
        let until = Instant::now() + DEADLINE;
        let (dkim_name, dmarc_name) = (record_name(domain), format!("_dmarc.{domain}"));
        let (dkim, spf, dmarc) = futures_util::join!(
            texts(&servers, &dkim_name, until),
            texts(&servers, domain, until),
            texts(&servers, &dmarc_name, until),
        );
        let mut dmarc = dmarc.map(|texts| records::dmarc(&texts));
        if dmarc == Some(RecordState::Missing)
            && let Some(whole) = psl::domain_str(domain).filter(|whole| *whole != domain)
        {
            // In that case the record of the organizational domain applies (RFC 7489, 6.6.3).
            let texts = texts(&servers, &format!("_dmarc.{whole}"), until).await;
            dmarc = texts.map(|texts| records::dmarc(&texts));
        }
        let others = dkim
            .as_ref()
            .map(|texts| records::other_than_dkim(texts, public));
        Findings {
            dkim: dkim.as_ref().map(|texts| records::dkim(texts, public)),
            spf: spf.map(|texts| records::spf(&texts)),
            dmarc,
            dkim_seen: others
                .filter(|others| !others.is_empty())
                .map(|others| seen(&others)),
        }
    }

    /// Asks each server about a name that every resolver knows. Returns the servers, each with the
    /// reason if it gave no answer.
    ///
    /// # Errors
    /// The system's servers cannot be found out.
    pub async fn try_each(&self) -> Result<Vec<(SocketAddr, Option<String>)>, String> {
        let name = fully_qualified(KNOWN_NAME).map_err(|error| error.to_string())?;
        let configs = self.configs().map_err(|error| error.to_string())?;
        let mut answers = Vec::new();
        for config in configs {
            let connection = config.connections.first();
            let port = connection.map_or(DNS_PORT, |connection| connection.port);
            let address = SocketAddr::new(config.ip, port);
            let until = Instant::now() + DEADLINE;
            let problem = match Server::new(config) {
                Ok(server) => timeout_at(until, server.ask(&name))
                    .await
                    .unwrap_or(Err(NetError::Timeout))
                    .err()
                    .filter(|error| !is_denial(error)),
                Err(error) => Some(error),
            };
            answers.push((address, problem.map(|error| error.to_string())));
        }
        Ok(answers)
    }

    /// Created for each domain, so that the system's current configuration is used, and connections
    /// are closed after the check.
    fn servers(&self) -> Result<Vec<Server>, NetError> {
        self.configs()?.into_iter().map(Server::new).collect()
    }

    fn configs(&self) -> Result<Vec<NameServerConfig>, NetError> {
        Ok(match self.servers.is_empty() {
            true => read_system_conf()?.0.into_parts().2,
            false => self.servers.iter().map(configured).collect(),
        })
    }
}

fn configured(address: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

impl Server {
    fn new(config: NameServerConfig) -> Result<Self, NetError> {
        let resolver = |edns0: bool| {
            let config = ResolverConfig::from_name_servers(vec![config.clone()]);
            let mut builder =
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            let options = builder.options_mut();
            options.cache_size = 0;
            options.timeout = PATIENCE;
            options.attempts = 0;
            options.use_hosts_file = ResolveHosts::Never;
            options.edns0 = edns0;
            builder.build()
        };
        Ok(Self {
            usual: resolver(true)?,
            plain: resolver(false)?,
        })
    }

    /// A server without EDNS support reports that the query is malformed (RFC 6891, 7).
    async fn ask(&self, name: &Name) -> Result<Vec<String>, NetError> {
        match lookup(&self.usual, name).await {
            Err(NetError::Dns(DnsError::ResponseCode(
                ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS,
            ))) => lookup(&self.plain, name).await,
            answer => answer,
        }
    }
}

/// Records as a page shows them, one per line.
fn seen(texts: &[&str]) -> String {
    let lines: Vec<_> = texts.iter().map(|text| visible(text)).collect();
    let all = lines.join("\n");
    match all.char_indices().nth(SEEN) {
        Some((end, _)) => format!("{}…", &all[..end]),
        None => all,
    }
}

/// The TXT records of a name, each with its strings joined without spaces (RFC 7208, 3.3). `None`:
/// DNS gave no answer, so it is not known whether there are any.
async fn texts(servers: &[Server], name: &str, until: Instant) -> Option<Vec<String>> {
    let answer = timeout_at(until, ask_all(servers, name)).await;
    match answer.unwrap_or(Err(NetError::Timeout)) {
        Ok(texts) => Some(texts),
        Err(error) => {
            tracing::debug!(name, %error, "DNS gave no answer");
            None
        }
    }
}

/// The first answer counts. If a server refuses, fails or is silent, the next one is queried; after
/// the last one, all are queried again without EDNS, which some firewalls drop.
async fn ask_all(servers: &[Server], name: &str) -> Result<Vec<String>, NetError> {
    let name = fully_qualified(name)?;
    let mut why = NetError::NoConnections;
    for is_again in [false, true] {
        for server in servers {
            let answer = match is_again {
                false => server.ask(&name).await,
                true => lookup(&server.plain, &name).await,
            };
            match answer {
                Err(error) if is_denial(&error) => return Ok(Vec::new()),
                Err(error) => why = error,
                answer => return answer,
            }
        }
    }
    Err(why)
}

/// So that no search domain of the system is appended.
fn fully_qualified(name: &str) -> Result<Name, NetError> {
    let mut name = Name::from_ascii(name).map_err(|error: ProtoError| NetError::from(error))?;
    name.set_fqdn(true);
    Ok(name)
}

async fn lookup(resolver: &TokioResolver, name: &Name) -> Result<Vec<String>, NetError> {
    let found = resolver.txt_lookup(name.clone()).await?;
    let answers = found.answers().iter();
    let texts = answers.filter_map(|record| match &record.data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    });
    Ok(texts.collect())
}

/// Whether DNS says that there is no such record (RFC 2308, 2), as opposed to no answer or a
/// referral.
fn is_denial(error: &NetError) -> bool {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords {
            soa,
            ns,
            response_code: ResponseCode::NoError | ResponseCode::NXDomain,
            ..
        })) => {
            let is_referral = soa.is_none() && ns.as_ref().is_some_and(|ns| !ns.is_empty());
            !is_referral
        }
        _ => false,
    }
}
