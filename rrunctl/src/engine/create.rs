//! `create`: from a request to a container that is there.

#![forbid(unsafe_code)]

use super::{Engine, tree};
use crate::container::mount::{self, Point};
use crate::container::record::{Container, Record};
use crate::container::types::{
    Config, CreateRequest, EndpointSettings, HostConfig, NetworkSettings, NetworkingConfig, of_container,
};
use crate::container::{link, merge, name, status, validate};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::Image;
use crate::volume::CreateVolume;
use rustix::fs::{CWD, Gid, Mode, Uid, chmodat, chownat};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use time::OffsetDateTime;

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// 64 digits.
    pub id: String,
    /// What was asked for and cannot be had on this machine.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container of an image that is here.
    ///
    /// # Errors
    /// What is asked for cannot be; there is no such image, network or container; the name is taken. Then nothing of
    /// it is left, but for volumes that it was to have.
    pub fn create(&self, request: CreateRequest) -> Result<Created> {
        let CreateRequest { name, mut config, mut host, mut networking } = request;
        let on = self.host();
        self.fill_in_settings(&mut host);
        let warnings = validate::check(&mut config, &mut host, &networking, on)?;
        self.find_others(&mut host)?;
        self.check_networks(&mut host, &mut networking)?;

        // No image is removed before the container is there to be counted.
        let _keep = self.store.images().keep()?;
        let image = self.store.images().resolve(&config.image)?;
        merge::merge(&mut config, &of_image(&image)?)?;
        let id = name::id()?;
        let reservation = self.containers.reserve(name.as_deref(), &id)?;
        validate::fill_in(&mut host, on);
        validate::fill_in_hostname(&mut config, &host, on, &id);

        let lower = self.store.layers().lower(&image)?;
        let _hold = self.volumes.hold()?;
        let mut points = mount::points(&config, &host, |other| self.points_of(other))?;
        for point in points.values_mut().filter(|point| point.r#type == "volume") {
            self.give_volume(point, &lower)?;
        }

        let dir = self.containers.dir(&id);
        let text = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let own_files = of_container(&host.network_mode).is_none();
        let file = |name: &str| if own_files { text(name) } else { String::new() };
        let (path, args) = merge::command(&config);
        let record = Record {
            id: id.clone(),
            created: status::format_time(OffsetDateTime::now_utc())?,
            path,
            args: args.into(),
            image: image.id.to_string(),
            network_settings: NetworkSettings {
                networks: networking.endpoints_config.clone(),
                ..NetworkSettings::default()
            },
            log_path: if host.log_config.r#type == "json-file" {
                text(&format!("{id}-json.log"))
            } else {
                String::new()
            },
            name: format!("/{}", reservation.name()),
            driver: "overlay2".to_owned(),
            os: "linux".to_owned(),
            mount_points: points.into(),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            resolv_conf_path: file("resolv.conf"),
            config,
            ..Record::default()
        };
        let asked = networking.endpoints_config.iter().filter_map(|(network, one)| {
            let mac = &one.as_ref()?.mac_address;
            (!mac.is_empty()).then(|| (network.clone(), mac.clone()))
        });
        let record = Record { mac_addresses: asked.collect(), ..record };
        let upper = lower.first().map(|layer| layer.as_path());
        self.containers.create(&Container { record, host }, reservation, |new| make_upper(new, upper))?;
        Ok(Created { id, warnings })
    }

    fn fill_in_settings(&self, host: &mut HostConfig) {
        if host.log_config.r#type.is_empty() {
            host.log_config.r#type.clone_from(&self.settings.log_driver);
            for (option, value) in &self.settings.log_opts {
                host.log_config.config.entry(option.clone()).or_insert_with(|| value.clone());
            }
        }
        if matches!(host.network_mode.as_str(), "" | "default") {
            "bridge".clone_into(&mut host.network_mode);
        }
    }

    /// Other containers are named by their ids from here on: names may change hands.
    fn find_others(&self, host: &mut HostConfig) -> Result<()> {
        for mode in [&mut host.network_mode, &mut host.ipc_mode, &mut host.pid_mode] {
            if let Some(other) = of_container(mode) {
                *mode = format!("container:{}", self.containers.resolve(other)?);
            }
        }
        for text in host.links.iter() {
            let (other, _) = link::parse(text)?;
            self.containers.resolve(other).context(|| format!("could not get container for {other}"))?;
        }
        Ok(())
    }

    /// The networks are there, and the mode's is among the endpoints.
    fn check_networks(&self, host: &mut HostConfig, networking: &mut NetworkingConfig) -> Result<()> {
        if of_container(&host.network_mode).is_some() {
            return Ok(());
        }
        let mode = self.networks.resolve(&host.network_mode)?.name;
        let mut endpoints: BTreeMap<String, Option<EndpointSettings>> = BTreeMap::new();
        for (given, settings) in networking.endpoints_config.iter() {
            let given = if given == "default" { "bridge" } else { given };
            endpoints.insert(self.networks.resolve(given)?.name, settings.clone());
        }
        if endpoints.len() > 1 && endpoints.keys().any(|name| ["host", "none"].contains(&name.as_str())) {
            return Err(Error::invalid(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ));
        }
        endpoints.entry(mode.clone()).or_insert_with(|| Some(EndpointSettings::default()));
        host.network_mode = mode;
        networking.endpoints_config = endpoints.into();
        Ok(())
    }

    fn points_of(&self, other: &str) -> Result<Vec<Point>> {
        let other = self.containers.load(&self.containers.resolve(other)?)?;
        Ok(other.record.mount_points.values().cloned().collect())
    }

    /// Makes or finds the volume of a mount, and fills it from the image if it is empty.
    fn give_volume(&self, point: &mut Point, lower: &[std::path::PathBuf]) -> Result<()> {
        let options = point.spec.volume_options.clone().unwrap_or_default();
        let driver = options.driver_config.unwrap_or_default();
        let asked = CreateVolume {
            name: point.name.clone(),
            driver: driver.name,
            labels: options.labels,
            options: driver.options,
        };
        let volume = self.volumes.create(asked)?;
        point.set_volume(&volume.name, Path::new(&volume.mountpoint));
        if !point.copy {
            return Ok(());
        }
        if !lower.is_empty() && self.volumes.wants_filling(&volume.name)? {
            let root = tree::merged(lower.iter().map(std::path::PathBuf::as_path))?;
            self.volumes.fill(&volume.name, &root, &point.destination)?;
        }
        Ok(())
    }
}

/// An image's configuration, in the type of a container's.
pub(super) fn of_image(image: &Image) -> Result<Config> {
    let value = serde_json::to_value(&image.config.config);
    value.and_then(serde_json::from_value).map_err(|e| {
        Error::new(Kind::System, e.to_string()).context(format!("configuration of the image {}", image.id))
    })
}

/// What the container writes goes here; its root directory is as the image's.
fn make_upper(container: &Path, lower: Option<&Path>) -> Result<()> {
    for name in ["rw", "work"] {
        let dir = container.join(name);
        DirBuilder::new().mode(0o755).create(&dir).context(|| format!("mkdir {}", dir.display()))?;
    }
    let Some(lower) = lower else { return Ok(()) };
    let root = fs::symlink_metadata(lower).context(|| format!("stat {}", lower.display()))?;
    let upper = container.join("rw");
    let doing = || format!("give {} the owner of the image's root directory", upper.display());
    chownat(
        CWD,
        &upper,
        Some(Uid::from_raw(root.uid())),
        Some(Gid::from_raw(root.gid())),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .context(doing)?;
    // After the owner: chown(2) takes set-id bits away.
    chmodat(CWD, &upper, Mode::from_raw_mode(root.mode() & 0o7777), rustix::fs::AtFlags::empty())
        .context(doing)
}
