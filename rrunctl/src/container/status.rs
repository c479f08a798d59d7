//! What a container is at, in words: `Up 25 minutes`, `Exited (0) 3 seconds ago`.

#![forbid(unsafe_code)]

use super::types::{NEVER, State};
use crate::error::{Context as _, Error, Result};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A duration as Docker rounds it.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds.saturating_add(1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// A time as inspect prints it: UTC, with nanoseconds but no zeros behind.
///
/// # Errors
/// Years beyond 9999.
pub fn format_time(time: OffsetDateTime) -> Result<String> {
    time.to_offset(time::UtcOffset::UTC).format(&Rfc3339).map_err(|e| Error::system(format!("a time: {e}")))
}

/// The time that inspect prints; nothing for [`NEVER`].
///
/// # Errors
/// What is no RFC 3339.
pub fn parse_time(text: &str) -> Result<Option<OffsetDateTime>> {
    if text.is_empty() || text == NEVER {
        return Ok(None);
    }
    let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|e| Error::invalid(e.to_string()));
    parsed.map(Some).context(|| format!("the time {text:?}"))
}

/// The column STATUS of `docker ps`.
pub fn text(state: &State, now: OffsetDateTime) -> String {
    let since = |text: &str| {
        let time = parse_time(text).ok().flatten().unwrap_or(now);
        human_duration((now - time).whole_seconds())
    };
    match state.status.as_str() {
        "created" => "Created".to_owned(),
        "removing" => "Removal In Progress".to_owned(),
        "dead" => "Dead".to_owned(),
        "paused" => format!("Up {} (Paused)", since(&state.started_at)),
        "restarting" => format!("Restarting ({}) {} ago", state.exit_code, since(&state.finished_at)),
        "running" => match state.health.as_ref().map(|health| health.status.as_str()) {
            Some("starting") => format!("Up {} (health: starting)", since(&state.started_at)),
            Some(health) if !["", "none"].contains(&health) => {
                format!("Up {} ({health})", since(&state.started_at))
            }
            _ => format!("Up {}", since(&state.started_at)),
        },
        _ => format!("Exited ({}) {} ago", state.exit_code, since(&state.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::Health;
    use super::*;

    #[test]
    fn durations_are_rounded_as_docker_rounds_them() {
        const HOUR: i64 = 3600;
        for (seconds, text) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (1500, "25 minutes"),
            (HOUR - 1, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1799, "About an hour"),
            (HOUR + 1800, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (13 * 24 * HOUR, "13 days"),
            (35 * 24 * HOUR, "5 weeks"),
            (90 * 24 * HOUR, "3 months"),
            (729 * 24 * HOUR, "24 months"),
            (730 * 24 * HOUR, "2 years"),
            (i64::MAX - 1800, "292471208677 years"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_status_is_told_as_docker_tells_it() {
        let now = OffsetDateTime::parse("2026-11-23T06:00:00Z", &Rfc3339).expect("a time");
        let tell = |status: &str, health: Option<&str>| {
            let state = State {
                status: status.into(),
                exit_code: 3,
                started_at: "2026-11-23T05:35:00.5Z".into(),
                finished_at: "2026-11-23T05:59:57Z".into(),
                health: health.map(|status| Health { status: status.into(), ..Health::default() }),
                ..State::default()
            };
            text(&state, now)
        };
        assert_eq!(tell("running", None), "Up 24 minutes");
        assert_eq!(tell("running", Some("healthy")), "Up 24 minutes (healthy)");
        assert_eq!(tell("running", Some("starting")), "Up 24 minutes (health: starting)");
        assert_eq!(tell("paused", None), "Up 24 minutes (Paused)");
        assert_eq!(tell("exited", None), "Exited (3) 3 seconds ago");
        assert_eq!(tell("restarting", None), "Restarting (3) 3 seconds ago");
        assert_eq!(tell("created", None), "Created");
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for text in ["2026-11-23T05:49:56.587943187Z", "2026-11-23T05:49:56Z"] {
            assert_eq!(format_time(parse_time(text).expect("valid").expect("a time")).expect("fits"), text);
        }
        assert_eq!(parse_time(NEVER).expect("never"), None);
        assert!(parse_time("yesterday").is_err());
    }
}
