//! Finds who holds a key right now, for every request to the API and for gateways.

pub mod api;
pub mod bearer;
pub mod store;
mod verifier;

pub use verifier::{Lookup, Unavailable, Verifier};
