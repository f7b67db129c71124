//! The primary dies and its standby takes over: what was revoked stays revoked, if the standby is
//! synchronous.

use std::sync::Mutex;

use crate::support::*;

/// Two nodes on a primary, and its standby behind a network that may fail.
///
/// Dropped in this order: the nodes end first.
struct Scene {
    nodes: [Dashboard; 2],
    owner: Visitor,
    database: Database,
    network: Proxy,
    standby: Cluster,
    primary: Cluster,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Standby {
    Synchronous,
    Asynchronous,
}

impl Scene {
    fn with(standby: Standby) -> Self {
        let primary = Cluster::new();
        let network = Proxy::to(&primary.address());
        let follower = Cluster::standby_of(&network.address.to_string());
        if standby == Standby::Synchronous {
            let admin = primary.database("postgres");
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
            admin.execute("SELECT pg_reload_conf()");
            let count = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            until("the standby is synchronous", || admin.number(count) == 1);
        }
        let mut database = Database::on(&primary);
        database.url = format!(
            "postgres://postgres@{},{}/{}?target_session_attrs=read-write",
            primary.address(),
            follower.address(),
            database.name
        );
        let nodes = [(); 2].map(|()| Dashboard::start(&database, &[]));
        let owner = nodes[0].visitor();
        owner.sign_up();
        Self {
            primary,
            standby: follower,
            network,
            database,
            nodes,
            owner,
        }
    }

    fn keys(&self, count: usize) -> Vec<(i64, String)> {
        (0..count)
            .map(|_| self.owner.create_key("Key", ""))
            .collect()
    }

    /// Deletes all, each again until that is acknowledged: the server has a database that answers,
    /// and needs no more than time.
    fn delete_all(&self, keys: &[(i64, String)]) -> Vec<String> {
        let delete = |(id, key): &(i64, String)| {
            let path = format!("/api-keys/{id}/delete");
            let to = self.owner.post(&path, &[("name", "Key")]);
            // It was done already, where the first answer came too late.
            let done = ["/api-keys?notice=deleted", "/api-keys?notice=gone"].map(Some);
            assert!(done.contains(&to.location()), "{to:?}");
            key.clone()
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = keys.iter().map(|key| scope.spawn(|| delete(key))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        })
    }

    /// Deletes all at once. Gives those of which that was acknowledged.
    fn delete(&self, keys: &[(i64, String)], meanwhile: impl FnOnce()) -> Vec<String> {
        let acknowledged = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for (id, key) in keys {
                let path = format!("/api-keys/{id}/delete");
                let acknowledged = &acknowledged;
                scope.spawn(move || {
                    let answer = self.owner.try_post(&path, &[("name", "Key")]);
                    // No answer and 503 promise nothing.
                    let Some(answer) = answer.filter(|answer| answer.status != 503) else {
                        return;
                    };
                    assert_eq!(answer.location(), Some("/api-keys?notice=deleted"));
                    acknowledged.lock().unwrap().push(key.clone());
                });
            }
            meanwhile();
        });
        acknowledged.into_inner().unwrap()
    }

    /// How many commits wait for the standby.
    fn waiting(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        self.database.number(sql)
    }

    fn fail_over(&mut self) {
        self.primary.kill();
        self.network.refuse();
        self.standby.promote();
        for node in &self.nodes {
            self.owner.move_to(&node.base);
            until("the pages are back", || {
                let answer = self.owner.try_get("/api-keys");
                answer.is_some_and(|answer| answer.status == 200)
            });
        }
    }

    /// Whether a key works; every node says the same.
    fn works(&self, key: &str) -> bool {
        let verdicts = self
            .nodes
            .each_ref()
            .map(|node| node.program(key).verdict());
        match verdicts {
            [200, 200] => true,
            [403, 403] => false,
            _ => panic!("{verdicts:?}"),
        }
    }

    fn all_refused(&self, keys: &[String]) {
        let revived = keys.iter().filter(|key| self.works(key)).count();
        assert_eq!(revived, 0, "of {} deleted keys", keys.len());
    }
}

#[test]
fn a_synchronous_standby_loses_no_revocation_on_postgres() {
    for _ in 0..rounds("TOSEND_TEST_FAILOVERS", 1, 3) {
        let mut scene = Scene::with(Standby::Synchronous);
        let (good, keys) = (scene.keys(1), scene.keys(8));
        let mut deleted = scene.delete_all(&keys[..4]);
        scene.network.swallow();
        deleted.extend(scene.delete(&keys[4..], || {
            until("commits wait", || scene.waiting() > 0);
        }));
        scene.fail_over();
        scene.all_refused(&deleted);
        assert!(scene.works(&good[0].1));
        // And the new primary takes revocations.
        scene.delete_all(&good);
        assert!(!scene.works(&good[0].1));
    }
}

/// The control: what the test above would not allow does happen with another setting.
#[test]
fn an_asynchronous_standby_loses_revocations_on_postgres() {
    let mut scene = Scene::with(Standby::Asynchronous);
    let keys = scene.keys(4);
    let standby = scene.standby.database("tosend");
    until("the standby has the keys", || {
        standby.number("SELECT count(*) FROM api_keys") == 4
    });
    scene.network.swallow();
    let deleted = scene.delete_all(&keys);
    scene.fail_over();
    assert!(deleted.iter().any(|key| scene.works(key)));
}
