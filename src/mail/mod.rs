//! Delivery: accepted emails become messages, and go to the relay.

pub mod attempt;
pub mod mime;
pub mod pages;
pub mod relay;
mod reply;
pub mod store;
mod turns;
pub mod worker;
