//! What Prometheus reads: the counters, and the values of the moment.

pub mod api;
mod figures;
mod machine;

use std::path::PathBuf;
use std::sync::Arc;

pub use self::figures::Figures;
use self::figures::Known;
use crate::background::Parts;
use crate::db::Db;
use crate::keys::verification::Verifier;
use crate::metrics::{Metrics, Values};
use crate::open_files::Connections;

/// The parts of the server whose state is told.
pub struct Scrape {
    pub metrics: Metrics,
    pub figures: Arc<Figures>,
    pub db: Db,
    pub verifier: Arc<Verifier>,
    pub parts: Parts,
    pub connections: Arc<Connections>,
    /// Of the SQLite file.
    pub folder: Option<PathBuf>,
}

impl Scrape {
    /// Waits for nothing but locks that are held for moments.
    pub fn text(&self) -> String {
        let values = Values::default();
        let known = self.figures.known();
        values.put(
            "tosend_database_up",
            "Whether the database answers.",
            is(known.is_some()),
        );
        if let Some(known) = known {
            put_known(&values, &known);
        }
        self.put_pools(&values);
        self.put_parts(&values);
        self.put_machine(&values);
        self.metrics.text(&values)
    }

    fn put_pools(&self, values: &Values) {
        let pools = self.db.pools();
        let each = |value: fn(&crate::db::PoolState) -> u32| {
            pools
                .iter()
                .map(move |pool| (pool.name, f64::from(value(pool))))
        };
        values.put_each(
            "tosend_pool_connections_in_use",
            "Connections to the database that are in use.",
            "pool",
            each(|pool| pool.in_use),
        );
        values.put_each(
            "tosend_pool_connections_max",
            "How many connections a pool may open.",
            "pool",
            each(|pool| pool.most),
        );
        values.put_each(
            "tosend_pool_waiting",
            "Requests and parts of the server that wait for a connection.",
            "pool",
            each(|pool| pool.waiting),
        );
    }

    fn put_parts(&self, values: &Values) {
        let parts = self.parts.list();
        values.put_each(
            "tosend_part_up",
            "Whether a background part of the server runs.",
            "part",
            parts.iter().map(|(part, is_up)| (*part, is(*is_up))),
        );
        let load = self.verifier.load();
        values.put(
            "tosend_verdicts_waiting",
            "Questions about keys that wait for a lookup.",
            load.waiting as f64,
        );
        values.put(
            "tosend_verdict_threads",
            "Threads that look up keys: 2, more while some are stuck.",
            load.threads as f64,
        );
        values.put(
            "tosend_http_connections",
            "Open client connections.",
            self.connections.count() as f64,
        );
        values.put(
            "tosend_http_connections_max",
            "How many client connections may be open.",
            self.connections.most() as f64,
        );
    }

    fn put_machine(&self, values: &Values) {
        let put = |name, help, value: Option<f64>| {
            if let Some(value) = value {
                values.put(name, help, value);
            }
        };
        put(
            "process_resident_memory_bytes",
            "Memory of the process that is in RAM.",
            machine::resident_bytes(),
        );
        put(
            "process_open_fds",
            "Open files and connections.",
            machine::open_files(),
        );
        put(
            "process_max_fds",
            "The limit of open files and connections.",
            machine::most_open_files(),
        );
        let disk = self.folder.as_deref().and_then(machine::disk);
        put(
            "tosend_disk_free_bytes",
            "Free space on the disk of the SQLite file.",
            disk.map(|(free, _)| free),
        );
        put(
            "tosend_disk_size_bytes",
            "Size of the disk of the SQLite file.",
            disk.map(|(_, size)| size),
        );
    }
}

fn put_known(values: &Values, known: &Known) {
    values.put_each(
        "tosend_emails_waiting",
        "Undelivered emails by state, counted up to 100,000 in all.",
        "state",
        [
            ("held", known.waiting.held as f64),
            ("deferred", known.waiting.deferred as f64),
        ],
    );
    values.put(
        "tosend_emails_oldest_due_seconds",
        "For how long the email that is due first has been due; 0 if none is.",
        known.waiting.oldest_due.as_seconds_f64(),
    );
    values.put(
        "tosend_database_size_bytes",
        "Size of the database.",
        known.database_bytes as f64,
    );
    values.put(
        "tosend_clock_in_doubt",
        "Whether the clock is in doubt, so that nothing is deleted by age.",
        is(known.is_clock_in_doubt),
    );
}

fn is(so: bool) -> f64 {
    f64::from(u8::from(so))
}
