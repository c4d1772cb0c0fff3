//! Whether, and when, a container that ended is started again (pure).

use std::time::Duration;

use crate::{
    config::RestartPolicy,
    error::{Error, Result},
};

/// Docker's first back-off; it doubles up to a minute and starts over after ten good seconds.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
const GOOD_RUN: Duration = Duration::from_secs(10);

/// What one decision may know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) policy: &'a RestartPolicy,
    pub(crate) exit_code: i32,
    pub(crate) ran_for: Duration,
    pub(crate) stopped_by_user: bool,
    pub(crate) restarts: u32,
    pub(crate) last_delay: Option<Duration>,
}

/// The delay before the next start; `None` when there is none.
pub(crate) fn decide(view: &View<'_>) -> Option<Duration> {
    if view.stopped_by_user {
        return None;
    }
    let again = match view.policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let limit = view.policy.maximum_retry_count;
            view.exit_code != 0 && (limit == 0 || i64::from(view.restarts) < limit)
        }
        _ => false,
    };
    again.then(|| match view.last_delay {
        Some(last) if view.ran_for < GOOD_RUN => (last * 2).min(LONGEST),
        Some(_) | None => FIRST,
    })
}

/// Whether a container that is not running is started when the engine opens after a crash or reboot.
pub(crate) fn starts_at_open(policy: &RestartPolicy, stopped_by_user: bool) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !stopped_by_user,
        _ => false,
    }
}

/// Refuses policies that Docker refuses.
pub(crate) fn validate(policy: &RestartPolicy, auto_remove: bool) -> Result<()> {
    let count = policy.maximum_retry_count;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if count != 0 => {
            return Err(Error::Invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'".to_owned(),
            ));
        }
        "" | "no" => return Ok(()),
        "always" | "unless-stopped" => {}
        "on-failure" if count < 0 => {
            return Err(Error::Invalid("invalid restart policy: maximum retry count cannot be negative".to_owned()));
        }
        "on-failure" => {}
        other => {
            return Err(Error::Invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    if auto_remove {
        return Err(Error::Invalid("can't create 'AutoRemove' container with restart policy".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, count: i64) -> RestartPolicy {
        RestartPolicy { name: name.to_owned(), maximum_retry_count: count }
    }

    #[test]
    fn policies_decide_as_docker_does() {
        let table = [
            ("no", 0, 1, false, 0, None),
            ("", 0, 1, false, 0, None),
            ("always", 0, 0, false, 0, Some(FIRST)),
            ("always", 0, 0, true, 0, None),
            ("unless-stopped", 0, 3, false, 9, Some(FIRST)),
            ("on-failure", 0, 0, false, 0, None),
            ("on-failure", 0, 1, false, 50, Some(FIRST)),
            ("on-failure", 2, 1, false, 1, Some(FIRST)),
            ("on-failure", 2, 1, false, 2, None),
        ];
        for (name, limit, exit_code, stopped_by_user, restarts, expected) in table {
            let policy = policy(name, limit);
            let ran_for = Duration::from_secs(1);
            let view = View { policy: &policy, exit_code, ran_for, stopped_by_user, restarts, last_delay: None };
            assert_eq!(decide(&view), expected, "{name} {limit} {exit_code}");
        }
    }

    #[test]
    fn back_off_doubles_to_a_minute_and_starts_over_after_a_good_run() {
        let policy = policy("always", 0);
        let next = |last, ran| {
            let view = View {
                policy: &policy,
                exit_code: 1,
                ran_for: ran,
                stopped_by_user: false,
                restarts: 1,
                last_delay: Some(last),
            };
            decide(&view).unwrap()
        };
        assert_eq!(next(FIRST, Duration::ZERO), Duration::from_millis(200));
        assert_eq!(next(Duration::from_secs(40), Duration::ZERO), LONGEST);
        assert_eq!(next(LONGEST, GOOD_RUN), FIRST);
    }

    #[test]
    fn only_some_policies_start_at_open() {
        let table = [
            ("always", true, true),
            ("unless-stopped", true, false),
            ("unless-stopped", false, true),
            ("on-failure", false, false),
        ];
        for (name, stopped, expected) in table {
            assert_eq!(starts_at_open(&policy(name, 0), stopped), expected, "{name} {stopped}");
        }
    }

    #[test]
    fn nonsense_policies_are_refused() {
        for (bad, auto_remove) in [
            (policy("sometimes", 0), false),
            (policy("always", 3), false),
            (policy("on-failure", -1), false),
            (policy("always", 0), true),
        ] {
            assert!(validate(&bad, auto_remove).is_err(), "{bad:?}");
        }
        validate(&policy("on-failure", 3), false).unwrap();
        validate(&policy("no", 0), true).unwrap();
    }
}
