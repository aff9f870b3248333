use tracing_subscriber::fmt::MakeWriter;

use crate::non_blocking::NonBlocking;
use crate::rotatelogs::RotateLogs;

/// Lets a `tracing-subscriber` layer write to the log: `.with_writer(logs)`.
impl<'a> MakeWriter<'a> for RotateLogs {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// Lets a `tracing-subscriber` layer write to the log: `.with_writer(log)`.
impl<'a> MakeWriter<'a> for NonBlocking {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}
