//! `-c` of import and commit: lines of a Dockerfile that change a configuration (Dockerfile reference).

#![forbid(unsafe_code)]

use super::spec::{Empty, Health, RunConfig};
use super::words::{expand, split};
use crate::error::{Error, Result};

/// Applies lines of a Dockerfile to a configuration.
///
/// # Errors
/// One is not an instruction that changes a configuration, or is written wrong.
pub fn changes(config: &mut RunConfig, lines: &[String]) -> Result<()> {
    let mut has_cmd = false;
    for line in lines {
        let line = line.trim();
        let (instruction, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let instruction = instruction.to_ascii_uppercase();
        change(config, &instruction, rest.trim(), &mut has_cmd)
            .map_err(|e| e.context(format!("change {line:?}")))?;
    }
    Ok(())
}

fn change(config: &mut RunConfig, instruction: &str, rest: &str, has_cmd: &mut bool) -> Result<()> {
    if ![
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "ONBUILD",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
    .contains(&instruction)
    {
        return Err(Error::invalid(format!(
            "{} is not a valid change command",
            instruction.to_ascii_lowercase()
        )));
    }
    if rest.is_empty() && !matches!(instruction, "CMD" | "ENTRYPOINT") {
        return Err(Error::invalid(format!("{instruction} requires at least one argument")));
    }
    match instruction {
        "CMD" => {
            config.cmd = Some(command(config, rest));
            *has_cmd = true;
        }
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(config, rest)).filter(|words| !words.is_empty());
            // The arguments were those of another program.
            if !*has_cmd {
                config.cmd = None;
            }
        }
        "ENV" => {
            for (name, value) in pairs(rest, &config.env)? {
                set_env(&mut config.env, &name, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(rest, &config.env)?),
        "EXPOSE" => {
            for word in split(rest) {
                expose(config, &expand(&word, &config.env)?)?;
            }
        }
        "USER" => config.user = one(instruction, rest, &config.env)?,
        "STOPSIGNAL" => config.stop_signal = one(instruction, rest, &config.env)?,
        "VOLUME" => {
            for word in json(rest).unwrap_or_else(|| split(rest)) {
                let path = expand(&word, &config.env)?;
                if path.trim().is_empty() {
                    return Err(Error::invalid("VOLUME specified can not be an empty string"));
                }
                config.volumes.insert(path.trim().to_owned(), Empty {});
            }
        }
        "WORKDIR" => config.working_dir = below(&config.working_dir, &expand(rest, &config.env)?),
        "HEALTHCHECK" => config.healthcheck = Some(health(rest)?),
        _ => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            if matches!(&*trigger, "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(Error::invalid(format!("{trigger} isn't allowed as an ONBUILD trigger")));
            }
            config.on_build.push(rest.to_owned());
        }
    }
    Ok(())
}

/// `["a", "b"]`; anything else is for a shell.
fn json(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn command(config: &RunConfig, rest: &str) -> Vec<String> {
    if rest.is_empty() {
        return Vec::new();
    }
    json(rest).unwrap_or_else(|| {
        let mut words = config.shell.clone();
        if words.is_empty() {
            words = ["/bin/sh", "-c"].map(str::to_owned).to_vec();
        }
        words.push(rest.to_owned());
        words
    })
}

fn one(instruction: &str, rest: &str, env: &[String]) -> Result<String> {
    match &split(rest)[..] {
        [word] => expand(word, env),
        _ => Err(Error::invalid(format!("{instruction} requires exactly one argument"))),
    }
}

/// `name=value name="other value"`, or the old `name other value`.
fn pairs(rest: &str, env: &[String]) -> Result<Vec<(String, String)>> {
    let words = split(rest);
    if words.first().is_some_and(|word| !word.contains('=')) {
        let Some((name, value)) = rest.split_once(char::is_whitespace) else {
            return Err(Error::invalid(format!("{rest:?} must have two arguments, or be name=value")));
        };
        return Ok(vec![(expand(name, env)?, expand(value.trim(), env)?)]);
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=').ok_or_else(|| {
            Error::invalid(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))
        })?;
        let name = expand(name, env)?;
        if name.is_empty() {
            return Err(Error::invalid("names can not be blank"));
        }
        Ok((name, expand(value, env)?))
    };
    words.iter().map(pair).collect()
}

fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// `80`, `80/udp`, `8000-8010`.
fn expose(config: &mut RunConfig, word: &str) -> Result<()> {
    let invalid = || Error::invalid(format!("Invalid containerPort: {word}"));
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&&*protocol) {
        return Err(Error::invalid(format!("Invalid proto: {protocol}")));
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().map_err(|_| invalid());
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(invalid());
    }
    for port in first..=last {
        config.exposed_ports.insert(format!("{port}/{protocol}"), Empty {});
    }
    Ok(())
}

/// A path, from the directory that was set before if it is relative.
fn below(dir: &str, path: &str) -> String {
    let from = if path.starts_with('/') { "" } else { dir };
    let mut parts: Vec<&str> = Vec::new();
    for part in from.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn health(rest: &str) -> Result<Health> {
    let mut health = Health::default();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        rest = after.trim();
        match name {
            "interval" => health.interval = nanoseconds(value)?,
            "timeout" => health.timeout = nanoseconds(value)?,
            "start-period" => health.start_period = nanoseconds(value)?,
            "start-interval" => health.start_interval = nanoseconds(value)?,
            "retries" => {
                let invalid = |_| Error::invalid(format!("--retries {value:?} must be a number from 0"));
                health.retries = value.parse::<u16>().map_err(invalid)?.into();
            }
            _ => return Err(Error::invalid(format!("unknown flag: {name}"))),
        }
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    match &*kind.to_ascii_uppercase() {
        "NONE" if command.is_empty() && health == Health::default() => health.test.push("NONE".to_owned()),
        "NONE" => return Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        "CMD" if command.is_empty() => return Err(Error::invalid("Missing command after HEALTHCHECK CMD")),
        "CMD" => match json(command) {
            Some(words) => health.test = ["CMD".to_owned()].into_iter().chain(words).collect(),
            None => health.test = vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return Err(Error::invalid(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"))),
    }
    Ok(health)
}

/// Go's durations: `1m30s`, `500ms`; not less than a millisecond, but for 0.
fn nanoseconds(text: &str) -> Result<i64> {
    let invalid = || Error::invalid(format!("invalid duration {text:?}"));
    if text == "0" {
        return Ok(0);
    }
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(invalid()),
        };
        total += number.parse::<f64>().map_err(|_| invalid())? * unit;
        rest = after;
    }
    if text.is_empty() || total > i64::MAX as f64 {
        return Err(invalid());
    }
    if total > 0.0 && total < 1e6 {
        return Err(Error::invalid(format!("duration {text:?} cannot be less than 1ms")));
    }
    Ok(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> Result<RunConfig> {
        let mut config = RunConfig {
            env: vec!["PATH=/bin".to_owned(), "D=data".to_owned()],
            cmd: Some(vec!["old".to_owned()]),
            ..RunConfig::default()
        };
        changes(&mut config, &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())?;
        Ok(config)
    }

    #[test]
    fn lines_of_a_dockerfile_change_a_configuration() {
        let config = changed(&[
            r#"CMD ["sh", "-l"]"#,
            "env A=1 B=\"two words\" PATH=$PATH:/sbin",
            "ENV OLD some words",
            "LABEL org.x=\"y z\" k=",
            "EXPOSE 80 53/udp 8000-8002",
            "USER app:$D",
            r#"VOLUME ["/$D", "/v"]"#,
            "VOLUME /w",
            "WORKDIR /srv",
            "WORKDIR ../a/./b",
            "STOPSIGNAL SIGQUIT",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl localhost",
            "ONBUILD RUN true",
        ])
        .expect("valid");
        assert_eq!(config.cmd, Some(vec!["sh".to_owned(), "-l".to_owned()]));
        assert_eq!(config.env, ["PATH=/bin:/sbin", "D=data", "A=1", "B=two words", "OLD=some words"]);
        assert_eq!(config.labels.get("org.x").map(String::as_str), Some("y z"));
        assert_eq!(config.labels.get("k").map(String::as_str), Some(""));
        let ports: Vec<_> = config.exposed_ports.keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
        assert_eq!(
            (&*config.user, &*config.working_dir, &*config.stop_signal),
            ("app:data", "/a/b", "SIGQUIT")
        );
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data", "/v", "/w"]);
        let health = config.healthcheck.expect("set");
        assert_eq!((health.interval, health.retries), (90_000_000_000, 3));
        assert_eq!(health.test, ["CMD-SHELL", "curl localhost"]);
        assert_eq!(config.on_build, ["RUN true"]);
    }

    #[test]
    fn an_entrypoint_clears_the_command_that_was_there_before() {
        let shell = |line: &str| Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()]);
        let config = changed(&["ENTRYPOINT run $D"]).expect("valid");
        assert_eq!((config.entrypoint, config.cmd), (shell("run $D"), None));
        let config = changed(&["CMD arg", "ENTRYPOINT [\"run\"]"]).expect("valid");
        assert_eq!((config.entrypoint, config.cmd), (Some(vec!["run".to_owned()]), shell("arg")));
    }

    #[test]
    fn what_is_written_wrong_is_told() {
        for (line, why) in [
            ("RUN true", "run is not a valid change command"),
            ("", "is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV A", "must have two arguments"),
            ("ENV A=1 B", "Syntax error - can't find = in \"B\""),
            ("ENV =1", "names can not be blank"),
            ("ENV A='", "a quote is not closed"),
            ("EXPOSE http", "Invalid containerPort: http"),
            ("EXPOSE 70000", "Invalid containerPort"),
            ("EXPOSE 80/icmp", "Invalid proto: icmp"),
            ("EXPOSE 9-8", "Invalid containerPort"),
            ("USER a b", "USER requires exactly one argument"),
            ("VOLUME [\"\"]", "can not be an empty string"),
            ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
            ("HEALTHCHECK RUN x", "Unknown type \"RUN\""),
            ("HEALTHCHECK --interval=5 CMD x", "invalid duration"),
            ("HEALTHCHECK --interval=1us CMD x", "less than 1ms"),
            ("ONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
        ] {
            let text = changed(&[line]).expect_err(line).to_string();
            assert!(text.contains(why), "{line}: {text}");
        }
    }
}
