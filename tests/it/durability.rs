//! What was answered holds, whatever happens to the process next.

use crate::support::*;

fn survives_kill(backend: Backend) {
    let database = Database::new(backend);
    let mut dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(&database, "acme.test");
    // Each round kills right after one acknowledged change, and checks it after the restart.
    for round in 0..10 {
        let (id, key) = owner.create_key(&format!("Round {round}"), "");
        dashboard.kill();

        dashboard = Dashboard::start(&database, &[]);
        owner.move_to(&dashboard.base);
        assert_eq!(dashboard.program(&key).info().status, 200, "round {round}");
        let sent = dashboard.program(&key).email_from("ada@acme.test");
        assert_eq!(sent.status, 200, "{}", sent.body);
        dashboard.kill();

        dashboard = Dashboard::start(&database, &[]);
        owner.move_to(&dashboard.base);
        assert_eq!(database.number("SELECT count(*) FROM emails"), round + 1);
        assert_eq!(
            owner.post(&format!("/api-keys/{id}/delete"), &[]).status,
            303
        );
        dashboard.kill();

        dashboard = Dashboard::start(&database, &[]);
        owner.move_to(&dashboard.base);
        assert_eq!(dashboard.program(&key).info().status, 403, "round {round}");
    }
    assert_eq!(database.number("SELECT key_count FROM accounts"), 0);
}

#[test]
fn what_was_answered_holds_after_kill_9_on_sqlite() {
    survives_kill(Backend::Sqlite);
}

#[test]
fn what_was_answered_holds_after_kill_9_on_postgres() {
    survives_kill(Backend::Postgres);
}

#[test]
fn a_key_deleted_on_one_node_is_refused_by_another() {
    let database = Database::new(Backend::Postgres);
    let here = Dashboard::start(&database, &[]);
    let there = Dashboard::start(&database, &[]);
    let owner = here.visitor();
    owner.sign_up();
    for _ in 0..20 {
        let (id, key) = owner.create_key("Roaming", "");
        assert_eq!(there.program(&key).info().status, 200);
        owner.post(&format!("/api-keys/{id}/delete"), &[]);
        assert_eq!(there.program(&key).info().status, 403);
    }
    // The nodes share the secret, so a session of one is a session of the other.
    owner.move_to(&there.base);
    assert_eq!(owner.get("/api-keys").status, 200);
}
