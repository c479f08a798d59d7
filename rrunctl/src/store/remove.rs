//! Removes names and images: Docker's rules and texts (what is refused, what `--force` allows, what is untagged with
//! what), which `docker rmi` and `docker image prune` show.

#![forbid(unsafe_code)]

use super::record::Record;
use super::{Filter, Images, Store, layers};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Kind, Result};
use crate::home::{self, Lock};
use crate::reference::Reference;
use std::collections::BTreeSet;
use std::fs;

/// A container that has an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The container's id.
    pub id: String,
    /// Whether it runs (or is paused).
    pub running: bool,
    /// What it was created from, as it was written: `busybox:latest`.
    pub image: String,
}

/// The containers that were created from an image, by its id.
pub type Users<'a> = &'a dyn Fn(&Digest) -> Result<Vec<User>>;

/// What became of an image that was removed, in the order of Docker's lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// `Untagged: busybox:latest`
    Untagged(String),
    /// `Deleted: sha256:…`
    Deleted(Digest),
}

impl std::fmt::Display for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Untagged(name) => write!(f, "Untagged: {name}"),
            Self::Deleted(digest) => write!(f, "Deleted: {digest}"),
        }
    }
}

impl Images {
    /// Removes a name, or an image with its only name, or with all of them by force; with `prune`, its parents too as
    /// far as nobody has them.
    ///
    /// # Errors
    /// There is no such image; a container has it; it has several names.
    pub fn remove(&self, text: &str, force: bool, prune: bool, users: Users<'_>) -> Result<Vec<Removed>> {
        let removed = {
            let _changing = Lock::exclusive(&self.store.image_lock())?;
            let mut removal = Removal { images: self, users, prune, removed: Vec::new() };
            let done = removal.remove(text, force);
            removal.forget_gone()?;
            done?;
            removal.removed
        };
        if removed.iter().any(|removed| matches!(removed, Removed::Deleted(_))) {
            self.store.collect()?;
        }
        Ok(removed)
    }

    /// Removes images without a name that no container has, or with `all` every image that no container has, and
    /// whatever no image has; returns how many bytes that freed.
    ///
    /// # Errors
    /// Those of reading and writing the store.
    pub fn prune(&self, all: bool, filter: &Filter, users: Users<'_>) -> Result<(Vec<Removed>, u64)> {
        let removed = {
            let _changing = Lock::exclusive(&self.store.image_lock())?;
            let mut removal = Removal { images: self, users, prune: true, removed: Vec::new() };
            let dangling = if all { None } else { Some(true) };
            // Whose a damaged name is nobody knows: it may be that of any image that seems to have none.
            let lost = !self.store.all_names()?.1.is_empty();
            for image in self.find(&Filter { dangling: filter.dangling.or(dangling), ..filter.clone() })? {
                // The image of a container stays, and one that went with its child is gone.
                if !users(&image.id)?.is_empty() || !self.store.record_path(&image.id).exists() {
                    continue;
                }
                let mut names: Vec<String> =
                    self.references_of(&image.id)?.iter().map(Reference::to_string).collect();
                if names.is_empty() && lost && !all {
                    continue;
                }
                if names.is_empty() {
                    names.push(image.id.to_string());
                }
                for name in names {
                    match removal.remove(&name, false) {
                        // What is refused stays; the name went with another one's.
                        Err(e) if matches!(e.kind(), Kind::Conflict | Kind::NotFound) => {}
                        done => done?,
                    }
                }
            }
            removal.forget_gone()?;
            removal.removed
        };
        let freed = self.store.collect()? + self.store.home.sweep()?;
        Ok((removed, freed))
    }
}

/// Under the lock of images.
struct Removal<'a> {
    images: &'a Images,
    users: Users<'a>,
    prune: bool,
    removed: Vec<Removed>,
}

impl Removal<'_> {
    fn store(&self) -> &Store {
        &self.images.store
    }

    fn remove(&mut self, text: &str, force: bool) -> Result<()> {
        if let Ok(name) = Reference::parse(text)
            && self.store().name(&name).is_err()
        {
            // Which image it was for is lost, and with it all but the name itself.
            return self.untag(&name);
        }
        let id = self.images.identify(text)?.0;
        let names = self.images.references_of(&id)?;
        let named = match Reference::parse(text) {
            Ok(name) => self.store().name(&name)?.is_some(),
            Err(_) => false,
        };
        if !named {
            if of_one_repository(&names) {
                if let Some(e) = self.conflict(&id, !force, false)? {
                    return Err(e.error);
                }
                for name in &names {
                    self.untag(name)?;
                }
            }
            return self.delete(&id, force, false);
        }

        if !force
            && of_one_repository(&names)
            && let Some(user) = (self.users)(&id)?.first()
        {
            return Err(Error::conflict(format!(
                "conflict: unable to remove repository reference {text:?} (must force) - container {} is using its \
                 referenced image {}",
                short(&user.id),
                id.short()
            )));
        }
        let name = Reference::parse(text)?;
        self.untag(&name)?;
        let mut left: Vec<Reference> = self.images.references_of(&id)?;
        // The digests of a repository whose last tag is gone go with it.
        let same = |other: &Reference| other.name() == name.name();
        if name.digest.is_none() && !left.iter().any(|other| same(other) && other.tag.is_some()) {
            for digest in left.iter().filter(|other| same(other)) {
                self.untag(digest)?;
            }
            left.retain(|other| !same(other));
        }
        if left.is_empty() { self.delete(&id, force, true) } else { Ok(()) }
    }

    /// Untags and deletes an image; `quiet`: it is right if somebody still needs it.
    fn delete(&mut self, id: &Digest, force: bool, quiet: bool) -> Result<()> {
        let mut next = Some((*id, force, quiet));
        while let Some((id, force, quiet)) = next.take() {
            if let Some(conflict) = self.conflict(&id, !force, !force)? {
                let dangling = self.images.references_of(&id)?.is_empty() && !self.has_child(&id)?;
                return if quiet && (!dangling || conflict.used) { Ok(()) } else { Err(conflict.error) };
            }
            for name in self.images.references_of(&id)? {
                self.untag(&name)?;
            }
            let record = match self.store().record(&id) {
                Ok(None) => return Ok(()),
                Ok(Some(record)) => Ok(record),
                Err(e) => Err(e),
            };
            self.delete_record(&id, &record)?;
            let parent = record.ok().and_then(|record| record.parent);
            next = parent.filter(|_| self.prune).map(|parent| (parent, false, true));
        }
        Ok(())
    }

    fn delete_record(&mut self, id: &Digest, record: &Result<Record>) -> Result<()> {
        let store = self.store();
        let path = store.record_path(id);
        // Before: if this is killed, the next who has held the store finds what it left.
        store.mark_garbage()?;
        let mut freed = Vec::new();
        if (self.users)(id)?.is_empty() {
            let (mut kept, mut unknown) = (BTreeSet::new(), false);
            for (other, record) in store.records()?.iter().filter(|(other, _)| other != id) {
                match store.diff_ids(other, record) {
                    Ok(diff_ids) => kept.extend(layers::chain(&diff_ids)),
                    Err(_) => unknown = true,
                }
            }
            if let Ok(diff_ids) = store.diff_ids(id, record)
                && !unknown
            {
                freed = layers::chain(&diff_ids);
                freed.retain(|layer| !kept.contains(layer));
            }
            fs::remove_file(&path).context(|| format!("unlink {}", path.display()))?;
        } else {
            fs::rename(&path, store.gone_path(id)).context(|| format!("rename {}", path.display()))?;
        }
        self.removed.push(Removed::Deleted(*id));
        self.removed.extend(freed.into_iter().rev().map(Removed::Deleted));
        Ok(())
    }

    fn untag(&mut self, name: &Reference) -> Result<()> {
        if self.store().remove_name(name)? {
            let shown = match name.digest {
                Some(_) => Reference { tag: None, ..name.clone() },
                None => name.clone(),
            };
            self.removed.push(Removed::Untagged(shown.familiar()));
        }
        Ok(())
    }

    /// Forgets images that only containers had which are gone too.
    fn forget_gone(&self) -> Result<()> {
        for id in self.store().ids()?.1 {
            if (self.users)(&id)?.is_empty() {
                home::remove_tree(&self.store().gone_path(&id))?;
                self.store().mark_garbage()?;
            }
        }
        Ok(())
    }

    fn has_child(&self, id: &Digest) -> Result<bool> {
        for other in self.store().ids()?.0 {
            // A damaged one keeps its layers whatever becomes of its parent.
            if let Ok(Some(record)) = self.store().record(&other)
                && record.parent == Some(*id)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Why an image may not be deleted: what no force overcomes, then by what is asked for its names and the stopped
    /// containers that have it.
    fn conflict(&self, id: &Digest, stopped: bool, names: bool) -> Result<Option<Conflict>> {
        let conflict = |force: &str, why: String, used: bool| {
            let text = format!("conflict: unable to delete {} ({force}) - {why}", id.short());
            Ok(Some(Conflict { error: Error::conflict(text), used }))
        };
        if self.has_child(id)? {
            return conflict("cannot be forced", "image has dependent child images".into(), false);
        }
        let users = (self.users)(id)?;
        if let Some(user) = users.iter().find(|user| user.running) {
            let why = format!("image is being used by running container {}", short(&user.id));
            return conflict("cannot be forced", why, true);
        }
        if names && !self.images.references_of(id)?.is_empty() {
            return conflict("must be forced", "image is referenced in multiple repositories".into(), false);
        }
        match users.first() {
            Some(user) if stopped => {
                let why = format!("image is being used by stopped container {}", short(&user.id));
                conflict("must be forced", why, true)
            }
            _ => Ok(None),
        }
    }
}

struct Conflict {
    error: Error,
    /// By a container.
    used: bool,
}

/// At most one tag, and every digest of its repository.
fn of_one_repository(names: &[Reference]) -> bool {
    let repositories: BTreeSet<String> = names.iter().map(Reference::name).collect();
    repositories.len() <= 1 && names.iter().filter(|name| name.tag.is_some()).count() <= 1
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
