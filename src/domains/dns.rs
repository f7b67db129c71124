//! Looks up the TXT records of domains.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::{ResolverBuilder, TokioResolver};

use super::dkim::record_name;
use super::records::{self, Findings, RecordState};

/// For one question to a server, and how often it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// For all about one name.
const DEADLINE: Duration = Duration::from_secs(8);
/// Of what stands in the place of a key's record, in characters.
const SEEN: usize = 500;

/// Where to ask. Nothing is remembered: a record that was removed is missed by the next look.
#[derive(Debug, Clone)]
pub struct Dns {
    /// None: the system's.
    servers: Vec<SocketAddr>,
}

impl Dns {
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self {
            servers: servers.to_vec(),
        }
    }

    /// What DNS says of a domain, which signs with this public key.
    pub async fn look(&self, domain: &str, public: &str) -> Findings {
        let resolver = match self.resolver() {
            Ok(resolver) => resolver,
            Err(error) => {
                tracing::warn!(%error, "DNS cannot be asked");
                return Findings::default();
            }
        };
        let (dkim_name, dmarc_name) = (record_name(domain), format!("_dmarc.{domain}"));
        let (dkim, spf, dmarc) = futures_util::join!(
            texts(&resolver, &dkim_name),
            texts(&resolver, domain),
            texts(&resolver, &dmarc_name),
        );
        let mut dmarc = dmarc.map(|texts| records::dmarc(&texts));
        if dmarc == Some(RecordState::Missing)
            && let Some(whole) = psl::domain_str(domain).filter(|whole| *whole != domain)
        {
            // Then the one of the organization's domain holds (RFC 7489, 6.6.3).
            let texts = texts(&resolver, &format!("_dmarc.{whole}")).await;
            dmarc = texts.map(|texts| records::dmarc(&texts));
        }
        let state = dkim.as_ref().map(|texts| records::dkim(texts, public));
        Findings {
            dkim: state,
            spf: spf.map(|texts| records::spf(&texts)),
            dmarc,
            dkim_seen: dkim
                .filter(|_| state == Some(RecordState::Different))
                .map(|texts| texts.join(" ").chars().take(SEEN).collect()),
        }
    }

    /// A new one for each domain: it takes over what the system's configuration is by now, and its
    /// connections end with it.
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = self.builder()?;
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = PATIENCE;
        options.attempts = ATTEMPTS;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build()
    }

    fn builder(&self) -> Result<ResolverBuilder<TokioRuntimeProvider>, NetError> {
        if self.servers.is_empty() {
            return TokioResolver::builder_tokio();
        }
        let server = |address: &SocketAddr| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = address.port();
            }
            NameServerConfig::new(address.ip(), true, connections)
        };
        let servers = self.servers.iter().map(server).collect();
        let config = ResolverConfig::from_name_servers(servers);
        Ok(TokioResolver::builder_with_config(
            config,
            TokioRuntimeProvider::default(),
        ))
    }
}

/// The TXT records of a name, the strings of each joined without spaces (RFC 7208, 3.3). `None`: DNS
/// gave no answer; whether there are any is not known.
async fn texts(resolver: &TokioResolver, name: &str) -> Option<Vec<String>> {
    let answer = tokio::time::timeout(DEADLINE, lookup(resolver, name)).await;
    match answer.unwrap_or(Err(NetError::Timeout)) {
        Ok(texts) => Some(texts),
        Err(error) if is_denial(&error) => Some(Vec::new()),
        Err(error) => {
            tracing::debug!(name, %error, "DNS gave no answer");
            None
        }
    }
}

async fn lookup(resolver: &TokioResolver, name: &str) -> Result<Vec<String>, NetError> {
    // Whole, so that no search domain of the system is added to it.
    let mut name = Name::from_ascii(name).map_err(|error: ProtoError| NetError::from(error))?;
    name.set_fqdn(true);
    let found = resolver.txt_lookup(name).await?;
    let answers = found.answers().iter();
    let texts = answers.filter_map(|record| match &record.data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    });
    Ok(texts.collect())
}

/// Whether DNS says that there is no such record (RFC 2308, 2), rather than nothing, or where else to
/// ask.
fn is_denial(error: &NetError) -> bool {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { soa, ns, .. })) => {
            let is_referral = soa.is_none() && ns.as_ref().is_some_and(|ns| !ns.is_empty());
            !is_referral
        }
        _ => false,
    }
}
