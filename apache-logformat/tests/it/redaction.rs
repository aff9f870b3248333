//! Secrets that are masked.

use apache_logformat::{AccessLogLayer, Escape, LogFormat, Redaction, RequestTrailers};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use tower::{Layer, Service};

use crate::{
    lines::{Lines, Script, Step, answer},
    record::block_on,
};

const FORMAT: &str = "%r|%q|%{Authorization}i|%{Proxy-Authorization}i|%{Cookie}i|%{a}C|%{sid}C\
                      |%{Referer}i|%{X-Key}i|%{Set-Cookie}o|%{Location}o|%{X-Key}o";

fn request(target: &str) -> Request<()> {
    Request::get(target)
        .header("authorization", "Basic c2VjcmV0")
        .header("proxy-authorization", "Bearer secret")
        .header("cookie", "a=1; sid=secret; b=2")
        .header("referer", "https://a.example/?TOKEN=secret&y=1#x")
        .header("x-key", "secret")
        .body(())
        .unwrap()
}

fn line(format: LogFormat, redaction: Option<Redaction>, target: &str) -> String {
    let lines = Lines::default();
    let mut layer = AccessLogLayer::new(format, lines.clone());
    if let Some(redaction) = redaction {
        layer = layer.redaction(redaction);
    }
    let mut service = layer.layer(answer(|_: Request<()>| {
        Response::builder()
            .header("set-cookie", "sid=secret; Path=/; HttpOnly")
            .header("set-cookie", "c=3")
            .header("location", "/next?a=1;token=secret")
            .header("x-key", "secret")
            .body(Empty::<Bytes>::new())
            .unwrap()
    }));
    block_on(service.call(request(target))).unwrap();
    lines.only()
}

#[test]
fn whole_credentials_and_cookies_are_masked_by_default() {
    assert_eq!(
        line(FORMAT.parse().unwrap(), None, "/x?token=secret"),
        "GET /x?token=secret HTTP/1.1|?token=secret|[redacted]|[redacted]|[redacted]|1|secret\
         |https://a.example/?TOKEN=secret&y=1#x|secret|[redacted], [redacted]\
         |/next?a=1;token=secret|secret"
    );
}

#[test]
fn nothing_is_masked_when_asked_for() {
    assert_eq!(
        line(
            FORMAT.parse().unwrap(),
            Some(Redaction::none()),
            "/x?token=secret"
        ),
        "GET /x?token=secret HTTP/1.1|?token=secret|Basic c2VjcmV0|Bearer secret\
         |a=1; sid=secret; b=2|1|secret|https://a.example/?TOKEN=secret&y=1#x|secret\
         |sid=secret; Path=/; HttpOnly, c=3|/next?a=1;token=secret|secret"
    );
}

#[test]
fn chosen_secrets_are_masked_wherever_they_stand() {
    let redaction = Redaction::none()
        .header("X-Key")
        .query("token")
        .cookie("SID");
    let got = line(
        FORMAT.parse().unwrap(),
        Some(redaction),
        "/x?token=secret&b=2",
    );
    assert_eq!(
        got,
        "GET /x?token=[redacted]&b=2 HTTP/1.1|?token=[redacted]&b=2|Basic c2VjcmV0|Bearer secret\
         |a=1; sid=[redacted]; b=2|1|[redacted]|https://a.example/?TOKEN=[redacted]&y=1#x\
         |[redacted]|sid=[redacted]; Path=/; HttpOnly, c=3|/next?a=1;token=[redacted]|[redacted]"
    );
}

#[test]
fn choices_add_to_the_default() {
    let redaction = Redaction::default().query("token").cookie("sid");
    let got = line(FORMAT.parse().unwrap(), Some(redaction), "/x?token=secret");
    // `Basic c2VjcmV0` says `secret` too.
    assert_eq!(
        got.matches("secret").count(),
        2,
        "only the two of X-Key are left: {got}"
    );
    assert!(!got.contains("c2VjcmV0"), "{got}");
}

#[test]
fn query_parameters_are_recognised_in_disguise() {
    let redaction = || Redaction::none().query("token").query("api_key");
    for (target, expected) in [
        ("/?token=s", "?token=[redacted]"),
        ("/?token=s&token=t", "?token=[redacted]&token=[redacted]"),
        ("/?a=1&TOKEN=s", "?a=1&TOKEN=[redacted]"),
        ("/?to%6ben=s", "?to%6ben=[redacted]"),
        ("/?%74%6F%6b%65%6E=s&b", "?%74%6F%6b%65%6E=[redacted]&b"),
        ("/?a;api_key=s;b=1", "?a;api_key=[redacted];b=1"),
        ("/?token", "?token"),
        ("/?token=", "?token=[redacted]"),
        ("/?token=a=b?c", "?token=[redacted]"),
        ("/?tokens=1&tok=2&a_token=3", "?tokens=1&tok=2&a_token=3"),
        ("/?to%6=s", "?to%6=s"),
        ("/token=s?a=1", "?a=1"),
        ("/?", "?"),
        ("/?&&=", "?&&="),
    ] {
        let got = line("%q".parse().unwrap(), Some(redaction()), target);
        assert_eq!(got, expected, "{target}");
    }
}

#[test]
fn parameters_of_a_fragment_are_masked_too() {
    for (uri, expected) in [
        (
            "https://app.example/cb#token=s&state=1",
            "https://app.example/cb#token=[redacted]&state=1",
        ),
        ("/cb?a=1#token=s", "/cb?a=1#token=[redacted]"),
        ("/cb?token=s#top", "/cb?token=[redacted]#top"),
        ("/cb#top?token=s", "/cb#top?token=s"),
    ] {
        let lines = Lines::default();
        let mut service = lines
            .layer("%{Referer}i %{Location}o")
            .redaction(Redaction::none().query("token"))
            .layer(answer(move |_: Request<()>| {
                Response::builder()
                    .header("location", uri)
                    .body(Empty::<Bytes>::new())
                    .unwrap()
            }));
        let request = Request::get("/").header("referer", uri).body(()).unwrap();
        block_on(service.call(request)).unwrap();
        assert_eq!(lines.only(), format!("{expected} {expected}"));
    }
}

#[test]
fn cookies_are_recognised_in_disguise() {
    let format = || {
        let format = "$http_cookie|$cookie_sid|$cookie_a";
        LogFormat::nginx(format, Escape::Nginx).unwrap()
    };
    for (value, expected) in [
        ("sid=s", "sid=[redacted]|[redacted]|-"),
        ("a=1; SID = s,t", "a=1; SID =[redacted]|[redacted]|1"),
        (
            "a=1,sid=s",
            "a=1,sid=[redacted]|[redacted]|1,sid=[redacted]",
        ),
        (
            "a=1,b, sid=s;a=2",
            "a=1,b, sid=[redacted];a=2|[redacted]|1,b, sid=[redacted]",
        ),
        (
            "a=1,b=2,c=3,d,sid=s",
            "a=1,b=2,c=3,d,sid=[redacted]|[redacted]|1,b=2,c=3,d,sid=[redacted]",
        ),
        ("==sid=s; a=1", "==sid=[redacted]; a=1|-|1"),
        ("\t= sid=s", "\\x09= sid=[redacted]|-|-"),
        (
            "sid; xsid=1; sidx=2;a=sid",
            "sid; xsid=1; sidx=2;a=sid|-|sid",
        ),
        (" , ;=; a", " , ;=; a|-|-"),
    ] {
        let lines = Lines::default();
        let layer =
            AccessLogLayer::new(format(), lines.clone()).redaction(Redaction::none().cookie("sid"));
        let mut service = layer.layer(answer(
            |_: Request<()>| Response::new(Empty::<Bytes>::new()),
        ));
        let request = Request::get("/").header("cookie", value).body(()).unwrap();
        block_on(service.call(request)).unwrap();
        assert_eq!(lines.only(), expected, "{value}");
    }
}

#[test]
fn cookies_that_only_httpd_finds_are_masked_too() {
    for (value, expected) in [
        ("==sid=secret; a=1", "[redacted]|1"),
        ("a=1, sid=secret", "-|1, sid=[redacted]"),
    ] {
        let lines = Lines::default();
        let mut service = lines
            .layer("%{sid}C|%{a}C")
            .redaction(Redaction::none().cookie("sid"))
            .layer(answer(
                |_: Request<()>| Response::new(Empty::<Bytes>::new()),
            ));
        let request = Request::get("/").header("cookie", value).body(()).unwrap();
        block_on(service.call(request)).unwrap();
        assert_eq!(lines.only(), expected, "{value}");
    }
}

#[test]
fn trailers_are_masked_as_header_fields_are() {
    let lines = Lines::default();
    let mut service = lines
        .layer("%{X-Key}^ti|%{X-Sum}^ti|%{X-Key}^to|%{X-Sum}^to")
        .redaction(Redaction::none().header("x-key"))
        .layer(answer(|request: Request<()>| {
            let mut fields = HeaderMap::new();
            fields.append("x-key", HeaderValue::from_static("secret"));
            fields.append("x-sum", HeaderValue::from_static("a"));
            let trailers = request.extensions().get::<RequestTrailers>().unwrap();
            trailers.set(fields.clone());
            Response::new(Script::new([Step::Trailers(fields)]))
        }));
    let response = block_on(service.call(request("/"))).unwrap();
    block_on(response.into_body().collect()).unwrap();
    assert_eq!(lines.only(), "[redacted]|a|[redacted]|a");
}

#[test]
fn passwords_in_targets_are_always_masked() {
    for format in [
        LogFormat::try_from("%r").unwrap(),
        LogFormat::nginx("$request", Escape::Nginx).unwrap(),
    ] {
        for redaction in [Redaction::none(), Redaction::default()] {
            let target = "http://user:secret@a.example/x?y=u:p@z";
            assert_eq!(
                line(format.clone(), Some(redaction), target),
                "GET http://user:XXXXXXXX@a.example/x?y=u:p@z HTTP/1.1"
            );
        }
        let redaction = Redaction::none().query("token");
        assert_eq!(
            line(
                format,
                Some(redaction),
                "http://u:secret@a.example/?token=s"
            ),
            "GET http://u:XXXXXXXX@a.example/?token=[redacted] HTTP/1.1"
        );
    }
}

#[test]
fn masks_hold_for_nginx_variables() {
    let format = "$request_uri $args $arg_token $http_cookie $cookie_sid $http_authorization";
    let format = LogFormat::nginx(format, Escape::Nginx).unwrap();
    let redaction = Redaction::default().query("token").cookie("sid");
    assert_eq!(
        line(format, Some(redaction), "/x?token=secret"),
        "/x?token=[redacted] token=[redacted] [redacted] [redacted] [redacted] [redacted]"
    );
}

#[test]
fn filters_see_no_masked_secret_either() {
    let lines = Lines::default();
    let mut service = lines
        .layer("%>s")
        .capture_header("authorization")
        .filter(|exchange| exchange.request_headers.get("authorization") == Some(b"[redacted]"))
        .layer(answer(
            |_: Request<()>| Response::new(Empty::<Bytes>::new()),
        ));
    block_on(service.call(request("/"))).unwrap();
    lines.only();
}
