//! README's tour, run as it is written there.

use crate::harness::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// The commands of the tour, each with the lines that README shows for it.
fn tour() -> Vec<(String, Vec<String>)> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    let block = readme.split_once("<!-- tour -->\n```console\n").expect("the tour").1;
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.split_once("\n```\n").expect("its end").0.lines() {
        match (line.strip_prefix("# "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), Vec::new())),
            (None, Some((_, shown))) => shown.push(line.to_owned()),
            (None, None) => panic!("{line}"),
        }
    }
    steps
}

/// Ids and sizes are others each time.
fn told(line: &str) -> String {
    let word = |word: &str| {
        let hex = word.strip_prefix("sha256:").unwrap_or(word);
        let is_id = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_size = word.ends_with('B') && word.starts_with(|c: char| c.is_ascii_digit());
        match (is_id, is_size) {
            (true, _) => word.replace(hex, "ID"),
            (_, true) => "SIZE".to_owned(),
            _ => word.to_owned(),
        }
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_tour_in_readme_runs_as_written() {
    alone(|| {
        let engine = Engine::new();
        let bin = engine.path("bin");
        fs::create_dir(&bin).expect("mkdir");
        // In directories of its own; everything else is as on a user's machine.
        let command = engine.command(&[]);
        let words: Vec<_> = command.get_args().map(|word| word.to_str().expect("UTF-8")).collect();
        let script = format!(
            "#!/bin/sh\nexec {} {} \"$@\"\n",
            crate::harness::program("rrunctl").display(),
            words.join(" ")
        );
        fs::write(bin.join("rrunctl"), script).expect("write");
        fs::set_permissions(bin.join("rrunctl"), fs::Permissions::from_mode(0o755)).expect("chmod");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
        let here = engine.path("here");
        fs::create_dir(&here).expect("mkdir");
        let steps = tour();
        assert!(steps.len() > 15, "{steps:?}");
        for (command, shown) in steps {
            // What listens needs a moment, and a reader of README gives it one.
            let shell = match command.strip_prefix("curl ") {
                Some(rest) => format!("curl --retry 20 --retry-delay 1 --retry-connrefused {rest}"),
                None => command.clone(),
            };
            let output = Command::new("sh")
                .args(["-c", &shell])
                .current_dir(&here)
                .env("PATH", &path)
                .output()
                .expect("a shell");
            assert_eq!(text(&output.stderr), "", "{command}");
            assert!(output.status.success(), "{command}");
            let said = text(&output.stdout);
            let said: Vec<_> = said.lines().map(told).collect();
            assert_eq!(said, shown.iter().map(|line| told(line)).collect::<Vec<_>>(), "{command}");
        }
    });
}
