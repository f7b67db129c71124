//! The TXT records of a domain: which ones should exist, and whether DNS has them.

/// What the last DNS answer said about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// DNS was not queried yet, or gave no answer.
    Unknown,
    Found,
    Missing,
    Different,
}

/// The DNS records of a domain; `None`: no answer to that query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    pub dkim: Option<RecordState>,
    pub spf: Option<RecordState>,
    pub dmarc: Option<RecordState>,
    /// The other records at the name of the key's record, as a page shows them.
    pub dkim_seen: Option<String>,
}

impl RecordState {
    /// The spelling in the column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Found => "found",
            Self::Missing => "missing",
            Self::Different => "different",
        }
    }

    /// The wording on pages.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "Not checked yet",
            Self::Found => "Found",
            Self::Missing => "Missing",
            Self::Different => "Different",
        }
    }

    /// The style of the badge on a page.
    pub fn badge(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Found => "verified",
            Self::Missing => "pending",
            Self::Different => "failed",
        }
    }

    pub fn from_column(text: &str) -> Self {
        match text {
            "found" => Self::Found,
            "missing" => Self::Missing,
            "different" => Self::Different,
            _ => Self::Unknown,
        }
    }

    pub fn is_found(self) -> bool {
        self == Self::Found
    }
}

impl From<String> for RecordState {
    fn from(column: String) -> Self {
        Self::from_column(&column)
    }
}

/// The key's record at `tosend._domainkey.<domain>`. One match among several records is enough to
/// prove control of the domain.
pub fn dkim(texts: &[String], public: &str) -> RecordState {
    match texts {
        [] => RecordState::Missing,
        _ if texts.iter().any(|text| has_key(text, public)) => RecordState::Found,
        _ => RecordState::Different,
    }
}

/// The other records at the name of the key's record; receivers may use any of them.
pub fn other_than_dkim<'a>(texts: &'a [String], public: &str) -> Vec<&'a str> {
    let ours = texts.iter().position(|text| has_key(text, public));
    let others = texts.iter().enumerate();
    let others = others.filter(|(at, _)| Some(*at) != ours);
    others.map(|(_, text)| text.as_str()).collect()
}

/// Whether our signatures can be verified with this record (RFC 6376, 3.6.1).
fn has_key(text: &str, public: &str) -> bool {
    let is_version = |value: &str| value == "DKIM1";
    // The defaults of tags that are missing.
    let (mut key, mut is_rsa, mut is_for_email, mut is_for_sha256) =
        (String::new(), true, true, true);
    for (index, tag) in text.split(';').enumerate() {
        let Some((name, value)) = tag.split_once('=') else {
            if tag.trim().is_empty() {
                continue;
            }
            return false;
        };
        let value = value.trim();
        let mut list = value.split(':').map(str::trim);
        match name.trim() {
            "v" if index > 0 || !is_version(value) => return false,
            "k" => is_rsa = value == "rsa",
            "s" => is_for_email = list.any(|service| matches!(service, "*" | "email")),
            "h" => is_for_sha256 = list.any(|hash| hash == "sha256"),
            "p" => key = value.split_ascii_whitespace().collect(),
            _ => {}
        }
    }
    is_rsa && is_for_email && is_for_sha256 && key == public
}

/// The record at the domain itself that lists the servers that may send for it: exactly one (RFC
/// 7208, 4.5).
pub fn spf(texts: &[String]) -> RecordState {
    let is_spf = |text: &&String| {
        let version = text.split(' ').next().unwrap_or_default();
        version.eq_ignore_ascii_case("v=spf1")
    };
    match texts.iter().filter(is_spf).count() {
        0 => RecordState::Missing,
        1 => RecordState::Found,
        _ => RecordState::Different,
    }
}

/// The record at `_dmarc.<domain>` that tells receivers what to do with unauthenticated emails:
/// exactly one (RFC 7489, 6.6.3).
pub fn dmarc(texts: &[String]) -> RecordState {
    let is_dmarc = |text: &&String| {
        let version = text.split(';').next().unwrap_or_default().split_once('=');
        version.is_some_and(|(name, value)| name.trim() == "v" && value.trim() == "DMARC1")
    };
    match (texts.iter().filter(is_dmarc).count(), texts.len()) {
        (1, _) => RecordState::Found,
        (0, 0) => RecordState::Missing,
        _ => RecordState::Different,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_record_of_a_key_is_known_by_the_key() {
        for (given, state) in [
            (&[][..], RecordState::Missing),
            (&["v=DKIM1; k=rsa; p=QUJD"], RecordState::Found),
            (&["v=DKIM1;k=rsa;p=QUJD;"], RecordState::Found),
            (&["p=QUJD"], RecordState::Found),
            (
                &[" v = DKIM1 ; p = QU JD ; t=y; n=a note"],
                RecordState::Found,
            ),
            (
                &["v=DKIM1; h=sha1:sha256; s=email; p=QUJD"],
                RecordState::Found,
            ),
            (&["unrelated", "v=DKIM1; p=QUJD"], RecordState::Found),
            (&["v=DKIM1; p=eHl6", "v=DKIM1; p=QUJD"], RecordState::Found),
            (&["v=DKIM1; p=eHl6"], RecordState::Different),
            (&["v=DKIM1; p="], RecordState::Different),
            (&["v=DKIM1; p=qujd"], RecordState::Different),
            (&["v=DKIM1; p=QUJD; p=eHl6"], RecordState::Different),
            (&["v=DKIM2; p=QUJD"], RecordState::Different),
            (&["p=QUJD; v=DKIM1"], RecordState::Different),
            (&["v=DKIM1; k=ed25519; p=QUJD"], RecordState::Different),
            (&["v=DKIM1; h=sha1; p=QUJD"], RecordState::Different),
            (&["v=DKIM1; s=tlsrpt; p=QUJD"], RecordState::Different),
            (&["\"v=DKIM1; p=QUJD\""], RecordState::Different),
            (&["QUJD"], RecordState::Different),
            (&[""], RecordState::Different),
        ] {
            assert_eq!(dkim(&texts(given), "QUJD"), state, "{given:?}");
        }
    }

    #[test]
    fn all_but_one_record_of_a_key_are_others() {
        for (given, others) in [
            (&[][..], &[][..]),
            (&["v=DKIM1; p=QUJD"], &[]),
            (&["p=eHl6", "p=QUJD"], &["p=eHl6"]),
            (
                &["p=QUJD", "x", "v=DKIM1; p=QUJD"],
                &["x", "v=DKIM1; p=QUJD"],
            ),
            (&["x", "y"], &["x", "y"]),
        ] {
            assert_eq!(other_than_dkim(&texts(given), "QUJD"), others, "{given:?}");
        }
    }

    #[test]
    fn a_domain_has_one_spf_record() {
        for (given, state) in [
            (&[][..], RecordState::Missing),
            (&["google-site-verification=x"], RecordState::Missing),
            (&["v=spf10 -all"], RecordState::Missing),
            (&["v=spf1"], RecordState::Found),
            (&["x", "V=SPF1 mx ~all", ""], RecordState::Found),
            (&["v=spf1 mx ~all", "v=spf1 -all"], RecordState::Different),
        ] {
            assert_eq!(spf(&texts(given)), state, "{given:?}");
        }
    }

    #[test]
    fn a_domain_has_one_dmarc_record() {
        for (given, state) in [
            (&[][..], RecordState::Missing),
            (&["v=DMARC1; p=none"], RecordState::Found),
            (&["v = DMARC1;p=reject", "x"], RecordState::Found),
            (&["v=DMARC1"], RecordState::Found),
            (&["p=none"], RecordState::Different),
            (
                &["v=DMARC1; p=none", "v=DMARC1; p=reject"],
                RecordState::Different,
            ),
        ] {
            assert_eq!(dmarc(&texts(given)), state, "{given:?}");
        }
    }
}
