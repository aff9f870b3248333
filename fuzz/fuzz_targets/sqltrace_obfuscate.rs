//! Any text as a statement: masked the same a second time, and a literal that is
//! put into it does not show.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sql_trace::{Dialect, obfuscate};

fuzz_target!(|input: (&str, &str, u8)| {
    let (statement, secret, choice) = input;
    let dialect = match choice % 3 {
        0 => Dialect::Sqlite,
        1 => Dialect::Postgres,
        _ => Dialect::MySql,
    };
    let masked = obfuscate(statement, dialect);
    // Of dashes in a row the last two can begin a comment, and then the two
    // before them.
    if !statement.contains("---") {
        assert_eq!(obfuscate(&masked, dialect), masked);
    }
    assert!(masked.len() <= statement.len() + 1);

    let secret = format!("S3CRET{}", secret.replace('\0', ""));
    let literal = match (dialect, choice / 3 % 3) {
        (Dialect::Postgres, 1) => {
            let doubled = secret.replace('\\', "\\\\").replace('\'', "''");
            format!("E'{doubled}'")
        }
        (Dialect::Postgres, 2) => format!("$t1${}$t1$", secret.replace('$', "")),
        (Dialect::MySql, 1) => {
            let doubled = secret.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{doubled}\"")
        }
        (Dialect::MySql, _) => {
            let doubled = secret.replace('\\', "\\\\").replace('\'', "''");
            format!("'{doubled}'")
        }
        _ => format!("'{}'", secret.replace('\'', "''")),
    };
    let whole = format!("SELECT {literal} FROM t WHERE a = {literal}");
    assert_eq!(obfuscate(&whole, dialect), "SELECT ? FROM t WHERE a = ?");
});
