//! What the measurements share: a database that does nothing.

mod null;

pub use null::{Null, NullConnection, NullOptions};
