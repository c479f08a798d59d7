//! The restart policy: whether, and after how long.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When a container that has ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Never.
    #[default]
    No,
    /// If its exit code is not 0.
    OnFailure,
    /// Always.
    Always,
    /// Always; it differs from `always` after a reboot only.
    UnlessStopped,
}

/// A policy, as `docker run --restart` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// When.
    pub name: Policy,
    /// How often `on-failure` does; 0 is without limit.
    #[serde(default)]
    pub maximum: u32,
}

/// What goes before the first restart.
const FIRST: Duration = Duration::from_millis(100);
/// What no restart waits longer than.
const LONGEST: Duration = Duration::from_secs(60);
/// A container that ran so long is well, and the next delay is the first again.
const WELL: Duration = Duration::from_secs(10);

/// How often it was restarted, and what the last delay was.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// `RestartCount`.
    pub count: u32,
    delay: Duration,
    /// Somebody stopped it: no policy starts it again.
    pub stopped: bool,
}

impl Restarts {
    /// After which delay a container is started again that ended with `code` after `uptime`, if it is.
    pub fn after(&mut self, restart: Restart, code: i32, uptime: Duration) -> Option<Duration> {
        let again = match restart.name {
            Policy::No => false,
            Policy::Always | Policy::UnlessStopped => true,
            Policy::OnFailure => code != 0 && (restart.maximum == 0 || self.count < restart.maximum),
        };
        if !again || self.stopped {
            return None;
        }
        self.delay = match self.delay {
            _ if uptime >= WELL => FIRST,
            Duration::ZERO => FIRST,
            delay => (delay * 2).min(LONGEST),
        };
        self.count += 1;
        Some(self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    fn delays(name: Policy, maximum: u32, code: i32, uptime: Duration) -> Vec<u128> {
        let mut restarts = Restarts::default();
        std::iter::from_fn(|| restarts.after(Restart { name, maximum }, code, uptime))
            .map(|delay| delay.as_millis())
            .take(12)
            .collect()
    }

    #[test]
    fn the_delay_doubles_from_100_ms_to_a_minute() {
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000];
        assert_eq!(delays(Policy::Always, 0, 0, SHORT), expected);
        assert_eq!(delays(Policy::UnlessStopped, 0, 1, SHORT), expected);
        assert_eq!(delays(Policy::OnFailure, 0, 1, SHORT), expected);
    }

    #[test]
    fn ten_seconds_of_life_begin_the_delays_anew() {
        assert_eq!(delays(Policy::Always, 0, 0, WELL), [100; 12]);
        let mut restarts = Restarts::default();
        let always = Restart { name: Policy::Always, maximum: 0 };
        let mut after = |uptime| restarts.after(always, 0, uptime).map(|delay| delay.as_millis());
        assert_eq!([SHORT, SHORT, WELL, SHORT].map(&mut after), [Some(100), Some(200), Some(100), Some(200)]);
    }

    #[test]
    fn on_failure_restarts_failures_alone_and_so_often_as_is_said() {
        assert_eq!(delays(Policy::OnFailure, 3, 1, SHORT), [100, 200, 400]);
        assert!(delays(Policy::OnFailure, 0, 0, SHORT).is_empty());
        assert!(delays(Policy::No, 0, 1, SHORT).is_empty());
    }

    #[test]
    fn what_was_stopped_is_not_restarted() {
        let mut restarts = Restarts { stopped: true, ..Restarts::default() };
        assert_eq!(restarts.after(Restart { name: Policy::Always, maximum: 0 }, 137, SHORT), None);
    }

    #[test]
    fn policies_have_the_names_of_docker() {
        let read = |text| serde_json::from_str::<Restart>(text).expect("a policy");
        assert_eq!(
            read(r#"{"name":"on-failure","maximum":3}"#),
            Restart { name: Policy::OnFailure, maximum: 3 }
        );
        assert_eq!(read(r#"{"name":"unless-stopped"}"#).name, Policy::UnlessStopped);
    }
}
