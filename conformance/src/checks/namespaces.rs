//! config-linux.md on namespaces, mappings, the offsets of clocks, and network devices.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Check, check};
use crate::case::{Case, Container, Verdict, Why, bind, expect, expect_eq, if_supported, lacks, own, push};
use crate::probe;

/// A namespace's type, as the kernel names it.
const TYPES: &[(&str, &str)] = &[
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

const WAIT: &[&str] = &["/probe", "probe", "wait"];

pub fn checks() -> Vec<Check> {
    let mut all = vec![
        check("namespaces-wrong-type", &["configLinuxNamespaces.5"], |case| {
            let wrong = json!({"type": "network", "path": "/proc/self/ns/uts"});
            case.refuses("a uts namespace as network", |config| {
                push(&mut config["linux"]["namespaces"], wrong)
            })
        }),
        check("namespaces-duplicate", &["configLinuxNamespaces.8"], |case| {
            case.refuses("the uts namespace twice", |config| {
                push(&mut config["linux"]["namespaces"], json!({"type": "uts"}))
            })
        }),
        check("mappings-uid", &["configLinuxUserNamespaceMappings.uidMappings"], |case| {
            mapped(case, "uid_map")
        }),
        check("mappings-gid", &["configLinuxUserNamespaceMappings.gidMappings"], |case| {
            mapped(case, "gid_map")
        }),
        check("mappings-owners", &["configLinuxUserNamespaceMappings.4"], owners),
        check("time-offsets", &["configLinuxTimeOffset.timeOffsets"], |case| {
            let plain =
                |config: &mut Value| push(&mut config["linux"]["namespaces"], json!({"type": "time"}));
            if_supported("time namespaces", case.facts(&[], plain))?;
            let facts = case.facts(&[], |config| {
                plain(config);
                config["linux"]["timeOffsets"] =
                    json!({"monotonic": {"secs": 172_800, "nanosecs": 5}, "boottime": {"secs": 604_800}});
            })?;
            let words: Vec<_> = facts.proc("timens_offsets").split_whitespace().collect();
            expect(words == ["monotonic", "172800", "5", "boottime", "604800", "0"], format!("got {words:?}"))
        }),
        check(
            "net-device-moved",
            &["configLinuxNetworkDevices.1", "configLinuxNetworkDevices.name"],
            |case| {
                let net = Net::new(case)?;
                let container = net.create(json!({"cf0": {}}))?;
                let list = net.inside(&container, &["link", "show", "dev", "cf0"])?;
                expect(list.contains("cf0"), format!("inside there is: {list}"))
            },
        ),
        check("net-device-renamed", &["configLinuxNetworkDevices.name"], |case| {
            let net = Net::new(case)?;
            let container = net.create(json!({"cf0": {"name": "its0"}}))?;
            net.inside(&container, &["link", "show", "dev", "its0"]).map(drop)
        }),
        check("net-device-up", &["configLinuxNetworkDevices.6"], |case| {
            let net = Net::new(case)?;
            let container = net.create(json!({"cf0": {}}))?;
            let list = net.inside(&container, &["link", "show", "dev", "cf0"])?;
            expect(
                list.contains("<") && list.split(['<', '>', ',']).any(|flag| flag == "UP"),
                format!("not up: {list}"),
            )
        }),
        check("net-device-addresses", &["configLinuxNetworkDevices.5"], |case| {
            let net = Net::new(case)?;
            net.ip(&["link", "set", "dev", "cf0", "mtu", "1300"])?;
            net.ip(&["address", "add", "192.0.2.7/24", "dev", "cf0"])?;
            net.ip(&["-6", "address", "add", "2001:db8::7/64", "dev", "cf0", "nodad"])?;
            let container = net.create(json!({"cf0": {}}))?;
            let list = net.inside(&container, &["address", "show", "dev", "cf0"])?;
            for want in ["mtu 1300", "192.0.2.7/24", "2001:db8::7/64"] {
                expect(list.contains(want), format!("{want} is lost: {list}"))?;
            }
            Ok(())
        }),
        check("net-device-template", &["configLinuxNetworkDevices.4"], |case| {
            let net = Net::new(case)?;
            let container = net.create(json!({"cf0": {"name": "tpl%d"}}))?;
            net.inside(&container, &["link", "show", "dev", "tpl0"]).map(drop)
        }),
        check("net-device-missing", &["configLinuxNetworkDevices.2"], |case| {
            let net = Net::new(case)?;
            net.refused("a device that does not exist", json!({"none0": {}}))
        }),
        check("net-device-name-taken", &["configLinuxNetworkDevices.3"], |case| {
            let net = Net::new(case)?;
            net.refused("a device named lo inside", json!({"cf0": {"name": "lo"}}))
        }),
        check("net-device-stays", &["namespace-lifecycle-and-container-termination.2"], |case| {
            let net = Net::new(case)?;
            let container = net.create(json!({"cf0": {}}))?;
            container.ended()?;
            container.deleted()?;
            // A virtual device ends with its namespace; one that is back was moved.
            let list = net.ip(&["-o", "link", "show"])?;
            expect(!list.contains("cf0"), format!("the device is back: {list}"))
        }),
    ];
    for (kind, link) in TYPES {
        all.push(check(format!("namespace-{kind}-supported"), &["configLinuxNamespaces.2"], move |case| {
            case.facts(&[], |config| unshared(config, case, kind)).map(drop)
        }));
        all.push(check(format!("namespace-{kind}-new"), &["configLinuxNamespaces.6"], move |case| {
            let what = format!("{kind} namespaces");
            let facts = if_supported(&what, case.facts(&[], |config| unshared(config, case, kind)))?;
            let (own, got) = (probe::namespaces("self"), facts.namespace(link));
            let new = !got.is_empty() && own.get(link).is_none_or(|own| own != got);
            expect(new, format!("{kind} is {got:?}, the runtime's {:?}", own.get(link)))
        }));
        all.push(check(format!("namespace-{kind}-joined"), &["configLinuxNamespaces.4"], move |case| {
            joined(case, kind, link)
        }));
        // A container in the runtime's mount namespace would change it for everyone.
        if *kind != "mount" {
            all.push(check(
                format!("namespace-{kind}-inherited"),
                &["configLinuxNamespaces.7"],
                move |case| inherited(case, kind, link),
            ));
        }
    }
    all
}

/// Ten thousand users and groups, from `first` on.
pub fn map(config: &mut Value, first: u32) {
    let mappings = json!([{"containerID": 0, "hostID": first, "size": 10_000}]);
    push(&mut config["linux"]["namespaces"], json!({"type": "user"}));
    config["linux"]["uidMappings"] = mappings.clone();
    config["linux"]["gidMappings"] = mappings;
}

/// Asks for a new namespace of this type, unless the configuration does so already.
fn unshared(config: &mut Value, case: &Case, kind: &str) {
    if kind == "user" && case.machine().is_root() {
        return map(config, 100_000);
    }
    let namespaces = &mut config["linux"]["namespaces"];
    let there = namespaces.as_array().is_some_and(|all| all.iter().any(|one| one["type"] == kind));
    if !there {
        push(namespaces, json!({"type": kind}));
    }
}

/// Joins the namespace of another container. What is in a mount namespace that others use, a runtime
/// need not change, so that there the container has no mounts of its own.
fn joined(case: &Case, kind: &str, link: &str) -> Verdict {
    case.machine().needs_root()?;
    let bundle = case.bundle(WAIT, |config| {
        if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
            all.retain(|one| one["type"] != kind);
        }
        if kind == "mount" {
            config["mounts"] = json!([]);
        }
    })?;
    let (holder, first);
    let pid = if kind == "mount" {
        let proc =
            format!("mount --rbind /proc {}/proc && exec \"$0\" probe wait", bundle.rootfs().display());
        holder = Holder::new(&["--mount", "sh", "-c", &proc, &case.probe()])?;
        holder.0.id().to_string()
    } else {
        let other = case.bundle(WAIT, |config| unshared(config, case, kind))?;
        first = if_supported(&format!("{kind} namespaces"), case.create(&other))?;
        first.pid()?
    };
    let path = format!("/proc/{pid}/ns/{link}");
    let want = fs::read_link(&path).map_err(own(Path::new(&path)))?;
    let mut bundle = bundle;
    push(&mut bundle.config["linux"]["namespaces"], json!({"type": kind, "path": path}));
    bundle.write()?;
    let container = case.create(&bundle)?;
    container.started()?;
    container.output.line()?;
    let got = fs::read_link(format!("/proc/{}/ns/{link}", container.pid()?)).unwrap_or_default();
    expect_eq(kind, &got.display().to_string(), &want.display().to_string())
}

fn inherited(case: &Case, kind: &str, link: &str) -> Verdict {
    if kind == "user" || kind == "pid" {
        // Without the first nobody else can do what is left, without the second proc cannot be mounted.
        case.machine().needs_root()?;
    }
    let facts = case.facts(&[], |config| {
        if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
            all.retain(|one| one["type"] != kind);
        }
    })?;
    let own = probe::namespaces("self");
    let Some(own) = own.get(link) else { return lacks(format!("{kind} namespaces in the kernel")) };
    expect_eq(kind, facts.namespace(link), own)
}

fn mapped(case: &Case, file: &str) -> Verdict {
    case.machine().needs_root()?;
    let facts = case.shared("mapped", |case| {
        case.facts(&[], |config| {
            push(&mut config["linux"]["namespaces"], json!({"type": "user"}));
            let two = |size| json!([{"containerID": 0, "hostID": 100_000, "size": size}, {"containerID": 5000, "hostID": 300_000, "size": 7}]);
            config["linux"]["uidMappings"] = two(1000);
            config["linux"]["gidMappings"] = two(2000);
        })
    })?;
    let size = if file == "uid_map" { "1000" } else { "2000" };
    let words: Vec<_> = facts.proc(file).split_whitespace().collect();
    expect(words == ["0", "100000", size, "5000", "300000", "7"], format!("{file}: {words:?}"))
}

fn owners(case: &Case) -> Verdict {
    case.machine().needs_root()?;
    let volume = case.directory("volume")?;
    let bundle = case.bundle(&["/probe", "probe", "facts"], |config| {
        map(config, 100_000);
        bind(config, "/volume", &volume, &["bind"]);
    })?;
    let point = bundle.rootfs().join("volume");
    fs::create_dir(&point).map_err(own(&point))?;
    case.run(&bundle)?;
    for path in [&volume, &bundle.rootfs(), &bundle.rootfs().join("probe")] {
        let stat = fs::metadata(path).map_err(own(path))?;
        let owner = std::os::unix::fs::MetadataExt::uid(&stat);
        expect(owner == 0, format!("{} belongs to {owner} now", path.display()))?;
    }
    Ok(())
}

/// A process that does nothing in a namespace of its own.
struct Holder(Child);

impl Holder {
    /// By unshare(1), with arguments that end in the probe's waiting.
    fn new(args: &[&str]) -> Result<Holder, Why> {
        let mut command = Command::new("unshare");
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else { return lacks("unshare of util-linux") };
        // A line tells that the namespace is there.
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            let _ = BufReader::new(out).read_line(&mut line);
        }
        Ok(Holder(child))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace of its own for the runtime, with a device `cf0` to move. A process holds it,
/// because the device would end with the namespace of its peer.
struct Net<'a> {
    case: &'a Case<'a>,
    holder: Holder,
}

impl<'a> Net<'a> {
    fn new(case: &'a Case<'a>) -> Result<Net<'a>, Why> {
        case.machine().needs_root()?;
        let net = Net { case, holder: Holder::new(&["--net", &case.probe(), "probe", "wait"])? };
        net.ip(&["link", "add", "cf0", "type", "veth", "peer", "name", "cf1"])?;
        Ok(net)
    }

    fn namespace(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.holder.0.id())
    }

    /// `ip` in the runtime's namespace.
    fn ip(&self, args: &[&str]) -> Result<String, Why> {
        self.case.tool("nsenter", &[&[self.namespace().as_str(), "ip"], args].concat())
    }

    /// `ip` in the container's.
    fn inside(&self, container: &Container, args: &[&str]) -> Result<String, Why> {
        let namespace = format!("--net=/proc/{}/ns/net", container.pid()?);
        let told = self.case.tool("nsenter", &[&[namespace.as_str(), "ip"], args].concat());
        told.map_err(|why| match why {
            Why::Lacks(why) => Why::Fails(format!("in the container it {why}")),
            fails => fails,
        })
    }

    fn attempt(&self, devices: Value) -> Result<(Container<'a>, crate::case::Answer), Why> {
        let bundle = self.case.bundle(WAIT, |config| {
            push(&mut config["linux"]["namespaces"], json!({"type": "network"}));
            config["linux"]["netDevices"] = devices;
        })?;
        let mut command = Command::new("nsenter");
        command.arg(self.namespace()).arg(&self.case.subject.runtime);
        self.case.attempt_by(command, &bundle, &[])
    }

    fn create(&self, devices: Value) -> Result<Container<'a>, Why> {
        let (container, answer) = self.attempt(devices)?;
        answer.done("create")?;
        Ok(container)
    }

    fn refused(&self, what: &str, devices: Value) -> Verdict {
        let (_container, answer) = self.attempt(devices)?;
        expect(!answer.ok(), format!("create accepted {what}"))
    }
}
