//! What is measured with one database system, and what is wanted of it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::changes::{self, Changes};
use crate::load::{Requests, Sample, sample};
use crate::relay::Relay;
use crate::report::{Limit, Pairs, Report, Row, grouped};
use crate::seed::{self, Database, Keys};
use crate::server::Server;
use crate::{Args, Backend, Case, MAIN_SIZE, TEN_MILLION};

const VERIFY: &str = "/v2/verify";
const INFO: &str = "/v2/info";
/// The case that others are compared with.
const VALID: &str = "valid key";
const EMAILS: &str = "/v2/emails";
const BATCH: &str = "/v2/emails/batch";
/// Emails per request of the case of batches: the most that the API takes.
const MOST_EMAILS: usize = 100;
/// Emails to deliver.
const TO_DELIVER: u64 = 5_000;
/// Longer than delivery takes.
const DELIVERED: Duration = Duration::from_secs(300);
/// Emails and events of the account whose pages are measured.
pub const AGED_ROWS: u64 = 1_000_000;
/// Pages of an account that has existed for a year, and how many milliseconds each may take. The filters
/// that find next to nothing may take longer.
const PAGES: [(&str, f64); 9] = [
    ("/api-keys", 30.0),
    ("/domains", 30.0),
    ("/settings", 30.0),
    ("/activity", 30.0),
    ("/activity?kind=session", 30.0),
    ("/activity?kind=account", 100.0),
    ("/activity?who=nobody", 100.0),
    ("/activity/emails", 30.0),
    ("/activity/emails?status=failed", 30.0),
];

/// A database and the server that uses it.
pub struct Dashboard<'a> {
    pub database: &'a Database,
    pub server: Server,
}

impl<'a> Dashboard<'a> {
    pub fn start(database: &'a Database) -> Result<Self> {
        let server = Server::dashboard(database)?;
        Ok(Self { database, server })
    }

    fn size(&self) -> String {
        grouped(self.database.keys)
    }
}

/// One of a pair: who is asked, and for what.
type Side<'a> = (&'a Server, Arc<Requests>);

pub struct Bench<'a> {
    pub backend: Backend,
    pub args: &'a Args,
    pub keys: &'a Keys,
    pub reference: Server,
    pub report: &'a mut Report,
    pub connections: u32,
}

impl Bench<'_> {
    /// The dashboards are in order of size.
    pub fn run(&mut self, dashboards: &[Dashboard]) -> Result<()> {
        let small_enough = dashboards.iter().rfind(|d| d.database.keys <= MAIN_SIZE);
        let main = small_enough.or(dashboards.first()).context("no sizes")?;
        for case in self.args.cases() {
            match case {
                Case::ValidKey => self.valid_key(dashboards, main)?,
                Case::AmidChanges => self.amid_changes(main)?,
                Case::UnknownKey => {
                    let requests = Requests::with_keys(VERIFY, self.keys.unknown.clone(), 403);
                    self.beside_reference("unknown key", main, requests)?;
                }
                Case::FailedChecksum => self.failed_checksum(main)?,
                Case::NoKey => {
                    let requests = Requests::same(VERIFY, "", 401);
                    self.beside_reference("no key", main, requests)?;
                }
                Case::Info => {
                    let requests = self.with_valid_keys(INFO, main);
                    self.beside_reference("info", main, requests)?;
                }
                Case::KeysPage => self.keys_page(main)?,
                Case::Emails => self.emails(main)?,
                Case::Pages => self.pages(main)?,
                Case::Delivery => self.delivery(main)?,
            }
        }
        Ok(())
    }

    fn valid_key(&mut self, dashboards: &[Dashboard], main: &Dashboard) -> Result<()> {
        let mut rows = Vec::new();
        for dashboard in dashboards {
            let requests = self.with_valid_keys(VERIFY, dashboard);
            rows.push(self.beside_reference(VALID, dashboard, requests)?);
            if dashboard.database.keys == main.database.keys {
                self.judge_valid_key(&rows[rows.len() - 1].pairs);
            }
        }
        for (larger, row) in dashboards.iter().zip(&rows).skip(1) {
            let memory = row.memory_mib - rows[0].memory_mib;
            self.compare_sizes(larger, &dashboards[0], memory)?;
        }
        Ok(())
    }

    fn judge_valid_key(&mut self, pairs: &Pairs) {
        let (rate, cpu) = match self.backend {
            Backend::Sqlite => (0.75, 2.0),
            Backend::Postgres => (0.6, 2.5),
        };
        let mut want = |what, limit, measured| {
            self.want(format!("valid key ÷ reference: {what}"), limit, measured);
        };
        let faster = pairs.ratio(Sample::rate);
        want("requests/s", Limit::AtLeast(rate), faster);
        want("CPU per request", Limit::AtMost(cpu), pairs.cpu_ratio());
        want("p99", Limit::AtMost(3.0), pairs.ratio(|s| s.p99));
    }

    fn compare_sizes(
        &mut self,
        larger: &Dashboard,
        smaller: &Dashboard,
        memory: f64,
    ) -> Result<()> {
        let [a, b] = [larger, smaller].map(|d| (&d.server, self.with_valid_keys(VERIFY, d)));
        let pairs = self.pairs(a, b)?;
        let rate = match larger.database.keys {
            TEN_MILLION.. => 0.8,
            _ => 0.9,
        };
        let sizes = format!("{} ÷ {} keys", larger.size(), smaller.size());
        let what = format!("{sizes}: requests/s");
        self.want(what, Limit::AtLeast(rate), pairs.ratio(Sample::rate));
        // SQLite's page caches of 2 MB for each connection fill up, and more different keys are in
        // use, whose last use is remembered. Keeping all keys would take more than this.
        let what = format!("{sizes}: MiB more memory");
        self.want(what, Limit::AtMost(48.0), memory);
        Ok(())
    }

    /// Successive changes are of different accounts: each costs the keys of its own a lookup.
    fn amid_changes(&mut self, main: &Dashboard) -> Result<()> {
        let requests = self.with_valid_keys(VERIFY, main);
        let changes = Changes::start(main.database)?;
        let case = format!("valid key, {} changes a second", changes::A_SECOND);
        let row = self.beside_reference(&case, main, requests)?;
        changes.end()?;
        let is_quiet = |quiet: &&Rc<Row>| {
            quiet.case == VALID && quiet.backend == row.backend && quiet.keys == row.keys
        };
        if let Some(quiet) = self.report.rows.iter().find(is_quiet) {
            let rate = |row: &Row| row.pairs.ratio(Sample::rate);
            let measured = rate(&row) / rate(quiet);
            let what = format!("{case} ÷ none: requests/s");
            self.want(what, Limit::AtLeast(0.8), measured);
        }
        Ok(())
    }

    fn failed_checksum(&mut self, main: &Dashboard) -> Result<()> {
        let requests = Requests::with_keys(VERIFY, self.keys.misspelt(), 403);
        let row = self.beside_reference("failed checksum", main, requests)?;
        let what = "failed checksum ÷ reference: requests/s".into();
        self.want(what, Limit::AtLeast(0.9), row.pairs.ratio(Sample::rate));
        Ok(())
    }

    /// Both accounts' pages show 25 keys.
    fn keys_page(&mut self, main: &Dashboard) -> Result<()> {
        let page = |email| {
            let cookie = main.server.sign_in(email)?;
            Ok::<_, anyhow::Error>(Requests::same("/api-keys", &cookie, 200))
        };
        let (few, many) = (page(seed::FEW)?, page(seed::MANY)?);
        let counts = [seed::FEW_KEYS, main.database.many_keys()].map(grouped);
        for (requests, count) in [&few, &many].into_iter().zip(&counts) {
            let case = format!("keys page of {count}");
            self.beside_reference(&case, main, requests.clone())?;
        }
        let pairs = self.pairs((&main.server, many), (&main.server, few))?;
        let what = format!("keys page of {} ÷ {}: p50", counts[1], counts[0]);
        self.want(what, Limit::AtMost(1.5), pairs.ratio(|s| s.p50));
        Ok(())
    }

    /// Beside what one connection reaches, since a commit costs a single email the most.
    fn emails(&mut self, main: &Dashboard) -> Result<()> {
        let (keys, domains) = (
            self.keys.valid(main.database),
            self.keys.domains(main.database),
        );
        let requests = |path, batch| Requests::emails(path, keys.clone(), domains.clone(), batch);
        let (one, batch) = (requests(EMAILS, None), requests(BATCH, Some(MOST_EMAILS)));
        let many = self.beside_reference("email", main, one.clone())?;
        let case = format!("batch of {MOST_EMAILS} emails");
        self.beside_reference(&case, main, batch)?;
        let alone = self.one_connection("email, one connection", main, one)?;
        let (rate, p99) = (Sample::rate, |s: &Sample| s.p99);
        let faster = many.pairs.first(rate) / alone.pairs.first(rate);
        let slower = many.pairs.first(p99) / alone.pairs.first(p99);
        let share = many.pairs.ratio(rate);
        self.want(
            "email ÷ reference: requests/s".to_owned(),
            Limit::AtLeast(0.08),
            share,
        );
        if self.backend == Backend::Sqlite {
            self.want(
                "email ÷ one connection: requests/s".to_owned(),
                Limit::AtLeast(4.0),
                faster,
            );
        }
        self.want(
            "email ÷ one connection: p99".to_owned(),
            Limit::AtMost(4.0),
            slower,
        );
        Ok(())
    }

    /// With one connection: how long a person waits.
    fn pages(&mut self, main: &Dashboard) -> Result<()> {
        let cookie = main.server.sign_in(seed::MANY)?;
        for (path, most) in PAGES {
            let requests = Requests::same(path, &cookie, 200);
            let row = self.one_connection(&format!("GET {path}"), main, requests)?;
            let p50 = row.pairs.first(|s| s.p50) * 1e3;
            self.want(format!("GET {path}: p50 in ms"), Limit::AtMost(most), p50);
        }
        let key = self.keys.of_many(main.database)?;
        let requests = Requests::with_keys(INFO, key, 200);
        let row = self.one_connection("info after a year", main, requests)?;
        let p50 = row.pairs.first(|s| s.p50) * 1e3;
        self.want(
            "info after a year: p50 in ms".to_owned(),
            Limit::AtMost(10.0),
            p50,
        );
        Ok(())
    }

    /// By a node of its own, so that no other is measured with it.
    fn delivery(&mut self, main: &Dashboard) -> Result<()> {
        eprintln!("{}: delivery", self.backend);
        let relay = Relay::start()?;
        main.database.add_emails_to_deliver(TO_DELIVER)?;
        let server = Server::delivering(main.database, relay.address)?;
        let begun = Instant::now();
        while relay.taken() < TO_DELIVER {
            ensure!(
                begun.elapsed() < DELIVERED,
                "only {} emails were delivered",
                relay.taken()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let rate = TO_DELIVER as f64 / begun.elapsed().as_secs_f64();
        server.check_log()?;
        self.want("delivery: emails/s".to_owned(), Limit::AtLeast(300.0), rate);
        Ok(())
    }

    fn one_connection(
        &mut self,
        case: &str,
        dashboard: &Dashboard,
        requests: Arc<Requests>,
    ) -> Result<Rc<Row>> {
        let connections = std::mem::replace(&mut self.connections, 1);
        let row = self.beside_reference(case, dashboard, requests);
        self.connections = connections;
        row
    }

    fn with_valid_keys(&self, path: &str, dashboard: &Dashboard) -> Arc<Requests> {
        Requests::with_keys(path, self.keys.valid(dashboard.database), 200)
    }

    fn beside_reference(
        &mut self,
        case: &str,
        dashboard: &Dashboard,
        requests: Arc<Requests>,
    ) -> Result<Rc<Row>> {
        eprintln!("{}, {} keys: {case}", self.backend, dashboard.size());
        let plain = Requests::same("/", "", 200);
        let pairs = self.pairs((&dashboard.server, requests), (&self.reference, plain))?;
        let row = Rc::new(Row {
            backend: self.backend,
            keys: dashboard.database.keys,
            case: case.to_owned(),
            memory_mib: dashboard.server.memory()? as f64 / f64::from(1 << 20),
            pairs,
        });
        self.report.rows.push(Rc::clone(&row));
        Ok(row)
    }

    /// Measures in turn, after a pair that warms up.
    fn pairs(&self, a: Side, b: Side) -> Result<Pairs> {
        let time = Duration::from_secs(self.args.seconds);
        let one = |(server, requests): &Side| sample(server, requests, self.connections, time);
        let both = || Ok((one(&a)?, one(&b)?));
        both()?;
        (0..self.args.pairs)
            .map(|_| both())
            .collect::<Result<_>>()
            .map(Pairs)
    }

    fn want(&mut self, what: String, limit: Limit, measured: f64) {
        self.report.want(self.backend, what, limit, measured);
    }
}
