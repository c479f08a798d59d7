//! The commands about networks, each test in a network namespace of its own.

use crate::harness::*;
use serde_json::Value;

#[test]
fn n2_n3_networks_are_made_listed_and_removed() {
    alone(|| {
        let engine = Engine::new();
        let names = engine.prints(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]);
        assert_eq!(names, "bridge bridge local\nhost host local\nnone null local\n");
        let id = engine.prints(&["network", "create", "mynet"]);
        assert_eq!((id.len(), id.chars().filter(char::is_ascii_hexdigit).count()), (65, 64), "{id}");
        let table = engine.prints(&["network", "ls", "--filter", "type=custom"]);
        assert_eq!(
            table,
            format!("NETWORK ID     NAME      DRIVER    SCOPE\n{}   mynet     bridge    local\n", &id[..12])
        );
        assert_eq!(engine.prints(&["network", "list", "-q", "--no-trunc", "-f", "name=myn"]), id);
        let subnet = ["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}"];
        assert_eq!(engine.prints(&[&subnet[..], &["mynet"]].concat()), "172.18.0.0/16 172.18.0.1\n");
        let made = [
            "network",
            "create",
            "--subnet",
            "10.9.0.0/24",
            "--gateway",
            "10.9.0.254",
            "--label",
            "a=b",
            "office",
        ];
        engine.prints(&made);
        assert_eq!(engine.prints(&[&subnet[..], &["office"]].concat()), "10.9.0.0/24 10.9.0.254\n");
        assert_eq!(engine.prints(&["network", "ls", "-f", "label=a=b", "--format", "{{.Name}}"]), "office\n");
        assert_eq!(engine.prints(&["network", "ls", "-f", "dangling=true", "-q"]).lines().count(), 2);

        // `inspect` finds them too, and says so in docker's JSON.
        let json: Value = serde_json::from_str(&engine.prints(&["inspect", "mynet"])).expect("JSON");
        assert_eq!((&json[0]["Id"], &json[0]["Scope"]), (&id.trim().into(), &"local".into()));
        assert_eq!(engine.refuses(&["inspect", "nowhere"]), "No such object: nowhere");
        assert_eq!(engine.refuses(&["inspect", "--type", "network", "nowhere"]), "network nowhere not found");

        assert_eq!(engine.refuses(&["network", "create", "mynet"]), "network with name mynet already exists");
        let e = engine.refuses(&["network", "create", "-d", "overlay", "far"]);
        assert!(e.starts_with("This node is not a swarm manager."), "{e}");
        engine.refuses(&["network", "create", "--subnet", "10.9.0.0/33", "x"]);
        engine.refuses(&["network", "create", "--subnet", "10.9.0.0/25", "overlaps"]);
        engine.refuses(&["network", "ls", "-f", "type=other"]);
        engine.refuses(&["network", "ls", "-f", "colour=red"]);
        assert!(engine.refuses(&["network", "rm", "bridge"]).contains("pre-defined"));
        assert_eq!(engine.prints(&["network", "rm", "mynet"]), "mynet\n");
        assert_eq!(engine.refuses(&["network", "rm", "mynet"]), "network mynet not found");
        assert_eq!(engine.prints(&["network", "rm", "-f", "mynet", "office"]), "office\n");
    });
}

#[test]
fn n4_unused_networks_are_pruned_after_a_question() {
    alone(|| {
        let engine = Engine::new();
        assert_eq!(engine.prints(&["network", "prune", "-f"]), "");
        engine.prints(&["network", "create", "one"]);
        engine.prints(&["network", "create", "--label", "keep", "two"]);
        let question = "WARNING! This will remove all custom networks not used by at least one container.\n\
                        Are you sure you want to continue? [y/N] \n";
        let output = engine.fed(&["network", "prune"], b"\n");
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), question));
        let output = engine.fed(&["network", "prune", "--filter", "label!=keep"], b"Y\n");
        assert_eq!(text(&output.stdout), format!("{question}Deleted Networks:\none\n\n"));
        engine.refuses(&["network", "prune", "-f", "--filter", "until=never"]);
        let said = engine.prints(&["system", "prune", "-f"]);
        assert_eq!(said, "Deleted Networks:\ntwo\n\nTotal reclaimed space: 0B\n");
        assert_eq!(engine.prints(&["network", "ls", "-q"]).lines().count(), 3);
    });
}

#[test]
fn e3_e4_addresses_are_those_of_the_settings() {
    alone(|| {
        let engine = Engine::new();
        let config = engine.path("daemon.json");
        let settings =
            r#"{"bip": "172.31.0.1/16", "default-address-pools": [{"base": "10.77.0.0/16", "size": 24}]}"#;
        std::fs::write(&config, settings).expect("write");
        let config = config.to_str().expect("UTF-8");
        engine.prints(&["--config", config, "network", "create", "mynet"]);
        let subnets = engine.prints(&[
            "network",
            "inspect",
            "--config",
            config,
            "-f",
            "{{range .IPAM.Config}}{{.Subnet}}{{end}}",
            "bridge",
            "mynet",
        ]);
        assert_eq!(subnets, "172.31.0.0/16\n10.77.0.0/24\n");
    });
}
