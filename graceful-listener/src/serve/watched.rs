use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::last_ping::LastPing;

/// Tells what is read from a connection, after decryption if there is any.
pub(super) struct Watched<T> {
    io: T,
    activity: Arc<Activity>,
    /// Until it is known that the client speaks HTTP/1.
    last_ping: Option<LastPing>,
}

impl<T> Watched<T> {
    pub(super) const fn new(io: T, activity: Arc<Activity>, linger: Duration) -> Self {
        Self {
            io,
            activity,
            last_ping: Some(LastPing::new(linger)),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        loop {
            let Some(last_ping) = &mut this.last_ping else {
                ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
                if buffer.filled().len() > before {
                    this.activity.note_input();
                }
                return Poll::Ready(Ok(()));
            };
            if last_ping.poll_release(cx, buffer) {
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
            let read = &buffer.filled()[before..];
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.activity.read(read);
            last_ping.keep_back(buffer, before, this.activity.is_http2());
            if this.activity.is_http1() {
                this.last_ping = None;
            }
            // Nothing would be taken for the end.
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length <= SMALL {
            let mut joined = [0; SMALL];
            let mut rest = &mut joined[..];
            for part in parts {
                rest[..part.len()].copy_from_slice(part);
                rest = &mut rest[part.len()..];
            }
            return self.poll_write(cx, &joined[..length]);
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    /// Else hyper would copy each response, and nobody could tell when it has been sent.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Up to how many bytes of a response are copied into one piece, which costs less
/// than to have the kernel gather them.
const SMALL: usize = 1024;
