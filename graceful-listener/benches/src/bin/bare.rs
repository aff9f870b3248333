//! The routes of the `graceful` example under hyper alone: what of nginx's lead is hyper's.
//!
//! A worker of start_server without a graceful end, for `--bench deploy` with `SWITCHES=0`.

use std::convert::Infallible;
use std::time::Duration;

use graceful_listener::{Listeners, Notifier, NotifyMessage, TokioSocket};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = Listeners::inherit()?.into_iter().next();
    let (socket, _file) = listener.ok_or("no socket was inherited")?.into_parts();
    let TokioSocket::Tcp(listener) = socket.into_tokio()? else {
        return Err("the socket is not TCP's".into());
    };
    Notifier::from_env()?.send(&NotifyMessage::new().ready())?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::spawn(connection);
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body: &[u8] = match request.uri().path() {
        "/sleep" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            b"slept 300 ms\n"
        }
        _ => b"hello\n",
    };
    let mut response = Response::new(Full::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(X_GEN, HeaderValue::from_static("1"));
    Ok(response)
}

const X_GEN: HeaderName = HeaderName::from_static("x-gen");
