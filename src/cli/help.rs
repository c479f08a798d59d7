//! `--help`, `--version` and the usage behind a mistake. The layout is runc's, which its test suite checks.

#![forbid(unsafe_code)]

use super::flags::{self, Flag, GLOBAL, Set, TOPICS, Topic};
use std::fmt::Write;

/// Version of the runtime specification that is implemented.
pub const SPEC_VERSION: &str = "1.3.0";

/// What rrun is, in one line.
pub const ABOUT: &str = "Open Container Initiative runtime";

/// What rrun is, in two paragraphs; `@` stands for the program's name.
pub const TEXT: &[&str] = &[
    "@ makes a container from a bundle: a directory with a configuration, config.json, and usually the root \
     file system beside it. It takes the place of runc below containerd, Docker, Podman and CRI-O, and can \
     be used by hand:",
    "@ run -b <bundle> <container-id>",
];

const WIDTH: usize = 100;

/// The commit that this was built from, as the Makefile gives it.
pub const COMMIT: &str = match option_env!("RRUN_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The first three lines are parsed by Docker, go-runc and runc's test suite.
pub fn version(name: &str) -> String {
    format!("{name} version {}\ncommit: {COMMIT}\nspec: {SPEC_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

/// The line behind a mistake.
pub fn usage(name: &str, topic: Option<&Topic>) -> String {
    let command = topic.map(|t| format!(" {}", t.name)).unwrap_or_default();
    format!("usage: {}; see {name}{command} --help", synopsis(name, topic))
}

/// How it is called.
pub fn synopsis(name: &str, topic: Option<&Topic>) -> String {
    let Some(topic) = topic else {
        return format!("{name} [global options] command [options] [operands...]");
    };
    let options = if visible(topic.name).next().is_some() { " [options]" } else { "" };
    let space = if topic.operands.is_empty() { "" } else { " " };
    format!("{name} {}{options}{space}{}", topic.name, topic.operands)
}

/// The flags that are shown.
pub fn visible(command: &str) -> impl Iterator<Item = &'static Flag> {
    flags::of(command).filter(|f| !f.hidden)
}

/// The forms of a flag, as in `--bundle DIR, -b DIR`.
pub fn forms(flag: &Flag) -> String {
    let value = match flag.set {
        Set::Switch(_) => String::new(),
        Set::Value(metavar, _) => format!(" {metavar}"),
    };
    match flag.short {
        Some(short) => format!("--{}, -{short}{value}", flag.name),
        None => format!("--{}{value}", flag.name),
    }
}

/// The whole help, of a command or of all.
pub fn help(name: &str, topic: Option<&Topic>) -> String {
    let mut out = String::new();
    match topic {
        Some(topic) => {
            section(&mut out, "NAME", &format!("{name} {} - {}", topic.name, topic.about.replace('@', name)))
        }
        None => section(&mut out, "NAME", &format!("{name} - {ABOUT}")),
    }
    section(&mut out, "USAGE", &synopsis(name, topic));
    match topic {
        Some(topic) => {
            if !topic.text.is_empty() {
                section(&mut out, "DESCRIPTION", &topic.text.replace('@', name));
            }
            list(&mut out, "OPTIONS", visible(topic.name).map(|f| (forms(f), f.help.to_owned())).collect());
        }
        None => {
            for (i, text) in TEXT.iter().enumerate() {
                section(&mut out, if i == 0 { "DESCRIPTION" } else { "" }, &text.replace('@', name));
            }
            section(&mut out, "VERSION", env!("CARGO_PKG_VERSION"));
            let commands = TOPICS.iter().filter(|t| !t.hidden);
            list(
                &mut out,
                "COMMANDS",
                commands.map(|t| (t.name.to_owned(), t.about.replace('@', name))).collect(),
            );
        }
    }
    let mut global: Vec<_> = visible(GLOBAL).map(|f| (forms(f), f.help.to_owned())).collect();
    global.push(("--help, -h".to_owned(), "show this, or behind a command its help".to_owned()));
    if topic.is_none() {
        global.push(("--version, -v".to_owned(), "show the version".to_owned()));
        list(&mut out, "GLOBAL OPTIONS", global);
    }
    out
}

fn heading(out: &mut String, heading: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    if !heading.is_empty() {
        let _ = writeln!(out, "{heading}:");
    }
}

fn section(out: &mut String, title: &str, text: &str) {
    heading(out, title);
    for line in wrap(text, WIDTH - 3) {
        let _ = writeln!(out, "   {line}");
    }
}

/// Two columns.
fn list(out: &mut String, title: &str, rows: Vec<(String, String)>) {
    if rows.is_empty() {
        return;
    }
    heading(out, title);
    let left = rows.iter().map(|(a, _)| a.len()).filter(|n| *n <= 34).max().unwrap_or(0);
    for (form, text) in rows {
        let mut form = form.as_str();
        if form.len() > left {
            let _ = writeln!(out, "   {form}");
            form = "";
        }
        for line in wrap(&text, WIDTH - 5 - left) {
            let _ = writeln!(out, "   {form:left$}  {line}");
            form = "";
        }
    }
}

/// Breaks text at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_begins_as_runcs_test_suite_wants_it() {
        let lines: Vec<String> = help("runc", None).lines().map(str::to_owned).collect();
        assert_eq!(&lines[..2], ["NAME:", "   runc - Open Container Initiative runtime"]);
        for topic in TOPICS {
            let text = help("runc", Some(topic));
            assert!(text.starts_with(&format!("NAME:\n   runc {} - ", topic.name)), "{text}");
        }
    }

    #[test]
    fn every_command_and_every_visible_flag_is_in_the_help_and_nothing_else() {
        let all = help("rrun", None);
        for topic in TOPICS {
            assert_eq!(all.contains(&format!("\n   {} ", topic.name)), !topic.hidden, "{}", topic.name);
            let text = help("rrun", Some(topic));
            for flag in flags::of(topic.name) {
                assert_eq!(text.contains(&forms(flag)), !flag.hidden, "{} {}", topic.name, flag.name);
            }
        }
        for flag in flags::of(GLOBAL) {
            assert_eq!(all.contains(&forms(flag)), !flag.hidden, "{}", flag.name);
        }
        assert!(all.lines().all(|l| l.chars().count() <= WIDTH), "{all}");
    }

    #[test]
    fn the_tables_are_in_order() {
        assert!(TOPICS.is_sorted_by_key(|t| t.name));
        for topic in TOPICS {
            assert!(!topic.about.is_empty() && !topic.about.ends_with('.'), "{}", topic.name);
        }
        for flag in flags::FLAGS {
            assert!(!flag.help.is_empty() && !flag.help.ends_with('.'), "{}", flag.name);
            assert!(!flag.name.starts_with(|c: char| c == '-' || c.is_ascii_digit()));
            for on in flag.on {
                assert!(*on == GLOBAL || flags::topic(on).is_some(), "{} on {on}", flag.name);
                let same = |other: &&Flag| {
                    other.name == flag.name || (flag.short.is_some() && other.short == flag.short)
                };
                assert_eq!(flags::of(on).filter(same).count(), 1, "{} twice on {on:?}", flag.name);
            }
        }
    }

    #[test]
    fn the_version_has_the_lines_that_callers_parse() {
        let text = version("runc");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("runc version {}", env!("CARGO_PKG_VERSION")));
        assert!(lines[1].starts_with("commit: "));
        assert_eq!(lines[2], "spec: 1.3.0");
    }

    #[test]
    fn the_usage_names_options_only_where_there_are_some() {
        assert_eq!(synopsis("x", flags::topic("create")), "x create [options] <container-id>");
        assert_eq!(synopsis("x", flags::topic("state")), "x state <container-id>");
        assert_eq!(synopsis("x", flags::topic("features")), "x features");
    }
}
