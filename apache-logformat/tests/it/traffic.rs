//! Requests of all kinds, most of them hostile, the same in every run.

use std::{
    convert::Infallible,
    future::ready,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use apache_logformat::{AccessLogLayer, ConnectionInfo, LogFormat, RemoteUser, Timestamp, Zone};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, service_fn};

use crate::record::block_on;

/// Returns the log of `count` requests through the layer.
pub(crate) fn log(format: LogFormat, count: usize) -> Vec<u8> {
    let log = Arc::new(Mutex::new(Vec::new()));
    // From one to the next some milliseconds pass.
    let now = AtomicI64::new(1_700_000_000_000_000);
    let layer = AccessLogLayer::new(format.with_zone(Zone::utc()), Arc::clone(&log))
        .server_name("www.example.com")
        .clock(move || Timestamp::from_micros(now.fetch_add(1_234, Ordering::Relaxed)));
    let mut chance = Chance(0x5eed);
    for _ in 0..count {
        let request = request(&mut chance);
        let answered = response(&mut chance);
        let broken = chance.below(50) == 0;
        let answered = Mutex::new(Some(answered));
        let mut service = layer.layer(service_fn(|_: Request<()>| {
            let response = answered.lock().unwrap().take();
            ready(Ok::<_, Infallible>(response.unwrap()))
        }));
        let response = block_on(service.call(request)).unwrap();
        if !broken {
            block_on(response.into_body().collect()).unwrap();
        }
    }
    drop(layer);
    Arc::into_inner(log).unwrap().into_inner().unwrap()
}

/// A generator of numbers that are as good as random.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// Returns bytes that a header field can hold, hostile ones among them.
    fn value(&mut self) -> Vec<u8> {
        let length = self.below(60);
        let byte = |chance: &mut Self| match chance.below(8) {
            0 => b'"',
            1 => b'\\',
            2 => b'\t',
            3 => 0x80 | chance.next() as u8,
            _ => b' ' + chance.below(95) as u8,
        };
        (0..length).map(|_| byte(self)).collect()
    }
}

fn request(chance: &mut Chance) -> Request<()> {
    let method = match chance.below(12) {
        0 => Method::POST,
        1 => Method::HEAD,
        2 => Method::PUT,
        3 => Method::DELETE,
        4 => Method::OPTIONS,
        5 => Method::PATCH,
        _ => Method::GET,
    };
    let path = chance.one(&[
        "/",
        "/index.html",
        "/items/7?page=1&sort=asc",
        "/%22%20HTTP/1.1%22%20200%20%22-%22",
        "/\"quoted\"?a=1",
        "/a%0d%0aforged%20line",
        "/%00%ff%fe",
        "/wp-login.php?log=admin&pwd=%27%20OR%201=1--",
        "/cgi-bin/..%2f..%2fetc/passwd",
        "/?x=${jndi:ldap://a.example/x}",
        "/\\x16\\x03\\x01",
        "/?back\\slash\\",
        "/a|b{c}[d]^e~",
        "/?",
        "//double//slash/./../x",
    ]);
    let long = "x".repeat(chance.below(2000));
    let target = match chance.below(20) {
        0 => format!("/long/{long}"),
        _ => path.to_owned(),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .version(chance_version(chance));
    if chance.below(4) > 0 {
        let agent = match chance.below(4) {
            0 => chance.value(),
            1 => b"\" 200 5 \"-\" \"forged".to_vec(),
            _ => b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".to_vec(),
        };
        request = request.header(header::USER_AGENT, HeaderValue::from_bytes(&agent).unwrap());
    }
    if chance.below(3) == 0 {
        let referer = match chance.below(3) {
            0 => chance.value(),
            1 => b"https://www.example.com/start?x=1&y=2".to_vec(),
            _ => b"\\\"".to_vec(),
        };
        request = request.header(header::REFERER, HeaderValue::from_bytes(&referer).unwrap());
    }
    let mut request = request.body(()).unwrap();
    let address: IpAddr = match chance.below(4) {
        0 => Ipv6Addr::from(u128::from(chance.next()) << 64 | 0x2001_0db8).into(),
        _ => (chance.next() as u32 | 0x0100_0000).to_be_bytes().into(),
    };
    let connection = ConnectionInfo::new((address, 50123).into());
    request.extensions_mut().insert(connection);
    if chance.below(5) == 0 {
        // No names with blanks or brackets: no reader copes with what httpd makes of them.
        let user = chance.one(&["frank", "a.b+c@example.com", "j\u{f6}rg", "\"", "", "x\\"]);
        request.extensions_mut().insert(RemoteUser::new(user));
    }
    request
}

fn chance_version(chance: &mut Chance) -> Version {
    match chance.below(6) {
        0 => Version::HTTP_10,
        1 => Version::HTTP_2,
        _ => Version::HTTP_11,
    }
}

fn response(chance: &mut Chance) -> Response<Full<Bytes>> {
    let status = [
        200, 200, 200, 204, 206, 301, 304, 400, 401, 404, 418, 429, 500, 503,
    ];
    let mut response = Response::new(Full::new(Bytes::from(vec![b'x'; chance.below(3000)])));
    let status = status[chance.below(status.len())];
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
