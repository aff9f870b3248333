use std::ffi::OsStr;
use std::time::Duration;

use super::Starter;
use super::environment;
use crate::cli::moment::Moment;
use crate::cli::variables::Variables;

impl Starter {
    pub(super) fn auto_restart_at(&self) -> Option<Moment> {
        if self.stopping
            || self.candidate.is_some()
            || self.kill_old_at.is_some()
            || self.start_at.is_some()
        {
            return None;
        }
        let variables = self.variables();
        let interval = auto_restart_interval(&variables)?;
        let at = self.last_start
            + if self.old.is_empty() {
                interval
            } else {
                interval.saturating_mul(2)
            };
        // What the files say may change before it is due.
        let volatile = variables.contains_key(OsStr::new(environment::ENVDIR));
        Some(if volatile {
            at.min(Moment::now() + TICK)
        } else {
            at
        })
    }

    pub(super) fn auto_restart(&mut self) {
        let variables = self.variables();
        let Some(interval) = auto_restart_interval(&variables) else {
            return;
        };
        let age = self.last_start.elapsed();
        let secs = interval.as_secs_f64();
        if age >= interval && self.old.is_empty() {
            self.log
                .line(format_args!("autorestart triggered (interval={secs})"));
        } else if age >= interval.saturating_mul(2) {
            self.log.line(format_args!(
                "autorestart triggered (forced, interval={secs})"
            ));
        } else {
            return;
        }
        self.begin_restart();
    }

    pub(super) fn old_delay(&self) -> Duration {
        kill_old_delay(&self.variables())
    }

    /// Returns the workers' environment as it is now; an unreadable one is empty.
    fn variables(&self) -> Variables {
        self.environment.load().unwrap_or_default()
    }
}

fn kill_old_delay(variables: &Variables) -> Duration {
    environment::seconds(variables, "KILL_OLD_DELAY").unwrap_or(
        if environment::is_true(variables, "ENABLE_AUTO_RESTART") {
            AUTO_KILL_OLD_DELAY
        } else {
            Duration::ZERO
        },
    )
}

fn auto_restart_interval(variables: &Variables) -> Option<Duration> {
    environment::is_true(variables, "ENABLE_AUTO_RESTART").then(|| {
        environment::seconds(variables, "AUTO_RESTART_INTERVAL")
            .filter(|interval| !interval.is_zero())
            .unwrap_or(AUTO_RESTART_INTERVAL)
    })
}

const AUTO_RESTART_INTERVAL: Duration = Duration::from_secs(360);
const AUTO_KILL_OLD_DELAY: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_perls_if_nothing_else_is_said() {
        fn interval(pairs: &[(&str, &str)]) -> Option<u64> {
            auto_restart_interval(&variables(pairs)).map(|time| time.as_secs())
        }
        fn delay(pairs: &[(&str, &str)]) -> u64 {
            kill_old_delay(&variables(pairs)).as_secs()
        }
        let on = ("ENABLE_AUTO_RESTART", "1");
        assert_eq!(interval(&[]), None);
        assert_eq!(interval(&[on]), Some(360));
        assert_eq!(interval(&[on, ("AUTO_RESTART_INTERVAL", "")]), Some(360));
        assert_eq!(interval(&[on, ("AUTO_RESTART_INTERVAL", "7")]), Some(7));
        // Perl's would restart without a pause.
        assert_eq!(interval(&[on, ("AUTO_RESTART_INTERVAL", "-7")]), Some(360));
        assert_eq!(delay(&[]), 0);
        assert_eq!(delay(&[on]), 5);
        assert_eq!(delay(&[on, ("KILL_OLD_DELAY", "0")]), 0);
        assert_eq!(delay(&[("KILL_OLD_DELAY", "3")]), 3);
    }

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }
}
