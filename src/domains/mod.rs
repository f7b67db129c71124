//! Sending domains: the names an account may send from.

pub mod dkim;
pub mod name;
pub mod pages;
pub mod store;
