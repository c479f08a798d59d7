//! What the commands do.

#![forbid(unsafe_code)]

pub mod control;
pub mod create;
pub mod criu;
pub mod describe;
pub mod end;
pub mod exec;
pub mod inspect;
pub mod run;
pub mod start;

use crate::cli::{Command, Invocation, generate, help};
use crate::error::{Call, Context as _, Result};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io::Write;
use std::path::Path;

/// Runs a command, prints what it has to say to `out`, and returns the exit status.
///
/// # Errors
/// Those of the command; as runc's, those of create, run and exec begin with what failed.
pub fn run(inv: Invocation, out: &mut dyn Write) -> Result<u8> {
    let Invocation { name, global, command } = inv;
    match &command {
        // They look into the configuration first.
        Command::Create(_) | Command::Run(_) | Command::Exec(_) => {}
        Command::Restore(_) => prepare(true, 0)?,
        _ => keep_fds(0)?,
    }
    crate::log::debug(|| format!("{name} {}, pid {}", env!("CARGO_PKG_VERSION"), std::process::id()));
    let done = |()| 0;
    match command {
        Command::Help(topic) => print(out, &help::help(&name, topic)),
        Command::Version => print(out, &help::version(&name)),
        Command::Completion(shell) => print(out, &generate::completion(shell, &name)),
        Command::GenerateMan(dir) => man(&dir),
        Command::Create(args) => {
            create::create(&global, &args).map(done).context(|| format!("{name} create failed"))
        }
        Command::Run(args) => run::run(&global, &args).context(|| format!("{name} run failed")),
        Command::Exec(args) => exec::exec(&global, &args).context(|| "exec failed"),
        Command::Start(id) => start::start(&global, &id).map(done),
        Command::State(id) => inspect::state(&global, &id, out),
        Command::Kill(args) => end::kill(&global, &args).map(done),
        Command::Delete(args) => end::delete(&global, &args).map(done),
        Command::List(args) => inspect::list(&global, &args, out),
        Command::Ps(args) => inspect::ps(&global, &args, out),
        Command::Pause(id) => control::pause(&global, &id).map(done),
        Command::Resume(id) => control::resume(&global, &id).map(done),
        Command::Update(args) => control::update(&global, &args).map(done),
        Command::Events(args) => control::events(&global, &args, out),
        Command::Spec(args) => describe::spec(&args),
        Command::Features => describe::features(out),
        Command::Plan(args) => describe::plan(&global, &args, out),
        Command::Check(args) => describe::check(&args, out),
        Command::Checkpoint(args) => criu::checkpoint(&global, &args).map(done),
        Command::Restore(args) => criu::restore(&global, &args),
    }
}

/// How many fds from 3 on go to the container.
fn preserved(command: &Command) -> u32 {
    let asked = match command {
        Command::Create(args) => args.preserve_fds,
        Command::Run(args) => args.create.preserve_fds,
        Command::Exec(args) => args.preserve_fds,
        _ => 0,
    };
    create::listening().count.saturating_add(asked)
}

/// Keeps rrun's own file out of the process that will be started, if that does not do so itself, and the caller's fds.
/// These only then: a file of the command line may be one, and rrun may have to execute itself again.
fn prepare(protect: bool, preserve: u32) -> Result<()> {
    if protect {
        crate::exe::protect()?;
    }
    // runc's words, here and for the steps of a launch: its suite and those who know its log look for them.
    crate::log::debug(|| "exeseal: using /proc/self/exe clone, nothing of the file itself");
    keep_fds(preserve)
}

/// Keeps every other fd of the caller's from passing.
fn keep_fds(preserve: u32) -> Result<()> {
    let count = create::listening().count.saturating_add(preserve);
    Ok(crate::sys::launch::cloexec_from(count.saturating_add(3))?)
}

/// Takes over the fds that the caller hands to the container, before anything of ours could be opened at their
/// numbers. A number that the caller has not open goes to a placeholder that the program does not get: what came to
/// lie there would be taken for the caller's and stay open in the container until its program runs (CVE-2024-21626).
///
/// # Errors
/// fcntl(2), eventfd(2).
pub fn claim_fds(command: &Command) -> Result<()> {
    let count = preserved(command);
    for i in 0..count {
        let number = i32::try_from(i.saturating_add(3)).unwrap_or(i32::MAX);
        match crate::sys::launch::set_cloexec(number, false) {
            Err(e) if e.errno == Errno::BADF => {
                // Those below are taken: the kernel gives out this one.
                let held = eventfd(0, EventfdFlags::CLOEXEC)
                    .call(|| "eventfd")
                    .context(|| format!("--preserve-fds: fd {number}, which the caller has not open"))?;
                std::mem::forget(held);
            }
            other => other.context(|| format!("--preserve-fds: fd {number}"))?,
        }
    }
    Ok(())
}

fn print(out: &mut dyn Write, text: &str) -> Result<u8> {
    out.write_all(text.as_bytes()).call(|| "write standard output")?;
    Ok(0)
}

/// Writes the man pages to an existing directory, over older ones.
fn man(dir: &Path) -> Result<u8> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for (name, page) in generate::man_pages() {
        let path = dir.join(name);
        let fd = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644));
        let fd = fd.call(|| format!("open {}", path.display()))?;
        std::fs::File::from(fd).write_all(page.as_bytes()).call(|| format!("write {}", path.display()))?;
    }
    Ok(0)
}
