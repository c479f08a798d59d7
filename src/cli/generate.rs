//! Man pages and shell completions, from the tables.

#![forbid(unsafe_code)]

use super::flags::{self, FLAGS, Flag, GLOBAL, Offer, Set, TOPICS, Topic};
use super::help;
use super::values::{Shell, signal_names};
use std::fmt::Write;

/// All man pages of section 8: file names and contents.
pub fn man_pages() -> Vec<(String, String)> {
    let mut pages = vec![("rrun.8".to_owned(), man(None))];
    for topic in TOPICS.iter().filter(|t| !t.hidden) {
        pages.push((format!("rrun-{}.8", topic.name), man(Some(topic))));
    }
    pages
}

fn man(topic: Option<&Topic>) -> String {
    let mut out = String::new();
    let title = topic.map_or_else(|| "rrun".to_owned(), |t| format!("rrun-{}", t.name));
    let about = topic.map_or(help::ABOUT, |t| t.about);
    let _ =
        writeln!(out, ".TH {} 8 \"\" \"rrun {}\"", roff(&title).to_uppercase(), env!("CARGO_PKG_VERSION"));
    let _ = writeln!(out, ".SH NAME\n{} \\- {}", roff(&title), roff(about));
    let _ = writeln!(out, ".SH SYNOPSIS\n{}", roff(&help::synopsis("rrun", topic)));
    let texts = topic.map_or_else(|| help::TEXT.to_vec(), |t| vec![t.text]);
    if texts.iter().any(|t| !t.is_empty()) {
        let _ = writeln!(out, ".SH DESCRIPTION");
        for text in texts {
            let _ = writeln!(out, ".PP\n{}", roff(text));
        }
    }
    match topic {
        Some(topic) => options(&mut out, "OPTIONS", topic.name),
        None => {
            let _ = writeln!(out, ".SH COMMANDS");
            for topic in TOPICS.iter().filter(|t| !t.hidden) {
                let _ = writeln!(
                    out,
                    ".TP\n.B {}\n{}; see rrun\\-{}(8)",
                    topic.name,
                    roff(topic.about),
                    topic.name
                );
            }
            options(&mut out, "GLOBAL OPTIONS", GLOBAL);
            let _ = writeln!(out, "{EXIT_STATUS}");
        }
    }
    let _ = writeln!(out, ".SH SEE ALSO");
    match topic {
        Some(_) => out.push_str(".BR rrun (8)\n"),
        None => out.push_str("The runtime specification, https://github.com/opencontainers/runtime\\-spec\n"),
    }
    out
}

const EXIT_STATUS: &str = ".SH EXIT STATUS
.TP
.B 0
The command did what was asked.
.TP
.B 1
It did not; the message is in the log, and on standard error if that is not the log.
.TP
.B 255
exec could not start the process.
.PP
run and exec otherwise return the status of the process, 128+n if signal n ended it.";

fn options(out: &mut String, title: &str, command: &str) {
    let mut flags = help::visible(command).peekable();
    if flags.peek().is_none() {
        return;
    }
    let _ = writeln!(out, ".SH {title}");
    for flag in flags {
        let _ = writeln!(out, ".TP\n.B {}\n{}", roff(&help::forms(flag)), roff(flag.help));
    }
}

/// Text for roff: minus signs that can be copied, no backslash, no control line.
fn roff(text: &str) -> String {
    let text = text.replace('@', "rrun").replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// The completion script of a shell, for a program of that name.
pub fn completion(shell: Shell, name: &str) -> String {
    match shell {
        Shell::Bash => bash(name),
        Shell::Zsh => zsh(name),
        Shell::Fish => fish(name),
    }
}

/// A function's name: the program's may have a dot or a dash.
fn function(name: &str) -> String {
    format!("_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

/// Commands that have flags or are flags' place, the global one first.
fn places() -> impl Iterator<Item = (&'static str, Option<&'static Topic>)> {
    std::iter::once((GLOBAL, None)).chain(TOPICS.iter().filter(|t| !t.hidden).map(|t| (t.name, Some(t))))
}

fn takes_value(flag: &&Flag) -> bool {
    matches!(flag.set, Set::Value(..))
}

/// `"create --bundle"|"create -bundle"|"create -b"`: how bash's case tells a flag by its command.
fn bash_patterns(command: &str, flag: &Flag) -> String {
    let mut spellings = vec![format!("--{}", flag.name), format!("-{}", flag.name)];
    spellings.extend(flag.short.map(|c| format!("-{c}")));
    spellings.iter().map(|s| format!("\"{command} {s}\"")).collect::<Vec<_>>().join("|")
}

fn bash_offer(offer: Offer, name: &str) -> String {
    match offer {
        Offer::Nothing => ":".to_owned(),
        Offer::Files => "compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\"))".to_owned(),
        Offer::Directories => {
            "compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- \"$cur\"))".to_owned()
        }
        Offer::Words(words) => format!("COMPREPLY=($(compgen -W '{}' -- \"$cur\"))", words.join(" ")),
        Offer::Ids => format!(
            "((operands)) || COMPREPLY=($(compgen -W \"$({name} \"${{root[@]}}\" list -q 2>/dev/null)\" -- \"$cur\"))"
        ),
        Offer::IdsThenSignals => format!(
            "if ((operands)); then COMPREPLY=($(compgen -W '{}' -- \"$cur\")); else {}; fi",
            signal_names().collect::<Vec<_>>().join(" "),
            bash_offer(Offer::Ids, name).replacen("((operands)) || ", "", 1)
        ),
        Offer::Commands => {
            format!("((operands)) || COMPREPLY=($(compgen -W '{}' -- \"$cur\"))", commands().join(" "))
        }
    }
}

fn commands() -> Vec<&'static str> {
    TOPICS.iter().filter(|t| !t.hidden).map(|t| t.name).collect()
}

/// bash breaks words at `=`, so `--root=/x` arrives as three.
fn bash(name: &str) -> String {
    let function = function(name);
    let every: Vec<String> = places()
        .flat_map(|(place, _)| flags::of(place).filter(takes_value).map(move |f| bash_patterns(place, f)))
        .collect();
    let mut out = format!(
        r#"# bash completion for {name}; written by {name} completion bash
{function}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
    local command= word operands=0 i root=()
    COMPREPLY=()
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        case "$command $word" in
        {})
            [[ ${{COMP_WORDS[i+1]}} != = ]] || ((i++))
            ((i++))
            [[ $word != -root && $word != --root ]] || root=(--root "${{COMP_WORDS[i]}}") ;;
        *" -"*|*" =") ;;
        *) if [[ -z $command ]]; then command=$word; else ((operands++)); fi ;;
        esac
    done
    case "$command $prev" in
"#,
        every.join("|")
    );
    for (place, _) in places() {
        for flag in flags::of(place).filter(takes_value) {
            let _ = writeln!(
                out,
                "    {}) {}; return ;;",
                bash_patterns(place, flag),
                bash_offer(flag.offer, name)
            );
        }
    }
    out.push_str("    esac\n    if [[ $cur == -* ]]; then\n        case $command in\n");
    for (place, _) in places() {
        let words: Vec<String> = help::visible(place).map(|f| format!("--{}", f.name)).collect();
        let version = if place == GLOBAL { " --version" } else { "" };
        let _ = writeln!(
            out,
            "        '{place}') COMPREPLY=($(compgen -W '{} --help{version}' -- \"$cur\")) ;;",
            words.join(" ")
        );
    }
    out.push_str("        esac\n        return\n    fi\n    case $command in\n");
    for (place, topic) in places() {
        let offer = topic.map_or(Offer::Commands, |t| t.offer);
        let _ = writeln!(out, "    '{place}') {} ;;", bash_offer(offer, name));
    }
    let _ = writeln!(out, "    esac\n}}\ncomplete -F {function} {name}");
    out
}

fn zsh_offer(offer: Offer, name: &str) -> String {
    match offer {
        Offer::Nothing => String::new(),
        Offer::Files => "_files".to_owned(),
        Offer::Directories => "_files -/".to_owned(),
        Offer::Words(words) => format!("({})", words.join(" ")),
        Offer::Ids | Offer::IdsThenSignals => format!("{}_ids", function(name)),
        Offer::Commands => format!("({})", commands().join(" ")),
    }
}

/// Text within an `_arguments` specification, in single quotes.
fn zsh_text(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "'\\''").replace(':', "\\:");
    text.replace('[', "\\[").replace(']', "\\]")
}

fn zsh_flag(flag: &Flag, name: &str) -> String {
    let help = zsh_text(flag.help);
    let (equals, plus, value) = match flag.set {
        Set::Switch(_) => ("", "", String::new()),
        Set::Value(metavar, _) => {
            ("=", "+", format!(":{}:{}", metavar.replace(':', "\\:"), zsh_offer(flag.offer, name)))
        }
    };
    let long = flag.name;
    // A `*` says that it may be repeated.
    let star = if flag.help.contains("may be repeated") { "*" } else { "" };
    match flag.short {
        Some(short) => format!("'{star}'{{-{short}{plus},--{long}{equals}}}'[{help}]{value}'"),
        None => format!("'{star}--{long}{equals}[{help}]{value}'"),
    }
}

fn zsh_arguments(out: &mut String, indent: &str, place: &str, name: &str, rest: &[String]) {
    let mut specs: Vec<String> = help::visible(place).map(|f| zsh_flag(f, name)).collect();
    specs.push("'(- *)'{-h,--help}'[show help]'".to_owned());
    specs.extend_from_slice(rest);
    let joint = format!(" \\\n{indent}    ");
    let _ = writeln!(out, "{indent}_arguments -C{joint}{}", specs.join(&joint));
}

fn zsh(name: &str) -> String {
    let function = function(name);
    let mut out = format!(
        "#compdef {name}\n# zsh completion for {name}; written by {name} completion zsh\n\n\
         {function}_ids() {{\n    local -a ids\n    \
         ids=(${{(f)\"$(_call_program ids {name} $root list -q 2>/dev/null)\"}})\n    compadd -a ids\n}}\n\n\
         {function}() {{\n    local curcontext=$curcontext context state state_descr line\n    typeset -A opt_args\n"
    );
    let version = "'(- *)'{-v,--version}'[show the version]'";
    let rest = [version, "'1:command:->command'", "'*::operand:->operands'"].map(str::to_owned);
    zsh_arguments(&mut out, "    ", GLOBAL, name, &rest);
    // Taken before the command's options replace $opt_args; the ids see it by zsh's dynamic scope.
    out.push_str("    local -a root\n    [[ -z $opt_args[--root] ]] || root=(--root $opt_args[--root])\n");
    out.push_str("    case $state in\n    command)\n        local -a commands=(\n");
    for topic in TOPICS.iter().filter(|t| !t.hidden) {
        let _ = writeln!(out, "            '{}:{}'", topic.name, zsh_text(&topic.about.replace('@', name)));
    }
    out.push_str(
        "        )\n        _describe command commands ;;\n    operands)\n        case $words[1] in\n",
    );
    for topic in TOPICS.iter().filter(|t| !t.hidden) {
        let _ = writeln!(out, "        {})", topic.name);
        let mut rest = match topic.offer {
            Offer::Nothing => Vec::new(),
            offer => vec![format!("'1:operand:{}'", zsh_offer(offer, name))],
        };
        if matches!(topic.offer, Offer::IdsThenSignals) {
            rest.push(format!("'2:signal:({})'", signal_names().collect::<Vec<_>>().join(" ")));
        }
        zsh_arguments(&mut out, "            ", topic.name, name, &rest);
        out.push_str("            ;;\n");
    }
    let _ = writeln!(
        out,
        "        esac ;;\n    esac\n}}\n\n\
         # Run by the completion system, or sourced.\n\
         if [[ $funcstack[1] == {function} ]]; then {function} \"$@\"; else compdef {function} {name}; fi"
    );
    out
}

/// Text in single quotes, for fish.
fn fish_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn fish_offer(offer: Offer, name: &str) -> String {
    match offer {
        Offer::Nothing => String::new(),
        Offer::Files => " -F".to_owned(),
        Offer::Directories => " -a '(__fish_complete_directories)'".to_owned(),
        Offer::Words(words) => format!(" -a '{}'", words.join(" ")),
        Offer::Ids => format!(" -a '({name} list -q 2>/dev/null)'"),
        Offer::IdsThenSignals => {
            format!(" -a '({name} list -q 2>/dev/null) {}'", signal_names().collect::<Vec<_>>().join(" "))
        }
        Offer::Commands => format!(" -a '{}'", commands().join(" ")),
    }
}

fn fish(name: &str) -> String {
    let mut out =
        format!("# fish completion for {name}; written by {name} completion fish\ncomplete -c {name} -f\n");
    for topic in TOPICS.iter().filter(|t| !t.hidden) {
        let about = fish_text(&topic.about.replace('@', name));
        let _ = writeln!(out, "complete -c {name} -n __fish_use_subcommand -a {} -d {about}", topic.name);
        if !matches!(topic.offer, Offer::Nothing) {
            let offer = fish_offer(topic.offer, name);
            let _ =
                writeln!(out, "complete -c {name} -n '__fish_seen_subcommand_from {}'{offer}", topic.name);
        }
    }
    for flag in FLAGS.iter().filter(|f| !f.hidden) {
        let condition = if flag.is_on(GLOBAL) {
            "__fish_use_subcommand".to_owned()
        } else {
            format!("'__fish_seen_subcommand_from {}'", flag.on.join(" "))
        };
        let short = flag.short.map(|c| format!(" -s {c}")).unwrap_or_default();
        // -x keeps file names out, which -r does not.
        let value = match (flag.set, flag.offer) {
            (Set::Switch(_), _) => String::new(),
            (Set::Value(..), Offer::Files) => " -r -F".to_owned(),
            (Set::Value(..), offer) => format!(" -x{}", fish_offer(offer, name)),
        };
        let help = fish_text(flag.help);
        let _ = writeln!(out, "complete -c {name} -n {condition} -l {}{short}{value} -d {help}", flag.name);
    }
    let _ = writeln!(out, "complete -c {name} -s h -l help -d 'show help'");
    let _ =
        writeln!(out, "complete -c {name} -n __fish_use_subcommand -s v -l version -d 'show the version'");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn every_command_and_every_visible_flag_is_in_its_man_page() {
        let pages = man_pages();
        for (place, topic) in places() {
            let file = topic.map_or_else(|| "rrun.8".to_owned(), |t| format!("rrun-{}.8", t.name));
            let (_, page) = pages.iter().find(|(name, _)| *name == file).unwrap();
            assert!(page.starts_with(".TH RRUN"));
            for flag in flags::of(place) {
                let forms = roff(&help::forms(flag));
                assert_eq!(page.contains(&format!("\n.B {forms}\n")), !flag.hidden, "{file} {forms}");
            }
            assert!(!page.contains('@'), "{page}");
            if let Some(topic) = topic {
                assert!(pages[0].1.contains(&format!("\n.B {}\n", topic.name)));
            }
        }
    }

    #[test]
    fn every_command_and_every_visible_flag_is_in_the_completions() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completion(shell, "rrun");
            for topic in TOPICS.iter().filter(|t| !t.hidden) {
                assert!(script.contains(topic.name), "{shell:?} {}", topic.name);
            }
            for flag in FLAGS.iter().filter(|f| !f.hidden) {
                let form = if shell == Shell::Fish {
                    format!("-l {} ", flag.name)
                } else {
                    format!("--{}", flag.name)
                };
                assert!(script.contains(&form), "{shell:?} {}", flag.name);
            }
            assert!(script.contains("list -q") && !script.contains('@') || shell != Shell::Fish);
        }
    }

    /// Whether the shell takes the script; `None` if the shell is not installed.
    fn accepts(shell: &str, script: &str) -> Option<bool> {
        let mut child = Command::new(shell).arg("-n").stdin(Stdio::piped()).spawn().ok()?;
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        Some(child.wait().unwrap().success())
    }

    #[test]
    fn the_shells_take_their_scripts() {
        assert_eq!(accepts("bash", "if"), Some(false));
        assert_eq!(accepts("bash", &completion(Shell::Bash, "rrun")), Some(true));
        assert_ne!(accepts("zsh", &completion(Shell::Zsh, "rrun")), Some(false));
        assert_ne!(accepts("fish", &completion(Shell::Fish, "rrun")), Some(false));
    }

    /// What bash offers for the last word of a line, the program being a function that lists its arguments.
    fn offered(words: &[&str]) -> Vec<String> {
        let quoted: Vec<String> = words.iter().map(|w| format!("'{w}'")).collect();
        let script = format!(
            "{}\nrrun-x() {{ [[ $* != *'list -q'* ]] || printf '%s\\n' one two \"$2\"; }}\n\
             COMP_WORDS=(rrun-x {}); COMP_CWORD={}; _rrun_x; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            completion(Shell::Bash, "rrun-x"),
            quoted.join(" "),
            words.len()
        );
        let out = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
        assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn bash_offers_what_fits() {
        assert_eq!(offered(&["cr"]), ["create"]);
        assert_eq!(offered(&["--log-format", ""]), ["text", "json"]);
        assert_eq!(offered(&["--log-format", "=", "j"]), ["json"]);
        assert_eq!(offered(&["--log", "x", "sta"]), ["start", "state"]);
        assert_eq!(offered(&["--root", "/r", "delete", "--force", ""]), ["one", "two", "/r"]);
        assert_eq!(offered(&["--root", "=", "/r", "state", "/"]), ["/r"]);
        assert_eq!(offered(&["state", "one", ""]), [""; 0]);
        assert_eq!(offered(&["kill", "one", "TER"]), ["TERM"]);
        assert_eq!(offered(&["create", "--pid"]), ["--pidfd-socket", "--pid-file"]);
        assert_eq!(offered(&["exec", "-u", "0", "t"]), ["two"]);
        assert_eq!(offered(&["list", "-f", "j"]), ["json"]);
        assert_eq!(offered(&["delete", "-f", ""]).len(), 3);
        assert_eq!(offered(&["completion", "z"]), ["zsh"]);
    }
}
