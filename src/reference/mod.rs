//! The API described once: as OpenAPI for programs, and as a page for people.

pub mod api;
mod document;
mod errors;
mod examples;
pub mod pages;
mod parts;
mod schemas;
mod view;
