//! The link shortener that the `service` program serves.
