//! Replacing a key: nobody who sends all the time is refused, and there is one successor.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use chrono::{TimeDelta, Utc};
use tosend_dashboard::clock;
use tosend_dashboard::keys::expiry::Expiry;
use tosend_dashboard::keys::scope::NewScope;
use tosend_dashboard::keys::store::{self, Found, RotateError, Rotation};

use crate::support::*;

const SENDERS: usize = 4;
/// Emails that each sends before, while and after the keys are swapped.
const EMAILS: usize = 20;

fn rotation(overlap: Option<TimeDelta>) -> Rotation {
    Rotation {
        overlap,
        stops_when_quiet: None,
        expiry: None,
    }
}

fn verdict(app: &App, key: &str) -> u16 {
    app.program(key).verdict()
}

both! {
    fn a_client_that_sends_all_the_time_and_swaps_keys_half_way_is_never_refused(app: App) {
        let owner = app.owner();
        let domain = owner.add_domain("acme.test");
        attest(&app.database, "acme.test");
        let (id, old) = owner.create_key("Shop", &domain);
        let (swapped, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let new = std::sync::OnceLock::new();
        let sent = [(); 2].map(|()| AtomicUsize::new(0));
        let send = || {
            while !is_over.load(Ordering::SeqCst) {
                let key: &String = new.get().unwrap_or(&old);
                let answer = app.program(key).email_from("hello@acme.test");
                assert_eq!(answer.status, 200, "{}", answer.body);
                let is_new = usize::from(*key != old);
                sent[is_new].fetch_add(1, Ordering::SeqCst);
                swapped.fetch_max(is_new, Ordering::SeqCst);
            }
        };
        thread::scope(|scope| {
            let end = SetWhenDropped(&is_over);
            let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(send)).collect();
            let see = |which: usize| {
                let before = sent[which].load(Ordering::SeqCst);
                until("emails are sent", || {
                    let has_failed = senders.iter().any(thread::ScopedJoinHandle::is_finished);
                    assert!(!has_failed, "a sender was refused");
                    sent[which].load(Ordering::SeqCst) >= before + EMAILS
                });
            };
            see(0);
            let form = [("overlap", "1h"), ("quiet", ""), ("expiry", "keep")];
            let shown = owner.post(&format!("/api-keys/{id}/rotate"), &form);
            see(0);
            new.set(shown.key()).unwrap();
            see(1);
            // Nobody sends with the old key any more.
            until("all have swapped", || {
                let before = sent[0].load(Ordering::SeqCst);
                see(1);
                sent[0].load(Ordering::SeqCst) == before
            });
            owner.post(&format!("/api-keys/{id}/stop"), &[]);
            see(1);
            drop(end);
        });
        assert_eq!(verdict(&app, &old), 403);
        assert_eq!(verdict(&app, new.get().unwrap()), 200);
    }

    fn of_many_rotations_at_once_one_makes_a_successor(app: App) {
        let owner = app.owner();
        let (id, old) = owner.create_key("Once", "");
        let path = format!("/api-keys/{id}/rotate");
        let shown = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    let visitor = app.visitor();
                    visitor.set_cookie(owner.cookie());
                    let form = [("overlap", "1h"), ("quiet", ""), ("expiry", "keep")];
                    let answer = loop {
                        let answer = visitor.post(&path, &form);
                        if answer.status != 503 {
                            break answer;
                        }
                    };
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    match answer.find_key() {
                        Some(_) => drop(shown.fetch_add(1, Ordering::SeqCst)),
                        None => assert!(answer.body.contains("This key has already been rotated")),
                    }
                });
            }
        });
        assert_eq!(shown.into_inner(), 1);
        assert_eq!(app.database.number("SELECT count(*) FROM api_keys"), 2);
        assert_eq!(app.database.number("SELECT key_count FROM accounts"), 2);
        assert_eq!(verdict(&app, &old), 200);
    }

    fn a_full_account_can_still_replace_a_key_that_leaked(
        app: App, with |settings| settings.key_limit = "1".into()
    ) {
        let owner = app.owner();
        let (id, old) = owner.create_key("Leaked", "");
        let form = [("overlap", "now"), ("quiet", ""), ("expiry", "keep")];
        let new = owner.post(&format!("/api-keys/{id}/rotate"), &form).key();
        assert_eq!((verdict(&app, &old), verdict(&app, &new)), (403, 200));
        assert_eq!(app.database.number("SELECT key_count FROM accounts"), 1);
        assert!(owner.create("More", "").body.contains("which is the limit"));
    }

    fn the_old_key_never_outlives_its_own_expiry(app: App) {
        app.owner();
        let keys = KeyStore::of(&app.database);
        let soon = Expiry::known(Some(clock::now() + TimeDelta::hours(1)));
        let old = keys.create(NewScope::AllDomains, soon).unwrap();
        let later = Expiry::known(Some(clock::now() + TimeDelta::hours(24)));
        let rotated = Rotation { expiry: Some(later), ..rotation(Some(TimeDelta::days(7))) };
        let new = keys.rotate(old.id, &rotated).unwrap();
        app.database.age_keys(TimeDelta::seconds(3_601));
        assert_eq!((verdict(&app, &old.key), verdict(&app, &new.key)), (403, 200));
        assert!(matches!(
            keys.rotate(old.id, &rotation(None)),
            Err(RotateError::Ended(key)) if key.id == old.id
        ));
    }

    fn what_happens_to_one_key_of_a_pair_does_not_touch_the_other(app: App) {
        app.owner();
        let keys = KeyStore::of(&app.database);
        for (change, firsts) in [
            (store::pause as Change, &[0, 1][..]),
            (store::delete, &[0, 1]),
            (store::stop, &[0]),
        ] {
            for &first in firsts {
                let old = keys.create(NewScope::AllDomains, Expiry::NEVER).unwrap();
                let new = keys.rotate(old.id, &rotation(Some(TimeDelta::hours(1)))).unwrap();
                let pair = [&old, &new];
                keys.change(pair[first].id, change);
                assert_eq!(verdict(&app, &pair[first].key), 403);
                assert_eq!(verdict(&app, &pair[1 - first].key), 200);
            }
        }
    }

    fn a_replaced_key_stops_by_itself_when_it_was_quiet_for_long_enough(app: App) {
        app.owner();
        let keys = KeyStore::of(&app.database);
        let when_quiet = Rotation {
            stops_when_quiet: Some(TimeDelta::hours(1)),
            ..rotation(None)
        };
        let pair = || {
            let old = keys.create(NewScope::AllDomains, Expiry::NEVER).unwrap();
            let new = keys.rotate(old.id, &when_quiet).unwrap();
            (old, new)
        };
        // Whether it was used lately, never since, long ago; and two that are to go on.
        let pairs = [(); 5].map(|()| pair());
        let [used_lately, never_used, used_long_ago, without_successor, kept] = &pairs;
        let ago = |minutes| {
            (Utc::now() - TimeDelta::minutes(minutes)).format("%Y-%m-%d %H:%M:%S%.6f")
        };
        for (id, minutes) in [(used_lately.0.id, 50), (used_long_ago.0.id, 70)] {
            let at = ago(minutes);
            app.database.execute(&format!(
                "INSERT INTO api_key_uses VALUES ({id}, '{at}', '::1', '')"
            ));
        }
        keys.change(without_successor.1.id, store::delete);
        keys.change(kept.0.id, store::cancel_stop);
        let long_ago = ago(300);
        app.database.execute(&format!("UPDATE api_keys SET created_at = '{long_ago}'"));

        assert_eq!((keys.end_due(), keys.end_due()), (2, 0));
        let is_live = |pair: &(Made, Made)| verdict(&app, &pair.0.key) == 200;
        assert!(!is_live(never_used) && !is_live(used_long_ago));
        assert!(is_live(used_lately) && is_live(without_successor) && is_live(kept));
        assert_eq!(verdict(&app, &never_used.1.key), 200);
        let by_the_server = "SELECT count(*) FROM events
            WHERE action = 'key.stopped' AND actor = 'server'";
        assert_eq!(app.database.number(by_the_server), 2);
        assert!(matches!(keys.change(never_used.0.id, store::resume), Found::Ended(_)));
    }
}
