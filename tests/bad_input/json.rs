//! Rows 1-22: the file and its JSON.

use super::Row;
use crate::harness::chmod;
use crate::{requires, rrun_only};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

impl Row {
    fn raw(&self, text: impl AsRef<[u8]>) -> &Self {
        fs::write(self.t.bundle.join("config.json"), text).unwrap();
        self
    }

    fn text(&self) -> String {
        self.t.default_config().to_string()
    }
}

#[test]
fn row_001_config_absent() {
    let r = Row::new(1);
    fs::remove_file(r.t.bundle.join("config.json")).unwrap();
    r.refused("JSON specification file config.json not found");
}

#[test]
fn row_002_empty_file() {
    Row::new(2).raw("").refused("config.json");
}

#[test]
fn row_003_null() {
    Row::new(3).raw("null").refused("config.json|config cannot be null");
}

#[test]
fn row_004_not_an_object() {
    let r = Row::new(4);
    for text in ["[]", "\"x\"", "1", "true"] {
        r.raw(text).refused("config.json");
    }
}

#[test]
fn row_005_truncated() {
    Row::new(5).raw("{\"ociVersion\":\"1.0.2\",").refused("line 1");
}

#[test]
fn row_006_trailing_garbage() {
    rrun_only!("Go's decoder stops behind the first value");
    let r = Row::new(6);
    r.raw(r.text() + " xyz").refused("trailing");
}

#[test]
fn row_007_what_only_looks_like_json() {
    let r = Row::new(7);
    for value in ["[1,]", "1 // no", "'x'", "NaN", "Infinity", "0x10", "+1"] {
        let text = r.text();
        r.raw(format!("{{\"annotations\":{value},{}", &text[1..])).refused("line 1");
    }
}

#[test]
fn row_008_duplicate_keys_the_last_wins() {
    requires!(root);
    let r = Row::new(8);
    let text = r.with(|c| c["process"]["args"] = json!(["hostname"])).t.config().to_string();
    r.raw(text.replacen('{', "{\"hostname\":\"first\",", 1));
    let out = r.t.run();
    assert_eq!(out.ok().stdout(), "rrun-test\n");
}

#[test]
fn row_009_keys_are_case_sensitive() {
    requires!(root);
    rrun_only!("Go matches keys in any case");
    Row::new(9).good("/Process", json!({ "args": ["/no/such"] }));
}

#[test]
fn row_010_byte_order_mark() {
    let r = Row::new(10);
    r.raw(format!("\u{feff}{}", r.text())).refused("config.json");
}

#[test]
fn row_011_invalid_utf_8() {
    requires!(root);
    let r = Row::new(11);
    let text = r.text().replace("rrun-test\"", "rrun-\u{1}\"");
    let bytes: Vec<u8> = text.bytes().map(|b| if b == 1 { 0xff } else { b }).collect();
    r.raw(bytes);
    r.survives(r.t.bundle_command("run", &[]));
}

#[test]
fn row_012_lone_surrogate() {
    requires!(root);
    let r = Row::new(12);
    r.raw(r.text().replace("\"rrun-test\"", "\"\\ud800\""));
    r.survives(r.t.bundle_command("run", &[]));
}

#[test]
fn row_013_nul_in_strings() {
    requires!(root);
    rrun_only!("runc rejects NUL in mounts alone");
    let r = Row::new(13);
    r.bad("process.args", "/process/args/-", json!("a\0b"));
    r.bad("process.env", "/process/env/-", json!("A=\0"));
    r.bad("process.cwd", "/process/cwd", json!("/\0"));
    r.bad("hostname", "/hostname", json!("a\0b"));
    r.bad("root.path", "/root/path", json!("rootfs\0x"));
    r.bad("mounts[0]", "/mounts/0/destination", json!("/proc\0"));
    r.bad("linux.maskedPaths", "/linux/maskedPaths/-", json!("/proc\0"));
    r.bad("linux.cgroupsPath", "/linux/cgroupsPath", json!("/a\0"));
}

#[test]
fn row_014_deep_nesting() {
    let r = Row::new(14);
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    r.raw(r.text().replacen('{', &format!("{{\"x\":{deep},"), 1)).refused("config.json");
}

#[test]
fn row_015_a_huge_file() {
    requires!(root);
    let r = Row::new(15);
    let many = "0,".repeat(5_000_000) + "0";
    r.raw(r.text().replacen('{', &format!("{{\"x\":[{many}],"), 1));
    r.survives(r.t.bundle_command("run", &[]));
}

#[test]
fn row_016_values_of_another_type() {
    let r = Row::new(16);
    r.bad("process.user.uid", "/process/user/uid", json!("0"));
    r.bad("hostname", "/hostname", json!(5));
    r.bad("root.readonly", "/root/readonly", json!("true"));
    r.bad("linux", "/linux", json!([]));
    r.bad("mounts", "/mounts", json!({}));
}

#[test]
fn row_017_floats_for_integers() {
    let r = Row::new(17);
    r.bad("process.user.uid", "/process/user/uid", json!(1.5));
    let text = r.text();
    r.raw(text.replace("\"uid\":0", "\"uid\":1e3")).refused("process.user.uid");
}

#[test]
fn row_018_integers_out_of_range() {
    let r = Row::new(18);
    r.raw(r.text().replace("\"uid\":0", "\"uid\":18446744073709551616")).refused("process.user.uid");
    r.bad("process.user.gid", "/process/user/gid", json!(-1));
    r.bad("oomScoreAdj", "/process/oomScoreAdj", json!(2_147_483_648_u64));
}

#[test]
fn row_019_unknown_fields_are_ignored() {
    requires!(root);
    let r = Row::new(19);
    for place in
        ["/x", "/process/x", "/process/user/x", "/linux/x", "/linux/resources/x", "/mounts/0/x", "/root/x"]
    {
        for value in [json!({ "a": [1, null] }), json!(1.5), json!("s")] {
            r.with(|c| super::put(c, place, value));
        }
        r.accepted();
    }
}

#[test]
fn row_020_null_for_what_is_optional() {
    requires!(root);
    let r = Row::new(20);
    r.with(|c| {
        for place in [
            "/hooks",
            "/annotations",
            "/process/terminal",
            "/process/rlimits",
            "/linux/resources",
            "/linux/seccomp",
            "/linux/sysctl",
            "/linux/maskedPaths",
            "/linux/devices",
            "/process/user/additionalGids",
            "/domainname",
        ] {
            super::put(c, place, Value::Null);
        }
    })
    .accepted();
}

#[test]
fn row_021_config_is_no_regular_file() {
    let r = Row::new(21);
    let path = r.t.bundle.join("config.json");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    r.refused("config.json");
    fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("config.json", &path).unwrap();
    r.refused("config.json");
    fs::remove_file(&path).unwrap();
    if crate::harness::is_rrun() {
        Command::new("mkfifo").arg(&path).status().unwrap();
        r.refused("config.json");
    }
    chmod(&r.t.bundle, 0o755);
}

#[test]
fn row_022_config_replaced_after_create() {
    requires!(root);
    let r = Row::new(22);
    r.t.sh("exec sleep 1000").create();
    r.raw("garbage");
    r.t.start();
    // runc reads the bundle again for exec.
    if !crate::harness::is_rrun() {
        return;
    }
    assert_eq!(r.t.exec(&["hostname"]).ok().stdout(), "rrun-test\n");
    r.t.rt(&["list"]).go().ok();
    r.t.end();
}
