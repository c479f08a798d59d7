//! `logs`.

#![forbid(unsafe_code)]

use super::Engine;
use crate::error::{Error, Result};
use crate::monitor::logs::{self, LogOptions, Stream};
use std::path::Path;

impl Engine {
    /// Gives the lines of a container's log to `sink`; with `follow` those to come too, until the container has ended
    /// for good. The monitor need not live.
    ///
    /// # Errors
    /// It has no log; those of [`logs::read`].
    pub fn logs(
        &self,
        id: &str,
        follow: bool,
        options: LogOptions,
        sink: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let container = self.containers.load(id)?;
        if container.host.log_config.r#type == "none" {
            return Err(Error::invalid("configured logging driver does not support reading"));
        }
        let follow = follow.then(|| self.run_dir(id));
        logs::read(Path::new(&container.record.log_path), &LogOptions { follow, ..options }, sink)
    }
}
