//! The API Keys dashboard of ToSend, an email API.
#![forbid(unsafe_code)]

pub mod account_end;
pub mod accounts;
pub mod background;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod domains;
pub mod emails;
pub mod ending;
pub mod http;
pub mod keys;
pub mod listener;
pub mod logging;
pub mod mail;
pub mod metrics;
pub mod number;
pub mod open_files;
pub mod outbox;
pub mod recovery;
pub mod reference;
pub mod relay_url;
pub mod routes;
pub mod schema;
pub mod scrape;
pub mod secret;
pub mod server;
pub mod service_manager;
pub mod signals;
pub mod token;
pub mod upkeep;
pub mod visible;
