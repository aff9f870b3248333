//! Objects of JSON, one a line.

use std::time::Duration;

use futures_util::StreamExt;
use sql_trace::{ArgsMode, Tracer, json, trace_scope};
use sqlx::Executor;

use super::{Log, pool};

#[tokio::test]
async fn json_lines_hold_every_fact() {
    let log = Log::default();
    let tracer = json(log.clone()).args(ArgsMode::Values { max: 6 });
    let pool = pool(tracer).await;
    let opened: serde_json::Value = serde_json::from_str(&log.take()[0]).unwrap();
    assert_eq!(opened["op"], "Open");
    let connection = opened["connection"].clone();
    assert!(connection.is_u64());
    sqlx::query("SELECT ?, ?, ?, ?, ?, ?, ?")
        .bind(-1)
        .bind(1.5)
        .bind("a\n\"é\"")
        .bind("too long a text")
        .bind(vec![0u8, 255])
        .bind(None::<i64>)
        .bind(f64::INFINITY)
        .fetch_all(&pool)
        .await
        .unwrap();
    let line = log.take().remove(0);
    let mut fact: serde_json::Value = serde_json::from_str(&line).unwrap();
    for key in ["elapsed", "acquire", "first_row"] {
        let seconds = fact[key].take().as_f64().unwrap();
        assert!((0.0..60.0).contains(&seconds), "{key}: {seconds}");
    }
    let time = fact["time"].take();
    let time: chrono::DateTime<chrono::Utc> = time.as_str().unwrap().parse().unwrap();
    assert!((chrono::Utc::now() - time).num_seconds().abs() < 60);
    assert_eq!(
        fact,
        serde_json::json!({
            "time": null, "elapsed": null, "acquire": null, "first_row": null,
            "op": "Query", "database": "SQLite", "namespace": fact["namespace"],
            "connection": connection, "statement": "SELECT ?, ?, ?, ?, ?, ?, ?",
            "args": [-1, 1.5, "a\n\"é\"", "\"too lo\"…(15 bytes)", "0x00ff", null, "inf"],
            "outcome": "ok", "rows_returned": 1,
        })
    );
    (&pool).execute("CREATE TABLE t (a)").await.unwrap();
    let created: serde_json::Value = serde_json::from_str(&log.take()[0]).unwrap();
    assert_eq!(created.get("rows_affected"), None);
    let insert = trace_scope("r1").run((&pool).execute("INSERT INTO t VALUES (1), (2)"));
    insert.await.unwrap();
    let inserted: serde_json::Value = serde_json::from_str(&log.take()[0]).unwrap();
    assert_eq!(inserted["rows_affected"], 2);
    assert_eq!(inserted["request"], "r1");
    let mut rows = (&pool).fetch("SELECT 1 UNION SELECT 2");
    while let Some(row) = rows.next().await {
        row.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(rows);
    let read: serde_json::Value = serde_json::from_str(&log.take()[0]).unwrap();
    assert_eq!(read["rows_returned"], 2);
    assert!(read["consumer"].as_f64().unwrap() >= 0.004, "{read}");
    (&pool).execute("SELECT nope").await.unwrap_err();
    let failed: serde_json::Value = serde_json::from_str(&log.take()[0]).unwrap();
    assert_eq!(failed["outcome"], "error");
    assert_eq!(failed["code"], "1");
    assert_eq!(failed["error"], "SQLite 1: no such column: nope");
    assert_eq!(failed["args"], serde_json::json!([]));
    assert_eq!(
        failed.get("first_row"),
        None,
        "what there is not is left out"
    );
}

#[tokio::test]
async fn json_shows_kinds_unless_told_otherwise() {
    let log = Log::default();
    let pool = pool(json(log.clone())).await;
    log.take();
    let query = sqlx::query("SELECT ?, ?").bind("hunter2").bind(7);
    query.execute(&pool).await.unwrap();
    let line = log.take().remove(0);
    assert!(!line.contains("hunter2"), "{line}");
    let fact: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(fact["args"], serde_json::json!(["text(7)", "int"]));
}
