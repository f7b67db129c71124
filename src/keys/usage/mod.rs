//! Records calls with keys: the last one and where it came from, how many there were, and how they
//! ended.

pub mod chart;
pub mod history;
pub mod outcome;
mod recorder;
pub mod store;
mod tally;

pub use recorder::Usage;
pub use tally::{Calls, Refused, Use};
