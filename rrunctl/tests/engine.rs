//! The tests of the engine.
#![allow(clippy::disallowed_methods, reason = "in directories of their own")]

#[path = "engine/containers.rs"]
mod containers;
#[path = "engine/harness.rs"]
mod harness;
#[path = "engine/images.rs"]
mod images;
#[path = "engine/killed.rs"]
mod killed;
#[path = "engine/monitor.rs"]
mod monitor;
#[path = "engine/networks.rs"]
mod networks;
#[path = "engine/registries.rs"]
mod registries;
#[path = "engine/registry.rs"]
mod registry;
#[path = "engine/rootless.rs"]
mod rootless;
#[path = "engine/show.rs"]
mod show;
#[path = "engine/sidebyside.rs"]
mod sidebyside;
#[path = "engine/spec.rs"]
mod spec;
#[path = "engine/streams.rs"]
mod streams;
#[path = "engine/tour.rs"]
mod tour;
