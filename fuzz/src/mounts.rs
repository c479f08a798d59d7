//! `mounts[].options` → flags and data, beside a model that looks at the words from the end. The input is the words,
//! each on a line; the first line is the type of the mount.

#![forbid(unsafe_code)]

use super::{machine, report};
use rrun::plan::Plan;
use rrun::plan::rootfs::options::{Options, attr, propagation};
use rrun::plan::rootfs::{Attrs, OPTIONS, RootfsOp, Source};
use rrun::spec::{Linux, Mount, Namespace, Process, Root, Spec};

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace('\0', "");
    let mut lines = text.split('\n');
    let typ = lines.next().unwrap_or_default();
    let words: Vec<String> = lines.map(str::to_owned).collect();
    let options = Options::parse(&words);
    assert_eq!(options, Options::parse(&words));
    no_word_lost(&words, &options);
    flags(&words, &options);
    attributes(&words, &options.attrs, "");
    attributes(&words, &options.recursive, "r");
    planned(typ, &words, &options, data.len());
}

fn no_word_lost(words: &[String], options: &Options) {
    let unknown: Vec<&String> =
        words.iter().filter(|word| !word.is_empty() && !OPTIONS.contains(&word.as_str())).collect();
    assert_eq!(options.data.iter().collect::<Vec<_>>(), unknown);
    let propagations = words.iter().filter_map(|word| propagation(word));
    assert_eq!(options.propagation, propagations.collect::<Vec<_>>());
}

/// The last of the two words, if any.
fn last<'a>(words: &'a [String], of: &[&str]) -> Option<&'a str> {
    words.iter().rev().map(String::as_str).find(|word| of.contains(word))
}

fn flags(words: &[String], options: &Options) {
    let either = |short: &str, long: &str| last(words, &[short, long]).map(|word| word == long);
    assert_eq!(options.bind, either("bind", "rbind"));
    assert_eq!(options.idmap, either("idmap", "ridmap"));
    assert_eq!(options.remount, last(words, &["remount"]).is_some());
    assert_eq!(options.copy_up, last(words, &["tmpcopyup"]).is_some());
    let pairs = [
        ("sync", "async", libc::MS_SYNCHRONOUS),
        ("dirsync", "", libc::MS_DIRSYNC),
        ("mand", "nomand", libc::MS_MANDLOCK),
        ("iversion", "noiversion", libc::MS_I_VERSION),
        ("acl", "noacl", libc::MS_POSIXACL),
        ("lazytime", "nolazytime", libc::MS_LAZYTIME),
        ("silent", "loud", libc::MS_SILENT),
    ];
    let on = pairs.iter().filter(|(on, off, _)| !on.is_empty() && last_of(words, on, off) == Some(true));
    assert_eq!(options.superblock, on.fold(0, |bits, (_, _, flag)| bits | *flag as u32));
}

/// Whether the last of both words is the first; an empty word is none.
fn last_of(words: &[String], on: &str, off: &str) -> Option<bool> {
    let both = [on, off];
    last(words, &both[..if off.is_empty() { 1 } else { 2 }]).map(|word| word == on)
}

fn attributes(words: &[String], attrs: &Attrs, prefix: &str) {
    let pairs = [
        ("ro", "rw", attr::RDONLY),
        ("nosuid", "suid", attr::NOSUID),
        ("nodev", "dev", attr::NODEV),
        ("noexec", "exec", attr::NOEXEC),
        ("nodiratime", "diratime", attr::NODIRATIME),
        ("nosymfollow", "symfollow", attr::NOSYMFOLLOW),
    ];
    let mut known = attr::ATIME;
    for (on, off, bit) in pairs {
        let said = last_of(words, &format!("{prefix}{on}"), &format!("{prefix}{off}"));
        assert_eq!((attrs.set & bit != 0, attrs.clear & bit != 0), (said == Some(true), said == Some(false)));
        known |= bit;
    }
    assert_eq!((attrs.set | attrs.clear) & !known, 0);
    access_times(words, attrs, prefix);
}

/// `noatime`, `strictatime` and `relatime` choose; `atime` and `nostrictatime` withdraw the one that they are the
/// opposite of, and `relatime` is what then remains.
fn access_times(words: &[String], attrs: &Attrs, prefix: &str) {
    let mut choice = None;
    for word in words {
        let Some(word) = word.strip_prefix(prefix) else { continue };
        match (word, choice) {
            ("noatime", _) => choice = Some(attr::NOATIME),
            ("strictatime", _) => choice = Some(attr::STRICTATIME),
            ("relatime", _) => choice = Some(0),
            ("atime", Some(attr::NOATIME)) | ("nostrictatime", Some(attr::STRICTATIME)) => choice = Some(0),
            // Of the mounts below, whose own choice is not known, it is one.
            ("atime" | "nostrictatime", None) if prefix == "r" => choice = Some(0),
            _ => {}
        }
    }
    let cleared = if choice.is_some() { attr::ATIME } else { 0 };
    assert_eq!(
        (attrs.set & attr::ATIME, attrs.clear & attr::ATIME),
        (choice.unwrap_or(0), cleared),
        "{prefix}"
    );
}

/// The mount that becomes of them.
fn planned(typ: &str, words: &[String], options: &Options, length: usize) {
    let mount = Mount {
        destination: "/m".into(),
        typ: typ.into(),
        source: "/source".into(),
        options: words.to_vec(),
        ..Mount::default()
    };
    let kinds = ["mount", "pid", "network", "ipc", "uts", "cgroup"];
    let namespaces = kinds.map(|kind| Namespace { typ: kind.into(), path: String::new() });
    let spec = Spec {
        root: Some(Root { path: "rootfs".into(), readonly: false }),
        mounts: vec![mount],
        process: Some(Box::new(Process { cwd: "/".into(), args: vec!["sh".into()], ..Process::default() })),
        linux: Some(Box::new(Linux { namespaces: namespaces.into(), ..Linux::default() })),
        ..Spec::default()
    };
    let (host, driver) = machine::machine(length % 2);
    let request = machine::request(driver);
    let plan = match Plan::build(&spec, &request, &host) {
        Ok(plan) => plan,
        Err(e) => {
            return report::config(
                &e,
                "config.json",
                "",
                br#"{"mounts":[{}]}"#.repeat(1 + length).as_slice(),
            );
        }
    };
    let mounts = plan.rootfs.ops.iter().filter_map(|op| match op {
        RootfsOp::Mount(mount) if mount.destination.as_bytes().starts_with(b"/m") => Some(mount),
        _ => None,
    });
    let mounts: Vec<_> = mounts.collect();
    let recursive = last_of(words, "rro", "rrw");
    let is_cgroup = matches!((typ, length % 2), ("cgroup", _) | ("cgroup2", 1));
    if is_cgroup && options.bind.is_none() && !options.remount {
        let readonly = recursive.or_else(|| last_of(words, "ro", "rw")) == Some(true);
        for mount in mounts {
            assert_eq!(mount.attrs.set & attr::RDONLY != 0 || mount.late_readonly, readonly, "{mount:?}");
        }
        return;
    }
    let [mount] = mounts[..] else { panic!("{typ:?} {words:?} is {mounts:?}") };
    match &mount.source {
        Source::Bind(bind) => {
            assert_eq!(bind.recursive, options.bind == Some(true));
            assert_eq!(options.data.is_empty(), plan.warnings.is_empty());
        }
        Source::New(made) | Source::Remount(made) => {
            let mut data = options.data.iter().flat_map(|word| {
                let whole = word.contains('"');
                word.split(move |c| c == ',' && !whole).filter(|part| !part.is_empty())
            });
            for (key, value) in &made.data {
                let word = data.next().unwrap_or_else(|| panic!("{key:?} from nowhere"));
                let key = key.to_str().unwrap();
                assert!(
                    word.starts_with(key) && (word.len() > key.len()) == value.is_some(),
                    "{word:?} {key:?}"
                );
            }
            assert_eq!(data.next(), None);
            assert_eq!(matches!(mount.source, Source::Remount(_)), options.remount);
            let readonly = (mount.attrs.set & attr::RDONLY != 0) || mount.late_readonly;
            assert_eq!(readonly, options.attrs.set & attr::RDONLY != 0);
        }
        Source::Cgroup2(..) => panic!("{mount:?}"),
    }
    assert_eq!(mount.recursive, options.recursive);
}
