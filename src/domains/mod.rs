//! Sending domains: the names an account may send from.

pub mod check;
pub mod dkim;
pub mod dns;
pub mod life;
pub mod name;
pub mod pages;
pub mod records;
pub mod store;
pub mod turns;
