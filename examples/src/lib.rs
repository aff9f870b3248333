//! The link shortener that the `service` program serves: a small real
//! application on axum and sqlx, with nothing of logging, listening or
//! deploying in it.
//!
//! [`Store`] keeps the links, [`router`] answers for them. What makes the
//! application deployable is put around it in `src/bin/service.rs`.

mod code;
mod link;
mod page;
mod problem;
mod routes;
mod store;

pub use code::Code;
pub use link::{Link, Target, TargetError};
pub use problem::Problem;
pub use routes::{debug_router, router, with_problems};
pub use store::{Store, StoreError};
