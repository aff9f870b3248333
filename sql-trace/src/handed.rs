use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::stream::Stream;
use pin_project_lite::pin_project;
use sqlx::Error;

/// The place where the running block leaves an item for the reader.
pub(crate) struct Slot<T>(Mutex<Option<T>>);

impl<T> Slot<T> {
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(Self(Mutex::new(None)))
    }

    /// Leaves the item, and goes on when the reader wants the next.
    pub(crate) async fn hand_out(&self, item: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(item);
        let mut taken = false;
        // Pending once: `Handed` finds the item, and polls again when its
        // reader wants the next.
        poll_fn(|_| {
            if std::mem::replace(&mut taken, true) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

pin_project! {
    /// A stream of what a running block hands out: the reader's side of a
    /// [`Slot`].
    pub(crate) struct Handed<F, T> {
        #[pin]
        run: Option<F>,
        slot: Arc<Slot<T>>,
    }
}

impl<F, T> Handed<F, T> {
    pub(crate) fn new(run: F, slot: Arc<Slot<T>>) -> Self {
        Self {
            run: Some(run),
            slot,
        }
    }
}

impl<F, T> Stream for Handed<F, T>
where
    F: Future<Output = Result<(), Error>>,
{
    type Item = Result<T, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let Some(run) = this.run.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        match run.poll(cx) {
            Poll::Pending => match this.slot.take() {
                Some(item) => Poll::Ready(Some(Ok(item))),
                None => Poll::Pending,
            },
            Poll::Ready(result) => {
                this.run.set(None);
                Poll::Ready(result.err().map(Err))
            }
        }
    }
}
