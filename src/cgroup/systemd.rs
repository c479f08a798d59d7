//! systemd as the one that makes the container's cgroup: a transient scope, over D-Bus.
//!
//! A scope needs a process from the start, so it is made once init has been cloned. systemd makes the directories
//! of the hierarchies it knows, [`super::Cgroup`] the others; limits it has no property for are written to the
//! files. One connection serves a whole command and is made only by one that changes the unit: `state`, `kill`,
//! `pause` and mostly `exec` need the files alone.

#![forbid(unsafe_code)]

use crate::dbus::{Address, Bus, Method, Refusal, Value, path_address};
use crate::error::{Error, Result};
use crate::plan::cgroup::systemd::{Systemd, Unit};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const MANAGER: Method<'static> = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
};

/// The scope of a container, on record or about to be made.
#[derive(Debug)]
pub(super) struct Scope {
    connection: Option<Connection>,
    name: String,
    user: bool,
    /// Made here and not kept: it goes when this is dropped.
    pub(super) made: bool,
}

/// A connection to one instance of systemd.
#[derive(Debug)]
pub struct Connection {
    bus: Bus,
    user: bool,
    watching: bool,
}

/// Whether a user's own systemd is the one to ask.
///
/// That is so without root's power over the host; root of a user namespace with a systemd of its own, as in a
/// system container, has the ordinary one.
///
/// # Errors
/// Those of [`crate::host::in_user_namespace`].
pub fn is_user() -> Result<bool> {
    let own = || std::fs::metadata("/run/systemd/system").is_ok_and(|dir| dir.uid() == 0);
    Ok(!rustix::process::geteuid().is_root() || (crate::host::in_user_namespace()? && !own()))
}

/// Where systemd listens, best first: where the environment says; its own socket, which needs no message bus, as
/// systemctl uses; the bus.
fn addresses(user: bool, env: impl Fn(&str) -> Option<String>, uid: u32) -> Vec<Address> {
    let address = |text: String, direct| Address { text, direct };
    let given = |name| env(name).filter(|value| !value.is_empty());
    let mut list = Vec::new();
    if !user {
        list.extend(given("DBUS_SYSTEM_BUS_ADDRESS").map(|text| address(text, false)));
        list.push(address(path_address("/run/systemd/private"), true));
        list.push(address(path_address("/run/dbus/system_bus_socket"), false));
        return list;
    }
    list.extend(given("DBUS_SESSION_BUS_ADDRESS").map(|text| address(text, false)));
    // Callers strip the environment: podman leaves XDG_RUNTIME_DIR, others nothing.
    for dir in [given("XDG_RUNTIME_DIR"), Some(format!("/run/user/{uid}"))].into_iter().flatten() {
        list.push(address(path_address(&format!("{dir}/systemd/private")), true));
        list.push(address(path_address(&format!("{dir}/bus")), false));
    }
    list
}

/// The user id outside of the user namespace, after whom the runtime directory is named.
fn outer_uid() -> u32 {
    let uid = rustix::process::geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mapped = map.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().map(|field| field.parse::<u32>().ok());
        let (inside, outside, length) = (fields.next()??, fields.next()??, fields.next()??);
        let offset = uid.checked_sub(inside).filter(|offset| *offset < length)?;
        outside.checked_add(offset)
    });
    mapped.unwrap_or(uid)
}

impl Connection {
    /// Connects to an instance.
    ///
    /// # Errors
    /// systemd does not run here, or none of its sockets answers.
    pub fn open(user: bool) -> Result<Self> {
        if !Path::new("/run/systemd/system").exists() {
            return Err(Error::new("systemd not running on this host, cannot use it for cgroups")
                .remedy("use the cgroupfs driver: leave --systemd-cgroup out"));
        }
        let list = addresses(user, |name| std::env::var(name).ok(), outer_uid());
        let bus = Bus::connect(&list).map_err(|e| {
            let e = e.context("systemd");
            match user {
                true => e.remedy(
                    "a user needs a systemd of their own: log in, or `loginctl enable-linger`, and set XDG_RUNTIME_DIR",
                ),
                false => e.remedy("see whether systemd and the bus are well: systemctl status, busctl status"),
            }
        })?;
        Ok(Self { bus, user, watching: false })
    }

    /// What a plan needs to know of it.
    ///
    /// # Errors
    /// It does not answer, or not with a version.
    pub fn facts(&mut self) -> Result<Systemd> {
        let text = self.property("Version")?;
        let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let version = digits.get(..end).and_then(|digits| digits.parse().ok());
        let version = version.ok_or_else(|| Error::new(format!("systemd: unknown version {text:?}")))?;
        let control_group = self.property("ControlGroup")?.trim_end_matches('/').to_owned();
        let drivers = match version {
            240.. => String::new(),
            _ => std::fs::read_to_string("/proc/devices").unwrap_or_default(),
        };
        Ok(Systemd { version, user: self.user, control_group, drivers })
    }

    fn property(&mut self, name: &str) -> Result<String> {
        let get = Method { interface: "org.freedesktop.DBus.Properties", member: "Get", ..MANAGER };
        let reply = self.bus.call(&get, vec![MANAGER.interface.into(), name.into()])?;
        let values = reply.map_err(|refusal| self.refused(name, &refusal))?;
        let text = values.first().and_then(Value::text);
        text.map(str::to_owned).ok_or_else(|| Error::new(format!("systemd: property {name} is not a text")))
    }

    fn refused(&self, what: &str, refusal: &Refusal) -> Error {
        Error::new(format!("systemd at {}: {what}: {refusal}", self.bus.address))
    }

    /// Calls a method that makes a job, and waits for the job's result.
    fn job(&mut self, method: &str, body: Vec<Value>) -> Result<Result<String, Refusal>> {
        if !self.watching {
            // Before the call: the job may be done before its answer has come.
            self.bus.watch(
                "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                 interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
            )?;
            self.watching = true;
        }
        let job = match self.bus.call(&MANAGER.method(method), body)? {
            Ok(values) => values.first().and_then(Value::text).unwrap_or_default().to_owned(),
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.bus
            .signal(&format!("the end of the job of {method}"), |signal| {
                let text = |i: usize| signal.body.get(i).and_then(Value::text);
                let ours = signal.member == "JobRemoved" && text(1) == Some(job.as_str());
                ours.then(|| text(3).unwrap_or_default().to_owned())
            })
            .map(Ok)
    }

    fn reset(&mut self, name: &str) -> Result<()> {
        // Refused where the unit is gone, which is what is wanted.
        self.bus.call(&MANAGER.method("ResetFailedUnit"), vec![name.into()]).map(drop)
    }

    fn stop(&mut self, name: &str) -> Result<()> {
        match self.job("StopUnit", vec![name.into(), "replace".into()])? {
            Ok(_) => {}
            Err(refusal) if refusal.name.ends_with(".NoSuchUnit") => return Ok(()),
            Err(refusal) => return Err(self.refused(&format!("StopUnit {name}"), &refusal)),
        }
        // One that failed, as by the OOM killer, would stay and its name with it.
        self.reset(name)
    }
}

fn named(properties: &[(String, Value)]) -> Vec<Value> {
    properties.iter().map(|(name, value)| Value::named(name, value.clone())).collect()
}

impl Scope {
    /// A scope to be started.
    pub(super) fn new(unit: &Unit, connection: Connection) -> Self {
        let (name, user) = (unit.name.clone(), unit.user);
        Self { connection: Some(connection), name, user, made: false }
    }

    /// A scope on record.
    pub(super) fn of(name: &str, user: bool) -> Self {
        Self { connection: None, name: name.to_owned(), user, made: false }
    }

    fn connection(&mut self) -> Result<&mut Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.user)?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Starts the scope with one process in it. `is_empty` says whether a unit of the name has no process, so
    /// that it is no container's.
    ///
    /// # Errors
    /// The name is taken, or systemd refuses a property.
    pub(super) fn start(&mut self, unit: &Unit, pid: u32, is_empty: impl Fn() -> bool) -> Result<()> {
        let mut properties = named(&unit.properties);
        properties.push(Value::named("PIDs", Value::Array("u".into(), vec![Value::U32(pid)])));
        let body = vec![
            unit.name.as_str().into(),
            "replace".into(),
            Value::Array("(sv)".into(), properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let name = self.name.clone();
        let connection = self.connection()?;
        let doing = format!("StartTransientUnit {name}");
        let mut reply = connection.job("StartTransientUnit", body.clone())?;
        // A failed unit keeps its name; an empty one is about to go.
        if reply.as_ref().is_err_and(|refusal| refusal.name.ends_with(".UnitExists")) && is_empty() {
            connection.stop(&name)?;
            reply = connection.job("StartTransientUnit", body)?;
        }
        let result = reply.map_err(|refusal| {
            let e = connection.refused(&doing, &refusal);
            match refusal.name.ends_with(".UnitExists") {
                true => e.remedy("another container or service has this unit: choose another cgroupsPath"),
                false => e,
            }
        })?;
        if result != "done" {
            let _ = connection.reset(&name);
            let text = format!("systemd: {doing}: the job ended with {result:?}");
            return Err(Error::new(text).remedy(format!("see journalctl --unit={name}")));
        }
        self.made = true;
        Ok(())
    }

    /// Version of systemd.
    pub(super) fn version(&mut self) -> Result<u32> {
        Ok(self.connection()?.facts()?.version)
    }

    /// Changes properties until the unit ends; on return systemd has written them to the files.
    pub(super) fn set(&mut self, properties: &[(String, Value)]) -> Result<()> {
        let name = self.name.clone();
        let body =
            vec![name.as_str().into(), Value::Bool(true), Value::Array("(sv)".into(), named(properties))];
        let connection = self.connection()?;
        let reply = connection.bus.call(&MANAGER.method("SetUnitProperties"), body)?;
        reply.map_err(|refusal| connection.refused(&format!("SetUnitProperties {name}"), &refusal))?;
        // It answers first and writes before it reads the next message; else it would overwrite what we write.
        connection.property("Version").map(drop)
    }

    /// Moves a process into the scope, or a cgroup below it: a user may not by writing, where the process is in
    /// a cgroup that is not theirs.
    pub(super) fn attach(&mut self, pid: u32, sub: &str) -> Result<()> {
        let pids = Value::Array("u".into(), vec![Value::U32(pid)]);
        let sub = if sub.is_empty() { String::new() } else { format!("/{sub}") };
        let body = vec![self.name.as_str().into(), Value::Str(sub), pids];
        let doing = format!("AttachProcessesToUnit {}", self.name);
        let connection = self.connection()?;
        let reply = connection.bus.call(&MANAGER.method("AttachProcessesToUnit"), body)?;
        reply.map(drop).map_err(|refusal| connection.refused(&doing, &refusal))
    }

    /// Whether this is a user's scope.
    pub(super) fn is_user(&self) -> bool {
        self.user
    }

    /// Stops the scope, which must have no process left; one that is gone is well.
    pub(super) fn stop(&mut self) -> Result<()> {
        let name = self.name.clone();
        self.connection()?.stop(&name)?;
        self.made = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(user: bool, env: &[(&str, &str)]) -> Vec<(String, bool)> {
        let find = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        addresses(user, find, 1000).into_iter().map(|a| (a.text, a.direct)).collect()
    }

    #[test]
    fn a_stripped_environment_still_finds_systemd() {
        let at = |path: &str, direct| (format!("unix:path={path}"), direct);
        let run = [at("/run/user/1000/systemd/private", true), at("/run/user/1000/bus", false)];
        assert_eq!(listed(true, &[]), run);
        let both = listed(true, &[("XDG_RUNTIME_DIR", "/x"), ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/s")]);
        assert_eq!(both[..3], [at("/s", false), at("/x/systemd/private", true), at("/x/bus", false)]);
        let system = [at("/run/systemd/private", true), at("/run/dbus/system_bus_socket", false)];
        assert_eq!(listed(false, &[("DBUS_SYSTEM_BUS_ADDRESS", "")]), system);
    }
}
