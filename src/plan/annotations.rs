//! `annotations`: what config.md says of every key, and those of crun's that are decisions here.
//!
//! `run.oci.hooks.stdout` and `run.oci.hooks.stderr` are read in [`crate::hooks`]. The remaining `run.oci.*` ask
//! for what rrun does not have (handlers, plugins, filters as bytes, systemd) or does in any case.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::spec::Spec;
use std::collections::BTreeMap;

/// Checks the keys; unknown ones are nobody's business.
///
/// # Errors
/// An empty key (config.md: "Keys MUST NOT be an empty string").
pub fn check(annotations: &BTreeMap<String, String>) -> Result<()> {
    if annotations.contains_key("") {
        return Err(Error::config("annotations", "a key must not be empty"));
    }
    Ok(())
}

/// A socket that receives a pidfd of init, as `--pidfd-socket`.
pub const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
/// A socket that receives the seccomp notification fd, where `listenerPath` names none.
pub const SECCOMP_RECEIVER: &str = "run.oci.seccomp.receiver";

/// Whether the process keeps the runtime's supplementary groups: for files that only they may read, without root.
pub fn keeps_groups(annotations: &BTreeMap<String, String>) -> bool {
    is_on(annotations, "run.oci.keep_original_groups")
}

/// Whether a filter with a system call that nobody knows is an error.
pub fn fails_unknown_syscall(annotations: &BTreeMap<String, String>) -> bool {
    is_on(annotations, "run.oci.seccomp_fail_unknown_syscall")
}

fn is_on(annotations: &BTreeMap<String, String>, key: &str) -> bool {
    annotations.get(key).is_some_and(|value| value == "1" || value == "true")
}

/// Puts into `spec` what annotations say about it; done wherever config.json is read.
pub fn apply(spec: &mut Spec) {
    let receiver = spec.annotations.get(SECCOMP_RECEIVER).cloned();
    let seccomp = spec.linux.as_mut().and_then(|linux| linux.seccomp.as_mut());
    if let (Some(receiver), Some(seccomp)) = (receiver, seccomp)
        && seccomp.listener_path.is_empty()
    {
        seccomp.listener_path = receiver;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receiver_stands_in_for_a_listener_path() {
        let seccomp = |path: &str| crate::spec::Seccomp { listener_path: path.into(), ..Default::default() };
        for (own, want) in [("", "/a"), ("/own", "/own")] {
            let mut spec = Spec {
                annotations: BTreeMap::from([(SECCOMP_RECEIVER.into(), "/a".into())]),
                linux: Some(Box::new(crate::spec::Linux {
                    seccomp: Some(seccomp(own)),
                    ..Default::default()
                })),
                ..Spec::default()
            };
            apply(&mut spec);
            assert_eq!(spec.linux.unwrap().seccomp, Some(seccomp(want)));
        }
    }

    #[test]
    fn a_switch_is_on_by_1_or_true() {
        let of =
            |value: &str| BTreeMap::from([("run.oci.keep_original_groups".to_owned(), value.to_owned())]);
        assert!(keeps_groups(&of("1")) && keeps_groups(&of("true")));
        assert!(!keeps_groups(&of("0")) && !keeps_groups(&of("")));
    }

    #[test]
    fn only_an_empty_key_is_refused() {
        let of = |key: &str| BTreeMap::from([(key.to_owned(), String::new())]);
        assert!(check(&of("a.b")).is_ok());
        assert!(check(&of("")).is_err());
    }
}
