use crate::sql::{Dialect, Kind, Tokens};

/// Masks the literals of a statement: each number and string becomes `?`.
///
/// Comments, which may hold values as well, become a blank; but MySQL's
/// `/*! … */`, which is run, stays. What is quoted as an identifier stays too,
/// and what has no end is masked up to the end of the text. It is what
/// [`Tracer::obfuscate`](crate::Tracer::obfuscate) does to each event.
///
/// # Examples
///
/// ```
/// use sql_trace::{Dialect, obfuscate};
///
/// let masked = obfuscate("SELECT * FROM t WHERE name = 'it''s' -- 7", Dialect::Sqlite);
/// assert_eq!(masked, "SELECT * FROM t WHERE name = ?");
/// ```
#[must_use]
pub fn obfuscate(statement: &str, dialect: Dialect) -> String {
    let mut out = String::with_capacity(statement.len());
    for token in Tokens::of(statement, dialect) {
        match token.kind {
            Kind::String | Kind::Number => out.push('?'),
            Kind::Comment => {
                if !out.ends_with([' ', '\n']) {
                    out.push(' ');
                }
            }
            Kind::Blank | Kind::Word | Kind::Quoted | Kind::Parameter | Kind::Symbol => {
                out.push_str(token.text);
            }
        }
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literals_become_question_marks() {
        for (statement, dialect, expected) in [
            (
                "SELECT a1 FROM t WHERE id = 42 AND name = 'it''s' -- 7\nLIMIT 10",
                Dialect::Sqlite,
                "SELECT a1 FROM t WHERE id = ? AND name = ? \nLIMIT ?",
            ),
            (
                "INSERT INTO t VALUES (1, -2.5, X'41', NULL, ?1)",
                Dialect::Sqlite,
                "INSERT INTO t VALUES (?, -?, ?, NULL, ?1)",
            ),
            (
                r#"SELECT "a 1", $1, $$x$$, E'a\'b', a[2]::int4 FROM t /* 5 */"#,
                Dialect::Postgres,
                r#"SELECT "a 1", $1, ?, ?, a[?]::int4 FROM t"#,
            ),
            (
                "SELECT $t1$a$t1$, B'01', U&'\\0061', 1e-3, .5, a$1 FROM \"t 1\"",
                Dialect::Postgres,
                "SELECT ?, ?, ?, ?, ?, a$1 FROM \"t 1\"",
            ),
            (
                "SELECT [a 1], `b 2`, \"c 3\", 0x1F, :d, @e, $f FROM t",
                Dialect::Sqlite,
                "SELECT [a 1], `b 2`, \"c 3\", ?, :d, @e, $f FROM t",
            ),
            (
                "SELECT 5--5, N'a', _utf8'b', b'01', @v FROM t WHERE a = 'never ends",
                Dialect::MySql,
                "SELECT ?--?, ?, _utf8?, ?, @v FROM t WHERE a = ?",
            ),
            (
                r#"SELECT `a 1`, "x", 'a\'b', 0x41 FROM t # 5"#,
                Dialect::MySql,
                "SELECT `a 1`, ?, ?, ? FROM t",
            ),
            (
                "/*!40101 SET a = 'b' */",
                Dialect::MySql,
                "/*!40101 SET a = ? */",
            ),
        ] {
            assert_eq!(obfuscate(statement, dialect), expected);
        }
    }

    /// Quotes a text as a literal of the dialect.
    fn quote(text: &str, dialect: Dialect, style: usize) -> String {
        let doubled = text.replace('\'', "''");
        match (dialect, style % 3) {
            (Dialect::Sqlite, _) | (Dialect::Postgres, 0) => format!("'{doubled}'"),
            (Dialect::Postgres, 1) => format!("E'{}'", doubled.replace('\\', "\\\\")),
            (Dialect::Postgres, _) => format!("$q${}$q$", text.replace('$', "")),
            (Dialect::MySql, 0) => format!("'{}'", doubled.replace('\\', "\\\\")),
            (Dialect::MySql, _) => {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            }
        }
    }

    fn dialect() -> impl Strategy<Value = Dialect> {
        prop_oneof![
            Just(Dialect::Sqlite),
            Just(Dialect::Postgres),
            Just(Dialect::MySql)
        ]
    }

    proptest! {
        #[test]
        fn no_literal_shows(
            dialect in dialect(),
            style in 0usize..3,
            before in "[ a-z'\"\\\\$`;-]{0,12}",
            after in "[ a-z'\"\\\\$`;-]{0,12}",
            number in 100_000u32..,
        ) {
            let secret = format!("{before}SECRET{after}");
            let literal = quote(&secret, dialect, style);
            let statement = format!("SELECT {number} AS a, {literal} AS b FROM t WHERE c = {literal}");
            let masked = obfuscate(&statement, dialect);
            prop_assert_eq!(masked, "SELECT ? AS a, ? AS b FROM t WHERE c = ?");
        }

        #[test]
        fn masking_twice_changes_nothing(dialect in dialect(), statement in any::<String>()) {
            // Of dashes in a row the last two can begin a comment, and then the
            // two before them.
            prop_assume!(!statement.contains("---"));
            let once = obfuscate(&statement, dialect);
            prop_assert_eq!(obfuscate(&once, dialect), once);
        }

        #[test]
        fn tokens_are_the_whole_statement(dialect in dialect(), statement in "[ a-z0-9'\"\\\\$`;:?@#*/!é.\n-]{0,40}") {
            let whole: String = Tokens::of(&statement, dialect).map(|token| token.text).collect();
            prop_assert_eq!(whole, statement);
        }
    }
}
