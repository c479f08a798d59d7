//! Compression and tar: a layer's bytes to a tree, and a tree to a layer's bytes.
//!
//! * [`decompress`] tells a compression by its magic and undoes it.
//! * [`unpack`] makes a layer's tree as overlayfs wants a lower directory, without the layers below: they may come
//!   later, or never. What it cannot know without them it reports, and [`settle`] does it once they are there.
//! * [`extract`] makes an archive's files in a tree that exists and that others may be changing: `docker cp`.
//! * [`changes`] and [`pack_diff`] read the upper directory of an overlay, [`pack_tree`] reads any tree.
//!
//! # What an archive cannot do
//!
//! Every file is made, changed and removed relative to the fd of its parent directory, which openat2(2) resolved
//! beneath the root; no path is put together and given to a call that follows links. A name with `..` is refused, and so
//! is one that leads through a symbolic link of the same layer.
//!
//! The headers are read with the tar crate's types, the sequence of them is not left to its iterator: that one ends a
//! record of a PAX header at a newline, which a `security.capability` may contain, and then loses the `size` behind it
//! (the desynchronisation of CVE-2025-62518); it takes a header's extension into memory however large it says it is; and
//! it does not know GNU's sparse files in PAX headers.

#![forbid(unsafe_code)]

mod changes;
mod compression;
mod extract;
mod lower;
mod member;
mod node;
mod pack;
mod pax;
mod unpack;

#[cfg(test)]
mod fidelity;
#[cfg(test)]
mod testing;

pub use changes::{Change, Kind, changes};
pub use compression::{Compression, decompress};
pub use extract::{ExtractOptions, extract};
pub use lower::settle;
pub(crate) use member::{Members, Type};
pub use pack::{pack_diff, pack_tree};
pub use unpack::{HardLink, UnpackOptions, Unpacked, unpack};

/// In front of the name of what a layer deletes (image-spec layer.md, Whiteouts).
const WHITEOUT: &[u8] = b".wh.";

/// In front of the names that AUFS kept for itself: its hard links, its orphans, and the opaque marker.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// In a directory that has nothing from the layers below.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// How overlayfs marks such a directory; in a user namespace it is mounted with `userxattr`, as `trusted.` is root's.
pub(crate) fn opaque_xattr() -> &'static str {
    if crate::rootless::is_inside() { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}
