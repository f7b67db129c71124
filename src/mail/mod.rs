//! Delivery: turns accepted emails into messages and hands them to the relay.

pub mod attempt;
pub mod mime;
pub mod pages;
pub mod queue;
pub mod relay;
mod reply;
mod results;
mod smtp;
pub mod store;
mod turns;
pub mod worker;
