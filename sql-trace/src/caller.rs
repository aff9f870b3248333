use std::sync::{Mutex, PoisonError};

use backtrace::Frame;

use crate::args::ArgsMode;
use crate::event::{Caller, Event, Op};
use crate::tracer::Tracer;

/// Finds the place in the program that an event comes from.
pub(crate) struct WithCaller<T> {
    pub(crate) tracer: T,
}

impl<T: Tracer> Tracer for WithCaller<T> {
    fn enabled(&self, op: Op) -> bool {
        self.tracer.enabled(op)
    }

    fn args_mode(&self) -> ArgsMode {
        self.tracer.args_mode()
    }

    fn trace(&self, event: &Event<'_>) {
        let place = find();
        self.tracer.trace(&Event {
            caller: place
                .as_ref()
                .map(|(file, line)| Caller { file, line: *line }),
            ..*event
        });
    }
}

/// The innermost function on the stack that belongs to none of the crates a
/// statement passes through. While it is being polled, a task's stack holds
/// each `async` function at the line where it waits.
fn find() -> Option<(String, u32)> {
    // Resolving symbols is not to be done by two threads at once.
    static ONE: Mutex<()> = Mutex::new(());

    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = None;
    backtrace::trace(|frame| {
        found = place_of(frame);
        found.is_none()
    });
    found
}

fn place_of(frame: &Frame) -> Option<(String, u32)> {
    let mut place = None;
    backtrace::resolve_frame(frame, |symbol| {
        let (Some(name), Some(file), Some(line), None) =
            (symbol.name(), symbol.filename(), symbol.lineno(), &place)
        else {
            return;
        };
        let file = file.display().to_string();
        if !is_passed_through(&name.to_string()) && !is_of_a_library(&file) {
            place = Some((file, line));
        }
    });
    place
}

/// Whether a function is one of a crate between the program and the tracer.
fn is_passed_through(function: &str) -> bool {
    const CRATES: [&str; 16] = [
        "alloc",
        "async_std",
        "axum",
        "backtrace",
        "core",
        "futures",
        "futures_core",
        "futures_util",
        "hyper",
        "sql_trace",
        "smol",
        "std",
        "tokio",
        "tower",
        "tower_http",
        "tracing",
    ];
    // `<sqlx_core::query::Query<DB> as …>::execute::{{closure}}`
    let path = function.trim_start_matches(['<', '&', '*', '(', '[', ' ']);
    let path = path.strip_prefix("mut ").unwrap_or(path);
    let path = path.strip_prefix("dyn ").unwrap_or(path);
    let first = path.split(':').next().unwrap_or(path);
    first.starts_with("sqlx")
        || first.starts_with("__")
        || first.starts_with("_")
        || CRATES.contains(&first)
}

/// Whether a file is one of the standard library, of a crate that cargo
/// fetched, of this one, or in another language. What was inlined may have no
/// more than a short name of its function.
fn is_of_a_library(file: &str) -> bool {
    !file.ends_with(".rs")
        || file.starts_with(concat!(env!("CARGO_MANIFEST_DIR"), "/src/"))
        || ["/rustc/", "/registry/src/", "/git/checkouts/"]
            .iter()
            .any(|fetched| file.contains(fetched))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_libraries_are_passed_through() {
        for function in [
            "sql_trace::span::Span<DB>::tell",
            "<sqlx_core::query::Query<DB,A> as sqlx_core::executor::Execute>::sql",
            "sqlx::query",
            "<&mut core::pin::Pin<P> as core::future::future::Future>::poll",
            "<dyn core::future::future::Future>::poll",
            "std::panicking::try",
            "__rust_try",
            "tokio::runtime::park::CachedParkThread::block_on",
        ] {
            assert!(is_passed_through(function), "{function}");
        }
        for function in [
            "app::users::find::{{closure}}",
            "<app::Repository as app::Users>::find",
            "sql_traces::main",
            "main",
        ] {
            assert!(!is_passed_through(function), "{function}");
        }
    }

    #[test]
    fn files_of_libraries_are_passed_through() {
        for file in [
            "/rustc/0123456789abcdef/library/std/src/rt.rs",
            "/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/anyhow-1.0.0/src/lib.rs",
            "/home/me/.cargo/git/checkouts/anyhow-0123456789abcdef/0123456/src/lib.rs",
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/span.rs"),
            // Where threads begin, if the C library's debugging symbols are installed.
            "./nptl/pthread_create.c",
            "../sysdeps/unix/sysv/linux/x86_64/clone3.S",
        ] {
            assert!(is_of_a_library(file), "{file}");
        }
        for file in ["src/main.rs", "/home/me/app/src/users.rs"] {
            assert!(!is_of_a_library(file), "{file}");
        }
    }
}
