//! Black-box tests: requests by actors against the server as `main` builds it, on SQLite and on
//! PostgreSQL. `tests/run` provides what they need.

#[macro_use]
mod support;

mod accounts;
mod activity;
mod api;
mod apply;
mod architecture;
mod batch;
mod clock;
mod command_line;
mod defences;
mod delivery;
mod docs;
mod domain_life;
mod domains;
mod durability;
mod failover;
mod faults;
mod full_disk;
mod gateway;
mod guessing;
mod held;
mod house;
mod key_list;
mod keys;
mod last_used;
mod life;
mod logging;
mod markup;
mod metrics;
mod model;
mod networks;
mod open_files;
mod openapi;
mod own_checks;
mod packages;
mod page_sources;
mod queue;
mod recovery;
mod restarts;
mod revocation;
mod rotation;
mod routes;
mod sdk;
mod secrecy;
mod sender_rule;
mod settings;
mod stderr;
mod threads;
mod turns;
mod usage;
mod usage_counts;
mod verify;
