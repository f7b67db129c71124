//! What DNS says of a domain, and what becomes of the domain and its keys by that.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use tosend_dashboard::accounts::event::Actor;
use tosend_dashboard::accounts::store::AccountId;
use tosend_dashboard::db::{DatabaseUrl, Db};
use tosend_dashboard::domains::dkim::DkimKey;
use tosend_dashboard::domains::dns::Dns as Resolver;
use tosend_dashboard::domains::name::DomainName;
use tosend_dashboard::domains::records::{Findings, RecordState};
use tosend_dashboard::domains::store as domains_store;
use tosend_dashboard::secret::SecretRing;

use crate::support::dns::{self, check_until, dkim_name, dkim_text, status};
use crate::support::*;

const NOT_VERIFIED: &str = "domain_not_verified";

/// An instant as both databases read it.
fn hours_ago(hours: i64) -> String {
    let instant = Utc::now().naive_utc() - TimeDelta::hours(hours);
    instant.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// Sets a column of a domain that tells a time.
fn set_time(app: &App, id: i64, column: &str, hours: i64) {
    let at = hours_ago(hours);
    app.database.execute(&format!(
        "UPDATE sending_domains SET {column} = '{at}' WHERE id = {id}"
    ));
}

/// Waits until the server has checked the domain by itself, and DNS has answered.
fn check(app: &App, id: i64) {
    app.database.execute(&format!(
        "UPDATE sending_domains SET checked_at = NULL WHERE id = {id}"
    ));
    check_until(app, id, || is_set(app, id, "checked_at"));
}

/// Waits until the server has checked the domain by itself, and DNS was asked in vain.
fn check_in_vain(app: &App, id: i64) {
    let asked = app.dns().asked();
    app.database.execute(&format!(
        "UPDATE sending_domains SET next_check_at = NULL WHERE id = {id}"
    ));
    // While it is under way, the next one is two minutes ahead.
    let at = (Utc::now().naive_utc() + TimeDelta::minutes(4)).format("%Y-%m-%d %H:%M:%S");
    let is_settled =
        format!("SELECT COUNT(*) FROM sending_domains WHERE id = {id} AND next_check_at > '{at}'");
    until("the check is over", || {
        app.database.number(&is_settled) == 1
    });
    assert!(app.dns().asked() > asked);
}

fn is_set(app: &App, id: i64, column: &str) -> bool {
    let sql =
        format!("SELECT COUNT(*) FROM sending_domains WHERE id = {id} AND {column} IS NOT NULL");
    app.database.number(&sql) == 1
}

fn events(app: &App, action: &str, actor: &str) -> i64 {
    app.database.number(&format!(
        "SELECT COUNT(*) FROM events WHERE action = '{action}' AND actor = '{actor}'"
    ))
}

fn add(visitor: &Visitor, name: &str) -> (i64, String) {
    let id = visitor.add_domain(name);
    let path = format!("/domains/{id}");
    (id.parse().unwrap(), path)
}

/// Presses "Check now", again where DNS did not answer in time. Gives where that leads.
fn check_now(visitor: &Visitor, path: &str) -> String {
    let mut to = String::new();
    until("DNS answers in time", || {
        let asked = visitor.post(&format!("{path}/check"), &[]);
        asked.location().unwrap().clone_into(&mut to);
        !["silent", "wait"].iter().any(|notice| to.ends_with(notice))
    });
    to
}

/// What the page says of a record.
fn state(page: &str, record: &str) -> String {
    let heading = page.split(&format!("id=\"{record}-title\">")).nth(1);
    let badge = heading.unwrap().split("</span>").next().unwrap();
    badge.rsplit('>').next().unwrap().to_owned()
}

/// A record's name or value, as the page gives it to be copied.
fn copied(page: &str, what: &str) -> String {
    let block = page.split(&format!("id=\"{what}\"><code>")).nth(1).unwrap();
    assert!(page.contains(&format!("data-copy=\"{what}\"")));
    block.split("</code>").next().unwrap().to_owned()
}

/// What DNS says, asked again where it did not say all in time.
async fn look(resolver: &Resolver) -> Findings {
    let mut tries = 0..30;
    loop {
        let found = resolver.look("acme.test", "QUJD").await;
        let is_answered = found.dkim.is_some() && found.spf.is_some();
        if is_answered || tries.next().is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_followed_by_the_next_one() {
    let (first, second) = (Dns::start(), Dns::start());
    second.set(&dkim_name("acme.test"), &["v=DKIM1; p=QUJD"]);
    let both = Resolver::new(&[first.address, second.address]);
    for trouble in [
        Trouble::Refusal,
        Trouble::ServerFailure,
        Trouble::NotImplemented,
        Trouble::Referral,
        Trouble::Silence,
    ] {
        first.trouble(Some(trouble));
        let found = look(&both).await;
        assert_eq!(found.dkim, Some(RecordState::Found), "{trouble:?}");
        assert_eq!(found.spf, Some(RecordState::Missing), "{trouble:?}");
        let alone = Resolver::new(&[first.address]);
        assert_eq!(
            alone.look("acme.test", "QUJD").await,
            Findings::default(),
            "{trouble:?}"
        );
    }
    // What the first one denies the second one is not asked for.
    first.trouble(None);
    let asked = second.asked();
    let found = look(&both).await;
    assert_eq!(found.dkim, Some(RecordState::Missing));
    assert_eq!(second.asked(), asked);
}

#[tokio::test]
async fn a_server_that_does_not_know_edns_is_asked_without_it() {
    let dns = Dns::start();
    // Too long for one answer by UDP, too.
    let long = "x".repeat(700);
    dns.set(&dkim_name("acme.test"), &["v=DKIM1; p=QUJD", &long]);
    let resolver = Resolver::new(&[dns.address]);
    for trouble in [Trouble::NoEdns, Trouble::SilenceToEdns] {
        dns.trouble(Some(trouble));
        let found = look(&resolver).await;
        assert_eq!(found.dkim, Some(RecordState::Found), "{trouble:?}");
        assert!(found.dkim_seen.unwrap().ends_with("x…"));
    }
    assert!(dns.asked_by_tcp() > 0);
}

both! {
    fn a_domain_lives_and_dies_by_its_record(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        let (id, path) = add(&owner, "acme.test");
        let (_, key) = owner.create_key("Shop", &id.to_string());
        let program = app.program(&key);
        let from = |address: &str| program.email_from(address);

        check(&app, id);
        let page = owner.get(&path).body;
        assert_eq!(status(&app, id), "pending");
        assert_eq!(state(&page, "dkim"), "Missing");
        assert!(from("ada@acme.test").body.contains(NOT_VERIFIED));

        dns.set(&copied(&page, "dkim-name"), &[&copied(&page, "dkim-value")]);
        check_until(&app, id, || status(&app, id) == "verified");
        let page = owner.get(&path).body;
        assert!(page.contains("<span class=\"badge verified\">Verified</span>"));
        assert_eq!(state(&page, "dkim"), "Found");
        assert!(!page.contains("Attested"));
        assert_eq!(from("ada@acme.test").status, 200);
        assert_eq!(events(&app, "domain.verified", "server"), 1);

        // It is gone: for a day nothing happens, but that it is told.
        dns.remove(&dkim_name("acme.test"));
        check_until(&app, id, || is_set(&app, id, "missing_since"));
        set_time(&app, id, "missing_since", 22);
        check(&app, id);
        assert_eq!(status(&app, id), "verified");
        let page = owner.get(&path).body;
        assert_eq!(state(&page, "dkim"), "Missing");
        assert!(page.contains("Unless it is restored, the domain stops sending in 2 hours."));
        assert!(owner.get("/domains").body.contains("it stops sending in 2 hours"));
        assert_eq!(from("ada@acme.test").status, 200);

        set_time(&app, id, "missing_since", 24);
        check_until(&app, id, || status(&app, id) == "failed");
        assert_eq!(events(&app, "domain.lost", "server"), 1);
        assert!(owner.get(&path).body.contains("was missing for too long"));
        assert!(!owner.get("/domains").body.contains("stops sending"));
        assert!(from("ada@acme.test").body.contains(NOT_VERIFIED));
        // Its key stays as narrow as it was.
        assert!(owner.get("/api-keys").body.contains("Not verified"));
        let (other, _) = add(&owner, "other.test");
        attest(&app.database, "other.test");
        assert!(from("ada@other.test").body.contains("domain_not_allowed"));

        // It is back, and sends again by itself.
        dns.verify(&app, "acme.test");
        assert!(!is_set(&app, id, "missing_since"));
        assert_eq!(from("ada@acme.test").status, 200);
        assert_eq!(events(&app, "domain.verified", "server"), 2);
        assert_eq!(events(&app, "domain.lost", "server"), 1);
        let keys = owner.get(&path).body;
        assert!(keys.contains("<bdi>Shop</bdi>"), "{keys}");
        assert!(!owner.get(&format!("/domains/{other}")).body.contains("<bdi>Shop</bdi>"));

        let delete = format!("{path}/delete");
        assert_eq!(owner.post(&delete, &[]).status, 422);
        owner.delete_key(owner.get("/api-keys").key_ids()[0]);
        assert_eq!(owner.post(&delete, &[]).status, 303);
        assert_eq!(owner.get(&path).status, 404);
    }

    fn a_record_that_is_back_in_time_is_as_if_it_never_was_missing(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        let (id, path) = add(&owner, "acme.test");
        dns.verify(&app, "acme.test");
        dns.set(&dkim_name("acme.test"), &["v=DKIM1; k=rsa; p=QUJD"]);
        check_until(&app, id, || is_set(&app, id, "missing_since"));
        set_time(&app, id, "missing_since", 23);
        let page = owner.get(&path).body;
        assert_eq!(state(&page, "dkim"), "Different");
        assert!(page.contains("<bdi>v=DKIM1; k=rsa; p=QUJD</bdi>"), "{page}");

        dns.publish(&app, "acme.test");
        check_until(&app, id, || !is_set(&app, id, "missing_since"));
        assert!(!owner.get(&path).body.contains("QUJD"));
        dns.remove(&dkim_name("acme.test"));
        check_until(&app, id, || is_set(&app, id, "missing_since"));
        set_time(&app, id, "missing_since", 23);
        check(&app, id);
        assert_eq!(status(&app, id), "verified");
        assert_eq!(events(&app, "domain.lost", "server"), 0);
    }

    fn dns_that_gives_no_answer_changes_nothing_however_long(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        let (id, path) = add(&owner, "acme.test");
        dns.verify(&app, "acme.test");
        let (_, key) = owner.create_key("Shop", &id.to_string());
        for trouble in [Trouble::ServerFailure, Trouble::Referral, Trouble::Silence] {
            dns.trouble(Some(trouble));
            set_time(&app, id, "missing_since", 24 * 30);
            check_in_vain(&app, id);
            assert_eq!(status(&app, id), "verified", "{trouble:?}");
            assert!(is_set(&app, id, "missing_since"));
            assert_eq!(state(&owner.get(&path).body, "dkim"), "Found");
            assert_eq!(app.program(&key).email_from("ada@acme.test").status, 200);
        }
        // Nor does it to one that waits to be verified.
        let (waiting, _) = add(&owner, "waiting.test");
        dns.trouble(Some(Trouble::ServerFailure));
        set_time(&app, waiting, "pending_since", 24 * 30);
        let asked = owner.post(&format!("/domains/{waiting}/check"), &[]);
        assert_eq!(asked.location(), Some(&*format!("/domains/{waiting}?notice=silent")));
        let page = owner.get(asked.location().unwrap()).body;
        assert!(page.contains("DNS gave no answer, so nothing was changed."));
        assert_eq!(state(&page, "dkim"), "Not checked yet");
        assert_eq!(status(&app, waiting), "pending");

        dns.trouble(None);
        check_until(&app, id, || !is_set(&app, id, "missing_since"));
        assert_eq!(status(&app, id), "verified");
        let answered = owner.get(&format!("{path}?notice=silent")).body;
        assert!(!answered.contains("DNS gave no answer"), "{answered}");
    }

    fn who_asks_sees_what_dns_says_now_but_not_all_the_time(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        // So that the server itself finds nothing out.
        dns.trouble(Some(Trouble::ServerFailure));
        let (id, path) = add(&owner, "acme.test");
        let ask = format!("{path}/check");
        assert_eq!(state(&owner.get(&path).body, "dkim"), "Not checked yet");
        let soon = (Utc::now().naive_utc() + TimeDelta::seconds(90)).format("%Y-%m-%d %H:%M:%S");
        let is_settled = format!(
            "SELECT COUNT(*) FROM sending_domains WHERE id = {id} AND next_check_at < '{soon}'"
        );
        until("the server's own check is over", || app.database.number(&is_settled) == 1);
        set_time(&app, id, "next_check_at", -100_000);
        dns.publish(&app, "acme.test");
        dns.trouble(None);

        let asked = check_now(&owner, &path);
        assert_eq!(asked, format!("{path}?notice=checked"));
        let page = owner.get(&asked).body;
        assert!(page.contains("acme.test was checked just now: it is verified."));
        assert!(page.contains("Last checked"));
        assert_eq!(events(&app, "domain.verified", EMAIL), 1);

        let wait = format!("{path}?notice=wait");
        let (again, questions) = within(Duration::from_secs(5), |_| {
            owner.post(&ask, &[]);
            let questions = dns.asked();
            (owner.post(&ask, &[]), (questions, dns.asked()))
        });
        assert_eq!(again.location(), Some(&*wait));
        assert_eq!(questions.0, questions.1);
        assert!(owner.get(&wait).body.contains("Wait 5 seconds, then check again."));
        assert_eq!(app.visitor().post(&ask, &[]).location(), Some("/login?unsent=yes"));
        assert_eq!(app.stranger().post(&ask, &[]).status, 404);
    }

    fn a_domain_that_shows_no_record_in_three_days_fails_and_may_still_come(app: App) {
        let owner = app.owner();
        let (id, path) = add(&owner, "acme.test");
        set_time(&app, id, "pending_since", 70);
        check(&app, id);
        assert_eq!(status(&app, id), "pending");
        set_time(&app, id, "pending_since", 72);
        check_until(&app, id, || status(&app, id) == "failed");
        assert_eq!(events(&app, "domain.failed", "server"), 1);
        assert!(owner.get(&path).body.contains("was not found in time"));
        assert!(owner.get("/domains").body.contains("<span class=\"badge failed\">Failed</span>"));
        app.dns().verify(&app, "acme.test");
        assert_eq!(events(&app, "domain.verified", "server"), 1);
    }

    fn a_domain_is_verified_in_one_account_alone(app: App) {
        let (owner, stranger, dns) = (app.owner(), app.stranger(), app.dns());
        let (ours, path_of_ours) = add(&owner, "acme.test");
        let (theirs, path) = add(&stranger, "acme.test");
        dns.verify(&app, "acme.test");
        check(&app, theirs);
        // Who has not shown that it is theirs is not told whether someone else has it.
        let elsewhere = "is verified in another account of this server";
        assert_eq!(state(&stranger.get(&path).body, "dkim"), "Different");
        assert!(!stranger.get(&path).body.contains(elsewhere));

        let texts = [ours, theirs].map(|id| dkim_text(&app, id));
        assert_ne!(texts[0], texts[1]);
        let name = dkim_name("acme.test");
        dns.set(&name, &[&texts[0], &texts[1]]);
        check_until(&app, theirs, || state(&stranger.get(&path).body, "dkim") == "Found");
        assert_eq!((status(&app, ours), status(&app, theirs)), ("verified".into(), "pending".into()));
        let page = stranger.get(&path).body;
        assert!(page.contains(elsewhere));
        assert!(!page.contains(TITLE) && !page.contains(EMAIL), "{page}");
        let args = ["domain", "add", "--account", "eve@evil.test", "acme.test", "--verified"];
        let refused = cli(&app.database, &args, "").unwrap_err();
        assert!(refused.contains(&format!("acme.test {elsewhere}")), "{refused}");
        let file = app.database.folder.path().join("keys.toml");
        let declared = "account = \"eve@evil.test\"\n[[domain]]\nname = \"acme.test\"\nverified = true\n";
        std::fs::write(&file, declared).unwrap();
        let refused = cli(&app.database, &["apply", file.to_str().unwrap()], "").unwrap_err();
        assert!(refused.contains(&format!("line 2: acme.test {elsewhere}")), "{refused}");
        assert_eq!(status(&app, theirs), "pending");

        // When the one lets it go, the other gets it.
        assert_eq!(owner.post(&format!("{path_of_ours}/delete"), &[]).status, 303);
        check_until(&app, theirs, || status(&app, theirs) == "verified");
        assert!(!stranger.get(&path).body.contains(elsewhere));
    }

    fn what_the_operator_attests_dns_does_not_move(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        let (id, path) = add(&owner, "acme.test");
        attest(&app.database, "acme.test");
        check(&app, id);
        set_time(&app, id, "missing_since", 1000);
        check(&app, id);
        assert_eq!(status(&app, id), "verified");
        for page in [owner.get(&path), owner.get("/domains")] {
            assert!(page.body.contains("Confirmed by the operator"));
            assert!(!page.body.contains("stops sending"));
        }
        assert_eq!(state(&owner.get(&path).body, "dkim"), "Missing");

        let unattest = ["domain", "unattest", "--account", EMAIL, "acme.test"];
        assert_eq!(cli(&app.database, &unattest, "").unwrap(), "acme.test is pending.\n");
        assert_eq!(events(&app, "domain.lost", "operator"), 1);
        assert!(!owner.get(&path).body.contains("Attested"));
        dns.verify(&app, "acme.test");
        // A domain whose record is there needs nobody's word.
        attest(&app.database, "acme.test");
        assert!(owner.get(&path).body.contains("Confirmed by the operator"));
        for _ in 0..2 {
            assert_eq!(cli(&app.database, &unattest, "").unwrap(), "acme.test is verified.\n");
        }
        assert!(!owner.get(&path).body.contains("Attested"));
        let unknown = ["domain", "unattest", "--account", EMAIL, "other.test"];
        assert!(cli(&app.database, &unknown, "").is_err());
    }

    fn records_are_found_however_they_are_served(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        // Among others, which together are too long for one UDP answer.
        let (many, _) = add(&owner, "many.test");
        let text = dkim_text(&app, many);
        assert!(text.len() > 255);
        let long = "x".repeat(500);
        dns.set(&dkim_name("MANY.Test"), &["other", &long, &text]);
        check_until(&app, many, || status(&app, many) == "verified");
        assert!(dns.asked_by_tcp() > 0);
        // Names are looked up as DNS has them.
        let (idn, path) = add(&owner, "Bücher.example");
        let page = owner.get(&path).body;
        assert_eq!(copied(&page, "dkim-name"), "tosend._domainkey.xn--bcher-kva.example");
        dns.verify(&app, "xn--bcher-kva.example");
        assert_eq!(status(&app, idn), "verified");
        // A name that exists, but has no such record.
        dns.set(&dkim_name("many.test"), &[]);
        check_until(&app, many, || is_set(&app, many, "missing_since"));
    }

    fn the_records_that_are_only_recommended_are_told_and_move_nothing(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        let (id, path) = add(&owner, "mail.acme.example");
        dns.verify(&app, "mail.acme.example");
        check(&app, id);
        let states = || {
            let page = owner.get(&path).body;
            ["dkim", "spf", "dmarc"].map(|record| state(&page, record))
        };
        assert_eq!(states(), ["Found", "Missing", "Missing"]);
        dns.set("mail.acme.example", &["v=spf1 -all", "other", "v=spf1 mx ~all"]);
        dns.set("_dmarc.mail.acme.example", &["p=none"]);
        check(&app, id);
        assert_eq!(states(), ["Found", "Different", "Different"]);
        let page = owner.get(&path).body;
        dns.set(&copied(&page, "spf-name"), &["other", &copied(&page, "spf-value")]);
        dns.set(&copied(&page, "dmarc-name"), &[&copied(&page, "dmarc-value")]);
        check(&app, id);
        assert_eq!(states(), ["Found", "Found", "Found"]);
        // Without its own, the one of the whole domain holds.
        dns.remove("_dmarc.mail.acme.example");
        dns.set("_dmarc.acme.example", &["v=DMARC1; p=reject"]);
        check(&app, id);
        assert_eq!(states(), ["Found", "Found", "Found"]);
        assert_eq!(status(&app, id), "verified");
    }

    fn a_key_is_replaced_and_its_record_within_a_day(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        let (id, path) = add(&owner, "acme.test");
        dns.verify(&app, "acme.test");
        let before = dkim_text(&app, id);
        let replace = ["domain", "replace-key", "--account", EMAIL, "acme.test"];
        cli(&app.database, &replace, "").unwrap();
        check_until(&app, id, || is_set(&app, id, "missing_since"));
        assert_ne!(dkim_text(&app, id), before);
        assert_eq!(copied(&owner.get(&path).body, "dkim-value"), dkim_text(&app, id));
        assert_eq!(status(&app, id), "verified");
        dns.publish(&app, "acme.test");
        check_until(&app, id, || !is_set(&app, id, "missing_since"));
        assert_eq!(status(&app, id), "verified");
        let unknown = ["domain", "replace-key", "--account", EMAIL, "other.test"];
        assert!(cli(&app.database, &unknown, "").is_err());
    }

    fn what_dns_said_of_an_old_key_says_nothing_of_the_new_one(app: App) {
        let owner = app.owner();
        let (id, _) = add(&owner, "acme.test");
        let account = AccountId(app.database.number("SELECT id FROM accounts"));
        let public = || {
            until("a key", || is_set(&app, id, "dkim_public"));
            app.database.text("SELECT dkim_public FROM sending_domains")
        };
        let db = Db::open(&DatabaseUrl::parse(&app.database.url).unwrap()).unwrap();
        let found = Findings { dkim: Some(RecordState::Found), ..Findings::default() };
        let settle = |public: &str| {
            let settled = db.write_blocking(|conn| {
                domains_store::settle(conn, account, id, public, &found, &Actor::server())
            });
            settled.unwrap().unwrap()
        };
        // As if it had been looked up before, and answered now.
        let old = public();
        let replace = ["domain", "replace-key", "--account", EMAIL, "acme.test"];
        cli(&app.database, &replace, "").unwrap();
        settle(&old);
        assert_eq!(status(&app, id), "pending");
        settle(&public());
        assert_eq!(status(&app, id), "verified");
    }

    fn many_silent_domains_of_one_account_delay_no_other_account(
        app: App, with |settings| settings.domain_limit = "2000".into()
    ) {
        let (owner, stranger, dns) = (app.owner(), app.stranger(), app.dns());
        dns.silence("silent.test");
        let theirs = app.database.number("SELECT MAX(account_id) FROM users");
        // More than are looked up until the end of this, however long that takes.
        let silent = 1_000;
        app.database.execute(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {silent})
             INSERT INTO sending_domains (account_id, name, status, created_at, pending_since, dkim_public)
             SELECT {theirs}, 'a' || i || '.silent.test', 'pending', '{0}', '{0}', 'none' FROM n",
            hours_ago(0),
        ));
        let looked_up = || {
            let names = dns.names().into_iter().filter(|name| name.starts_with("tosend."));
            names.collect::<std::collections::BTreeSet<_>>()
        };
        until("the silent ones are looked up", || looked_up().len() >= 8);

        // Who asks waits for none of them, not even for those of the same account.
        let (id, path) = add(&stranger, "good.test");
        dns.publish(&app, "good.test");
        assert_eq!(check_now(&stranger, &path), format!("{path}?notice=checked"));
        assert_eq!(status(&app, id), "verified");

        let (id, _) = add(&owner, "acme.test");
        // From now on it is due.
        let before = looked_up();
        dns.verify(&app, "acme.test");
        assert_eq!(status(&app, id), "verified");
        let names = dns.names();
        let ours = names.iter().position(|name| *name == dkim_name("acme.test")).unwrap();
        let meanwhile: std::collections::BTreeSet<_> = names[..ours]
            .iter()
            .filter(|name| name.starts_with("tosend.") && name.ends_with(".silent.test"))
            .filter(|name| !before.contains(*name))
            .collect();
        // Of all that wait, those that were under way, and a few that were begun in the meantime.
        assert!(meanwhile.len() <= 40, "{meanwhile:?}");
        assert!(looked_up().len() < silent, "none waits any more");
    }

    fn texts_from_dns_are_shown_escaped(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        let (id, path) = add(&owner, "acme.test");
        dns.set(&dkim_name("acme.test"), &["v=DKIM1;\0 \u{202e}p=\u{1b}[31m<b>\u{200b}"]);
        check_until(&app, id, || state(&owner.get(&path).body, "dkim") == "Different");
        let page = owner.get(&path).body;
        let shown = "v=DKIM1;\\u{0} \\u{202e}p=\\u{1b}[31m&#60;b&#62;\\u{200b}";
        assert!(page.contains(shown), "{page}");
        assert!(!page.contains(['\0', '\u{202e}', '\u{1b}', '\u{200b}']));
    }

    fn a_second_record_of_a_key_is_warned_of(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        let (id, path) = add(&owner, "acme.test");
        let warning = "Receivers may take another one";
        let ours = dkim_text(&app, id);
        dns.set(&dkim_name("acme.test"), &["v=DKIM1; p=eHl6", &ours]);
        check_until(&app, id, || status(&app, id) == "verified");
        let page = owner.get(&path).body;
        assert_eq!(state(&page, "dkim"), "Found");
        let section = page.split(warning).nth(1).unwrap().split("</pre>").next().unwrap();
        assert!(section.contains("<bdi>v=DKIM1; p=eHl6</bdi>"), "{section}");
        dns.set(&dkim_name("acme.test"), &[&ours]);
        check_until(&app, id, || !is_set(&app, id, "dkim_seen"));
        assert!(!owner.get(&path).body.contains(warning));
    }

    fn a_domains_page_follows_the_domain_without_keeping_anybody_signed_in(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        // So that nothing changes yet.
        dns.trouble(Some(Trouble::ServerFailure));
        let (id, path) = add(&owner, "acme.test");
        let poll = |page: &str| {
            let poll = page.split("hx-get=\"").nth(1)?.split('"').next()?;
            Some(poll.replace("&amp;", "&").replace("&#38;", "&"))
        };
        let first = poll(&owner.get(&path).body).unwrap();
        assert!(first.ends_with("&round=0"), "{first}");
        let old = hours_ago(2);
        app.database.execute(&format!("UPDATE sessions SET last_seen_at = '{old}'"));
        let seen = app.database.text("SELECT last_seen_at FROM sessions");
        let same = owner.htmx_get(&first);
        assert_eq!((same.status, same.header("hx-retarget")), (200, None));
        assert!(!same.body.contains("<h1") && same.body.contains("every 4s"), "{}", same.body);
        assert!(poll(&same.body).unwrap().ends_with("&round=1"));
        assert_eq!(app.database.text("SELECT last_seen_at FROM sessions"), seen);

        dns.trouble(None);
        dns.verify(&app, "acme.test");
        check(&app, id);
        let changed = owner.htmx_get(&first);
        assert_eq!(changed.header("hx-retarget"), Some("#domain"));
        assert!(changed.body.trim_start().starts_with("<div id=\"domain\""), "{}", changed.body);
        assert!(changed.body.contains("<span class=\"badge verified\">Verified</span>"));
        assert!(changed.body.contains("acme.test is verified."));
        // Nothing more is to come.
        assert_eq!(poll(&changed.body), None);
        assert_eq!(poll(&owner.get(&path).body), None);
        assert_eq!(app.visitor().htmx_get(&first).status, 286);
        assert_eq!(app.stranger().htmx_get(&first).status, 286);
        let last = first.replace("&round=0", "&round=4000000000");
        assert_eq!(owner.htmx_get(&last).status, 200);
    }

    fn checked_just_now_is_true_when_the_page_is_loaded_again(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        let (id, path) = add(&owner, "acme.test");
        dns.verify(&app, "acme.test");
        set_time(&app, id, "next_check_at", -100);
        let page = format!("{path}?notice=checked");
        assert!(owner.get(&page).body.contains("acme.test was checked just now: it is verified."));
        set_time(&app, id, "checked_at", 3);
        let again = owner.get(&page).body;
        assert!(again.contains("acme.test was checked 3 hours ago: it is verified."), "{again}");
        assert!(!again.contains("just now"));
    }

    fn every_domain_has_a_key_that_only_the_server_can_use(app: App) {
        let owner = app.owner();
        let (old, path) = add(&owner, "old.test");
        let forget = format!(
            "UPDATE sending_domains SET dkim_public = NULL, dkim_private = NULL WHERE id = {old}"
        );
        app.database.execute(&forget);
        let shown = copied(&owner.get(&path).body, "dkim-value");
        assert_eq!(shown, dkim_text(&app, old));
        assert_eq!(shown, copied(&owner.get(&path).body, "dkim-value"));
        app.database.execute(&forget);
        check_until(&app, old, || is_set(&app, old, "dkim_public"));
        assert_ne!(shown, dkim_text(&app, old));
        let add = ["domain", "add", "--account", EMAIL, "cli.test"];
        cli(&app.database, &add, "").unwrap();

        let secrets = SecretRing::read_or_make(&app.database.folder.path().join("secret")).unwrap();
        for name in ["old.test", "cli.test"] {
            let text = dkim_text(&app, dns::first(&app, name));
            let of_domain = format!("FROM sending_domains WHERE name = '{name}'");
            let sealed = app.database.text(&match app.database.backend() {
                Backend::Sqlite => format!("SELECT hex(dkim_private) {of_domain}"),
                Backend::Postgres => format!("SELECT encode(dkim_private, 'hex') {of_domain}"),
            });
            let sealed: Vec<u8> = (0..sealed.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&sealed[at..at + 2], 16).unwrap())
                .collect();
            let key = DkimKey::open_with_any(&sealed, &secrets, &DomainName::parse(name).unwrap()).unwrap();
            assert_eq!(text, format!("v=DKIM1; k=rsa; p={}", key.public().unwrap()));
        }
    }

    fn several_nodes_share_the_work_and_a_domain_moves_once(app: App) {
        let owner = app.owner();
        let db = Db::open(&DatabaseUrl::parse(&app.database.url).unwrap()).unwrap();
        let account = AccountId(app.database.number("SELECT id FROM accounts"));
        for round in 0..5 {
            let (id, _) = add(&owner, &format!("claimed{round}.test"));
            let claim = || db.write_blocking(|conn| domains_store::claim(conn, account, id));
            let claimed = std::thread::scope(|scope| {
                let nodes: Vec<_> = (0..4).map(|_| scope.spawn(claim)).collect();
                let claims = nodes.into_iter().map(|node| node.join().unwrap().unwrap());
                claims.filter(|is_claimed| *is_claimed).count()
            });
            // None, if the server itself was faster.
            assert!(claimed <= 1, "{claimed}");
        }
        let second = App::on(app.database.again(), |_| {});
        let names = ["a.test", "b.test", "c.test", "d.test", "e.test"];
        let ids = names.map(|name| add(&owner, name).0);
        for name in names {
            app.dns().publish(&app, name);
        }
        for id in ids {
            check_until(&app, id, || status(&app, id) == "verified");
        }
        assert_eq!(events(&second, "domain.verified", "server"), 5);
    }
}
