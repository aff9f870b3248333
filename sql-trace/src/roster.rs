use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::event::ConnectionId;

/// Recognises the connections of a pool when they are handed out again.
///
/// sqlx gives a pooled connection no name, and moves it about. What it tells
/// is the connection's age, when it leaves the pool. So the roster keeps the
/// moment each connection was opened, and finds the one whose moment fits.
/// Where two fit, it says that it does not know.
#[derive(Debug)]
pub(crate) struct Roster {
    /// In the order of `opened`.
    entries: Mutex<Vec<Entry>>,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: ConnectionId,
    /// Just before the pool noted the time of birth.
    opened: Instant,
    /// The pool had noted it by then.
    settled: Instant,
    /// For forgetting connections that are long closed.
    seen: Instant,
}

impl Roster {
    pub(crate) fn new(max_connections: u32) -> Self {
        Self {
            entries: Mutex::default(),
            capacity: (max_connections as usize).saturating_mul(4).clamp(32, 4096),
        }
    }

    /// Notes a connection that was opened just now.
    pub(crate) fn enter(&self, id: ConnectionId, opened: Instant) {
        // Until the pool is seen to have the connection. It takes it the next
        // moment, unless the thread is interrupted right there.
        const SETTLING: Duration = Duration::from_secs(1);

        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.capacity
            && let Some(at) = (0..entries.len()).min_by_key(|&at| entries[at].seen)
        {
            entries.remove(at);
        }
        let at = entries.partition_point(|entry| entry.opened <= opened);
        entries.insert(
            at,
            Entry {
                id,
                opened,
                settled: opened + SETTLING,
                seen: opened,
            },
        );
    }

    /// Finds the connection that was `age` old at a moment that was not before
    /// `earliest` and not after `latest`.
    pub(crate) fn find(
        &self,
        age: Duration,
        earliest: Instant,
        latest: Instant,
    ) -> Option<ConnectionId> {
        let (earliest_birth, latest_birth) = (earliest.checked_sub(age)?, latest.checked_sub(age)?);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let after = entries.partition_point(|entry| entry.opened <= latest_birth);
        let (before, found) = entries[..after].split_last_mut().map(|(e, b)| (b, e))?;
        let rival = before.last().is_some_and(|e| e.opened >= earliest_birth);
        if rival || found.settled < earliest_birth {
            return None;
        }
        found.settled = found.settled.min(latest_birth);
        found.seen = latest;
        Some(found.id)
    }
}

/// The next number.
pub(crate) fn next_id() -> ConnectionId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn roster(now: Instant, births: &[u32]) -> Roster {
        let roster = Roster::new(1);
        for (at, birth) in births.iter().enumerate() {
            roster.enter(ConnectionId(at as u64 + 1), now + MS * *birth);
        }
        roster
    }

    #[test]
    fn connection_is_found_by_its_age() {
        let t0 = Instant::now();
        let roster = roster(t0, &[0, 10, 20]);
        let at = |birth: u32| {
            let now = t0 + MS * 1000;
            // The pool took the connection 1 ms after it was opened.
            let age = MS * (1000 - birth - 1);
            roster.find(age, now, now).map(ConnectionId::get)
        };
        assert_eq!(at(0), Some(1));
        assert_eq!(at(10), Some(2));
        assert_eq!(at(20), Some(3));
        assert_eq!(at(10), Some(2), "found again");
    }

    #[test]
    fn connection_is_not_guessed_between_two() {
        let t0 = Instant::now();
        let roster = roster(t0, &[10, 11]);
        // Interrupted for 5 ms between the two readings of the clock.
        let (earliest, latest) = (t0 + MS * 100, t0 + MS * 105);
        assert_eq!(roster.find(MS * 90, earliest, latest), None);
        // Born 10 to 10.5 ms after t0: only the first can be meant.
        let latest = earliest + MS / 2;
        assert_eq!(
            roster.find(MS * 90, earliest, latest),
            Some(ConnectionId(1))
        );
    }

    #[test]
    fn stranger_is_not_taken_for_the_nearest() {
        let t0 = Instant::now();
        let roster = roster(t0, &[10]);
        let now = t0 + MS * 5000;
        assert_eq!(roster.find(MS * 4995, now, now), None, "older than any");
        assert_eq!(roster.find(MS * 3000, now, now), None, "born long after");
        assert_eq!(roster.find(MS * 4989, now, now), Some(ConnectionId(1)));
        assert_eq!(
            roster.find(MS * 4900, now, now),
            None,
            "born after the first was seen to be in the pool"
        );
        assert_eq!(roster.find(MS * 9000, t0, t0), None, "older than the clock");
    }

    #[test]
    fn all_connections_of_a_large_pool_are_remembered() {
        let t0 = Instant::now();
        let roster = Roster::new(20);
        // Four times as many as are open at a time.
        for n in 0..80 {
            roster.enter(ConnectionId(n), t0 + MS * 10 * n as u32);
        }
        let now = t0 + MS * 1000;
        for n in 0..80 {
            let found = roster.find(MS * (1000 - 10 * n as u32), now, now);
            assert_eq!(found, Some(ConnectionId(n)));
        }
    }

    #[test]
    fn forgotten_is_the_one_not_seen_for_longest() {
        let t0 = Instant::now();
        let births: Vec<u32> = (0..32).map(|n| n * 10).collect();
        let roster = roster(t0, &births);
        let now = t0 + MS * 1000;
        let age = |birth: u32| MS * (1000 - birth);
        assert!(roster.find(age(0), now, now).is_some());
        roster.enter(ConnectionId(99), t0 + MS * 900);
        assert!(roster.find(age(0), now, now).is_some(), "seen lately");
        assert_eq!(roster.find(age(10), now, now), None);
    }
}
