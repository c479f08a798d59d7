//! The commands about images, as a shell runs them: `rrunctl` in an engine of its own. Each test names the row of the
//! table of what people expect of an engine (I3, I5, …) that it shows.

use crate::harness::*;
use rrunctl::digest::Digest;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

#[test]
fn i3_images_are_listed_newest_first_in_dockers_columns() {
    let engine = Engine::new();
    assert_eq!(engine.prints(&["images"]), "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n");
    let old = zeros("localhost:5000/team/app:1.0", 4_866_500, ago(5));
    let new = zeros("a:1", 12, ago(3));
    engine.loads(&archive(&[&old, &new]));
    engine.prints(&["tag", "a:1", "busybox"]);
    let (old_id, new_id) = (old.short(), new.short());
    let table = format!(
        "REPOSITORY                TAG       IMAGE ID       CREATED       SIZE\n\
         a                         1         {new_id}   3 weeks ago   12B\n\
         busybox                   latest    {new_id}   3 weeks ago   12B\n\
         localhost:5000/team/app   1.0       {old_id}   5 weeks ago   4.87MB\n"
    );
    assert_eq!(engine.prints(&["images"]), table);
    assert_eq!(engine.prints(&["image", "ls"]), table);
    assert_eq!(engine.prints(&["image", "list", "--format", "table"]), table);
    assert_eq!(engine.prints(&["images", "-q"]), format!("{new_id}\n{new_id}\n{old_id}\n"));
    assert_eq!(engine.prints(&["images", "-q", "--no-trunc", "busybox"]), format!("{}\n", new.id()));
    assert_eq!(engine.prints(&["images", "--format", r"{{.Repository}}\t{{.Tag}}", "a"]), "a\t1\n");
    let row: Value =
        serde_json::from_str(&engine.prints(&["images", "--format", "json", "a"])).expect("JSON");
    assert_eq!((&row["ID"], &row["Size"], &row["Digest"]), (&json!(new_id), &json!("12B"), &json!("<none>")));
    assert!(
        engine
            .prints(&["images", "--digests"])
            .starts_with("REPOSITORY                TAG       DIGEST    IMAGE ID")
    );
}

#[test]
fn i3_local_images_are_searched_by_patterns_and_filters() {
    let engine = Engine::new();
    let (old, new) = (zeros("busybox:1.35", 1, ago(5)), zeros("busybox:1.36", 2, ago(3)));
    engine.loads(&archive(&[&old, &new, &zeros("localhost:5000/team/app:1.0", 3, ago(4))]));
    let found = |arguments: &[&str]| {
        let arguments = [&["images", "--format", "{{.Repository}}:{{.Tag}}"], arguments].concat();
        engine.prints(&arguments).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(found(&["busybox"]), ["busybox:1.36", "busybox:1.35"]);
    assert_eq!(found(&["busybox:1.35"]), ["busybox:1.35"]);
    assert_eq!(found(&["busy*"]), ["busybox:1.36", "busybox:1.35"]);
    assert_eq!(found(&["-f", "reference=*:1.36"]), ["busybox:1.36"]);
    assert_eq!(found(&["-f", "before=busybox:1.36", "-f", "reference=busybox"]), ["busybox:1.35"]);
    assert_eq!(found(&["--filter", "since=busybox:1.35", "busybox"]), ["busybox:1.36"]);
    assert_eq!(found(&["--filter", "until=600h"]).len(), 2);
    assert_eq!(found(&["none"]), [""; 0]);
    assert_eq!(found(&["-f", "dangling=true"]), [""; 0]);
    // Only the name that was asked for, not the others of the same image.
    engine.prints(&["tag", "busybox:1.35", "other:x"]);
    assert_eq!(found(&["other"]), ["other:x"]);
    let e = engine.refuses(&["images", "-f", "colour=red"]);
    assert_eq!(e, "invalid filter \"colour\" (there are reference dangling label label! before since until)");
    engine.refuses(&["images", "-f", "since=nothing"]);
}

#[test]
fn i4_history_has_the_image_above_and_what_is_missing_below() {
    let engine = Engine::new();
    let made = busybox(&["busybox:1"]);
    engine.loads(&made.archive());
    let size = fs::metadata("/bin/busybox").expect("stat").len() + 1;
    let table = engine.prints(&["history", "busybox:1"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0],
        "IMAGE          CREATED       CREATED BY                           SIZE      COMMENT"
    );
    assert_eq!(
        lines[1],
        format!("{}   5 weeks ago   /bin/sh -c #(nop)  CMD [\"sh\"]        0B        ", made.short())
    );
    assert_eq!(lines[2], "<missing>      5 weeks ago   /bin/sh -c #(nop) ADD file:1 in /    6B        ");
    assert_eq!(lines.len(), 4);
    let created = engine.prints(&["history", "--format", "{{.CreatedAt}}", "busybox:1"]);
    assert!(created.lines().all(|time| time.len() == "2026-11-23T06:00:00Z".len()), "{created}");
    let raw =
        engine.prints(&["image", "history", "--human=false", "--format", "{{.ID}} {{.Size}}", "busybox:1"]);
    assert_eq!(raw, format!("{} 0\n<missing> 6\n<missing> {size}\n", made.short()));
    assert_eq!(
        engine.prints(&["history", "-q", "--no-trunc", "busybox:1"]).lines().next(),
        Some(made.id().as_str())
    );
}

#[test]
fn i5_what_is_saved_is_loaded_with_the_same_digests() {
    let engine = Engine::new();
    engine.loads(&archive(&[&busybox(&["busybox:1", "busybox:2"]), &zeros("zeros:1", 100, ago(1))]));
    let saved = engine.path("saved.tar");
    let saved = saved.to_str().expect("UTF-8");
    // The flag behind what it is about, as people write it.
    assert_eq!(engine.prints(&["save", "busybox:1", "busybox:2", "zeros:1", "-o", saved]), "");
    let piped = engine.run(&["image", "save", "busybox:1", "busybox:2", "zeros:1"]);
    let bytes = fs::read(saved).expect("read");
    assert!(piped.status.success() && piped.stdout == bytes, "a file and a pipe get the same");
    // Nothing half written lies beside it.
    let beside: Vec<_> =
        fs::read_dir(&engine.dir).expect("readdir").map(|e| e.expect("an entry").file_name()).collect();
    assert!(beside.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{beside:?}");

    let other = Engine::new();
    let said = other.prints(&["load", "-q", "-i", saved]);
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Loaded image: busybox:1", "Loaded image: busybox:2", "Loaded image: zeros:1"]);
    for name in ["busybox:1", "busybox:2", "zeros:1"] {
        let (here, there) = (engine.inspect(name), other.inspect(name));
        for key in ["Id", "RootFS", "Config", "Created", "Size", "RepoTags"] {
            assert_eq!(here[key], there[key], "{name} {key}");
        }
    }
    let again = other.run(&["save", "busybox:1", "busybox:2", "zeros:1"]);
    assert!(again.stdout == bytes, "the same image is the same archive");

    // The archive has what docker and OCI's tools look for.
    let mut names = Vec::new();
    for entry in tar::Archive::new(&bytes[..]).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").display().to_string();
        if let Some(hex) = name.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
            let mut blob = Vec::new();
            entry.read_to_end(&mut blob).expect("read");
            assert_eq!(Digest::of(&blob).hex(), hex);
        }
        names.push(name);
    }
    for name in ["oci-layout", "index.json", "manifest.json"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
}

#[test]
fn i5_a_save_that_fails_leaves_no_file() {
    let engine = Engine::new();
    engine.loads(&zeros("zeros:1", 1, ago(1)).archive());
    let before = "what was there";
    let path = engine.path("saved.tar");
    fs::write(&path, before).expect("write");
    let e = engine.refuses(&["save", "-o", path.to_str().expect("UTF-8"), "zeros:1", "nothing"]);
    assert!(e.contains("No such image: nothing:latest") || e.contains("reference does not exist"), "{e}");
    assert_eq!(fs::read_to_string(&path).expect("read"), before);
    assert_eq!(fs::read_dir(&engine.dir).expect("readdir").count(), 3, "root, run, saved.tar");
    let e = engine.refuses(&["save", "zeros:1", "-o", "/no/such/directory/x.tar"]);
    assert!(e.contains("/no/such/directory/x.tar"), "{e}");
}

#[test]
fn i6_an_archive_of_any_compression_is_loaded_from_a_file_or_a_pipe() {
    let made = busybox(&["myos:1", "myos:latest"]);
    let plain = made.archive();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("gzip");
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).expect("bzip2");
    let xz = piped("xz", &["-0", "-c"], &plain);
    let zstd = zstd::encode_all(&plain[..], 1).expect("zstd");
    for (name, bytes) in [
        ("myos.tar.xz", xz),
        ("myos.tar", plain),
        ("myos.tar.gz", gzip.finish().expect("gzip")),
        ("myos.tar.bz2", bzip2.finish().expect("bzip2")),
        ("myos.tar.zst", zstd),
    ] {
        let engine = Engine::new();
        let path = engine.path(name);
        fs::write(&path, &bytes).expect("write");
        let said = engine.prints(&["load", "-i", path.to_str().expect("UTF-8")]);
        let loaded: Vec<&str> = said.lines().filter(|line| line.starts_with("Loaded image")).collect();
        assert_eq!(loaded, ["Loaded image: myos:1", "Loaded image: myos:latest"], "{name}");
        assert_eq!(engine.id("myos"), made.id(), "{name}");
        assert!(
            engine.loads(&bytes).ends_with("Loaded image: myos:1\nLoaded image: myos:latest\n"),
            "{name}"
        );
    }
}

#[test]
fn i6_an_image_without_a_name_is_loaded_by_its_id() {
    let engine = Engine::new();
    let made = busybox(&[]);
    assert!(engine.loads(&made.archive()).ends_with(&format!("Loaded image ID: {}\n", made.id())));
    assert!(
        engine
            .prints(&["images"])
            .contains(&format!("\n<none>       <none>    {}   5 weeks ago", made.short()))
    );
}

#[test]
fn i7_an_image_is_tagged_by_name_and_by_id_without_a_word() {
    let engine = Engine::new();
    let made = zeros("a:1", 1, ago(1));
    engine.loads(&made.archive());
    assert_eq!(engine.prints(&["tag", "a:1", "localhost:5000/my-ubuntu"]), "");
    assert_eq!(engine.prints(&["image", "tag", &made.short(), "b:2"]), "");
    assert_eq!(engine.prints(&["tag", &made.id(), "docker.io/library/c:3"]), "");
    let tags = engine.prints(&["inspect", "-f", "{{json .RepoTags}}", "b:2"]);
    assert_eq!(tags, "[\"a:1\",\"b:2\",\"c:3\",\"localhost:5000/my-ubuntu:latest\"]\n");
    assert_eq!(engine.refuses(&["tag", "none:1", "x"]), "No such image: none:1");
    assert!(engine.refuses(&["tag", "a:1", "Upper:1"]).contains("must be lowercase"));
    assert!(engine.refuses(&["tag", "a:1", "a:"]).contains("invalid reference format"));
}

#[test]
fn i9_a_name_goes_and_the_image_with_its_last_name() {
    let engine = Engine::new();
    let made = zeros("a:1", 1, ago(1));
    engine.loads(&made.archive());
    let empty = Engine::new();
    empty.prints(&["images"]);
    engine.prints(&["tag", "a:1", "b:2"]);
    assert_eq!(engine.prints(&["rmi", "a:1"]), "Untagged: a:1\n");
    let said = engine.prints(&["image", "remove", "b:2"]);
    assert!(said.starts_with(&format!("Untagged: b:2\nDeleted: {}\n", made.id())), "{said}");
    assert_eq!(engine.prints(&["images", "-aq"]), "");
    assert_eq!(engine.files().len(), empty.files().len(), "{:?}", engine.files());
    assert_eq!(engine.refuses(&["rmi", "b:2"]), "No such image: b:2");
}

#[test]
fn i9_an_id_with_several_names_goes_by_force_alone() {
    let engine = Engine::new();
    let made = zeros("a:1", 1, ago(1));
    engine.loads(&archive(&[&made, &zeros("z:1", 2, ago(1))]));
    engine.prints(&["tag", "a:1", "b:2"]);
    let e = engine.refuses(&["rmi", &made.short()]);
    assert!(e.contains(&format!("conflict: unable to delete {} (must be forced)", made.short())), "{e}");
    // What can be removed is, though the other cannot.
    let output = engine.run(&["rmi", "none:1", "z:1"]);
    assert_eq!(refusal(&output, &["rmi"]), "No such image: none:1");
    assert!(text(&output.stdout).starts_with("Untagged: z:1\nDeleted: sha256:"));
    let said = engine.prints(&["image", "rm", "-f", &made.short()]);
    assert!(said.starts_with("Untagged: a:1\nUntagged: b:2\nDeleted: sha256:"), "{said}");
}

#[test]
fn i9_the_image_of_a_container_stays() {
    for running in [false, true] {
        let engine = Engine::new();
        let made = busybox(&["a:1"]);
        engine.loads(&made.archive());
        let container = match running {
            true => engine.prints(&["run", "-d", "--network", "none", "a:1", "busybox", "sleep", "600"]),
            false => engine.container("a:1"),
        };
        let container = &container[..12];
        let e = engine.refuses(&["rmi", "a:1"]);
        assert_eq!(
            e,
            format!(
                "conflict: unable to remove repository reference \"a:1\" (must force) - container {container} is \
                 using its referenced image {}",
                made.short()
            )
        );
        if running {
            let e = engine.refuses(&["rmi", "-f", &made.short()]);
            assert!(e.contains("(cannot be forced) - image is being used by running container"), "{e}");
            // By a tag only the tag goes, and the image is there for another.
            assert_eq!(engine.prints(&["rmi", "-f", "a:1"]), "Untagged: a:1\n");
            assert!(
                engine.prints(&["images"]).contains(&format!("\n<none>       <none>    {}", made.short()))
            );
            engine.prints(&["tag", &made.short(), "b:1"]);
            assert_eq!(engine.id("b:1"), made.id());
            engine.prints(&["rm", "-f", container]);
        } else {
            let said = engine.prints(&["rmi", "-f", &made.short()]);
            assert!(said.starts_with("Untagged: a:1\nDeleted: sha256:"), "{said}");
        }
    }
}

#[test]
fn i14_an_id_is_the_digest_of_the_configuration() {
    let engine = Engine::new();
    let made = busybox(&["busybox:1"]);
    engine.loads(&made.archive());
    let inspected = engine.inspect("busybox:1");
    assert_eq!(inspected["Id"], made.id());
    let layers: Vec<Value> = made.layers.iter().map(|layer| Digest::of(layer).to_string().into()).collect();
    assert_eq!(inspected["RootFS"], json!({"Type": "layers", "Layers": layers}));
    assert_eq!(inspected["Config"]["Cmd"], json!(["sh"]));
    for name in [&made.id()[..], &made.short(), &made.id()[7..11], "busybox:1", "docker.io/library/busybox:1"]
    {
        assert_eq!(engine.id(name), made.id(), "{name}");
    }
}

#[test]
fn i13_layers_of_several_images_are_kept_once() {
    let engine = Engine::new();
    let one = busybox(&["one:1"]);
    let two = Made { config: json!({"Cmd": ["true"]}), names: vec!["two:1".into()], ..busybox(&[]) };
    engine.loads(&archive(&[&one, &two]));
    assert_eq!(fs::read_dir(engine.root().join("layers")).expect("readdir").count(), 2);
    let df = engine.prints(&[
        "system",
        "df",
        "--format",
        "{{.Type}} {{.TotalCount}} {{.Active}} {{.Reclaimable}}",
    ]);
    assert!(
        df.starts_with("Images 2 0 ") && df.contains("(100%)\nContainers 0 0 0B\nLocal Volumes 0 0 0B\n"),
        "{df}"
    );
    let verbose = engine.prints(&["system", "df", "-v"]);
    assert!(
        verbose
            .starts_with("Images space usage:\n\nREPOSITORY   TAG       IMAGE ID       CREATED       SIZE")
    );
    assert_eq!(verbose.matches("0B").count(), 2, "nothing of them is unique: {verbose}");
    // One goes, and the other's layers stay.
    engine.prints(&["rmi", "one:1"]);
    assert_eq!(fs::read_dir(engine.root().join("layers")).expect("readdir").count(), 2);
    assert!(engine.run(&["save", "two:1"]).status.success());
}

#[test]
fn i15_a_missing_tag_is_latest() {
    let engine = Engine::new();
    engine.loads(&zeros("a:latest", 1, ago(1)).archive());
    assert_eq!(engine.id("a"), engine.id("a:latest"));
    assert_eq!(engine.refuses(&["history", "atguigu/mytomcat"]), "No such image: atguigu/mytomcat:latest");
}

#[test]
fn an_image_is_inspected_as_json_and_by_templates() {
    let engine = Engine::new();
    let made = busybox(&["busybox:1"]);
    engine.loads(&made.archive());
    let json = engine.prints(&["inspect", "busybox:1"]);
    assert!(json.starts_with(&format!("[\n    {{\n        \"Id\": \"{}\",\n", made.id())), "{json}");
    assert!(json.ends_with("\n    }\n]\n"));
    for (template, printed) in [
        ("{{.Config.Cmd}}", "[sh]"),
        ("{{json .Config.Env}}", "[\"PATH=/bin\"]"),
        ("{{.Os}}{{range .RepoTags}} {{.}}{{end}}", "linux busybox:1"),
        ("{{index .Config.Labels \"maker\"}}{{index .Config.Labels \"none\"}}", "a test"),
        ("{{len .RootFS.Layers}}", "2"),
        ("{{if .Config.Healthcheck}}well{{else}}nobody knows{{end}}", "nobody knows"),
    ] {
        assert_eq!(engine.prints(&["image", "inspect", "busybox:1", "-f", template]), format!("{printed}\n"));
    }
    let compact = engine.prints(&["inspect", "--type", "image", "--format", "json", "busybox:1"]);
    assert!(compact.starts_with("[{\"Id\":\"sha256:") && compact.lines().count() == 1);
    let e = engine.refuses(&["inspect", "-f", "{{.Nothing}}", "busybox:1"]);
    assert!(
        e.starts_with(
            "template parsing error: template: :1:2: executing \"\" at <.Nothing>: map has no entry"
        ),
        "{e}"
    );
    engine.refuses(&["inspect", "-f", "{{.Id", "busybox:1"]);
    // What is there is shown, and what is not is told.
    let output = engine.run(&["inspect", "nothing", "busybox:1"]);
    assert_eq!(refusal(&output, &[]), "No such object: nothing");
    assert_eq!(text(&output.stdout), json);
    let output = engine.run(&["image", "inspect", "none"]);
    assert_eq!(
        (refusal(&output, &[]), text(&output.stdout)),
        ("No such image: none:latest".into(), "[]\n".into())
    );
}

#[test]
fn a_root_filesystem_is_imported() {
    let engine = Engine::new();
    let rootfs = tar(&[("bin/", b"", 0o755), ("bin/sh", b"#!", 0o755)]);
    let output = engine
        .fed(&["import", "-c", "CMD [\"sh\"]", "-c", "ENV A=b", "-m", "made here", "-", "mine:1"], &rootfs);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let inspected = engine.inspect("mine:1");
    assert_eq!(text(&output.stdout), format!("{}\n", inspected["Id"].as_str().expect("an id")));
    assert_eq!((&inspected["Config"]["Cmd"], &inspected["Config"]["Env"]), (&json!(["sh"]), &json!(["A=b"])));
    assert_eq!(inspected["RootFS"]["Layers"], json!([Digest::of(&rootfs).to_string()]));
    assert!(engine.prints(&["history", "mine:1"]).contains("made here"));
    let path = engine.path("rootfs.tar");
    fs::write(&path, &rootfs).expect("write");
    let id = engine.prints(&["image", "import", path.to_str().expect("UTF-8")]);
    assert!(engine.prints(&["images", "-q", "--no-trunc", "-f", "dangling=true"]).contains(id.trim()));
    for arguments in [
        &["import", "-c", "FROM x", path.to_str().expect("UTF-8"), "x"][..],
        &["import", "/no/such/file", "x"],
        &["import", path.to_str().expect("UTF-8"), "UPPER"],
        &["import", "--platform", "a/b/c/d", path.to_str().expect("UTF-8")],
    ] {
        engine.refuses(arguments);
    }
    assert!(
        engine
            .refuses(&["import", "http://localhost/x.tar"])
            .ends_with("(curl -L http://localhost/x.tar | rrunctl import -)")
    );
}

#[test]
fn unused_images_are_pruned_after_a_question() {
    let engine = Engine::new();
    let old = zeros("a:1", 1_500, ago(2));
    engine.loads(&archive(&[&old, &zeros("used:1", 5, ago(2)), &zeros("unused:1", 7, ago(2))]));
    engine.loads(&zeros("a:1", 2, ago(1)).archive());
    engine.container("used:1");
    assert_eq!(engine.prints(&["images", "-q", "-f", "dangling=true"]), format!("{}\n", old.short()));
    let output = engine.fed(&["image", "prune"], b"n\n");
    assert!(output.status.success(), "no is an answer");
    assert_eq!(engine.prints(&["images", "-q", "-f", "dangling=true"]), format!("{}\n", old.short()));
    let question =
        "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] \n";
    assert_eq!(text(&output.stdout), question);
    let output = engine.fed(&["image", "prune"], b"y\n");
    assert!(output.status.success());
    let said = text(&output.stdout);
    assert!(said.starts_with(&format!("{question}Deleted Images:\ndeleted: {}\n", old.id())), "{said}");
    assert!(said.contains("\n\nTotal reclaimed space: "), "{said}");
    assert_eq!(engine.prints(&["image", "prune", "-f"]), "Total reclaimed space: 0B\n");
    let said = engine.prints(&["image", "prune", "--all", "--force"]);
    assert!(said.contains("untagged: a:1\n") && said.contains("untagged: unused:1\n"), "{said}");
    assert_eq!(engine.prints(&["images", "--format", "{{.Repository}}"]), "used\n");
    engine.refuses(&["image", "prune", "-f", "--filter", "until=never"]);
}

#[test]
fn what_nobody_uses_and_what_a_killed_command_left_is_pruned() {
    let engine = Engine::new();
    engine.loads(&zeros("a:1", 1_500, ago(2)).archive());
    fs::create_dir_all(engine.root().join("tmp/layer.left")).expect("mkdir");
    fs::write(engine.root().join("tmp/layer.left/file"), [0; 5000]).expect("write");
    let said = engine.prints(&["system", "prune", "-f"]);
    assert_eq!(said, "Total reclaimed space: 5kB\n");
    assert_eq!(fs::read_dir(engine.root().join("tmp")).expect("readdir").count(), 0);
    assert!(engine.prints(&["system", "prune", "-af"]).starts_with("Deleted Images:\nuntagged: a:1\n"));
}

#[test]
fn wrong_archives_are_refused_in_one_line_and_leave_nothing() {
    let engine = Engine::new();
    engine.loads(&zeros("a:1", 1, ago(1)).archive());
    let before = engine.files();
    let whole = busybox(&["busybox:1"]).archive();
    let mut damaged = busybox(&["busybox:1"]);
    let config = damaged.config();
    damaged.layers[1][600] ^= 1;
    let mut other_layer = tar::Builder::new(Vec::new());
    // The configuration of the whole image over the damaged layer.
    for (path, bytes) in
        [("c.json", &config), ("0/layer.tar", &damaged.layers[0]), ("1/layer.tar", &damaged.layers[1])]
    {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        other_layer.append_data(&mut header, path, &bytes[..]).expect("tar");
    }
    let manifest =
        json!([{"Config": "c.json", "RepoTags": ["busybox:1"], "Layers": ["0/layer.tar", "1/layer.tar"]}])
            .to_string();
    let mut header = tar::Header::new_ustar();
    header.set_size(manifest.len() as u64);
    header.set_mode(0o644);
    other_layer.append_data(&mut header, "manifest.json", manifest.as_bytes()).expect("tar");
    let escape = |config: &str, layer: &str| {
        let manifest = json!([{"Config": config, "RepoTags": ["x:1"], "Layers": [layer]}]).to_string();
        tar(&[("c.json", &config_of_nothing(), 0o644), ("manifest.json", manifest.as_bytes(), 0o644)])
    };
    for (what, archive) in [
        ("empty", Vec::new()),
        ("no tar", b"this is no archive, whatever it may be".repeat(100)),
        ("a tar of something else", tar(&[("etc/motd", b"hello", 0o644)])),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("cut gzip", {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&whole).expect("gzip");
            let gzip = gzip.finish().expect("gzip");
            gzip[..gzip.len() / 2].to_vec()
        }),
        ("a layer that is another", other_layer.into_inner().expect("tar")),
        ("a manifest that is no JSON", tar(&[("manifest.json", b"{", 0o644)])),
        ("a configuration outside", escape("../../../../etc/passwd", "c.json")),
        ("a layer that is missing", escape("c.json", "missing/layer.tar")),
    ] {
        let output = engine.fed(&["load"], &archive);
        refusal(&output, &[what]);
        assert_eq!(engine.files(), before, "{what}");
        assert_eq!(fs::read_dir(engine.root().join("tmp")).expect("readdir").count(), 0, "{what}");
    }
    assert_eq!(
        engine.refuses(&["load", "-i", "/no/such/file.tar"]),
        "open /no/such/file.tar: no such file or directory"
    );
    assert!(engine.refuses(&["load", "-i", "/"]).starts_with("load /: "));
    for arguments in [&["rmi", "none"][..], &["history", "none"], &["save", "none"], &["tag", "none", "x"]] {
        assert!(engine.refuses(arguments).contains("No such image: none:latest"), "{arguments:?}");
    }
    for name in ["", "a b", "A", "a:b:c", "-", "\u{1b}[2J", &"a".repeat(5000)] {
        engine.refuses(&["history", "--", name]);
    }
}

fn config_of_nothing() -> Vec<u8> {
    json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids":
        [Digest::of(b"").to_string()]}})
    .to_string()
    .into_bytes()
}

#[test]
fn a_reader_who_goes_away_is_no_failure() {
    let engine = Engine::new();
    engine.loads(&zeros("a:1", 3_000_000, ago(1)).archive());
    for arguments in
        [&["images"][..], &["inspect", "a:1"], &["save", "a:1"], &["history", "a:1"], &["completion", "bash"]]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output =
            engine.command(arguments).stdout(writer).stderr(Stdio::piped()).output().expect("rrunctl starts");
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{arguments:?}");
    }
    // A full disk is one.
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let output =
        engine.command(&["images"]).stdout(full).stderr(Stdio::piped()).output().expect("rrunctl starts");
    assert_eq!(refusal(&output, &["images"]), "write to standard output: no space left on device");
}

#[test]
fn the_root_is_taken_from_the_environment() {
    let engine = Engine::new();
    engine.loads(&zeros("a:1", 1, ago(1)).archive());
    let mut command = Command::new(crate::harness::program("rrunctl"));
    let output = command
        .args(["images", "-q", "--run"])
        .arg(engine.path("run"))
        .env("RRUNCTL_ROOT", engine.root())
        .output()
        .expect("rrunctl starts");
    assert_eq!(text(&output.stdout).lines().count(), 1, "{}", text(&output.stderr));
    let blocked = engine.path("file");
    fs::write(&blocked, "").expect("write");
    let e = engine.refuses(&["--root", blocked.join("x").to_str().expect("UTF-8"), "images"]);
    assert!(e.starts_with("mkdir ") && e.ends_with("not a directory"), "{e}");
}

#[test]
fn e2_e7_info_and_version_say_what_is_there() {
    let engine = Engine::new();
    engine.loads(&zeros("a:1", 1, ago(1)).archive());
    let config = engine.path("daemon.json");
    fs::write(
        &config,
        r#"{"registry-mirrors": ["https://mirror.example"], "insecure-registries": ["reg:5002"]}"#,
    )
    .expect("write");
    let output = engine.run(&["info", "--config", config.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let info = text(&output.stdout);
    let lines: Vec<&str> = info.lines().collect();
    let block = |first: &str, count: usize| {
        let n = lines.iter().position(|line| *line == first).unwrap_or_else(|| panic!("{first}: {info}"));
        lines[n..n + count].to_vec()
    };
    assert_eq!(
        block(" Containers: 0", 5),
        [" Containers: 0", "  Running: 0", "  Paused: 0", "  Stopped: 0", " Images: 1"]
    );
    block(" Server Version: 0.1.0", 1);
    block(" Storage Driver: overlay2", 1);
    block("  Supports d_type: true", 1);
    block("  Native Overlay Diff: true", 1);
    block(" Logging Driver: json-file", 1);
    block(" Cgroup Driver: cgroupfs", 1);
    block("  Volume: local", 2);
    block(" Swarm: inactive", 1);
    block("  seccomp", 2);
    block(" OSType: linux", 1);
    block(&format!(" Docker Root Dir: {}", engine.root().display()), 1);
    block(" Debug Mode: false", 1);
    block(" Registry: https://index.docker.io/v1/", 1);
    block(" Experimental: false", 1);
    assert_eq!(block(" Insecure Registries:", 4)[1..], ["  reg:5002", "  127.0.0.0/8", "  ::1/128"]);
    assert_eq!(block(" Registry Mirrors:", 2)[1], "  https://mirror.example/");
    block(" Live Restore Enabled: false", 1);
    let format = |format: &str| text(&engine.run(&["info", "--format", format]).stdout);
    assert_eq!(format("{{.ServerVersion}}"), "0.1.0\n");
    assert_eq!(format("{{.ID}}"), format("{{.ID}}"), "an engine stays the same");
    let json: Value = serde_json::from_str(&format("json")).expect("JSON");
    assert!(json["NCPU"].as_u64() > Some(0) && json["MemTotal"].as_u64() > Some(1 << 20));
    let version = engine.prints(&["version"]);
    assert!(
        version.starts_with("Client:\n Version:           0.1.0\n")
            && version.contains("\nServer: rrunctl\n")
    );
    assert_eq!(engine.prints(&["version", "-f", "{{.Client.Version}} {{.Server.Os}}"]), "0.1.0 linux\n");
    let e = engine.refuses(&["info", "--config", "/no/such/daemon.json"]);
    assert_eq!(e, "read /no/such/daemon.json: no such file or directory");
    fs::write(&config, "{“registry-mirrors”: []}").expect("write");
    let e = engine.refuses(&["info", "--config", config.to_str().expect("UTF-8")]);
    assert!(e.contains("daemon.json:1:"), "the line and the column: {e}");
}

#[test]
fn e8_the_kernels_configuration_is_checked() {
    let engine = Engine::new();
    let config = engine.path("config");
    fs::write(&config, "CONFIG_NAMESPACES=y\n# CONFIG_VETH is not set\nCONFIG_OVERLAY_FS=m\n")
        .expect("write");
    let output = engine.run(&["check-config", config.to_str().expect("UTF-8")]);
    assert!(refusal(&output, &[]).contains(" CONFIG_VETH "), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(
        table.contains("CONFIG_NAMESPACES   built in\n") && table.contains("CONFIG_OVERLAY_FS    module\n"),
        "{table}"
    );
    let e = engine.refuses(&["check-config", "/no/such/config"]);
    assert!(e.contains("/no/such/config") && e.ends_with("name the file)"), "{e}");
}

#[test]
fn e9_help_has_examples_and_a_wrong_word_a_hint() {
    let engine = Engine::new();
    assert!(engine.prints(&["help"]).contains("\n  images "));
    let help = engine.prints(&["images", "--help"]);
    assert!(help.contains("Examples:\n  rrunctl images\n"), "{help}");
    assert_eq!(engine.prints(&["help", "images"]).lines().next(), help.lines().next());
    assert!(engine.prints(&["image"]).contains("Commands:"));
    let e = engine.refuses(&["imags"]);
    assert!(e.contains("'images'") && e.ends_with("(see 'rrunctl --help')"), "{e}");
    let e = engine.refuses(&["tag", "one"]);
    assert!(e.contains("TARGET_IMAGE") && e.ends_with("(see 'rrunctl tag --help')"), "{e}");
    let output = engine.run(&["images", "--quite"]);
    let e = text(&output.stderr);
    assert_eq!((output.status.code(), e.lines().count()), (Some(125), 1), "{e}");
    assert!(e.contains("'--quiet'") && e.ends_with("(see 'rrunctl images --help')\n"), "{e}");
}

#[test]
fn e9_shells_complete_and_there_are_manual_pages() {
    let engine = Engine::new();
    for (shell, words) in
        [("bash", "_rrunctl() {"), ("zsh", "#compdef rrunctl"), ("fish", "complete -c rrunctl")]
    {
        let script = engine.prints(&["completion", shell]);
        assert!(
            script.contains(words) && script.contains("images") && script.contains("no-trunc"),
            "{shell}"
        );
    }
    let script = engine.path("bash");
    fs::write(&script, engine.prints(&["completion", "bash"])).expect("write");
    let completed = Command::new("bash")
        .args(["--norc", "-c", ". $0; COMP_WORDS=(rrunctl image l); COMP_CWORD=2; _rrunctl rrunctl l image; echo ${COMPREPLY[@]}"])
        .arg(&script)
        .output()
        .expect("bash");
    assert_eq!(text(&completed.stdout), "load ls list\n", "{}", text(&completed.stderr));
    let man = engine.path("man/man1");
    assert_eq!(engine.prints(&["generate", "man", man.to_str().expect("UTF-8")]), "");
    for page in ["rrunctl.1", "rrunctl-images.1", "rrunctl-image-ls.1", "rrunctl-system-df.1"] {
        let page = fs::read_to_string(man.join(page)).expect(page);
        assert!(page.contains(".TH") && page.contains(".SH NAME"), "{page}");
    }
    assert!(fs::read_to_string(man.join("rrunctl-save.1")).expect("a page").contains("busybox.tar"));
    let e = engine.refuses(&["generate", "man", "/proc/none"]);
    assert!(e.starts_with("mkdir /proc/none: "), "{e}");
}

#[test]
fn a_terminal_sees_each_layer_where_it_stands() {
    let engine = Engine::new();
    let archive = engine.path("a.tar");
    fs::write(&archive, busybox(&["busybox:1"]).archive()).expect("write");
    let load = engine.command(&["load", "-i", archive.to_str().expect("UTF-8")]);
    let seen = terminal(&load, "stty cols 140", &[]);
    assert!(seen.contains("\x1b[1A\r\x1b[2K") && seen.contains("Loaded image: busybox:1"), "{seen:?}");
    // Nothing is read from it, and nothing is saved to it.
    let seen = terminal(&engine.command(&["save", "busybox:1"]), ":", &[]);
    assert!(
        seen.contains("Error: cowardly refusing to save to a terminal (use -o FILE, or redirect)"),
        "{seen:?}"
    );
    let seen = terminal(&engine.command(&["load"]), ":", &[]);
    assert!(seen.contains("Error: requested load from stdin, but stdin is empty (use -i FILE)"), "{seen:?}");
    let seen = terminal(&engine.command(&["image", "prune", "-a"]), ":", &[("[y/N] ", "y\n")]);
    assert!(
        seen.contains("continue? [y/N] ") && seen.contains("Deleted Images:\r\nuntagged: busybox:1\r\n"),
        "{seen:?}"
    );
}
