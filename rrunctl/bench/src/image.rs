//! What is pulled: an image of five layers with 300 MB, and a small one to run; in Debian's docker-registry on loopback.

use serde_json::{Value, json};
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The layers of the large image, in MB before they are compressed: a base, and what is put on it.
pub const LAYERS: [usize; 5] = [120, 80, 60, 30, 10];

/// What the small image's page says.
pub const PAGE: &str = "a page of the image\n";

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// A docker-registry that has both images.
pub struct Registry {
    /// `127.0.0.1:PORT/large:latest`.
    pub large: String,
    /// `127.0.0.1:PORT/small:latest`.
    pub small: String,
    /// Of the large image's layers, compressed.
    pub bytes: u64,
    /// Files in the large image.
    pub files: usize,
    _process: Child,
}

impl Registry {
    pub fn start(dir: &Path) -> Result<Self, Box<dyn Error>> {
        fs::create_dir(dir)?;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let words = random.words();
        let (mut layers, mut files) = (Vec::new(), 0);
        for (index, size) in LAYERS.iter().enumerate() {
            let tree = dir.join("tree");
            files += fill(&tree.join(format!("srv/{index}")), size * 1_000_000, &mut random, &words)?;
            layers.push(layer(dir, &tree)?);
        }
        let bytes = image(dir, "large", &layers)?;
        let tree = dir.join("tree");
        busybox(&tree)?;
        let small = layer(dir, &tree)?;
        image(dir, "small", &[small])?;

        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: \
             127.0.0.1:0\n  secret: x\n",
            dir.display()
        );
        fs::write(&config, text)?;
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(process.stderr.take().ok_or("no pipe")?);
        let mut line = String::new();
        let address = loop {
            line.clear();
            if log.read_line(&mut line)? == 0 {
                return Err("docker-registry ended before it listened".into());
            }
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ',']).next().unwrap_or_default().to_owned();
            }
        };
        // It must not wait for who reads its log.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let name = |image: &str| format!("{address}/{image}:latest");
        Ok(Self { large: name("large"), small: name("small"), bytes, files, _process: process })
    }
}

/// xorshift64*: the same bytes in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    fn words(&mut self) -> Vec<String> {
        let word = |random: &mut Self| {
            let letters = 2 + random.below(9);
            (0..letters).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
        };
        (0..2000).map(|_| word(self)).collect()
    }

    /// Two of three are text, which gzip brings to a third, as programs and manuals; the others are as what is
    /// compressed already.
    fn content(&mut self, size: usize, words: &[String]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 16);
        let text = self.below(3) > 0;
        while bytes.len() < size {
            if text {
                bytes.extend_from_slice(words[self.below(words.len())].as_bytes());
                bytes.push(if self.below(12) == 0 { b'\n' } else { b' ' });
            } else {
                bytes.extend_from_slice(&self.next().to_le_bytes());
            }
        }
        bytes.truncate(size);
        bytes
    }
}

/// Files of so many bytes together, 40 in a directory: half of the bytes in files of 1 to 64 KiB, half in such of 1 to
/// 4 MiB. How many files.
fn fill(dir: &Path, size: usize, random: &mut Random, words: &[String]) -> Result<usize, Box<dyn Error>> {
    let (mut left, mut files) = (size, 0);
    while left > 0 {
        let one =
            if left > size / 2 { (1 << 20) + random.below(3 << 20) } else { 1024 + random.below(63 << 10) };
        let one = one.min(left);
        let at = dir.join(format!("{}", files / 40));
        fs::create_dir_all(&at)?;
        fs::write(at.join(format!("file-{files}")), random.content(one, words))?;
        left -= one;
        files += 1;
    }
    Ok(files)
}

fn busybox(tree: &Path) -> Result<(), Box<dyn Error>> {
    for name in ["bin", "etc", "tmp", "www"] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox"))
        .map_err(|e| format!("/bin/busybox: {e}: apt-get install busybox-static"))?;
    fs::set_permissions(tree.join("bin/busybox"), PermissionsExt::from_mode(0o755))?;
    for applet in ["cat", "echo", "false", "httpd", "sh", "sleep", "true"] {
        symlink("busybox", tree.join("bin").join(applet))?;
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n")?;
    fs::write(tree.join("etc/group"), "root:x:0:\n")?;
    fs::write(tree.join("www/index.html"), PAGE)?;
    Ok(())
}

struct Blob {
    digest: String,
    size: u64,
}

struct Layer {
    diff_id: String,
    blob: Blob,
}

/// A tree, which goes, as a layer in the registry.
fn layer(dir: &Path, tree: &Path) -> Result<Layer, Box<dyn Error>> {
    let (tar, gzip) = (dir.join("layer.tar"), dir.join("layer.tar.gz"));
    let flags = ["--sort=name", "--mtime=@1700000000", "--owner=0", "--group=0", "--numeric-owner", "-C"];
    done(Command::new("tar").args(flags).arg(tree).arg("-cf").arg(&tar).arg("."))?;
    done(Command::new("gzip").args(["-n", "-6", "-c"]).arg(&tar).stdout(File::create(&gzip)?))?;
    let diff_id = digest(&tar)?;
    fs::remove_file(&tar)?;
    fs::remove_dir_all(tree)?;
    Ok(Layer { diff_id, blob: keep(dir, &gzip)? })
}

/// An image in the registry; the bytes of its layers.
fn image(dir: &Path, name: &str, layers: &[Layer]) -> Result<u64, Box<dyn Error>> {
    let write = |value: &Value| -> Result<Blob, Box<dyn Error>> {
        let file = dir.join("document");
        fs::write(&file, serde_json::to_vec(value)?)?;
        keep(dir, &file)
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let history: Vec<_> = layers.iter().map(|_| json!({ "created_by": "bench" })).collect();
    let config = write(&json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": { "Cmd": ["sh"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    }))?;
    let described =
        |kind: &str, blob: &Blob| json!({ "mediaType": kind, "size": blob.size, "digest": blob.digest });
    let manifest = write(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(CONFIG, &config),
        "layers": layers.iter().map(|layer| described(LAYER, &layer.blob)).collect::<Vec<_>>(),
    }))?;
    let repository = dir.join("docker/registry/v2/repositories").join(name);
    let link = |at: &str, digest: &str| -> Result<(), Box<dyn Error>> {
        let at = repository.join(at);
        fs::create_dir_all(&at)?;
        Ok(fs::write(at.join("link"), digest)?)
    };
    for blob in layers.iter().map(|layer| &layer.blob).chain([&config]) {
        link(&format!("_layers/sha256/{}", hex(&blob.digest)), &blob.digest)?;
    }
    let named = hex(&manifest.digest);
    link(&format!("_manifests/revisions/sha256/{named}"), &manifest.digest)?;
    link(&format!("_manifests/tags/latest/index/sha256/{named}"), &manifest.digest)?;
    link("_manifests/tags/latest/current", &manifest.digest)?;
    Ok(layers.iter().map(|layer| layer.blob.size).sum())
}

/// Moves a file to where the registry has its blobs.
fn keep(dir: &Path, file: &Path) -> Result<Blob, Box<dyn Error>> {
    let (digest, size) = (digest(file)?, fs::metadata(file)?.len());
    let hex = hex(&digest);
    let at: PathBuf = dir.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex);
    fs::create_dir_all(&at)?;
    fs::rename(file, at.join("data"))?;
    Ok(Blob { digest, size })
}

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

fn digest(file: &Path) -> Result<String, Box<dyn Error>> {
    let mut child = Command::new("sha256sum").stdin(File::open(file)?).stdout(Stdio::piped()).spawn()?;
    let mut text = String::new();
    child.stdout.take().ok_or("no pipe")?.read_to_string(&mut text)?;
    let hex = text.split(' ').next().filter(|hex| hex.len() == 64).ok_or("sha256sum printed no digest")?;
    match child.wait()?.success() {
        true => Ok(format!("sha256:{hex}")),
        false => Err("sha256sum failed".into()),
    }
}

fn done(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
