//! config.md on the process, its user, the names of the host, and annotations.

#![forbid(unsafe_code)]

use std::io::IoSliceMut;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use super::{Check, check};
use crate::case::{Case, Facts, Shared, Verdict, Why, connection, expect, expect_eq, fails, lacks, own};

pub fn checks() -> Vec<Check> {
    let mut all = vec![
        check("process-cwd", &["configProcess.cwd"], |case| {
            expect_eq("cwd", plain(case)?.text("/cwd"), "/proc")
        }),
        check("process-env", &["configProcess.env"], |case| {
            let env = &plain(case)?.0["env"];
            expect(env["A"] == "x=y z" && env["B"] == "", format!("got {env}"))?;
            expect(env["CONFORMANCE_CALLER"].is_null(), "the environment of the caller is there too")
        }),
        check("process-args", &["configProcess.args"], |case| {
            let args = &plain(case)?.0["args"];
            expect(*args == json!(["/probe", "probe", "facts", "cwd:", "a b", ""]), format!("got {args}"))
        }),
        check("process-path", &["configProcess.7"], |case| {
            let facts =
                case.facts(&[], |config| config["process"]["args"] = json!(["probe", "probe", "facts"]))?;
            expect(facts.0["args"][0] == "probe", format!("args: {}", facts.0["args"]))?;
            case.refuses("args without an entry", |config| config["process"]["args"] = json!([]))
        }),
        check("process-terminal", &["configProcess.terminal"], |case| {
            let told = terminal(case)?.0["terminal"].clone();
            expect(told["are"] == json!([true, true, true]), format!("the streams are no terminal: {told}"))
        }),
        check("process-consoleSize", &["configProcess.consoleSize"], |case| {
            let told = terminal(case)?.0["terminal"]["size"].clone();
            expect(told == json!([33, 77]), format!("rows and columns: got {told}, want [33,77]"))
        }),
        check("console-device", &["configLinuxDefaultDevices.1"], |case| {
            let facts = terminal(case)?;
            let console = facts.done("stat:/dev/console");
            expect(console.starts_with("c 136:"), format!("/dev/console is no pseudoterminal: {console}"))
        }),
        check("consoleSize-ignored", &["configProcess.2"], |case| {
            let size = json!({"height": 33, "width": 77});
            let facts = case.facts(&[], |config| config["process"]["consoleSize"] = size)?;
            expect(facts.0["terminal"]["are"] == json!([false, false, false]), "there is a terminal")
        }),
        check("rlimits-soft", &["configPOSIXProcess.3", "configPOSIXProcess.5"], |case| limits(case, 0)),
        check("rlimits-hard", &["configPOSIXProcess.3", "configPOSIXProcess.7"], |case| limits(case, 1)),
        check("rlimits-unknown", &["configPOSIXProcess.2"], |case| {
            case.refuses("RLIMIT_NOTHING", |config| {
                config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOTHING", "soft": 1, "hard": 1}]);
            })
        }),
        check("rlimits-duplicate", &["configPOSIXProcess.8"], |case| {
            // Generous, as a runtime that accepts them must not fail for want of descriptors.
            let entry = |soft: u32| json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": 654});
            case.refuses("RLIMIT_NOFILE twice", |config| {
                config["process"]["rlimits"] = json!([entry(500), entry(600)])
            })
        }),
        check("capabilities-ungrantable", &["configLinuxProcess.2"], |case| {
            // One that no kernel has, which nothing can grant, and one that is not there to be granted; in a
            // user namespace of its own a container can have all that there are.
            let all = (0..).zip(CAPABILITIES.split_whitespace()).filter(|_| case.machine().is_root());
            let missing = { all }.find(|(bit, _)| bounding() >> bit & 1 == 0);
            let names: Vec<_> =
                ["CAP_KILL", "CAP_CONFORMANCE"].into_iter().chain(missing.map(|(_, name)| name)).collect();
            let facts =
                case.facts(&[], |config| config["process"]["capabilities"] = sets(|_| json!(names)))?;
            expect_eq("CapBnd", facts.status("CapBnd"), "0000000000000020")
        }),
        check("oom-score-set", &["configLinuxProcess.3"], |case| {
            expect_eq("oom_score_adj", plain(case)?.proc("oom_score_adj").trim(), "567")
        }),
        check("oom-score-unset", &["configLinuxProcess.4"], |case| {
            let container =
                case.create_as("432", "-", &case.bundle(&["/probe", "probe", "facts"], |_| {})?)?;
            container.started()?;
            expect_eq("oom_score_adj", container.facts()?.proc("oom_score_adj").trim(), "432")
        }),
        check("noNewPrivileges", &["configLinuxProcess.noNewPrivileges"], |case| {
            expect_eq("NoNewPrivs", plain(case)?.status("NoNewPrivs"), "1")?;
            let facts = case.facts(&[], |config| config["process"]["noNewPrivileges"] = json!(false))?;
            expect_eq("NoNewPrivs without it", facts.status("NoNewPrivs"), "0")
        }),
        check("apparmor", &["configLinuxProcess.apparmorProfile"], apparmor),
        check("selinux", &["configLinuxProcess.selinuxLabel"], |case| {
            let label = "system_u:system_r:container_t:s0:c1,c2";
            selinux(
                case,
                "process.selinuxLabel",
                |config| config["process"]["selinuxLabel"] = json!(label),
                |facts| expect_eq("label", facts.proc("attr/current").trim_end_matches('\0'), label),
            )
        }),
        check("mount-label", &["configLinuxMountLabel.mountLabel"], |case| {
            let label = "system_u:object_r:container_file_t:s0:c1,c2";
            selinux(
                case,
                "linux.mountLabel",
                |config| config["linux"]["mountLabel"] = json!(label),
                |facts| {
                    let mount = facts.mount("/dev")?;
                    expect(
                        mount.options.iter().any(|option| option.starts_with("context=")),
                        format!("{:?}", mount.options),
                    )
                },
            )
        }),
        check("user-uid", &["configPOSIXUser.uid"], |case| {
            expect_eq("Uid", user(case)?.status("Uid"), "1234\t1234\t1234\t1234")
        }),
        check("user-gid", &["configPOSIXUser.gid"], |case| {
            expect_eq("Gid", user(case)?.status("Gid"), "2345\t2345\t2345\t2345")
        }),
        check("user-umask", &["configPOSIXUser.umask"], |case| {
            expect_eq("Umask", plain(case)?.status("Umask"), "0027")
        }),
        check("user-umask-unset", &["configPOSIXUser.umask-unset"], |case| {
            let container =
                case.create_as("-", "0031", &case.bundle(&["/probe", "probe", "facts"], |_| {})?)?;
            container.started()?;
            expect_eq("Umask", container.facts()?.status("Umask"), "0031")
        }),
        check("user-additionalGids", &["configPOSIXUser.additionalGids"], |case| {
            // Whether the first group is repeated among them is left open.
            let facts = user(case)?;
            let groups: Vec<_> =
                facts.status("Groups").split_whitespace().filter(|id| *id != "2345").collect();
            expect(groups == ["3456", "4567"], format!("got {groups:?}"))
        }),
        check("hostname", &["configHostname.hostname"], |case| {
            expect_eq("hostname", plain(case)?.text("/hostname"), "its-name")
        }),
        check("domainname", &["configDomainname.domainname"], |case| {
            let facts = case.facts(&[], |config| config["domainname"] = json!("its.domain"))?;
            expect_eq("domainname", facts.text("/domainname"), "its.domain")
        }),
        check("unknown-property", &["configExtensibility.2"], |case| {
            let odd = json!({"deep": [1, null, {"er": true}]});
            let places =
                ["", "/process", "/process/user", "/root", "/mounts/0", "/linux", "/linux/namespaces/0"];
            case.facts(&[], |config| {
                for place in places {
                    if let Some(object) = config.pointer_mut(place) {
                        object["noSuchProperty"] = odd.clone();
                    }
                }
            })
            .map(drop)
        }),
        check("unknown-annotation", &["configAnnotations.27"], |case| {
            let odd = json!({"no.such.annotation": "value", "org.opencontainers.no-such": "value"});
            case.facts(&[], |config| config["annotations"] = odd).map(drop)
        }),
        check("annotation-empty", &["configAnnotations.29"], |case| {
            let bundle = case.bundle(&["/probe", "probe", "wait"], |config| {
                config["annotations"] = json!({"com.example.empty": ""})
            })?;
            let annotations = case.create(&bundle)?.state()?["annotations"].clone();
            expect(annotations["com.example.empty"] == "", format!("state has {annotations}"))
        }),
        check("scheduler-batch", &["configLinuxProcess.scheduler"], |case| {
            scheduled(case, json!({"policy": "SCHED_BATCH", "nice": 7}), "3 7 0")
        }),
        check("scheduler-idle", &["configLinuxProcess.scheduler"], |case| {
            scheduled(case, json!({"policy": "SCHED_IDLE"}), "5 0 0")
        }),
        check("scheduler-other", &["configLinuxProcess.scheduler"], |case| {
            scheduled(case, json!({"policy": "SCHED_OTHER", "nice": 5}), "0 5 0")
        }),
        check("io-priority-idle", &["configLinuxProcess.ioPriority"], |case| {
            io_priority(case, "IOPRIO_CLASS_IDLE", 0, "idle")
        }),
        check("io-priority-best-effort", &["configLinuxProcess.ioPriority"], |case| {
            io_priority(case, "IOPRIO_CLASS_BE", 6, "best-effort: prio 6")
        }),
    ];
    all.extend(SETS.iter().map(|(name, line, mask, clause)| {
        check(format!("capabilities-{name}"), &[clause], move |case| {
            expect_eq(line, capable(case)?.status(line), mask)
        })
    }));
    all
}

/// By their numbers.
pub const CAPABILITIES: &str = "\
    CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID \
    CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW \
    CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT \
    CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD \
    CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG \
    CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE";

/// What this program, and so the runtime, can grant; a user can grant everything in a namespace.
pub fn bounding() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = text.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).unwrap_or(u64::MAX)
}

/// A set of capabilities, its line in `/proc/self/status`, and what that says if the set is CAP_CHOWN
/// (0), CAP_KILL (5) and CAP_SETGID (6), the bounding one CAP_FOWNER (3) and CAP_SETUID (7) besides.
const SETS: &[(&str, &str, &str, &str)] = &[
    ("bounding", "CapBnd", "00000000000000e9", "configLinuxProcess.bounding"),
    ("permitted", "CapPrm", "0000000000000061", "configLinuxProcess.permitted"),
    ("inheritable", "CapInh", "0000000000000061", "configLinuxProcess.inheritable"),
    ("effective", "CapEff", "0000000000000061", "configLinuxProcess.effective"),
    ("ambient", "CapAmb", "0000000000000061", "configLinuxProcess.ambient"),
];

fn sets(of: impl Fn(&str) -> Value) -> Value {
    SETS.iter().map(|(name, ..)| ((*name).to_owned(), of(name))).collect::<serde_json::Map<_, _>>().into()
}

/// The user is not root, for whom the kernel would make every set the bounding one when the program
/// is executed; of what has the configured sets, there remain the ambient ones.
fn capable(case: &Case) -> Shared {
    case.machine().needs_root()?;
    case.shared("capabilities", |case| {
        case.facts(&[], |config| {
            config["process"]["user"] = json!({"uid": 1234, "gid": 2345});
            let names = |all: &[&str]| json!(all);
            config["process"]["capabilities"] = sets(|set| match set {
                "bounding" => names(&["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_FOWNER"]),
                _ => names(&["CAP_KILL", "CAP_CHOWN", "CAP_SETGID"]),
            });
        })
    })
}

/// A container with everything of the process that does not hinder another.
fn plain(case: &Case) -> Shared {
    case.shared("process", |case| {
        let args = ["/probe", "probe", "facts", "cwd:", "a b", ""];
        let bundle = case.bundle(&args, |config| {
            let process = &mut config["process"];
            process["env"] = json!(["PATH=/", "A=x=y z", "B="]);
            process["cwd"] = json!("/proc");
            process["user"]["umask"] = json!(0o27);
            process["oomScoreAdj"] = json!(567);
            process["noNewPrivileges"] = json!(true);
            process["rlimits"] = RLIMITS
                .iter()
                .map(|(kind, soft, hard)| json!({"type": kind, "soft": soft, "hard": hard}))
                .collect();
            config["hostname"] = json!("its-name");
        })?;
        let container = case.create_as("-", "-", &bundle)?;
        container.started()?;
        container.facts()
    })
}

/// Below what there usually is, as only CAP_SYS_RESOURCE may raise a hard limit.
const RLIMITS: &[(&str, u64, u64)] = &[
    ("RLIMIT_NOFILE", 321, 654),
    ("RLIMIT_CORE", 0, 1024),
    ("RLIMIT_FSIZE", 1 << 30, 1 << 31),
    ("RLIMIT_STACK", 1 << 22, 1 << 22),
    ("RLIMIT_RTPRIO", 0, 0),
];

fn limits(case: &Case, which: usize) -> Verdict {
    let facts = plain(case)?;
    for (kind, soft, hard) in RLIMITS {
        let want = [*soft, *hard][which];
        let got = &facts.0["limits"][kind][which];
        expect(*got == want, format!("{kind}: got {got}, want {want}"))?;
    }
    Ok(())
}

fn user(case: &Case) -> Shared {
    case.machine().needs_root()?;
    case.shared("user", |case| {
        let user = json!({"uid": 1234, "gid": 2345, "additionalGids": [3456, 4567]});
        case.facts(&[], |config| config["process"]["user"] = user)
    })
}

/// A container whose process has a terminal, of which the runtime sends the other end.
fn terminal(case: &Case) -> Shared {
    case.shared("terminal", |case| {
        let bundle = case.bundle(&["/probe", "probe", "facts", "stat:/dev/console"], |config| {
            config["process"]["terminal"] = json!(true);
            config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
            super::isolation::default_filesystems(config);
        })?;
        let path = case.dir.join("s");
        let socket = UnixListener::bind(&path).map_err(own(&path))?;
        let received = thread::spawn(move || {
            let stream = connection(&socket)?;
            let (mut bytes, mut space) =
                ([0; 4096], [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))]);
            let mut control = RecvAncillaryBuffer::new(&mut space);
            recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
                .ok()?;
            control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
        });
        let flags = ["--console-socket", &path.display().to_string()];
        let (container, answer) = case.attempt_by(Command::new(&case.subject.runtime), &bundle, &flags)?;
        answer.done("create")?;
        container.started()?;
        let Ok(Some(master)) = received.join() else { return fails("no terminal came through the socket") };
        let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
        while !text.ends_with(b"\n") {
            match rustix::io::read(&master, &mut bytes) {
                Ok(count) if count > 0 => text.extend_from_slice(&bytes[..count]),
                _ => break,
            }
        }
        let line = String::from_utf8_lossy(&text).into_owned();
        serde_json::from_str(line.trim())
            .map(Facts)
            .map_err(|e| Why::Fails(format!("no facts, {e}: {line:?}")))
    })
}

fn scheduled(case: &Case, scheduler: Value, want: &str) -> Verdict {
    let facts = case.facts(&[], |config| config["process"]["scheduler"] = scheduler)?;
    let got = [facts.stat(41), facts.stat(19), facts.stat(40)].join(" ");
    expect_eq("policy, nice value and priority", &got, want)
}

fn io_priority(case: &Case, class: &str, priority: u32, want: &str) -> Verdict {
    let io = json!({"class": class, "priority": priority});
    let container = case
        .create(&case.bundle(&["/probe", "probe", "wait"], |config| config["process"]["ioPriority"] = io)?)?;
    container.started()?;
    container.facts()?;
    let got = case.tool("ionice", &["-p", &container.pid()?])?;
    expect(got.starts_with(want), format!("ionice says {got:?}, want {want:?}"))
}

/// A profile that is loaded, or else, where there are none, an error.
fn apparmor(case: &Case) -> Verdict {
    let with = |name: &str| {
        let name = json!(name);
        move |config: &mut Value| config["process"]["apparmorProfile"] = name
    };
    case.refuses("an AppArmor profile that is not loaded", with("conformance-no-such-profile"))?;
    let loaded = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    // Under one that only complains, the probe can do its work.
    let Some(line) =
        loaded.lines().find(|line| line.ends_with("(complain)") || line.ends_with("(unconfined)"))
    else {
        return Ok(());
    };
    let name = line.split(" (").next().unwrap_or_default();
    let facts = case.facts(&[], with(name))?;
    expect(facts.proc("attr/current").starts_with(name), format!("profile {}", facts.proc("attr/current")))
}

/// A label, or else, where there is no SELinux, an error.
fn selinux(case: &Case, what: &str, edit: impl Fn(&mut Value), judge: impl Fn(&Facts) -> Verdict) -> Verdict {
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return case.refuses(&format!("{what} where there is no SELinux"), edit);
    }
    if !case.machine().is_root() {
        return lacks("root");
    }
    judge(&case.facts(&[], edit)?)
}
