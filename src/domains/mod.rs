//! Sending domains: the domains an account may send from.

pub mod check;
pub mod dkim;
pub mod dns;
pub mod key_turns;
pub mod life;
pub mod name;
pub mod pages;
pub mod records;
mod status;
pub mod store;
