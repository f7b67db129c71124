//! The addresses that a key may send from, and to, within its domains, and the networks from which
//! it may be used. The form, the page of a key, the command line and files list the parts of a rule
//! from here, so that a new part needs no change there.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::scope::NewScope;
use crate::accounts::email::Email;
use crate::domains::name::DomainName;
use crate::domains::store::Domain;

const MOST: usize = 100;
/// A valid beginning of an address, but whoever writes it means a pattern.
const ANYONE_AT: &str = "*@";
/// The bits in front of an IPv4 address in the form of IPv6.
const MAPPED_PREFIX: u8 = 96;

/// Addresses, or addresses and domains; or any. Compared case-insensitively.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Allowed {
    #[default]
    Any,
    /// One per line.
    Only(String),
}

/// A complete rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Exact addresses.
    pub senders: Allowed,
    /// Exact addresses, or whole domains (never their subdomains).
    pub recipients: Allowed,
    /// Networks of clients, in CIDR notation (RFC 4632 3.1, RFC 4291 2.3).
    pub networks: Allowed,
}

/// One of the lists in a rule, and how it is asked for and shown.
pub struct RulePart {
    /// In forms, files and JSON, and in the activity; in the plural.
    pub name: &'static str,
    /// On the command line: what follows `--`, to list what is allowed (with the value after it) and
    /// to allow anything again.
    pub flag: &'static str,
    pub any_flag: &'static str,
    pub value_name: &'static str,
    /// In sentences such as “It can send … only.”
    pub way: &'static str,
    /// An entry, and the absence of entries, in the help of the command line.
    pub one: &'static str,
    pub anything: &'static str,
    /// In the form.
    pub label: &'static str,
    pub hint: &'static str,
    parse: fn(&str) -> Result<Allowed, InvalidRule>,
    /// Whether a list that has the first entry allows all that the second one allows.
    covers: fn(&str, &str) -> bool,
    of: fn(&Rule) -> &Allowed,
    of_mut: fn(&mut Rule) -> &mut Allowed,
}

pub static SENDERS: RulePart = RulePart {
    name: "senders",
    flag: "sender",
    any_flag: "any-sender",
    value_name: "ADDRESS",
    way: "from",
    one: "this address",
    anything: "any address of its domains",
    label: "Only from these addresses",
    hint: "One per line, such as billing@acme.com. Leave empty to allow any address at the key’s domains.",
    parse: Allowed::parse_senders,
    covers: |own, other| own == other,
    of: |rule| &rule.senders,
    of_mut: |rule| &mut rule.senders,
};

static RECIPIENTS: RulePart = RulePart {
    name: "recipients",
    flag: "recipient",
    any_flag: "any-recipient",
    value_name: "ADDRESS|DOMAIN",
    way: "to",
    one: "this address or domain",
    anything: "anyone",
    label: "Only to these addresses or domains",
    hint: "One per line, such as qa@acme.com or acme.com. Such a key is safe to test with. Leave empty to allow anyone.",
    parse: Allowed::parse_recipients,
    covers: recipient_covers,
    of: |rule| &rule.recipients,
    of_mut: |rule| &mut rule.recipients,
};

pub static NETWORKS: RulePart = RulePart {
    name: "networks",
    flag: "network",
    any_flag: "any-network",
    value_name: "NETWORK",
    way: "from clients at",
    one: "clients in this network, such as 203.0.113.0/24, or at this address",
    anything: "any address",
    label: "Only from these networks",
    hint: "One address or network per line, such as 203.0.113.7 or 2001:db8::/32. From anywhere else, the key is answered like an unknown one. Leave empty to allow any client.",
    parse: Allowed::parse_networks,
    covers: network_covers,
    of: |rule| &rule.networks,
    of_mut: |rule| &mut rule.networks,
};

/// All parts, in the order in which they are shown.
pub static PARTS: [&RulePart; 3] = [&SENDERS, &RECIPIENTS, &NETWORKS];

/// New values for some parts of a rule.
#[derive(Debug, Clone, Default)]
pub struct RuleChange(Vec<(&'static RulePart, Allowed)>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    #[error("Enter at most 100, one per line.")]
    TooMany,
    #[error("“{0}” is not an email address.")]
    NotAnAddress(String),
    #[error("“{0}” is neither an email address nor a domain.")]
    NeitherAddressNorDomain(String),
    #[error("“{0}” is neither an address nor a network, such as 203.0.113.7 or 203.0.113.0/24.")]
    NotANetwork(String),
    #[error("A * stands for nothing in “{0}”: list the addresses, or none to allow any.")]
    SenderPattern(String),
    /// With the domain.
    #[error("A * stands for nothing in “*@{0}”: to allow every address of the domain, say @{0}.")]
    RecipientPattern(String),
}

impl RulePart {
    /// An empty text means any.
    pub fn parse(&self, text: &str) -> Result<Allowed, InvalidRule> {
        (self.parse)(text)
    }

    /// What both lists allow.
    pub fn common(&self, a: &Allowed, b: &Allowed) -> Allowed {
        a.and(b, self.covers)
    }

    pub fn of<'a>(&self, rule: &'a Rule) -> &'a Allowed {
        (self.of)(rule)
    }

    pub fn set(&self, rule: &mut Rule, allowed: Allowed) {
        *(self.of_mut)(rule) = allowed;
    }

    /// Its name in front of a value.
    pub fn title(&self) -> String {
        capitalized(self.name)
    }

    /// The text for people, beside [`way`](Self::way): `Only a@acme.com`, `Anyone`.
    pub fn describe(&self, allowed: &Allowed) -> String {
        match allowed {
            Allowed::Any => capitalized(self.anything),
            only => format!("Only {only}"),
        }
    }
}

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    format!("{}{rest}", first.to_ascii_uppercase())
}

impl fmt::Debug for RulePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl RuleChange {
    pub fn set(&mut self, part: &'static RulePart, allowed: Allowed) {
        self.0.push((part, allowed));
    }

    pub fn has(&self, part: &RulePart) -> bool {
        self.0.iter().any(|(changed, _)| changed.name == part.name)
    }

    /// The rule with these values; the other parts stay as they are.
    pub fn applied_to(&self, rule: &Rule) -> Rule {
        let mut rule = rule.clone();
        for (part, allowed) in &self.0 {
            part.set(&mut rule, allowed.clone());
        }
        rule
    }
}

impl Allowed {
    /// Addresses, separated by line breaks, commas or spaces; an empty list means any.
    pub fn parse_senders(text: &str) -> Result<Self, InvalidRule> {
        Self::parse(text, |entry| match entry.starts_with(ANYONE_AT) {
            true => Err(InvalidRule::SenderPattern(shortened(entry))),
            false => address(entry).ok_or_else(|| InvalidRule::NotAnAddress(shortened(entry))),
        })
    }

    /// Addresses and domains (`acme.com` or `@acme.com`), separated the same way; an empty list
    /// means any.
    pub fn parse_recipients(text: &str) -> Result<Self, InvalidRule> {
        Self::parse(text, |entry| {
            if let Some(domain) = entry.strip_prefix(ANYONE_AT) {
                return Err(InvalidRule::RecipientPattern(shortened(domain)));
            }
            let domain = entry.strip_prefix('@').unwrap_or(entry);
            let found = match domain.contains('@') {
                true => address(domain),
                false => DomainName::parse(domain).ok().map(|name| name.to_string()),
            };
            found.ok_or_else(|| InvalidRule::NeitherAddressNorDomain(shortened(entry)))
        })
    }

    /// Addresses and networks, separated the same way; an empty list means any.
    pub fn parse_networks(text: &str) -> Result<Self, InvalidRule> {
        Self::parse(text, |entry| match network(entry) {
            Some(IpNet::V4(net)) if net.prefix_len() == 32 => Ok(net.addr().to_string()),
            Some(IpNet::V6(net)) if net.prefix_len() == 128 => Ok(net.addr().to_string()),
            Some(net) => Ok(net.to_string()),
            None => Err(InvalidRule::NotANetwork(shortened(entry))),
        })
    }

    fn parse(
        text: &str,
        parse_entry: impl Fn(&str) -> Result<String, InvalidRule>,
    ) -> Result<Self, InvalidRule> {
        let mut entries: Vec<String> = Vec::new();
        let separators = |c: char| c.is_whitespace() || matches!(c, ',' | ';');
        for entry in text.split(separators).filter(|entry| !entry.is_empty()) {
            let entry = parse_entry(entry)?;
            if !entries.contains(&entry) {
                entries.push(entry);
            }
            if entries.len() > MOST {
                return Err(InvalidRule::TooMany);
            }
        }
        Ok(match entries.is_empty() {
            true => Self::Any,
            false => Self::Only(entries.join("\n")),
        })
    }

    pub fn from_column(text: Option<String>) -> Self {
        text.map_or(Self::Any, Self::Only)
    }

    pub fn as_column(&self) -> Option<&str> {
        match self {
            Self::Any => None,
            Self::Only(lines) => Some(lines),
        }
    }

    /// The listed entries; none if any address is allowed.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.as_column().into_iter().flat_map(str::lines)
    }

    fn and(&self, other: &Self, covers: fn(&str, &str) -> bool) -> Self {
        if self.is_any() {
            return other.clone();
        }
        if other.is_any() {
            return self.clone();
        }
        let is_in = |list: &Self, entry: &str| list.iter().any(|own| covers(own, entry));
        let mut common: Vec<&str> = self.iter().filter(|entry| is_in(other, entry)).collect();
        for entry in other.iter().filter(|entry| is_in(self, entry)) {
            if !common.contains(&entry) {
                common.push(entry);
            }
        }
        // An empty list allows nobody.
        Self::Only(common.join("\n"))
    }

    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// All the entries of several lists. Any address is allowed if one of the lists says so, or if
    /// there is none.
    pub fn joined(lists: &[Self]) -> Result<Self, InvalidRule> {
        let entries: Vec<&str> = lists.iter().flat_map(Self::iter).collect();
        match lists.iter().any(Self::is_any) {
            true => Ok(Self::Any),
            false => Self::parse(&entries.join("\n"), |entry| Ok(entry.to_owned())),
        }
    }

    /// Whether an address is allowed: because it is listed, or because it is plain and its domain
    /// is listed.
    pub fn allows(&self, email: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(lines) => address(email).is_some_and(|email| {
                let domain = domain_of(&email);
                let is_plain = is_plain(&email);
                let is_allowed = |entry| entry == email || (entry == domain && is_plain);
                lines.lines().any(is_allowed)
            }),
        }
    }
}

impl Allowed {
    /// Whether a client's address is listed, or in one of the listed networks.
    pub fn allows_client(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let has_client = |entry| network(entry).is_some_and(|net| net.contains(&client));
        self.is_any() || self.iter().any(has_client)
    }
}

impl Rule {
    /// Each part with its value.
    pub fn parts(&self) -> impl Iterator<Item = (&'static RulePart, &Allowed)> {
        PARTS.into_iter().map(|part| (part, part.of(self)))
    }

    /// The first sender outside the scope, in an account that has these domains.
    pub fn sender_outside(&self, scope: &NewScope, domains: &[Domain]) -> Option<&str> {
        self.senders.iter().find(|sender| {
            let is_open = |domain: &Domain| match scope {
                NewScope::AllDomains => true,
                NewScope::Domains(ids) => ids.contains(&domain.id),
            };
            let mut domains = domains.iter().filter(|domain| is_open(domain));
            !domains.any(|domain| domain.name == domain_of(sender))
        })
    }
}

/// The text for people.
impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Only(lines) => f.write_str(&lines.replace('\n', ", ")),
        }
    }
}

/// `"any"`, or a list.
impl Serialize for Allowed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::Only(lines) => serializer.collect_seq(lines.lines()),
        }
    }
}

/// A member for each part.
impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(Some(PARTS.len()))?;
        for (part, allowed) in self.parts() {
            members.serialize_entry(part.name, allowed)?;
        }
        members.end()
    }
}

/// A network, or an address as a network of its own; bits after the prefix are cleared. IPv4 in the
/// form of IPv6 (`::ffff:192.0.2.1`, RFC 4291 2.5.5.2) is IPv4.
fn network(text: &str) -> Option<IpNet> {
    let net: IpNet = match text.parse() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let mapped = |net: ipnet::Ipv6Net| {
        let address = net.addr().to_ipv4_mapped()?;
        Ipv4Net::new(address, net.prefix_len().checked_sub(MAPPED_PREFIX)?).ok()
    };
    Some(match net.trunc() {
        IpNet::V6(net) => mapped(net).map_or(IpNet::V6(net), IpNet::V4),
        net => net,
    })
}

fn network_covers(own: &str, other: &str) -> bool {
    match (network(own), network(other)) {
        (Some(own), Some(other)) => own.contains(&other),
        _ => false,
    }
}

/// A domain covers its plain addresses.
fn recipient_covers(own: &str, other: &str) -> bool {
    own == other || (own == domain_of(other) && is_plain(other))
}

/// The part after the `@`.
pub fn domain_of(email: &str) -> &str {
    email.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// Whether no mail server reads the part before the `@` as another address or as something else:
/// `user%other.test`, `other.test!user` and `"user@other.test"` are forwarded to `other.test` by
/// servers that know these forms (as Postfix does), `/` and `|` may mean files and programs, and a
/// leading `-` an option.
pub fn is_plain(email: &str) -> bool {
    let local = email.rsplit_once('@').map_or("", |(local, _)| local);
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-+='~".contains(&b);
    !local.is_empty() && !local.starts_with('-') && local.bytes().all(is_plain)
}

/// An address as it is compared: lower case, with the domain in ASCII.
fn address(text: &str) -> Option<String> {
    let email = Email::parse(text).ok()?;
    let (local, domain) = email.as_ref().rsplit_once('@')?;
    Some(format!("{local}@{}", DomainName::of_address(domain)?))
}

/// The part of a person's input that a message quotes.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::store::DomainStatus;

    #[test]
    fn nothing_listed_means_any() {
        for none in ["", " \n ", ",;"] {
            assert_eq!(Allowed::parse_senders(none), Ok(Allowed::Any));
        }
        assert!(Allowed::Any.allows("anyone@anywhere.test"));
    }

    #[test]
    fn of_two_lists_what_both_allow_is_left() {
        let list = |text: &str| Allowed::parse_recipients(text).unwrap();
        let both = |a: &str, b: &str| RECIPIENTS.common(&list(a), &list(b));
        assert_eq!(both("", ""), Allowed::Any);
        assert_eq!(both("", "a@x.test"), list("a@x.test"));
        assert_eq!(
            both("a@x.test b.test", "x.test b.test"),
            list("a@x.test b.test")
        );
        assert_eq!(both("x.test", "a@x.test c@y.test"), list("a@x.test"));
        assert_eq!(both("a@x.test", "b@x.test"), Allowed::Only(String::new()));
    }

    #[test]
    fn senders_are_exact_addresses() {
        let senders = Allowed::parse_senders("Hello@Acme.test, billing@acme.test\n").unwrap();
        assert_eq!(senders.iter().count(), 2);
        assert!(senders.allows("hello@acme.test") && senders.allows("HELLO@ACME.TEST"));
        for other in [
            "ello@acme.test",
            "hello@acme.test.evil.test",
            "hello@sub.acme.test",
            "",
        ] {
            assert!(!senders.allows(other), "{other}");
        }
        assert_eq!(
            Allowed::parse_senders("acme.test"),
            Err(InvalidRule::NotAnAddress("acme.test".into()))
        );
    }

    #[test]
    fn a_pattern_is_refused_with_what_to_say_instead() {
        for text in ["*@x.test", "bob@x.test, *@X.test"] {
            let why = Allowed::parse_recipients(text).unwrap_err().to_string();
            let told = why.to_lowercase();
            assert!(
                told.contains("“*@x.test”") && told.ends_with("say @x.test."),
                "{why}"
            );
            assert!(Allowed::parse_senders(text).is_err());
        }
        // Odd, but an address.
        assert!(Allowed::parse_recipients("*a@x.test").is_ok());
    }

    #[test]
    fn recipients_are_addresses_or_whole_domains() {
        let recipients =
            Allowed::parse_recipients("bob@example.org @acme.test bücher.test").unwrap();
        for good in [
            "bob@example.org",
            "any@acme.test",
            "x@bücher.test",
            "x@xn--bcher-kva.test",
        ] {
            assert!(recipients.allows(good), "{good}");
        }
        for bad in [
            "eve@example.org",
            "any@sub.acme.test",
            "acme.test@evil.test",
            "acme.test",
        ] {
            assert!(!recipients.allows(bad), "{bad}");
        }
        assert!(Allowed::parse_recipients("com").is_err());
    }

    #[test]
    fn of_a_domain_only_plain_addresses_are_allowed() {
        let recipients =
            Allowed::parse_recipients("acme.test bücher.test odd%one@example.org").unwrap();
        for good in [
            "bob@acme.test",
            "Bob.O'Brien+a_b-c=d~1@ACME.test",
            "0@xn--bcher-kva.test",
            "odd%one@example.org",
        ] {
            assert!(recipients.allows(good), "{good}");
        }
        for bad in [
            "eve%evil.test@acme.test",
            "evil.test!eve@acme.test",
            "\"eve@evil.test\"@acme.test",
            "\"eve\"@acme.test",
            "@evil.test:eve@acme.test",
            "@acme.test,@evil.test:eve@acme.test",
            "eve@evil.test@acme.test",
            "eve(x)@acme.test",
            "/var/mail/eve@acme.test",
            "|eve@acme.test",
            "-eve@acme.test",
            "e:ve@acme.test",
            "e;ve@acme.test",
            "e,ve@acme.test",
            "e\\ve@acme.test",
            "e{ve}@acme.test",
            "e`ve`@acme.test",
            "é@acme.test",
            "eve@[127.0.0.1]",
            "eve@127.0.0.1",
            "eve@sub.acme.test",
            "eve@acme.test.evil.test",
            "odd%two@example.org",
            "@acme.test",
        ] {
            assert!(!recipients.allows(bad), "{bad}");
        }
    }

    #[test]
    fn networks_are_addresses_and_ranges_of_both_families() {
        let networks = Allowed::parse_networks(
            "203.0.113.7 198.51.100.77/24, 2001:DB8:0:0::/32\n::ffff:192.0.2.0/120;::1",
        )
        .unwrap();
        let listed: Vec<_> = networks.iter().collect();
        assert_eq!(
            listed,
            [
                "203.0.113.7",
                "198.51.100.0/24",
                "2001:db8::/32",
                "192.0.2.0/24",
                "::1"
            ]
        );
        for good in [
            "203.0.113.7",
            "::ffff:203.0.113.7",
            "198.51.100.0",
            "198.51.100.255",
            "2001:db8:ffff::1",
            "192.0.2.99",
            "::1",
        ] {
            assert!(networks.allows_client(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "203.0.113.8",
            "198.51.101.0",
            "2001:db9::",
            "::2",
            "::203.0.113.7",
        ] {
            assert!(!networks.allows_client(bad.parse().unwrap()), "{bad}");
        }
        for wrong in [
            "203.0.113.0/33",
            "203.0.113.0/-1",
            "203.0.113",
            "2001:db8::/129",
            "localhost",
            "*",
            "203.0.113.*",
            "fe80::1%eth0",
            "203.0.113.1-203.0.113.9",
        ] {
            let told = Allowed::parse_networks(wrong).unwrap_err();
            assert_eq!(told, InvalidRule::NotANetwork(wrong.to_owned()));
        }
        assert!(Allowed::Any.allows_client("2001:db8::1".parse().unwrap()));
        let none = Allowed::from_column(Some(String::new()));
        assert!(!none.allows_client("203.0.113.7".parse().unwrap()));
    }

    #[test]
    fn of_two_lists_of_networks_the_narrower_ones_are_left() {
        let list = |text: &str| Allowed::parse_networks(text).unwrap();
        let both = |a: &str, b: &str| NETWORKS.common(&list(a), &list(b));
        assert_eq!(both("", "192.0.2.1"), list("192.0.2.1"));
        assert_eq!(
            both("192.0.2.0/24 2001:db8::1", "192.0.0.0/16 192.0.2.1 ::/0"),
            list("192.0.2.0/24 2001:db8::1 192.0.2.1")
        );
        assert_eq!(
            both("192.0.2.0/24", "198.51.100.1"),
            Allowed::Only(String::new())
        );
    }

    #[test]
    fn a_hundred_are_the_most_and_the_same_one_counts_once() {
        let many = |n: usize| (0..n).map(|i| format!("a{i}@x.test\n")).collect::<String>();
        assert!(Allowed::parse_senders(&many(100)).is_ok());
        assert_eq!(
            Allowed::parse_senders(&many(101)),
            Err(InvalidRule::TooMany)
        );
        let same = "a@x.test A@x.test ".repeat(200);
        assert_eq!(
            Allowed::parse_senders(&same),
            Ok(Allowed::Only("a@x.test".into()))
        );
    }

    #[test]
    fn senders_must_be_at_a_domain_of_the_scope() {
        let domain = |id, name: &str| Domain {
            id,
            name: name.to_owned(),
            status: DomainStatus::Pending,
            is_attested: false,
            missing_since: None,
            awaits_record: false,
            created_at: Default::default(),
        };
        let domains = [domain(1, "acme.test"), domain(2, "xn--bcher-kva.test")];
        let outside = |senders: &str, scope| {
            let rule = Rule {
                senders: Allowed::parse_senders(senders).unwrap(),
                ..Rule::default()
            };
            rule.sender_outside(&scope, &domains).map(str::to_owned)
        };
        let (all, first) = (NewScope::AllDomains, NewScope::Domains(vec![1]));
        assert_eq!(outside("", NewScope::Domains(vec![])), None);
        assert_eq!(outside("a@ACME.test b@bücher.test", all.clone()), None);
        let sender = outside("a@acme.test b@bücher.test", first);
        assert_eq!(sender.as_deref(), Some("b@xn--bcher-kva.test"));
        let sender = outside("a@sub.acme.test", all);
        assert_eq!(sender.as_deref(), Some("a@sub.acme.test"));
    }

    #[test]
    fn a_column_that_was_emptied_allows_nothing() {
        assert!(!Allowed::from_column(Some(String::new())).allows("a@x.test"));
        assert!(Allowed::from_column(None).allows("a@x.test"));
    }
}
