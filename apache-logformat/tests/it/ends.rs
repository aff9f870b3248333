//! Every way a response can end, and the one line it leaves.

use std::{
    any::Any,
    cell::RefCell,
    future::{pending, ready},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
};

use apache_logformat::{LogFormat, Outcome, Output};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tower::{Layer, Service, service_fn};

use crate::{
    lines::{Lines, Script, Step, answer},
    record::block_on,
};

const FORMAT: &str = "%m %>s %B %X";

fn get() -> Request<()> {
    Request::get("/").body(()).unwrap()
}

/// Calls a service around `response`, and hands the response on with its body.
fn call<B: Body>(
    lines: &Lines,
    request: Request<()>,
    response: impl Fn() -> Response<B> + Clone,
) -> Response<apache_logformat::ResponseBody<B>> {
    let service = answer(move |_: Request<()>| response());
    let mut service = lines.layer(FORMAT).layer(service);
    block_on(service.call(request)).unwrap()
}

#[test]
fn body_read_to_its_end_logs_every_byte() {
    let lines = Lines::default();
    let response = call(&lines, get(), || {
        Response::new(Script::new([
            Step::Data("hello"),
            Step::Data(", "),
            Step::Data("world"),
        ]))
    });
    assert_eq!(lines.get(), [""; 0], "the line waits for the end");
    let mut body = pin!(response.into_body());
    for _ in 0..3 {
        block_on(body.frame()).unwrap().unwrap();
        assert_eq!(lines.get(), [""; 0], "the line waits for the end");
    }
    assert!(block_on(body.frame()).is_none());
    assert_eq!(lines.only(), "GET 200 12 +");
}

#[test]
fn body_polled_after_its_end_logs_no_second_line() {
    let lines = Lines::default();
    let response = call(&lines, get(), || {
        Response::new(Script::new([Step::Data("x")]))
    });
    let mut body = pin!(response.into_body());
    block_on(body.frame()).unwrap().unwrap();
    assert!(block_on(body.frame()).is_none());
    assert!(block_on(body.frame()).is_none());
    assert_eq!(lines.only(), "GET 200 1 +");
}

#[test]
fn last_frame_of_a_body_that_tells_its_end_logs_at_once() {
    // As hyper does when the length is known: it never asks for more.
    let lines = Lines::default();
    let response = call(&lines, get(), || {
        Response::new(Script::new([Step::Data("hello")]).telling_end())
    });
    let mut body = pin!(response.into_body());
    block_on(body.frame()).unwrap().unwrap();
    assert_eq!(lines.only(), "GET 200 5 +");
}

#[test]
fn body_dropped_when_content_length_is_reached_is_complete() {
    let lines = Lines::default();
    let response = call(&lines, get(), || {
        let mut response = Response::new(Script::new([Step::Data("hello"), Step::Wait]));
        let length = HeaderValue::from_static("5");
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
        response
    });
    let mut body = Box::pin(response.into_body());
    block_on(body.frame()).unwrap().unwrap();
    assert_eq!(lines.get(), [""; 0], "trailers may follow");
    drop(body);
    assert_eq!(lines.only(), "GET 200 5 +");
}

#[test]
fn body_dropped_when_its_exact_size_is_reached_is_complete() {
    let lines = Lines::default();
    let response = call(&lines, get(), || {
        let mut script = Script::new([Step::Data("hello"), Step::Wait]);
        script.size = SizeHint::with_exact(5);
        Response::new(script)
    });
    let mut body = Box::pin(response.into_body());
    block_on(body.frame()).unwrap().unwrap();
    drop(body);
    assert_eq!(lines.only(), "GET 200 5 +");
}

#[test]
fn body_dropped_midway_logs_the_bytes_passed_and_an_x() {
    let lines = Lines::default();
    let response = call(&lines, get(), || {
        let mut response = Response::new(Script::new([Step::Data("hello"), Step::Data("world")]));
        let length = HeaderValue::from_static("10");
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
        response
    });
    let mut body = Box::pin(response.into_body());
    block_on(body.frame()).unwrap().unwrap();
    drop(body);
    assert_eq!(lines.only(), "GET 200 5 X");
}

#[test]
fn body_never_polled_logs_an_x() {
    let lines = Lines::default();
    drop(call(&lines, get(), || {
        Response::new(Script::new([Step::Data("hello")]))
    }));
    assert_eq!(lines.only(), "GET 200 0 X");
}

#[test]
fn body_of_unknown_length_dropped_midway_logs_an_x() {
    let lines = Lines::default();
    let response = call(&lines, get(), || {
        Response::new(Script::new([Step::Data("hello"), Step::Wait]))
    });
    let mut body = Box::pin(response.into_body());
    block_on(body.frame()).unwrap().unwrap();
    drop(body);
    assert_eq!(lines.only(), "GET 200 5 X");
}

#[test]
fn empty_body_logs_with_the_head() {
    let lines = Lines::default();
    let response = call(&lines, get(), || Response::new(Empty::<Bytes>::new()));
    assert_eq!(lines.only(), "GET 200 0 +");
    drop(response);
    assert_eq!(lines.only(), "GET 200 0 +");
}

#[test]
fn responses_without_a_body_log_with_the_head_and_no_bytes() {
    for (method, status, expected) in [
        (Method::HEAD, StatusCode::OK, "HEAD 200 0 +"),
        (Method::GET, StatusCode::NO_CONTENT, "GET 204 0 +"),
        (Method::GET, StatusCode::NOT_MODIFIED, "GET 304 0 +"),
        (Method::GET, StatusCode::SWITCHING_PROTOCOLS, "GET 101 0 -"),
    ] {
        let lines = Lines::default();
        let request = Request::builder().method(&method).body(()).unwrap();
        let response = call(&lines, request, || {
            let mut response = Response::new(Full::new(Bytes::from("not to be sent")));
            *response.status_mut() = status;
            response
        });
        assert_eq!(lines.only(), expected);
        block_on(response.into_body().collect()).unwrap();
        lines.only();
    }
}

#[test]
fn tunnel_whose_body_is_left_alone_is_complete() {
    let lines = Lines::default();
    let request = Request::connect("example.com:443").body(()).unwrap();
    drop(call(&lines, request, || {
        Response::new(Script::new([Step::Data("no")]))
    }));
    assert_eq!(lines.only(), "CONNECT 200 0 -");
}

#[test]
fn refused_tunnel_has_a_body_like_any_response() {
    let lines = Lines::default();
    let request = Request::connect("example.com:443").body(()).unwrap();
    drop(call(&lines, request, || {
        let mut response = Response::new(Script::new([Step::Data("no")]));
        *response.status_mut() = StatusCode::FORBIDDEN;
        response
    }));
    assert_eq!(lines.only(), "CONNECT 403 0 X");
}

#[test]
fn trailers_end_a_body_and_are_printed() {
    let lines = Lines::default();
    let service = answer(|_: Request<()>| {
        let mut trailers = HeaderMap::new();
        trailers.append("grpc-status", HeaderValue::from_static("0"));
        trailers.append("x-sum", HeaderValue::from_static("a\"b"));
        trailers.append("x-sum", HeaderValue::from_static("c"));
        trailers.append("x-unwanted", HeaderValue::from_static("d"));
        Response::new(Script::new([Step::Data("x"), Step::Trailers(trailers)]))
    });
    let format = "%>s %B %{Grpc-Status}^to %{x-sum}^to %{none}^to";
    let mut service = lines.layer(format).layer(service);
    let response = block_on(service.call(get())).unwrap();
    let mut body = pin!(response.into_body());
    block_on(body.frame()).unwrap().unwrap();
    let frame = block_on(body.frame()).unwrap().unwrap();
    assert_eq!(
        frame.trailers_ref().unwrap().len(),
        4,
        "all trailers are handed on"
    );
    assert_eq!(lines.only(), r#"200 1 0 a\"b, c -"#);
}

#[test]
fn body_error_is_handed_on_and_logged() {
    let lines = Lines::default();
    let response = call(&lines, get(), || {
        Response::new(Script::new([Step::Data("hel"), Step::Fail]))
    });
    let error = block_on(response.into_body().collect()).unwrap_err();
    assert_eq!(error.to_string(), "the body fails");
    assert_eq!(lines.only(), "GET 200 3 X");
}

#[test]
fn future_dropped_before_the_head_logs_499() {
    let lines = Lines::default();
    let service = service_fn(|_: Request<()>| pending::<io::Result<Response<Full<Bytes>>>>());
    let mut service = lines.layer(FORMAT).layer(service);
    let mut future = Box::pin(service.call(get()));
    assert!(
        future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    assert_eq!(lines.get(), [""; 0]);
    drop(future);
    assert_eq!(lines.only(), "GET 499 0 X");
}

#[test]
fn future_never_polled_logs_499() {
    let lines = Lines::default();
    let service = service_fn(|_: Request<()>| pending::<io::Result<Response<Full<Bytes>>>>());
    let mut service = lines.layer(FORMAT).layer(service);
    drop(service.call(get()));
    assert_eq!(lines.only(), "GET 499 0 X");
}

#[test]
fn status_of_aborted_requests_can_be_chosen() {
    let lines = Lines::default();
    let service = service_fn(|_: Request<()>| pending::<io::Result<Response<Full<Bytes>>>>());
    let mut service = lines.layer(FORMAT).aborted_status(408).layer(service);
    drop(service.call(get()));
    assert_eq!(lines.only(), "GET 408 0 X");
}

#[test]
fn service_error_is_handed_on_and_logged_as_500() {
    let lines = Lines::default();
    let service = service_fn(|_: Request<()>| {
        ready(Err::<Response<Full<Bytes>>, _>(io::Error::other(
            "no database",
        )))
    });
    let mut service = lines.layer(FORMAT).layer(service);
    let error = block_on(service.call(get())).unwrap_err();
    assert_eq!(error.to_string(), "no database");
    assert_eq!(lines.only(), "GET 500 0 X");
}

#[test]
fn panic_in_the_call_goes_on_and_is_logged_as_500() {
    let lines = Lines::default();
    let service = service_fn(|request: Request<()>| {
        if request.method() == Method::GET {
            panic!("in the call");
        }
        ready(Ok::<_, io::Error>(Response::new(Full::new(Bytes::new()))))
    });
    let mut service = lines.layer(FORMAT).layer(service);
    let panic = catch_unwind(AssertUnwindSafe(|| drop(service.call(get())))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"in the call"));
    assert_eq!(lines.only(), "GET 500 0 X");
}

#[test]
fn panic_in_the_future_goes_on_and_is_logged_as_500() {
    let lines = Lines::default();
    let service = service_fn(|_: Request<()>| async {
        if lines_are_dry() {
            panic!("in the future");
        }
        Ok::<_, io::Error>(Response::new(Full::new(Bytes::new())))
    });
    let mut service = lines.layer(FORMAT).layer(service);
    let mut future = Box::pin(service.call(get()));
    let polled = catch_unwind(AssertUnwindSafe(|| {
        future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }));
    assert_eq!(polled.unwrap_err().downcast_ref(), Some(&"in the future"));
    assert_eq!(
        lines.only(),
        "GET 500 0 X",
        "it is logged before the future is dropped"
    );
    drop(future);
    lines.only();
}

/// Hides from the compiler that what follows is never reached.
fn lines_are_dry() -> bool {
    std::hint::black_box(true)
}

#[test]
fn panic_in_the_body_goes_on_and_keeps_the_status_sent() {
    let lines = Lines::default();
    let response = call(&lines, get(), || {
        Response::new(Script::new([Step::Data("hel"), Step::Panic]))
    });
    let mut body = Box::pin(response.into_body());
    block_on(body.frame()).unwrap().unwrap();
    let polled = catch_unwind(AssertUnwindSafe(|| block_on(body.frame()).is_some()));
    assert_eq!(polled.unwrap_err().downcast_ref(), Some(&"the body panics"));
    assert_eq!(lines.only(), "GET 200 3 X");
    drop(body);
    lines.only();
}

#[test]
fn body_dropped_by_a_panic_elsewhere_is_logged_once() {
    let lines = Lines::default();
    let response = call(&lines, get(), || {
        Response::new(Script::new([Step::Data("hello")]))
    });
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _body = response.into_body();
        panic!("in the server");
    }));
    assert!(panicked.is_err());
    assert_eq!(lines.only(), "GET 200 0 X");
}

#[test]
fn every_end_has_an_outcome_of_its_own() {
    fn outcome(steps: Vec<Step>, read: usize) -> Outcome {
        let outcomes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = outcomes.clone();
        let output = Output::new(LogFormat::common(), |_: &[u8]| Ok(())).filter(move |exchange| {
            seen.lock().unwrap().push(exchange.outcome);
            true
        });
        let steps = std::sync::Mutex::new(Some(steps));
        let service = service_fn(move |_: Request<()>| {
            let body = Script::new(steps.lock().unwrap().take().unwrap());
            ready(Ok::<_, io::Error>(Response::new(body)))
        });
        let mut service = apache_logformat::AccessLogLayer::from(output).layer(service);
        let response = block_on(service.call(get())).unwrap();
        let mut body = Box::pin(response.into_body());
        for _ in 0..read {
            let _ = catch_unwind(AssertUnwindSafe(|| block_on(body.frame()).is_some()));
        }
        drop(body);
        let outcomes = outcomes.lock().unwrap();
        assert_eq!(outcomes.len(), 1);
        outcomes[0]
    }
    assert_eq!(outcome(vec![Step::Data("x")], 2), Outcome::Complete);
    assert_eq!(outcome(vec![Step::Data("x")], 1), Outcome::AbortedInBody);
    assert_eq!(outcome(vec![Step::Fail], 1), Outcome::BodyError);
    assert_eq!(outcome(vec![Step::Panic], 1), Outcome::Panic);
}

#[test]
fn body_is_handed_on_untouched() {
    let mut script = Script::new([Step::Wait, Step::Data("a"), Step::Data("b")]).telling_end();
    script.size.set_lower(1);
    script.size.set_upper(9);
    let lines = Lines::default();
    let script = std::sync::Mutex::new(Some(script));
    let service = service_fn(|_: Request<()>| {
        ready(Ok::<_, io::Error>(Response::new(
            script.lock().unwrap().take().unwrap(),
        )))
    });
    let mut service = lines.layer(FORMAT).layer(service);
    let response = block_on(service.call(get())).unwrap();
    let mut body = pin!(response.into_body());
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(body.size_hint().lower(), 1);
    assert_eq!(body.size_hint().upper(), Some(9));
    assert!(!body.is_end_stream());
    assert!(
        body.as_mut().poll_frame(&mut context).is_pending(),
        "back-pressure passes through"
    );
    for expected in ["a", "b"] {
        let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut context) else {
            panic!("a frame was due");
        };
        assert_eq!(frame.into_data().unwrap(), expected);
    }
    assert!(body.is_end_stream());
}

#[test]
fn body_made_by_middleware_around_the_layer_leaves_no_line() {
    let mut body = pin!(apache_logformat::ResponseBody::<Full<Bytes>>::default());
    assert!(body.is_end_stream());
    assert!(block_on(body.frame()).is_none());
}

#[test]
fn response_is_handed_on_untouched() {
    let lines = Lines::default();
    let service = answer(|_: Request<()>| {
        let mut response = Response::new(Full::new(Bytes::from("hi")));
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        *response.version_mut() = Version::HTTP_10;
        response
            .headers_mut()
            .insert("x-a", HeaderValue::from_static("1"));
        response.extensions_mut().insert(42_u8);
        response
    });
    let mut service = lines.layer("%{X-A}o %u %n").layer(service);
    let response = block_on(service.call(get())).unwrap();
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(response.version(), Version::HTTP_10);
    assert_eq!(response.headers().len(), 1);
    assert_eq!(response.extensions().len(), 1);
    assert_eq!(response.extensions().get(), Some(&42_u8));
}

#[test]
fn readiness_is_that_of_the_service() {
    struct NotReady;
    impl Service<Request<()>> for NotReady {
        type Response = Response<Full<Bytes>>;
        type Error = io::Error;
        type Future = std::future::Ready<io::Result<Self::Response>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other("not today")))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            unreachable!()
        }
    }
    let mut service = Lines::default().layer(FORMAT).layer(NotReady);
    let Poll::Ready(Err(error)) = service.poll_ready(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("an error was due");
    };
    assert_eq!(error.to_string(), "not today");
}

#[test]
fn bodies_of_any_data_are_counted() {
    let lines = Lines::default();
    let service = answer(|_: Request<()>| {
        let frames = [[&b"ab"[..], b"cde"].concat(), b"f".to_vec()];
        let frames =
            frames.map(|data| Ok::<_, io::Error>(http_body::Frame::data(io::Cursor::new(data))));
        Response::new(StreamBody::new(futures_util::stream::iter(frames)))
    });
    let mut service = lines.layer(FORMAT).layer(service);
    let response = block_on(service.call(get())).unwrap();
    block_on(response.into_body().collect()).unwrap();
    assert_eq!(lines.only(), "GET 200 6 +");
}

#[test]
fn body_dropped_by_the_end_of_its_thread_leaves_its_line() {
    thread_local!(static KEPT: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) });
    let lines = Lines::default();
    let layer = lines.layer("%U %B");
    thread::spawn(move || {
        // Made before anything that the layer keeps for the thread, so that it goes after.
        KEPT.with(|kept| kept.replace(None));
        let service = answer(|_: Request<()>| Response::new(Full::<Bytes>::from("hello")));
        let mut service = layer.layer(service);
        for _ in 0..2 {
            let request = Request::get("/a%0ab").body(()).unwrap();
            let body = block_on(service.call(request)).unwrap().into_body();
            KEPT.with(|kept| kept.replace(Some(Box::new(body))));
        }
    })
    .join()
    .unwrap();
    assert_eq!(lines.get(), ["/a\\nb 0"; 2]);
}
