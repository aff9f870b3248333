//! The link shortener that the `service` program serves: a small real
//! application on axum and sqlx, with nothing of listening or deploying in it.
//!
//! [`Store`] keeps the links, [`router`] answers for them, [`Storyteller`] makes
//! one story of each request's log lines. What makes the application deployable
//! is put around it in `src/bin/service.rs`.

mod code;
mod link;
mod page;
mod problem;
mod routes;
mod store;
mod story;

pub use code::Code;
pub use link::{Link, Target, TargetError};
pub use problem::Problem;
pub use routes::{debug_router, router, with_problems};
pub use store::{Store, StoreError, without_password};
pub use story::{STORY, STORY_JSON, Storyteller};

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[doc = include_str!("../MIGRATING.md")]
struct Readme;
