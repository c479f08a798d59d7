//! `~/.docker/config.json`: the credentials that every tool for registries shares (docker/cli, config file; docker's
//! credential helpers protocol).

#![forbid(unsafe_code)]

use crate::error::{Context as _, Error, Kind, Result};
use crate::home;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Under which Docker Hub's are kept.
const HUB: &str = "https://index.docker.io/v1/";
/// What helpers say where they have nothing, with status 1.
const NOTHING: &str = "credentials not found in native keychain";
/// The name that stands for none, where the secret is an identity token.
const TOKEN: &str = "<token>";

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Auth {
    /// Nothing.
    #[default]
    Anonymous,
    /// To the registry, or to its token service.
    Password {
        /// Who asks.
        username: String,
        /// The password, or what the registry gave to be used as one.
        password: String,
    },
    /// To its token service, which gives tokens for it.
    IdentityToken(String),
    /// To the registry, as it is.
    Token(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password { .. } => "Password",
            Self::IdentityToken(_) => "IdentityToken",
            Self::Token(_) => "Token",
        })
    }
}

/// Where credentials come from and are kept.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    path: Option<PathBuf>,
    given: Option<Auth>,
}

/// Where a login was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Readable for whoever may read the file.
    File(PathBuf),
    /// By `docker-credential-NAME`.
    Helper(String),
}

impl Credentials {
    /// Those of the user: `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
    pub fn of_user() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")));
        Self { path: dir.map(|dir| dir.join("config.json")), given: None }
    }

    /// Those in the file at `path`.
    pub fn at(path: &Path) -> Self {
        Self { path: Some(path.to_owned()), given: None }
    }

    /// These, for the registry of the image that is named and for no mirror of it: what a client of Docker's API sends
    /// along.
    pub fn given(auth: Auth) -> Self {
        Self { path: None, given: Some(auth) }
    }

    /// For the registry of an image's name.
    ///
    /// # Errors
    /// The file is broken, or a helper failed.
    pub(super) fn of_registry(&self, registry: &str) -> Result<Auth> {
        match &self.given {
            Some(auth) => Ok(auth.clone()),
            None => self.get(registry),
        }
    }

    /// For `HOST[:PORT]`, from the file or its helpers.
    ///
    /// # Errors
    /// The file is broken, or a helper failed.
    pub fn get(&self, registry: &str) -> Result<Auth> {
        let Some(path) = &self.path else { return Ok(Auth::Anonymous) };
        let file = read(path)?;
        let key = key(registry);
        if let Some(helper) = helper(&file, &key)? {
            return from_helper(&helper, &key);
        }
        let Some(auths) = file.get("auths").and_then(Value::as_object) else { return Ok(Auth::Anonymous) };
        let entry = auths
            .get(&key)
            .or_else(|| auths.iter().find(|(name, _)| self::key(name) == key).map(|(_, entry)| entry));
        let text =
            |name: &str| entry.and_then(|entry| entry.get(name)).and_then(Value::as_str).unwrap_or_default();
        if !text("identitytoken").is_empty() {
            return Ok(Auth::IdentityToken(text("identitytoken").to_owned()));
        }
        if !text("registrytoken").is_empty() {
            return Ok(Auth::Token(text("registrytoken").to_owned()));
        }
        let (username, password) = match text("auth") {
            "" => (text("username").to_owned(), text("password").to_owned()),
            auth => decode(auth).ok_or_else(|| {
                Error::invalid(format!(
                    "{}: auth of {registry:?} is no base64 of USER:PASSWORD",
                    path.display()
                ))
            })?,
        };
        Ok(if username.is_empty() { Auth::Anonymous } else { Auth::Password { username, password } })
    }

    /// Keeps those of `HOST[:PORT]`; everything else in the file stays as it is.
    ///
    /// # Errors
    /// The file is broken and left alone, cannot be written, or a helper failed.
    pub(super) fn keep(&self, registry: &str, username: &str, auth: &Auth) -> Result<Kept> {
        let path = self.path()?;
        let _lock = lock(path)?;
        let mut file = read(path)?;
        let key = key(registry);
        let helper = helper(&file, &key)?;
        let entry = match (&helper, auth) {
            (Some(helper), _) => {
                let (username, secret) = match auth {
                    Auth::Password { username, password } => (username.as_str(), password.as_str()),
                    Auth::IdentityToken(token) => (TOKEN, token.as_str()),
                    Auth::Token(_) | Auth::Anonymous => return Err(Error::invalid("no password to keep")),
                };
                let words = json!({"ServerURL": key, "Username": username, "Secret": secret});
                run(helper, "store", words.to_string().as_bytes())?;
                json!({})
            }
            (None, Auth::Password { username, password }) => {
                json!({"auth": STANDARD.encode(format!("{username}:{password}"))})
            }
            (None, Auth::IdentityToken(token)) => {
                json!({"auth": STANDARD.encode(format!("{username}:")), "identitytoken": token})
            }
            (None, Auth::Token(_) | Auth::Anonymous) => return Err(Error::invalid("no password to keep")),
        };
        let auths = file.entry("auths").or_insert_with(|| json!({}));
        let Some(auths) = auths.as_object_mut() else {
            return Err(Error::invalid(format!("{}: auths is no object", path.display())));
        };
        auths.insert(key, entry);
        write(path, &file)?;
        Ok(helper.map_or_else(|| Kept::File(path.to_owned()), Kept::Helper))
    }

    /// Forgets those of `HOST[:PORT]`; returns whether there were any.
    ///
    /// # Errors
    /// As those of [`Credentials::keep`].
    pub(super) fn forget(&self, registry: &str) -> Result<bool> {
        let path = self.path()?;
        if home::read(path)?.is_none() {
            return Ok(false);
        }
        let _lock = lock(path)?;
        let mut file = read(path)?;
        let key = key(registry);
        let Some(auths) = file.get_mut("auths").and_then(Value::as_object_mut) else { return Ok(false) };
        let before = auths.len();
        auths.retain(|name, _| self::key(name) != key);
        if auths.len() == before {
            return Ok(false);
        }
        if let Some(helper) = helper(&file, &key)? {
            run(&helper, "erase", key.as_bytes())?;
        }
        write(path, &file)?;
        Ok(true)
    }

    fn path(&self) -> Result<&Path> {
        self.path
            .as_deref()
            .ok_or_else(|| Error::invalid("no place for credentials").remedy("set HOME or DOCKER_CONFIG"))
    }
}

/// How the credentials of a registry are called, whatever somebody wrote: `https://host/v1/` is `host`.
pub(super) fn key(registry: &str) -> String {
    let bare =
        registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        _ => host.to_owned(),
    }
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let Some(bytes) = home::read(path)? else { return Ok(Map::new()) };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(|e| Error::invalid(format!("{}: {e}", path.display())))
}

fn write(path: &Path, file: &Map<String, Value>) -> Result<()> {
    // As Docker writes it: with tabs.
    let mut bytes = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    serde::Serialize::serialize(file, &mut serde_json::Serializer::with_formatter(&mut bytes, tabs))
        .map_err(|e| Error::system(format!("{}: {e}", path.display())))?;
    // The file of somebody who keeps it elsewhere stays there.
    let target = fs::read_link(path).map(|target| dir_of(path).join(target));
    home::replace(target.as_deref().unwrap_or(path), 0o600, &bytes)
}

/// Two logins at once must not lose one: the directory is locked, because the file is replaced.
fn lock(path: &Path) -> Result<File> {
    let dir = dir_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .context(|| format!("mkdir {}", dir.display()))?;
    let dir_file = File::open(dir).context(|| format!("open {}", dir.display()))?;
    flock(&dir_file, FlockOperation::LockExclusive).context(|| format!("flock {}", dir.display()))?;
    Ok(dir_file)
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

fn decode(auth: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    // Old Dockers ended it with NUL.
    let (username, password) = text.trim_end_matches('\0').split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

/// `credHelpers` has one for a registry, `credsStore` for all.
fn helper(file: &Map<String, Value>, key: &str) -> Result<Option<String>> {
    let of_registry = file
        .get("credHelpers")
        .and_then(Value::as_object)
        .and_then(|helpers| helpers.iter().find(|(name, _)| self::key(name) == key))
        .and_then(|(_, helper)| helper.as_str());
    let name = of_registry.or_else(|| file.get("credsStore").and_then(Value::as_str)).unwrap_or_default();
    // It becomes a part of the name of a program.
    if name.contains('/') {
        return Err(Error::invalid(format!("credential helper {name:?} is not valid")));
    }
    Ok(Some(name.to_owned()).filter(|name| !name.is_empty()))
}

fn from_helper(helper: &str, key: &str) -> Result<Auth> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Found {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let answer = match run(helper, "get", key.as_bytes()) {
        Ok(answer) => answer,
        Err(e) if e.kind() == Kind::NotFound => return Ok(Auth::Anonymous),
        Err(e) => return Err(e),
    };
    let found: Found = serde_json::from_slice(&answer)
        .map_err(|e| Error::system(format!("docker-credential-{helper} get: {e}")))?;
    Ok(match found {
        Found { secret, .. } if secret.is_empty() => Auth::Anonymous,
        Found { username, secret } if username == TOKEN => Auth::IdentityToken(secret),
        Found { username, secret } => Auth::Password { username, password: secret },
    })
}

/// Calls a helper, which reads words and writes words.
///
/// # Errors
/// [`Kind::NotFound`] where it has nothing; it cannot be started, or says why it failed.
fn run(helper: &str, verb: &str, words: &[u8]) -> Result<Vec<u8>> {
    let program = format!("docker-credential-{helper}");
    let doing = || format!("{program} {verb}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context(doing)?;
    // One that does not read what it is told fails by itself.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(words));
    let output = child.wait_with_output().context(doing)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if said == NOTHING {
        return Err(Error::not_found(said));
    }
    Err(Error::system(format!(
        "{}: {}",
        doing(),
        if said.is_empty() { output.status.to_string() } else { said }
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn scratch() -> PathBuf {
        std::env::temp_dir().join(format!("rrunctl-credentials-{}", home::unique().expect("random")))
    }

    fn password(username: &str, password: &str) -> Auth {
        Auth::Password { username: username.into(), password: password.into() }
    }

    #[test]
    fn every_form_that_docker_wrote_is_read() {
        let dir = scratch();
        fs::create_dir(&dir).expect("mkdir");
        let path = dir.join("config.json");
        let b64 = |text: &str| STANDARD.encode(text);
        let file = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": b64("hub:a:b\0\0")},
            "https://old.test/v1/": {"auth": b64("old:pw")},
            "plain.test:5000": {"username": "u", "password": "p"},
            "id.test": {"auth": b64("u:"), "identitytoken": "idt"},
            "token.test": {"registrytoken": "rt"},
            "broken.test": {"auth": "!!!"},
            "empty.test": {},
        }, "credsStore": ""});
        fs::write(&path, file.to_string()).expect("write");
        let credentials = Credentials::at(&path);
        let get = |registry: &str| credentials.get(registry).expect("readable");
        assert_eq!(get("docker.io"), password("hub", "a:b"));
        assert_eq!(get("old.test"), password("old", "pw"));
        assert_eq!(get("plain.test:5000"), password("u", "p"));
        assert_eq!(get("plain.test"), Auth::Anonymous);
        assert_eq!(get("id.test"), Auth::IdentityToken("idt".into()));
        assert_eq!(get("token.test"), Auth::Token("rt".into()));
        assert_eq!(get("empty.test"), Auth::Anonymous);
        assert!(credentials.get("broken.test").is_err());
        fs::write(&path, r#"{"credsStore": "../../evil"}"#).expect("write");
        assert!(credentials.get("x").is_err());
        home::remove_tree(&dir).expect("remove");
    }

    #[test]
    fn a_login_leaves_the_rest_of_the_file_alone_and_nobody_else_reads_it() {
        let dir = scratch();
        let path = dir.join("docker/config.json");
        let credentials = Credentials::at(&path);
        assert!(!credentials.forget("x.test").expect("no file is no error"));
        let kept = credentials.keep("x.test", "u", &password("u", "p")).expect("keep");
        assert_eq!(kept, Kept::File(path.clone()));
        fs::write(&path, "{\"zebra\": 1, \"auths\": {\"y.test\": {\"auth\": \"eTp5\", \"email\": \"e\"}}, \"HttpHeaders\": {\"a\": \"b\"}}")
            .expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        credentials.keep("https://x.test/v1/", "u", &Auth::IdentityToken("t".into())).expect("keep");
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(
            text,
            "{\n\t\"zebra\": 1,\n\t\"auths\": {\n\t\t\"y.test\": {\n\t\t\t\"auth\": \"eTp5\",\n\t\t\t\"email\": \"e\"\n\t\t},\n\t\t\"x.test\": {\n\t\t\t\"auth\": \"dTo=\",\n\t\t\t\"identitytoken\": \"t\"\n\t\t}\n\t},\n\t\"HttpHeaders\": {\n\t\t\"a\": \"b\"\n\t}\n}"
        );
        assert_eq!(fs::metadata(&path).expect("stat").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.join("docker")).expect("stat").permissions().mode() & 0o777, 0o700);
        assert!(credentials.forget("x.test").expect("forget"));
        assert!(!credentials.forget("x.test").expect("forget"));
        assert_eq!(credentials.get("y.test").expect("get"), password("y", "y"));
        home::remove_tree(&dir).expect("remove");
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        let dir = scratch();
        fs::create_dir(&dir).expect("mkdir");
        let path = dir.join("config.json");
        for broken in ["{\"auths\": {", "{\"auths\": []}", "[]"] {
            fs::write(&path, broken).expect("write");
            assert!(Credentials::at(&path).keep("x", "u", &password("u", "p")).is_err(), "{broken}");
            assert_eq!(fs::read_to_string(&path).expect("read"), broken);
        }
        home::remove_tree(&dir).expect("remove");
    }

    #[test]
    fn a_link_to_the_file_stays_one() {
        let dir = scratch();
        fs::create_dir(&dir).expect("mkdir");
        fs::create_dir(dir.join("real")).expect("mkdir");
        std::os::unix::fs::symlink("real/config.json", dir.join("config.json")).expect("symlink");
        let credentials = Credentials::at(&dir.join("config.json"));
        credentials.keep("x", "u", &password("u", "p")).expect("keep");
        assert!(fs::symlink_metadata(dir.join("config.json")).expect("stat").is_symlink());
        assert_eq!(Credentials::at(&dir.join("real/config.json")).get("x").expect("get"), password("u", "p"));
        home::remove_tree(&dir).expect("remove");
    }

    #[test]
    fn a_password_is_not_in_a_debug_print() {
        assert_eq!(format!("{:?}", password("user", "secret")), "Password");
    }
}
