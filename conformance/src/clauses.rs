//! The index of the specification's clauses, `clauses.txt`, which tells its own form.

#![forbid(unsafe_code)]

use std::sync::LazyLock;

/// How much a clause asks for. A permission that a runtime has to honour, such as an annotation's
/// value that may be empty, asks as much as a MUST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Should,
    Must,
}

#[derive(Debug)]
pub struct Clause {
    /// File, anchor and number, for instance `config.md#configMounts.1`.
    pub name: String,
    /// The specification's word.
    pub word: &'static str,
    /// Whom it binds: runtime, may, author, platform or unseen.
    pub binds: &'static str,
    /// What it asks for, or why no check can see it.
    pub says: &'static str,
}

impl Clause {
    pub fn level(&self) -> Level {
        if self.word.starts_with("SHOULD") { Level::Should } else { Level::Must }
    }

    /// Whether a check has to judge it.
    pub fn judged(&self) -> bool {
        self.binds == "runtime"
    }
}

const TEXT: &str = include_str!("../clauses.txt");
const WORDS: &[&str] =
    &["MUST NOT", "MUST", "SHALL NOT", "SHALL", "SHOULD NOT", "SHOULD", "REQUIRED", "MAY NOT", "MAY"];

pub fn all() -> &'static [Clause] {
    static ALL: LazyLock<Vec<Clause>> = LazyLock::new(parse);
    &ALL
}

/// By its name, which may be without the file.
pub fn find(name: &str) -> Option<&'static Clause> {
    all().iter().find(|clause| clause.name == name || clause.name.split('#').nth(1) == Some(name))
}

fn parse() -> Vec<Clause> {
    let mut section = "";
    let mut clauses = Vec::new();
    for line in TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("@ ") {
            section = name;
            continue;
        }
        let (number, rest) = line.split_once(' ').unwrap_or((line, ""));
        let word = WORDS.iter().find(|word| rest.starts_with(**word)).unwrap_or(&"");
        let (binds, says) = rest[word.len()..].trim_start().split_once(' ').unwrap_or_default();
        clauses.push(Clause { name: format!("{section}.{number}"), word, binds, says });
    }
    clauses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        for clause in all() {
            let Clause { name, word, binds, says } = clause;
            assert!(WORDS.contains(word), "{name}");
            assert!(["runtime", "may", "author", "platform", "unseen"].contains(binds), "{name}");
            assert!(!says.is_empty() && name.contains(".md#"), "{name}");
            assert_eq!(all().iter().filter(|other| other.name == *name).count(), 1, "{name} is there twice");
            assert!(*binds != "unseen" || says.contains("; "), "{name} does not say why it cannot be seen");
        }
    }

    /// The words of one of the specification's files, by section and number.
    fn words(file: &str, text: &str) -> Vec<(String, String)> {
        let (mut found, mut section, mut number, mut code) = (Vec::new(), String::new(), 0, false);
        for line in text.lines() {
            code ^= line.starts_with("```");
            let title = line.trim_start_matches('#').trim();
            if !code && line.starts_with('#') && !title.starts_with("Example") {
                let anchor = title.split("name=\"").nth(1).and_then(|rest| rest.split('"').next());
                let plain = || title.to_lowercase().replace(' ', "-");
                (section, number) = (format!("{file}#{}", anchor.map_or_else(plain, str::to_owned)), 0);
                continue;
            }
            let mut rest = line;
            while let Some(at) = WORDS.iter().filter_map(|word| rest.find(word)).min().filter(|_| !code) {
                let word = WORDS.iter().find(|word| rest[at..].starts_with(**word)).unwrap();
                let alone = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                if alone(rest[..at].chars().last()) && alone(rest[at + word.len()..].chars().next()) {
                    number += 1;
                    found.push((format!("{section}.{number}"), (*word).to_owned()));
                }
                rest = &rest[at + word.len()..];
            }
        }
        found
    }

    #[test]
    #[ignore = "needs RUNTIME_SPEC, a checkout of github.com/opencontainers/runtime-spec"]
    fn the_index_has_every_word_of_the_specification() {
        let spec = std::path::PathBuf::from(std::env::var_os("RUNTIME_SPEC").unwrap());
        let files = ["runtime", "runtime-linux", "config", "config-linux", "features", "features-linux"];
        let mut want = Vec::new();
        for file in files.map(|file| format!("{file}.md")) {
            want.extend(words(&file, &std::fs::read_to_string(spec.join(&file)).unwrap()));
        }
        let numbered = |name: &str| name.rsplit('.').next().is_some_and(|n| n.parse::<u32>().is_ok());
        let have: Vec<_> = all().iter().filter(|clause| numbered(&clause.name)).collect();
        for (name, word) in &want {
            assert_eq!(find(name).map(|clause| clause.word), Some(word.as_str()), "{name}");
        }
        assert_eq!(have.len(), want.len());
    }
}
