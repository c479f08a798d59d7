//! rrunctl: images, containers, networks and volumes above rrun, without a daemon. This page is the architecture.
//!
//! The library is the engine: typed requests and results, and progress as events ([`progress`]). The command line
//! ([`cli`]) stands on it, and a server for Docker's API can. Nothing in it prints, and nothing in it is async.
//!
//! # Where things are
//!
//! | module | what |
//! |---|---|
//! | [`home`] | the directories: what is kept (`/var/lib/rrunctl`), what a reboot may take (`/run/rrunctl`), and locks |
//! | [`settings`] | `daemon.json`: mirrors, insecure registries, address pools |
//! | [`reference`] | names of images as people write them, and in full |
//! | [`digest`] | names of content |
//! | [`store`] | blobs as received, layers unpacked, images, and the names that refer to them |
//! | [`archive`] | compression and tar: unpacked into a layer, packed from one, by fds |
//! | [`image`] | what is done to images: load, save, import, export, commit, history, prune |
//! | [`registry`] | pull and push, login and logout |
//! | [`network`] | bridges, addresses, NAT, published ports, by netlink in this process |
//! | [`volume`] | volumes, and their first filling from an image |
//! | [`container`] | what Docker's types of a request say, checked and merged with the image; config.json from it; the record |
//! | [`engine`] | what a request does: creates, starts, stops, removes, executes, copies; the functions that a server calls too |
//! | [`monitor`] | the words between rrunctl and `rrunmon`, the process beside each container |
//! | [`rootless`] | an ordinary user's namespaces, in which all of this is done as root does it |
//! | [`cli`] | the command line: one module a command, tables, templates, progress bars |
//!
//! # What is kept, and how a kill at any instant loses nothing
//!
//! Everything is a file. A file appears by rename(2) or linkat(2) once it is whole, so that what can be read is whole,
//! and what is not yet is below `tmp/`, locked by who makes it: what nobody has locked, the next `system prune` and the
//! next start of an engine after a boot remove ([`home`]).
//!
//! ```text
//! /var/lib/rrunctl/
//!   blobs/sha256/HEX        manifests, indexes, configurations, layers as they were received: a push or a save has
//!                           the digests that a pull had
//!   layers/HEX/fs/          the tree of one layer, as overlayfs wants its lower directories, by its diff id, or by its
//!                           chain id where it takes something from the layers below
//!   images/HEX.json         an image that is whole, by its configuration's digest
//!   refs/NAME               the image and the manifest that a name (percent-encoded) refers to
//!   content.lock images.lock garbage   who brings in, who removes: [`store`]
//!   containers/ID/          config.v2.json, hostconfig.json, hosts, hostname, resolv.conf, ID-json.log, rw/, work/
//!   names/NAME              the id of the container with this name: O_EXCL reserves it
//!   networks/ID.json        and networks/ID.leases, its addresses
//!   volumes/NAME/_data
//!   tmp/                    what is being made
//! /run/rrunctl/
//!   rrun/                   rrun's own state
//!   ID/                     the monitor's socket, its pid, how it ended
//! ```
//!
//! What `--rm` has is removed after a boot at the latest, so the disk is not waited for: its records are not flushed, and its
//! overlay is `volatile` (Linux 5.10), without the flush of the whole file system at its end that overlayfs does. A power cut
//! may leave an empty record, with which `system restore` removes the container.
//!
//! # The processes of a container
//!
//! `rrunmon` makes a mount namespace of its own, mounts the root filesystem there and calls `rrun create`, tells whoever
//! started it, calls `rrun start` when it is told to, and stays: it copies output to the log and to whoever is attached,
//! reaps, writes how it ended before it tells anybody, and restarts by policy; at the end it runs what takes down the
//! network. So the host's mount table has nothing of a container, and the kernel unmounts when the last process is
//! gone.
//!
//! A monitor that is killed leaves its container running. `rrunctl system restore`, which a timer runs, starts another
//! one, which finds the first process by a pidfd; what the container wrote meanwhile is lost.
//!
//! # What is not there yet
//!
//! The Docker API on a socket; builds; health checks; `journald` and other log drivers.
//!
//! Forwarding, which containers need, is turned on for all links of the host, and what is none of ours is let through:
//! a host that has it off for a reason wants a FORWARD chain that drops. Beside a Docker before 28 whose chain drops, our
//! accept in DOCKER-USER comes before its isolation, so that our containers reach its containers.
//!
//! # An ordinary user
//!
//! A first command makes namespaces and leaves who keeps them, and every command enters two of them before it opens
//! anything ([`rootless`]): what follows is root's code with root's rights over the user's files. The exceptions: opaque
//! directories are marked with `user.overlay.opaque`; links and tables are worked on by sockets of the third namespace
//! (`network::netns::HostNetwork`); published ports are passed on by `rrunmon`, which makes the connection in the container's
//! network namespace; cgroups are those that the user's systemd makes, or none.
//!
//! # Where this differs from the design, and why
//!
//! * **One engine a network namespace**: the tables of the firewall are one engine's, and another --root is refused where
//!   they are. Two would have to know each other's bridges to keep them apart.
//! * **Not in rrun's workspace**: see Cargo.toml.

pub mod archive;
pub mod cli;
pub mod container;
pub mod digest;
pub mod engine;
pub mod error;
pub mod home;
pub mod image;
pub mod monitor;
pub mod network;
pub mod progress;
pub mod reference;
pub mod registry;
pub mod rootless;
pub mod settings;
pub mod store;
mod sys;
pub mod volume;

pub use error::{Error, Result};
