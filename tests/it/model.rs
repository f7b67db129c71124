//! Whether a key works follows from what was done to it, and from nothing else: random lives of an
//! account's keys, led through two nodes of one database, against a model that is a page long.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use tosend_dashboard::accounts::event::Actor;
use tosend_dashboard::clock;
use tosend_dashboard::db::Connection;
use tosend_dashboard::domains::name::DomainName;
use tosend_dashboard::domains::store::{self as domains_store, DomainStatus};
use tosend_dashboard::keys::expiry::Expiry;
use tosend_dashboard::keys::scope::NewScope;
use tosend_dashboard::keys::store::{self, CreateError, EditError, Found, RotateError, Rotation};

use crate::support::*;

/// Steps of a life, at most.
const STEPS: usize = 80;
const DOMAINS: usize = 3;
/// How far ahead a moment is.
const MOMENT: TimeDelta = TimeDelta::milliseconds(2);

#[derive(Debug, Clone)]
enum Step {
    Create(Scope, Lasts),
    Edit(Index, Scope, Option<Lasts>),
    Pause(Index),
    Resume(Index),
    /// How long the old key goes on, and the new one's expiry, unless it is the old one's.
    Rotate(Index, Lasts, Option<Lasts>),
    Stop(Index),
    KeepGoing(Index),
    Delete(Index),
    AddDomain(usize),
    VerifyDomain(usize),
    LoseDomain(usize),
    RemoveDomain(usize),
    PauseAccount,
    ResumeAccount,
    AnHourPasses,
    /// Which keys have ended by themselves is written down.
    WriteDown,
}

#[derive(Debug, Clone)]
enum Scope {
    All,
    Only(Vec<usize>),
}

#[derive(Debug, Clone, Copy)]
enum Lasts {
    /// Not at all, of a rotation's overlap.
    Moment,
    Hours(u8),
    Forever,
}

impl Lasts {
    fn hours(self) -> Option<u8> {
        match self {
            Self::Moment => Some(0),
            Self::Hours(hours) => Some(hours),
            Self::Forever => None,
        }
    }

    fn duration(self) -> Option<TimeDelta> {
        match self {
            Self::Moment => Some(MOMENT),
            Self::Hours(hours) => Some(TimeDelta::hours(hours.into())),
            Self::Forever => None,
        }
    }

    fn expiry(self) -> Expiry {
        Expiry::known(self.duration().map(|duration| clock::now() + duration))
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..=STEPS)
}

fn step() -> impl Strategy<Value = Step> {
    let key = any::<Index>;
    let domain = || 0..DOMAINS;
    let lasts = || {
        prop_oneof![
            1 => Just(Lasts::Moment),
            2 => (1..=3_u8).prop_map(Lasts::Hours),
            2 => Just(Lasts::Forever),
        ]
    };
    let maybe_lasts = move || prop::option::of(lasts());
    prop_oneof![
        6 => (scope(), lasts()).prop_map(|(scope, lasts)| Step::Create(scope, lasts)),
        5 => (key(), scope(), maybe_lasts()).prop_map(|(k, scope, l)| Step::Edit(k, scope, l)),
        2 => key().prop_map(Step::Pause),
        3 => key().prop_map(Step::Resume),
        6 => (key(), lasts(), maybe_lasts()).prop_map(|(k, old, new)| Step::Rotate(k, old, new)),
        1 => key().prop_map(Step::Stop),
        1 => key().prop_map(Step::KeepGoing),
        2 => key().prop_map(Step::Delete),
        2 => domain().prop_map(Step::AddDomain),
        3 => domain().prop_map(Step::VerifyDomain),
        1 => domain().prop_map(Step::LoseDomain),
        2 => domain().prop_map(Step::RemoveDomain),
        1 => Just(Step::PauseAccount),
        3 => Just(Step::ResumeAccount),
        2 => Just(Step::AnHourPasses),
        2 => Just(Step::WriteDown),
    ]
}

fn scope() -> impl Strategy<Value = Scope> {
    let all: Vec<usize> = (0..DOMAINS).collect();
    prop_oneof![
        1 => Just(Scope::All),
        2 => subsequence(all, 0..=DOMAINS).prop_map(Scope::Only),
    ]
}

/// Why a step is refused.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Ended,
    Rotated,
    AccountPaused,
    UnknownDomain,
    DomainAddedAlready,
    DomainInUse,
}

/// What the product promises, in the fewest words.
#[derive(Debug, Default)]
struct Model {
    account_is_paused: bool,
    /// Whether it is verified, if it is there.
    domains: [Option<bool>; DOMAINS],
    keys: Vec<ModelKey>,
}

#[derive(Debug, Clone)]
struct ModelKey {
    scope: Scope,
    is_paused: bool,
    has_ended: bool,
    /// Hours that are left.
    expires: Option<u8>,
    stops: Option<u8>,
    replaces: Option<usize>,
}

impl ModelKey {
    fn new(scope: Scope, expires: Option<u8>, replaces: Option<usize>) -> Self {
        Self {
            scope,
            is_paused: false,
            has_ended: false,
            expires,
            stops: None,
            replaces,
        }
    }

    fn lives(&self) -> bool {
        !self.has_ended && self.expires != Some(0) && self.stops != Some(0)
    }

    fn allows(&self, domain: usize) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Only(domains) => domains.contains(&domain),
        }
    }
}

impl Model {
    fn pick(&self, index: &Index) -> Option<usize> {
        (!self.keys.is_empty()).then(|| index.index(self.keys.len()))
    }

    fn take(&mut self, step: &Step) -> Result<(), Refused> {
        match step {
            Step::Create(scope, lasts) => {
                self.can_make_keys()?;
                self.knows(scope)?;
                let key = ModelKey::new(scope.clone(), lasts.hours(), None);
                self.keys.push(key);
            }
            Step::Rotate(index, overlap, expiry) => return self.rotate(index, *overlap, *expiry),
            Step::Edit(index, scope, expiry) => {
                if let Some(n) = self.live(index)? {
                    self.knows(scope)?;
                    self.keys[n].scope = scope.clone();
                    if let Some(lasts) = expiry {
                        self.keys[n].expires = lasts.hours();
                    }
                }
            }
            Step::Pause(index) => self.change(index, |key| key.is_paused = true)?,
            Step::Resume(index) => self.change(index, |key| key.is_paused = false)?,
            Step::KeepGoing(index) => self.change(index, |key| key.stops = None)?,
            Step::Delete(index) => self.change(index, |key| key.has_ended = true)?,
            Step::Stop(index) => {
                let is_replaced = self.pick(index).is_some_and(|n| self.is_replaced(n));
                self.change(index, |key| key.has_ended = is_replaced)?;
            }
            Step::AddDomain(n) => match self.domains[*n] {
                Some(_) => return Err(Refused::DomainAddedAlready),
                None => self.domains[*n] = Some(false),
            },
            Step::VerifyDomain(n) => self.domains[*n] = self.domains[*n].map(|_| true),
            Step::LoseDomain(n) => self.domains[*n] = self.domains[*n].map(|_| false),
            Step::RemoveDomain(n) => return self.remove_domain(*n),
            Step::PauseAccount => self.account_is_paused = true,
            Step::ResumeAccount => self.account_is_paused = false,
            Step::AnHourPasses => {
                for key in &mut self.keys {
                    for hours in [&mut key.expires, &mut key.stops].into_iter().flatten() {
                        *hours = hours.saturating_sub(1);
                    }
                }
            }
            Step::WriteDown => {}
        }
        Ok(())
    }

    fn rotate(
        &mut self,
        index: &Index,
        overlap: Lasts,
        expiry: Option<Lasts>,
    ) -> Result<(), Refused> {
        let Some(n) = self.live(index)? else {
            return Ok(());
        };
        if self.is_replaced(n) {
            return Err(Refused::Rotated);
        }
        self.can_make_keys()?;
        let old = &mut self.keys[n];
        let expires = expiry.map_or(old.expires, Lasts::hours);
        old.stops = overlap.hours();
        let new = ModelKey::new(old.scope.clone(), expires, Some(n));
        self.keys.push(new);
        Ok(())
    }

    fn is_replaced(&self, n: usize) -> bool {
        let is_successor = |key: &ModelKey| key.replaces == Some(n) && key.lives();
        self.keys.iter().any(is_successor)
    }

    fn remove_domain(&mut self, n: usize) -> Result<(), Refused> {
        let is_restricted_to_it =
            |key: &ModelKey| key.lives() && key.allows(n) && !matches!(key.scope, Scope::All);
        if self.domains[n].is_none() {
            return Err(Refused::UnknownDomain);
        }
        if self.keys.iter().any(is_restricted_to_it) {
            return Err(Refused::DomainInUse);
        }
        self.domains[n] = None;
        Ok(())
    }

    /// Nothing can be done to a key that has ended.
    fn live(&self, index: &Index) -> Result<Option<usize>, Refused> {
        match self.pick(index) {
            Some(n) if !self.keys[n].lives() => Err(Refused::Ended),
            n => Ok(n),
        }
    }

    fn change(&mut self, index: &Index, change: impl FnOnce(&mut ModelKey)) -> Result<(), Refused> {
        if let Some(n) = self.live(index)? {
            change(&mut self.keys[n]);
        }
        Ok(())
    }

    fn can_make_keys(&self) -> Result<(), Refused> {
        match self.account_is_paused {
            true => Err(Refused::AccountPaused),
            false => Ok(()),
        }
    }

    fn knows(&self, scope: &Scope) -> Result<(), Refused> {
        match scope {
            Scope::Only(domains) if domains.iter().any(|n| self.domains[*n].is_none()) => {
                Err(Refused::UnknownDomain)
            }
            _ => Ok(()),
        }
    }

    fn verdict(&self, key: usize) -> &'static str {
        let key = &self.keys[key];
        match key.lives() && !key.is_paused && !self.account_is_paused {
            true => "accepted",
            false => "invalid",
        }
    }

    /// When asked whether the key may send from a domain.
    fn verdict_for(&self, key: usize, domain: usize) -> &'static str {
        let may = self.domains[domain] == Some(true) && self.keys[key].allows(domain);
        match self.verdict(key) {
            "accepted" if !may => "domain_not_allowed",
            verdict => verdict,
        }
    }

    /// When an email is sent from a domain.
    fn verdict_on_email(&self, key: usize, domain: usize) -> &'static str {
        match (self.verdict(key), self.domains[domain]) {
            ("accepted", None) => "domain_not_found",
            ("accepted", Some(false)) => "domain_not_verified",
            ("accepted", _) if !self.keys[key].allows(domain) => "domain_not_allowed",
            (verdict, _) => verdict,
        }
    }
}

struct Node {
    owner: Visitor,
    keys: KeyStore,
    wire: Mutex<Wire>,
}

impl Node {
    fn new(app: &App, owner: Visitor) -> Self {
        Self {
            owner,
            keys: KeyStore::of(&app.database),
            wire: Mutex::new(Wire::to(&app.url(""))),
        }
    }

    /// What each of these keys is answered, asked about one after another.
    fn verdicts(&self, questions: &[Question]) -> Vec<String> {
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ask =
            |question: &Question| known(|| wire.get(&question.path, &question.key)).verdict();
        questions.iter().map(&mut ask).collect()
    }
}

struct Question {
    path: String,
    key: String,
    expected: &'static str,
}

/// A life as it really is. Each has keys and domains of its own, in one account.
struct Life<'a> {
    database: &'a Database,
    nodes: &'a [Node; 2],
    number: u32,
    keys: Vec<Made>,
    /// The ids that domains have, or had.
    domains: [i64; DOMAINS],
    /// What was counted before.
    live_before: i64,
    ends_before: i64,
}

impl<'a> Life<'a> {
    fn new(database: &'a Database, nodes: &'a [Node; 2], number: u32) -> Self {
        database.execute("UPDATE accounts SET status = 'active'");
        let keys = &nodes[0].keys;
        for id in keys.live_ids() {
            keys.change(id, store::delete);
        }
        let mut life = Self {
            database,
            nodes,
            number,
            keys: Vec::new(),
            domains: [0; DOMAINS],
            live_before: 0,
            ends_before: 0,
        };
        (life.live_before, life.ends_before) = life.counts();
        life
    }

    fn lead(&mut self, steps: &[Step]) -> TestCaseResult {
        let mut model = Model::default();
        for (turn, step) in steps.iter().enumerate() {
            let really = self.take(&self.nodes[turn % 2], step);
            let expected = model.take(step);
            prop_assert_eq!(really, expected, "step {}, {:?}", turn, step);
            self.ask(&model, turn)?;
            if let Step::WriteDown = step {
                self.count(&model)?;
            }
        }
        self.nodes[0].keys.end_due();
        self.count(&model)
    }

    fn take(&mut self, node: &Node, step: &Step) -> Result<(), Refused> {
        match step {
            Step::Create(scope, lasts) => {
                let made = node.keys.create(self.scope(scope), lasts.expiry())?;
                self.keys.push(made);
            }
            Step::Edit(index, scope, expiry) => {
                if let Some(id) = self.pick(index) {
                    let expiry = expiry.map(Lasts::expiry);
                    node.keys.edit(id, self.scope(scope), expiry)?;
                }
            }
            Step::Rotate(index, overlap, expiry) => {
                if let Some(id) = self.pick(index) {
                    let rotation = Rotation {
                        overlap: overlap.duration(),
                        stops_when_quiet: None,
                        expiry: expiry.map(Lasts::expiry),
                    };
                    self.keys.push(node.keys.rotate(id, &rotation)?);
                }
            }
            Step::Pause(index) => self.change(node, index, store::pause)?,
            Step::Resume(index) => self.change(node, index, store::resume)?,
            Step::Stop(index) => self.change(node, index, store::stop)?,
            Step::KeepGoing(index) => self.change(node, index, store::cancel_stop)?,
            Step::Delete(index) => self.change(node, index, store::delete)?,
            Step::AddDomain(n) => self.add_domain(node, *n)?,
            Step::VerifyDomain(n) => self.set_domain(node, *n, DomainStatus::Verified),
            Step::LoseDomain(n) => self.set_domain(node, *n, DomainStatus::Failed),
            Step::RemoveDomain(n) => self.remove_domain(node, *n)?,
            Step::PauseAccount => self.set_account("paused"),
            Step::ResumeAccount => self.set_account("active"),
            // What is an hour ahead is over.
            Step::AnHourPasses => self.database.age_keys(TimeDelta::seconds(3_601)),
            Step::WriteDown => {
                node.keys.end_due();
            }
        }
        Ok(())
    }

    fn pick(&self, index: &Index) -> Option<i64> {
        (!self.keys.is_empty()).then(|| self.keys[index.index(self.keys.len())].id)
    }

    fn scope(&self, scope: &Scope) -> NewScope {
        match scope {
            Scope::All => NewScope::AllDomains,
            Scope::Only(domains) => {
                NewScope::Domains(domains.iter().map(|n| self.domains[*n]).collect())
            }
        }
    }

    fn change(&self, node: &Node, index: &Index, change: Change) -> Result<(), Refused> {
        let Some(id) = self.pick(index) else {
            return Ok(());
        };
        match node.keys.change(id, change) {
            Found::Live(_) => Ok(()),
            Found::Ended(_) => Err(Refused::Ended),
            Found::Nothing => panic!("the key {id} is gone"),
        }
    }

    fn name(&self, domain: usize) -> String {
        format!("domain{domain}.life{}.test", self.number)
    }

    fn add_domain(&mut self, node: &Node, n: usize) -> Result<(), Refused> {
        let answer = node.owner.post("/domains", &[("name", &self.name(n))]);
        if answer.status == 422 {
            return Err(Refused::DomainAddedAlready);
        }
        let id = answer.location().unwrap().rsplit('/').next();
        self.domains[n] = id.unwrap().parse().unwrap();
        Ok(())
    }

    fn set_domain(&self, node: &Node, n: usize, status: DomainStatus) {
        let name = DomainName::parse(&self.name(n)).unwrap();
        let keys = &node.keys;
        let account = &keys.account;
        let operator = Actor::operator();
        let set = |conn: &mut Connection| {
            domains_store::set_status(conn, *account, &name, status, &operator)
        };
        keys.write(set).unwrap();
    }

    fn remove_domain(&self, node: &Node, n: usize) -> Result<(), Refused> {
        // A key that has ended by itself holds its domains until that is written down.
        node.keys.end_due();
        let path = format!("/domains/{}/delete", self.domains[n]);
        match node.owner.post(&path, &[]).status {
            303 => Ok(()),
            404 => Err(Refused::UnknownDomain),
            422 => Err(Refused::DomainInUse),
            status => panic!("{path}: {status}"),
        }
    }

    fn set_account(&self, status: &str) {
        let sql = format!("UPDATE accounts SET status = '{status}'");
        self.database.execute(&sql);
    }

    /// Asks both nodes about every key there ever was, alone and with every domain.
    fn ask(&self, model: &Model, turn: usize) -> TestCaseResult {
        // Whatever was to last a moment is over then.
        let end = clock::now() + MOMENT;
        while clock::now() <= end {
            thread::sleep(Duration::from_millis(1));
        }
        let questions = self.questions(model);
        let asked = &questions;
        let verdicts = thread::scope(|scope| {
            let ask = |node: &'a Node| scope.spawn(move || node.verdicts(asked));
            self.nodes
                .each_ref()
                .map(ask)
                .map(|node| node.join().unwrap())
        });
        for (node, verdicts) in verdicts.into_iter().enumerate() {
            for (question, verdict) in questions.iter().zip(verdicts) {
                let Question { path, key, .. } = question;
                let number = self.keys.iter().position(|made| made.key == *key);
                prop_assert_eq!(
                    verdict,
                    question.expected,
                    "step {}, node {}, key {:?}, {}",
                    turn,
                    node,
                    number,
                    path
                );
            }
        }
        self.send(model, turn)
    }

    fn questions(&self, model: &Model) -> Vec<Question> {
        let of_key = |(n, made): (usize, &Made)| {
            let question = |path, expected| Question {
                path,
                key: made.key.clone(),
                expected,
            };
            let alone = question("/v2/verify".to_owned(), model.verdict(n));
            let with_domain = |domain| {
                let path = format!("/v2/verify?domain={}", self.name(domain));
                question(path, model.verdict_for(n, domain))
            };
            let mut questions: Vec<Question> = (0..DOMAINS).map(with_domain).collect();
            questions.push(alone);
            questions
        };
        self.keys.iter().enumerate().flat_map(of_key).collect()
    }

    /// Sends an email from every domain with one of the keys.
    fn send(&self, model: &Model, turn: usize) -> TestCaseResult {
        let Some(key) = turn.checked_rem(self.keys.len()) else {
            return Ok(());
        };
        let mut wire = self.nodes[turn % 2].wire.lock().unwrap();
        for domain in 0..DOMAINS {
            let email = email(&format!("ada@{}", self.name(domain)));
            let verdict = known(|| wire.post(&self.keys[key].key, &email)).verdict();
            let expected = model.verdict_on_email(key, domain);
            prop_assert_eq!(verdict, expected, "step {}, key {}, {}", turn, key, email);
        }
        Ok(())
    }

    /// Each key is counted as long as it lives, and its end is recorded once.
    fn count(&self, model: &Model) -> TestCaseResult {
        let live = model.keys.iter().filter(|key| key.lives()).count();
        let ended = model.keys.len() - live;
        let (live_now, ends_now) = self.counts();
        prop_assert_eq!(live_now - self.live_before, live as i64, "live keys");
        prop_assert_eq!(ends_now - self.ends_before, ended as i64, "recorded ends");
        Ok(())
    }

    fn counts(&self) -> (i64, i64) {
        let live = "SELECT key_count FROM accounts";
        let ends = "SELECT count(*) FROM events
                    WHERE action IN ('key.deleted', 'key.stopped', 'key.expired')";
        (self.database.number(live), self.database.number(ends))
    }
}

impl From<CreateError> for Refused {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::AccountPaused => Self::AccountPaused,
            CreateError::UnknownDomain => Self::UnknownDomain,
            error => panic!("{error}"),
        }
    }
}

impl From<EditError> for Refused {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Ended(_) => Self::Ended,
            EditError::UnknownDomain => Self::UnknownDomain,
            error => panic!("{error}"),
        }
    }
}

impl From<RotateError> for Refused {
    fn from(error: RotateError) -> Self {
        match error {
            RotateError::Ended(_) => Self::Ended,
            RotateError::AlreadyRotated(_) => Self::Rotated,
            RotateError::Create(error) => error.into(),
            error => panic!("{error}"),
        }
    }
}

both! {
    fn a_key_works_exactly_when_the_model_says_so(app: App) {
        let other = App::on(app.database.again(), |_| {});
        let owner = app.owner();
        let same_owner = other.visitor();
        same_owner.set_cookie(owner.cookie());
        let nodes = [Node::new(&app, owner), Node::new(&other, same_owner)];
        let config = Config {
            cases: rounds("TOSEND_TEST_LIVES", 6, 12) as u32,
            max_shrink_iters: 500,
            failure_persistence: None,
            ..Config::default()
        };
        let number = Cell::new(0);
        let lived = TestRunner::new(config).run(&steps(), |steps| {
            number.set(number.get() + 1);
            Life::new(&app.database, &nodes, number.get()).lead(&steps)
        });
        lived.unwrap_or_else(|failure| panic!("{failure}"));
    }
}
