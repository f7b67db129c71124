//! Whether a working key may send a given email. The email API and gateways use the same function.

use std::collections::HashMap;

use super::store::LiveKey;
use crate::db::{self, Connection, Db};
use crate::domains::name::DomainName;
use crate::domains::store as domains_store;
use crate::keys::scope::{Scope, ScopedDomain};

/// What a key is about to send. Fields left out are not checked.
#[derive(Debug, Default)]
pub struct Sending<'a> {
    /// The account's domain to send from; `None`: the account has no such domain.
    pub domain: Option<&'a ScopedDomain>,
    /// The sender's address.
    pub sender: Option<&'a str>,
    /// Addresses, each with the name of its field.
    pub recipients: Vec<(&'static str, &'a str)>,
}

/// Why the key may not send it: the first of these reasons that applies.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    DomainNotFound,
    DomainNotVerified,
    /// The key's scope does not include the domain.
    DomainNotAllowed,
    /// The key's rule does not allow the sender.
    SenderNotAllowed,
    /// The key's rule does not allow these recipients: the first forbidden one of each field.
    RecipientsNotAllowed(Vec<(&'static str, &'a str)>),
}

/// Returns the id of the domain to send from.
pub fn decide<'a>(key: &LiveKey, sending: &Sending<'a>) -> Result<i64, Refusal<'a>> {
    let domain = sending.domain.ok_or(Refusal::DomainNotFound)?;
    if !domain.is_verified {
        return Err(Refusal::DomainNotVerified);
    }
    if !key.scope.allows(domain.id) {
        return Err(Refusal::DomainNotAllowed);
    }
    let is_allowed = |sender| key.rule.senders.allows(sender);
    if !sending.sender.is_none_or(is_allowed) {
        return Err(Refusal::SenderNotAllowed);
    }
    let mut wrong: Vec<(&'static str, &'a str)> = Vec::new();
    for &(field, recipient) in &sending.recipients {
        let is_told = wrong.last().is_some_and(|(told, _)| *told == field);
        if !is_told && !key.rule.recipients.allows(recipient) {
            wrong.push((field, recipient));
        }
    }
    match wrong.is_empty() {
        true => Ok(domain.id),
        false => Err(Refusal::RecipientsNotAllowed(wrong)),
    }
}

/// The account's domains with these names. Those already in the verdict are not looked up again.
pub async fn find_domains(
    db: &Db,
    key: &LiveKey,
    names: Vec<DomainName>,
) -> Result<HashMap<DomainName, ScopedDomain>, db::Error> {
    let mut found = HashMap::new();
    let mut unknown = Vec::new();
    for name in names {
        match of_scope(&key.scope, &name) {
            Some(domain) => drop(found.insert(name, domain.clone())),
            None => unknown.push(name),
        }
    }
    if unknown.is_empty() {
        return Ok(found);
    }
    let account = key.account;
    let find = move |conn: &mut Connection| {
        let mut found = Vec::new();
        for name in unknown {
            if let Some(domain) = domains_store::find_by_name(conn, account, &name)? {
                let domain = ScopedDomain {
                    id: domain.id,
                    is_verified: domain.status.is_verified(),
                    name: domain.name,
                };
                found.push((name, domain));
            }
        }
        Ok::<_, db::Error>(found)
    };
    found.extend(db.read(find).await?);
    Ok(found)
}

fn of_scope<'a>(scope: &'a Scope, name: &DomainName) -> Option<&'a ScopedDomain> {
    match scope {
        Scope::AllDomains => None,
        Scope::Domains(domains) => domains.iter().find(|domain| domain.name == name.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::store::AccountId;
    use crate::keys::rule::{Allowed, Rule};
    use crate::keys::secret::PlainKey;

    fn domain(id: i64, is_verified: bool) -> ScopedDomain {
        ScopedDomain {
            id,
            name: format!("d{id}.test"),
            is_verified,
        }
    }

    fn key(scope: Scope, rule: Rule) -> LiveKey {
        LiveKey {
            id: 1,
            account: AccountId(1),
            name: "Key".into(),
            truncated: PlainKey::generate().truncated(),
            scope,
            rule,
        }
    }

    #[test]
    fn the_domain_comes_first_then_the_sender_then_recipients() {
        let scope = Scope::Domains(vec![domain(1, true), domain(2, false)]);
        let rule = Rule {
            senders: Allowed::parse_senders("a@d1.test").unwrap(),
            recipients: Allowed::parse_recipients("x.test").unwrap(),
            ..Rule::default()
        };
        let key = key(scope, rule);
        let [first, second, other] = [domain(1, true), domain(2, false), domain(3, true)];
        let ask = |domain, sender, recipients: &[(&'static str, &'static str)]| {
            decide(
                &key,
                &Sending {
                    domain,
                    sender: Some(sender),
                    recipients: recipients.to_vec(),
                },
            )
        };
        let wrong = [
            ("to", "b@x.test"),
            ("to", "c@y.test"),
            ("to", "d@y.test"),
            ("cc", "e@y.test"),
        ];
        assert_eq!(ask(None, "b@d1.test", &wrong), Err(Refusal::DomainNotFound));
        assert_eq!(
            ask(Some(&second), "b@d1.test", &wrong),
            Err(Refusal::DomainNotVerified)
        );
        assert_eq!(
            ask(Some(&other), "b@d1.test", &wrong),
            Err(Refusal::DomainNotAllowed)
        );
        assert_eq!(
            ask(Some(&first), "b@d1.test", &wrong),
            Err(Refusal::SenderNotAllowed)
        );
        assert_eq!(
            ask(Some(&first), "a@d1.test", &wrong),
            Err(Refusal::RecipientsNotAllowed(vec![
                ("to", "c@y.test"),
                ("cc", "e@y.test")
            ]))
        );
        assert_eq!(ask(Some(&first), "a@d1.test", &wrong[..1]), Ok(1));
    }

    #[test]
    fn what_is_not_asked_about_is_not_refused() {
        let rule = Rule {
            senders: Allowed::parse_senders("a@d1.test").unwrap(),
            recipients: Allowed::parse_recipients("x.test").unwrap(),
            ..Rule::default()
        };
        let domain = domain(1, true);
        let sending = Sending {
            domain: Some(&domain),
            ..Sending::default()
        };
        assert_eq!(decide(&key(Scope::AllDomains, rule), &sending), Ok(1));
    }
}
