//! Records calls with keys: when and from where the last one came, how many there were, and how
//! they ended.

pub mod chart;
pub mod history;
pub mod outcome;
mod recorder;
pub mod sparkline;
pub mod store;
mod tally;

pub use recorder::Usage;
pub use tally::{Calls, RefusedKey, Use};
