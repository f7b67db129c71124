//! What the operator does with emails, and their account with those that failed: look at them, try
//! them again, cancel them, delete them. It works beside servers that deliver.

mod selection;
pub mod store;
mod task;

pub use selection::Selection;
pub use task::{State, Task, TaskTally, TaskVerdict};
