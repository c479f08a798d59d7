//! Real callers with the runtime under them: dockerd, containerd and podman.
//!
//! Each engine lives in network and mount namespaces of its own, so that its bridges, firewall rules and mounts
//! end with it, and is shared by the tests that run at the same time: the last one takes it down and looks at
//! what is left. `both` holds what docker and podman have alike; each entry is one test per engine.

mod both;
mod containerd; // ctr
mod criu; // podman's checkpoint and restore
mod shared; // the engine, its namespaces, its end

use shared::{Kind, on};

macro_rules! engine_tests {
    ($($name:ident)*) => {
        mod docker {
            $(#[test] fn $name() { super::on(super::Kind::Docker, super::both::$name); })*
        }
        mod podman {
            $(#[test] fn $name() { super::on(super::Kind::Podman, super::both::$name); })*
        }
    };
}

engine_tests! {
    run_gives_the_exit_code
    detached_with_logs
    interactive_with_a_real_pty
    exec_with_and_without_tty_and_as_another_user
    a_published_port_answers
    memory_limit_is_seen_inside
    an_oom_kill_is_reported_as_one
    pids_limit_is_seen_and_enforced
    cpu_quota_is_set
    read_only_root
    capabilities_dropped_and_added
    privileged
    default_and_custom_seccomp_profile
    devices
    tmpfs_and_bind_mounts_with_options
    the_hosts_pid_namespace
    user_namespace
    ulimits
    sysctls
    pause_and_unpause
    update
    stats_and_top
    kill_by_signal
    stop_with_timeout
    restart
    remove_by_force
    command_not_found_and_not_executable
    user_workdir_env_and_hostname
    fifty_in_parallel_leave_nothing
}
