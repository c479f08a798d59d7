//! `pull`, `push`, `login` and `logout` against a registry on the loopback network: Debian's docker-registry.

use crate::harness::*;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A registry, which ends with it.
struct Registry {
    child: Child,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Registry {
    /// With a password, if one is given, for `me`.
    fn start(engine: &Engine, password: Option<&str>) -> Self {
        // Free now, and taken by nobody else a moment later.
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let dir = engine.path("registry");
        fs::create_dir_all(&dir).expect("mkdir");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n",
            dir.display()
        );
        if let Some(password) = password {
            let users = Command::new("htpasswd")
                .args(["-Bbn", "me", password])
                .output()
                .expect("apt-get install apache2-utils");
            fs::write(dir.join("users"), users.stdout).expect("write");
            config += &format!("auth: {{htpasswd: {{realm: r, path: {}/users}}}}\n", dir.display());
        }
        fs::write(dir.join("config.yml"), config).expect("write");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log")).expect("a file"))
            .spawn()
            .expect("apt-get install docker-registry");
        let registry = Self { child, port };
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "{}",
                fs::read_to_string(dir.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    fn named(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

#[test]
fn i1_i8_i17_what_is_pushed_is_pulled_back_as_it_was() {
    let engine = Engine::new();
    let registry = Registry::start(&engine, None);
    let made = busybox(&["busybox:1"]);
    engine.loads(&made.archive());
    let name = registry.named("my/busybox");
    engine.prints(&["tag", "busybox:1", &name]);
    let said = engine.prints(&["push", &name]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["Using default tag: latest", &format!("The push refers to repository [{name}]")]);
    assert_eq!(said.matches(": Pushed\n").count(), 2, "{said}");
    let last = lines[lines.len() - 1];
    let digest =
        last.strip_prefix("latest: digest: ").and_then(|rest| rest.split(' ').next()).expect("the last line");
    assert!(digest.starts_with("sha256:") && last.contains(" size: "), "{last}");
    let said = engine.prints(&["image", "push", &format!("{name}:latest")]);
    assert_eq!(said.matches(": Layer already exists\n").count(), 2, "{said}");
    assert!(said.ends_with(&format!("{last}\n")), "{said}");

    engine.prints(&["image", "remove", &name]);
    engine.prints(&["image", "remove", "busybox:1"]);
    let said = engine.prints(&["pull", &name]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["Using default tag: latest", "latest: Pulling from my/busybox"]);
    assert_eq!(said.matches(": Pull complete\n").count(), 2, "{said}");
    let end = [
        format!("Digest: {digest}"),
        format!("Status: Downloaded newer image for {name}:latest"),
        format!("{name}:latest"),
    ];
    assert_eq!(lines[lines.len() - 3..], end);
    assert!(!said.contains("Downloading") && !said.contains('\x1b'), "no bars without a terminal: {said}");
    assert_eq!(engine.id(&name), made.id());
    assert!(
        engine.prints(&["pull", &name]).contains(&format!("Status: Image is up to date for {name}:latest\n"))
    );
    assert_eq!(engine.prints(&["pull", "-q", &format!("{name}:latest")]), format!("{name}:latest\n"));
    // I14: the digest names it too, and is a row of its own kind.
    let by_digest = format!("{name}@{digest}");
    engine.prints(&["image", "pull", &by_digest]);
    assert_eq!(engine.id(&by_digest), made.id());
    let shown = engine.prints(&["images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}"]);
    assert_eq!(shown, format!("{name} latest {digest}\n"));

    let e = engine.refuses(&["pull", &registry.named("none")]);
    assert!(e.contains("none"), "{e}");
    assert!(engine.refuses(&["push", "127.0.0.1:1/none"]).contains("127.0.0.1:1/none"));
    assert!(engine.refuses(&["push", "-a", &format!("{name}:latest")]).contains("--all-tags"));
    engine.refuses(&["pull", "127.0.0.1:1/none"]);
    engine.refuses(&["pull", "UPPER"]);
    engine.refuses(&["pull", "--platform", "a/b/c/d", &name]);
}

#[test]
fn i2_names_of_docker_hub_are_pulled_from_a_mirror() {
    let engine = Engine::new();
    let registry = Registry::start(&engine, None);
    let made = busybox(&["busybox:1"]);
    engine.loads(&made.archive());
    let name = registry.named("library/busybox:latest");
    engine.prints(&["tag", "busybox:1", &name]);
    engine.prints(&["push", "-q", &name]);
    engine.prints(&["rmi", "busybox:1", &name]);
    let config = engine.path("daemon.json");
    fs::write(&config, format!(r#"{{"registry-mirrors": ["http://127.0.0.1:{}"]}}"#, registry.port))
        .expect("write");
    let said = engine.prints(&["--config", config.to_str().expect("UTF-8"), "pull", "busybox"]);
    assert!(
        said.ends_with(
            "Status: Downloaded newer image for busybox:latest\ndocker.io/library/busybox:latest\n"
        ),
        "{said}"
    );
    assert_eq!(engine.id("busybox"), made.id());
}

#[test]
fn i16_a_password_is_kept_until_the_logout() {
    let engine = Engine::new();
    let registry = Registry::start(&engine, Some("secret"));
    let server = format!("127.0.0.1:{}", registry.port);
    let name = registry.named("mine");
    engine.loads(&busybox(&[&format!("{name}:latest")]).archive());
    let e = engine.refuses(&["push", &name]);
    assert!(e.contains("no basic auth credentials"), "{e}");
    let login = ["login", "--username=me", "--password-stdin", &server];
    let output = engine.fed(&login, b"wrong\n");
    assert!(refusal(&output, &login).contains("401 Unauthorized"), "{}", text(&output.stderr));
    let output = engine.fed(&login, b"secret\n");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "Login Succeeded\n"));
    let kept = engine.path("docker/config.json");
    let warning = format!("WARNING: Your credentials are stored unencrypted in '{}'.", kept.display());
    assert!(text(&output.stderr).starts_with(&warning), "{}", text(&output.stderr));
    assert!(fs::read_to_string(&kept).expect("kept").contains(&server));
    engine.prints(&["push", &name]);
    engine.prints(&["rmi", &name]);
    engine.prints(&["pull", "-q", &name]);
    assert_eq!(engine.prints(&["logout", &server]), format!("Removing login credentials for {server}\n"));
    assert!(!fs::read_to_string(&kept).expect("kept").contains(&server));
    assert_eq!(engine.prints(&["logout", &server]), format!("Not logged in to {server}\n"));
    engine.refuses(&["pull", &name]);
    // Nobody can be asked.
    let e = engine.refuses(&["login", &server]);
    assert_eq!(
        e,
        "Cannot perform an interactive login from a non TTY device (use --username and --password-stdin)"
    );
    assert!(
        engine.refuses(&["login", "-u", "me", "--password-stdin", &server]).contains("password is empty")
    );
    let output = engine.run(&["login", "-u", "me", "-p", "secret", &server]);
    assert!(
        text(&output.stderr)
            .starts_with("WARNING: Using --password via the CLI is insecure. Use --password-stdin.\n")
    );
    // At a terminal whoever logs in is asked, and nobody sees the password.
    let seen = terminal(
        &engine.command(&["login", &server]),
        ":",
        &[("Username: ", "me\n"), ("Password: ", "secret\n")],
    );
    assert!(seen.contains("Username: me\r\nPassword: \r\n") && !seen.contains("secret"), "{seen:?}");
    assert!(seen.ends_with("Login Succeeded\r\n"), "{seen:?}");
}
