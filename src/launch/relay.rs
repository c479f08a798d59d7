//! Entering namespaces that somebody else has made, and the third process that it takes.
//!
//! For `create` a third process is needed where a user namespace is joined: capabilities over the other namespaces come
//! only with that one, so somebody has to enter it before they are created. It enters every namespace and makes the
//! real one with `CLONE_PARENT`, as a child of rrun, says its pid and ends. For `exec` see [`super::exec`].

#![forbid(unsafe_code)]

use super::fault::{At as _, Fault, Step};
use super::protocol::{self, Message};
use crate::plan::Kind;
use crate::sys::launch::{Cloned, clone3, exit_now, setns};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::Signal;

/// Enters namespaces: those of a pidfd at once, if they go at once. One that belongs to the host's user namespace,
/// as a pod's network may, needs our capabilities and so comes before the user namespace; one that the host may not
/// enter needs those of the user namespace and so comes after it.
///
/// # Errors
/// Those of setns(2).
pub fn enter(namespaces: &[(impl AsFd, u32)]) -> Result<(), Fault> {
    let user = Kind::User.flag();
    if let [(fd, kinds)] = namespaces {
        match setns(fd, *kinds) {
            Err(e) if e.errno == Errno::PERM && kinds & user != 0 => {}
            other => return other.at(Step::Namespace),
        }
    }
    let mut late = Vec::new();
    for (fd, kinds) in namespaces {
        if kinds & !user != 0 && setns(fd, kinds & !user).is_err() {
            late.push((fd, kinds & !user));
        }
    }
    for (fd, _) in namespaces.iter().filter(|(_, kinds)| kinds & user != 0) {
        setns(fd, user).at(Step::Namespace)?;
    }
    late.into_iter().try_for_each(|(fd, kinds)| setns(fd, kinds)).at(Step::Namespace)
}

/// Returns in the final process only.
pub fn through(namespaces: &[(impl AsFd, u32)], create: u32, socket: &OwnedFd) {
    let made = (|| -> Result<Cloned, Fault> {
        crate::sys::task::set_parent_death_signal(libc::SIGKILL).at(Step::Protocol)?;
        // Processes of a joined pid namespace see this one as soon as it is in their user namespace.
        crate::sys::task::set_dumpable(false).at(Step::Session)?;
        enter(namespaces)?;
        clone3(create | libc::CLONE_PARENT as u32, None).at(Step::Namespace)
    })();
    let told = match made {
        Ok(Cloned::Child) => Ok(()),
        Ok(Cloned::Parent(pid, pidfd)) => match protocol::send(socket, &Message::Pid(pid), &[]) {
            Ok(()) => exit_now(0),
            // Nobody would ever tell that process to go on.
            Err(e) => {
                let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
                Err(e).at(Step::Protocol)
            }
        },
        Err(fault) => Err(fault),
    };
    if let Err(fault) = told {
        let _ = protocol::send(socket, &Message::Fault(fault.into()), &[]);
        exit_now(1)
    }
}
