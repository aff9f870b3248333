use std::sync::Arc;
use std::time::Instant;

use futures_core::future::BoxFuture;
use sqlx::pool::{PoolConnectionMetadata, PoolOptions};
use sqlx::{Database, Error};

use crate::acquire;
use crate::event::{Event, Op, Outcome};
use crate::roster::{Roster, next_id};
use crate::subject::Subject;

/// The two hooks of a pool that tracing has a use for, and what the program
/// wants done in them.
pub(crate) struct Hooks<DB: Database> {
    pub(crate) after_connect: Hook<AfterConnect<DB>>,
    pub(crate) before_acquire: Hook<BeforeAcquire<DB>>,
}

/// Whose hook it is that the pool calls.
#[derive(Clone)]
pub(crate) enum Hook<F> {
    /// Ours, which calls the program's.
    Ours(Option<F>),
    /// The program's, which was set where we cannot get at it.
    Theirs,
}

pub(crate) type AfterConnect<DB> = Arc<
    dyn for<'c> Fn(
            &'c mut <DB as Database>::Connection,
            PoolConnectionMetadata,
        ) -> BoxFuture<'c, Result<(), Error>>
        + Send
        + Sync,
>;

pub(crate) type BeforeAcquire<DB> = Arc<
    dyn for<'c> Fn(
            &'c mut <DB as Database>::Connection,
            PoolConnectionMetadata,
        ) -> BoxFuture<'c, Result<bool, Error>>
        + Send
        + Sync,
>;

impl<DB: Database> Hooks<DB> {
    /// Runs `configure`, and finds out whether it set one of the hooks.
    pub(crate) fn watch(
        &mut self,
        options: PoolOptions<DB>,
        configure: impl FnOnce(PoolOptions<DB>) -> PoolOptions<DB>,
    ) -> PoolOptions<DB> {
        // Options do not show their hooks. But they own them, so that a hook
        // that was replaced no longer holds on to its mark.
        let (connect, acquire) = (Arc::new(()), Arc::new(()));
        let options = match &self.after_connect {
            Hook::Theirs => options,
            Hook::Ours(_) => options.after_connect({
                let mark = Arc::clone(&connect);
                move |_, _| {
                    let _ = &mark;
                    Box::pin(std::future::ready(Ok(())))
                }
            }),
        };
        let options = match &self.before_acquire {
            Hook::Theirs => options,
            Hook::Ours(_) => options.before_acquire({
                let mark = Arc::clone(&acquire);
                move |_, _| {
                    let _ = &mark;
                    Box::pin(std::future::ready(Ok(true)))
                }
            }),
        };
        let options = configure(options);
        if Arc::strong_count(&connect) == 1 {
            self.after_connect = Hook::Theirs;
        }
        if Arc::strong_count(&acquire) == 1 {
            self.before_acquire = Hook::Theirs;
        }
        options
    }

    /// Whether both are ours to set.
    pub(crate) fn are_ours(&self) -> bool {
        matches!(
            (&self.after_connect, &self.before_acquire),
            (Hook::Ours(_), Hook::Ours(_))
        )
    }

    /// Sets our hooks, where they are ours to set.
    pub(crate) fn install(
        self,
        mut options: PoolOptions<DB>,
        subject: &Arc<Subject>,
    ) -> PoolOptions<DB> {
        let roster = Arc::new(Roster::new(options.get_max_connections()));
        match self.after_connect {
            Hook::Ours(theirs) => {
                let hook = after_connect::<DB>(Arc::clone(subject), Arc::clone(&roster), theirs);
                options = options.after_connect(hook);
            }
            Hook::Theirs => {}
        }
        match self.before_acquire {
            Hook::Ours(theirs) => {
                options = options.before_acquire(before_acquire::<DB>(roster, theirs));
            }
            Hook::Theirs => {}
        }
        if !subject.hooked {
            subject.tell_untraced(
                "hooks set by TracedPoolOptions::configure hide the opening of connections",
                None,
            );
        }
        options
    }
}

fn after_connect<DB: Database>(
    subject: Arc<Subject>,
    roster: Arc<Roster>,
    theirs: Option<AfterConnect<DB>>,
) -> impl for<'c> Fn(&'c mut DB::Connection, PoolConnectionMetadata) -> BoxFuture<'c, Result<(), Error>>
+ Send
+ Sync
+ 'static {
    move |connection, meta| {
        let id = next_id();
        if subject.enabled(Op::Open) {
            subject.tell(&mut Event {
                connection: Some(id),
                elapsed: acquire::opened(),
                ..Event::plain(Op::Open, &subject.target, Outcome::Ok)
            });
        }
        let theirs = theirs.as_ref().map(|hook| hook(connection, meta));
        let roster = Arc::clone(&roster);
        Box::pin(async move {
            if let Some(theirs) = theirs {
                theirs.await?;
            }
            let now = Instant::now();
            roster.enter(id, now);
            acquire::note_had(now, Some(id));
            Ok(())
        })
    }
}

fn before_acquire<DB: Database>(
    roster: Arc<Roster>,
    theirs: Option<BeforeAcquire<DB>>,
) -> impl for<'c> Fn(
    &'c mut DB::Connection,
    PoolConnectionMetadata,
) -> BoxFuture<'c, Result<bool, Error>>
+ Send
+ Sync
+ 'static {
    move |connection, meta| {
        let found = acquire::current().map(|acquire| {
            let now = Instant::now();
            (now, roster.find(meta.age, acquire.polled, now))
        });
        match (&theirs, found) {
            (None, Some((now, id))) => {
                acquire::note_had(now, id);
                Box::pin(std::future::ready(Ok(true)))
            }
            (None, None) => Box::pin(std::future::ready(Ok(true))),
            (Some(theirs), None) => theirs(connection, meta),
            (Some(theirs), Some((_, id))) => {
                let theirs = theirs(connection, meta);
                Box::pin(async move {
                    let accepted = theirs.await?;
                    if accepted {
                        acquire::note_had(Instant::now(), id);
                    }
                    Ok(accepted)
                })
            }
        }
    }
}

impl<DB: Database> Default for Hooks<DB> {
    fn default() -> Self {
        Self {
            after_connect: Hook::Ours(None),
            before_acquire: Hook::Ours(None),
        }
    }
}

impl<DB: Database> Clone for Hooks<DB> {
    fn clone(&self) -> Self {
        Self {
            after_connect: self.after_connect.clone(),
            before_acquire: self.before_acquire.clone(),
        }
    }
}
