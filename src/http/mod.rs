//! HTTP independent of the domain: protection, headers, assets, pages and the rendering of errors.

mod address;
pub mod api_error;
pub mod assets;
pub mod body;
pub mod choice;
mod context;
pub mod count;
pub mod csrf;
mod error;
mod error_page;
pub mod every_request;
mod headers;
pub mod health;
pub mod json;
pub mod log;
pub mod missing;
pub mod page;
mod panics;
pub mod preferences;
pub mod refusals;
mod user_agent;

pub use address::client_address;
pub use api_error::ApiError;
pub use context::{Context, part};
pub use error::{Error, Explanation};
pub use error_page::render_errors;
pub use user_agent::{keep_user_agent, user_agent};
