//! Who holds a key right now: asked by every request to the API, and by gateways.

pub mod api;
pub mod bearer;
pub mod store;
mod verifier;

pub use verifier::{Lookup, Unavailable, Verifier};
