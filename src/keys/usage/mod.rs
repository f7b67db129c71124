//! Who calls with keys: when last and from where, how often, and with what outcome.

pub mod chart;
pub mod history;
pub mod outcome;
mod recorder;
pub mod store;
mod tally;

pub use recorder::Usage;
pub use tally::{Calls, Refused, Use};
