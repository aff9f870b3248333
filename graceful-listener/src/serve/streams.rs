use std::sync::Arc;

use hyper::rt::Executor;
use tokio::task::{self, Id};

use super::activity::Activity;

/// Spawns the streams of an HTTP/2 connection, and counts those that are upgraded.
///
/// Hyper drops the body of the response that upgrades a stream, and with it what counts a request,
/// but has a task for as long as something may be written to the stream.
#[derive(Clone)]
pub(super) struct Streams {
    activity: Arc<Activity>,
    connection: Option<Id>,
}

impl Streams {
    /// To be called on the connection's task.
    pub(super) fn new(activity: &Arc<Activity>) -> Self {
        Self {
            activity: Arc::clone(activity),
            connection: task::try_id(),
        }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        // The connection spawns its streams, and a stream its upgrade.
        if task::try_id() == self.connection {
            tokio::spawn(future);
            return;
        }
        let upgraded = Upgraded::new(&self.activity);
        tokio::spawn(async move {
            future.await;
            drop(upgraded);
        });
    }
}

/// Counts a stream as upgraded for as long as it lives.
struct Upgraded(Arc<Activity>);

impl Upgraded {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.upgrade_begins();
        Self(Arc::clone(activity))
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.0.upgrade_ends();
    }
}
