//! The API Keys dashboard of ToSend, an email API.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod app;
pub mod background;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod domains;
pub mod emails;
pub mod http;
pub mod keys;
pub mod logging;
pub mod mail;
pub mod reference;
pub mod routes;
pub mod schema;
pub mod secret;
pub mod token;
pub mod upkeep;
