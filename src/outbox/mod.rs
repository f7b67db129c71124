//! What delivery, the email API and the pages of keys share of an email.

mod arrivals;
mod status;
pub mod store;
mod volume;

pub use arrivals::Arrivals;
pub use status::Status;
pub use volume::{Volume, daily_label};
