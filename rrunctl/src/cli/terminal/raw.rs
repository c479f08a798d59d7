//! The caller's terminal, out of its line discipline's hands for a while.

#![forbid(unsafe_code)]

use crate::error::{Context as _, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, Once, PoisonError};

/// What the terminal was before; a panic puts it back as well, for it runs no destructor where it aborts.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Standard input's terminal in raw mode: every key goes to the container, which echoes. As before when this is
/// dropped.
#[derive(Debug)]
pub(super) struct Raw(());

impl Raw {
    /// Sets it, if standard input is a terminal.
    ///
    /// # Errors
    /// Those of tcsetattr(3).
    pub(super) fn set() -> Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        HOOK.call_once(|| {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                hook(panic);
            }));
        });
        let before = tcgetattr(io::stdin()).context(|| "tcgetattr")?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let set = Self(());
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).context(|| "tcsetattr")?;
        Ok(Some(set))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}
