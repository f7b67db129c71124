//! The dashboard in a real browser: Chromium without a window, driven by ChromeDriver, against
//! the server as `main` builds it. `tests/run` provides what they need.

#[path = "../it/support/mod.rs"]
#[macro_use]
#[allow(unused_imports)]
mod support;

mod axe;
mod browser;
mod screens;

mod failures;
mod form;
mod keyboard;
mod life;
mod list;
mod looks;
mod reveal;
mod safety;
mod story;
