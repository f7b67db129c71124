//! Accounts and the people who sign in to them.

pub mod csv;
pub mod device;
pub mod downloads;
pub mod email;
pub mod event;
pub mod failures;
pub mod known_device;
pub mod pages;
pub mod password;
pub mod session;
pub mod setup_code;
pub mod sign_in;
pub mod store;
pub mod throttle;
pub mod title;
