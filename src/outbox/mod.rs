//! What delivery, the email API and the key pages share about emails.

mod arrivals;
mod status;
pub mod store;
mod volume;

pub use arrivals::Arrivals;
pub use status::EmailStatus;
pub use volume::{Volume, daily_label};
