//! Pull, push, login and logout: with Debian's docker-registry, and with a registry that misbehaves as a test tells it.

#[path = "registry/fault.rs"]
mod fault;

use fault::{Fault, answer, head, serve};
use rrunctl::digest::Digest;
use rrunctl::error::Kind;
use rrunctl::home::{self, Home};
use rrunctl::image::{Platform, media_type};
use rrunctl::progress::Event;
use rrunctl::reference::Reference;
use rrunctl::registry::{Auth, Client, Credentials, Kept, PullOptions, Timeouts};
use rrunctl::settings::Settings;
use rrunctl::store::Store;
use serde_json::json;
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

// ---------------------------------------------------------------- what the tests stand on

/// A directory that is removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("rrunctl-registry-{}", home::unique().expect("random")));
        fs::create_dir(&dir).expect("mkdir");
        Self(dir)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("write");
        path
    }

    fn store(&self, name: &str) -> Store {
        let dir = self.0.join(name);
        Store::open(&Home::open(&dir.join("root"), &dir.join("run")).expect("home")).expect("store")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = home::remove_tree(&self.0);
    }
}

/// A process that is ended at the end.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's docker-registry on a port of its own.
struct Registry {
    address: String,
    _process: Process,
}

impl Registry {
    fn new(dir: &Dir, name: &str, http: &str, more: &str) -> Self {
        let root = dir.0.join(name);
        let config = dir.file(
            &format!("{name}.yml"),
            &format!(
                "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n  secret: x\n{http}{more}",
                root.display()
            ),
        );
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is missing: apt-get install docker-registry");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let process = Process(child);
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).expect("a log") > 0, "docker-registry ended before it listened");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ',']).next().expect("an address").to_owned();
            }
        };
        // It must not wait for who reads its log.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { address, _process: process }
    }

    fn plain(dir: &Dir, name: &str) -> Self {
        Self::new(dir, name, "", "")
    }

    /// Puts an image there by hand.
    fn seed(&self, repository: &str, tag: &str, image: &Built) {
        let base = format!("http://{}/v2/{repository}", self.address);
        for (digest, blob) in &image.blobs {
            let begun = ureq::post(format!("{base}/blobs/uploads/")).send_empty().expect("POST");
            let at = begun.headers()["location"].to_str().expect("text").to_owned();
            ureq::put(format!("{at}&digest={digest}")).send(&blob[..]).expect("PUT");
        }
        for (digest, (media_type, bytes)) in &image.documents {
            let name = if *digest == image.named { tag.to_owned() } else { digest.to_string() };
            let put = ureq::put(format!("{base}/manifests/{name}")).content_type(media_type.as_str());
            put.send(&bytes[..]).expect("PUT");
        }
    }

    fn manifest(&self, repository: &str, tag: &str) -> (String, Vec<u8>) {
        let mut got = ureq::get(format!("http://{}/v2/{repository}/manifests/{tag}", self.address))
            .header("Accept", media_type::MANIFEST)
            .header("Accept", media_type::DOCKER_MANIFEST)
            .header("Accept", media_type::INDEX)
            .call()
            .expect("GET");
        let kind = got.headers()["content-type"].to_str().expect("text").to_owned();
        (kind, got.body_mut().read_to_vec().expect("a body"))
    }
}

/// An image as it is in a registry.
#[derive(Clone)]
pub struct Built {
    blobs: HashMap<Digest, Vec<u8>>,
    /// Manifests and indexes; what others refer to comes first.
    documents: Vec<(Digest, (String, Vec<u8>))>,
    /// What a tag refers to.
    named: Digest,
    layers: Vec<Digest>,
    config: Digest,
}

#[derive(Clone, Copy)]
enum Packed {
    Not,
    Gzip,
    Zstd,
}

/// A layer with one file of `length` bytes that do not compress.
fn tar_of(name: &str, length: usize) -> Vec<u8> {
    let (mut content, mut n) = (Vec::with_capacity(length), 1u64);
    while content.len() < length {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(name.len() as u64 + 1);
        content.extend_from_slice(&(n >> 16).to_le_bytes()[..4]);
    }
    content.truncate(length);
    let mut tar = tar::Builder::new(Vec::new());
    let mut root = tar::Header::new_gnu();
    root.set_entry_type(tar::EntryType::Directory);
    root.set_mode(0o755);
    root.set_size(0);
    tar.append_data(&mut root, "./", std::io::empty()).expect("append");
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, &content[..]).expect("append");
    tar.into_inner().expect("tar")
}

fn build(layers: &[(&str, usize, Packed)], docker: bool, architecture: &str) -> Built {
    let (mut blobs, mut descriptors, mut diff_ids, mut order) =
        (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, length, packed) in layers {
        let tar = tar_of(name, *length);
        diff_ids.push(Digest::of(&tar));
        let (blob, kind) = match packed {
            Packed::Not => (tar, media_type::LAYER),
            Packed::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(&tar).expect("gzip");
                let kind = if docker { media_type::DOCKER_LAYER_GZIP } else { media_type::LAYER_GZIP };
                (gzip.finish().expect("gzip"), kind)
            }
            Packed::Zstd => (zstd::encode_all(&tar[..], 1).expect("zstd"), media_type::LAYER_ZSTD),
        };
        let digest = Digest::of(&blob);
        descriptors.push(json!({"mediaType": kind, "digest": digest, "size": blob.len()}));
        order.push(digest);
        blobs.insert(digest, blob);
    }
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "created": "2026-01-01T00:00:00Z"});
    // Blanks that a parser would not write: what is pushed has to be what was pulled.
    let config = format!(" {config}\n").into_bytes();
    let (kind, config_kind) = if docker {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    } else {
        (media_type::MANIFEST, media_type::CONFIG)
    };
    let digest = Digest::of(&config);
    let manifest = json!({"schemaVersion": 2, "mediaType": kind,
        "config": {"mediaType": config_kind, "size": config.len(), "digest": digest}, "layers": descriptors});
    let manifest = format!("{manifest:#}\n\n").into_bytes();
    blobs.insert(digest, config);
    let named = Digest::of(&manifest);
    Built {
        blobs,
        documents: vec![(named, (kind.to_owned(), manifest))],
        named,
        layers: order,
        config: digest,
    }
}

/// One index of several images.
fn index(images: &[(&str, Built)]) -> Built {
    let (mut blobs, mut documents, mut manifests) = (HashMap::new(), Vec::new(), Vec::new());
    for (architecture, image) in images {
        blobs.extend(image.blobs.clone());
        documents.extend(image.documents.clone());
        let (digest, (kind, bytes)) = &image.documents[0];
        manifests.push(json!({"mediaType": kind, "digest": digest, "size": bytes.len(),
            "platform": {"architecture": architecture, "os": "linux"}}));
    }
    let index =
        json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests}).to_string();
    let named = Digest::of(index.as_bytes());
    documents.push((named, (media_type::INDEX.to_owned(), index.into_bytes())));
    Built { blobs, documents, named, layers: images[0].1.layers.clone(), config: images[0].1.config }
}

/// Small, of this machine.
fn small() -> Built {
    build(&[("a", 3000, Packed::Gzip), ("bb", 5000, Packed::Gzip)], true, &Platform::host().architecture)
}

fn client(settings: &Settings) -> Client {
    let mut client = Client::new(settings, Credentials::default());
    client.timeouts = Timeouts {
        connect: Duration::from_secs(20),
        idle: Duration::from_secs(20),
        commit: Duration::from_secs(60),
        backoff: Duration::from_millis(10),
        patience: Duration::from_secs(2),
        tries: 4,
    };
    // Nothing here may reach for the real one.
    client.hub = "http://127.0.0.1:1/".to_owned();
    client.certs = PathBuf::from("/nonexistent");
    client
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("a reference")
}

/// Pulls, and tells what happened: a line each, without how far something is.
fn pull(client: &Client, store: &Store, name: &str) -> (rrunctl::Result<rrunctl::image::Image>, Vec<String>) {
    pull_with(client, store, name, &PullOptions::default())
}

fn pull_with(
    client: &Client,
    store: &Store,
    name: &str,
    options: &PullOptions,
) -> (rrunctl::Result<rrunctl::image::Image>, Vec<String>) {
    let lines = Mutex::new(Vec::new());
    let image = client.pull(store, &reference(name), options, &|event| collect(&lines, event));
    (image, lines.into_inner().expect("lines"))
}

fn push(client: &Client, store: &Store, name: &str) -> (rrunctl::Result<Digest>, Vec<String>) {
    let lines = Mutex::new(Vec::new());
    let digest = client.push(store, &reference(name), &|event| collect(&lines, event));
    (digest, lines.into_inner().expect("lines"))
}

fn collect(lines: &Mutex<Vec<String>>, event: Event) {
    match event {
        Event::Line(line) => lines.lock().expect("lines").push(line),
        Event::Status { id, text } => lines.lock().expect("lines").push(format!("{id}: {text}")),
        Event::Bytes { done, total, .. } => assert!(done <= total, "{done} of {total}"),
    }
}

/// Nothing of a pull that failed can be seen.
fn assert_nothing(store: &Store, image: &Built) {
    assert!(store.images().list().expect("list").is_empty());
    for layer in &image.layers {
        assert!(store.blobs().open(layer).expect("open").is_none(), "{layer}");
    }
}

fn error<T: std::fmt::Debug>((result, _): (rrunctl::Result<T>, Vec<String>)) -> rrunctl::Error {
    result.expect_err("must fail")
}

// ---------------------------------------------------------------- docker-registry

#[test]
fn what_is_pulled_and_pushed_is_the_same_byte_for_byte() {
    let dir = Dir::new();
    let (one, two) = (Registry::plain(&dir, "one"), Registry::plain(&dir, "two"));
    let host = Platform::host().architecture;
    let layers = [("a", 100_000, Packed::Gzip), ("bb", 500_000, Packed::Zstd), ("ccc", 10, Packed::Not)];
    for (n, image) in [build(&layers, false, &host), small()].into_iter().enumerate() {
        let store = dir.store(&format!("store{n}"));
        let client = client(&Settings::default());
        let name = format!("{}/team/x{n}:v1", one.address);
        one.seed(&format!("team/x{n}"), "v1", &image);

        let (pulled, lines) = pull(&client, &store, &name);
        let pulled = pulled.expect("pull");
        assert_eq!((pulled.id, pulled.manifest.digest), (image.config, image.named));
        assert_eq!(lines[0], format!("v1: Pulling from team/x{n}"));
        for layer in &image.layers {
            let of_layer: Vec<&str> =
                lines.iter().filter_map(|line| line.strip_prefix(&format!("{}: ", layer.short()))).collect();
            let words = ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"];
            assert_eq!(of_layer, words, "{lines:?}");
            assert_eq!(store.blobs().read(layer, 1 << 30).expect("the blob"), image.blobs[layer]);
        }
        assert_eq!(lines[lines.len() - 2], format!("Digest: {}", image.named));
        assert_eq!(lines[lines.len() - 1], format!("Status: Downloaded newer image for {name}"));

        let (again, lines) = pull(&client, &store, &name);
        again.expect("pull");
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[2], format!("Status: Image is up to date for {name}"));

        // Another name in the same registry: nothing is sent.
        let mounted = format!("{}/other:v2", one.address);
        store.images().tag(&reference(&mounted), &pulled).expect("tag");
        let (pushed, lines) = push(&client, &store, &mounted);
        assert_eq!(pushed.expect("push"), image.named);
        assert_eq!(lines[0], format!("The push refers to repository [{}/other]", one.address));
        let is_mounted = |line: &&String| line.ends_with(&format!(": Mounted from team/x{n}"));
        assert_eq!(lines.iter().filter(is_mounted).count(), image.layers.len(), "{lines:?}");
        let (kind, bytes) = &image.documents[0].1;
        assert_eq!(
            lines.last().expect("a line"),
            &format!("v2: digest: {} size: {}", image.named, bytes.len())
        );
        assert_eq!(one.manifest("other", "v2"), (kind.clone(), bytes.clone()));

        // Another registry: everything is sent, once.
        let sent = format!("{}/x:latest", two.address);
        store.images().tag(&reference(&sent), &pulled).expect("tag");
        for words in ["Pushed", "Layer already exists"] {
            let (pushed, lines) = push(&client, &store, &sent);
            assert_eq!(pushed.expect("push"), image.named);
            let ended = |line: &&String| line.ends_with(&format!(": {words}"));
            assert_eq!(lines.iter().filter(ended).count(), image.layers.len(), "{lines:?}");
        }
        assert_eq!(two.manifest("x", "latest"), (kind.clone(), bytes.clone()));
        let (back, _) = pull(&client, &dir.store(&format!("back{n}")), &sent);
        assert_eq!(back.expect("pull").id, image.config);
    }
}

#[test]
fn of_an_index_the_platform_is_chosen_and_the_name_keeps_the_index() {
    let dir = Dir::new();
    let registry = Registry::plain(&dir, "r");
    let host = Platform::host().architecture;
    let other = if host == "s390x" { "amd64" } else { "s390x" };
    let (mine, theirs) =
        (build(&[("a", 100, Packed::Gzip)], false, &host), build(&[("b", 100, Packed::Gzip)], false, other));
    let both = index(&[(host.as_str(), mine.clone()), (other, theirs.clone())]);
    registry.seed("x", "latest", &both);
    let (store, client) = (dir.store("s"), client(&Settings::default()));
    let name = format!("{}/x", registry.address);

    let (pulled, lines) = pull(&client, &store, &name);
    assert_eq!(pulled.expect("pull").id, mine.config);
    assert!(lines.contains(&format!("Digest: {}", both.named)), "{lines:?}");
    let pinned = format!("{name}@{}", both.named);
    assert_eq!(store.images().resolve(&pinned).expect("by the digest of the index").id, mine.config);

    let options =
        PullOptions { platform: Some(Platform::parse(&format!("linux/{other}")).expect("a platform")) };
    let (pulled, _) = pull_with(&client, &store, &pinned, &options);
    assert_eq!(pulled.expect("pull").id, theirs.config);

    let options = PullOptions { platform: Some(Platform::parse("linux/mips").expect("a platform")) };
    let none = error(pull_with(&client, &store, &name, &options)).to_string();
    assert!(none.contains("no matching manifest for linux/mips in the manifest list entries"), "{none}");
    let alone = format!("{name}@{}", mine.named);
    let wrong = error(pull_with(&client, &store, &alone, &options)).to_string();
    assert!(
        wrong.contains("does not match the specified platform: wanted linux/mips, actual: linux/"),
        "{wrong}"
    );
}

#[test]
fn what_is_not_there_is_told_in_dockers_words() {
    let dir = Dir::new();
    let registry = Registry::plain(&dir, "r");
    registry.seed("x", "v1", &small());
    let (store, client) = (dir.store("s"), client(&Settings::default()));
    let name = format!("{}/x:v2", registry.address);
    let e = error(pull(&client, &store, &name));
    assert_eq!(e.to_string(), format!("manifest for {name} not found: manifest unknown: manifest unknown"));
    assert_eq!(e.kind(), Kind::NotFound);
    let e = error(push(&client, &store, &format!("{}/x:v3", registry.address)));
    assert_eq!(
        e.to_string(),
        format!("An image does not exist locally with the tag: {}/x", registry.address)
    );
}

#[test]
fn a_registry_without_tls_has_to_be_allowed() {
    let dir = Dir::new();
    let registry = Registry::plain(&dir, "r");
    let e = error(pull(&client(&strict()), &dir.store("s"), &format!("{}/x", registry.address))).to_string();
    assert!(e.contains("http: server gave HTTP response to HTTPS client"), "{e}");
    assert!(e.contains(&format!("add \"{}\" to insecure-registries", registry.address)), "{e}");
}

/// An authority, a certificate for 127.0.0.1 that it signed, and one for clients.
fn certificates(dir: &Dir) {
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
        for who in server client; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$who -keyout $who.key -out $who.csr
            printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\nextendedKeyUsage=serverAuth,clientAuth' >$who.ext
            openssl x509 -req -days 2 -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile $who.ext -out $who.pem
        done";
    let made = Command::new("sh").arg("-c").arg(script).current_dir(&dir.0).output().expect("sh");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}

/// `user` with `pass word:1`.
fn htpasswd(dir: &Dir) -> PathBuf {
    let made = Command::new("htpasswd")
        .args(["-nbBC", "4", "user", "pass word:1"])
        .output()
        .expect("htpasswd is missing: apt-get install apache2-utils");
    dir.file("htpasswd", &String::from_utf8(made.stdout).expect("text"))
}

/// Nothing is insecure, not even 127.0.0.1: so certificates count there.
fn strict() -> Settings {
    let mut settings = Settings::default();
    settings.insecure_registries.clear();
    settings
}

#[test]
fn a_login_is_checked_kept_used_and_forgotten() {
    let dir = Dir::new();
    certificates(&dir);
    let path = |name: &str| dir.0.join(name).display().to_string();
    let registry = Registry::new(
        &dir,
        "r",
        &format!("  tls:\n    certificate: {}\n    key: {}\n", path("server.pem"), path("server.key")),
        &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd(&dir).display()),
    );
    let mut client = client(&strict());
    client.credentials = Credentials::at(&dir.0.join("docker/config.json"));

    let e = client.login(&registry.address, "user", "pass word:1").expect_err("nobody knows its authority");
    assert!(e.to_string().contains("x509: certificate signed by unknown authority"), "{e}");
    assert!(e.to_string().contains(&format!("/etc/docker/certs.d/{}/ca.crt", registry.address)), "{e}");

    client.certs = dir.0.join("certs.d");
    let certs = client.certs.join(&registry.address);
    fs::create_dir(&client.certs).expect("mkdir");
    fs::create_dir(&certs).expect("mkdir");
    fs::copy(dir.0.join("ca.pem"), certs.join("ca.crt")).expect("copy");

    let e = client.login(&registry.address, "user", "wrong").expect_err("a wrong password");
    assert_eq!(e.kind(), Kind::Unauthorized);
    let told =
        format!("login attempt to https://{}/v2/ failed with status: 401 Unauthorized", registry.address);
    assert_eq!(e.to_string(), told);
    assert!(!dir.0.join("docker/config.json").exists());

    let (store, image) = (dir.store("s"), small());
    let name = format!("{}/x:latest", registry.address);
    let e = error(pull(&client, &store, &name));
    assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Unauthorized, "no basic auth credentials"));

    let kept = client.login(&registry.address, "user", "pass word:1").expect("the right password").kept;
    assert_eq!(kept, Kept::File(dir.0.join("docker/config.json")));
    let mode = fs::metadata(dir.0.join("docker/config.json")).expect("stat").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // What is pushed comes from another registry.
    let plain = Registry::plain(&dir, "plain");
    plain.seed("y", "latest", &image);
    let from = format!("{}/y", plain.address);
    let mut insecure = client.clone();
    insecure.settings = Settings::default();
    let pulled = pull(&insecure, &store, &from).0.expect("pull");
    store.images().tag(&reference(&name), &pulled).expect("tag");
    push(&client, &store, &name).0.expect("push with a password");
    let other = dir.store("other");
    pull(&client, &other, &name).0.expect("pull with a password");

    let given = Auth::Password { username: "user".into(), password: "no".into() };
    let mut wrong = client.clone();
    wrong.credentials = Credentials::given(given);
    let e = error(pull(&wrong, &dir.store("wrong"), &name));
    assert_eq!(
        (e.kind(), e.to_string().as_str()),
        (Kind::Unauthorized, "unauthorized: authentication required")
    );

    let address = &registry.address;
    assert_eq!(client.logout(address).expect("logout"), format!("Removing login credentials for {address}"));
    assert_eq!(client.logout(address).expect("logout"), format!("Not logged in to {address}"));
    assert_eq!(client.credentials.get(address).expect("readable"), Auth::Anonymous);

    // Where no certificate is asked for none is checked.
    insecure.login(address, "user", "pass word:1").expect("an insecure registry");
}

#[test]
fn a_registry_may_want_a_certificate_of_its_clients() {
    let dir = Dir::new();
    certificates(&dir);
    let path = |name: &str| dir.0.join(name).display().to_string();
    let registry = Registry::new(
        &dir,
        "r",
        &format!(
            "  tls:\n    certificate: {}\n    key: {}\n    clientcas: [{}]\n",
            path("server.pem"),
            path("server.key"),
            path("ca.pem")
        ),
        "",
    );
    let mut client = client(&strict());
    client.certs = dir.0.join("certs.d");
    let certs = client.certs.join(&registry.address);
    fs::create_dir(&client.certs).expect("mkdir");
    fs::create_dir(&certs).expect("mkdir");
    fs::copy(dir.0.join("ca.pem"), certs.join("ca.crt")).expect("copy");
    let login = || client.authenticate(&registry.address, "u", "p").map(drop).map_err(|e| e.to_string());
    login().expect_err("no certificate");

    fs::copy(dir.0.join("client.pem"), certs.join("client.cert")).expect("copy");
    assert!(login().expect_err("no key").contains("missing key "));
    // A key that is not the certificate's must not panic.
    fs::copy(dir.0.join("server.key"), certs.join("client.key")).expect("copy");
    assert!(login().expect_err("another key").contains("client.cert and its key: "));
    fs::copy(dir.0.join("client.key"), certs.join("client.key")).expect("copy");
    login().expect("with a certificate");
    fs::remove_file(certs.join("client.cert")).expect("remove");
    assert!(login().expect_err("no certificate").contains("missing client certificate "));
}

#[test]
fn a_mirror_is_asked_before_docker_hub_and_docker_hub_where_it_fails() {
    let dir = Dir::new();
    let origin = Registry::plain(&dir, "origin");
    let image = small();
    origin.seed("library/busybox", "latest", &image);
    let proxy = format!("proxy:\n  remoteurl: http://{}\n", origin.address);
    let mirror = Registry::new(&dir, "mirror", "", &proxy);
    let dead = "http://127.0.0.1:1".to_owned();
    let text = json!({"registry-mirrors": [dead, format!("http://{}", mirror.address)]}).to_string();
    let mut client = client(&Settings::parse(&text).expect("settings"));

    let store = dir.store("s");
    let (pulled, lines) = pull(&client, &store, "busybox");
    assert_eq!(pulled.expect("by the second mirror").id, image.config);
    assert_eq!(lines[0], "latest: Pulling from library/busybox");
    assert_eq!(lines.last().expect("a line"), "Status: Downloaded newer image for busybox:latest");
    assert!(store.images().resolve("busybox").is_ok());

    drop(mirror);
    let e = error(pull(&client, &dir.store("t"), "busybox")).to_string();
    assert!(
        e.contains("127.0.0.1:1/v2/\": connection refused") && e.contains("mirror http://127.0.0.1:"),
        "{e}"
    );
    client.hub = format!("http://{}/", origin.address);
    pull(&client, &dir.store("u"), "busybox").0.expect("by Docker Hub");
    // Another registry has no mirrors.
    let e = error(pull(&client, &dir.store("v"), "127.0.0.1:1/library/busybox")).to_string();
    assert!(!e.contains("mirror"), "{e}");
}

// ---------------------------------------------------------------- a registry that misbehaves

const ERROR: &str = "Content-Type: application/json";

fn challenge(address: &str, more: &str) -> String {
    format!("WWW-Authenticate: Bearer realm=\"http://{address}/token?a=b\",service=\"srv x\"{more}")
}

#[test]
fn a_token_is_fetched_once_for_all_and_again_when_it_has_run_out() {
    let image = build(
        &[("a", 10, Packed::Gzip), ("b", 10, Packed::Gzip), ("c", 10, Packed::Gzip), ("d", 10, Packed::Gzip)],
        true,
        "amd64",
    );
    let (given, left) = (Mutex::new(0), Mutex::new(3));
    let served = image.clone();
    let fault = Fault::new(move |seen, stream| {
        if seen.path.starts_with("/token") {
            let mut given = given.lock().expect("given");
            *given += 1;
            *left.lock().expect("left") = 4;
            return answer(stream, 200, &[], json!({"token": format!("t{given}")}).to_string().as_bytes());
        }
        let now = format!("Bearer t{}", given.lock().expect("given"));
        let mut left = left.lock().expect("left");
        if seen.headers.get("authorization") == Some(&now) && *left > 0 {
            *left -= 1;
            return serve(&served, seen, stream);
        }
        let challenge = challenge(&seen.headers["host"], ",scope=\"repository:a/x:pull\"");
        answer(stream, 401, &[&challenge], b"{}");
    });
    let dir = Dir::new();
    let mut client = client(&Settings::default());
    let auth = Auth::Password { username: "me".into(), password: "secret".into() };
    client.credentials = Credentials::given(auth);
    pull(&client, &dir.store("s"), &format!("{}/a/x", fault.address)).0.expect("pull");
    let tokens: Vec<_> = fault.seen().into_iter().filter(|seen| seen.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 2, "a manifest, a configuration and four layers, and a token is good for four");
    for token in &tokens {
        assert_eq!(token.path, "/token?a=b&service=srv%20x&scope=repository%3Aa%2Fx%3Apull&account=me");
        assert_eq!(token.headers["authorization"], "Basic bWU6c2VjcmV0");
    }
    for seen in fault.seen().iter().filter(|seen| !seen.path.starts_with("/token")) {
        assert!(seen.headers.get("authorization").is_none_or(|a| a.starts_with("Bearer ")), "{seen:?}");
    }
}

#[test]
fn a_login_keeps_the_token_that_it_is_given_and_not_the_password() {
    let served = small();
    let fault = Fault::new(move |seen, stream| {
        let authorization = seen.headers.get("authorization").map(String::as_str);
        if seen.is("GET", "/token") {
            return match authorization {
                Some("Basic bWU6c2VjcmV0") if seen.path.contains("offline_token=true") => {
                    answer(stream, 200, &[], br#"{"access_token": "short", "refresh_token": "long"}"#);
                }
                _ => answer(
                    stream,
                    401,
                    &[ERROR],
                    br#"{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}"#,
                ),
            };
        }
        if seen.is("POST", "/token") {
            let form = String::from_utf8_lossy(&seen.body).into_owned();
            let right = form.contains("grant_type=refresh_token") && form.contains("&refresh_token=long");
            assert!(right && form.contains("scope=repository%3Ax%3Apull"), "{form}");
            return answer(stream, 200, &[], br#"{"access_token": "short", "expires_in": 300}"#);
        }
        match authorization {
            Some("Bearer short") => serve(&served, seen, stream),
            _ => answer(stream, 401, &[&challenge(&seen.headers["host"], "")], b""),
        }
    });
    let dir = Dir::new();
    let mut client = client(&Settings::default());
    client.credentials = Credentials::at(&dir.0.join("config.json"));
    let e = client.login(&fault.address, "me", "wrong").expect_err("a wrong password");
    assert_eq!(e.kind(), Kind::Unauthorized);
    assert!(e.to_string().ends_with("/token\": unauthorized: incorrect username or password"), "{e}");
    client.login(&format!("http://{}/v1/", fault.address), "me", "secret").expect("login");
    assert_eq!(client.credentials.get(&fault.address).expect("kept"), Auth::IdentityToken("long".into()));
    assert!(!fs::read_to_string(dir.0.join("config.json")).expect("read").contains("bWU6c2VjcmV0"));
    pull(&client, &dir.store("s"), &format!("{}/x", fault.address)).0.expect("pull with the token");
}

#[test]
fn an_image_that_one_may_not_see_is_told_in_dockers_words() {
    let fault = Fault::new(|seen, stream| {
        if seen.path.starts_with("/token") {
            return answer(stream, 200, &[], br#"{"token": "anonymous"}"#);
        }
        let error =
            if seen.headers.contains_key("authorization") { ",error=\"insufficient_scope\"" } else { "" };
        let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        answer(stream, 401, &[&challenge(&seen.headers["host"], error)], body);
    });
    let dir = Dir::new();
    let mut client = client(&Settings::default());
    client.hub = format!("http://{}/", fault.address);
    let e = error(pull(&client, &dir.store("s"), "atguigu/mytomcat"));
    assert_eq!(
        e.to_string(),
        "pull access denied for atguigu/mytomcat, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
    );
    assert_eq!(e.kind(), Kind::NotFound);
    assert_eq!(fault.count("GET", "/manifests/"), 1, "the first one has its token already");
}

#[test]
fn a_password_is_not_sent_to_a_token_service_without_tls() {
    for (realm, told) in [
        ("http://token.invalid/t", "token service http://token.invalid/t is not encrypted"),
        ("https://user@token.invalid/t", "invalid token auth challenge realm"),
        ("file:///etc/passwd", "invalid token auth challenge realm"),
    ] {
        let fault = Fault::new(move |_, stream| {
            answer(stream, 401, &[&format!("WWW-Authenticate: Bearer realm=\"{realm}\"")], b"");
        });
        let (dir, mut client) = (Dir::new(), client(&Settings::default()));
        client.credentials =
            Credentials::given(Auth::Password { username: "me".into(), password: "x".into() });
        let e = error(pull(&client, &dir.store("s"), &format!("{}/x", fault.address))).to_string();
        assert!(e.contains(told), "{e}");
    }
}

#[test]
fn a_manifest_that_is_cut_is_asked_for_again() {
    let (image, left) = (small(), Mutex::new(2));
    let fault = Fault::new(move |seen, stream| {
        let mut left = left.lock().expect("left");
        if seen.path.contains("/manifests/") && *left > 0 {
            *left -= 1;
            return head(stream, 200, &["Content-Length: 1000"]);
        }
        serve(&image, seen, stream);
    });
    let dir = Dir::new();
    pull(&client(&Settings::default()), &dir.store("s"), &format!("{}/x", fault.address)).0.expect("pull");
    assert_eq!(fault.count("GET", "/manifests/"), 3);
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says() {
    let image = small();
    for (status, header, least) in [(503, "X: y", 0), (500, "X: y", 0), (429, "Retry-After: 1", 1000)] {
        let (served, refusals) = (image.clone(), Mutex::new(2));
        let fault = Fault::new(move |seen, stream| {
            let mut left = refusals.lock().expect("left");
            if seen.path.contains("/manifests/") && *left > 0 {
                *left -= 1;
                return answer(stream, status, &[header], b"");
            }
            serve(&served, seen, stream);
        });
        let (dir, begun) = (Dir::new(), Instant::now());
        pull(&client(&Settings::default()), &dir.store("s"), &format!("{}/x", fault.address))
            .0
            .expect("pull");
        assert_eq!(fault.count("GET", "/manifests/"), 3);
        assert!(begun.elapsed() >= Duration::from_millis(2 * least), "{status}");
    }
}

#[test]
fn a_registry_that_stays_busy_is_given_up() {
    for (header, tries, told) in [
        ("Retry-After: 3600", 1, "toomanyrequests: You have reached your pull rate limit."),
        ("X: y", 4, "toomanyrequests: You have reached your pull rate limit."),
    ] {
        let fault = Fault::new(move |seen, stream| {
            match seen.path.as_str() {
            "/v2/" => answer(stream, 200, &[], b""),
            _ => answer(
                stream,
                429,
                &[header],
                b"{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"You have reached your\\u001b pull\\nrate limit.\"}]}",
            ),
        }
        });
        let (dir, begun) = (Dir::new(), Instant::now());
        let e = error(pull(&client(&Settings::default()), &dir.store("s"), &format!("{}/x", fault.address)));
        // What would steer a terminal is not told.
        assert_eq!(e.to_string().replace("  ", " "), told);
        assert_eq!(fault.count("GET", "/manifests/"), tries);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let fault = Fault::new(|_, stream| answer(stream, 502, &[], b"<html>"));
    let dir = Dir::new();
    let e = error(pull(&client(&Settings::default()), &dir.store("s"), &format!("{}/x", fault.address)));
    assert!(e.to_string().ends_with("received unexpected HTTP status: 502 Bad Gateway"), "{e}");
}

#[test]
fn a_blob_that_is_cut_goes_on_where_it_was() {
    let image = build(&[("a", 300_000, Packed::Gzip)], true, "amd64");
    let layer = image.layers[0];
    for knows_ranges in [true, false] {
        let served = image.clone();
        let fault = Fault::new(move |seen, stream| {
            if !seen.path.ends_with(&layer.to_string()) {
                return serve(&served, seen, stream);
            }
            let blob = &served.blobs[&layer];
            let range = seen.headers.get("range").map(|range| {
                range
                    .strip_prefix("bytes=")
                    .and_then(|r| r.strip_suffix('-'))
                    .expect("a range")
                    .parse()
                    .expect("a number")
            });
            let begin: usize = if knows_ranges { range.unwrap_or(0) } else { 0 };
            let end = (range.unwrap_or(0) + 100_000).min(blob.len());
            let length = format!("Content-Length: {}", blob.len() - begin);
            match range {
                Some(at) if knows_ranges => {
                    let content = format!("Content-Range: bytes {at}-{}/{}", blob.len() - 1, blob.len());
                    head(stream, 206, &[&length, &content]);
                }
                _ => head(stream, 200, &[&length]),
            }
            // Less than was promised.
            let _ = stream.write_all(&blob[begin..end]);
        });
        let (dir, client) = (Dir::new(), client(&Settings::default()));
        let store = dir.store("s");
        pull(&client, &store, &format!("{}/x", fault.address)).0.expect("pull");
        assert_eq!(store.blobs().read(&layer, 1 << 30).expect("the blob"), image.blobs[&layer]);
        let asked: Vec<Option<String>> = fault
            .seen()
            .iter()
            .filter(|seen| seen.path.ends_with(&layer.to_string()))
            .map(|seen| seen.headers.get("range").cloned())
            .collect();
        let expected: Vec<Option<String>> =
            [None, Some("bytes=100000-"), Some("bytes=200000-"), Some("bytes=300000-")]
                .into_iter()
                .map(|range| range.map(str::to_owned))
                .take(image.blobs[&layer].len().div_ceil(100_000))
                .collect();
        assert_eq!(asked, expected);
    }
}

#[test]
fn a_blob_that_is_cut_again_and_again_is_given_up() {
    let image = small();
    let (layer, served) = (image.layers[1], image.clone());
    let fault = Fault::new(move |seen, stream| {
        if seen.path.ends_with(&layer.to_string()) {
            return head(stream, 200, &[&format!("Content-Length: {}", served.blobs[&layer].len())]);
        }
        serve(&served, seen, stream);
    });
    let dir = Dir::new();
    let store = dir.store("s");
    error(pull(&client(&Settings::default()), &store, &format!("{}/x", fault.address)));
    assert_eq!(fault.count("GET", &layer.to_string()), 4);
    assert!(store.images().list().expect("list").is_empty());
    assert!(store.blobs().open(&layer).expect("open").is_none());
}

#[test]
fn content_that_is_not_what_it_is_called_is_refused_and_nothing_is_visible() {
    let image = build(&[("a", 3000, Packed::Gzip)], true, "amd64");
    let other = build(&[("b", 3000, Packed::Gzip)], true, "amd64");
    let layer = image.layers[0];
    let (right, wrong) = (image.blobs[&layer].clone(), other.blobs[&other.layers[0]].clone());
    let mut resized = wrong;
    resized.resize(right.len(), 0);
    // Another archive; the right one and garbage behind it; one byte too many.
    let (mut flipped, mut longer) = (right.clone(), right.clone());
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    longer.push(0);
    for (what, blob) in [("another", resized), ("flipped", flipped), ("longer", longer.clone())] {
        let mut served = image.clone();
        served.blobs.insert(layer, blob);
        let fault = Fault::new(move |seen, stream| serve(&served, seen, stream));
        let dir = Dir::new();
        let store = dir.store("s");
        let e = error(pull(&client(&Settings::default()), &store, &format!("{}/x", fault.address)));
        assert!(e.to_string().contains(&layer.to_string()), "{what}: {e}");
        assert_nothing(&store, &image);
    }
    // The same without a length in front.
    let served = image.clone();
    let fault = Fault::new(move |seen, stream| {
        if seen.path.ends_with(&layer.to_string()) {
            head(stream, 200, &["Transfer-Encoding: chunked"]);
            let _ = write!(stream, "{:x}\r\n", longer.len());
            let _ = stream.write_all(&longer);
            let _ = stream.write_all(b"\r\n0\r\n\r\n");
            return;
        }
        serve(&served, seen, stream);
    });
    let dir = Dir::new();
    let store = dir.store("s");
    let e = error(pull(&client(&Settings::default()), &store, &format!("{}/x", fault.address))).to_string();
    assert!(e.contains(&format!("longer than its {} bytes", right.len())), "{e}");
    assert_nothing(&store, &image);

    // A manifest and a configuration.
    for digest in [image.named, image.config] {
        let mut served = image.clone();
        served.documents[0].1.1.push(if digest == image.named { b' ' } else { b'\n' });
        if digest == image.config {
            served = image.clone();
            served.blobs.insert(digest, b"{}".to_vec());
        }
        let fault = Fault::new(move |seen, stream| serve(&served, seen, stream));
        let name = format!("{}/x@{}", fault.address, image.named);
        let e = error(pull(&client(&Settings::default()), &store, &name)).to_string();
        assert!(e.contains(&format!("verification failed for digest {digest}")), "{e}");
        assert_nothing(&store, &image);
    }
}

#[test]
fn where_a_registry_redirects_to_gets_no_credentials() {
    let image = small();
    let behind = image.clone();
    let storage = Fault::new(move |seen, stream| serve(&behind, seen, stream));
    let (served, elsewhere) = (image.clone(), storage.address.clone());
    let fault = Fault::new(move |seen, stream| {
        if seen.headers.get("authorization").map(String::as_str) != Some("Basic bWU6c2VjcmV0") {
            return answer(stream, 401, &["WWW-Authenticate: Basic realm=x"], b"");
        }
        if seen.path.contains("/blobs/") {
            return answer(
                stream,
                307,
                &[&format!("Location: http://{elsewhere}{}?signed=1", seen.path)],
                b"there",
            );
        }
        // On the same host they stay.
        if seen.path.ends_with("/manifests/latest") {
            return answer(stream, 302, &["Location: v2"], b"");
        }
        serve(&served, seen, stream);
    });
    let (dir, mut client) = (Dir::new(), client(&Settings::default()));
    client.credentials =
        Credentials::given(Auth::Password { username: "me".into(), password: "secret".into() });
    pull(&client, &dir.store("s"), &format!("{}/x", fault.address)).0.expect("pull");
    assert_eq!(storage.seen().len(), 3);
    for seen in storage.seen() {
        assert!(seen.path.contains("/blobs/") && seen.path.ends_with("?signed=1"), "{seen:?}");
        assert_eq!(seen.headers.get("authorization"), None);
        assert_eq!(seen.headers["host"], storage.address);
    }
}

/// Where a registry leads to asks for a token, of somebody who then had the password.
#[test]
fn what_another_host_wants_to_be_shown_is_not_shown() {
    let image = small();
    let thief = Fault::new(|_, stream| answer(stream, 200, &[], br#"{"token":"t"}"#));
    let wanted = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"", thief.address);
    let elsewhere = Fault::new(move |_, stream| answer(stream, 401, &[&wanted], b""));
    let (served, address) = (image.clone(), elsewhere.address.clone());
    let (registry, _) = receiving(&[], move |seen, stream| {
        if seen.headers.get("authorization").map(String::as_str) != Some("Basic bWU6c2VjcmV0") {
            answer(stream, 401, &["WWW-Authenticate: Basic realm=x"], b"");
        } else if seen.is("POST", "/uploads/") {
            answer(stream, 202, &[&format!("Location: http://{address}/upload")], b"");
        } else if seen.is("GET", "/blobs/") {
            answer(stream, 307, &[&format!("Location: http://{address}/blob")], b"");
        } else if seen.method == "GET" {
            serve(&served, seen, stream);
        } else {
            return false;
        }
        true
    });
    let (dir, mut client) = (Dir::new(), client(&Settings::default()));
    client.credentials =
        Credentials::given(Auth::Password { username: "me".into(), password: "secret".into() });
    let name = format!("{}/x", registry.address);
    assert_nothing(&dir.store("s"), &image);
    error(pull(&client, &dir.store("s"), &name));
    error(push(&client, &stored(&dir, &image, &registry.address), &name));
    for path in ["/blob", "/upload"] {
        assert!(elsewhere.seen().iter().any(|seen| seen.path.starts_with(path)), "{path}");
    }
    assert!(elsewhere.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));
    assert_eq!(thief.seen().len(), 0);
}

#[test]
fn redirects_end() {
    for location in ["/v2/x/manifests/latest", "ftp://x/", "http://user:password@x/"] {
        let fault = Fault::new(move |seen, stream| match seen.path.as_str() {
            "/v2/" => answer(stream, 200, &[], b""),
            _ => answer(stream, 301, &[&format!("Location: {location}")], b""),
        });
        let dir = Dir::new();
        let e = error(pull(&client(&Settings::default()), &dir.store("s"), &format!("{}/x", fault.address)));
        let told = e.to_string();
        assert!(
            told.contains("more than 10 redirects") || told.contains("no URL that can be followed"),
            "{told}"
        );
    }
}

#[test]
fn docker_hubs_credentials_are_for_docker_hub() {
    let image = small();
    let wants = |image: Built| {
        move |seen: &fault::Seen, stream: &mut std::net::TcpStream| match seen.headers.get("authorization") {
            Some(_) => serve(&image, seen, stream),
            None => answer(stream, 401, &["WWW-Authenticate: Basic realm=x"], b""),
        }
    };
    let (mirror, hub) = (Fault::new(wants(image.clone())), Fault::new(wants(image)));
    let dir = Dir::new();
    let config =
        dir.file("config.json", r#"{"auths": {"https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0"}}}"#);
    let mirrors = json!({"registry-mirrors": [format!("http://{}", mirror.address)]}).to_string();
    let auth = Auth::Password { username: "me".into(), password: "secret".into() };
    for (n, credentials) in [Credentials::at(&config), Credentials::given(auth)].into_iter().enumerate() {
        let mut client = client(&Settings::parse(&mirrors).expect("settings"));
        client.hub = format!("http://{}/", hub.address);
        client.credentials = credentials;
        pull(&client, &dir.store(&format!("s{n}")), "busybox").0.expect("from Docker Hub");
    }
    assert!(mirror.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));
    assert!(mirror.count("GET", "/v2/") >= 2 && hub.count("GET", "/v2/library/busybox/") >= 8);
}

#[test]
fn a_slow_blob_arrives_and_a_slow_manifest_does_not_take_for_ever() {
    let image = small();
    let served = image.clone();
    let fault = Fault::new(move |seen, stream| {
        if let Some(digest) = served.layers.iter().find(|layer| seen.path.ends_with(&layer.to_string())) {
            let blob = &served.blobs[digest];
            head(stream, 200, &[&format!("Content-Length: {}", blob.len())]);
            for part in blob.chunks(blob.len() / 15 + 1) {
                std::thread::sleep(Duration::from_millis(100));
                let _ = stream.write_all(part);
            }
            return;
        }
        if seen.path.ends_with("/manifests/drip") {
            head(stream, 200, &["Content-Length: 100000"]);
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
            return;
        }
        serve(&served, seen, stream);
    });
    let (dir, mut client) = (Dir::new(), client(&Settings::default()));
    client.timeouts.idle = Duration::from_secs(1);
    pull(&client, &dir.store("s"), &format!("{}/x", fault.address))
        .0
        .expect("longer than the timeout, but never silent");
    let begun = Instant::now();
    let e = error(pull(&client, &dir.store("t"), &format!("{}/x:drip", fault.address)));
    assert!(e.to_string().contains("timed out"), "{e}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_blob_that_comes_byte_by_byte_is_given_up() {
    let image = small();
    let layer = image.layers[1];
    for cut in [false, true] {
        let served = image.clone();
        let fault = Fault::new(move |seen, stream| {
            if !seen.path.ends_with(&layer.to_string()) {
                return serve(&served, seen, stream);
            }
            let blob = &served.blobs[&layer];
            let range = seen
                .headers
                .get("range")
                .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            let begin: usize = range.unwrap_or(0);
            let content = format!("Content-Range: bytes {begin}-{}/{}", blob.len() - 1, blob.len());
            let status = if range.is_some() { 206 } else { 200 };
            head(stream, status, &[&format!("Content-Length: {}", blob.len() - begin), &content]);
            for byte in &blob[begin..] {
                if stream.write_all(&[*byte]).is_err() || cut {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let (dir, mut client) = (Dir::new(), client(&Settings::default()));
        client.timeouts.idle = Duration::from_millis(500);
        let begun = Instant::now();
        let store = dir.store("s");
        let e = error(pull(&client, &store, &format!("{}/x", fault.address)));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let why = if cut { "Peer disconnected" } else { "is too slow after" };
        assert!(e.to_string().contains(why), "{e}");
        assert!((2..=4).contains(&fault.count("GET", &layer.to_string())));
        assert!(store.images().list().expect("list").is_empty());
        assert!(store.blobs().open(&layer).expect("open").is_none());
    }
}

#[test]
fn a_blob_that_is_gone_or_damaged_is_fetched_again() {
    let image = small();
    let served = image.clone();
    let fault = Fault::new(move |seen, stream| serve(&served, seen, stream));
    let (dir, client) = (Dir::new(), client(&Settings::default()));
    let store = dir.store("s");
    let name = format!("{}/x", fault.address);
    let pulled = pull(&client, &store, &name).0.expect("pull");
    let root = dir.0.join("s/root");
    let layer = &pulled.layers[0];
    let blob = root.join("blobs/sha256").join(layer.blob.hex());
    let tree = root.join("layers").join(layer.diff_id.hex());
    let whole = image.blobs[&layer.blob].clone();
    // What each time is damaged, and how often the layer is fetched.
    let gone = || fs::remove_file(&blob).expect("unlink");
    let torn = || fs::write(&blob, &whole[..10]).expect("write");
    let rotten = || {
        fs::write(&blob, vec![0; whole.len()]).expect("write");
        fs::remove_dir_all(&tree).expect("remove");
    };
    let forgotten = || fs::write(tree.join("layer.json"), "").expect("write");
    let damages: [(&dyn Fn(), usize); 4] = [(&gone, 1), (&torn, 1), (&rotten, 1), (&forgotten, 0)];
    let mut fetched = 1;
    for (n, (damage, times)) in damages.into_iter().enumerate() {
        damage();
        let again = pull(&client, &store, &name).0.unwrap_or_else(|e| panic!("{n}: {e}"));
        assert_eq!(again, pulled, "{n}");
        fetched += times;
        assert_eq!(fault.count("GET", &layer.blob.to_string()), fetched, "{n}");
        assert_eq!(fs::read(&blob).expect("read"), whole, "{n}");
        assert!(store.layers().has(&layer.diff_id), "{n}");
        rrunctl::image::save(&store, std::slice::from_ref(&name), std::io::sink()).expect("save");
    }
}

#[test]
fn a_manifest_without_end_is_refused() {
    for length in ["Content-Length: 104857600", "Transfer-Encoding: chunked"] {
        let sent = Arc::new(Mutex::new(0u64));
        let counted = Arc::clone(&sent);
        let fault = Fault::new(move |seen, stream| {
            if !seen.path.contains("/manifests/") {
                return answer(stream, 200, &[], b"");
            }
            head(stream, 200, &[length]);
            let blanks = vec![b' '; 1 << 16];
            for _ in 0..1600 {
                let chunk = if length.starts_with('T') { &b"10000\r\n"[..] } else { &[] };
                if stream.write_all(chunk).is_err() || stream.write_all(&blanks).is_err() {
                    return;
                }
                if length.starts_with('T') && stream.write_all(b"\r\n").is_err() {
                    return;
                }
                *counted.lock().expect("sent") += blanks.len() as u64;
            }
        });
        let dir = Dir::new();
        let e = error(pull(&client(&Settings::default()), &dir.store("s"), &format!("{}/x", fault.address)));
        assert!(e.to_string().contains("longer than 4194304 bytes"), "{e}");
        assert!(*sent.lock().expect("sent") < 64 << 20, "read on");
    }
}

#[test]
fn a_registry_that_hangs_is_given_up_in_time() {
    let image = build(&[("a", 300_000, Packed::Gzip)], true, "amd64");
    for (at, after) in [("/v2/", 0), ("/manifests/", 0), ("/blobs/", 0), ("/manifests/", 1), ("/blobs/", 1)] {
        let served = image.clone();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let layer = image.layers[0].to_string();
        let fault = Fault::new(move |seen, stream| {
            let here = if at == "/v2/" { seen.path == at } else { seen.path.contains(at) };
            if here && (at != "/blobs/" || seen.path.ends_with(&layer)) {
                if after > 0 {
                    head(stream, 200, &["Content-Type: application/json", "Content-Length: 1000000"]);
                }
                let _ = stream.try_clone().map(|open| {
                    let _ = wait.lock().expect("wait").recv_timeout(Duration::from_secs(20));
                    drop(open);
                });
                return;
            }
            serve(&served, seen, stream);
        });
        let (dir, mut client) = (Dir::new(), client(&Settings::default()));
        client.timeouts.idle = Duration::from_millis(300);
        let begun = Instant::now();
        let store = dir.store("s");
        let e = error(pull(&client, &store, &format!("{}/x", fault.address)));
        assert!(begun.elapsed() < Duration::from_secs(10), "{at} {after}: {:?}", begun.elapsed());
        assert!(!e.to_string().is_empty());
        assert_nothing(&store, &image);
        drop(release);
    }
}

#[test]
fn a_layer_that_fails_ends_the_others_at_once() {
    let image = build(&[("a", 100_000, Packed::Gzip), ("b", 100_000, Packed::Gzip)], true, "amd64");
    let (served, missing) = (image.clone(), image.layers[1].to_string());
    let slow = image.layers[0].to_string();
    let (begun_slow, wait) = std::sync::mpsc::channel::<()>();
    let (begun_slow, wait) = (Mutex::new(begun_slow), Mutex::new(wait));
    let fault = Fault::new(move |seen, stream| {
        if seen.path.ends_with(&slow) {
            head(
                stream,
                200,
                &[&format!("Content-Length: {}", served.blobs[&Digest::parse(&slow).expect("d")].len())],
            );
            let _ = stream.write_all(&[0x1f, 0x8b]);
            let _ = begun_slow.lock().expect("lock").send(());
            // Until the client goes.
            let _ = std::io::copy(stream, &mut std::io::sink());
            return;
        }
        if seen.path.ends_with(&missing) {
            let _ = wait.lock().expect("lock").recv_timeout(Duration::from_secs(10));
            return answer(
                stream,
                404,
                &[],
                br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#,
            );
        }
        serve(&served, seen, stream);
    });
    let (dir, mut client) = (Dir::new(), client(&Settings::default()));
    client.timeouts.idle = Duration::from_secs(30);
    let (store, begun) = (dir.store("s"), Instant::now());
    let e = error(pull(&client, &store, &format!("{}/x", fault.address)));
    assert_eq!(e.to_string(), "blob unknown: blob unknown to registry");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_nothing(&store, &image);
}

#[test]
fn a_layer_is_unpacked_while_it_arrives() {
    let image = build(&[("a", 6_000_000, Packed::Not)], false, "amd64");
    let (served, layer) = (image.clone(), image.layers[0].to_string());
    let fault = Fault::new(move |seen, stream| {
        if seen.path.ends_with(&layer) {
            let length = served.blobs[&served.layers[0]].len();
            head(stream, 200, &[&format!("Content-Length: {length}")]);
            // Whoever looks at the first bytes knows that they are no archive; the last are half a minute away.
            let garbage = vec![b'x'; length];
            let (now, later) = garbage.split_at(1_500_000);
            let _ = stream.write_all(now);
            for part in later.chunks(7_500) {
                std::thread::sleep(Duration::from_millis(50));
                if stream.write_all(part).is_err() {
                    return;
                }
            }
            return;
        }
        serve(&served, seen, stream);
    });
    let (dir, mut client) = (Dir::new(), client(&Settings::default()));
    client.timeouts.idle = Duration::from_secs(30);
    let (store, begun) = (dir.store("s"), Instant::now());
    let e = error(pull(&client, &store, &format!("{}/x", fault.address))).to_string();
    assert!(e.contains(&format!("failed to register layer {}", image.layers[0])), "{e}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_nothing(&store, &image);
}

#[test]
fn layers_that_are_here_are_not_fetched() {
    let base = build(&[("a", 100, Packed::Gzip)], true, "amd64");
    let both =
        build(&[("a", 100, Packed::Gzip), ("b", 100, Packed::Gzip), ("b", 100, Packed::Gzip)], true, "amd64");
    let (one, two) = (base.clone(), both.clone());
    let fault = Fault::new(move |seen, stream| {
        serve(if seen.path.starts_with("/v2/base/") { &one } else { &two }, seen, stream);
    });
    let (dir, client) = (Dir::new(), client(&Settings::default()));
    let store = dir.store("s");
    pull(&client, &store, &format!("{}/base", fault.address)).0.expect("pull");
    let (image, lines) = pull(&client, &store, &format!("{}/both", fault.address));
    assert_eq!(image.expect("pull").layers.len(), 3);
    assert_eq!(lines[1], format!("{}: Already exists", base.layers[0].short()));
    assert_eq!(fault.count("GET", &format!("/v2/both/blobs/{}", base.layers[0])), 0);
    assert_eq!(fault.count("GET", &format!("/v2/both/blobs/{}", both.layers[1])), 1, "the same one twice");
}

/// An image in a store, under the name `ADDRESS/x:latest`.
fn stored(dir: &Dir, image: &Built, address: &str) -> Store {
    let served = image.clone();
    let source = Fault::new(move |seen, stream| serve(&served, seen, stream));
    let store = dir.store("stored");
    let pulled =
        pull(&client(&Settings::default()), &store, &format!("{}/from", source.address)).0.expect("pull");
    store.images().tag(&reference(&format!("{address}/x")), &pulled).expect("tag");
    store
}

/// What a push sent, put together.
#[derive(Default)]
struct Received {
    uploads: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, Vec<u8>>,
    manifest: Vec<u8>,
    next: usize,
}

/// A registry that takes pushes; `fault` may answer instead.
fn receiving(
    begun: &'static [&'static str],
    fault: impl Fn(&fault::Seen, &mut std::net::TcpStream) -> bool + Send + Sync + 'static,
) -> (Fault, Arc<Mutex<Received>>) {
    let received = Arc::new(Mutex::new(Received::default()));
    let all = Arc::clone(&received);
    let registry = Fault::new(move |seen, stream| {
        if fault(seen, stream) {
            return;
        }
        let mut all = all.lock().expect("received");
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let upload = path.rsplit('/').next().unwrap_or_default().to_owned();
        let digest = || query.split('&').find_map(|p| p.strip_prefix("digest=sha256%3A")).map(str::to_owned);
        match seen.method.as_str() {
            "GET" => answer(stream, 200, &[], b""),
            "HEAD" => answer(stream, 404, &[], b""),
            "POST" => {
                all.next += 1;
                let id = format!("u{}", all.next);
                all.uploads.insert(id.clone(), Vec::new());
                let location = format!("Location: /v2/x/blobs/uploads/{id}?state=1");
                let headers: Vec<&str> = begun.iter().copied().chain([location.as_str()]).collect();
                answer(stream, 202, &headers, b"");
            }
            "PATCH" => {
                let upload_bytes = all.uploads.get_mut(&upload).expect("an upload");
                let begin = upload_bytes.len();
                upload_bytes.extend_from_slice(&seen.body);
                assert_eq!(seen.headers["content-range"], format!("{begin}-{}", upload_bytes.len() - 1));
                // Relative to where it was sent.
                answer(stream, 202, &[&format!("Location: {upload}?state=2")], b"");
            }
            "PUT" if path.contains("/manifests/") => {
                all.manifest.clone_from(&seen.body);
                answer(stream, 201, &[], b"");
            }
            "PUT" => {
                assert!(query.starts_with("state="), "{}", seen.path);
                let mut bytes = all.uploads.remove(&upload).expect("an upload");
                bytes.extend_from_slice(&seen.body);
                all.blobs.insert(digest().expect("a digest"), bytes);
                answer(stream, 201, &[], b"");
            }
            other => panic!("{other}"),
        }
    });
    (registry, received)
}

fn assert_received(image: &Built, received: &Mutex<Received>) {
    let received = received.lock().expect("received");
    assert_eq!(received.manifest, image.documents[0].1.1);
    assert_eq!(received.blobs.len(), image.blobs.len());
    for (digest, bytes) in &image.blobs {
        assert!(received.blobs[&digest.hex()] == *bytes, "{digest}");
    }
}

#[test]
fn a_push_needs_no_token_for_the_repository_that_a_blob_could_be_mounted_from() {
    let (image, dir) = (small(), Dir::new());
    let (registry, got) = receiving(&[], |seen, stream| {
        if seen.path.starts_with("/token") && seen.path.contains("secret") {
            answer(stream, 403, &[], br#"{"errors":[{"code":"DENIED","message":"denied"}]}"#);
        } else if seen.path.starts_with("/token") {
            answer(stream, 200, &[], br#"{"token": "t"}"#);
        } else if !seen.headers.contains_key("authorization") {
            answer(stream, 401, &[&challenge(&seen.headers["host"], "")], b"");
        } else {
            return false;
        }
        true
    });
    let store = stored(&dir, &image, &registry.address);
    let name = format!("{}/x", registry.address);
    let stored = store.images().resolve(&name).expect("the image");
    store.images().tag(&reference(&format!("{}/secret", registry.address)), &stored).expect("tag");
    push(&client(&Settings::default()), &store, &name).0.expect("push");
    assert_received(&image, &got);
    assert!(registry.seen().iter().any(|seen| seen.path.contains("repository%3Asecret%3Apull")));
}

#[test]
fn a_push_sends_each_blob_whole_or_in_parts_as_the_registry_wants() {
    let image = build(&[("a", 10 << 20, Packed::Not), ("b", 10, Packed::Gzip)], false, "amd64");
    let dir = Dir::new();
    let (whole, got) = receiving(&[], |_, _| false);
    let store = stored(&dir, &image, &whole.address);
    push(&client(&Settings::default()), &store, &format!("{}/x", whole.address)).0.expect("push");
    assert_received(&image, &got);
    assert_eq!(whole.count("PATCH", ""), 0);

    // By parts of 8 MiB, where it says so, or where it takes nothing longer.
    let (parts, got) = receiving(&["OCI-Chunk-Min-Length: 1000"], |_, _| false);
    let (proxied, got_proxied) = receiving(&[], |seen, stream| {
        let refused = seen.body.len() > 9 << 20;
        if refused {
            answer(stream, 413, &[], b"<html>");
        }
        refused
    });
    for (registry, got) in [(&parts, &got), (&proxied, &got_proxied)] {
        let name = format!("{}/x", registry.address);
        store
            .images()
            .tag(&reference(&name), &store.images().resolve(&format!("{}/x", whole.address)).expect("one"))
            .expect("tag");
        push(&client(&Settings::default()), &store, &name).0.expect("push");
        assert_received(&image, got);
    }
    assert_eq!(parts.count("PATCH", ""), 4, "two parts, and two small blobs");
    assert_eq!(proxied.count("PATCH", ""), 2);
}

#[test]
fn an_upload_that_fails_is_begun_anew() {
    let image = small();
    let dir = Dir::new();
    let left = Mutex::new(2);
    let (registry, got) = receiving(&[], move |seen, stream| {
        let mut left = left.lock().expect("left");
        if seen.is("PUT", "/blobs/uploads/") && *left > 0 {
            *left -= 1;
            // An answer, and none.
            if *left == 1 {
                answer(stream, 503, &[], b"");
            }
            return true;
        }
        false
    });
    let store = stored(&dir, &image, &registry.address);
    push(&client(&Settings::default()), &store, &format!("{}/x", registry.address)).0.expect("push");
    assert_received(&image, &got);
    assert_eq!(registry.count("POST", "/blobs/uploads/"), 5);
}

#[test]
fn an_upload_that_cannot_be_is_told() {
    let image = small();
    for (post, told) in [
        (vec![(202, "X: y", "")], "no Location to upload to"),
        (vec![(202, "Location: ftp://x/", "")], "no URL that can be followed"),
        (
            vec![(
                403,
                ERROR,
                r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
            )],
            "denied: requested access to the resource is denied",
        ),
        (vec![(401, "X: y", "")], "unauthorized: authentication required"),
    ] {
        let dir = Dir::new();
        let (status, header, body) = post[0];
        let (registry, _got) = receiving(&[], move |seen, stream| {
            let begins = seen.method == "POST";
            if begins {
                answer(stream, status, &[header], body.as_bytes());
            }
            begins
        });
        let store = stored(&dir, &image, &registry.address);
        let e = error(push(&client(&Settings::default()), &store, &format!("{}/x", registry.address)));
        assert!(e.to_string().contains(told), "{e}");
        assert_eq!(registry.count("PUT", "/manifests/"), 0);
    }
}

// ---------------------------------------------------------------- what the environment says

/// Runs one test of this file again, in a process with another environment.
fn again(test: &str, environment: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1", "--ignored"])
        .envs(environment.iter().copied())
        .output()
        .expect("start it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn credentials_may_be_with_a_helper() {
    let dir = Dir::new();
    let helper = dir.file(
        "docker-credential-test",
        "#!/bin/sh\nread -r what\ncase $1 in\nget) case $what in\n\
         me.test) echo '{\"ServerURL\":\"me.test\",\"Username\":\"u\",\"Secret\":\"s\"}';;\n\
         id.test) echo '{\"Username\":\"<token>\",\"Secret\":\"idt\"}';;\n\
         bad.test) echo broken keychain; exit 1;;\n\
         *) echo credentials not found in native keychain; exit 1;; esac;;\n\
         *) echo \"$1 $what\" >>\"$(dirname \"$0\")/log\";; esac\n",
    );
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("chmod");
    let path = format!("{}:{}", dir.0.display(), std::env::var("PATH").expect("PATH"));
    again("registry::helper_in_path", &[("PATH", &path), ("TEST_DIR", &dir.0.display().to_string())]);
    let log = fs::read_to_string(dir.0.join("log")).expect("a log");
    assert!(log.starts_with("store {\"ServerURL\":\"127.0.0.1:"), "{log}");
    assert!(
        log.contains("\"Username\":\"me\",\"Secret\":\"secret\"}") && log.contains("\nerase 127.0.0.1:"),
        "{log}"
    );
}

#[test]
#[ignore = "a part of credentials_may_be_with_a_helper"]
fn helper_in_path() {
    let dir = PathBuf::from(std::env::var_os("TEST_DIR").expect("TEST_DIR"));
    let config = dir.join("config.json");
    fs::write(&config, r#"{"credHelpers": {"gone.test": "gone"}, "credsStore": "test", "auths": {"me.test": {"auth": "eDp4"}}}"#)
        .expect("write");
    let credentials = Credentials::at(&config);
    let password = Auth::Password { username: "u".into(), password: "s".into() };
    assert_eq!(credentials.get("me.test").expect("get"), password);
    assert_eq!(credentials.get("id.test").expect("get"), Auth::IdentityToken("idt".into()));
    assert_eq!(credentials.get("none.test").expect("get"), Auth::Anonymous);
    let e = credentials.get("bad.test").expect_err("it says why");
    assert_eq!(e.to_string(), "docker-credential-test get: broken keychain");
    let e = credentials.get("gone.test").expect_err("no such program");
    assert_eq!(e.to_string(), "docker-credential-gone get: no such file or directory");

    let fault = Fault::new(|_, stream| answer(stream, 200, &[], b""));
    let mut client = client(&Settings::default());
    client.credentials = credentials;
    let kept = client.login(&fault.address, "me", "secret").expect("login").kept;
    assert_eq!(kept, Kept::Helper("test".into()));
    let text = fs::read_to_string(&config).expect("read");
    assert!(text.contains(&format!("\"{}\": {{}}", fault.address)) && !text.contains("secret"), "{text}");
    assert!(client.logout(&fault.address).expect("logout").starts_with("Removing "));
}

#[test]
fn the_environment_names_authorities_and_proxies() {
    let dir = Dir::new();
    certificates(&dir);
    let path = |name: &str| dir.0.join(name).display().to_string();
    let registry = Registry::new(
        &dir,
        "r",
        &format!("  tls:\n    certificate: {}\n    key: {}\n", path("server.pem"), path("server.key")),
        "",
    );
    again(
        "registry::authority_in_environment",
        &[("SSL_CERT_FILE", &path("ca.pem")), ("TEST_REGISTRY", &registry.address)],
    );
    // It answers as a proxy that is asked to CONNECT, and refuses.
    let proxy = Fault::new(|_, stream| answer(stream, 403, &[], b""));
    let url = format!("http://{}", proxy.address);
    again("registry::proxy_in_environment", &[("HTTPS_PROXY", &url), ("NO_PROXY", "direct.invalid")]);
    let asked: Vec<String> =
        proxy.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    assert_eq!(asked, ["CONNECT proxied.invalid:443"]);
}

#[test]
#[ignore = "a part of the_environment_names_authorities_and_proxies"]
fn authority_in_environment() {
    let registry = std::env::var("TEST_REGISTRY").expect("TEST_REGISTRY");
    client(&strict()).authenticate(&registry, "u", "p").expect("an authority of the environment");
}

#[test]
#[ignore = "a part of the_environment_names_authorities_and_proxies"]
fn proxy_in_environment() {
    let client = client(&Settings::default());
    let e = client.authenticate("proxied.invalid", "u", "p").expect_err("the proxy refuses").to_string();
    assert!(e.contains("CONNECT proxy failed: proxy server responded 403"), "{e}");
    let e = client.authenticate("direct.invalid", "u", "p").expect_err("there is no such host").to_string();
    assert!(e.contains("lookup direct.invalid: no such host"), "{e}");
}
