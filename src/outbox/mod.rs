//! What delivery, the email API and the pages of keys share of an email.

mod arrivals;

pub use arrivals::Arrivals;
