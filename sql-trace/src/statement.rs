/// Whether a statement is one that changes rows, so that the count the driver
/// reports for it is a count of changed rows.
pub(crate) fn changes_rows(sql: &str) -> bool {
    let sql = sql.trim_start();
    let end = sql
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(sql.len());
    const VERBS: [&str; 5] = ["INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"];
    VERBS
        .iter()
        .any(|verb| verb.eq_ignore_ascii_case(&sql[..end]))
        && !sql.trim_end().trim_end_matches(';').contains(';')
}
