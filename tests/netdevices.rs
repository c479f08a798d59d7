//! config-linux.md, Network Devices. The devices are made in a network namespace of the test's own, which
//! takes what is left along when it ends.

use crate::harness::{Out, Test};
use crate::{requires, rrun_only};
use serde_json::{Value, json};

/// Runs the container in a new network namespace, after `setup` there and before `after`.
fn run(t: &Test, devices: Value, setup: &str, after: &str, script: &str) -> Out {
    t.edit(|c| c["linux"]["netDevices"] = devices).sh(script);
    let shell = format!("set -e; {setup}\n\"$@\" || exit $?\n{after}");
    t.bundle_command("run", &[]).under(&["unshare", "--net", "sh", "-c", &shell, "sh"]).go()
}

const VETH: &str = "ip link add outer type veth peer name inner mtu 1400 address 02:00:00:00:00:07; \
                    ip addr add 192.0.2.7/24 dev inner; ip -6 addr add 2001:db8::7/64 dev inner nodad; \
                    ip link set inner up";

#[test]
fn a_device_moves_in_with_its_addresses_and_is_up() {
    requires!(root);
    requires!(program "ip");
    rrun_only!("runc 1.1 and crun 1.8 have no netDevices");
    let t = Test::new("netdev");
    let script = "ip addr show dev eth7; ip link show inner 2>&1 || echo renamed";
    let after = "ip link show inner 2>&1 | grep -q 'does not exist' && echo gone";
    let out = run(&t, json!({ "inner": { "name": "eth7" } }), VETH, after, script);
    let text = out.ok().stdout();
    for want in ["mtu 1400", "02:00:00:00:00:07", "192.0.2.7/24", "2001:db8::7/64", ",UP", "renamed", "gone"]
    {
        assert!(text.contains(want), "no {want:?} in {text}");
    }
    t.nothing_left();
}

#[test]
fn a_device_keeps_its_name_or_gets_the_next_free_one() {
    requires!(root);
    requires!(program "ip");
    rrun_only!("runc 1.1 and crun 1.8 have no netDevices");
    let t = Test::new("netdevnames");
    let setup = "ip link add a0 type veth peer name b0; ip link add a1 type veth peer name b1";
    let devices = json!({ "a0": {}, "b0": { "name": "eth%d" }, "a1": { "name": "eth%d" } });
    let out = run(&t, devices, setup, "", "ls /sys/class/net");
    assert_eq!(out.ok().stdout().split_whitespace().collect::<Vec<_>>(), ["a0", "eth0", "eth1", "lo"]);
}

#[test]
fn a_device_that_is_not_there_or_whose_name_is_taken_is_an_error() {
    requires!(root);
    requires!(program "ip");
    rrun_only!("runc 1.1 and crun 1.8 have no netDevices");
    let t = Test::new("netdevnone");
    let out = run(&t, json!({ "none": {} }), ":", "", "true");
    out.fails("linux.netDevices.").says("no such network device").one_line();
    t.nothing_left();
    let out = run(&t, json!({ "inner": { "name": "lo" } }), VETH, "", "true");
    out.fails("linux.netDevices.").says("already exists").one_line();
    t.nothing_left();
}
