//! Emails that programs submit: `POST /v2/emails`, and `GET /v2/info`.

pub mod acceptor;
mod address_list;
pub mod api;
pub mod batch;
mod html;
pub mod message;
pub mod plain_text;
mod queue;
pub mod store;
