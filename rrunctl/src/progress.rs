//! What a long work tells about itself while it lasts.

#![forbid(unsafe_code)]

/// One step; the words are Docker's, which people and programs know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A line of its own: `Status: Downloaded newer image for busybox:latest`.
    Line(String),
    /// What `id` (a layer's first 12 digits, a tag) is at now: `Pulling fs layer`, `Already exists`, `Pull complete`.
    Status {
        /// What is worked on.
        id: String,
        /// What is done to it.
        text: String,
    },
    /// How far `id` is: `Downloading`, `Extracting`, `Pushing`.
    Bytes {
        /// What is worked on.
        id: String,
        /// What is done to it.
        text: &'static str,
        /// Bytes done.
        done: u64,
        /// Bytes in all, or 0 where nobody knows.
        total: u64,
    },
}

/// Where events go; called from several threads.
pub type Sink<'a> = &'a (dyn Fn(Event) + Sync);
