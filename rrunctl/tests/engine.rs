//! The tests of the engine.

#[path = "engine/registry.rs"]
mod registry;
#[path = "engine/spec.rs"]
mod spec;
#[path = "engine/monitor.rs"]
mod monitor;
#[path = "engine/images.rs"]
mod images;
