//! The checks, in the order of the specification.

#![forbid(unsafe_code)]

mod cgroups;
mod devices;
mod features;
mod hooks;
mod isolation;
mod mounts;
mod namespaces;
mod process;
mod rdt;
mod runtime;
mod seccomp;
mod values;

use crate::case::{Case, Verdict};
use crate::clauses::{self, Clause, Level};

pub type Run = Box<dyn Fn(&Case) -> Verdict + Send + Sync>;

/// How clauses are seen to hold.
pub struct Check {
    pub name: String,
    /// The clauses' names without the file, for instance `configMounts.1`.
    pub clauses: Vec<&'static str>,
    pub run: Run,
}

impl Check {
    /// The clauses of the index; a name that is not there has none.
    pub fn judges(&self) -> impl Iterator<Item = &'static Clause> {
        self.clauses.iter().filter_map(|name| clauses::find(name))
    }

    /// That of the clause that asks for most.
    pub fn level(&self) -> Level {
        self.judges().map(Clause::level).max().unwrap_or(Level::Must)
    }
}

fn check(
    name: impl Into<String>,
    clauses: &[&'static str],
    run: impl Fn(&Case) -> Verdict + Send + Sync + 'static,
) -> Check {
    Check { name: name.into(), clauses: clauses.to_vec(), run: Box::new(run) }
}

pub fn all() -> Vec<Check> {
    let parts = [
        runtime::checks,
        mounts::checks,
        process::checks,
        hooks::checks,
        values::checks,
        namespaces::checks,
        devices::checks,
        cgroups::checks,
        rdt::checks,
        seccomp::checks,
        isolation::checks,
        features::checks,
    ];
    parts.into_iter().flat_map(|part| part()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = all().into_iter().map(|check| check.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn checks_name_clauses_that_bind_the_runtime() {
        for check in all() {
            assert!(!check.clauses.is_empty(), "{}", check.name);
            for name in &check.clauses {
                assert!(clauses::find(name).is_some_and(Clause::judged), "{}: {name}", check.name);
            }
        }
    }

    #[test]
    fn every_clause_that_binds_the_runtime_has_a_check() {
        let checks = all();
        let judged =
            |clause: &&Clause| checks.iter().any(|check| check.judges().any(|c| c.name == clause.name));
        let without: Vec<_> = clauses::all()
            .iter()
            .filter(|clause| clause.judged() && !judged(clause))
            .map(|c| &c.name)
            .collect();
        assert!(without.is_empty(), "no check: {without:#?}");
    }
}
