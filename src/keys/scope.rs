//! The domains a key may use. Always an explicit value: an absent one never means "everything".

use std::fmt;

use serde::{Serialize, Serializer};

/// The domains a key may send from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    AllDomains,
    /// Only these; if none is left, the key cannot send at all.
    Domains(Vec<ScopedDomain>),
}

/// A domain in a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopedDomain {
    pub id: i64,
    pub name: String,
    pub is_verified: bool,
}

impl ScopedDomain {
    /// For a key that has ended: its domain may be deleted, and grants nothing.
    pub fn former(name: &str) -> Self {
        Self {
            id: 0,
            name: name.to_owned(),
            is_verified: false,
        }
    }
}

/// The scope requested for a new key, by ids of domains that the account must own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewScope {
    AllDomains,
    Domains(Vec<i64>),
}

impl Scope {
    /// Combines the results of a joined query: the flag in the key's row and the rows of its
    /// domains.
    pub fn from_rows(all_domains: bool, domains: Vec<ScopedDomain>) -> Self {
        if all_domains {
            Self::AllDomains
        } else {
            Self::Domains(domains)
        }
    }

    /// The same scope as a new choice.
    pub fn as_new(&self) -> NewScope {
        match self {
            Self::AllDomains => NewScope::AllDomains,
            Self::Domains(domains) => NewScope::Domains(domains.iter().map(|d| d.id).collect()),
        }
    }

    pub fn allows(&self, domain_id: i64) -> bool {
        match self {
            Self::AllDomains => true,
            Self::Domains(domains) => domains.iter().any(|d| d.id == domain_id),
        }
    }
}

/// How many domains are named where space is short; the name of one more takes no more space than
/// "1 more".
const FEW: usize = 2;

impl Scope {
    pub fn is_all(&self) -> bool {
        *self == Self::AllDomains
    }

    /// The domains it names; empty if it is all domains.
    pub fn domains(&self) -> &[ScopedDomain] {
        match self {
            Self::AllDomains => &[],
            Self::Domains(domains) => domains,
        }
    }

    /// The domains that a list names, and how many more there are.
    pub fn shown(&self) -> (&[ScopedDomain], usize) {
        match self {
            Self::AllDomains => (&[], 0),
            Self::Domains(domains) if domains.len() <= FEW + 1 => (domains, 0),
            Self::Domains(domains) => (&domains[..FEW], domains.len() - FEW),
        }
    }

    /// The short text for people: `a.test, b.test and 18 more`.
    pub fn in_short(&self) -> String {
        match self.shown() {
            (_, 0) => self.to_string(),
            (few, more) => {
                let names: Vec<&str> = few.iter().map(|domain| domain.name.as_str()).collect();
                format!("{} and {more} more", names.join(", "))
            }
        }
    }
}

/// `"all"`, or a list of the domains' names.
impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AllDomains => serializer.serialize_str("all"),
            Self::Domains(domains) => serializer.collect_seq(domains.iter().map(|d| &d.name)),
        }
    }
}

/// The text for people.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllDomains => f.write_str("All domains"),
            Self::Domains(domains) => {
                let names: Vec<&str> = domains.iter().map(|d| d.name.as_str()).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(id: i64) -> ScopedDomain {
        ScopedDomain {
            id,
            name: format!("d{id}.test"),
            is_verified: true,
        }
    }

    #[test]
    fn a_restricted_key_opens_its_domains_only() {
        let scope = Scope::from_rows(false, vec![domain(1), domain(2)]);
        assert!(scope.allows(1) && scope.allows(2));
        assert!(!scope.allows(3));
        assert_eq!(scope.to_string(), "d1.test, d2.test");
    }

    #[test]
    fn of_many_domains_two_are_named() {
        let scope = |number| Scope::from_rows(false, (1..=number).map(domain).collect());
        assert_eq!(scope(3).in_short(), "d1.test, d2.test, d3.test");
        assert_eq!(scope(20).in_short(), "d1.test, d2.test and 18 more");
        assert_eq!(Scope::AllDomains.in_short(), "All domains");
    }

    #[test]
    fn a_restricted_key_without_domains_opens_nothing() {
        assert!(!Scope::from_rows(false, vec![]).allows(1));
    }

    #[test]
    fn all_domains_is_said_not_implied() {
        assert!(Scope::from_rows(true, vec![]).allows(7));
    }
}
