//! The crate as its users see it: through the public API, on real databases.

mod smoke;
