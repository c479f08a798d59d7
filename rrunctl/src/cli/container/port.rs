//! `port`.

#![forbid(unsafe_code)]

use super::super::At;
use super::ps::host;
use crate::container::types::PortBinding;
use crate::error::{Error, Result};
use clap::Args;

/// Show where the ports of a container are published
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl port web
  rrunctl port web 80
  rrunctl port dns 53/udp")]
pub(in super::super) struct Port {
    /// A name or an id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Only this port of the container
    #[arg(value_name = "PRIVATE_PORT[/PROTO]")]
    port: Option<String>,
}

impl Port {
    pub(in super::super) fn run(self, at: &At) -> Result<()> {
        let engine = at.engine()?;
        let shown = engine.inspect(&engine.resolve(&self.container)?, false)?;
        let ports = shown.network_settings.ports;
        let place = |one: &PortBinding| format!("{}:{}", host(&one.host_ip), one.host_port);
        let mut text = String::new();
        if let Some(asked) = &self.port {
            let (number, protocol) = asked.split_once('/').unwrap_or((asked, "tcp"));
            if number.parse::<u16>().is_err() {
                return Err(Error::invalid(format!("invalid port ({number})")));
            }
            let bindings = ports.get(&format!("{number}/{protocol}")).filter(|found| !found.is_empty());
            let bindings = bindings.ok_or_else(|| {
                Error::not_found(format!(
                    "No public port '{number}/{protocol}' published for {}",
                    self.container
                ))
            })?;
            for one in bindings.iter() {
                text.push_str(&format!("{}\n", place(one)));
            }
            return at.print(text);
        }
        let mut lines = Vec::new();
        for (port, bindings) in ports.iter() {
            let number: u16 = port.split('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            lines.extend(bindings.iter().map(|one| (number, format!("{port} -> {}\n", place(one)))));
        }
        lines.sort();
        at.print(lines.into_iter().map(|(_, line)| line).collect::<String>())
    }
}
