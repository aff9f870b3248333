//! The databases that the tests run on.

use std::io::Write;
use std::sync::{Arc, Mutex, Weak};

use sql_trace::{TestMysql, TestPostgres, TestServerError};

/// The PostgreSQL server that the tests running now share. The last of them
/// ends it, so that nothing is left behind.
pub(crate) fn postgres() -> Result<Arc<TestPostgres>, TestServerError> {
    static SERVER: Mutex<Weak<TestPostgres>> = Mutex::new(Weak::new());
    shared(&SERVER, TestPostgres::start)
}

/// The MariaDB server that the tests running now share.
pub(crate) fn mysql() -> Result<Arc<TestMysql>, TestServerError> {
    static SERVER: Mutex<Weak<TestMysql>> = Mutex::new(Weak::new());
    shared(&SERVER, TestMysql::start)
}

fn shared<S>(
    server: &Mutex<Weak<S>>,
    start: impl FnOnce() -> Result<S, TestServerError>,
) -> Result<Arc<S>, TestServerError> {
    let mut server = server
        .lock()
        .expect("no test panics while it starts a server");
    if let Some(running) = server.upgrade() {
        return Ok(running);
    }
    let started = Arc::new(start()?);
    *server = Arc::downgrade(&started);
    Ok(started)
}

/// Whether the test must be left out for want of PostgreSQL, which is said on
/// standard error.
pub(crate) fn postgres_is_missing(test: &str) -> bool {
    is_missing(test, postgres().err())
}

pub(crate) fn mysql_is_missing(test: &str) -> bool {
    is_missing(test, mysql().err())
}

fn is_missing(test: &str, error: Option<TestServerError>) -> bool {
    let Some(e) = error else {
        return false;
    };
    assert!(
        e.to_string().contains("is installed") && std::env::var_os("TEST_REQUIRE_ALL").is_none(),
        "{test}: {e}"
    );
    // Around the test harness, which would keep it to itself.
    let _ = writeln!(std::io::stderr(), "LEFT OUT {test}: {e}");
    true
}
