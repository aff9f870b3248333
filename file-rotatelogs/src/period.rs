use crate::clock::DAY;
use crate::zone::{Instants, Zone};

/// One turn of the clock between two rotations: from `start` to just before `end`,
/// called by the local time at which it nominally begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Period {
    /// The first second of it, since 1970.
    pub(crate) start: i64,
    /// The first second after it.
    pub(crate) end: i64,
    /// The local time of its name. Not shown by any clock when it was skipped.
    pub(crate) local: i64,
}

impl Period {
    /// Finds the period of `length` seconds that an instant lies in.
    ///
    /// Periods begin when local time reaches a multiple of their length, counted from
    /// Monday, 1 January of the year 1: those that divide a day begin at midnight, a
    /// week begins on Monday. When clocks are set back into a period that had ended,
    /// its second run is another period; into one that had not, it just lasts longer.
    /// When they are set forward over a beginning, the period begins at the jump.
    pub(crate) fn containing(zone: &Zone, length: i64, now: i64) -> Self {
        let (start, local) = start_of(zone, length, now);
        let mut end = match zone.instants(local + length) {
            Instants::One(at) | Instants::Skipped(at) => at,
            Instants::Two(first, _) if now < first => first,
            Instants::Two(_, second) => second,
        };
        let mut changes = zone.changes(now, end - 1);
        if let Some(change) = changes.find(|&change| start_of(zone, length, change).0 != start) {
            end = change;
        }
        Self {
            start,
            end: end.max(now + 1),
            local,
        }
    }

    /// Tells whether an earlier period has the same nominal local time, since when the
    /// clocks were set back.
    pub(crate) fn is_repeated(&self, zone: &Zone, length: i64) -> bool {
        let first = match zone.instants(self.local) {
            Instants::One(at) | Instants::Two(at, _) | Instants::Skipped(at) => at,
        };
        first < self.start && start_of(zone, length, first).0 != self.start
    }
}

/// Returns when the period of `now` began and its nominal local time.
fn start_of(zone: &Zone, length: i64, now: i64) -> (i64, i64) {
    let local = floor(zone.local_time(now), length);
    let reached = match zone.instants(local) {
        Instants::One(at) | Instants::Skipped(at) => at,
        Instants::Two(first, second) if now < second => first,
        // Set back to this very time: whether something ended then is seen below.
        Instants::Two(first, second) if zone.offset(second - 1) != zone.offset(second) => first,
        Instants::Two(_, second) => second,
    };
    let reached = reached.min(now);
    // Had the clocks not been set back then, they would have shown the end.
    let again = zone
        .changes(reached, now)
        .find(|&change| change + zone.offset(change - 1) >= local + length);
    (again.unwrap_or(reached), local)
}

fn floor(local: i64, length: i64) -> i64 {
    (local - EPOCH).div_euclid(length) * length + EPOCH
}

/// 0001-01-01 00:00:00, a Monday.
const EPOCH: i64 = -719_162 * DAY;

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
    const LORD_HOWE: &str = "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0";

    fn zone(text: &str) -> Zone {
        Zone::named(text).unwrap()
    }

    /// Walks from boundary to boundary: the periods must join, each must say the same of
    /// its first and last second.
    fn walk(zone: &Zone, length: i64, from: i64, count: usize) -> Vec<Period> {
        let mut now = from;
        let mut periods = Vec::new();
        for _ in 0..count {
            let period = Period::containing(zone, length, now);
            assert!(
                period.start <= now && now < period.end,
                "{period:?} has {now}"
            );
            assert_eq!(Period::containing(zone, length, period.start), period);
            assert_eq!(Period::containing(zone, length, period.end - 1), period);
            if let Some(&last) = periods.last() {
                let last: Period = last;
                assert_eq!(last.end, period.start, "{last:?} then {period:?}");
            }
            now = period.end;
            periods.push(period);
        }
        periods
    }

    fn lengths(periods: &[Period]) -> Vec<i64> {
        periods.iter().map(|p| (p.end - p.start) / 60).collect()
    }

    // 2026-10-25 01:00 UTC, and 2026-03-29 01:00 UTC.
    const BACK: i64 = 1_792_890_000;
    const FORTH: i64 = 1_774_746_000;

    #[test]
    fn repeated_hour_is_two_hourly_periods_of_one_name() {
        let periods = walk(&zone(BERLIN), 3600, BACK - 5400, 4);
        assert_eq!(lengths(&periods), [60, 60, 60, 60]);
        assert_eq!(periods[1].local, periods[2].local);
        assert_eq!(periods[2].start, BACK);
        let repeated: Vec<bool> = periods
            .iter()
            .map(|period| period.is_repeated(&zone(BERLIN), 3600))
            .collect();
        assert_eq!(repeated, [false, false, true, false]);
    }

    #[test]
    fn each_quarter_of_the_repeated_hour_is_repeated() {
        let berlin = zone(BERLIN);
        let periods = walk(&berlin, 900, BACK - 3600, 9);
        assert_eq!(lengths(&periods), [15; 9]);
        let repeated = periods
            .iter()
            .map(|period| period.is_repeated(&berlin, 900))
            .collect::<Vec<_>>();
        assert_eq!(
            repeated,
            [false, false, false, false, true, true, true, true, false]
        );
    }

    #[test]
    fn period_that_had_ended_before_the_clocks_were_set_back_begins_again() {
        // Every 90 minutes: 00:00 and 01:30 EDT, then 01:00 EST, which is after 00:00.
        let zone = zone("EST5EDT,M3.2.0,M11.1.0");
        let periods = walk(&zone, 5400, 1_793_505_600, 4);
        assert_eq!(lengths(&periods), [90, 30, 30, 90]);
        assert_eq!(periods[0].local, periods[2].local);
        assert!(periods[2].is_repeated(&zone, 5400));
    }

    #[test]
    fn period_of_several_changes_begins_again_by_the_one_near_its_end() {
        // A year and some days, up to 02:30 on the day of the change.
        let minutes = 530_087;
        let periods = walk(&zone(BERLIN), minutes * 60, BACK - 86_400, 4);
        assert_eq!(lengths(&periods), [minutes, 30, 30, minutes - 60]);
        assert_eq!(periods[0].local, periods[2].local);
        // From winter to 02:15 on that day.
        let minutes = 385_065;
        let periods = walk(&zone(BERLIN), minutes * 60, BACK - 86_400, 4);
        assert_eq!(lengths(&periods), [minutes - 60, 45, 15, minutes - 60]);
    }

    #[test]
    fn repeated_hour_makes_a_longer_period_last_longer() {
        let periods = walk(&zone(BERLIN), 7200, BACK - 3600 * 3, 4);
        assert_eq!(lengths(&periods), [120, 180, 120, 120]);
        let day = walk(&zone(BERLIN), 86_400, BACK - 86_400, 3);
        assert_eq!(lengths(&day), [24 * 60, 25 * 60, 24 * 60]);
    }

    #[test]
    fn skipped_hour_is_no_period_and_a_longer_one_begins_at_the_jump() {
        let periods = walk(&zone(BERLIN), 3600, FORTH - 3600, 3);
        assert_eq!(lengths(&periods), [60, 60, 60]);
        assert_eq!(periods[1].local - periods[0].local, 7200);
        let periods = walk(&zone(BERLIN), 7200, FORTH - 3600, 3);
        assert_eq!(lengths(&periods), [120, 60, 120]);
        assert_eq!(periods[1].start, FORTH);
        assert_eq!(periods[1].local, zone(BERLIN).local_time(FORTH) - 3600);
    }

    #[test]
    fn half_hour_change_runs_half_of_the_hour_again() {
        // 2026-04-05 02:00 at +11 becomes 01:30 at +10:30.
        let back = 1_775_314_800;
        assert_eq!(
            zone(LORD_HOWE).changes(back - 9000, back + 9000).next(),
            Some(back)
        );
        let hours = walk(&zone(LORD_HOWE), 3600, back - 7200, 4);
        assert_eq!(lengths(&hours), [60, 60, 30, 60]);
        assert_eq!(hours[1].local, hours[2].local);
        let halves = walk(&zone(LORD_HOWE), 1800, back - 3600, 5);
        assert_eq!(lengths(&halves), [30, 30, 30, 30, 30]);
        assert_eq!(halves[1].local, halves[2].local);
    }

    /// With several changes in each, and ends at any time of the day.
    const YEARS: i64 = 400 * 86_400 + 9000;

    #[test]
    fn odd_lengths_still_join_across_both_changes() {
        for text in [
            BERLIN,
            LORD_HOWE,
            "UTC0",
            "EST5EDT,M3.2.0,M11.1.0",
            "<+0545>-5:45",
        ] {
            for length in [1800, 5400, 7 * 3600, 86_400, 7 * 86_400, 100_000, YEARS] {
                for change in [BACK, FORTH, 1_775_314_800, 1_793_509_200, 1_772_953_200] {
                    walk(&zone(text), length, change - 3 * length, 7);
                }
            }
        }
    }

    #[test]
    fn weeks_begin_on_monday() {
        // 2026-01-07 was a Wednesday.
        let week = Period::containing(&Zone::utc(), 7 * 86_400, 1_767_744_000);
        assert_eq!(week.start, 1_767_571_200);
    }
}
