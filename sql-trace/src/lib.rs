//! Times every sqlx statement into your own logger, with its arguments.
