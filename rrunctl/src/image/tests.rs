//! Images in and out: archives made here, and those of other programs.

use super::*;
use crate::error::Kind;
use crate::progress::Event;
use crate::store::tests::{Place, gzip, nobody, tar};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

fn config(diff_ids: &[Digest], more: Value) -> Vec<u8> {
    let mut config = json!({"architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05.6Z",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    config.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    config.to_string().into_bytes()
}

/// An archive of files and, where the content begins with `->`, of symbolic links.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        if let Some(target) = bytes.strip_prefix(b"->") {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, std::str::from_utf8(target).expect("text")).expect("a vector");
        } else {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, *bytes).expect("a vector takes everything");
        }
    }
    tar.into_inner().expect("a vector takes everything")
}

/// The images, and the lines that were told.
fn loaded(place: &Place, archive: &[u8]) -> Result<(Vec<Image>, Vec<String>)> {
    let lines = Mutex::new(Vec::new());
    let images = load(&place.store, archive, &|event| {
        if let Event::Line(line) = event {
            lines.lock().expect("nobody panicked").push(line);
        }
    })?;
    Ok((images, lines.into_inner().expect("nobody panicked")))
}

fn saved(place: &Place, names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    save(&place.store, &names, &mut bytes).expect("save");
    bytes
}

/// Two images that share a layer, as Docker wrote them from 1.10 to 24.
fn docker_archive() -> (Vec<u8>, [Digest; 2]) {
    let (base, top) = (tar(&[("etc/", 0o755, ""), ("etc/a", 0o644, "a")]), tar(&[("b", 0o644, "b")]));
    let one = config(&[Digest::of(&base)], json!({"config": {"Cmd": ["sh"]}}));
    let two = config(&[Digest::of(&base), Digest::of(&top)], json!({}));
    let ids = [Digest::of(&one), Digest::of(&two)];
    let names = ids.map(|id| format!("{}.json", id.hex()));
    let manifest = json!([
        {"Config": names[0], "RepoTags": ["one:1", "h.io/one:latest"], "Layers": ["aa/layer.tar"]},
        {"Config": names[1], "RepoTags": null, "Layers": ["bb/layer.tar", "cc/layer.tar"]},
    ])
    .to_string();
    let files: [(&str, &[u8]); 8] = [
        ("aa/layer.tar", &base),
        ("aa/VERSION", b"1.0"),
        (&names[0], &one),
        ("bb/layer.tar", b"->../aa/layer.tar"),
        ("cc/layer.tar", &top),
        (&names[1], &two),
        ("repositories", b"{}"),
        ("manifest.json", manifest.as_bytes()),
    ];
    (archive(&files), ids)
}

#[test]
fn an_archive_of_docker_save_is_loaded() {
    let place = Place::new("load");
    let (bytes, ids) = docker_archive();
    let (images, lines) = loaded(&place, &bytes).expect("load");
    assert_eq!(images.iter().map(|image| image.id).collect::<Vec<_>>(), ids);
    assert_eq!(
        lines,
        ["Loaded image: one:1", "Loaded image: h.io/one:latest", &format!("Loaded image ID: {}", ids[1])]
    );
    assert_eq!(
        place.store.images().resolve("one:1").expect("named").config.config.cmd,
        Some(vec!["sh".to_owned()])
    );
    let top = &place.store.layers().lower(&images[1]).expect("layers")[1];
    assert_eq!(fs::read(top.join("etc/a")).expect("read"), b"a");
    place.assert_whole();
    // The layers, as they were received, have a manifest that is the same every time.
    let again = loaded(&place, &bytes).expect("load again").0;
    assert_eq!(again, images);
    assert_eq!(place.count(), (6, 2));
}

#[test]
fn every_compression_is_undone() {
    let (bytes, ids) = docker_archive();
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let Some(packed) = filter(program, &bytes) else { continue };
        let place = Place::new(program);
        let (images, _) = loaded(&place, &packed).expect(program);
        assert_eq!(images.iter().map(|image| image.id).collect::<Vec<_>>(), ids, "{program}");
    }
}

/// What a program writes about what it reads; nothing, said so, where there is no such program.
fn filter(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: {program} is not installed");
        return None;
    };
    let mut to = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || to.write_all(bytes).expect("write"));
        child.wait_with_output()
    });
    Some(output.expect("run").stdout)
}

#[test]
fn an_archive_from_before_docker_1_10_is_loaded() {
    let place = Place::new("v1");
    let (base, top) = (tar(&[("a", 0o644, "a")]), tar(&[("b", 0o644, "b")]));
    let bytes = archive(&[
        ("22/json", br#"{"id":"22","parent":"11","created":"2015-01-01T00:00:00Z","container_config":{"Cmd":["/bin/sh","-c","x"]},"config":{"Cmd":["sh"]},"os":"linux","architecture":"amd64"}"#),
        ("22/layer.tar", &gzip(&top)),
        ("11/json", br#"{"id":"11","comment":"base","created":"2014-01-01T00:00:00Z"}"#),
        ("11/layer.tar", &base),
        ("repositories", br#"{"old":{"1":"22"}}"#),
    ]);
    let (images, lines) = loaded(&place, &bytes).expect("load");
    assert_eq!(lines, ["Loaded image: old:1"]);
    assert_eq!(images[0].config.rootfs.diff_ids, [Digest::of(&base), Digest::of(&top)]);
    let rows = history(&place.store, &images[0]).expect("history");
    assert_eq!((&*rows[0].created_by, &*rows[1].comment), ("/bin/sh -c x", "base"));
    assert_eq!(images[0].config.config.cmd, Some(vec!["sh".to_owned()]));
}

/// An OCI layout of an image for two platforms, of which the other's is not in it.
fn oci_layout(place: &Place) -> (Vec<u8>, Digest) {
    let layer = tar(&[("oci", 0o644, "oci")]);
    let packed = gzip(&layer);
    let config = config(&[Digest::of(&layer)], json!({}));
    let blob = Descriptor::new(media_type::LAYER_GZIP, Digest::of(&packed), packed.len() as u64);
    let described = Descriptor::new(media_type::CONFIG, Digest::of(&config), config.len() as u64);
    // With white space that nobody would write again.
    let manifest = String::from_utf8(manifest(media_type::MANIFEST, &described, &[blob]).expect("json"));
    let manifest = manifest.expect("text").replacen('{', "{ \n ", 1).into_bytes();
    let mut here = Descriptor::new(media_type::MANIFEST, Digest::of(&manifest), manifest.len() as u64);
    here.platform = Some(Platform::host());
    let mut there = Descriptor::new(media_type::MANIFEST, Digest::of(b"not here"), 8);
    there.platform = Some(Platform::parse("linux/s390x").expect("a platform"));
    let index = json!({"schemaVersion": 2, "manifests": [there, here]}).to_string();
    let entry = |name: &str| {
        let mut entry = Descriptor::new(media_type::INDEX, Digest::of(index.as_bytes()), index.len() as u64);
        entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.to_owned());
        entry
    };
    let top =
        json!({"schemaVersion": 2, "manifests": [entry("h.io/oci:1"), entry("oci:2"), entry("latest")]});
    let path = |bytes: &[u8]| layout::blob_path(&Digest::of(bytes));
    let bytes = archive(&[
        ("./oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        (&path(index.as_bytes()), index.as_bytes()),
        (&path(&manifest), &manifest),
        (&path(&config), &config),
        (&path(&packed), &packed),
        ("./index.json", top.to_string().as_bytes()),
    ]);
    let (images, lines) = loaded(place, &bytes).expect("load");
    assert_eq!(lines, ["Loaded image: h.io/oci:1", "Loaded image: oci:2"]);
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].manifest.digest, Digest::of(&manifest));
    (bytes, images[0].id)
}

#[test]
fn an_oci_layout_is_loaded_with_the_manifests_that_it_has() {
    let place = Place::new("oci");
    let (_, id) = oci_layout(&place);
    assert_eq!(place.store.images().resolve("oci:2").expect("named").id, id);
    place.assert_whole();
}

#[test]
fn what_is_saved_is_loaded_with_the_same_digests_and_saved_the_same() {
    let (from, to) = (Place::new("save"), Place::new("reload"));
    oci_layout(&from);
    let unnamed = loaded(&from, &docker_archive().0).expect("load").0[1].id.short();
    let names = ["one", "h.io/oci:1", "oci:2", "h.io/one", &unnamed];
    let bytes = saved(&from, &names);
    assert!(bytes == saved(&from, &names), "saved twice, it differs");
    let (images, lines) = loaded(&to, &bytes).expect("load");
    assert_eq!(lines.len(), 5);
    for image in images {
        let same = from.store.images().get(&image.id).expect("the same id");
        assert_eq!((image.manifest.digest, &image.layers), (same.manifest.digest, &same.layers));
        assert_eq!(
            from.store.blobs().read(&image.id, 1 << 20).ok(),
            to.store.blobs().read(&image.id, 1 << 20).ok()
        );
    }
    assert!(bytes == saved(&to, &names), "loaded and saved, it differs");
    to.assert_whole();
    let e = save(&to.store, &["nope".to_owned()], Vec::new()).expect_err("no such image");
    assert_eq!((e.kind(), &*e.to_string()), (Kind::NotFound, "No such image: nope:latest"));
}

#[test]
fn what_is_no_archive_of_images_leaves_nothing() {
    let place = Place::new("broken");
    let layer = tar(&[("a", 0o644, "a")]);
    let good = config(&[Digest::of(&layer)], json!({}));
    let other = config(&[Digest::of(b"other")], json!({}));
    let two = config(&[Digest::of(&layer), Digest::of(&layer)], json!({}));
    let of =
        |config: &str| format!("[{{\"Config\":\"{config}\",\"RepoTags\":[\"a:1\"],\"Layers\":[\"l.tar\"]}}]");
    let cut = &docker_archive().0[..3000];
    let wrong = layout::blob_path(&Digest::of(b"right"));
    let link =
        archive(&[("manifest.json", of("c").as_bytes()), ("c", b"->d"), ("d", b"->c"), ("l.tar", &layer)]);
    let json = |text: &str| archive(&[("manifest.json", text.as_bytes()), ("c", &good), ("l.tar", &layer)]);
    let index = |text: &str| archive(&[("index.json", text.as_bytes())]);
    for (bytes, why) in [
        (b"".to_vec(), "the archive has no image"),
        (b"no archive at all".repeat(100), "read archive"),
        (cut.to_vec(), "read archive"),
        (tar(&[("bin/sh", 0o755, "elf"), ("etc/passwd", 0o644, "root")]), "the archive has no image"),
        (archive(&[(&wrong, b"wrong")]), "as it is called"),
        (archive(&[("manifest.json", of("c").as_bytes()), ("l.tar", &layer)]), "which the archive has not"),
        (archive(&[("manifest.json", of("c").as_bytes()), ("c", &good)]), "which the archive has not"),
        (link, "which the archive has not"),
        (
            archive(&[("manifest.json", of("c").as_bytes()), ("c", &other), ("l.tar", &layer)]),
            "configuration says",
        ),
        (
            archive(&[("manifest.json", of("c").as_bytes()), ("c", &two), ("l.tar", &layer)]),
            "and the archive 1",
        ),
        (archive(&[("manifest.json", of("c").as_bytes()), ("c", &good), ("l.tar", b"no tar")]), "layer"),
        (
            archive(&[("manifest.json", of("c").as_bytes()), ("c", b"[]"), ("l.tar", &layer)]),
            "image configuration",
        ),
        (json("{}"), "manifest.json"),
        (json("[{\"Config\":\"../../c\",\"Layers\":[]}]"), "which the archive has not"),
        (json("[{\"Config\":\"c\",\"RepoTags\":[\"A\"],\"Layers\":[\"l.tar\"]}]"), "must be lowercase"),
        (index("[]"), "index"),
        (index("{\"manifests\":[{\"digest\":\"sha256:0\"}]}"), "index"),
        (index("{\"manifests\":[]}"), "the archive has no image"),
    ] {
        let e = loaded(&place, &bytes).map(|(_, lines)| lines).expect_err(why).to_string();
        assert!(e.contains(why) && !e.contains('\n'), "{why}: {e}");
        assert_eq!(place.count(), (0, 0), "{why}");
        place.assert_whole();
    }
}

#[test]
fn only_a_pull_gives_an_image_a_name_with_a_digest() {
    let place = Place::new("digest");
    let layer = tar(&[("a", 0o644, "a")]);
    let good = config(&[Digest::of(&layer)], json!({}));
    let digest = Digest::of(b"another image");
    let name = format!("busybox@{digest}");
    let saved = json!([{"Config": "c", "RepoTags": ["a:1", &name], "Layers": ["l.tar"]}]).to_string();
    let saved = archive(&[("manifest.json", saved.as_bytes()), ("c", &good), ("l.tar", &layer)]);
    let blobs = [Descriptor::new(media_type::LAYER, Digest::of(&layer), layer.len() as u64)];
    let described = Descriptor::new(media_type::CONFIG, Digest::of(&good), good.len() as u64);
    let packed = manifest(media_type::MANIFEST, &described, &blobs).expect("a manifest");
    let layout = |key: &str| {
        let entry = json!({"mediaType": media_type::MANIFEST, "digest": Digest::of(&packed),
            "size": packed.len(), "annotations": {key: &name}});
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        let path = |bytes: &[u8]| layout::blob_path(&Digest::of(bytes));
        archive(&[
            ("index.json", index.as_bytes()),
            (&path(&packed), &packed),
            (&path(&good), &good),
            (&path(&layer), &layer),
        ])
    };
    // The tag is joined to the name by a colon.
    let repositories = json!({"busybox@sha256": {digest.hex(): "11"}}).to_string();
    let first = archive(&[
        ("11/json", br#"{"id":"11"}"#),
        ("11/layer.tar", &layer),
        ("repositories", repositories.as_bytes()),
    ]);
    for bytes in
        [saved, layout("io.containerd.image.name"), layout("org.opencontainers.image.ref.name"), first]
    {
        let e = loaded(&place, &bytes).map(|(_, lines)| lines).expect_err("a digest").to_string();
        assert!(e.ends_with("refusing to create a tag with a digest reference"), "{e}");
        assert_eq!(place.count(), (0, 0));
        place.assert_whole();
    }
    let name = Reference::parse(&name).expect("a name");
    let e = import(&place.store, &layer[..], "-", "", &[], None, Some(&name)).expect_err("a digest");
    assert_eq!(e.to_string(), "refusing to create a tag with a digest reference");
    place.assert_whole();
}

#[test]
fn a_root_filesystem_is_imported_with_changes() {
    let place = Place::new("import");
    let bytes = tar(&[("./", 0o755, ""), ("bin/", 0o755, ""), ("bin/sh", 0o755, "#!")]);
    let name = Reference::parse("rootfs:1").expect("a name");
    let lines = [
        "CMD [\"sh\"]",
        "ENV A=1",
        "EXPOSE 80",
        "LABEL a=b",
        "USER u",
        "VOLUME /v",
        "WORKDIR /w",
        "ENTRYPOINT [\"e\"]",
    ];
    let lines = lines.map(str::to_owned);
    let packed = filter("xz", &bytes).unwrap_or_else(|| bytes.clone());
    let image = import(&place.store, &packed[..], "-", "", &lines, None, Some(&name)).expect("import");
    place.assert_whole();
    assert_eq!(image.layers[0].diff_id, Digest::of(&bytes));
    assert_eq!((&*image.layers[0].media_type, image.size), (media_type::LAYER_GZIP, 2));
    let rows = history(&place.store, &image).expect("history");
    assert_eq!(
        (rows.len(), rows[0].id, &*rows[0].comment, rows[0].size),
        (1, Some(image.id), "Imported from -", 2)
    );
    assert_eq!(rows[0].tags, ["rootfs:1"]);

    let shown = inspect(&place.store, &image).expect("inspect");
    let keys: Vec<&str> = shown.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "Id",
            "RepoTags",
            "RepoDigests",
            "Parent",
            "Comment",
            "Created",
            "DockerVersion",
            "Author",
            "Config",
            "Architecture",
            "Os",
            "Size",
            "VirtualSize",
            "GraphDriver",
            "RootFS",
            "Metadata",
        ]
    );
    assert_eq!(shown["Id"], image.id.to_string());
    assert_eq!((&shown["RepoTags"], &shown["RepoDigests"]), (&json!(["rootfs:1"]), &json!([])));
    assert_eq!(shown["Comment"], "Imported from -");
    // ENTRYPOINT keeps a CMD of the same changes.
    assert_eq!((&shown["Config"]["Cmd"], &shown["Config"]["Entrypoint"]), (&json!(["sh"]), &json!(["e"])));
    assert_eq!(shown["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
    assert_eq!((&shown["Config"]["Hostname"], &shown["Config"]["OnBuild"]), (&json!(""), &Value::Null));
    assert_eq!(
        (&shown["RootFS"]["Type"], &shown["GraphDriver"]["Name"]),
        (&json!("layers"), &json!("overlay2"))
    );
    assert!(shown["Metadata"]["LastTagTime"].as_str().is_some_and(|at| at > "2024"));

    let no_tar = import(&place.store, &b"no tar"[..], "-", "", &[], None, None).expect_err("no tar");
    assert!(!no_tar.to_string().is_empty());
    place.assert_whole();
    let platform = Platform::parse("linux/arm/v7").expect("a platform");
    let arm = import(&place.store, &bytes[..], "-", "said", &[], Some(&platform), None).expect("import");
    let shown = inspect(&place.store, &arm).expect("inspect");
    assert_eq!(
        (&shown["Architecture"], &shown["Variant"], &shown["Comment"]),
        (&json!("arm"), &json!("v7"), &json!("said"))
    );
    assert_eq!(shown["RepoTags"], json!([]));
}

#[test]
fn a_commit_is_its_image_and_a_layer_more() {
    let place = Place::new("commit");
    let base = tar(&[("etc/", 0o755, ""), ("etc/a", 0o644, "a")]);
    let history_of_base = json!({"config": {"Env": ["A=1"]}, "history": [
        {"created": "2020-01-01T00:00:00Z", "created_by": "ADD"}, {"created_by": "CMD", "empty_layer": true}]});
    let base = place.image(&[base], history_of_base, &["base:1"]);
    let layer = tar(&[("etc/b", 0o644, "bb")]);
    let mut config = base.config.config.clone();
    config.cmd = Some(vec!["run".to_owned()]);
    let made = Commit {
        config,
        author: "wy".into(),
        comment: "msg".into(),
        created_by: "sh".into(),
        names: vec![Reference::parse("new:1").expect("a name")],
        container: "c".repeat(64),
    };
    let image = commit(&place.store, Some(&base), &layer[..], &made).expect("commit");
    place.assert_whole();
    assert_eq!(place.store.images().resolve("new:1").expect("named"), image);
    assert_eq!((image.parent, image.size, image.layers.len()), (Some(base.id), 3, 2));
    assert_eq!((&image.config.config.env[0], &image.layers[0]), (&"A=1".to_owned(), &base.layers[0]));
    let rows = history(&place.store, &image).expect("history");
    let shown: Vec<_> = rows.iter().map(|row| (row.id, &*row.created_by, row.size, &*row.comment)).collect();
    assert_eq!(
        shown,
        [(Some(image.id), "sh", 2, "msg"), (Some(base.id), "CMD", 0, ""), (None, "ADD", 1, ""),]
    );
    let shown = inspect(&place.store, &image).expect("inspect");
    assert_eq!((&shown["Author"], &shown["Parent"]), (&json!("wy"), &json!(base.id)));
    assert!(shown["GraphDriver"]["Data"]["LowerDir"].is_string());

    let usage = usage(&place.store, &nobody).expect("usage");
    assert_eq!((usage.images.len(), usage.images[0].shared, usage.images[0].size), (2, 1, 3));
    let blobs = image.layers.iter().map(|layer| layer.size).sum::<u64>();
    assert_eq!((usage.size, usage.reclaimable), (3 + blobs, 3 + blobs));

    let e = remove(&place.store, "base:1", false, true, &nobody).expect("its name goes");
    assert_eq!(e, [Removed::Untagged("base:1".to_owned())]);
    let e = remove(&place.store, &base.id.hex(), true, true, &nobody).expect_err("has a child").to_string();
    assert!(e.contains("image has dependent child images"), "{e}");
    // Without a name it is a step on the way, and goes with the last that needs it.
    assert_eq!(place.store.images().find(&Filter::default()).expect("find").len(), 1);
    let removed = remove(&place.store, "new:1", false, true, &nobody).expect("remove");
    assert!(removed.contains(&Removed::Deleted(base.id)), "{removed:?}");
    assert_eq!(place.count(), (0, 0));
}

#[test]
fn a_commit_without_changes_adds_no_layer() {
    let place = Place::new("same");
    let base = place.image(&[tar(&[("a", 0o644, "a")])], json!({}), &["base"]);
    let image = commit(&place.store, Some(&base), &[0; 1024][..], &Commit::default()).expect("commit");
    assert_eq!(image.layers, base.layers);
    assert!(image.config.history[0].empty_layer);
    let alone = commit(&place.store, None, &[0; 1024][..], &Commit::default()).expect("commit");
    assert_eq!(alone.layers, []);
}

#[test]
fn what_is_compressed_twice_is_not_imported() {
    let place = Place::new("twice");
    let bytes = tar(&[("a", 0o644, "a")]);
    let twice = gzip(&gzip(&bytes));
    let e = import(&place.store, &twice[..], "-", "", &[], None, None).expect_err("twice").to_string();
    assert!(e.starts_with("tar: "), "{e}");
    place.assert_whole();
    assert_eq!(place.count(), (0, 0));
}

#[test]
fn a_commit_is_of_the_tar_whatever_its_first_name_looks_like() {
    let place = Place::new("magic");
    // The first bytes are those of a bzip2 stream.
    let bytes = tar(&[("BZh9", 0o644, "a")]);
    let image = commit(&place.store, None, &bytes[..], &Commit::default()).expect("commit");
    assert_eq!(image.layers[0].diff_id, Digest::of(&bytes));
    place.assert_whole();
}

#[test]
fn a_header_of_an_image_archive_goes_into_memory_only_so_far() {
    let place = Place::new("headers");
    let (good, _) = docker_archive();
    let long = |kind: u8, size: usize, fill: u8| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..4].copy_from_slice(b"long");
        header.as_old_mut().linkflag = [kind];
        header.set_size(size as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(512 + size, fill);
        bytes
    };
    for kind in [b'L', b'K'] {
        let bytes = [long(kind, 4 << 20, b'x'), good.clone()].concat();
        let e = loaded(&place, &bytes).map(|(_, lines)| lines).expect_err("4 MiB of name").to_string();
        assert!(e.contains("an extended header of 4194304 bytes is refused"), "{e}");
    }
    // A hole costs nothing in the archive, and all its zeros as a blob.
    let mut sparse = tar::Header::new_gnu();
    sparse.as_old_mut().name[..10].copy_from_slice(b"layer.tar\0");
    sparse.as_old_mut().linkflag = [b'S'];
    sparse.set_size(0);
    let gnu = sparse.as_gnu_mut().expect("a GNU header");
    gnu.realsize.copy_from_slice(b"77777777777\0");
    sparse.set_cksum();
    let bytes = [sparse.as_bytes().to_vec(), good.clone()].concat();
    let e = loaded(&place, &bytes).map(|(_, lines)| lines).expect_err("8 GiB of zeros").to_string();
    assert!(e.contains("sparse"), "{e}");
    place.assert_whole();
    assert_eq!(place.count(), (0, 0));
    // Names of a megabyte each are within the bound of a header.
    let many: Vec<u8> =
        (b'a'..b'u').flat_map(|n| [long(b'L', 1 << 20, n), archive_of_one()].concat()).collect();
    let e = loaded(&place, &many).map(|(_, lines)| lines).expect_err("20 MiB of names").to_string();
    assert!(e.contains("names"), "{e}");
}

/// One empty file, without an end.
fn archive_of_one() -> Vec<u8> {
    let mut bytes = archive(&[("f", b"")]);
    bytes.truncate(512);
    bytes
}

#[test]
fn a_blob_that_has_changed_on_the_disk_is_repaired_by_loading_the_image_again() {
    let place = Place::new("repair");
    let (bytes, _) = docker_archive();
    let images = loaded(&place, &bytes).expect("load").0;
    let layer = &images[1].layers[1];
    let path = place.home.kept("blobs/sha256").join(layer.blob.hex());
    let length = fs::metadata(&path).expect("stat").len() as usize;
    for damage in [Vec::new(), vec![0; length]] {
        fs::write(&path, damage).expect("write");
        assert!(place.store.blobs().read(&layer.blob, 1 << 20).is_err());
        loaded(&place, &bytes).expect("load again");
        place.assert_whole();
    }
}

#[test]
fn what_has_changed_on_the_disk_is_not_saved() {
    let place = Place::new("save-rot");
    let image = place.image(&[tar(&[("a", 0o644, "a")])], json!({}), &["a"]);
    let path = place.home.kept("blobs/sha256").join(image.layers[0].blob.hex());
    let whole = fs::read(&path).expect("read");
    for damage in [vec![0; whole.len()], whole[1..].to_vec()] {
        fs::write(&path, damage).expect("write");
        let e = save(&place.store, &["a".to_owned()], Vec::new()).expect_err("damaged").to_string();
        assert!(e.contains("has changed on the disk") && e.contains("pull or load it again"), "{e}");
    }
    fs::remove_file(&path).expect("unlink");
    let e = save(&place.store, &["a".to_owned()], Vec::new()).expect_err("gone").to_string();
    assert!(e.contains("is not here") && e.contains("pull or load it again"), "{e}");
}

#[test]
fn the_documents_of_an_archive_go_into_memory_only_so_far() {
    let place = Place::new("documents");
    let labels = |n: usize| json!({"n": n, "config": {"Labels": {"x": "x".repeat(7 << 20)}}});
    let configs: Vec<Vec<u8>> = (0..5).map(|n| config(&[], labels(n))).collect();
    let names: Vec<String> = (0..5).map(|n| format!("{n}.json")).collect();
    let saved: Vec<Value> = names.iter().map(|name| json!({"Config": name, "Layers": []})).collect();
    let manifest = json!(saved).to_string();
    let mut files: Vec<(&str, &[u8])> =
        names.iter().map(|name| &**name).zip(configs.iter().map(|c| &**c)).collect();
    files.push(("manifest.json", manifest.as_bytes()));
    let e = loaded(&place, &archive(&files)).map(|(_, lines)| lines).expect_err("35 MiB").to_string();
    assert!(e.contains("manifests and configurations"), "{e}");
    place.assert_whole();
    assert_eq!(place.count(), (0, 0));
}

#[test]
fn an_image_gets_another_name() {
    let place = Place::new("tag");
    let image = place.image(&[], json!({}), &["a"]);
    tag(&place.store, &image.id.short(), "h.io/b").expect("by id");
    tag(&place.store, "h.io/b", "c:1").expect("by name");
    assert_eq!(place.store.images().references_of(&image.id).expect("names").len(), 3);
    for (name, why) in [
        ("B", "must be lowercase"),
        (&format!("b@{}", image.id), "refusing to create a tag with a digest reference"),
    ] {
        let e = tag(&place.store, "a", name).expect_err(name).to_string();
        assert!(e.contains(why), "{e}");
    }
    assert_eq!(tag(&place.store, "nope", "b").expect_err("no image").kind(), Kind::NotFound);
}

fn run(program: &str, words: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(words).output().expect(program);
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn has(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let found = Command::new(program).arg("--version").output().is_ok();
        if !found {
            eprintln!("skipped: {program} is not installed");
        }
        found
    })
}

/// An OCI layout that umoci made, as a tar: a layer, and one that changes and deletes files of it.
fn umoci(dir: &Path) -> std::path::PathBuf {
    let text = |name: &str| dir.join(name).display().to_string();
    let image = text("layout:1");
    run("umoci", &["init", "--layout", &text("layout")]);
    run("umoci", &["new", "--image", &image]);
    for content in ["one", "two"] {
        run("umoci", &["unpack", "--image", &image, &text("bundle")]);
        let root = dir.join("bundle/rootfs");
        fs::DirBuilder::new().recursive(true).create(root.join("opt/sub")).expect("mkdir");
        fs::write(root.join("opt/sub/file"), content).expect("write");
        if content == "one" {
            fs::write(root.join("opt/gone"), content).expect("write");
        } else {
            fs::remove_file(root.join("opt/gone")).expect("unlink");
        }
        run("umoci", &["repack", "--image", &image, &text("bundle")]);
        fs::remove_dir_all(dir.join("bundle")).expect("remove");
    }
    run("umoci", &["config", "--image", &image, "--config.cmd", "sh", "--config.env", "A=1"]);
    run("tar", &["-C", &text("layout"), "-cf", &text("layout.tar"), "."]);
    dir.join("layout.tar")
}

#[test]
fn images_of_umoci_and_skopeo_are_loaded_and_ours_by_skopeo() {
    if !has(&["umoci", "skopeo", "tar"]) {
        return;
    }
    let place = Place::new("tools");
    let path = |name: &str| place.dir.join(name).display().to_string();
    let tar = umoci(&place.dir);
    let (images, _) = loaded(&place, &fs::read(&tar).expect("read")).expect("of umoci");
    let oci = format!("oci:{}:1", path("layout"));
    let raw = run("skopeo", &["inspect", "--raw", &oci]);
    assert_eq!(images[0].manifest.digest, Digest::of(&raw));
    assert_eq!(images[0].layers.len(), 2);
    assert!(images[0].config.config.env.contains(&"A=1".to_owned()));
    let top = &place.store.layers().lower(&images[0]).expect("layers")[0];
    assert_eq!(fs::read(top.join("opt/sub/file")).expect("read"), b"two");
    assert!(fs::symlink_metadata(top.join("opt/gone")).expect("a whiteout").file_type().is_char_device());

    // What skopeo makes of it.
    run("skopeo", &["copy", &oci, &format!("oci-archive:{}:h.io/x:1", path("oci.tar"))]);
    run("skopeo", &["copy", &oci, &format!("docker-archive:{}:h.io/x:2", path("docker.tar"))]);
    let (images, lines) = loaded(&place, &fs::read(path("oci.tar")).expect("read")).expect("of skopeo");
    assert_eq!(
        (images[0].manifest.digest, &*lines),
        (Digest::of(&raw), &["Loaded image: h.io/x:1".to_owned()][..])
    );
    let other = Place::new("docker-archive");
    let (images, lines) = loaded(&other, &fs::read(path("docker.tar")).expect("read")).expect("of skopeo");
    assert_eq!(lines, ["Loaded image: h.io/x:2"]);
    let of_umoci = place.store.images().resolve("h.io/x:1").expect("loaded");
    assert_eq!(images[0].config.rootfs, of_umoci.config.rootfs);
    other.assert_whole();

    // And ours: the same manifest, the same configuration.
    fs::write(path("ours.tar"), saved(&place, &["h.io/x:1"])).expect("write");
    let copied = run("skopeo", &["inspect", "--raw", &format!("oci-archive:{}", path("ours.tar"))]);
    assert_eq!(Digest::of(&copied), of_umoci.manifest.digest);
    run(
        "skopeo",
        &["copy", &format!("oci-archive:{}", path("ours.tar")), &format!("dir:{}", path("copied"))],
    );
    for layer in &of_umoci.layers {
        assert_eq!(
            Digest::of(&fs::read(place.dir.join("copied").join(layer.blob.hex())).expect("read")),
            layer.blob
        );
    }
    let config = run(
        "skopeo",
        &["inspect", "--raw", "--config", &format!("docker-archive:{}:h.io/x:1", path("ours.tar"))],
    );
    assert_eq!(Digest::of(&config), of_umoci.id);
    run(
        "skopeo",
        &["copy", &format!("docker-archive:{}", path("ours.tar")), &format!("oci:{}:again", path("again"))],
    );
    place.assert_whole();
}
