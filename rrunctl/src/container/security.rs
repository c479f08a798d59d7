//! `--security-opt`.

#![forbid(unsafe_code)]

use super::mount::parse_bool;
use crate::error::{Context as _, Error, Result};

/// What it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `apparmor=PROFILE`.
    pub apparmor: Option<String>,
    /// `seccomp=unconfined`, `seccomp=builtin`, or a profile's JSON.
    pub seccomp: Option<String>,
    /// `writable-cgroups`.
    pub writable_cgroups: bool,
    /// `label=…`, for SELinux; `disable` alone as well.
    pub labels: Vec<String>,
}

impl Security {
    /// What a HostConfig's `SecurityOpt` says.
    ///
    /// # Errors
    /// Options that there are not.
    pub fn parse(options: &[String]) -> Result<Self> {
        let mut security = Self::default();
        for option in options {
            let wrong = |n: u8| Error::invalid(format!("invalid --security-opt {n}: {option:?}"));
            match option.as_str() {
                "no-new-privileges" => security.no_new_privileges = true,
                "writable-cgroups" => security.writable_cgroups = true,
                "disable" => security.labels.push(option.clone()),
                _ => {
                    let separated = option.split_once('=').or_else(|| option.split_once(':'));
                    let (key, value) = separated.ok_or_else(|| wrong(1))?;
                    match key {
                        "label" => security.labels.push(value.to_owned()),
                        "apparmor" => security.apparmor = Some(value.to_owned()),
                        "seccomp" => security.seccomp = Some(value.to_owned()),
                        "no-new-privileges" => {
                            security.no_new_privileges = parse_bool(value).ok_or_else(|| wrong(2))?;
                        }
                        "writable-cgroups" => {
                            security.writable_cgroups = parse_bool(value).ok_or_else(|| wrong(2))?;
                        }
                        _ => return Err(wrong(2)),
                    }
                }
            }
        }
        Ok(security)
    }
}

/// What a command line says, for a HostConfig: a seccomp profile is its file's content there, and
/// `systempaths=unconfined` (the second value) two empty lists of paths.
///
/// # Errors
/// A profile that cannot be read, or is no JSON; what is no option.
pub fn from_command_line(options: &[String]) -> Result<(Vec<String>, bool)> {
    let (mut given, mut unconfined) = (Vec::new(), false);
    for option in options {
        if option == "systempaths=unconfined" {
            unconfined = true;
            continue;
        }
        let separated = option.split_once('=').or_else(|| option.split_once(':'));
        match separated {
            None if !["no-new-privileges", "writable-cgroups"].contains(&option.as_str()) => {
                return Err(Error::invalid(format!("Invalid --security-opt: {option:?}")));
            }
            Some(("seccomp", path)) if !["unconfined", "builtin"].contains(&path) => {
                let doing = || format!("opening seccomp profile ({path}) failed");
                let text = std::fs::read_to_string(path).context(|| format!("open {path}")).context(doing)?;
                let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| {
                    Error::invalid(format!("compacting json for seccomp profile ({path}) failed: {e}"))
                })?;
                given.push(format!("seccomp={value}"));
            }
            _ => given.push(option.clone()),
        }
    }
    Ok((given, unconfined))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_read_and_wrong_ones_refused() {
        let all =
            Security::parse(&words("no-new-privileges label=disable apparmor=unconfined seccomp:unconfined"));
        let all = all.expect("valid");
        assert!(all.no_new_privileges && all.labels == ["disable"]);
        assert_eq!(
            (all.apparmor.as_deref(), all.seccomp.as_deref()),
            (Some("unconfined"), Some("unconfined"))
        );
        assert!(!Security::parse(&words("no-new-privileges=false")).expect("valid").no_new_privileges);
        for (bad, text) in [
            ("foo", "invalid --security-opt 1: \"foo\""),
            ("foo=bar", "invalid --security-opt 2: \"foo=bar\""),
            ("no-new-privileges=x", "invalid --security-opt 2: \"no-new-privileges=x\""),
        ] {
            assert_eq!(Security::parse(&words(bad)).expect_err(bad).to_string(), text);
        }
    }

    #[test]
    fn a_command_line_names_a_profiles_file() {
        let path =
            std::env::temp_dir().join(format!("rrunctl-security-{}", crate::home::unique().expect("random")));
        std::fs::write(&path, "{\n \"defaultAction\": \"SCMP_ACT_ALLOW\" }").expect("write");
        let option = format!("seccomp={}", path.display());
        let (given, unconfined) =
            from_command_line(&[option, "systempaths=unconfined".into()]).expect("valid");
        assert_eq!(
            (given.as_slice(), unconfined),
            (&[r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#.to_owned()][..], true)
        );
        std::fs::remove_file(&path).expect("remove");
        for (bad, text) in [
            ("foo", "Invalid --security-opt: \"foo\""),
            (
                "seccomp=/nonexistent",
                "opening seccomp profile (/nonexistent) failed: open /nonexistent: no such file or directory",
            ),
        ] {
            assert_eq!(from_command_line(&words(bad)).expect_err(bad).to_string(), text);
        }
    }
}
