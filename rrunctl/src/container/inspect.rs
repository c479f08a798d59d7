//! A container as `docker inspect` and `docker ps` show it.

#![forbid(unsafe_code)]

use super::record::Container;
use super::status;
use super::types::{
    GraphDriver, Inspect, List, Map, MountPoint, NetworkSettings, Port, PortBinding, State, Summary,
    SummaryHostConfig, SummaryNetworkSettings,
};
use std::path::Path;
use time::OffsetDateTime;

/// The layers below a container, and what lies on them.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// The image's trees, the uppermost first.
    pub lower: &'a [&'a Path],
    /// What the container wrote.
    pub upper: &'a Path,
    /// overlayfs's own.
    pub work: &'a Path,
    /// Where they are mounted, in the monitor's mount namespace.
    pub merged: &'a Path,
}

/// What `docker inspect` prints.
pub fn inspect(container: &Container, state: State, restarts: i64, layers: &Layers<'_>) -> Inspect {
    let record = &container.record;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let lower = layers.lower.iter().map(|path| text(path)).collect::<Vec<_>>().join(":");
    let data = [
        ("LowerDir", lower),
        ("MergedDir", text(layers.merged)),
        ("UpperDir", text(layers.upper)),
        ("WorkDir", text(layers.work)),
    ];
    Inspect {
        id: record.id.clone(),
        created: record.created.clone(),
        path: record.path.clone(),
        // Never null.
        args: record.args.to_vec().into(),
        state,
        image: record.image.clone(),
        resolv_conf_path: record.resolv_conf_path.clone(),
        hostname_path: record.hostname_path.clone(),
        hosts_path: record.hosts_path.clone(),
        log_path: record.log_path.clone(),
        name: record.name.clone(),
        restart_count: restarts,
        driver: "overlay2".to_owned(),
        platform: "linux".to_owned(),
        app_armor_profile: record.app_armor_profile.clone(),
        host_config: container.host.clone(),
        graph_driver: GraphDriver {
            data: data.into_iter().map(|(name, path)| (name.to_owned(), path)).collect(),
            name: "overlay2".to_owned(),
        },
        mounts: mounts(container),
        config: record.config.clone(),
        network_settings: record.network_settings.clone(),
        ..Inspect::default()
    }
}

/// A list, never null.
fn mounts(container: &Container) -> List<MountPoint> {
    let points = container.record.mount_points.values();
    points.map(super::mount::Point::shown).collect::<Vec<_>>().into()
}

/// A row of `docker ps`. `image` is its name, or its id if the name means another by now.
pub fn summary(container: &Container, state: &State, image: &str, now: OffsetDateTime) -> Summary {
    let record = &container.record;
    let words: Vec<_> = std::iter::once(record.path.as_str())
        .chain(record.args.iter().map(String::as_str))
        .map(|word| if word.contains(' ') { format!("'{word}'") } else { word.to_owned() })
        .collect();
    Summary {
        id: record.id.clone(),
        names: vec![record.name.clone()].into(),
        image: image.to_owned(),
        image_id: record.image.clone(),
        command: words.join(" "),
        created: status::parse_time(&record.created).ok().flatten().map_or(0, OffsetDateTime::unix_timestamp),
        ports: ports(&record.network_settings, state.running).into(),
        labels: record.config.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        state: state.status.clone(),
        status: status::text(state, now),
        host_config: SummaryHostConfig {
            network_mode: container.host.network_mode.clone(),
            annotations: container.host.annotations.clone(),
        },
        network_settings: SummaryNetworkSettings { networks: record.network_settings.networks.clone() },
        mounts: mounts(container),
        ..Summary::default()
    }
}

/// The ports of a container that runs: exposed, and published, in the order of their numbers.
fn ports(settings: &NetworkSettings, running: bool) -> Vec<Port> {
    let all: &Map<List<PortBinding>> = &settings.ports;
    let mut ports = Vec::new();
    for (port, bindings) in all.iter().filter(|_| running) {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let Ok(private_port) = number.parse() else { continue };
        let one = Port { private_port, r#type: protocol.to_owned(), ..Port::default() };
        if bindings.is_empty() {
            ports.push(one);
            continue;
        }
        ports.extend(bindings.iter().map(|binding| Port {
            ip: binding.host_ip.clone(),
            public_port: binding.host_port.parse().unwrap_or(0),
            ..one.clone()
        }));
    }
    ports.sort_by(|a, b| {
        (a.private_port, &a.r#type, a.public_port).cmp(&(b.private_port, &b.r#type, b.public_port))
    });
    ports
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::super::types::HostConfig;
    use super::*;
    use serde_json::json;

    fn container() -> Container {
        let record: Record = serde_json::from_value(json!({
            "ID": "c0ffee", "Created": "2026-11-23T05:00:00.5Z", "Path": "/bin/sh", "Args": ["-c", "echo hi"],
            "Image": "sha256:aa", "Name": "/web", "Config": {"Image": "busybox", "Labels": {"l": "1"}},
            "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"},
                {"HostIp": "::", "HostPort": "8080"}], "9/udp": null}},
        }))
        .expect("a record");
        Container { record, host: HostConfig { network_mode: "default".into(), ..HostConfig::default() } }
    }

    #[test]
    fn inspect_has_dockers_keys_in_dockers_order() {
        let path = Path::new;
        let layers = Layers {
            lower: &[path("/l/2"), path("/l/1")],
            upper: path("/u"),
            work: path("/w"),
            merged: path("/m"),
        };
        let shown = inspect(&container(), State::default(), 2, &layers);
        let shown = serde_json::to_value(shown).expect("json");
        let keys: Vec<_> = shown.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(
            keys.join(" "),
            "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver \
             Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config \
             NetworkSettings"
        );
        assert_eq!(shown["GraphDriver"]["Data"]["LowerDir"], "/l/2:/l/1");
        assert_eq!(
            (&shown["ExecIDs"], &shown["Mounts"], &shown["RestartCount"]),
            (&json!(null), &json!([]), &json!(2))
        );
    }

    #[test]
    fn a_row_has_what_docker_ps_shows() {
        let now = status::parse_time("2026-11-23T06:00:00Z").expect("valid").expect("a time");
        let running = State {
            status: "running".into(),
            running: true,
            started_at: "2026-11-23T05:00:00Z".into(),
            ..State::default()
        };
        let row = serde_json::to_value(summary(&container(), &running, "busybox", now)).expect("json");
        assert_eq!(row["Command"], "/bin/sh -c 'echo hi'");
        assert_eq!((&row["Created"], &row["Status"]), (&json!(1_795_410_000), &json!("Up About an hour")));
        assert_eq!(
            row["Ports"],
            json!([
                {"PrivatePort": 9, "Type": "udp"},
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            ])
        );
        assert_eq!(
            (&row["Names"], &row["HostConfig"]),
            (&json!(["/web"]), &json!({"NetworkMode": "default"}))
        );
        let row = summary(&container(), &State::default(), "busybox", now);
        assert!(row.ports.is_empty() && !row.ports.is_nil());
    }
}
