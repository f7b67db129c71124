//! API keys: what a key is, and where it is kept. Its rooms: who holds one right now, what it is used
//! for, and the pages about it.

pub mod advice;
pub mod changes;
pub mod expiry;
pub mod find;
pub mod name;
pub mod pages;
pub mod rule;
pub mod scope;
pub mod secret;
pub mod standing;
pub mod store;
pub mod usage;
pub mod verification;
pub mod view;
