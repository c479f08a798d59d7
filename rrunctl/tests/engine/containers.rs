//! Containers from their making to their end, each test in a network namespace of its own.

use crate::harness::*;
use rrunctl::container::types::{Config, CreateRequest, HostConfig};
use rrunctl::engine::{Engine as Library, Programs};
use rrunctl::home::Home;
use rrunctl::settings::Settings;
use std::path::Path;

fn library(engine: &Engine) -> Library {
    let runtime = std::env::var_os("RRUN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/rrun"), Into::into);
    let text = |path: &Path| path.display().to_string();
    let own = vec![
        env!("CARGO_BIN_EXE_rrunctl").to_owned(),
        "--root".into(),
        text(&engine.root()),
        "--run".into(),
        text(&engine.path("run")),
    ];
    let programs = Programs { runtime, monitor: env!("CARGO_BIN_EXE_rrunmon").into(), own };
    let home = Home::open(&engine.root(), &engine.path("run")).expect("a home");
    Library::open(home, Settings::default(), programs).expect("an engine")
}

fn busybox(engine: &Engine) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut file = std::fs::File::open("/bin/busybox").expect("busybox-static");
    tar.append_file("bin/busybox", &mut file).expect("tar");
    for applet in ["sh", "cat", "sleep", "ls", "true", "false", "id", "ip", "wget", "httpd", "echo", "nc"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("tar");
    }
    let bytes = tar.into_inner().expect("tar");
    let out = engine.fed(&["import", "-c", "CMD [\"sh\"]", "-", "busybox"], &bytes);
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn a_container_is_made_started_stopped_and_removed() {
    alone(|| {
        let engine = Engine::new();
        busybox(&engine);
        let library = library(&engine);
        let request = CreateRequest {
            name: Some("web".into()),
            config: Config {
                image: "busybox".into(),
                cmd: ["sh", "-c", "echo hello; ip a; cat /etc/hosts /etc/resolv.conf; id; trap 'exit 7' TERM; sleep 100 & wait"].into_iter().collect(),
                ..Config::default()
            },
            host: HostConfig::default(),
            ..CreateRequest::default()
        };
        let t = std::time::Instant::now();
        let made = library.create(request).expect("made");
        eprintln!("{made:?} {:?}", t.elapsed());
        let t = std::time::Instant::now();
        library.start(&made.id).expect("started");
        eprintln!("start {:?}", t.elapsed());
        std::thread::sleep(std::time::Duration::from_millis(300));
        eprintln!(
            "{}",
            serde_json::to_string_pretty(&library.inspect(&made.id, false).expect("inspect")).expect("json")
        );
        eprintln!(
            "{}",
            std::fs::read_to_string(
                engine.root().join("containers").join(&made.id).join(format!("{}-json.log", made.id))
            )
            .expect("log")
        );
        let t = std::time::Instant::now();
        library.stop(&made.id, None, None).expect("stopped");
        eprintln!("stop {:?}", t.elapsed());
        eprintln!("{:?}", library.state(&library.containers.load(&made.id).expect("load")));
        let t = std::time::Instant::now();
        library.remove(&made.id, false, true).expect("removed");
        eprintln!("rm {:?}", t.elapsed());
        eprintln!("{:?}", engine.files());
    });
}
