//! config.md: root, mounts, process, hostname, and what to do with what is not known.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use super::{Check, bind};
use crate::case::{Case, Verdict, expect, expect_eq};

pub const CHECKS: &[Check] = &[
    Check {
        name: "root-readonly",
        clause: "config.md#configRoot",
        says: "the root file system is read-only if and only if root.readonly is true",
        run: root_readonly,
    },
    Check {
        name: "mounts-order",
        clause: "config.md#configMounts",
        says: "mounts are made in the listed order",
        run: mounts_order,
    },
    Check {
        name: "mounts-relative",
        clause: "config.md#configMounts",
        says: "a relative destination counts from the root",
        run: mounts_relative,
    },
    Check {
        name: "process-args-env-cwd",
        clause: "config.md#configProcess",
        says: "the program gets its arguments, its environment and its directory as configured",
        run: process_args_env_cwd,
    },
    Check {
        name: "process-user",
        clause: "config.md#configPOSIXUser",
        says: "the program runs as the user, the group and the additional groups, and with the umask",
        run: process_user,
    },
    Check {
        name: "process-rlimits",
        clause: "config.md#configPOSIXProcess",
        says: "getrlimit gives the soft and hard limits as configured",
        run: process_rlimits,
    },
    Check {
        name: "process-rlimits-duplicate",
        clause: "config.md#configPOSIXProcess",
        says: "two entries in rlimits with one type are an error",
        run: process_rlimits_duplicate,
    },
    Check {
        name: "process-rlimits-unknown",
        clause: "config.md#configPOSIXProcess",
        says: "an rlimit that the kernel does not have is an error",
        run: process_rlimits_unknown,
    },
    Check {
        name: "oom-score-set",
        clause: "config.md#configLinuxProcess",
        says: "oomScoreAdj is set as configured",
        run: |case| {
            let got = case.prints(SCORE, |config| config["process"]["oomScoreAdj"] = json!(567))?;
            expect_eq("oom_score_adj", &got, "567")
        },
    },
    Check {
        name: "oom-score-unset",
        clause: "config.md#configLinuxProcess",
        says: "without oomScoreAdj the value is that of the caller",
        run: oom_score_unset,
    },
    Check {
        name: "hostname",
        clause: "config.md#configHostname",
        says: "the program sees the configured hostname",
        run: |case| {
            let got = case.prints("hostname", |config| config["hostname"] = json!("its-name"))?;
            expect_eq("hostname", &got, "its-name")
        },
    },
    Check {
        name: "unknown-property",
        clause: "config.md#configExtensibility",
        says: "properties that the runtime does not know are ignored",
        run: unknown_property,
    },
];

const SCORE: &str = "cat /proc/self/oom_score_adj";

fn root_readonly(case: &Case) -> Verdict {
    for (readonly, want) in [(json!(true), "refused"), (json!(false), "written"), (Value::Null, "written")] {
        let got = case.prints("touch /file 2>/dev/null && echo written || echo refused", |config| {
            if !readonly.is_null() {
                config["root"]["readonly"] = readonly.clone();
            }
        })?;
        expect_eq(&format!("root.readonly {readonly}"), &got, want)?;
    }
    Ok(())
}

fn mounts_order(case: &Case) -> Verdict {
    let (outer, over, inner) = (case.directory("outer")?, case.directory("over")?, case.directory("inner")?);
    let marks = [(&outer, "outer"), (&over, "over"), (&inner, "inner")];
    for (dir, name) in marks {
        let made = fs::write(dir.join("name"), name).and_then(|()| fs::create_dir(dir.join("sub")));
        expect(made.is_ok(), format!("conformance itself: {}: {made:?}", dir.display()))?;
    }
    // The second covers the first, and the third is inside the second.
    let got = case.prints("cat /m/name; echo; cat /m/sub/name", |config| {
        bind(config, "/m", &outer);
        bind(config, "/m", &over);
        bind(config, "/m/sub", &inner);
    })?;
    expect_eq("what is mounted on /m and /m/sub", &got, "over\ninner")
}

fn mounts_relative(case: &Case) -> Verdict {
    let volume = case.directory("volume")?;
    case.prints("touch /to/volume/file", |config| {
        config["process"]["cwd"] = json!("/bin");
        bind(config, "to/volume", &volume);
    })?;
    expect(volume.join("file").exists(), "the mount is not at /to/volume")
}

fn process_args_env_cwd(case: &Case) -> Verdict {
    let got = case.prints("", |config| {
        let script = r#"pwd; echo "$A,$B"; echo "$#,$0,$1,$2""#;
        config["process"]["args"] = json!(["/bin/sh", "-c", script, "zero", "a b", ""]);
        config["process"]["env"] = json!(["PATH=/bin", "A=x=y z", "B="]);
        config["process"]["cwd"] = json!("/bin");
    })?;
    expect_eq("cwd, env, args", &got, "/bin\nx=y z,\n2,zero,a b,")
}

fn process_user(case: &Case) -> Verdict {
    let got = case.prints("id -u; id -g; id -G; umask", |config| {
        config["process"]["user"] =
            json!({"uid": 1234, "gid": 2345, "additionalGids": [3456, 4567], "umask": 0o27});
    })?;
    // Whether the primary group is repeated among the additional ones is left open.
    let want = ["1234\n2345\n2345 3456 4567\n0027"];
    expect(want.contains(&got.as_str()), format!("uid, gid, groups, umask: got {got:?}, want {:?}", want[0]))
}

fn process_rlimits(case: &Case) -> Verdict {
    let got = case.prints("ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc", |config| {
        config["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 321, "hard": 654},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 1024},
        ]);
    })?;
    // The shell tells core sizes in blocks of 512 bytes.
    expect_eq("limits", &got, "321\n654\n0\n2")
}

fn process_rlimits_duplicate(case: &Case) -> Verdict {
    let bundle = case.bundle("", |config| {
        let entry = |soft: u32| json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": 654});
        // Generous, as a runtime that accepts them must not fail for want of descriptors.
        config["process"]["rlimits"] = json!([entry(500), entry(600)]);
    })?;
    refused_by_start(case, "two entries for RLIMIT_NOFILE", &bundle)
}

fn process_rlimits_unknown(case: &Case) -> Verdict {
    let bundle = case.bundle("", |config| {
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOTHING", "soft": 1, "hard": 1}]);
    })?;
    refused_by_start(case, "RLIMIT_NOTHING", &bundle)
}

/// The process part may be applied by create or by start; one of them has to fail.
fn refused_by_start(case: &Case, what: &str, bundle: &crate::case::Bundle) -> Verdict {
    let (container, answer) = case.attempt(bundle)?;
    expect(!answer.ok() || !container.invoke("start")?.ok(), format!("accepted {what}"))
}

fn oom_score_unset(case: &Case) -> Verdict {
    let container = case.create_with_score(&case.bundle(SCORE, |_| {})?, "432")?;
    container.started()?;
    expect_eq("oom_score_adj", &container.output.line()?, "432")
}

fn unknown_property(case: &Case) -> Verdict {
    let got = case.prints("echo ran", |config| {
        let odd = json!({"deep": [1, null, {"er": true}]});
        config["noSuchProperty"] = odd.clone();
        config["process"]["noSuchProperty"] = odd.clone();
        config["mounts"][0]["noSuchProperty"] = odd.clone();
        config["linux"]["noSuchProperty"] = odd;
        config["annotations"] = json!({"no.such.annotation": "value"});
    })?;
    expect_eq("output", &got, "ran")
}
