//! `linux.intelRdt`: the resctrl group of the container and what is written to it.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::spec;
use std::fmt;

/// Which group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// The root of resctrl.
    Default,
    /// Named by config.json; never removed.
    Named(String),
    /// Named after the container and removed with it, if the runtime made it.
    Own,
}

/// Decided `linux.intelRdt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rdt {
    /// The group.
    pub group: Group,
    /// `l3CacheSchema` and `memBwSchema`, with which an existing named group must agree.
    pub agreed: Vec<String>,
    /// `schemata`, written after those.
    pub schemata: Vec<String>,
    /// Whether a monitoring group is made.
    pub monitoring: bool,
}

impl Rdt {
    /// Decides the group and its lines.
    ///
    /// # Errors
    /// A closID that is no name of a directory, a line of more than one, a memBwSchema of something else.
    pub fn build(given: &spec::IntelRdt) -> Result<Self> {
        let at = |field: &str| format!("linux.intelRdt.{field}");
        let group = match given.clos_id.as_str() {
            "" => Group::Own,
            "/" => Group::Default,
            // The names of resctrl's own directories would make the group something else.
            name @ ("." | ".." | "info" | "mon_groups" | "mon_data") => {
                return Err(Error::config(at("closID"), format!("invalid intelRdt.ClosID {name:?}")));
            }
            name if name.contains(['/', '\n']) => {
                return Err(Error::config(at("closID"), format!("invalid intelRdt.ClosID {name:?}")));
            }
            name => Group::Named(name.to_owned()),
        };
        let mut agreed = Vec::new();
        for (field, line) in
            [("l3CacheSchema", &given.l3_cache_schema), ("memBwSchema", &given.mem_bw_schema)]
        {
            if line.is_empty() {
                continue;
            }
            one_line(&at(field), line)?;
            if field == "memBwSchema" && !line.starts_with("MB:") {
                return Err(Error::config(at(field), format!("{line:?} does not start with \"MB:\"")));
            }
            agreed.push(line.clone());
        }
        for (i, line) in given.schemata.iter().enumerate() {
            one_line(&at(&format!("schemata[{i}]")), line)?;
        }
        Ok(Self { group, agreed, schemata: given.schemata.clone(), monitoring: given.enable_monitoring })
    }
}

fn one_line(at: &str, line: &str) -> Result<()> {
    if line.contains('\n') { Err(Error::config(at, "contains a newline")) } else { Ok(()) }
}

impl fmt::Display for Rdt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Group::Default => f.write_str("group=/")?,
            Group::Named(name) => write!(f, "group={name}")?,
            Group::Own => f.write_str("group=<container id>")?,
        }
        self.agreed.iter().chain(&self.schemata).try_for_each(|line| write!(f, " {line}"))?;
        if self.monitoring { f.write_str(" monitoring") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read::document;

    fn build(json: &str) -> Result<Rdt> {
        Rdt::build(&document(json.as_bytes()).expect("readable"))
    }

    #[test]
    fn lines_are_in_the_order_of_the_specification() {
        let rdt = build(
            r#"{"closID":"g","memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=f","schemata":["L2:0=1"],
                "enableMonitoring":true}"#,
        );
        assert_eq!(rdt.expect("accepted").to_string(), "group=g L3:0=f MB:0=20 L2:0=1 monitoring");
        assert_eq!(build(r#"{"closID":"/"}"#).expect("accepted").group, Group::Default);
        assert_eq!(build("{}").expect("accepted").group, Group::Own);
    }

    #[test]
    fn what_resctrl_would_misread_is_refused() {
        for json in [
            r#"{"closID":".."}"#,
            r#"{"closID":"a/b"}"#,
            r#"{"closID":"info"}"#,
            r#"{"memBwSchema":"L3:0=f"}"#,
            r#"{"l3CacheSchema":"L3:0=f\nMB:0=1"}"#,
            r#"{"schemata":["a","b\nc"]}"#,
        ] {
            assert!(build(json).is_err(), "{json}");
        }
    }
}
