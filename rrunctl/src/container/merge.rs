//! An image's configuration and what was asked for, put together.

#![forbid(unsafe_code)]

use super::types::{Config, List};
use crate::error::{Error, Result};

/// Fills in what `config` does not say from the image's.
///
/// An entrypoint of one's own, even an empty one, also takes away the image's command (moby's merge).
///
/// # Errors
/// If then there is no command.
pub fn merge(config: &mut Config, image: &Config) -> Result<()> {
    let take = |own: &mut String, images: &String| {
        if own.is_empty() {
            own.clone_from(images);
        }
    };
    take(&mut config.user, &image.user);
    take(&mut config.working_dir, &image.working_dir);
    take(&mut config.stop_signal, &image.stop_signal);
    if config.exposed_ports.is_empty() {
        config.exposed_ports = image.exposed_ports.clone();
    } else {
        config.exposed_ports.extend(image.exposed_ports.iter().map(|(port, set)| (port.clone(), *set)));
    }
    if config.volumes.is_empty() {
        config.volumes = image.volumes.clone();
    } else {
        config.volumes.extend(image.volumes.iter().map(|(path, set)| (path.clone(), *set)));
    }
    merge_env(&mut config.env, &image.env);
    // Never nil: clients look labels up.
    let labels = &mut *config.labels;
    for (key, value) in image.labels.iter() {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if config.entrypoint.is_empty() {
        if config.cmd.is_empty() {
            config.cmd = image.cmd.clone();
        }
        if config.entrypoint.is_nil() {
            config.entrypoint = image.entrypoint.clone();
        }
    }
    if let Some(images) = &image.healthcheck {
        let own = config.healthcheck.get_or_insert_with(|| images.clone());
        if own.test.is_empty() {
            own.test = images.test.clone();
        }
        for (own, images) in [
            (&mut own.interval, images.interval),
            (&mut own.timeout, images.timeout),
            (&mut own.start_period, images.start_period),
            (&mut own.start_interval, images.start_interval),
            (&mut own.retries, images.retries),
        ] {
            if *own == 0 {
                *own = images;
            }
        }
    }
    // `--entrypoint ''`
    if config.entrypoint.as_slice() == [""] {
        config.entrypoint = super::types::StrSlice::default();
    }
    if config.entrypoint.is_empty() && config.cmd.is_empty() {
        // Docker 28 says "no command specified" in small letters, 20.10 in large ones.
        return Err(Error::invalid("no command specified"));
    }
    Ok(())
}

/// The container's variables, and the image's that it does not set; behind them, as Docker has them.
fn merge_env(own: &mut List<String>, image: &List<String>) {
    if own.is_empty() {
        *own = image.clone();
        return;
    }
    let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let set: Vec<_> = own.iter().map(|variable| key(variable)).collect();
    own.extend(image.iter().filter(|variable| !set.contains(&key(variable))).cloned());
}

/// The program and its arguments.
pub fn command(config: &Config) -> (String, Vec<String>) {
    let mut words = config.entrypoint.iter().chain(config.cmd.iter()).cloned();
    (words.next().unwrap_or_default(), words.collect())
}

/// The variables that the process starts with: Docker's own, those of links, and on top what was asked for.
///
/// A variable without `=` takes one away. HOME is the runtime's: it knows the user's.
pub fn environment(config: &Config, links: &[String]) -> Vec<String> {
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={}", config.hostname),
    ];
    if config.tty {
        env.push("TERM=xterm".to_owned());
    }
    env.extend_from_slice(links);
    let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in config.env.iter() {
        let at = env.iter().position(|has| key(has) == key(variable));
        match (at, variable.contains('=')) {
            (Some(at), true) => env[at].clone_from(variable),
            (None, true) => env.push(variable.clone()),
            (Some(at), false) => drop(env.remove(at)),
            (None, false) => {}
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: serde_json::Value) -> Config {
        serde_json::from_value(value).expect("a configuration")
    }

    fn image() -> Config {
        config(json!({
            "User": "alice", "Env": ["A=image", "B=image"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["true"],
            "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "WorkingDir": "/var/lib/x",
            "Labels": {"l": "image", "k": "image"}, "StopSignal": "SIGQUIT",
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64},
        }))
    }

    fn merged(value: serde_json::Value) -> Config {
        let mut own = config(value);
        merge(&mut own, &image()).expect("a command");
        own
    }

    #[test]
    fn what_is_not_asked_for_comes_from_the_image() {
        let all = merged(json!({}));
        assert_eq!(command(&all), ("/bin/sh".to_owned(), vec!["-c".to_owned(), "true".to_owned()]));
        assert_eq!(
            (all.user.as_str(), all.working_dir.as_str(), all.stop_signal.as_str()),
            ("alice", "/var/lib/x", "SIGQUIT")
        );
        assert_eq!(all.env.as_slice(), ["A=image", "B=image"]);
    }

    #[test]
    fn what_is_asked_for_goes_first() {
        let own = merged(json!({
            "Env": ["B=own", "C=own"], "ExposedPorts": {"90/tcp": {}}, "Volumes": {"/more": {}},
            "Labels": {"l": "own"}, "Healthcheck": {"Retries": 9}, "Cmd": ["echo"],
        }));
        assert_eq!(own.env.as_slice(), ["B=own", "C=own", "A=image"]);
        assert_eq!(own.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp", "90/tcp"]);
        assert_eq!(own.volumes.keys().collect::<Vec<_>>(), ["/data", "/more"]);
        assert_eq!((own.labels["l"].as_str(), own.labels["k"].as_str()), ("own", "image"));
        let health = own.healthcheck.expect("the image has one");
        assert_eq!((health.retries, health.interval, health.test.len()), (9, 5_000_000_000, 2));
        assert_eq!(own.entrypoint.as_slice(), ["/bin/sh", "-c"]);
        assert_eq!(own.cmd.as_slice(), ["echo"]);
    }

    #[test]
    fn an_entrypoint_takes_away_the_images_command() {
        let own = merged(json!({"Entrypoint": ["/bin/ls"]}));
        assert_eq!(command(&own), ("/bin/ls".to_owned(), vec![]));
        let mut none = config(json!({"Entrypoint": [""]}));
        assert_eq!(
            merge(&mut none, &image()).expect_err("nothing to run").to_string(),
            "no command specified"
        );
        let own = merged(json!({"Entrypoint": [""], "Cmd": ["true"]}));
        assert_eq!((command(&own).0.as_str(), own.entrypoint.is_nil()), ("true", true));
    }

    #[test]
    fn labels_are_never_nil() {
        let mut own = config(json!({"Cmd": ["true"]}));
        merge(&mut own, &Config::default()).expect("a command");
        assert_eq!(serde_json::to_value(&own).expect("json")["Labels"], json!({}));
    }

    #[test]
    fn the_environment_begins_with_dockers() {
        let env = |value| environment(&config(value), &["L=1".to_owned()]).join(" ");
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(env(json!({"Hostname": "h"})), format!("{path} HOSTNAME=h L=1"));
        assert_eq!(
            env(json!({"Tty": true, "Env": ["A=1", "B=2", "A=3", "EMPTY=", "PATH=/x", "HOME=/h"]})),
            "PATH=/x HOSTNAME= TERM=xterm L=1 A=3 B=2 EMPTY= HOME=/h"
        );
        assert_eq!(env(json!({"Env": ["PATH", "NONE"]})), "HOSTNAME= L=1");
    }
}
