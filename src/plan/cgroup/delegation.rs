//! Who owns the container's cgroup on v2, and the one below it that the container manages alone.

#![forbid(unsafe_code)]

use super::super::rootfs::options::Options;
use super::super::rootfs::{attr, clean};
use crate::error::{Error, Result};
use crate::plan::ids::Ids;
use crate::plan::{Kind, Namespaces};
use crate::spec::Spec;

/// crun's annotation: the process begins in this cgroup below the container's, which then has no process and may
/// have controllers enabled for its children, while the limits stay out of the container's reach.
const ANNOTATION: &str = "run.oci.delegate-cgroup";

/// The runtime's id of the owner (config-linux.md, "Cgroup ownership"): that of the process, where the container
/// has a cgroup namespace of its own and the cgroup file system is mounted for writing.
pub fn owner(spec: &Spec, namespaces: &Namespaces, ids: &Ids) -> Option<u32> {
    let writable = spec.mounts.iter().any(|mount| {
        let readonly = Options::parse(&mount.options).whole().set & attr::RDONLY != 0;
        mount.source == "cgroup" && clean(&mount.destination) == "/sys/fs/cgroup" && !readonly
    });
    if !writable || !namespaces.creates(Kind::Cgroup) {
        return None;
    }
    ids.host_uid(spec.process.as_deref().map_or(0, |process| process.user.uid))
}

/// The path of the annotation below the container's cgroup, without `/` at either end.
///
/// # Errors
/// One that leaves the container's cgroup; cgroup v1, which is not safe to delegate.
pub fn below(spec: &Spec, only_v2: bool) -> Result<Option<String>> {
    let Some(path) = spec.annotations.get(ANNOTATION).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let at = format!("annotations.{ANNOTATION:?}");
    if path.split('/').any(|part| part == "..") {
        return Err(Error::config(at, format!("{path:?} leaves the container's cgroup")));
    }
    if !only_v2 {
        return Err(Error::config(at, "only cgroup v2 can delegate a cgroup"));
    }
    Ok(Some(clean(path).trim_matches('/').to_owned()).filter(|path| !path.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read::document;

    fn parse(json: &str) -> Spec {
        document(json.as_bytes()).expect("valid JSON")
    }

    fn owner_of(linux: &str, mount: &str, uid: u32) -> Option<u32> {
        let spec = parse(&format!(
            r#"{{"ociVersion":"1.0.0","linux":{{{linux}}},"mounts":[{mount}],
            "process":{{"cwd":"/","args":["x"],"user":{{"uid":{uid},"gid":0}}}}}}"#
        ));
        let linux = spec.linux.as_deref().expect("linux");
        let namespaces = Namespaces::build(&linux.namespaces).expect("namespaces");
        owner(&spec, &namespaces, &Ids::build(linux, &namespaces).expect("ids"))
    }

    #[test]
    fn the_owner_is_the_user_of_the_process_where_the_mount_is_for_writing() {
        let own = r#""namespaces":[{"type":"cgroup"},{"type":"mount"}]"#;
        let mapped = r#""namespaces":[{"type":"cgroup"},{"type":"mount"},{"type":"user"}],
            "uidMappings":[{"containerID":0,"hostID":1000,"size":10}],
            "gidMappings":[{"containerID":0,"hostID":1000,"size":10}]"#;
        let rw =
            r#"{"destination":"/sys/fs/cgroup/","type":"cgroup","source":"cgroup","options":["nosuid"]}"#;
        let with = |options: &str| {
            format!(
                r#"{{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":[{options}]}}"#
            )
        };
        assert_eq!(owner_of(own, rw, 5), Some(5));
        assert_eq!(owner_of(mapped, rw, 5), Some(1005));
        for (options, owner) in [
            (r#""ro""#, None),
            (r#""rro""#, None),
            (r#""rw","ro""#, None),
            (r#""ro","rw""#, Some(5)),
            (r#""ro","rrw""#, Some(5)),
        ] {
            assert_eq!(owner_of(own, &with(options), 5), owner, "{options}");
        }
        assert_eq!(owner_of(own, "", 5), None);
        assert_eq!(owner_of(r#""namespaces":[{"type":"mount"}]"#, rw, 5), None);
        assert_eq!(owner_of(r#""namespaces":[{"type":"cgroup","path":"/proc/1/ns/cgroup"}]"#, rw, 5), None);
    }

    #[test]
    fn the_annotation_stays_below() {
        let of = |path: &str, only_v2| {
            let json = format!(r#"{{"ociVersion":"1.0.0","annotations":{{"{ANNOTATION}":{path:?}}}}}"#);
            below(&parse(&json), only_v2).map_err(|e| e.to_string())
        };
        assert_eq!(of("/a/./b/", true), Ok(Some("a/b".into())));
        assert_eq!((of("", true), of("/", true)), (Ok(None), Ok(None)));
        assert!(of("a/../../b", true).is_err_and(|e| e.contains("leaves the container's cgroup")));
        assert!(of("a", false).is_err_and(|e| e.contains("only cgroup v2")));
    }
}
