//! A store of its own for a test, images to put in it, and what holds for the store as a whole.

use super::{Filter, Removed, Store, User, layers};
use crate::digest::Digest;
use crate::error::{Kind, Result};
use crate::home::{self, Home};
use crate::image::{self, Image, ImageConfig, Manifest, media_type};
use crate::reference::Reference;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

/// Removed with all that is in it.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) home: Home,
    pub(crate) store: Store,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("rrunctl-{name}-{}", home::unique().expect("random")));
        let home = Home::open(&dir.join("root"), &dir.join("run")).expect("a home");
        let store = Store::open(&home).expect("a store");
        Self { dir, home, store }
    }

    /// An image of these tars and whatever else is in `config`, each a second younger than the one before.
    pub(crate) fn image(&self, layers: &[Vec<u8>], config: Value, names: &[&str]) -> Image {
        self.try_image(layers, config, names).expect("an image")
    }

    pub(crate) fn try_image(&self, layers: &[Vec<u8>], config: Value, names: &[&str]) -> Result<Image> {
        static SECOND: AtomicI64 = AtomicI64::new(1_000_000_000);
        let created = time::OffsetDateTime::from_unix_timestamp(SECOND.fetch_add(1, Ordering::Relaxed));
        let created = created.expect("in range").format(&time::format_description::well_known::Rfc3339);
        let _hold = self.store.hold()?;
        let (mut diff_ids, mut blobs) = (Vec::new(), Vec::new());
        for layer in layers {
            let packed = gzip(layer);
            blobs.push(json!({"mediaType": media_type::LAYER_GZIP, "size": packed.len(), "digest": Digest::of(&packed)}));
            self.store.blobs().put(&packed)?;
            diff_ids.push(self.store.layers().unpack(&packed[..], None, |_| {})?.0);
        }
        let mut json = json!({"architecture": "amd64", "os": "linux", "created": created.expect("a time"),
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        json.as_object_mut().expect("an object").extend(config.as_object().cloned().unwrap_or_default());
        let config = json.to_string().into_bytes();
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "layers": blobs,
            "config": {"mediaType": media_type::CONFIG, "size": config.len(), "digest": Digest::of(&config)}});
        let names: Vec<_> = names.iter().map(|name| Reference::parse(name).expect("a name")).collect();
        self.store.images().install(manifest.to_string().as_bytes(), media_type::MANIFEST, &config, &names)
    }

    /// How many blobs and trees of layers there are.
    pub(crate) fn count(&self) -> (usize, usize) {
        let count = |dir: &str| fs::read_dir(self.home.kept(dir)).expect("readdir").count();
        (count("blobs/sha256"), count("layers"))
    }

    /// Every image and every name that is visible has all that belongs to it; returns what that is.
    pub(crate) fn assert_visible_is_whole(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut blobs, mut trees) = (BTreeSet::new(), BTreeSet::new());
        for image in self.store.images().list().expect("every image is read") {
            let read = |digest: &Digest| self.store.blobs().read(digest, 1 << 30).expect("a blob");
            ImageConfig::parse(&read(&image.id)).expect("a configuration");
            let manifest = Manifest::parse(&read(&image.manifest.digest)).expect("a manifest");
            assert_eq!(manifest.layers.len(), image.layers.len());
            blobs.extend([image.id.hex(), image.manifest.digest.hex()]);
            let lower = self.store.layers().lower(&image).expect("layers");
            for (layer, tree) in image.layers.iter().rev().zip(lower) {
                read(&layer.blob);
                blobs.insert(layer.blob.hex());
                assert_eq!(home::size(&tree), self.store.layers().size(&layer.diff_id));
                let name = tree.parent().and_then(Path::file_name).expect("a layer");
                trees.extend([layer.diff_id.hex(), name.to_str().expect("text").to_owned()]);
            }
        }
        for id in self.store.images().references().expect("names").values() {
            self.store.images().get(id).expect("the image of a name");
        }
        (blobs, trees)
    }

    /// And nothing else is there, and nothing is being made.
    pub(crate) fn assert_whole(&self) {
        let (blobs, trees) = self.assert_visible_is_whole();
        assert_eq!(self.count(), (blobs.len(), trees.len()));
        assert_eq!(fs::read_dir(self.home.kept("tmp")).expect("readdir").count(), 0);
        for dir in ["refs", "images"] {
            for entry in fs::read_dir(self.home.kept(dir)).expect("readdir") {
                assert!(!entry.expect("an entry").file_name().to_string_lossy().starts_with('.'));
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        home::remove_tree(&self.dir).expect("remove");
    }
}

/// A tar of files with their modes; a path that ends with `/` is a directory.
pub(crate) fn tar(entries: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if path.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).expect("a vector takes everything");
    }
    tar.into_inner().expect("a vector takes everything")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("a vector takes everything");
    gzip.finish().expect("a vector takes everything")
}

pub(crate) fn nobody(_: &Digest) -> Result<Vec<User>> {
    Ok(Vec::new())
}

fn user(id: &str, running: bool) -> Result<Vec<User>> {
    Ok(vec![User { id: id.repeat(64), running, image: "x".to_owned() }])
}

fn lines(removed: &[Removed]) -> Vec<String> {
    removed.iter().map(Removed::to_string).collect()
}

#[test]
fn an_image_is_found_by_name_digest_and_id_in_long_and_short() {
    let place = Place::new("resolve");
    let images = place.store.images();
    let layer = tar(&[("a", 0o644, "a")]);
    let image = place.image(&[layer], json!({}), &["busybox", "h.io/x:1"]);
    let by_digest = format!("busybox@{}", image.manifest.digest);
    images.tag(&Reference::parse(&by_digest).expect("a name"), &image).expect("tag");
    for text in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "h.io/x:1",
        &by_digest,
        &image.id.to_string(),
        &image.id.hex(),
        &image.id.short(),
        &image.id.hex()[..1],
        &format!("sha256:{}", image.id.short()),
        &image.manifest.digest.to_string(),
    ] {
        assert_eq!(images.resolve(text).expect(text), image, "{text}");
    }
    for (text, why) in [
        ("alpine", "No such image: alpine:latest"),
        ("busybox:2", "No such image: busybox:2"),
        ("h.io/x", "No such image: h.io/x:latest"),
        ("BusyBox", "invalid reference format: repository name (library/BusyBox) must be lowercase"),
        (&format!("{}0", image.id.hex()), "No such image:"),
        (&"0".repeat(64), "No such image: sha256:0000"),
    ] {
        let e = images.resolve(text).expect_err(text).to_string();
        assert!(e.starts_with(why), "{text}: {e}");
    }
    let names: Vec<_> =
        images.references_of(&image.id).expect("names").iter().map(Reference::familiar).collect();
    assert_eq!(names, ["busybox:latest", &by_digest, "h.io/x:1"]);
}

#[test]
fn a_layer_that_an_image_has_twice_is_one_lower_directory_at_its_topmost_place() {
    let place = Place::new("twice");
    let (base, empty) = (tar(&[("./", 0o755, ""), ("a", 0o644, "a")]), tar(&[("./", 0o755, "")]));
    let top = tar(&[("./", 0o755, ""), ("b", 0o644, "b")]);
    let image = place.image(&[base.clone(), empty.clone(), top.clone(), empty.clone()], json!({}), &["a"]);
    let trees = [&empty, &top, &base].map(|layer| place.store.layers().tree(&Digest::of(layer)));
    let trees: Vec<PathBuf> = trees.into_iter().map(|tree| tree.expect("it is unpacked")).collect();
    assert_eq!(image.layers.len(), 4);
    assert_eq!(place.store.layers().lower(&image).expect("layers"), trees);
}

#[test]
fn a_name_goes_before_an_id_and_an_ambiguous_id_is_an_error() {
    let place = Place::new("ambiguous");
    let images = place.store.images();
    let mut all: Vec<Image> = (0..17).map(|n| place.image(&[], json!({"n": n}), &[])).collect();
    all.sort_by_key(|image| image.id);
    let same = all.windows(2).find(|pair| pair[0].id.hex()[..1] == pair[1].id.hex()[..1]);
    let same = same.expect("17 ids begin with 16 digits");
    let text = &same[0].id.hex()[..1];
    let e = images.resolve(text).expect_err("ambiguous");
    assert!(e.kind() == Kind::Invalid && e.to_string().contains("is ambiguous"), "{e}");
    let name = Reference::parse(text).expect("a name");
    images.tag(&name, &all[16]).expect("tag");
    assert_eq!(images.resolve(text).expect("a name").id, all[16].id);
    let removed = images.remove(text, false, true, &nobody).expect("untag");
    assert_eq!(lines(&removed)[0], format!("Untagged: {text}:latest"));
}

#[test]
fn an_image_whose_parts_are_missing_or_do_not_fit_is_not_installed() {
    let place = Place::new("parts");
    let images = place.store.images();
    let layer = gzip(&tar(&[("a", 0o644, "a")]));
    let (diff_id, _) = place.store.layers().unpack(&layer[..], None, |_| {}).expect("unpack");
    let install = |layers: Value, diff_ids: Value| {
        let config = json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string();
        let manifest = json!({"layers": layers,
            "config": {"digest": Digest::of(config.as_bytes()), "size": config.len()}});
        images.install(manifest.to_string().as_bytes(), media_type::MANIFEST, config.as_bytes(), &[])
    };
    let blob = json!({"digest": Digest::of(&layer), "size": layer.len()});
    let e = install(json!([blob]), json!([diff_id])).expect_err("no blob").to_string();
    assert!(e.contains("no bytes are here"), "{e}");
    place.store.blobs().put(&layer).expect("put");
    let e = install(json!([blob]), json!([])).expect_err("too few").to_string();
    assert!(e.contains("0 layers and its manifest 1"), "{e}");
    let e = install(json!([{"digest": Digest::of(&layer), "size": 1}]), json!([diff_id])).expect_err("size");
    assert!(e.to_string().contains("the manifest says 1"), "{e}");
    let other = Digest::of(b"another");
    let e = install(json!([blob]), json!([other])).expect_err("not unpacked").to_string();
    assert!(e.contains(&format!("layer {other} is not here")), "{e}");
    let e = images.install(b"{\"config\":{\"digest\":\"sha256:00\"}}", "", b"{}", &[]).expect_err("broken");
    assert_eq!(e.kind(), Kind::Invalid);
    assert_eq!(images.list().expect("list"), []);
    install(json!([blob]), json!([diff_id])).expect("whole");
}

#[test]
fn a_layer_is_published_only_if_it_is_what_the_configuration_says() {
    let place = Place::new("verify");
    let bytes = tar(&[("d/", 0o755, ""), ("d/f", 0o644, "content")]);
    let layers = place.store.layers();
    let other = Digest::of(b"other");
    let e = layers.unpack(&gzip(&bytes)[..], Some(&other), |_| {}).expect_err("another").to_string();
    assert!(e.contains(&other.to_string()), "{e}");
    let cut = gzip(&bytes);
    layers.unpack(&cut[..cut.len() - 9], None, |_| {}).expect_err("cut off");
    assert_eq!(place.count(), (0, 0));
    assert_eq!(fs::read_dir(place.home.kept("tmp")).expect("readdir").count(), 0);

    let mut told = Vec::new();
    let packed = gzip(&bytes);
    let (diff_id, size) = layers.unpack(&packed[..], None, |done| told.push(done)).expect("unpack");
    assert_eq!((diff_id, size, told.last()), (Digest::of(&bytes), 7, Some(&(packed.len() as u64))));
    let tree = layers.tree(&diff_id).expect("published");
    assert_eq!(fs::read(tree.join("d/f")).expect("read"), b"content");
    layers.unpack(&bytes[..], Some(&diff_id), |_| {}).expect("the same again, not compressed");
    assert_eq!((place.count().1, layers.size(&diff_id)), (1, 7));
}

#[test]
fn what_lacks_its_directory_has_it_as_the_layer_below_in_each_stack() {
    let place = Place::new("implied");
    let tmp = tar(&[("./", 0o755, ""), ("tmp/", 0o1777, "")]);
    let plain = tar(&[("./", 0o755, ""), ("tmp/", 0o755, ""), ("x", 0o644, "")]);
    let file = tar(&[("tmp/file", 0o644, "file")]);
    let mode = |tree: &PathBuf| fs::metadata(tree.join("tmp")).expect("stat").permissions().mode() & 0o7777;

    let on_plain = place.image(&[plain, file.clone()], json!({}), &["plain"]);
    let on_tmp = place.image(&[tmp, file.clone()], json!({}), &["tmp"]);
    let alone = place.image(&[file], json!({}), &["alone"]);
    let lower = |image| place.store.layers().lower(image).expect("layers");
    assert_eq!(mode(&lower(&on_tmp)[0]), 0o1777);
    assert_eq!(fs::read(lower(&on_tmp)[0].join("tmp/file")).expect("read"), b"file");
    assert_eq!(mode(&lower(&on_plain)[0]), 0o755);
    // Where nothing differs there is one tree for both.
    assert_eq!(lower(&on_plain)[0], lower(&alone)[0]);
    assert_ne!(lower(&on_tmp)[0], lower(&alone)[0]);
    place.assert_whole();
    place.store.images().remove("tmp", false, true, &nobody).expect("remove");
    place.assert_whole();
    assert_eq!(place.count().1, 2);
}

#[test]
fn a_hard_link_to_a_lower_layer_is_a_file_in_each_stack() {
    let place = Place::new("links");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    builder.append_link(&mut header, "link", "file").expect("a vector takes everything");
    let link = builder.into_inner().expect("a vector takes everything");
    for text in ["one", "two"] {
        let image = place.image(&[tar(&[("file", 0o640, text)]), link.clone()], json!({}), &[text]);
        let top = &place.store.layers().lower(&image).expect("layers")[0];
        assert_eq!(fs::read_to_string(top.join("link")).expect("read"), text);
    }
    for below in [vec![tar(&[("other", 0o640, "")])], vec![]] {
        let layers = [below, vec![link.clone()]].concat();
        let e = place.try_image(&layers, json!({}), &[]).expect_err("to nothing");
        assert!(e.to_string().contains("is in no layer"), "{e}");
    }
}

#[test]
fn a_layer_that_hides_all_below_does_so_in_each_stack() {
    let place = Place::new("opaque");
    let hides = tar(&[(".wh..wh..opq", 0o600, ""), ("new", 0o600, "")]);
    for below in ["one", "two"] {
        let image = place.image(&[tar(&[(below, 0o600, "")]), hides.clone()], json!({}), &[below]);
        let top = &place.store.layers().lower(&image).expect("layers")[0];
        let hidden = fs::symlink_metadata(top.join(below)).expect("a whiteout");
        assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    }
}

#[test]
fn names_keep_the_manifest_that_they_came_with() {
    let place = Place::new("variants");
    let images = place.store.images();
    let first = place.image(&[], json!({"same": true, "created": "2020-01-01T00:00:00Z"}), &["a"]);
    let config = place.store.blobs().read(&first.id, 1 << 20).expect("config");
    let manifest = json!({"schemaVersion": 2, "layers": [], "annotations": {"x": "y"},
        "config": {"mediaType": "x", "size": config.len(), "digest": first.id}});
    let name = Reference::parse("b").expect("a name");
    let second = images
        .install(manifest.to_string().as_bytes(), media_type::MANIFEST, &config, &[name])
        .expect("install");
    assert_eq!(first.id, second.id);
    assert_eq!(images.resolve("a").expect("a").manifest, first.manifest);
    assert_eq!(images.resolve("b").expect("b").manifest, second.manifest);
    assert_eq!(images.get(&first.id).expect("by id").manifest, second.manifest);
    images.tag(&Reference::parse("c").expect("a name"), &images.resolve("a").expect("a")).expect("tag");
    place.store.collect().expect("collect");
    assert_eq!(images.resolve("c").expect("c").manifest, first.manifest);
    assert!(place.store.blobs().read(&first.manifest.digest, 1 << 20).is_ok());
    assert_eq!(images.list().expect("list").len(), 1);
}

#[test]
fn the_longest_names_are_names_of_files_too() {
    let place = Place::new("long");
    let image = place.image(&[], json!({}), &[]);
    let long = |end: &str| format!("h.io/{}/{}:{}{end}", "a".repeat(100), "b".repeat(100), "t".repeat(127));
    for end in ["x", "y"] {
        let name = Reference::parse(&long(end)).expect("a name");
        place.store.images().tag(&name, &image).expect("tag");
    }
    let names = place.store.images().references_of(&image.id).expect("names");
    assert_eq!(names.iter().map(Reference::familiar).collect::<Vec<_>>(), [long("x"), long("y")]);
    assert!(
        place.store.images().untag(&names[0]).expect("untag")
            && !place.store.images().untag(&names[0]).expect("untag")
    );
    assert_eq!(place.store.images().references_of(&image.id).expect("names").len(), 1);
}

#[test]
fn the_last_name_takes_the_image_with_it_and_shared_layers_stay() {
    let place = Place::new("remove");
    let images = place.store.images();
    let (base, top) = (tar(&[("a", 0o644, "a")]), tar(&[("b", 0o644, "b")]));
    let chain = layers::chain(&[Digest::of(&base), Digest::of(&top)]);
    let one = place.image(std::slice::from_ref(&base), json!({}), &["one"]);
    let two = place.image(&[base, top], json!({}), &["two:1", "two:2"]);
    let digest = format!("two@{}", two.manifest.digest);
    images.tag(&Reference::parse(&digest).expect("a name"), &two).expect("tag");

    let removed = images.remove("two:1", false, true, &nobody).expect("untag");
    assert_eq!(lines(&removed), ["Untagged: two:1"]);
    let removed = images.remove("two:2", false, true, &nobody).expect("remove");
    let deleted = [two.id, chain[1]].map(|digest| format!("Deleted: {digest}"));
    assert_eq!(
        lines(&removed),
        ["Untagged: two:2", &format!("Untagged: {digest}"), &deleted[0], &deleted[1]]
    );
    assert!(images.resolve("two:2").is_err() && images.get(&two.id).is_err());
    place.assert_whole();
    assert_eq!(place.count(), (3, 1));

    let removed = images.remove(&one.id.short(), false, true, &nobody).expect("remove");
    assert_eq!(
        lines(&removed),
        ["Untagged: one:latest", &format!("Deleted: {}", one.id), &format!("Deleted: {}", chain[0])]
    );
    assert_eq!(place.count(), (0, 0));
    let e = images.remove("one", false, true, &nobody).expect_err("gone");
    assert_eq!((e.kind(), &*e.to_string()), (Kind::NotFound, "No such image: one:latest"));
}

#[test]
fn what_dockers_rmi_refuses_is_refused_in_its_words() {
    let place = Place::new("conflict");
    let images = place.store.images();
    let image = place.image(&[tar(&[("a", 0o644, "a")])], json!({}), &["a:1", "b:1"]);
    let (id, short) = (image.id.to_string(), image.id.short());
    let running = |_: &Digest| user("c", true);
    let stopped = |_: &Digest| user("d", false);
    let refused = |text: &str, force: bool, users: super::Users<'_>| {
        let e = images.remove(text, force, true, users).expect_err(text);
        assert_eq!(e.kind(), Kind::Conflict);
        e.to_string()
    };

    let several = format!(
        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    );
    assert_eq!(refused(&id, false, &nobody), several);
    let runs = format!(
        "conflict: unable to delete {short} (cannot be forced) - image is being used by running container cccccccccccc"
    );
    assert_eq!(refused(&id, true, &running), runs);
    // With several names, one may go whoever uses the image.
    assert_eq!(lines(&images.remove("b:1", false, true, &running).expect("untag")), ["Untagged: b:1"]);
    assert_eq!(
        refused("a:1", false, &stopped),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container dddddddddddd is using its referenced image {short}"
        )
    );
    let uses = format!(
        "conflict: unable to delete {short} (must be forced) - image is being used by stopped container dddddddddddd"
    );
    assert_eq!(refused(&id, false, &stopped), uses);

    // By force the name goes, and what a running container has stays without one.
    assert_eq!(lines(&images.remove("a:1", true, true, &running).expect("untag")), ["Untagged: a:1"]);
    assert_eq!(
        images.find(&Filter { dangling: Some(true), ..Filter::default() }).expect("find"),
        [images.get(&image.id).expect("kept")]
    );
    images.tag(&Reference::parse("again").expect("a name"), &image).expect("tag by id");
    assert_eq!(images.resolve("again").expect("again").id, image.id);
}

#[test]
fn a_stopped_containers_layers_stay_until_it_is_gone() {
    let place = Place::new("gone");
    let images = place.store.images();
    let image = place.image(&[tar(&[("a", 0o644, "a")])], json!({}), &["a"]);
    let removed = images.remove("a", true, true, &|_| user("d", false)).expect("by force");
    assert_eq!(lines(&removed), ["Untagged: a:latest", &format!("Deleted: {}", image.id)]);
    assert_eq!(images.of_container(&image.id).expect("its own"), image);
    assert!(images.list().expect("list").is_empty() && images.resolve(&image.id.hex()).is_err());
    assert!(place.store.layers().lower(&image).is_ok());
    images.prune(true, &Filter::default(), &|_| user("d", false)).expect("prune");
    assert!(place.store.layers().lower(&image).is_ok());
    images.prune(true, &Filter::default(), &nobody).expect("prune");
    assert_eq!(place.count(), (0, 0));
    assert_eq!(fs::read_dir(place.home.kept("images")).expect("readdir").count(), 0);
}

#[test]
fn prune_takes_what_has_no_name_and_with_all_what_nobody_has() {
    let place = Place::new("prune");
    let images = place.store.images();
    let layer = |text: &str| vec![tar(&[("f", 0o644, text)])];
    let named = place.image(&layer("named"), json!({}), &["named"]);
    let used = place.image(&layer("used"), json!({}), &["used"]);
    let dangling = place.image(&layer("dangling"), json!({"config": {"Labels": {"keep": "1"}}}), &["named2"]);
    images.untag(&Reference::parse("named2").expect("a name")).expect("untag");
    let users = |id: &Digest| if *id == used.id { user("u", false) } else { nobody(id) };

    let keep = Filter { without_labels: vec!["keep=1".into()], ..Filter::default() };
    assert_eq!(images.prune(false, &keep, &users).expect("prune").0, []);
    fs::create_dir(place.home.kept("tmp/layer.killed")).expect("mkdir");
    let (removed, freed) = images.prune(false, &Filter::default(), &users).expect("prune");
    assert_eq!(removed[0], Removed::Deleted(dangling.id));
    assert!(freed > 8 && images.list().expect("list").len() == 2);
    place.assert_whole();
    let (removed, _) = images.prune(true, &Filter::default(), &users).expect("prune");
    assert_eq!(lines(&removed)[..2], ["Untagged: named:latest".to_owned(), format!("Deleted: {}", named.id)]);
    assert_eq!(images.list().expect("list"), [used]);
    place.assert_whole();
}

#[test]
fn images_are_filtered() {
    let place = Place::new("filter");
    let images = place.store.images();
    let old = place.image(&[], json!({"config": {"Labels": {"a": "1"}}}), &["h.io/old:1"]);
    let new = place.image(&[], json!({"config": {"Labels": {"a": "2", "b": ""}}}), &["new"]);
    let found =
        |filter: Filter| images.find(&filter).expect("find").iter().map(|image| image.id).collect::<Vec<_>>();
    let base = Filter::default;
    assert_eq!(found(base()), [new.id, old.id]);
    assert_eq!(found(Filter { labels: vec!["a".into(), "b".into()], ..base() }), [new.id]);
    assert_eq!(found(Filter { labels: vec!["a=1".into()], ..base() }), [old.id]);
    assert_eq!(found(Filter { without_labels: vec!["a=1".into()], ..base() }), [new.id]);
    assert_eq!(found(Filter { before: Some("new".into()), ..base() }), [old.id]);
    assert_eq!(found(Filter { since: Some(old.id.short()), ..base() }), [new.id]);
    assert_eq!(found(Filter { until: Some(new.created), ..base() }), [old.id]);
    assert_eq!(found(Filter { reference: vec!["x".into(), "h.io/*".into()], ..base() }), [old.id]);
    assert_eq!(found(Filter { dangling: Some(true), ..base() }), []);
    assert!(images.find(&Filter { since: Some("nope".into()), ..base() }).is_err());
}

#[test]
fn nothing_is_removed_that_somebody_holds_and_the_last_removes_it() {
    let place = Place::new("hold");
    let hold = place.store.hold().expect("hold");
    let second = place.store.hold().expect("hold");
    let blob = place.store.blobs().put(b"being pulled").expect("put");
    let image = place.image(&[tar(&[("a", 0o644, "a")])], json!({}), &["a"]);
    place.store.images().remove("a", false, true, &nobody).expect("remove");
    assert!(place.store.images().list().expect("list").is_empty());
    assert!(place.store.blobs().size(&blob).expect("stat").is_some());
    assert!(place.store.layers().tree(&image.layers[0].diff_id).is_some());
    drop(hold);
    assert_eq!(place.count(), (4, 1));
    drop(second);
    assert_eq!(place.count(), (0, 0));
    // Who held it for nothing leaves what others may use again.
    place.store.blobs().put(b"pulled in part").expect("put");
    drop(place.store.hold().expect("hold"));
    assert_eq!(place.count(), (1, 0));
}

#[test]
fn after_a_boot_what_no_image_has_is_removed() {
    let place = Place::new("boot");
    let image = place.image(&[tar(&[("a", 0o644, "a")])], json!({}), &["a"]);
    place.store.blobs().put(b"pulled in part").expect("put");
    place.store.layers().unpack(&tar(&[("b", 0o644, "b")])[..], None, |_| {}).expect("unpack");
    fs::create_dir(place.home.kept("tmp/layer.killed")).expect("mkdir");
    fs::write(place.home.kept("refs/.0123"), b"half a na").expect("write");
    Store::open(&place.home).expect("the same boot");
    assert_eq!(place.count(), (4, 2));
    fs::write(place.home.run().join("store"), b"the boot before").expect("write");
    Store::open(&place.home).expect("after a boot");
    place.assert_whole();
    assert_eq!(place.store.images().list().expect("list"), [image]);
}

#[test]
fn a_name_is_not_given_to_an_image_that_was_removed_meanwhile() {
    let place = Place::new("late");
    let image = place.image(&[], json!({}), &["a"]);
    place.store.images().remove("a", false, true, &nobody).expect("remove");
    let e = place.store.images().tag(&Reference::parse("b").expect("a name"), &image).expect_err("gone");
    assert_eq!((e.kind(), e.to_string()), (Kind::NotFound, format!("No such image: {}", image.id)));
    assert!(place.store.images().references().expect("names").is_empty());
}

/// What is loaded and killed: an image of three layers, under two names.
fn archive_to_kill() -> Vec<u8> {
    let noise = |n: usize| -> String {
        (0..20_000_usize).map(|k| char::from(b'a' + (k * k * (n + 7) % 23) as u8)).collect()
    };
    let place = Place::new("to-kill");
    let layer = |n: usize| {
        let files: Vec<(String, String)> =
            (0..20).map(|k| (format!("d{n}/f{k}"), noise(n * 20 + k))).collect();
        tar(&files.iter().map(|(path, text)| (&**path, 0o644, &**text)).collect::<Vec<_>>())
    };
    place.image(&[layer(0), layer(1), layer(2)], json!({}), &["killed:1", "killed:2"]);
    let mut bytes = Vec::new();
    image::save(&place.store, &["killed".to_owned()], &mut bytes).expect("save");
    bytes
}

#[test]
#[ignore = "the child of the test below"]
fn a_child_loads_until_it_is_killed() {
    let Some(dir) = std::env::var_os("RRUNCTL_TEST_LOAD").map(PathBuf::from) else { return };
    let home = Home::open(&dir.join("root"), &dir.join("run")).expect("a home");
    let store = Store::open(&home).expect("a store");
    let archive = fs::File::open(dir.join("archive.tar")).expect("the archive");
    image::load(&store, archive, &|_| {}).expect("load");
}

#[test]
fn a_load_that_is_killed_at_any_instant_leaves_what_is_whole_and_nothing_that_prune_does_not_find() {
    let place = Place::new("kill");
    fs::write(place.dir.join("archive.tar"), archive_to_kill()).expect("write");
    let start = || {
        Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "store::tests::a_child_loads_until_it_is_killed", "--ignored"])
            .env("RRUNCTL_TEST_LOAD", &place.dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child")
    };
    let began = Instant::now();
    assert!(start().wait().expect("wait").success());
    let whole = began.elapsed();
    let mut cut = 0;
    for n in 0..30 {
        place.store.images().prune(true, &Filter::default(), &nobody).expect("prune");
        assert_eq!(place.count(), (0, 0));
        let mut child = start();
        // From just before the first instant to just before the last, in no order.
        std::thread::sleep(whole * (n * 7 % 30 + 1) / 31);
        child.kill().expect("kill");
        child.wait().expect("wait");
        place.assert_visible_is_whole();
        // What is not visible yet is what it is called all the same.
        for entry in fs::read_dir(place.store.blobs().dir()).expect("readdir") {
            let path = entry.expect("an entry").path();
            let digest = Digest::of(&fs::read(&path).expect("read"));
            assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(&*digest.hex()));
        }
        cut += u32::from(place.count() != (0, 0) && place.store.images().list().expect("list").is_empty());
        place.home.sweep().expect("sweep");
        place.store.images().prune(false, &Filter::default(), &nobody).expect("prune");
        place.assert_whole();
    }
    assert!(cut > 0, "no load was killed on its way");
    assert!(start().wait().expect("wait").success());
    assert_eq!(place.store.images().references().expect("names").len(), 2);
    place.assert_whole();
}

#[test]
fn a_load_and_a_prune_at_once_do_not_disturb_each_other() {
    let place = Place::new("race");
    let archive = archive_to_kill();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Without an end it could have the locks all the time: flock(2) is not fair.
            for _ in (0..50).take_while(|_| !done.load(Ordering::Relaxed)) {
                place.store.images().prune(false, &Filter::default(), &nobody).expect("prune");
            }
        });
        for _ in 0..6 {
            image::load(&place.store, &archive[..], &|_| {}).expect("load");
            place.assert_visible_is_whole();
            for name in ["killed:1", "killed:2"] {
                place.store.images().remove(name, false, true, &nobody).expect("remove");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    place.store.images().prune(false, &Filter::default(), &nobody).expect("prune");
    assert_eq!(place.count(), (0, 0));
}

/// Runs `meanwhile` while somebody removes what no image has, after it has seen which images there are.
fn while_collecting(place: &Place, meanwhile: impl FnOnce()) {
    let orphan = Digest::of(b"orphan");
    fs::create_dir(place.home.kept("layers").join(orphan.hex())).expect("mkdir");
    std::thread::scope(|scope| {
        // It looks at the images beside us, and waits for us with what it does last.
        let keep = place.store.images().keep().expect("lock");
        let collecting = scope.spawn(|| place.store.collect().expect("collect"));
        while place.home.kept("layers").join(orphan.hex()).exists() {
            assert!(!collecting.is_finished(), "it has removed nothing");
            std::thread::yield_now();
        }
        meanwhile();
        drop(keep);
        collecting.join().expect("nobody panicked");
    });
}

#[test]
fn what_becomes_garbage_while_garbage_is_removed_is_not_forgotten() {
    let place = Place::new("mark");
    let image = place.image(&[tar(&[("a", 0o644, "a")])], json!({}), &[]);
    while_collecting(&place, || {
        // What `remove` does under the lock of images, and behind it.
        fs::remove_file(place.home.kept("images").join(format!("{}.json", image.id.hex()))).expect("unlink");
        assert_eq!(place.store.collect().expect("somebody else is at it"), 0);
    });
    drop(place.store.hold().expect("hold"));
    assert_eq!(place.count(), (0, 0));
}

#[test]
fn an_image_that_is_removed_while_it_is_listed_is_left_out() {
    let place = Place::new("listed");
    let stays = place.image(&[], json!({"n": 1}), &["stays"]);
    let goes = place.image(&[], json!({"n": 2}), &["goes"]);
    let record = place.home.kept("images").join(format!("{}.json", goes.id.hex()));
    let bytes = fs::read(&record).expect("read");
    type Look<'a> = &'a (dyn Fn() -> Result<Vec<Image>> + Sync);
    let looks: [(Look<'_>, &[Image]); 3] = [
        (&|| place.store.images().list(), std::slice::from_ref(&stays)),
        (&|| Ok(place.store.images().resolve("goes").into_iter().collect()), &[]),
        (&|| place.store.images().get(&goes.id).map(|image| vec![image]), &[]),
    ];
    for (n, (look, left)) in looks.into_iter().enumerate() {
        place
            .store
            .blobs()
            .put(&place.store.blobs().read(&goes.id, 1 << 20).unwrap_or_else(|_| {
                // The image of the round before.
                let again = place.image(
                    &[],
                    json!({"n": 2, "created": goes.created.format(
                &time::format_description::well_known::Rfc3339).expect("a time")}),
                    &["goes"],
                );
                place.store.blobs().read(&again.id, 1 << 20).expect("read")
            }))
            .expect("put");
        // Whoever reads the record gets it when we say, and then all else of the image is gone.
        let _ = fs::remove_file(&record);
        rustix::fs::mknodat(rustix::fs::CWD, &record, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("mkfifo");
        std::thread::scope(|scope| {
            let looking = scope.spawn(look);
            let mut fifo = fs::OpenOptions::new().write(true).open(&record).expect("somebody reads it");
            fs::remove_file(&record).expect("unlink");
            fs::remove_file(place.store.blobs().path(&goes.id)).expect("unlink");
            fifo.write_all(&bytes).expect("write");
            drop(fifo);
            match looking.join().expect("nobody panicked") {
                Ok(found) => assert_eq!(found, left, "{n}"),
                Err(e) => assert_eq!((n, e.kind()), (2, Kind::NotFound), "{e}"),
            }
        });
    }
}

/// Damages what belongs to the first of two images in each way that there is, and looks at the other.
#[test]
fn what_is_damaged_of_one_image_takes_no_other_and_is_kept() {
    let config = |place: &Place, image: &Image| place.store.blobs().path(&image.id);
    let record =
        |place: &Place, image: &Image| place.home.kept("images").join(format!("{}.json", image.id.hex()));
    let name = |place: &Place, _: &Image| place.home.kept("refs").join("docker.io%2Flibrary%2Fhurt:latest");
    type Damaged = fn(&Place, &Image) -> PathBuf;
    let parts: [(&str, Damaged); 3] = [("configuration", config), ("record", record), ("name", name)];
    for (part, damaged) in parts {
        for damage in [&b""[..], b"{\"manifests\":[]}", b"[[[[", b"\xff\0"] {
            let place = Place::new("damaged");
            let images = place.store.images();
            let (base, top) = (tar(&[("a", 0o644, "a")]), tar(&[("b", 0o644, "b")]));
            let hurt = place.image(&[base.clone(), top], json!({"n": 1}), &["hurt"]);
            let well = place.image(std::slice::from_ref(&base), json!({"n": 2}), &["well"]);
            let path = damaged(&place, &hurt);
            let whole = fs::read(&path).expect("it is there");
            fs::write(&path, damage).expect("write");
            place.store.blobs().put(b"nobody's").expect("put");
            let told = format!("{part} {:?}", String::from_utf8_lossy(damage));

            fs::write(place.home.run().join("store"), b"the boot before").expect("write");
            let store = Store::open(&place.home).expect(&told);
            assert!(images.list().expect(&told).contains(&well), "{told}");
            assert_eq!(images.resolve("well").expect(&told), well);
            assert_eq!(images.resolve(&well.id.short()).expect(&told), well);
            assert!(images.references().expect(&told).len() <= 2);
            assert!(images.resolve("hurt").is_err() || part != "name", "{told}");
            store.collect().expect(&told);
            images.prune(false, &Filter::default(), &nobody).expect(&told);
            let third = place.image(&[], json!({"n": 3}), &["third"]);
            let lines = images.remove("third", false, true, &nobody).expect(&told);
            assert_eq!(lines.last(), Some(&Removed::Deleted(third.id)), "{told}");

            // Nothing of the damaged one is gone: repaired, it is whole.
            fs::write(&path, &whole).expect("write");
            assert_eq!(images.resolve("hurt").expect(&told), hurt, "{told}");
            store.collect().expect("collect");
            place.assert_whole();
            assert_eq!(images.list().expect("list").len(), 2);

            // And it can be brought again, or removed.
            fs::write(&path, damage).expect("write");
            let bytes = |digest| whole_of(&place, &path, &whole, digest);
            let (manifest, config) = (bytes(&hurt.manifest.digest), bytes(&hurt.id));
            let names = [Reference::parse("hurt").expect("a name")];
            let again = images.install(&manifest, media_type::MANIFEST, &config, &names).expect(&told);
            assert_eq!(again.id, hurt.id);
            place.assert_whole();
            fs::write(&path, damage).expect("write");
            if part == "name" {
                let lines = images.remove("hurt", false, true, &nobody).expect(&told);
                assert_eq!(lines, [Removed::Untagged("hurt:latest".to_owned())], "{told}");
            }
            images.remove(&hurt.id.hex(), true, true, &nobody).expect(&told);
            assert!(!record_of(&place, &hurt).exists());
            assert_eq!(images.list().expect("list"), std::slice::from_ref(&well));
            place.assert_whole();
        }
    }
}

fn record_of(place: &Place, image: &Image) -> PathBuf {
    place.home.kept("images").join(format!("{}.json", image.id.hex()))
}

/// What a blob was before the file `path` was damaged.
fn whole_of(place: &Place, path: &Path, whole: &[u8], digest: &Digest) -> Vec<u8> {
    let blob = place.store.blobs().path(digest);
    if blob == path { whole.to_vec() } else { fs::read(blob).expect("read") }
}
