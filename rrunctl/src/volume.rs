//! Volumes: directories that outlive containers, in `volumes/NAME/_data`.
//!
//! A volume appears by rename(2) once it is whole, and goes away by one. Who makes a container that uses volumes holds
//! [`Volumes::hold`] until the container is recorded, so that no prune comes between.

#![forbid(unsafe_code)]

mod fill;

use crate::container::name;
use crate::container::types::{Map, go, omit};
use crate::error::{Context as _, Error, Kind, Result};
use crate::home::{self, Home, Lock};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags, openat, renameat_with, statx,
    syncfs,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The label of volumes that nobody named; what prune takes unless it is told to take all.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

go! {
    /// A volume, as `docker volume inspect` prints it.
    struct Volume {
        /// RFC 3339.
        created_at: String,
        /// `local`.
        driver: String,
        /// Nil where none were given.
        labels: Map<String>,
        /// `_data`.
        mountpoint: String,
        /// What it is called.
        name: String,
        /// `type`, `device`, `o`; nil where none were given.
        options: Map<String>,
        /// `local`.
        scope: String,
        /// Bytes and users; for `system df`.
        usage_data ? "omit": Option<Usage>,
    }

    /// What a volume takes.
    struct Usage {
        /// How many containers have it.
        ref_count: i64,
        /// Bytes.
        size: i64,
    }

    /// What `volume create` is asked for.
    struct CreateVolume {
        /// Empty: a made-up one.
        name: String,
        /// Empty or `local`.
        driver: String,
        /// For its owner.
        labels: Map<String>,
        /// `type`, `device`, `o`, as mount(8) has them.
        #[serde(rename = "DriverOpts")]
        options: Map<String>,
    }
}

impl Volume {
    /// Whether nobody named it.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

/// Beside `_data`, while what is to be in it is moved there.
const FILLING: &str = "filling";

/// The volumes of an engine.
#[derive(Debug, Clone)]
pub struct Volumes {
    home: Home,
}

impl Volumes {
    /// Of `home`.
    pub fn open(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    fn dir(&self) -> PathBuf {
        self.home.kept("volumes")
    }

    /// Keeps volumes from being removed as long as it is held.
    ///
    /// # Errors
    /// Those of flock(2).
    pub fn hold(&self) -> Result<Lock> {
        // No volume has this name: they begin with a letter or a digit.
        Lock::shared(&self.dir().join(".lock"))
    }

    /// Makes a volume, or finds the one with this name.
    ///
    /// # Errors
    /// Names and options that cannot be; those of mkdir(2) and rename(2).
    pub fn create(&self, mut wanted: CreateVolume) -> Result<Volume> {
        if wanted.name.is_empty() {
            wanted.name = name::id()?;
            wanted.labels.insert(ANONYMOUS.to_owned(), String::new());
        }
        let doing = || format!("create {}", wanted.name);
        check(&wanted).map_err(|e| e.context(doing()))?;
        if let Some(volume) = self.find(&wanted.name)? {
            return Ok(volume);
        }
        let scratch = self.home.scratch("volume")?;
        let new = scratch.path().join("new");
        make(&new, 0o701)?;
        // What is in it is the containers' business; the home above is root's alone.
        make(&new.join("_data"), 0o755)?;
        let volume = Volume {
            created_at: crate::container::status::format_time(now())?,
            driver: "local".to_owned(),
            labels: wanted.labels.clone(),
            mountpoint: self.dir().join(&wanted.name).join("_data").to_string_lossy().into_owned(),
            name: wanted.name.clone(),
            options: wanted.options.clone(),
            scope: "local".to_owned(),
            usage_data: None,
        };
        let text = serde_json::to_vec(&volume).map_err(|e| Error::system(e.to_string()))?;
        home::replace(&new.join("opts.json"), 0o600, &text)?;
        let place = self.dir().join(&wanted.name);
        match renameat_with(CWD, &new, CWD, &place, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(volume),
            Err(Errno::EXIST) => self.inspect(&wanted.name),
            Err(e) => Err(Error::from(e).context(format!("rename to {}", place.display()))),
        }
    }

    fn find(&self, name: &str) -> Result<Option<Volume>> {
        if !name::is_valid(name) {
            return Ok(None);
        }
        let place = self.dir().join(name);
        let path = place.join("opts.json");
        let Some(text) = home::read(&path)? else { return Ok(None) };
        let mut volume: Volume = serde_json::from_slice(&text)
            .map_err(|e| Error::system(e.to_string()).context(path.display().to_string()))?;
        // The home may have been moved.
        name.clone_into(&mut volume.name);
        volume.mountpoint = place.join("_data").to_string_lossy().into_owned();
        Ok(Some(volume))
    }

    /// The volume with this name.
    ///
    /// # Errors
    /// There is none; `opts.json` cannot be read.
    pub fn inspect(&self, name: &str) -> Result<Volume> {
        self.find(name)?.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }

    /// Every volume, by name.
    ///
    /// # Errors
    /// Those of readdir(3), and files that cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.dir()).context(|| format!("open {}", self.dir().display()))? {
            let entry = entry.context(|| format!("read {}", self.dir().display()))?;
            names.extend(entry.file_name().into_string());
        }
        names.sort();
        // What another command removes meanwhile is not there.
        names.iter().filter_map(|name| self.find(name).transpose()).collect()
    }

    /// Removes a volume that no container has; `users` tells which have it. With `force` a missing one is no error.
    ///
    /// # Errors
    /// It is in use, or not there; those of rename(2) and unlink(2).
    pub fn remove(&self, name: &str, force: bool, users: impl Fn(&str) -> Result<Vec<String>>) -> Result<()> {
        let _alone = Lock::exclusive(&self.dir().join(".lock"))?;
        match self.inspect(name) {
            Err(e) if force && e.kind() == Kind::NotFound => return Ok(()),
            other => other?,
        };
        let users = users(name)?;
        if !users.is_empty() {
            let ids = users.join(", ");
            return Err(Error::conflict(format!("remove {name}: volume is in use - [{ids}]")));
        }
        self.discard(name)
    }

    /// Mounts what a volume's options say on its `_data`, unless it is mounted. It stays so for as long as what is returned
    /// is held; nothing is for a volume without options.
    ///
    /// # Errors
    /// Those of mount(2).
    pub fn mount(&self, volume: &Volume) -> Result<Option<Lock>> {
        let option = |name: &str| volume.options.get(name).map_or("", String::as_str);
        if volume.options.is_empty() {
            return Ok(None);
        }
        let used = Lock::shared(&self.users(&volume.name))?;
        let _alone = Lock::exclusive(&self.dir().join(&volume.name).join("lock"))?;
        let data = Path::new(&volume.mountpoint);
        if is_mounted(data)? {
            return Ok(Some(used));
        }
        let (kind, device, given) = (option("type"), option("device"), option("o"));
        let (flags, rest) = flags(given);
        if flags.contains(MountFlags::BIND | MountFlags::REC) && flags != (MountFlags::BIND | MountFlags::REC)
        {
            return Err(Error::invalid(format!(
                "the volume {}: rbind takes no other option, which would not hold below",
                volume.name
            )));
        }
        let doing = || format!("mount the volume {}: {device} as {kind} with {given:?}", volume.name);
        let rest = CString::new(rest).map_err(|_| Error::invalid("an option with a NUL").context(doing()))?;
        mount(device, data, kind, flags, rest.as_c_str()).context(doing)?;
        // The kernel takes no other flag with MS_BIND: `bind,ro` would be writable.
        let others = flags - MountFlags::BIND - MountFlags::REC;
        if flags.contains(MountFlags::BIND) && !others.is_empty() {
            let remounted = mount_remount(data, MountFlags::BIND | others, c"");
            if let Err(e) = remounted {
                let _ = self.detach(&volume.name);
                return Err(Error::from(e).context(doing()));
            }
        }
        Ok(Some(used))
    }

    /// The file that is locked by who relies on the mount and has nothing yet by which others see it.
    fn users(&self, name: &str) -> PathBuf {
        self.dir().join(name).join("users")
    }

    /// Unmounts what [`Volumes::mount`] mounted, unless `used` says that somebody has it. Who is about to is waited for.
    ///
    /// # Errors
    /// Those of umount(2) and of `used`.
    pub fn unmount(&self, volume: &Volume, used: impl FnOnce() -> Result<bool>) -> Result<()> {
        if volume.options.is_empty() || !is_mounted(Path::new(&volume.mountpoint))? {
            return Ok(());
        }
        let _alone = Lock::exclusive(&self.users(&volume.name))?;
        if used()? { Ok(()) } else { self.detach(&volume.name) }
    }

    /// What is not mounted is no error.
    fn detach(&self, name: &str) -> Result<()> {
        let data = self.dir().join(name).join("_data");
        match unmount(&data, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::from(e).context(format!("umount {}", data.display()))),
        }
    }

    fn discard(&self, name: &str) -> Result<()> {
        self.detach(name)?;
        let scratch = self.home.scratch("volume")?;
        let place = self.dir().join(name);
        fs::rename(&place, scratch.path().join("old")).context(|| format!("rename {}", place.display()))?;
        home::remove_tree(&scratch.path().join("old"))
    }

    /// Removes those that no container has: only those that nobody named, unless `all`; only those that `chosen` picks.
    /// Returns their names and how many bytes were in them.
    ///
    /// # Errors
    /// Those of [`Volumes::list`] and [`Volumes::remove`].
    pub fn prune(
        &self,
        all: bool,
        chosen: impl Fn(&Volume) -> bool,
        users: impl Fn(&str) -> Result<Vec<String>>,
    ) -> Result<(Vec<String>, u64)> {
        let _alone = Lock::exclusive(&self.dir().join(".lock"))?;
        let (mut names, mut bytes) = (Vec::new(), 0);
        for volume in self.list()? {
            // One with options has its files somewhere else.
            let spare = !all && !volume.is_anonymous() || !volume.options.is_empty() || !chosen(&volume);
            if spare || !users(&volume.name)?.is_empty() {
                continue;
            }
            bytes += home::size(Path::new(&volume.mountpoint));
            self.discard(&volume.name)?;
            names.push(volume.name);
        }
        Ok((names, bytes))
    }

    /// Whether [`Volumes::fill`] has anything to do, if the image has: the volume is empty, or who filled it was killed.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn wants_filling(&self, volume: &str) -> Result<bool> {
        let place = self.dir().join(volume);
        let data = place.join("_data");
        let mut entries = fs::read_dir(&data).context(|| format!("open {}", data.display()))?;
        Ok(entries.next().is_none() || place.join(FILLING).exists())
    }

    /// Fills an empty volume with what the image has at `path` below `root`, with owners, modes and extended
    /// attributes. Other containers may have the volume: its directory stays what it is, and what is in it appears
    /// once it is whole. Of two that fill it the second one finds it filled.
    ///
    /// # Errors
    /// The image has something else than a directory there; those of copying. Then the volume is as it was.
    pub fn fill(&self, volume: &str, root: impl AsFd, path: &str) -> Result<()> {
        let place = self.dir().join(volume);
        let _alone = Lock::exclusive(&place.join("lock"))?;
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(CWD, path, flags, Mode::empty()).context(|| format!("open {}", path.display()))
        };
        let (data, filling) = (open(&place.join("_data"))?, place.join(FILLING));
        if !self.wants_filling(volume)? {
            return Ok(());
        }
        let doing = || format!("fill the volume {volume} from {path} of the image");
        let Some(from) = fill::directory(root, path).context(doing)? else { return Ok(()) };
        let scratch = self.home.scratch("volume")?;
        let new = scratch.path().join("data");
        make(&new, 0o700)?;
        let new = open(&new)?;
        fill::copy(&from, &new).context(doing)?;
        fs::write(&filling, "").context(|| format!("write {}", filling.display()))?;
        // Names that survive a crash without what is in their files would never be filled again.
        let flush = |dir: &OwnedFd| syncfs(dir).context(|| "syncfs").context(doing);
        flush(&new)?;
        match fill::move_into(&new, &data, &from) {
            // Something is mounted there, as by a driver's options: what a kill leaves there is all that there will be.
            Err(e) if e.errno() == Some(Errno::XDEV) => {
                home::remove_tree(&filling)?;
                fill::copy(&from, &data).context(doing)?;
                flush(&data)
            }
            moved => moved.context(doing).and_then(|()| home::remove_tree(&filling)),
        }
    }
}

fn is_mounted(dir: &Path) -> Result<bool> {
    let stat = statx(CWD, dir, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::empty())
        .context(|| format!("statx {}", dir.display()))?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The words of mount(8) that are flags of mount(2), and the others.
fn flags(options: &str) -> (MountFlags, String) {
    let (mut flags, mut rest) = (MountFlags::empty(), Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "defaults" | "rw" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "bind" => flags |= MountFlags::BIND,
            "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            other => rest.push(other),
        }
    }
    (flags, rest.join(","))
}

fn make(dir: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().mode(mode).create(dir).context(|| format!("mkdir {}", dir.display()))
}

fn now() -> time::OffsetDateTime {
    time::OffsetDateTime::now_utc()
}

fn check(wanted: &CreateVolume) -> Result<()> {
    let name = &wanted.name;
    if name.len() == 1 {
        return Err(Error::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    if !name::is_valid(name) {
        return Err(Error::invalid(format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    if !matches!(wanted.driver.as_str(), "" | "local") {
        let driver = &wanted.driver;
        return Err(Error::not_found(format!(
            "error looking up volume plugin {driver}: plugin {driver:?} not found"
        )));
    }
    let given = |option: &str| wanted.options.contains_key(option);
    for option in wanted.options.keys() {
        let needs: &[&str] = match option.as_str() {
            "type" => &["device"],
            "device" => &["type"],
            "o" => &["device", "type"],
            "size" => return Err(Error::invalid("quota size requested but no quota support")),
            _ => return Err(Error::invalid(format!("invalid option: {option:?}"))),
        };
        if let Some(missing) = needs.iter().find(|needed| !given(needed)) {
            return Err(Error::invalid(format!("missing required option: {missing:?}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            home::remove_tree(&self.0).expect("remove");
        }
    }

    fn volumes() -> (Dir, Volumes) {
        let dir = std::env::temp_dir().join(format!("rrunctl-volume-{}", home::unique().expect("random")));
        let home = Home::open(&dir.join("root"), &dir.join("run")).expect("a home");
        (Dir(dir), Volumes::open(&home))
    }

    fn named(name: &str) -> CreateVolume {
        CreateVolume { name: name.to_owned(), ..CreateVolume::default() }
    }

    fn nobody(_: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    #[test]
    fn a_volume_is_made_once_and_found_again() {
        let (dir, volumes) = volumes();
        let labels = [("a".to_owned(), "b".to_owned())].into_iter().collect();
        let made = volumes.create(CreateVolume { labels, ..named("v9") }).expect("made");
        assert_eq!(volumes.create(named("v9")).expect("found"), made);
        assert_eq!(made.mountpoint, dir.0.join("root/volumes/v9/_data").to_string_lossy());
        assert!(Path::new(&made.mountpoint).is_dir() && made.labels["a"] == "b" && made.options.is_nil());
        let shown = serde_json::to_value(&made).expect("json");
        let keys: Vec<_> = shown.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys.join(" "), "CreatedAt Driver Labels Mountpoint Name Options Scope");
        let unnamed = volumes.create(named("")).expect("made");
        assert!(unnamed.is_anonymous() && unnamed.name.len() == 64);
        assert_eq!(volumes.list().expect("readable").len(), 2);
        assert_eq!(fs::read_dir(dir.0.join("root/tmp")).expect("readable").count(), 0);
    }

    #[test]
    fn a_wrong_volume_is_refused_in_dockers_words() {
        let (_dir, volumes) = volumes();
        let options = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        for (wanted, text) in [
            (
                named("x"),
                "create x: volume name is too short, names should be at least two alphanumeric characters",
            ),
            (
                named("b@d"),
                "create b@d: \"b@d\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute \
                 path",
            ),
            (
                CreateVolume { driver: "nosuch".into(), ..named("v10") },
                "create v10: error looking up volume plugin nosuch: plugin \"nosuch\" not found",
            ),
            (
                CreateVolume { options: options(&[("foo", "bar")]), ..named("v11") },
                "create v11: invalid option: \"foo\"",
            ),
            (
                CreateVolume { options: options(&[("type", "tmpfs")]), ..named("v12") },
                "create v12: missing required option: \"device\"",
            ),
        ] {
            assert_eq!(volumes.create(wanted).expect_err(text).to_string(), text);
        }
        for name in ["nosuch", "..", "a/b"] {
            let e = volumes.inspect(name).expect_err("none");
            assert_eq!((e.to_string(), e.kind()), (format!("get {name}: no such volume"), Kind::NotFound));
        }
        volumes.remove("nosuch", true, nobody).expect("forced");
        assert_eq!(volumes.remove("nosuch", false, nobody).expect_err("none").kind(), Kind::NotFound);
    }

    #[test]
    fn what_a_container_has_is_not_removed() {
        let (_dir, volumes) = volumes();
        volumes.create(named("used")).expect("made");
        let e = volumes.remove("used", true, |_| Ok(vec!["aa".into(), "bb".into()])).expect_err("in use");
        assert_eq!(e.to_string(), "remove used: volume is in use - [aa, bb]");
        assert_eq!(e.kind(), Kind::Conflict);
        volumes.remove("used", false, nobody).expect("nobody has it");
        assert!(volumes.list().expect("readable").is_empty());
    }

    #[test]
    fn prune_takes_what_nobody_named_unless_told_to_take_all() {
        let (_dir, volumes) = volumes();
        let anonymous = volumes.create(named("")).expect("made");
        for name in ["named", "used"] {
            volumes.create(named(name)).expect("made");
        }
        fs::write(Path::new(&anonymous.mountpoint).join("file"), [0; 10]).expect("write");
        let users = |name: &str| Ok(if name == "used" { vec!["x".to_owned()] } else { vec![] });
        assert_eq!(volumes.prune(false, |_| true, users).expect("pruned"), (vec![anonymous.name], 10));
        assert_eq!(volumes.prune(true, |_| false, users).expect("pruned").0, Vec::<String>::new());
        assert_eq!(volumes.prune(true, |_| true, users).expect("pruned").0, ["named"]);
    }

    /// An image with all that a tree can have, and something outside that must not be reached.
    fn image(dir: &Path) -> File {
        let root = dir.join("image");
        DirBuilder::new().recursive(true).create(root.join("data/sub")).expect("mkdir");
        fs::write(root.join("data/file"), "text").expect("write");
        fs::hard_link(root.join("data/file"), root.join("data/sub/again")).expect("link");
        symlink("/etc/passwd", root.join("data/link")).expect("symlink");
        symlink("../../../../data", root.join("out")).expect("symlink");
        fs::create_dir(dir.join("data")).expect("mkdir");
        fs::write(dir.join("data/secret"), "").expect("write");
        fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o2750)).expect("chmod");
        fs::set_permissions(root.join("data/file"), fs::Permissions::from_mode(0o4711)).expect("chmod");
        rustix::fs::setxattr(root.join("data/file"), "user.a", b"1", rustix::fs::XattrFlags::empty())
            .expect("setxattr");
        rustix::fs::mknodat(CWD, root.join("data/fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .expect("mkfifo");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(root.join("data/file"), Some(1000), Some(1001)).expect("chown");
            fs::set_permissions(root.join("data/file"), fs::Permissions::from_mode(0o4711)).expect("chmod");
        } else {
            eprintln!("not root: owners are not tried");
        }
        File::open(root).expect("open")
    }

    #[test]
    fn an_empty_volume_is_filled_from_the_image() {
        let (dir, volumes) = volumes();
        let root = image(&dir.0);
        let data = PathBuf::from(volumes.create(named("v1")).expect("made").mountpoint);
        volumes.fill("v1", &root, "/data").expect("filled");
        assert_eq!(fs::read_to_string(data.join("file")).expect("copied"), "text");
        let (copy, from) = (data.join("file"), dir.0.join("image/data/file"));
        let (copy, from) = (fs::metadata(copy).expect("stat"), fs::metadata(from).expect("stat"));
        assert_eq!(
            (copy.mode(), copy.uid(), copy.gid(), copy.mtime(), copy.mtime_nsec()),
            (from.mode(), from.uid(), from.gid(), from.mtime(), from.mtime_nsec())
        );
        assert_eq!(copy.ino(), fs::metadata(data.join("sub/again")).expect("stat").ino());
        assert_eq!(fs::metadata(&data).expect("stat").mode() & 0o7777, 0o2750);
        assert_eq!(fs::read_link(data.join("link")).expect("a link"), Path::new("/etc/passwd"));
        let mut value = [0; 8];
        assert_eq!(rustix::fs::getxattr(data.join("file"), "user.a", &mut value), Ok(1));
        assert!(fs::symlink_metadata(data.join("fifo")).is_ok());
    }

    #[test]
    fn of_two_that_fill_a_volume_the_second_one_finds_it_filled() {
        let (dir, volumes) = volumes();
        let root = image(&dir.0);
        let data = PathBuf::from(volumes.create(named("v1")).expect("made").mountpoint);
        let names = || -> Vec<_> {
            fs::read_dir(&data).expect("readable").flatten().map(|entry| entry.file_name()).collect()
        };
        let first = Lock::exclusive(&data.with_file_name("lock")).expect("lock");
        std::thread::scope(|scope| {
            let second = scope.spawn(|| volumes.fill("v1", &root, "/data"));
            let until = std::time::Instant::now() + std::time::Duration::from_millis(300);
            while std::time::Instant::now() < until && !second.is_finished() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let early = names();
            fs::write(data.join("first"), "").expect("write");
            drop(first);
            second.join().expect("no panic").expect("nothing to do");
            assert!(early.is_empty() && names() == ["first"], "{early:?} {:?}", names());
        });
    }

    #[test]
    fn a_volume_stays_the_directory_that_others_have_mounted() {
        let (dir, volumes) = volumes();
        let root = image(&dir.0);
        let data = PathBuf::from(volumes.create(named("v1")).expect("made").mountpoint);
        let before = fs::metadata(&data).expect("stat").ino();
        volumes.fill("v1", &root, "/data").expect("filled");
        assert_eq!(fs::metadata(&data).expect("stat").ino(), before);
    }

    #[test]
    fn a_filling_that_was_killed_is_gone_on_with() {
        let (dir, volumes) = volumes();
        let root = image(&dir.0);
        let data = PathBuf::from(volumes.create(named("v1")).expect("made").mountpoint);
        fs::write(data.join("file"), "a container's").expect("write");
        fs::write(data.join("..").join(FILLING), "").expect("write");
        for wants in [true, false] {
            assert_eq!(volumes.wants_filling("v1").expect("readable"), wants);
            volumes.fill("v1", &root, "/data").expect("filled");
            assert_eq!(fs::read_to_string(data.join("file")).expect("there"), "a container's");
            assert_eq!(fs::read_dir(&data).expect("readable").count(), 4);
            assert_eq!(fs::metadata(&data).expect("stat").mode() & 0o7777, 0o2750);
        }
        assert!(!data.join("..").join(FILLING).exists());
    }

    #[test]
    fn a_volume_with_something_in_it_stays_as_it_is() {
        let (dir, volumes) = volumes();
        let root = image(&dir.0);
        let data = PathBuf::from(volumes.create(named("v1")).expect("made").mountpoint);
        fs::write(data.join("mine"), "").expect("write");
        volumes.fill("v1", &root, "/data").expect("nothing to do");
        assert_eq!(fs::read_dir(&data).expect("readable").count(), 1);
    }

    #[test]
    fn filling_does_not_lead_out_of_the_image() {
        let (dir, volumes) = volumes();
        let root = image(&dir.0);
        let data = PathBuf::from(volumes.create(named("v1")).expect("made").mountpoint);
        volumes.fill("v1", &root, "/nonexistent/x").expect("nothing there");
        let e = volumes.fill("v1", &root, "/data/file").expect_err("a file").to_string();
        assert!(e.ends_with("cannot mount volume over existing file, file exists /data/file"), "{e}");
        volumes.fill("v1", &root, "/out").expect("the image's own /data");
        assert!(data.join("file").exists() && !data.join("secret").exists());
    }
}
