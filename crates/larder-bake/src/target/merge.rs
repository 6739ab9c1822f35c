//! How targets are put over each other.

use std::collections::{BTreeMap, BTreeSet};

use super::Target;
use crate::entry::{AttestEntry, remove_duplicates};

impl Target {
    /// Puts `other` over this target: maps are merged by key, single values and some lists are
    /// replaced, and the other lists are added to.
    pub(crate) fn merge(&mut self, other: &Self) {
        if !other.description.is_empty() {
            self.description.clone_from(&other.description);
        }
        replace(&mut self.context, other.context.as_ref());
        replace(&mut self.dockerfile, other.dockerfile.as_ref());
        replace(
            &mut self.dockerfile_inline,
            other.dockerfile_inline.as_ref(),
        );
        replace(&mut self.tags, other.tags.as_ref());
        replace(&mut self.target, other.target.as_ref());
        replace(&mut self.call, other.call.as_ref());
        replace(&mut self.platforms, other.platforms.as_ref());
        replace(&mut self.cache_to, other.cache_to.as_ref());
        replace(&mut self.outputs, other.outputs.as_ref());
        replace(&mut self.pull, other.pull.as_ref());
        replace(&mut self.no_cache, other.no_cache.as_ref());
        replace(&mut self.network, other.network.as_ref());
        replace(&mut self.shm_size, other.shm_size.as_ref());

        add(&mut self.annotations, other.annotations.as_ref());
        add(&mut self.attest, other.attest.as_ref());
        add(&mut self.policy, other.policy.as_ref());
        add(&mut self.secrets, other.secrets.as_ref());
        add(&mut self.ssh, other.ssh.as_ref());
        add(&mut self.cache_from, other.cache_from.as_ref());
        add(&mut self.no_cache_filter, other.no_cache_filter.as_ref());
        add(&mut self.ulimits, other.ulimits.as_ref());
        add(&mut self.entitlements, other.entitlements.as_ref());
        self.inherits.extend(other.inherits.iter().cloned());

        self.contexts.extend(other.contexts.clone());
        self.resources.extend(other.resources.clone());
        merge_given(&mut self.args, &other.args);
        merge_given(&mut self.labels, &other.labels);
        merge_given(&mut self.extra_hosts, &other.extra_hosts);
        if self.default_context.is_none() {
            self.default_context.clone_from(&other.default_context);
        }
    }

    /// Removes what is given twice or is empty.
    pub(crate) fn normalize(&mut self) {
        for list in [
            &mut self.annotations,
            &mut self.tags,
            &mut self.platforms,
            &mut self.no_cache_filter,
            &mut self.ulimits,
        ] {
            unique(list);
        }
        keep_last_of_kind(&mut self.attest);
        self.secrets.iter_mut().for_each(remove_duplicates);
        self.ssh.iter_mut().for_each(remove_duplicates);
        self.cache_from.iter_mut().for_each(remove_duplicates);
        self.cache_to.iter_mut().for_each(remove_duplicates);
        self.outputs.iter_mut().for_each(remove_duplicates);
        if self.network.as_deref() == Some("host") {
            let entitlements = self.entitlements.get_or_insert_default();
            entitlements.push("network.host".to_owned());
        }
        unique(&mut self.entitlements);
        self.contexts.retain(|_, context| !context.is_empty());
    }
}

fn replace<T: Clone>(old: &mut Option<T>, new: Option<&T>) {
    if let Some(new) = new {
        *old = Some(new.clone());
    }
}

fn add<T: Clone>(old: &mut Option<Vec<T>>, new: Option<&Vec<T>>) {
    if let Some(new) = new {
        old.get_or_insert_default().extend(new.iter().cloned());
    }
}

/// Null overrides nothing.
fn merge_given(old: &mut BTreeMap<String, Option<String>>, new: &BTreeMap<String, Option<String>>) {
    let given = new.iter().filter(|(_, value)| value.is_some());
    old.extend(given.map(|(key, value)| (key.clone(), value.clone())));
}

/// Keeps the first of what is equal, and nothing that is empty.
fn unique(list: &mut Option<Vec<String>>) {
    if let Some(list) = list {
        let mut seen = BTreeSet::new();
        list.retain(|text| !text.is_empty() && seen.insert(text.clone()));
    }
}

/// Keeps the last attestation of each kind, at the place of the first.
fn keep_last_of_kind(attest: &mut Option<Vec<AttestEntry>>) {
    let Some(attest) = attest else { return };
    let mut kept: Vec<AttestEntry> = Vec::new();
    for entry in attest.drain(..) {
        match kept.iter_mut().find(|other| other.kind == entry.kind) {
            Some(other) => *other = entry,
            None => kept.push(entry),
        }
    }
    *attest = kept;
}
