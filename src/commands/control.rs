//! `pause`, `resume`, `update` and `events`: what happens to a running container.

#![forbid(unsafe_code)]

use crate::cgroup::Cgroup;
use crate::cgroup::layout::Layout;
use crate::cgroup::oom::Event;
use crate::cgroup::stats::Stats;
use crate::cli::{Events, Global, Update};
use crate::container::Container;
use crate::error::{Call as _, Error, Kind, Result};
use crate::spec::write::writes;
use crate::spec::{BlockIo, Cpu, Memory, Pids, Resources};
use crate::state::Status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use std::io::{Read as _, Write};
use std::path::Path;
use std::time::Instant;

/// `pause`.
///
/// # Errors
/// `container not running or created`.
pub fn pause(global: &Global, id: &str) -> Result<()> {
    let container = Container::open(global.root.as_deref(), id)?;
    match container.status()? {
        Status::Running | Status::Created => container.cgroup().freeze().map_err(|e| container.or_ended(e)),
        status => {
            let text = format!("container not running or created: {}", status.name());
            Err(Error::kind(Kind::State, text))
        }
    }
}

/// `resume`.
///
/// # Errors
/// `container not paused`.
pub fn resume(global: &Global, id: &str) -> Result<()> {
    let container = Container::open(global.root.as_deref(), id)?;
    container.require(&[Status::Paused])?;
    container.cgroup().thaw().map_err(|e| container.or_ended(e))
}

/// `update`: only what is given changes.
///
/// # Errors
/// `container not running`; a value that is wrong or that the kernel refuses.
#[inline(never)]
pub fn update(global: &Global, args: &Update) -> Result<()> {
    let container = Container::open(global.root.as_deref(), &args.id)?;
    container.require(&[Status::Running, Status::Created, Status::Paused])?;
    if args.kernel_memory {
        crate::log::warning("--kernel-memory is ignored: the kernel has no such limit since 5.16");
    }
    let mut resources = match &args.resources {
        Some(path) => read(path)?,
        None => resources(args),
    };
    let layout = Layout::read()?;
    let mut cgroup = container.cgroup();
    if let Some(memory) = &mut resources.memory {
        complete(memory, &container, &cgroup);
    }
    let source = args.resources.as_ref().map_or_else(|| "update".into(), |path| path.display().to_string());
    let writes = crate::plan::cgroup::update(&resources, &layout).map_err(|e| e.in_file(&source))?;
    for ignored in cgroup.update(writes).map_err(|e| container.or_ended(e))? {
        crate::log::warning(&ignored);
    }
    Ok(())
}

/// Adds what cgroup v2, whose limit of swap is of swap alone, needs besides one that is given: the limit of
/// memory in force; or the sum in force, which a change of memory alone leaves as config.json has set it.
fn complete(memory: &mut Memory, container: &Container, cgroup: &Cgroup) {
    let set = |value: Option<i64>| value.filter(|&value| value != 0);
    match (set(memory.limit), set(memory.swap)) {
        (None, Some(1..)) => memory.limit = cgroup.memory_limits().map(|(limit, _)| limit),
        (Some(1..), None) => {
            let sum = || cgroup.memory_limits().filter(|(limit, swap)| *limit > 0 && *swap >= 0);
            let spec = container.slot.read_config().ok();
            let resources = spec.as_ref().and_then(|spec| spec.linux.as_ref()?.resources.as_ref());
            let given = resources.and_then(|resources| set(resources.memory.as_ref()?.swap));
            if given.is_some_and(|bytes| bytes > 0) {
                memory.swap = sum().and_then(|(limit, swap)| limit.checked_add(swap));
            }
        }
        _ => {}
    }
}

fn read(path: &Path) -> Result<Resources> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().lock().read_to_end(&mut text).call(|| "read standard input")?;
        text
    } else {
        let here =
            rustix::fs::openat(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).call(|| "open .")?;
        crate::bundle::read_json(&here, path)?
    };
    crate::spec::read::document(&text)
        .map_err(|e| Error::kind(Kind::Config, format!("{}: {e}", path.display())))
}

/// What the flags of `update` say, as the object that `--resources` would be.
pub fn resources(args: &Update) -> Resources {
    Resources {
        memory: Some(Memory {
            limit: args.memory,
            reservation: args.memory_reservation,
            swap: args.memory_swap,
            kernel_tcp: args.kernel_memory_tcp,
            ..Memory::default()
        }),
        cpu: Some(Cpu {
            shares: args.cpu_share,
            quota: args.cpu_quota,
            period: args.cpu_period,
            burst: args.cpu_burst,
            realtime_runtime: args.cpu_rt_runtime,
            realtime_period: args.cpu_rt_period,
            cpus: args.cpuset_cpus.clone().unwrap_or_default(),
            mems: args.cpuset_mems.clone().unwrap_or_default(),
            idle: args.cpu_idle,
        }),
        pids: args.pids_limit.map(|limit| Pids { limit: Some(limit) }),
        block_io: args.blkio_weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    }
}

/// One line of `events`.
struct Line<'a> {
    kind: &'static str,
    id: &'a str,
    data: Option<Stats>,
}

writes!(Line<'a> { kind = "type", id = "id", data = "data" });

/// `events`: statistics at an interval and out-of-memory events as they come, until the container has ended.
///
/// # Errors
/// `container with id ID is not running`.
#[inline(never)]
pub fn events(global: &Global, args: &Events, out: &mut dyn Write) -> Result<u8> {
    let container = Container::open(global.root.as_deref(), &args.id)?;
    let id = container.slot.id().to_owned();
    if container.status()? == Status::Stopped {
        return Err(Error::kind(Kind::State, format!("container with id {id} is not running")));
    }
    let cgroup = container.cgroup();
    let mut say = |kind, data| -> Result<()> {
        let mut line = serde_json::to_vec(&Line { kind, id: &id, data })
            .map_err(|e| Error::new(format!("JSON: {e}")))?;
        line.push(b'\n');
        out.write_all(&line).and_then(|()| out.flush()).call(|| "write standard output")
    };
    if args.stats {
        say("stats", Some(cgroup.stats().map_err(|e| container.or_ended(e))?))?;
        return Ok(0);
    }
    let init = container.init()?;
    let mut watch = cgroup.watch_oom().map_err(|e| container.or_ended(e))?;
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next {
            // A cgroup that is being removed under us is the end, and no error.
            match cgroup.stats() {
                Ok(stats) => say("stats", Some(stats))?,
                Err(_) if container.record.init()?.is_none() => return Ok(0),
                Err(e) => return Err(e),
            }
            next = now + args.interval;
        }
        let left = next.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let watched = watch.fd();
        let mut fds = [PollFd::new(&watched, PollFlags::IN), PollFd::new(&init, PollFlags::IN)];
        crate::launch::protocol::retry(|| poll(&mut fds, Some(&limit))).call(|| "poll")?;
        let (oom, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if oom {
            match watch.take()? {
                Event::Oom => say("oom", None)?,
                Event::Gone => return Ok(0),
                Event::Nothing => {}
            }
        }
        if ended {
            return Ok(0);
        }
    }
}
