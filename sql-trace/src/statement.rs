//! What a statement's text tells of what it does.

use memchr::memchr;

use crate::sql::{Dialect, Kind, Token, Tokens};

/// Whether every statement in `sql` is one that changes rows, so that the
/// counts the driver reports are counts of changed rows.
pub(crate) fn changes_rows(sql: &str, dialect: Dialect) -> bool {
    let start = sql.trim_start();
    // Most statements are told by their first letter.
    match start.as_bytes().first() {
        Some(b'-' | b'/' | b'#' | b'(' | b';') => {}
        Some(first) if b"IUDRMW".contains(&first.to_ascii_uppercase()) => {}
        _ => return false,
    }
    let verbs: Vec<Verb> = statements(sql, dialect);
    !verbs.is_empty() && verbs.iter().all(|verb| *verb == Verb::Write)
}

/// Whether `sql` is one statement, and one that only reads.
#[cfg(feature = "sqlite")]
pub(crate) fn reads_only(sql: &str, dialect: Dialect) -> bool {
    statements(sql, dialect) == [Verb::Read]
}

/// A name for statements of this kind, as OpenTelemetry's `db.query.summary`
/// wants it: what is done and to which tables, such as `SELECT users orders`.
///
/// <https://opentelemetry.io/docs/specs/semconv/database/database-spans/#generating-a-summary-of-the-query>
pub(crate) fn summary(sql: &str, dialect: Dialect) -> String {
    const MAX: usize = 255;
    let mut summary = String::new();
    let mut table_follows = false;
    let mut first = true;
    let mut tokens = significant(sql, dialect).peekable();
    while let Some(token) = tokens.next() {
        if token.text == ";" {
            first = true;
            continue;
        }
        let is_name = matches!(token.kind, Kind::Word | Kind::Quoted);
        let piece = if table_follows && is_name && !is_any(token, &["ONLY", "IF", "NOT", "EXISTS"])
        {
            table_follows = false;
            let mut name = token.text.to_owned();
            while tokens.next_if(|token| token.text == ".").is_some() {
                name.push('.');
                if let Some(token) = tokens.next() {
                    name.push_str(token.text);
                }
            }
            name
        } else if first && token.kind == Kind::Word {
            first = false;
            table_follows = is_any(token, &["UPDATE", "TRUNCATE"]);
            token.text.to_ascii_uppercase()
        } else {
            if is_any(token, &["FROM", "INTO", "JOIN", "TABLE"]) {
                table_follows = true;
            } else if token.text == "(" {
                // A subquery stands where a table could.
                table_follows = false;
            } else if token.kind == Kind::Word && is_any(token, &["SELECT", "INSERT", "DELETE"]) {
                push(&mut summary, &token.text.to_ascii_uppercase());
            }
            continue;
        };
        push(&mut summary, &piece);
        if summary.len() > MAX {
            summary.truncate(summary.floor_char_boundary(MAX));
            break;
        }
    }
    summary
}

fn push(summary: &mut String, piece: &str) {
    if !summary.is_empty() {
        summary.push(' ');
    }
    summary.push_str(piece);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Read,
    Write,
    Other,
}

/// What each of the statements in `sql` does, without the empty ones.
fn statements(sql: &str, dialect: Dialect) -> Vec<Verb> {
    if memchr(b';', sql.as_bytes()).is_none() {
        return verb(&mut significant(sql, dialect)).into_iter().collect();
    }
    let mut verbs = Vec::new();
    let mut tokens = significant(sql, dialect).peekable();
    while tokens.peek().is_some() {
        let mut statement = tokens.by_ref().take_while(|token| token.text != ";");
        verbs.extend(verb(&mut statement));
        // `verb` stops as soon as it knows.
        statement.for_each(drop);
    }
    verbs
}

fn verb<'t>(statement: &mut impl Iterator<Item = Token<'t>>) -> Option<Verb> {
    let mut depth = 0usize;
    let mut with = false;
    let mut any = false;
    for token in statement {
        any = true;
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            // The names that `WITH` defines come before the verb.
            _ if with && depth > 0 => {}
            _ if token.kind != Kind::Word => {
                if !with {
                    return Some(Verb::Other);
                }
            }
            _ if is_any(token, &["INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"]) => {
                return Some(Verb::Write);
            }
            _ if is_any(token, &["SELECT", "VALUES"]) => return Some(Verb::Read),
            _ if is_any(token, &["WITH"]) => with = true,
            _ => {
                if !with {
                    return Some(Verb::Other);
                }
            }
        }
    }
    any.then_some(Verb::Other)
}

fn significant(sql: &str, dialect: Dialect) -> impl Iterator<Item = Token<'_>> {
    Tokens::of(sql, dialect).filter(|token| !matches!(token.kind, Kind::Blank | Kind::Comment))
}

fn is_any(token: Token<'_>, words: &[&str]) -> bool {
    token.kind == Kind::Word
        && words
            .iter()
            .any(|word| word.eq_ignore_ascii_case(token.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_change_rows_are_told() {
        for sql in [
            "INSERT INTO t VALUES (1)",
            "insert into t select * from u",
            "  -- note\n UPDATE t SET a = 1;",
            "/* x */ DELETE FROM t",
            "REPLACE INTO t VALUES (';')",
            "MERGE INTO t USING u ON a = b WHEN MATCHED THEN DELETE",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            "WITH x(a, b) AS (VALUES (1, 2)), y AS (SELECT 2) UPDATE t SET a = 1",
            "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2);",
        ] {
            assert!(changes_rows(sql, Dialect::Postgres), "{sql}");
        }
        for sql in [
            "SELECT 1",
            "CREATE TABLE t (a INT)",
            "INSERT INTO t VALUES (1); SELECT 1",
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x",
            "(SELECT 1)",
            "DROP TABLE t",
            "INSERTED",
            "",
            " ; ",
            "-- DELETE FROM t",
        ] {
            assert!(!changes_rows(sql, Dialect::Postgres), "{sql}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn statements_that_only_read_are_told() {
        for sql in [
            "SELECT 1",
            "select ';' ;",
            "VALUES (1)",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "(SELECT 1) UNION (SELECT 2)",
            "-- note\nSELECT 1",
        ] {
            assert!(reads_only(sql, Dialect::Sqlite), "{sql}");
        }
        for sql in [
            "SELECT 1; SELECT 2",
            "SELECT 1; DROP TABLE t",
            "WITH x AS (SELECT 1) DELETE FROM t",
            "PRAGMA foreign_keys = off",
            "EXPLAIN SELECT 1",
            "INSERT INTO t VALUES (1)",
            "",
        ] {
            assert!(!reads_only(sql, Dialect::Sqlite), "{sql}");
        }
    }

    #[test]
    fn summary_names_what_is_done_and_to_what() {
        for (sql, expected) in [
            ("SELECT * FROM users WHERE id = ?", "SELECT users"),
            (
                "select a from users u join \"Order Items\" i on u.id = i.u",
                "SELECT users \"Order Items\"",
            ),
            ("INSERT INTO app.t (a) VALUES ($1)", "INSERT app.t"),
            ("INSERT INTO t SELECT * FROM u", "INSERT t SELECT u"),
            ("UPDATE t SET a = 1", "UPDATE t"),
            ("DELETE FROM ONLY t", "DELETE t"),
            ("SELECT * FROM (SELECT 1 FROM u) x", "SELECT SELECT u"),
            ("CREATE TABLE IF NOT EXISTS t (a INT)", "CREATE t"),
            ("SELECT 1; DELETE FROM t", "SELECT DELETE t"),
            ("SELECT 'FROM secret'", "SELECT"),
            ("", ""),
        ] {
            assert_eq!(summary(sql, Dialect::Postgres), expected, "{sql}");
        }
        let long = format!("SELECT * FROM {}", "é".repeat(300));
        assert!(summary(&long, Dialect::Sqlite).len() <= 255);
    }
}
