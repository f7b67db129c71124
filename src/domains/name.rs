//! A domain name, in the single form in which it is stored and compared.

use std::fmt;
use std::net::IpAddr;

/// A lower-case A-label name (RFC 5890) without a trailing dot, with at least two labels, below a
/// public suffix. Names are equal only when they match exactly: a subdomain is another domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DomainName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDomain {
    #[error("Enter a domain, for example acme.com.")]
    Empty,
    #[error("Enter only the domain, for example acme.com, without http://, path or @.")]
    NotAlone,
    #[error("Enter a domain name instead of an IP address.")]
    IpAddress,
    #[error("Enter the full domain with its ending, for example acme.com.")]
    SingleLabel,
    #[error("Anyone can register names under this ending; enter your own domain below it.")]
    PublicSuffix,
    #[error("This is not a valid domain name.")]
    Malformed,
}

impl DomainName {
    pub fn parse(text: &str) -> Result<Self, InvalidDomain> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidDomain::Empty);
        }
        if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Err(InvalidDomain::IpAddress);
        }
        if text.contains(['/', ':', '@', '?', ',', ' ']) {
            return Err(InvalidDomain::NotAlone);
        }
        let name = Self::normalize(text).ok_or(InvalidDomain::Malformed)?;
        let labels: Vec<&str> = name.split('.').collect();
        let ending = labels[labels.len() - 1];
        if labels.len() < 2 {
            return Err(InvalidDomain::SingleLabel);
        }
        // An all-digit ending cannot be distinguished from an IP address (WHATWG URL, "ends in a
        // number").
        if ending.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidDomain::IpAddress);
        }
        if psl::suffix_str(&name) == Some(name.as_str()) {
            return Err(InvalidDomain::PublicSuffix);
        }
        Ok(Self(name))
    }

    /// Parses what a person typed or pasted: a name, or the URL of a page there, whose scheme, port
    /// and path are ignored.
    pub fn typed(text: &str) -> Result<Self, InvalidDomain> {
        let text = text.trim();
        Self::parse(host_of_page(text).unwrap_or(text))
    }

    /// A name that was parsed before it was stored.
    pub fn known(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The domain of an email address, in stored form, for a lookup. `None` if no stored name can
    /// equal it.
    pub fn of_address(domain: &str) -> Option<Self> {
        Self::normalize(domain).map(Self)
    }

    fn normalize(text: &str) -> Option<String> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let ascii = idna::domain_to_ascii_strict(text).ok()?;
        (!ascii.is_empty()).then_some(ascii)
    }
}

/// The host of a URL, unless the URL also has a user: then the meaning is unclear.
fn host_of_page(text: &str) -> Option<&str> {
    let rest = match text.split_once("://") {
        Some((scheme, rest))
            if ["http", "https"]
                .iter()
                .any(|web| scheme.eq_ignore_ascii_case(web)) =>
        {
            rest
        }
        Some(_) => return None,
        None => return text.strip_suffix('/'),
    };
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => Some(host),
        _ => Some(authority),
    }
}

impl AsRef<str> for DomainName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_stored_as_lower_case_a_label() {
        for (given, stored) in [
            ("Acme.COM", "acme.com"),
            (" acme.com. ", "acme.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("mail.acme.co.uk", "mail.acme.co.uk"),
            ("acme.test", "acme.test"),
            ("nas.lan", "nas.lan"),
        ] {
            assert_eq!(
                DomainName::parse(given).unwrap().as_ref(),
                stored,
                "{given}"
            );
        }
    }

    #[test]
    fn what_is_no_domain_of_ones_own_is_refused() {
        use InvalidDomain::*;
        for (given, why) in [
            ("", Empty),
            ("  ", Empty),
            ("https://acme.com", NotAlone),
            ("me@acme.com", NotAlone),
            ("acme.com/x", NotAlone),
            ("acme.com:25", NotAlone),
            ("192.0.2.1", IpAddress),
            ("2001:db8::1", IpAddress),
            ("[2001:db8::1]", IpAddress),
            ("192.0.2.256", IpAddress),
            ("localhost", SingleLabel),
            ("com", SingleLabel),
            ("co.uk", PublicSuffix),
            ("github.io", PublicSuffix),
            ("-acme.com", Malformed),
            ("ac_me.com", Malformed),
            ("acme..com", Malformed),
            ("a\0b.com", Malformed),
            ("\u{202E}acme.com", Malformed),
        ] {
            assert_eq!(DomainName::parse(given), Err(why), "{given:?}");
        }
        assert!(DomainName::parse(&format!("{}.com", "a".repeat(64))).is_err());
        assert!(DomainName::parse(&"a.".repeat(200)).is_err());
    }

    #[test]
    fn a_pasted_web_address_means_its_host() {
        for given in [
            "https://Acme.com/",
            "http://acme.com",
            " HTTPS://acme.com./a/b?c=d#e ",
            "https://acme.com:8443/mail",
            "https://acme.com:",
            "https://acme.com?x",
            "https://acme.com#x@y",
            "https://acme.com\\x",
            "acme.com/",
            "acme.com",
        ] {
            assert_eq!(
                DomainName::typed(given).unwrap().as_ref(),
                "acme.com",
                "{given}"
            );
        }
        use InvalidDomain::*;
        for (given, why) in [
            ("https://", Empty),
            ("/", Empty),
            ("https:///acme.com", Empty),
            ("https://ada@acme.com/", NotAlone),
            ("https://ada:secret@acme.com", NotAlone),
            ("https://acme.com:25x/", NotAlone),
            ("ftp://acme.com", NotAlone),
            ("mailto:ada@acme.com", NotAlone),
            ("ada@acme.com", NotAlone),
            ("acme.com/mail", NotAlone),
            ("acme.com:25", NotAlone),
            ("https://192.0.2.1/", IpAddress),
            ("https://[2001:db8::1]/", IpAddress),
            ("https://[2001:db8::1]:443/", IpAddress),
            ("http://localhost:8080/", SingleLabel),
            ("https://github.io", PublicSuffix),
        ] {
            assert_eq!(DomainName::typed(given), Err(why), "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "\\PC{0,80}") {
            if let Ok(name) = DomainName::parse(&text) {
                prop_assert_eq!(DomainName::parse(name.as_ref()), Ok(name));
            }
            if let Ok(name) = DomainName::typed(&text) {
                prop_assert_eq!(DomainName::typed(name.as_ref()), Ok(name));
            }
        }
    }
}
