//! Finds the holder of a key at this moment, for every request to the API and for gateways.

pub mod api;
pub mod bearer;
pub mod policy;
pub mod store;
mod verifier;

pub use verifier::{Answers, Load, Lookup, Remembering, Unavailable, Verifier};
