//! What logging allocates: nothing, once a thread has served a few requests.

#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    pin::pin,
};

use apache_logformat::{
    AccessLogLayer, ConnectionInfo, Escape, Exchange, Fields, LogFormat, Output, Sampling,
    Timestamp, Zone,
};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service};

use crate::{lines::answer, record::block_on};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts this thread's allocations; tests run in threads of their own.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count() {
    // A thread that ends has no counter left; nobody asks it.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

/// Returns how often `work` allocates.
fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

fn zone() -> Zone {
    Zone::named("Europe/Berlin").unwrap()
}

#[test]
fn counter_counts() {
    assert_eq!(allocations(|| drop(Box::new(1))), 1);
    assert_eq!(allocations(|| drop([1_u8].repeat(9))), 1);
}

#[test]
fn formatting_into_a_used_buffer_allocates_nothing() {
    let headers = [
        (&b"Host"[..], &b"www.example.com"[..]),
        (b"User-Agent", b"curl/8 \"quoted\" \xff"),
        (b"Referer", b"https://www.example.com/"),
        (b"Cookie", b"a=1"),
        (b"Cookie", b"b=2"),
    ];
    let mut exchange = Exchange::default();
    exchange.method = b"GET";
    exchange.target = b"/a//b/../%41%ff?c=d";
    exchange.protocol = b"HTTP/1.1";
    exchange.peer = Some(([192, 0, 2, 7], 50123).into());
    exchange.status = 200;
    exchange.body_bytes = 5316;
    exchange.request_headers = Fields::from(&headers);
    exchange.response_headers = Fields::from(&headers);
    let formats = [
        LogFormat::combined(),
        LogFormat::vhost_combined(),
        "%U %{b}C %{a}C %{Host}i %V %{X}^ti %{%c %FT%T%z %Z %s %-d}t %t %D %{hextid}P %X"
            .parse()
            .unwrap(),
        r#"{"r":"%r","u":"%U","a":"%{User-Agent}i","t":"%{%F %T}t","b":%b,"h":%{Host}i}"#
            .parse::<LogFormat>()
            .unwrap()
            .with_escape(Escape::Json),
        LogFormat::nginx(
            "$remote_addr [$time_local] $time_iso8601 \"$request\" $uri $args $cookie_b $http_host",
            Escape::Nginx,
        )
        .unwrap(),
    ];
    for format in formats {
        let format = format.with_zone(zone());
        let mut line = Vec::with_capacity(4096);
        let mut write = |second: i64| {
            exchange.begin = Timestamp::from_micros(second * 1_000_000);
            exchange.end = Timestamp::from_micros(second * 1_000_000 + 1234);
            line.clear();
            format.write(&exchange, &mut line);
        };
        write(1_700_000_000);
        let count = allocations(|| {
            for second in 0..100 {
                write(1_700_000_000 + second);
            }
        });
        assert_eq!(count, 0, "{format}");
    }
}

/// Returns how often a hundred requests through `service` allocate.
fn of_service<S, B>(mut service: S) -> usize
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: Body<Error = Infallible>,
{
    let request = || {
        let mut request = Request::get("/items/7?page=1")
            .header(header::HOST, "www.example.com")
            .header(header::USER_AGENT, "curl/8 \"quoted\"")
            .header(header::COOKIE, "session=secret")
            .body(())
            .unwrap();
        let connection = ConnectionInfo::new(([192, 0, 2, 7], 50123).into());
        request.extensions_mut().insert(connection);
        request
    };
    let mut serve = || {
        let response = block_on(service.call(request())).unwrap();
        let mut body = pin!(response.into_body());
        while block_on(body.frame()).is_some() {}
    };
    serve();
    allocations(|| (0..100).for_each(|_| serve()))
}

#[test]
fn layer_allocates_nothing_per_request() {
    let null = |_: &[u8]| Ok(());
    let everything = r#"%h %{c}a %A %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %D %^FB %X %k
        %{Cookie}i %{session}C %{Content-Type}o %U %q %V %p %{X}^to %L %R %f %{end:%c}t %P"#;
    let layers = [
        AccessLogLayer::new(LogFormat::combined().with_zone(zone()), null),
        AccessLogLayer::new(
            everything.parse::<LogFormat>().unwrap().with_zone(zone()),
            null,
        ),
        AccessLogLayer::new(LogFormat::common(), null)
            .filter(|exchange| exchange.path().len() > 1 && exchange.status < 600)
            .output(Output::new(LogFormat::agent(), null).sampling(Sampling::one_in(2))),
    ];
    let handler = answer(|_: Request<()>| {
        let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
        let kind = header::HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    });
    let bare = of_service(handler.clone());
    assert!(bare > 0, "making a request allocates");
    for layer in layers {
        assert_eq!(of_service(layer.layer(handler.clone())), bare, "{layer:?}");
    }
}

#[test]
fn event_that_nobody_listens_to_allocates_nothing() {
    let handler = answer(|_: Request<()>| Response::new(Full::new(Bytes::from_static(b"hello"))));
    let bare = of_service(handler.clone());
    let layer = AccessLogLayer::from(Output::event());
    let logged =
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
            of_service(layer.layer(handler))
        });
    assert_eq!(logged, bare);
}

#[test]
fn memory_of_a_huge_request_is_not_kept() {
    let layer = AccessLogLayer::new(LogFormat::combined().with_zone(zone()), |_: &[u8]| Ok(()));
    let handler = answer(|_: Request<()>| Response::new(Full::new(Bytes::new())));
    let mut service = layer.layer(handler);
    let mut serve = |agent: usize| {
        let agent = "x".repeat(agent);
        let request = Request::get("/").header(header::USER_AGENT, agent);
        let request = request.body(()).unwrap();
        allocations(|| drop(block_on(service.call(request)).unwrap()))
    };
    serve(10);
    assert_eq!(serve(10), 0);
    serve(60_000);
    serve(100_000);
    assert!(serve(10) > 0, "a record of 100,000 bytes was kept");
}

#[test]
fn memory_of_a_crowd_of_requests_is_not_kept() {
    let layer = AccessLogLayer::new(LogFormat::combined().with_zone(zone()), |_: &[u8]| Ok(()));
    let handler = answer(|_: Request<()>| Response::new(Full::new(Bytes::from_static(b"hello"))));
    let mut service = layer.layer(handler);
    let mut crowd = |size: usize| {
        let mut bodies = Vec::with_capacity(size);
        let mut run = || bodies.push(block_on(service.call(Request::new(()))).unwrap());
        allocations(|| (0..size).for_each(|_| run()))
    };
    crowd(500);
    assert_eq!(crowd(60), 0);
    assert!(crowd(500) > 400, "all records were kept");
}

#[test]
fn concurrent_requests_allocate_nothing_either() {
    // Sixty requests at once use sixty records, over and over.
    let layer = AccessLogLayer::new(LogFormat::combined().with_zone(zone()), |_: &[u8]| Ok(()));
    let handler = answer(|_: Request<()>| Response::new(Full::new(Bytes::from_static(b"hello"))));
    let mut service = layer.layer(handler);
    let mut bodies = Vec::with_capacity(60);
    let mut run = || {
        for _ in 0..60 {
            let response = block_on(service.call(Request::new(()))).unwrap();
            bodies.push(response.into_body());
        }
        for mut body in bodies.drain(..) {
            while block_on(body.frame()).is_some() {}
        }
    };
    run();
    run();
    assert_eq!(allocations(run), 0);
}
