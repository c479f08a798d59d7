//! `update`: other limits and another restart policy, of a container that runs as well.

#![forbid(unsafe_code)]

use super::{Engine, start};
use crate::container::types::{Resources, RestartPolicy};
use crate::container::{spec, validate};
use crate::error::{Context as _, Error, Result};
use crate::home;
use crate::monitor::Found;
use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Stdio};

impl Engine {
    /// Gives a container the limits of `asked` that are not zero, and a restart policy if it has a name; returns
    /// warnings.
    ///
    /// # Errors
    /// Limits that cannot be; `--rm` and a restart policy; those of the cgroup.
    pub fn update(&self, id: &str, mut asked: Resources, restart: &RestartPolicy) -> Result<Vec<String>> {
        let _lock = self.containers.lock(id)?;
        let mut container = self.containers.load(id)?;
        let doing = || format!("Cannot update container {id}");
        if !restart.name.is_empty() && restart.name != "no" && container.host.auto_remove {
            return Err(Error::invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            )
            .context(doing()));
        }
        validate::check_restart(restart)?;
        let has = &container.host.resources;
        if asked.nano_cpus > 0 && (has.cpu_quota != 0 || has.cpu_period != 0) {
            return Err(Error::conflict(
                "Conflicting options: Nano CPUs cannot be updated as CPU Period/Quota has already been set",
            ));
        }
        if (asked.cpu_quota != 0 || asked.cpu_period != 0) && has.nano_cpus > 0 {
            return Err(Error::conflict(
                "Conflicting options: CPU Period/Quota cannot be updated as NanoCPUs has already been set",
            ));
        }
        let mut warnings = Vec::new();
        let merged = merged(has, &asked)?;
        validate::check_resources(&mut merged.clone(), self.host(), &mut warnings)?;
        validate::check_resources(&mut asked.clone(), self.host(), &mut Vec::new())
            .or_else(|e| if asked.memory_swap > 0 && asked.memory == 0 { Ok(()) } else { Err(e) })?;
        // With a limit of memory alone the one of memory and swap moves along, or the kernel would refuse.
        if asked.memory > 0
            && asked.memory_swap == 0
            && merged.memory_swap > 0
            && merged.memory_swap < asked.memory
        {
            return Err(Error::conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ));
        }
        asked.memory_swap =
            if asked.memory > 0 && asked.memory_swap == 0 { merged.memory_swap } else { asked.memory_swap };
        let found = self.found(id)?;
        if !matches!(found, Found::Gone) {
            self.update_cgroup(id, &asked).map_err(|e| e.context(doing()))?;
            self.update_bundle(id, &merged).map_err(|e| e.context(doing()))?;
        }
        if let Found::Monitored(client) = &found
            && !restart.name.is_empty()
        {
            client.set_restart(start::restart(restart))?;
        }
        container.host.resources = merged;
        if !restart.name.is_empty() {
            container.host.restart_policy = restart.clone();
        }
        self.containers.save(&container)?;
        Ok(warnings)
    }

    /// A restart by policy makes the container from the same config.json again.
    fn update_bundle(&self, id: &str, has: &Resources) -> Result<()> {
        let path = self.run_dir(id).join("config.json");
        let Some(text) = home::read(&path)? else { return Ok(()) };
        let broken = |e: serde_json::Error| Error::system(e.to_string()).context(path.display());
        let mut config: Value = serde_json::from_slice(&text).map_err(broken)?;
        let resources = config.pointer_mut("/linux/resources").and_then(Value::as_object_mut);
        if let Some(resources) = resources {
            resources.extend(spec::limits(has));
        }
        home::replace_until_boot(&path, 0o600, &serde_json::to_vec(&config).map_err(broken)?)
    }

    fn update_cgroup(&self, id: &str, asked: &Resources) -> Result<()> {
        let limits = spec::limits(asked);
        if limits.is_empty() {
            return Ok(());
        }
        let text = serde_json::to_vec(&limits).map_err(|e| Error::system(e.to_string()))?;
        let runtime = self.runtime();
        let mut child = Command::new(&runtime[0])
            .args(&runtime[1..])
            .args(["--log-format", "json", "update", "--resources", "-", id])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| format!("execute {}", runtime[0]))?;
        if let Some(mut input) = child.stdin.take() {
            // Whoever refuses it does not read it all, and says why.
            let _ = input.write_all(&text);
        }
        let output = child.wait_with_output().context(|| format!("wait for {}", runtime[0]))?;
        if output.status.success() { Ok(()) } else { Err(Error::system(super::show::said(&output.stderr))) }
    }
}

/// What a container has, and on top what is asked for and not zero.
fn merged(has: &Resources, asked: &Resources) -> Result<Resources> {
    let broken = |e: serde_json::Error| Error::system(e.to_string());
    let mut all = serde_json::to_value(has).map_err(broken)?;
    let zero = serde_json::to_value(Resources::default()).map_err(broken)?;
    let given = serde_json::to_value(asked).map_err(broken)?;
    for (name, value) in given.as_object().into_iter().flatten() {
        let is_list = value.as_array().is_some_and(Vec::is_empty);
        if zero.get(name) != Some(value) && !is_list {
            all[name] = value.clone();
        }
    }
    serde_json::from_value(all).map_err(broken)
}
