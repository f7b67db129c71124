//! API keys: what they are, where they are kept, who holds one, and the page about them.

pub mod advice;
pub mod api;
pub mod bearer;
pub mod changes;
pub mod chart;
pub mod expiry;
pub mod find;
pub mod history;
pub mod name;
pub mod outcome;
pub mod pages;
pub mod rule;
pub mod scope;
pub mod secret;
pub mod standing;
pub mod store;
pub mod usage;
pub mod verify;
pub mod view;
pub mod volume;
