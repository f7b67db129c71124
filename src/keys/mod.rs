//! API keys. The files here define what a key is; `verification` finds the holder of a key at this
//! moment, `usage` counts calls, and `pages` has the forms.

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
