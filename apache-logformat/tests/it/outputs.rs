//! Filters, samplings and several logs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use apache_logformat::{AccessLogLayer, Exchange, LogFormat, Output, Sampling, Timestamp};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tower::{Layer, Service};

use crate::{
    lines::{Lines, Script, Step, answer},
    record::block_on,
};

fn format(text: &str) -> LogFormat {
    text.parse().unwrap()
}

/// Sends a request to `layer` around a service that answers with the status in
/// the target's query.
fn send(layer: &AccessLogLayer, target: &str) {
    let mut service = layer.layer(answer(|request: Request<()>| {
        let status = request.uri().query().unwrap_or("200").parse().unwrap();
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }));
    let request = Request::get(target)
        .header("user-agent", "kube-probe/1.30")
        .body(())
        .unwrap();
    block_on(service.call(request)).unwrap();
}

/// A clock that moves on by `micros` at each read.
fn ticking(micros: i64) -> impl Fn() -> Timestamp + Send + Sync {
    let now = AtomicI64::new(1_000_000_000_000_000);
    move || Timestamp::from_micros(now.fetch_add(micros, Ordering::Relaxed))
}

#[test]
fn filter_decides_by_status_path_and_duration() {
    let lines = Lines::default();
    let layer = lines
        .layer("%U %>s")
        .clock(ticking(1500))
        .filter(|exchange| {
            assert_eq!(exchange.duration(), Duration::from_micros(1500));
            assert_eq!(exchange.method, b"GET");
            exchange.status >= 400 || &*exchange.path() != b"/health"
        });
    send(&layer, "/health");
    send(&layer, "//./%68ealth");
    send(&layer, "/health?503");
    send(&layer, "/index");
    assert_eq!(lines.get(), ["/health 503", "/index 200"]);
}

#[test]
fn duration_is_zero_when_the_clock_was_set_back() {
    let mut exchange = Exchange::default();
    exchange.begin = Timestamp::from_micros(5);
    assert_eq!(exchange.duration(), Duration::ZERO);
    exchange.end = Timestamp::from_micros(2005);
    assert_eq!(exchange.duration(), Duration::from_millis(2));
}

#[test]
fn filter_sees_the_query_and_captured_headers() {
    let lines = Lines::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let layer = |layer: AccessLogLayer| {
        let seen = Arc::clone(&seen);
        layer.filter(move |exchange| {
            let agent = exchange
                .request_headers
                .get("User-Agent")
                .map(<[u8]>::to_vec);
            seen.lock()
                .unwrap()
                .push((exchange.query().map(<[u8]>::to_vec), agent));
            false
        })
    };
    send(&layer(lines.layer("%>s")), "/?404");
    send(&layer(lines.layer("%>s")).capture_header("User-Agent"), "/");
    let agent = b"kube-probe/1.30".to_vec();
    assert_eq!(
        *seen.lock().unwrap(),
        [(Some(b"404".to_vec()), None), (None, Some(agent))]
    );
    assert_eq!(lines.get(), [""; 0]);
}

#[test]
fn outputs_have_formats_and_filters_of_their_own() {
    let (all, errors, agents) = (Lines::default(), Lines::default(), Lines::default());
    let layer = all
        .layer("%>s")
        .output(
            Output::new(format("%r -> %>s"), errors.clone())
                .filter(|exchange| exchange.status >= 500),
        )
        .output(Output::new(LogFormat::agent(), agents.clone()));
    send(&layer, "/a");
    send(&layer, "/b?500");
    assert_eq!(all.get(), ["200", "500"]);
    assert_eq!(errors.get(), ["GET /b?500 HTTP/1.1 -> 500"]);
    assert_eq!(agents.get(), ["kube-probe/1.30", "kube-probe/1.30"]);
}

#[test]
fn filter_of_the_layer_holds_for_all_outputs() {
    let (one, two) = (Lines::default(), Lines::default());
    let layer = one
        .layer("%>s")
        .output(Output::new(format("%U"), two.clone()).filter(|_| true))
        .filter(|exchange| exchange.status != 404);
    send(&layer, "/a?404");
    send(&layer, "/b");
    assert_eq!(one.get(), ["200"]);
    assert_eq!(two.get(), ["/b"]);
}

#[test]
fn filter_that_panics_costs_only_its_own_line() {
    let (good, bad) = (Lines::default(), Lines::default());
    let layer = AccessLogLayer::from(
        Output::new(format("%>s"), bad.clone()).filter(|_| panic!("in the filter")),
    )
    .output(Output::new(format("%>s"), good.clone()))
    .on_failure(|error, _| assert_eq!(error.to_string(), "panicked: in the filter"));
    send(&layer, "/");
    assert_eq!(bad.get(), [""; 0]);
    assert_eq!(good.get(), ["200"]);
    assert_eq!(layer.failures().count(), 1);
}

#[test]
fn layers_filter_that_panics_costs_no_line() {
    let lines = Lines::default();
    let layer = lines.layer("%>s").filter(|_| panic!("in the filter"));
    send(&layer, "/");
    assert_eq!(lines.get(), ["200"]);
}

fn sampled(lines: &Lines, sampling: Sampling) -> AccessLogLayer {
    let format = format("%>s %{sample_weight}n %{SAMPLE_WEIGHT}n");
    AccessLogLayer::from(Output::new(format, lines.clone()).sampling(sampling))
}

#[test]
fn sampling_keeps_about_one_in_n_and_says_so() {
    let lines = Lines::default();
    let layer = sampled(&lines, Sampling::one_in(10)).clock(ticking(1));
    for _ in 0..10_000 {
        send(&layer, "/");
    }
    let lines = lines.get();
    assert!(
        lines.iter().all(|line| line == "200 10 10"),
        "{:?}",
        lines.first()
    );
    // Five standard deviations: 30 each.
    assert!((850..1150).contains(&lines.len()), "{}", lines.len());
}

#[test]
fn sampling_does_not_beat_with_regular_traffic() {
    // Two kinds of requests in turn: each is sampled alike.
    let lines = Lines::default();
    let layer = AccessLogLayer::from(
        Output::new(format("%U"), lines.clone()).sampling(Sampling::one_in(2)),
    )
    .clock(ticking(1));
    for _ in 0..2000 {
        send(&layer, "/even");
        send(&layer, "/odd");
    }
    let even = lines.get().iter().filter(|line| *line == "/even").count();
    let odd = lines.get().len() - even;
    assert!(
        (800..1200).contains(&even) && (800..1200).contains(&odd),
        "{even} {odd}"
    );
}

#[test]
fn sampling_always_keeps_errors() {
    let lines = Lines::default();
    let layer = sampled(&lines, Sampling::one_in(1_000_000_000)).clock(ticking(1));
    for status in [499, 500, 503, 599] {
        send(&layer, &format!("/?{status}"));
    }
    assert_eq!(lines.get(), ["500 1 1", "503 1 1", "599 1 1"]);

    let lines = Lines::default();
    let layer = sampled(&lines, Sampling::one_in(1_000_000_000).errors_from(400)).clock(ticking(1));
    for status in [200, 399, 400, 404] {
        send(&layer, &format!("/?{status}"));
    }
    assert_eq!(lines.get(), ["400 1 1", "404 1 1"]);
}

#[test]
fn sampling_always_keeps_slow_exchanges() {
    for (micros, sampling, kept) in [
        (999_999, Sampling::one_in(1_000_000_000), false),
        (1_000_000, Sampling::one_in(1_000_000_000), true),
        (
            250_000,
            Sampling::one_in(1_000_000_000).slow_from(Duration::from_millis(250)),
            true,
        ),
        (
            249_999,
            Sampling::one_in(1_000_000_000).slow_from(Duration::from_millis(250)),
            false,
        ),
    ] {
        let lines = Lines::default();
        send(&sampled(&lines, sampling).clock(ticking(micros)), "/");
        assert_eq!(lines.get().len(), usize::from(kept), "{micros}");
    }
}

#[test]
fn sampling_always_keeps_broken_responses() {
    let lines = Lines::default();
    let layer = sampled(&lines, Sampling::one_in(1_000_000_000)).clock(ticking(1));
    let mut service = layer.layer(answer(|_: Request<()>| {
        Response::new(Script::new([Step::Data("x"), Step::Fail]))
    }));
    let response = block_on(service.call(Request::new(()))).unwrap();
    block_on(response.into_body().collect()).unwrap_err();
    let response = block_on(service.call(Request::new(()))).unwrap();
    drop(response);
    assert_eq!(lines.get(), ["200 1 1", "200 1 1"]);
}

#[test]
fn sampling_of_one_in_one_or_none_keeps_all() {
    for number in [0, 1] {
        let lines = Lines::default();
        let layer = sampled(&lines, Sampling::one_in(number)).clock(ticking(1));
        for _ in 0..50 {
            send(&layer, "/");
        }
        assert_eq!(lines.get(), ["200 1 1"; 50]);
    }
}

#[test]
fn weight_is_one_without_sampling_and_a_note_of_that_name_wins() {
    let lines = Lines::default();
    send(&lines.layer("%{sample_weight}n"), "/");
    assert_eq!(lines.only(), "1");

    let lines = Lines::default();
    let layer = lines.layer("%{sample_weight}n");
    let notes = apache_logformat::Notes::new();
    notes.set("sample_weight", "own");
    let mut service = layer.layer(answer(
        |_: Request<()>| Response::new(Empty::<Bytes>::new()),
    ));
    let mut request = Request::new(());
    request.extensions_mut().insert(notes);
    block_on(service.call(request)).unwrap();
    assert_eq!(lines.only(), "own");
}

#[test]
fn filtered_exchanges_do_not_count_for_the_sampling() {
    let lines = Lines::default();
    let output = Output::new(format("%U"), lines.clone())
        .filter(|exchange| &*exchange.path() != b"/health")
        .sampling(Sampling::one_in(3));
    let layer = AccessLogLayer::from(output).clock(ticking(1));
    let plain = Lines::default();
    let output = Output::new(format("%U"), plain.clone()).sampling(Sampling::one_in(3));
    let unfiltered = AccessLogLayer::from(output).clock(ticking(1));
    for _ in 0..200 {
        send(&layer, "/health");
        send(&layer, "/x");
        send(&unfiltered, "/x");
    }
    assert_eq!(lines.get().len(), plain.get().len(), "the same choice");
}
