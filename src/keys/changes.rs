//! What an edit changes for the programs that use a key, in sentences.

use std::net::IpAddr;

use chrono::NaiveDateTime;

use super::rule::{Allowed, Rule};
use super::scope::{NewScope, Scope};
use super::store::{Edit, Key};
use crate::clock;
use crate::domains::store::Domain;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whether the key can do more than before.
    pub widens: bool,
    pub text: String,
}

impl Change {
    /// The word in front of the sentence.
    pub fn label(&self) -> &'static str {
        if self.widens { "More:" } else { "Less:" }
    }

    fn wider(text: String) -> Self {
        Self { widens: true, text }
    }

    fn narrower(text: String) -> Self {
        Self {
            widens: false,
            text,
        }
    }
}

/// Changes of scope, addresses and expiry; a name or a description makes no difference to programs.
pub fn changes(key: &Key, edit: &Edit, domains: &[Domain]) -> Vec<Change> {
    let mut changes = of_scope(&key.scope, &edit.scope, domains);
    for (part, before) in key.rule.parts() {
        changes.extend(of_addresses(part.way, before, part.of(&edit.rule)));
    }
    changes.extend(shut_out(key, &edit.rule));
    if let Some(expiry) = edit.expiry {
        changes.extend(of_expiry(key.expires_at, expiry.instant()));
    }
    changes
}

/// The latest caller, if it could use the key until now.
fn shut_out(key: &Key, after: &Rule) -> Option<Change> {
    let last = key.last_use.as_ref()?;
    let address: IpAddr = last.address.parse().ok()?;
    let loses = key.rule.networks.allows_client(address) && !after.networks.allows_client(address);
    loses.then(|| {
        Change::narrower(format!(
            "It will be refused from {address}, where it was last used on {}.",
            clock::for_people(&last.at)
        ))
    })
}

fn of_scope(before: &Scope, after: &NewScope, domains: &[Domain]) -> Vec<Change> {
    let names = |ids: &[i64]| -> Vec<&str> {
        let chosen = domains.iter().filter(|domain| ids.contains(&domain.id));
        chosen.map(|domain| domain.name.as_str()).collect()
    };
    match (before, after) {
        (Scope::AllDomains, NewScope::AllDomains) => Vec::new(),
        (Scope::AllDomains, NewScope::Domains(ids)) => vec![Change::narrower(format!(
            "It can send from {} only. Emails from any other domain will be refused.",
            names(ids).join(", ")
        ))],
        (Scope::Domains(_), NewScope::AllDomains) => vec![Change::wider(
            "It can send from every verified domain of the account, including domains added later."
                .to_owned(),
        )],
        (Scope::Domains(before), NewScope::Domains(ids)) => {
            let before: Vec<&str> = before.iter().map(|domain| domain.name.as_str()).collect();
            between(&before, &names(ids), "send from")
        }
    }
}

fn of_addresses(way: &str, before: &Allowed, after: &Allowed) -> Vec<Change> {
    let verb = format!("send {way}");
    match (before.is_any(), after.is_any()) {
        (true, true) => Vec::new(),
        (true, false) => vec![Change::narrower(format!(
            "It can {verb} {after} only. Other emails will be refused."
        ))],
        (false, true) => vec![Change::wider(format!("It can {verb} any address."))],
        (false, false) => {
            let (before, after): (Vec<&str>, Vec<&str>) =
                (before.iter().collect(), after.iter().collect());
            between(&before, &after, &verb)
        }
    }
}

/// The differences between two lists.
fn between(before: &[&str], after: &[&str], verb: &str) -> Vec<Change> {
    let only = |these: &[&str], those: &[&str]| -> Vec<String> {
        let rest = these.iter().filter(|one| !those.contains(one));
        rest.map(|one| (*one).to_owned()).collect()
    };
    let (added, removed) = (only(after, before), only(before, after));
    let mut changes = Vec::new();
    if !added.is_empty() {
        changes.push(Change::wider(format!(
            "It can also {verb} {}.",
            added.join(", ")
        )));
    }
    if !removed.is_empty() {
        changes.push(Change::narrower(format!(
            "It can no longer {verb} {}: such emails will be refused.",
            removed.join(", ")
        )));
    }
    changes
}

fn of_expiry(before: Option<NaiveDateTime>, after: Option<NaiveDateTime>) -> Option<Change> {
    match (before, after) {
        (before, after) if before == after => None,
        (_, None) => Some(Change::wider("It does not expire any more.".to_owned())),
        (before, Some(at)) => {
            let text = format!(
                "It stops working in {}, on {}.",
                clock::left(&at),
                clock::for_people(&at)
            );
            Some(match before.is_some_and(|before| before < at) {
                true => Change::wider(text),
                false => Change::narrower(text),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(before: &str, after: &str) -> Vec<(bool, String)> {
        let parse = |text| Allowed::parse_recipients(text).unwrap();
        let changes = of_addresses("to", &parse(before), &parse(after));
        changes.into_iter().map(|c| (c.widens, c.text)).collect()
    }

    #[test]
    fn what_is_alike_is_not_told() {
        assert!(told("", "").is_empty());
        assert!(told("a@x.test b.test", "b.test a@x.test").is_empty());
        assert_eq!(of_expiry(None, None), None);
    }

    #[test]
    fn narrowing_and_widening_are_told_apart() {
        assert_eq!(
            told("", "a@x.test"),
            [(
                false,
                "It can send to a@x.test only. Other emails will be refused.".to_owned()
            )]
        );
        assert_eq!(
            told("a@x.test", ""),
            [(true, "It can send to any address.".to_owned())]
        );
        assert_eq!(
            told("a@x.test b.test", "b.test c.test"),
            [
                (true, "It can also send to c.test.".to_owned()),
                (
                    false,
                    "It can no longer send to a@x.test: such emails will be refused.".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn a_later_expiry_widens_and_an_earlier_one_narrows() {
        let (soon, late) = (
            clock::now() + chrono::TimeDelta::days(1),
            clock::now() + chrono::TimeDelta::days(9),
        );
        let widens = |before, after| of_expiry(before, after).map(|change| change.widens);
        assert_eq!(widens(None, Some(late)), Some(false));
        assert_eq!(widens(Some(soon), Some(late)), Some(true));
        assert_eq!(widens(Some(late), Some(soon)), Some(false));
        assert_eq!(widens(Some(late), None), Some(true));
    }
}
