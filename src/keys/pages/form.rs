//! The fields that the forms for creating and editing a key share.

use std::net::IpAddr;

use super::super::expiry::{DAYS, Expiry, InvalidExpiry};
use super::super::name::{Description, KeyName};
use super::super::rule::{NETWORKS, PARTS, Rule, RulePart, SENDERS};
use super::super::scope::{NewScope, Scope};
use super::super::store::{Edit, Key, LastUse};
use crate::clock;
use crate::domains::store::Domain;
use crate::http::choice::Choice;

pub const CHOOSE_DOMAINS: &str = "Choose “All domains”, or at least one of your domains.";
const CHOOSE_ONE_WAY: &str =
    "You chose “All domains” and selected domains too. Choose one or the other.";
const ON_A_DAY: &str = "At the end of a day (UTC):";
const CHOOSE_ONE_EXPIRY: &str = "Choose “At the end of a day”, or clear the date.";

/// The fields as they were sent, and the error of each.
#[derive(Debug, Default)]
pub struct KeyForm {
    pub name: String,
    pub description: String,
    /// A missing field must not widen a key, so any value other than `all` or `domains` is an
    /// error.
    pub scope: String,
    pub domain_ids: Vec<i64>,
    /// `keep` (when editing), `none`, a number of days, or `date`.
    pub expiry: String,
    pub expires_on: String,
    pub rule: Vec<RuleField>,
    pub errors: Errors,
}

/// The field for a part of the rule, and its error.
#[derive(Debug)]
pub struct RuleField {
    pub part: &'static RulePart,
    pub text: String,
    /// What helps to fill it in, besides the hint.
    pub note: Option<String>,
    pub error: Option<String>,
}

impl RuleField {
    fn all(text: impl Fn(&RulePart) -> String) -> Vec<Self> {
        let field = |part| Self {
            part,
            text: text(part),
            note: None,
            error: None,
        };
        PARTS.map(field).into()
    }

    /// The id of its element.
    pub fn id(&self) -> String {
        format!("key-{}", self.part.name)
    }
}

#[derive(Debug, Default)]
pub struct Errors {
    pub name: Option<String>,
    pub description: Option<String>,
    pub scope: Option<String>,
    pub expiry: Option<String>,
    /// An error that belongs to no single field.
    pub form: Option<String>,
}

/// The fields of a form as pairs of name and value: several may have the same name.
pub type Pairs = Vec<(String, String)>;

/// The value of a field; the last one if the field is repeated.
pub fn value<'a>(pairs: &'a Pairs, name: &str) -> &'a str {
    let mut values = pairs.iter().rev();
    values.find(|(n, _)| n == name).map_or("", |(_, v)| v)
}

impl KeyForm {
    /// An empty form: all domains, no expiry.
    pub fn new() -> Self {
        Self {
            scope: "all".to_owned(),
            expiry: "none".to_owned(),
            rule: RuleField::all(|_| String::new()),
            ..Self::default()
        }
    }

    /// The form filled with a key's current properties.
    pub fn of(key: &Key) -> Self {
        let lines = |part: &RulePart| {
            part.of(&key.rule)
                .as_column()
                .unwrap_or_default()
                .to_owned()
        };
        let (scope, domain_ids) = match &key.scope {
            Scope::AllDomains => ("all", Vec::new()),
            Scope::Domains(domains) => ("domains", domains.iter().map(|d| d.id).collect()),
        };
        Self {
            name: key.name.clone(),
            description: key.description.clone(),
            scope: scope.to_owned(),
            domain_ids,
            expiry: "keep".to_owned(),
            expires_on: String::new(),
            rule: RuleField::all(lines),
            errors: Errors::default(),
        }
    }

    /// Tells from which addresses the form and, lately, the key were used.
    pub fn with_addresses(mut self, own: IpAddr, last_use: Option<&LastUse>) -> Self {
        let key = last_use.map(|last| format!(" The key was last used from {}.", last.address));
        let note = format!("You are at {own} now.{}", key.unwrap_or_default());
        self.field_mut(&NETWORKS).note = Some(note);
        self
    }

    pub fn read(pairs: &Pairs) -> Self {
        let text = |name| value(pairs, name).to_owned();
        let mut domain_ids: Vec<i64> = Vec::new();
        for (_, id) in pairs.iter().filter(|(name, _)| name == "domain") {
            // A value that is not an id is not a domain of the account either.
            let id = id.parse().unwrap_or(0);
            if !domain_ids.contains(&id) {
                domain_ids.push(id);
            }
        }
        Self {
            name: text("name"),
            description: text("description"),
            scope: text("scope"),
            domain_ids,
            expiry: text("expiry"),
            expires_on: text("expires_on"),
            rule: RuleField::all(|part| text(part.name)),
            errors: Errors::default(),
        }
    }

    /// The parsed fields; `None` if there are errors, which are noted beside the fields.
    pub fn parse(&mut self, domains: &[Domain]) -> Option<Edit> {
        let name = KeyName::parse(&self.name).map_err(|e| e.to_string());
        let description = Description::parse(&self.description).map_err(|e| e.to_string());
        let scope = self.parse_scope(domains);
        let expiry = parse_expiry(&self.expiry, &self.expires_on);
        let rule = self.parse_rule();
        let errors = &mut self.errors;
        let name = note(name, &mut errors.name);
        let description = note(description, &mut errors.description);
        let scope = note(scope, &mut errors.scope);
        let expiry = note(expiry, &mut errors.expiry);
        let (scope, rule) = (scope?, rule?);
        if let Some(sender) = rule.sender_outside(&scope, domains) {
            let error = format!("{sender} is not at a domain that this key may send from.");
            self.field_mut(&SENDERS).error = Some(error);
            return None;
        }
        Some(Edit {
            name: name?,
            description: description?,
            scope,
            expiry: expiry?,
            rule,
        })
    }

    fn parse_scope(&self, domains: &[Domain]) -> Result<NewScope, String> {
        let is_known = |id: &i64| domains.iter().any(|domain| domain.id == *id);
        match (self.scope.as_str(), self.domain_ids.as_slice()) {
            ("all", []) => Ok(NewScope::AllDomains),
            ("all", _) => Err(CHOOSE_ONE_WAY.to_owned()),
            ("domains", ids) if !ids.is_empty() && ids.iter().all(is_known) => {
                Ok(NewScope::Domains(ids.to_vec()))
            }
            _ => Err(CHOOSE_DOMAINS.to_owned()),
        }
    }

    /// `None` if there are errors, which are noted beside the fields.
    fn parse_rule(&mut self) -> Option<Rule> {
        let mut rule = Some(Rule::default());
        for field in &mut self.rule {
            match (field.part.parse(&field.text), &mut rule) {
                (Ok(allowed), Some(rule)) => field.part.set(rule, allowed),
                (Ok(_), None) => {}
                (Err(why), _) => {
                    field.error = Some(why.to_string());
                    rule = None;
                }
            }
        }
        rule
    }

    fn field_mut(&mut self, part: &RulePart) -> &mut RuleField {
        let mut fields = self.rule.iter_mut();
        let field = fields.find(|field| field.part.name == part.name);
        field.expect("every form has a field for each part")
    }

    /// Whether a field has the focus at first: the first one with an error, else the name.
    pub fn starts_at(&self, field: &str) -> bool {
        let errors = &self.errors;
        let in_order = [
            ("form", &errors.form),
            ("name", &errors.name),
            ("scope", &errors.scope),
            ("expiry", &errors.expiry),
            ("description", &errors.description),
        ];
        let of_rule = self
            .rule
            .iter()
            .map(|field| (field.part.name, &field.error));
        let mut in_order = in_order.into_iter().chain(of_rule);
        let wrong = in_order.find(|(_, error)| error.is_some());
        let first = wrong.map_or("name", |(field, _)| field);
        match (first, self.expiry.as_str()) {
            ("expiry", "date") => field == "date",
            (first, _) => field == first,
        }
    }

    pub fn has_domain(&self, id: &i64) -> bool {
        self.domain_ids.contains(id)
    }

    /// `expires`: the current expiry, if the key exists already.
    pub fn expiry_field(&self, expires: Option<&str>) -> ExpiryField<'_> {
        let keep = expires.map(|expires| format!("As it is: {expires}"));
        ExpiryField {
            label: "Expires",
            date_label: "The last day on which the key works",
            choices: expiry_choices(&self.expiry, keep),
            date: &self.expires_on,
            is_date: self.expiry == "date",
            error: self.errors.expiry.as_deref(),
        }
    }

    /// The heading of the part of the form that is collapsed at first.
    pub fn more(&self) -> String {
        let names = PARTS.map(|part| part.name).join(", ");
        // "a, b and c"
        let names = match names.rsplit_once(", ") {
            Some((names, last)) => format!("{names} and {last}"),
            None => names,
        };
        format!("Description, allowed {names}")
    }

    /// Whether a field in the collapsed part of the form has a value or an error.
    pub fn is_unfolded(&self) -> bool {
        let mut rule = self.rule.iter();
        !self.description.is_empty()
            || self.errors.description.is_some()
            || rule.any(|field| !field.text.is_empty() || field.error.is_some())
    }
}

/// The expiry field: a choice, and a day for one of the choices.
pub struct ExpiryField<'a> {
    pub label: &'static str,
    pub date_label: &'static str,
    pub choices: Vec<Choice>,
    pub date: &'a str,
    /// Whether the choice is a day.
    pub is_date: bool,
    pub error: Option<&'a str>,
}

impl ExpiryField<'_> {
    /// The error, if it concerns the choice.
    pub fn choice_error(&self) -> Option<&str> {
        self.error.filter(|_| !self.is_date)
    }

    /// The error, if it concerns the day.
    pub fn date_error(&self) -> Option<&str> {
        self.error.filter(|_| self.is_date)
    }
}

/// `keep`: the text of the choice that keeps the current expiry.
pub fn expiry_choices(chosen: &str, keep: Option<String>) -> Vec<Choice> {
    let days = DAYS.map(|days| (days.to_string(), format!("In {days} days")));
    keep.map(|label| ("keep".to_owned(), label))
        .into_iter()
        .chain([("none".to_owned(), "Never".to_owned())])
        .chain(days)
        .chain([("date".to_owned(), ON_A_DAY.to_owned())])
        .map(|(value, label)| {
            let is_chosen = value == chosen;
            Choice::new(value, label, is_chosen)
        })
        .collect()
}

/// The expiry of a key, for people.
pub fn expires(key: &Key) -> String {
    match &key.expires_at {
        Some(at) => clock::day(at),
        None => "never".to_owned(),
    }
}

/// `None`: unchanged.
pub fn parse_expiry(choice: &str, date: &str) -> Result<Option<Expiry>, String> {
    if choice != "date" && !date.is_empty() {
        return Err(CHOOSE_ONE_EXPIRY.to_owned());
    }
    if choice == "keep" {
        return Ok(None);
    }
    let expiry: Result<Expiry, InvalidExpiry> = Expiry::parse(choice, date);
    expiry.map(Some).map_err(|why| why.to_string())
}

/// Stores an error beside the field it belongs to.
fn note<T>(parsed: Result<T, String>, error: &mut Option<String>) -> Option<T> {
    parsed.map_err(|why| *error = Some(why)).ok()
}
