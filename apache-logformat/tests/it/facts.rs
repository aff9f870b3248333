//! What a service tells the layer, and what the layer is configured with.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use apache_logformat::{
    AccessLogLayer, ConnectionInfo, ConnectionStatus, Env, Filename, LogFormat, Notes, RemoteUser,
    RequestId, RequestTrailers, Route, Timestamp, WireBytes,
};
use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use tower::{Layer, Service};

use crate::{
    connection::peer,
    lines::{Lines, Script, Step, answer, configured, line, of_request, of_response},
    record::block_on,
};

#[test]
fn unknown_facts_print_as_a_dash() {
    let format = "%h %{c}h %a %{c}a %A %l %u %v %V %p %{local}p %{remote}p %I %O %S %k %L %{c}L \
                  %f %R %{tid}P %{hextid}P %{x}n %{x}e %{x}^ti %{x}^to %{SSL_PROTOCOL}x %{version}c";
    let expected = ["-"; 28].join(" ");
    assert_eq!(configured(format, |layer| layer), expected);
}

#[test]
fn remote_user_may_come_with_the_request() {
    let got = of_request("%u", |extensions| {
        extensions.insert(RemoteUser::new("frank"));
    });
    assert_eq!(got, "frank");
}

#[test]
fn remote_user_of_the_response_wins() {
    let got = line(
        "%u",
        |layer| layer,
        |extensions| {
            extensions.insert(RemoteUser::new("claimed"));
        },
        |_, extensions| {
            extensions.insert(RemoteUser::new("proven"));
        },
    );
    assert_eq!(got, "proven");
}

#[test]
fn empty_remote_user_prints_as_two_quotes() {
    let got = of_response("%u", |extensions| {
        extensions.insert(RemoteUser::from(""));
    });
    assert_eq!(got, r#""""#);
}

#[test]
fn ids_routes_and_files_come_with_request_or_response() {
    let format = "%L %R %f";
    let insert = |extensions: &mut Extensions| {
        extensions.insert(RequestId::new("id\"1"));
        extensions.insert(Route::new("/items/{id}"));
        extensions.insert(Filename::from(String::from("/srv/a\u{1b}b")));
    };
    let expected = r#"id\"1 /items/{id} /srv/a\x1bb"#;
    assert_eq!(of_request(format, insert), expected);
    assert_eq!(of_response(format, insert), expected);
}

#[test]
fn route_that_is_told_wins_over_axums_matched_path() {
    for (told, expected) in [(None, "/items/{id}"), (Some("items"), "items")] {
        let lines = Lines::default();
        let router = axum::Router::<()>::new()
            .route("/items/{id}", axum::routing::get(async || "item"))
            .layer(lines.layer("%R"))
            .layer(tower::util::MapRequestLayer::new(
                move |mut request: Request<axum::body::Body>| {
                    if let Some(route) = told {
                        request.extensions_mut().insert(Route::from(route));
                    }
                    request
                },
            ));
        let request = Request::get("/items/7")
            .body(axum::body::Body::empty())
            .unwrap();
        let response = block_on(tower::ServiceExt::oneshot(router, request)).unwrap();
        block_on(response.into_body().collect()).unwrap();
        assert_eq!(lines.only(), expected);
    }
}

#[test]
fn notes_set_until_the_end_of_the_body_are_printed() {
    let lines = Lines::default();
    let kept: Arc<Mutex<Option<Notes>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let service = answer(move |request: Request<()>| {
        let notes = request
            .extensions()
            .get::<Notes>()
            .expect("the layer adds notes");
        notes.set("sql_count", "1");
        *keep.lock().unwrap() = Some(notes.clone());
        Response::new(Script::new([Step::Data("x")]))
    });
    let mut service = lines
        .layer("%{sql_count}n %{SQL_Count}n %{late}n %{none}n")
        .layer(service);
    let response = block_on(service.call(Request::new(()))).unwrap();
    let notes = kept.lock().unwrap().take().unwrap();
    notes.set("SQL_COUNT", 3.to_string());
    notes.set("late", "a\"b\n");
    block_on(response.into_body().collect()).unwrap();
    assert_eq!(lines.only(), r#"3 3 a\"b\n -"#);
    assert_eq!(notes.get("Sql_Count").unwrap(), b"3");
    assert_eq!(notes.get("none"), None);
}

#[test]
fn notes_that_the_request_brings_are_used() {
    let notes = Notes::new();
    notes.set("trace", "abc");
    let got = line(
        "%{trace}n %{inner}n",
        |layer| layer,
        {
            let notes = notes.clone();
            move |extensions| {
                extensions.insert(notes);
            }
        },
        |request, _| request.get::<Notes>().unwrap().set("inner", "def"),
    );
    assert_eq!(got, "abc def");
    assert_eq!(notes.get("inner").unwrap(), b"def");
}

#[test]
fn env_is_a_table_of_its_own() {
    let got = line(
        "%{DEPLOY}e %{deploy}e %{PATH}e %{DEPLOY}n",
        |layer| layer,
        |_| {},
        |request, _| request.get::<Env>().unwrap().set("Deploy", "blue"),
    );
    assert_eq!(got, "blue blue - -");
}

#[test]
fn tables_are_only_added_when_a_format_prints_them() {
    for (format, notes, env, trailers) in [
        ("%h", false, false, false),
        ("%{x}n", true, false, false),
        ("%{x}e", false, true, false),
        ("%{x}^ti", false, false, true),
    ] {
        line(
            format,
            |layer| layer,
            |_| {},
            move |request, _| {
                assert_eq!(request.get::<Notes>().is_some(), notes, "{format}");
                assert_eq!(request.get::<Env>().is_some(), env, "{format}");
                assert_eq!(
                    request.get::<RequestTrailers>().is_some(),
                    trailers,
                    "{format}"
                );
            },
        );
    }
}

#[test]
fn request_trailers_are_those_that_the_reader_set() {
    let got = line(
        "%{X-Sum}^ti %{none}^ti",
        |layer| layer,
        |_| {},
        |request, _| {
            let trailers = request.get::<RequestTrailers>().unwrap();
            let mut fields = HeaderMap::new();
            fields.append("x-sum", HeaderValue::from_static("a"));
            fields.append("x-sum", HeaderValue::from_static("b"));
            trailers.set(fields);
            trailers.set(HeaderMap::new());
        },
    );
    assert_eq!(got, "a, b -");
}

#[test]
fn wire_bytes_are_those_counted_until_the_end() {
    let wire = WireBytes::new();
    wire.add_received(100);
    let counter = wire.clone();
    let got = line(
        "%I %O %S",
        |layer| layer,
        move |extensions| {
            extensions.insert(wire);
        },
        move |_, _| {
            counter.add_received(5);
            counter.add_sent(2000);
        },
    );
    assert_eq!(got, "105 2000 2105");
}

#[test]
fn server_name_and_port_are_configured() {
    let format = "%v %p %{canonical}p %V";
    for (layer, expected) in [
        (configured(format, |layer| layer), "- - - -"),
        (
            configured(format, |layer| layer.server_name("Www.Example.COM")),
            "Www.Example.COM 80 80 Www.Example.COM",
        ),
        (
            configured(format, |layer| layer.server_name("a\"b").server_port(8443)),
            "a\\\"b 8443 8443 a\\\"b",
        ),
        (
            configured(format, |layer| layer.server_port(8080)),
            "- 8080 8080 -",
        ),
    ] {
        assert_eq!(layer, expected);
    }
}

#[test]
fn process_is_the_one_that_runs_unless_told() {
    assert_eq!(
        configured("%P", |layer| layer),
        std::process::id().to_string()
    );
    assert_eq!(configured("%P %{pid}P", |layer| layer.process_id(7)), "7 7");
}

#[test]
fn clock_is_read_at_begin_head_and_end_and_no_oftener() {
    for (format, reads, expected) in [
        ("%{sec}t", 1, "1000"),
        ("%{sec}t %D", 2, "1000 1000000"),
        (
            "%{sec}t %^FB %D %{end:sec}t",
            3,
            "1000 1000000 2000000 1002",
        ),
        ("%{end:sec}t", 2, "1001"),
        ("%h %{x}T", 0, "- x"),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let clock = move || {
            let read = counter.fetch_add(1, Ordering::Relaxed);
            Timestamp::from_micros((1000 + read as i64) * 1_000_000)
        };
        assert_eq!(configured(format, |layer| layer.clock(clock)), expected);
        assert_eq!(count.load(Ordering::Relaxed), reads, "{format}");
    }
}

#[test]
fn clock_that_panics_does_not_hurt_the_request() {
    let mut attempts = (0..3).map(|_| {
        let before = Timestamp::now().as_micros();
        let got = configured("%{usec}t %>s", |layer| {
            layer.clock(|| panic!("in the clock"))
        });
        let (micros, status) = got.split_once(' ').unwrap();
        assert_eq!(status, "200");
        micros.parse::<i64>().unwrap() >= before
    });
    assert!(attempts.any(|is_now| is_now), "unless the clock was set");
}

#[test]
fn time_comes_from_the_system_by_default() {
    let mut attempts = (0..3).map(|_| {
        let before = Timestamp::now().as_micros();
        let got = configured("%{usec}t %{end:usec}t %D %^FB", |layer| layer);
        let after = Timestamp::now().as_micros() + Duration::from_secs(5).as_micros() as i64;
        let numbers: Vec<i64> = got
            .split(' ')
            .map(|number| number.parse().unwrap())
            .collect();
        let [begin, end, duration, first] = numbers[..] else {
            panic!("{got}");
        };
        assert!(begin <= end, "{got}");
        assert_eq!(end - begin, duration, "{got}");
        assert!((0..=duration).contains(&first), "{got}");
        before <= begin && end <= after
    });
    assert!(attempts.any(|is_now| is_now), "unless the clock was set");
}

#[test]
fn header_fields_are_captured_with_their_repeats() {
    let lines = Lines::default();
    let service = answer(|_: Request<()>| {
        Response::builder()
            .header("x-out", "1")
            .header("x-out", "2")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .header("content-type", "text/html ; charset=utf-8")
            .body(Empty::<Bytes>::new())
            .unwrap()
    });
    let format = "%{X-In}i|%{x-empty}i|%{none}i|%{X-Out}o|%{Set-Cookie}o|%{Content-Type}o|%{a b}i";
    let mut service = lines
        .layer(format)
        .redaction(apache_logformat::Redaction::none())
        .layer(service);
    let request = Request::get("/")
        .header("x-in", "1")
        .header("x-other", "0")
        .header("x-in", "")
        .header("x-in", "3")
        .header("x-empty", "")
        .body(())
        .unwrap();
    block_on(service.call(request)).unwrap();
    assert_eq!(lines.only(), "1, , 3||-|1|a=1, b=2|text/html|-");
}

#[test]
fn cookies_of_http_2_are_joined_as_one_field() {
    for (version, expected) in [
        (http::Version::HTTP_2, "a=1; b=2 1 2"),
        (http::Version::HTTP_3, "a=1; b=2 1 2"),
        (http::Version::HTTP_11, "a=1, b=2 1, b=2 -"),
        (http::Version::HTTP_10, "a=1, b=2 1, b=2 -"),
    ] {
        let lines = Lines::default();
        let mut service = lines
            .layer("%{Cookie}i %{a}C %{B}C")
            .redaction(apache_logformat::Redaction::none())
            .layer(answer(
                |_: Request<()>| Response::new(Empty::<Bytes>::new()),
            ));
        let request = Request::get("/")
            .version(version)
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        block_on(service.call(request)).unwrap();
        assert_eq!(lines.only(), expected, "{version:?}");
    }
}

#[test]
fn record_of_one_request_leaves_nothing_in_the_next() {
    // A thread uses its records again.
    let format = "%h %u %L %R %f %k %{c}L %{x}n %{x}e %I %X %{X-A}i %{a}C %{X-A}o %B %r %V";
    let full = line(
        format,
        |layer| layer,
        |extensions| {
            let connection = ConnectionInfo::new(peer()).keepalives(4).id("c");
            extensions.insert(connection);
            extensions.insert(RemoteUser::new("frank"));
            extensions.insert(RequestId::from("r"));
            extensions.insert(Route::from("/x"));
            extensions.insert(Filename::from("/f"));
            extensions.insert(WireBytes::new());
            extensions.insert(ConnectionStatus::Aborted);
        },
        |request, _| {
            request.get::<Notes>().unwrap().set("x", "note");
            request.get::<Env>().unwrap().set("x", "env");
        },
    );
    assert_eq!(
        full,
        "192.0.2.7 frank r /x /f 4 c note env 0 X - - - 0 GET / HTTP/1.1 -"
    );
    let empty = configured(format, |layer| layer);
    assert_eq!(empty, "- - - - - - - - - - + - - - 0 GET / HTTP/1.1 -");
}

#[test]
fn format_in_use_can_be_that_of_another_layer() {
    // Two layers around each other: each writes its own line from its own record.
    let (inner, outer) = (Lines::default(), Lines::default());
    let service = answer(|_: Request<()>| Response::new(Script::new([Step::Data("four")])));
    let service = inner.layer("inner %m %B").layer(service);
    let mut service = outer.layer("outer %U %B").layer(service);
    let response = block_on(service.call(Request::get("/u").body(()).unwrap())).unwrap();
    block_on(response.into_body().collect()).unwrap();
    assert_eq!(inner.only(), "inner GET 4");
    assert_eq!(outer.only(), "outer /u 4");
}

#[test]
fn setter_called_later_does_not_change_services_made_before() {
    let lines = Lines::default();
    let layer = lines.layer("%v");
    let mut before = layer.layer(answer(
        |_: Request<()>| Response::new(Empty::<Bytes>::new()),
    ));
    let _after = layer.server_name("late");
    block_on(before.call(Request::new(()))).unwrap();
    assert_eq!(lines.only(), "-");
}

#[test]
fn layer_and_its_parts_can_be_shared_between_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<AccessLogLayer>();
    check::<apache_logformat::AccessLog<()>>();
    check::<apache_logformat::ResponseFuture<()>>();
    check::<apache_logformat::ResponseBody<()>>();
    check::<LogFormat>();
    check::<Notes>();
    check::<ConnectionInfo>();
}
