//! Values of PostgreSQL's types, as the server itself encodes them: what it
//! sends is bound again, and shown.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::{Oid, PgCiText, PgLQuery, PgLTree};
use sqlx::postgres::{PgArgumentBuffer, PgPool, PgTypeInfo};
use sqlx::{AssertSqlSafe, Executor, Postgres, Row, Type, ValueRef};

use super::types::case;
use super::{Shown, shown_of};
use crate::databases::Database;

/// Bytes that are bound as they are, with a type that is known when it runs.
#[derive(Clone)]
struct Encoded {
    bytes: Vec<u8>,
    info: PgTypeInfo,
}

impl Type<Postgres> for Encoded {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("unknown")
    }
}

impl Encode<'_, Postgres> for Encoded {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.info.clone())
    }
}

/// Expressions, with what is shown of their values and of their kinds.
const BUILT_IN: &[(&str, &str, &str)] = &[
    ("true", "true", "bool"),
    ("'\\x00ff'::BYTEA", "0x00ff", "bytes(2)"),
    ("'a'::\"char\"", "97", "int"),
    ("(-32768)::INT2", "-32768", "int"),
    ("(-2147483648)::INT4", "-2147483648", "int"),
    (
        "(-9223372036854775808)::INT8",
        "-9223372036854775808",
        "int",
    ),
    ("4294967295::OID", "4294967295", "int"),
    ("1.1::FLOAT4", "1.1", "float"),
    ("'-Infinity'::FLOAT8", "-inf", "float"),
    ("'it''s'::TEXT", "\"it's\"", "text(4)"),
    ("'é'::VARCHAR", "\"é\"", "text(2)"),
    ("'ab'::CHAR(3)", "\"ab \"", "text(3)"),
    ("'t'::NAME", "\"t\"", "text(1)"),
    ("'{\"a\": [1, null]}'::JSON", "{\"a\": [1, null]}", "json"),
    ("'{\"a\": [1, null]}'::JSONB", "{\"a\": [1, null]}", "jsonb"),
    ("'$.a[*]'::JSONPATH", "$.\"a\"[*]", "jsonpath"),
    (
        "'67e55044-10b1-426f-9247-bb680e5fe0c8'::UUID",
        "67e55044-10b1-426f-9247-bb680e5fe0c8",
        "uuid",
    ),
    ("'2024-02-29'::DATE", "2024-02-29", "date"),
    ("'4713-01-01 BC'::DATE", "4713-01-01 BC", "date"),
    ("'infinity'::DATE", "infinity", "date"),
    ("'-infinity'::DATE", "-infinity", "date"),
    ("'00:00:00'::TIME", "00:00:00", "time"),
    ("'24:00:00'::TIME", "24:00:00", "time"),
    ("'12:34:56.000789'::TIME", "12:34:56.000789", "time"),
    ("'12:00:00+05:30'::TIMETZ", "12:00:00+05:30", "timetz"),
    ("'12:00:00-00:00:30'::TIMETZ", "12:00:00-00:00:30", "timetz"),
    (
        "'1999-12-31 23:59:59.5'::TIMESTAMP",
        "1999-12-31 23:59:59.500000",
        "timestamp",
    ),
    ("'infinity'::TIMESTAMP", "infinity", "timestamp"),
    ("'-infinity'::TIMESTAMP", "-infinity", "timestamp"),
    (
        "'2024-02-29 12:00:00+02'::TIMESTAMPTZ",
        "2024-02-29 10:00:00+00",
        "timestamptz",
    ),
    ("'infinity'::TIMESTAMPTZ", "infinity", "timestamptz"),
    (
        "'-1 month 3 days -00:00:01.5'::INTERVAL",
        "-1 mons 3 days -00:00:01.500000",
        "interval",
    ),
    ("0::NUMERIC", "0", "numeric"),
    ("10000::NUMERIC", "10000", "numeric"),
    ("(-0.00010)::NUMERIC", "-0.00010", "numeric"),
    (
        "1e-20::NUMERIC(30, 21)",
        "0.000000000000000000010",
        "numeric",
    ),
    (
        "123456789012345678901234567890.5::NUMERIC",
        "123456789012345678901234567890.5",
        "numeric",
    ),
    ("'NaN'::NUMERIC", "NaN", "numeric"),
    ("'Infinity'::NUMERIC", "Infinity", "numeric"),
    ("'-Infinity'::NUMERIC", "-Infinity", "numeric"),
    ("'12.34'::NUMERIC::MONEY", "1234", "money"),
    ("'10.0.0.1'::INET", "10.0.0.1", "inet"),
    ("'10.0.0.1/8'::INET", "10.0.0.1/8", "inet"),
    ("'2001:db8::1'::INET", "2001:db8::1", "inet"),
    ("'2001:db8::1/64'::INET", "2001:db8::1/64", "inet"),
    ("'10.0.0.0/8'::CIDR", "10.0.0.0/8", "cidr"),
    (
        "'08:00:2b:01:02:0f'::MACADDR",
        "08:00:2b:01:02:0f",
        "macaddr",
    ),
    (
        "'08:00:2b:01:02:03:04:05'::MACADDR8",
        "08:00:2b:01:02:03:04:05",
        "macaddr8",
    ),
    ("B'101'", "101", "bit"),
    ("B'1010101011'::VARBIT", "1010101011", "varbit"),
    ("B''::VARBIT", "", "varbit"),
    ("'[1,5)'::INT4RANGE", "[1,5)", "int4range"),
    ("'empty'::INT4RANGE", "empty", "int4range"),
    ("'(,5)'::INT8RANGE", "(,5)", "int8range"),
    ("'[5,)'::INT8RANGE", "[5,)", "int8range"),
    ("'(1.5,2.50]'::NUMRANGE", "(1.5,2.50]", "numrange"),
    (
        "'[2024-01-01,2024-02-01)'::DATERANGE",
        "[2024-01-01,2024-02-01)",
        "daterange",
    ),
    (
        "'[2024-01-01 12:00,2024-02-01]'::TSRANGE",
        "[2024-01-01 12:00:00,2024-02-01 00:00:00]",
        "tsrange",
    ),
    (
        "'[2024-01-01 12:00+00,)'::TSTZRANGE",
        "[2024-01-01 12:00:00+00,)",
        "tstzrange",
    ),
];

/// Types of which the server alone knows what they are.
const OTHERS: &[(&str, &str, &str)] = &[
    ("'{}'::INT4[]", "{}", "int4[]"),
    ("'{1,NULL,3}'::INT4[]", "{1,NULL,3}", "int4[]"),
    ("'{{1,2},{3,4}}'::INT8[]", "{{1,2},{3,4}}", "int8[]"),
    ("'{t,f}'::BOOL[]", "{true,false}", "bool[]"),
    ("'{1.5,-0}'::FLOAT4[]", "{1.5,-0.0}", "float4[]"),
    (
        "ARRAY['a', 'b\"', NULL]",
        "{\"a\",\"b\\\"\",NULL}",
        "text[]",
    ),
    (
        "'{infinity,2024-02-29}'::DATE[]",
        "{infinity,2024-02-29}",
        "date[]",
    ),
    (
        "'{\"[1,5)\",empty}'::INT4RANGE[]",
        "{[1,5),empty}",
        "int4range[]",
    ),
    ("'sad'::mood", "\"sad\"", "text(3)"),
    (
        "ROW(7)::pair",
        "pair:0x00000001000000170000000400000007",
        "pair(16)",
    ),
    (
        "'a'::TSVECTOR",
        "tsvector:0x0000000161000000",
        "tsvector(8)",
    ),
];

/// Has the server encode an expression.
async fn encoded(server: &PgPool, expression: &str) -> (Encoded, Oid) {
    let sql = format!("SELECT x, pg_typeof(x)::OID FROM (SELECT {expression}) AS t (x)");
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(server).await;
    let row = row.unwrap_or_else(|e| panic!("{expression}: {e}"));
    let value = row.try_get_raw(0).unwrap();
    let encoded = Encoded {
        bytes: value.as_bytes().unwrap().to_owned(),
        info: value.type_info().into_owned(),
    };
    (encoded, row.get(1))
}

#[tokio::test]
async fn value_of_each_type_is_shown_as_postgres_encodes_it() {
    let test = "value_of_each_type_is_shown_as_postgres_encodes_it";
    let Some(scratch) = Postgres::scratch(test).await else {
        return;
    };
    let server = PgPool::connect(&scratch.url).await.unwrap();
    let types = "CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (a INT4)";
    server.execute(types).await.unwrap();
    let shown = Shown::<Postgres>::on(&scratch.url);
    for (expression, value, kind) in BUILT_IN {
        let (encoded, oid) = encoded(&server, expression).await;
        let by_oid = Encoded {
            info: PgTypeInfo::with_oid(oid),
            ..encoded.clone()
        };
        let cases = [encoded, by_oid].map(|bound| case(bound, *value, *kind));
        shown.check(cases.into(), expression).await;
    }
    for (expression, value, kind) in OTHERS {
        let (encoded, _) = encoded(&server, expression).await;
        let cases = vec![case(encoded, *value, *kind)];
        shown.check(cases, expression).await;
    }
}

const NOWHERE: &str = "postgres://localhost/test?host=/nonexistent";

fn named(name: &'static str, bytes: &[u8]) -> Encoded {
    Encoded {
        bytes: bytes.to_owned(),
        info: PgTypeInfo::with_name(name),
    }
}

#[tokio::test]
async fn types_that_a_program_names_are_shown_as_far_as_they_are_known() {
    let shown = Shown::<Postgres>::on(NOWHERE);
    let path: PgLTree = "a.b".parse().unwrap();
    let query: PgLQuery = "a.*".parse().unwrap();
    // One dimension with a NULL, of a type with the number 16387.
    let mut moods = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0x40, 3];
    moods.extend([0, 0, 0, 2, 0, 0, 0, 1]);
    moods.extend([0, 0, 0, 3, b's', b'a', b'd', 255, 255, 255, 255]);
    let cases = vec![
        case(PgCiText("Ab".to_owned()), "\"Ab\"", "text(2)"),
        case(path, "a.b", "ltree"),
        case(query, "a.*", "lquery"),
        // An enum, a domain or a composite.
        case(named("mood", b"sad"), "mood:0x736164", "mood(3)"),
        case(
            Encoded {
                bytes: moods,
                info: PgTypeInfo::array_of("mood"),
            },
            "{0x736164,NULL}",
            "mood[]",
        ),
        case(
            Encoded {
                bytes: b"sad".to_vec(),
                info: PgTypeInfo::with_oid(Oid(99_999)),
            },
            "oid99999:0x736164",
            "oid99999(3)",
        ),
    ];
    shown.check(cases, "named by the program").await;
}

#[tokio::test]
async fn bytes_that_do_not_fit_their_type_are_said_not_to() {
    let shown = Shown::<Postgres>::on(NOWHERE);
    let of = |oid: u32, bytes: &[u8]| Encoded {
        bytes: bytes.to_owned(),
        info: PgTypeInfo::with_oid(Oid(oid)),
    };
    let (int4, timestamp, inet, jsonpath) = (23, 1114, 869, 4072);
    // Arrays of a dimension with one element, and of seven.
    let array = |dimensions: u8| {
        let mut bytes = vec![0, 0, 0, dimensions, 0, 0, 0, 0, 0, 0, 0, 23];
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 1].repeat(dimensions.into()));
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 7]);
        let info = <Vec<i32> as Type<Postgres>>::type_info();
        Encoded { bytes, info }
    };
    let unfit = |bound: Encoded, name: &str| {
        let text = format!("<undecodable {name}>");
        case(bound, text.clone(), text)
    };
    let cases = vec![
        case(of(int4, &[0, 0, 0, 7]), "7", "int"),
        unfit(of(int4, &[0, 0, 7]), "int4"),
        unfit(of(int4, &[0; 5]), "int4"),
        unfit(of(16, &[2]), "bool"),
        unfit(of(25, &[0xff]), "text"),
        unfit(of(timestamp, &[0; 7]), "timestamp"),
        // For its kind alone it is not read to its end.
        case(
            of(timestamp, &[0; 9]),
            "<undecodable timestamp>",
            "timestamp",
        ),
        unfit(of(inet, &[2, 32, 0, 5, 1, 2, 3, 4, 5]), "inet"),
        unfit(of(jsonpath, &[2, b'$']), "jsonpath"),
        case(array(6), "{{{{{{7}}}}}}", "int4[]"),
        unfit(array(7), "int4[]"),
    ];
    shown.check(cases, "malformed").await;
}

#[tokio::test]
async fn long_values_of_richer_types_are_cut() {
    let values = shown_of::<Postgres>(NOWHERE, 5, |query| {
        query
            .bind(vec![1, 2])
            .bind(vec![1, 2, 3])
            .bind(vec!["é", "é"])
            .bind(sqlx::types::Uuid::from_u128(1))
            .bind(named("mood", b"happy"))
            .bind(named("mood", b"joyful"))
            .bind("é".repeat(3))
            .bind(vec![255u8; 6])
    });
    assert_eq!(
        values.await,
        "[{1,2}, {1,2,…, {\"é\"…, 00000…, mood:0x6861707079, \
         mood:0x6a6f796675…(6 bytes), \"éé\"…(6 bytes), 0xffffffffff…(6 bytes)]"
    );
}
