use larder_oci::Digest;
use rusqlite::params;

use super::record::{ensure_parents, find, link, selector_text};
use crate::{KeyDep, KeyId, Result, Store};

impl Store {
    /// Returns for each input of an op whether any of its alternatives leads to a key of the op's
    /// output, whatever the other inputs.
    pub fn linked(&self, op: &Digest, output: i32, deps: &[Vec<KeyDep>]) -> Result<Vec<bool>> {
        self.read(|db| {
            let mut children = db.prepare_cached(
                "SELECT 1 FROM links \
                 WHERE parent = ? AND input = ? AND op = ? AND output = ? AND selector = ?",
            )?;
            let mut linked = Vec::with_capacity(deps.len());
            for (input, alternatives) in deps.iter().enumerate() {
                let mut any = false;
                for dep in alternatives {
                    if let Some(parent) = find(db, &dep.key)? {
                        let selector = selector_text(dep);
                        let key = params![parent, input as i64, op.as_str(), output, selector];
                        any = any || children.exists(key)?;
                    }
                }
                linked.push(any);
            }
            Ok(linked)
        })
    }

    /// Lets every alternative of every input lead to the key `to`, so that later look-ups find it
    /// by any of them. Does nothing if `to` was pruned.
    pub fn link_key(
        &self,
        op: &Digest,
        output: i32,
        deps: &[Vec<KeyDep>],
        to: KeyId,
    ) -> Result<()> {
        self.write(|tx| {
            let known = "SELECT 1 FROM keys WHERE id = ?";
            if !tx.prepare_cached(known)?.exists([to])? {
                return Ok(());
            }
            for parent in ensure_parents(tx, deps)? {
                link(tx, &parent, op, output, to)?;
            }
            Ok(())
        })
    }
}
