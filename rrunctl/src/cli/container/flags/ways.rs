//! Flags that are no part of a container: how its image gets here, and who stays with it.

#![forbid(unsafe_code)]

use super::Flags;
use super::value::{switch, truth};
use crate::container::types::CreateRequest;
use crate::error::{Error, Result};
use crate::image::Platform;
use crate::monitor::Keys;
use clap::Args;

/// How `run` and `create` get the image.
#[derive(Debug, Args)]
pub(in crate::cli::container) struct Ways {
    /// Bring the image here: always, missing or never
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pull: Option<String>,
    /// For another machine than this one: OS[/ARCH[/VARIANT]]
    #[arg(long, allow_hyphen_values = true)]
    platform: Option<String>,
    /// Say nothing of the pull
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    quiet: Option<String>,
    /// Nothing here checks signatures, so that this is always so
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    disable_content_trust: Option<String>,
}

/// When the image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::container) enum Pull {
    Always,
    /// If it is not here.
    Missing,
    Never,
}

/// What [`Ways`] say.
#[derive(Debug)]
pub(in crate::cli::container) struct Image {
    pub(in crate::cli::container) pull: Pull,
    pub(in crate::cli::container) platform: Option<Platform>,
    pub(in crate::cli::container) quiet: bool,
}

impl Ways {
    /// # Errors
    /// Values that there are not.
    pub(in crate::cli::container) fn image(self) -> Result<Image> {
        let quiet = switch("-q, --quiet", self.quiet.as_deref())?;
        if !super::value::one("--disable-content-trust", self.disable_content_trust.as_deref(), truth)?
            .unwrap_or(true)
        {
            return Err(Error::invalid("--disable-content-trust=false: signatures are not checked here"));
        }
        let pull = match self.pull.as_deref() {
            None | Some("missing") => Pull::Missing,
            Some("always") => Pull::Always,
            // Docker takes an empty one too, and then never pulls.
            Some("never" | "") => Pull::Never,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
                )));
            }
        };
        let platform = self.platform.as_deref().filter(|platform| !platform.is_empty());
        let platform = platform
            .map(Platform::parse)
            .transpose()
            .map_err(|e| e.context("error parsing specified platform"))?;
        Ok(Image { pull, platform, quiet })
    }
}

/// Who stays with a container that `run` starts.
#[derive(Debug, Args)]
pub(in crate::cli::container) struct Client {
    /// Print its id, and leave it alone
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    detach: Option<String>,
    /// What is typed to leave it running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", allow_hyphen_values = true)]
    detach_keys: Option<String>,
    /// Hand on signals to it; so it is without a terminal [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: Option<String>,
}

/// What [`Client`] says.
#[derive(Debug)]
pub(in crate::cli::container) struct Session {
    pub(in crate::cli::container) detach: bool,
    pub(in crate::cli::container) keys: Keys,
    pub(in crate::cli::container) sig_proxy: bool,
}

impl Client {
    /// # Errors
    /// Values that there are not, and what contradicts `flags`.
    pub(in crate::cli::container) fn session(self, flags: &Flags) -> Result<Session> {
        let detach = switch("-d, --detach", self.detach.as_deref())?;
        let sig_proxy = super::value::one("--sig-proxy", self.sig_proxy.as_deref(), truth)?.unwrap_or(true);
        let keys = Keys::parse(self.detach_keys.as_deref().unwrap_or_default())?;
        if detach && flags.says_attach() {
            return Err(Error::invalid("conflicting options: cannot specify both --attach and --detach"));
        }
        Ok(Session { detach, keys, sig_proxy })
    }
}

impl Session {
    /// Whom nobody stays with nobody is attached to.
    pub(in crate::cli::container) fn prepare(&self, request: &mut CreateRequest) {
        if self.detach {
            let config = &mut request.config;
            (config.attach_stdin, config.attach_stdout, config.attach_stderr) = (false, false, false);
            config.stdin_once = false;
        }
    }
}
