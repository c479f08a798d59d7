//! The fuzzers' corpus and what they have found, through the same functions as in `fuzz/`, without a fuzzer: what has
//! once been mended stays mended, and a change that an oracle does not know is seen here first.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test panics to fail")]

#[path = "../fuzz/src/lib.rs"]
mod fuzzed;

use std::fs;
use std::path::Path;

/// Feeds every file of `fuzz/PART/TARGET` to the target.
fn replay(target: &str) {
    let (_, check) = fuzzed::TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let mut count = 0;
    for part in ["corpus", "found"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(part).join(target);
        for file in fs::read_dir(&dir).into_iter().flatten() {
            let path = file.unwrap().path();
            // Shown where it panics.
            println!("{}", path.display());
            check(&fs::read(&path).unwrap());
            count += 1;
        }
    }
    assert!(count > 20, "the corpus of {target} is not where it should be");
    check(b"");
}

macro_rules! replayed {
    ($($test:ident = $target:literal),* $(,)?) => {
        $(#[test] fn $test() { replay($target); })*

        #[test]
        fn every_target_is_replayed() {
            assert_eq!(fuzzed::TARGETS.map(|(name, _)| name), [$($target),*]);
        }
    };
}

replayed! {
    command_line = "command-line",
    config = "config",
    messages = "messages",
    mounts = "mounts",
    seccomp = "seccomp",
    state = "state",
    update = "update",
}
