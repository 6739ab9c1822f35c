use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use larder_oci::Digest;
use rusqlite::{Connection, OptionalExtension};

use super::record::{ResultInfo, result_of};
use crate::snapshot::digest_column;
use crate::{KeyId, Result, Store};

/// A cache record as the cache formats know it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportedRecord {
    /// The key that it is in the store.
    pub key: KeyId,
    /// `sha256("<op digest>@<output>")`.
    pub digest: Digest,
    /// For each input, the alternatives: selector, and index of the record in the list.
    pub inputs: Vec<Vec<(Option<Digest>, usize)>>,
    /// The stored result.
    pub result: Option<ResultInfo>,
}

impl Store {
    /// Returns the records that lead to `keys`, these included, each after all it refers to.
    ///
    /// Of the alternatives of an input, those count that are sources, contents or among `keys`;
    /// others, which earlier builds left, only where there are none of these. Keys that are gone are
    /// left out, and so are keys that no combination of inputs leads to any more.
    pub fn exported_records(&self, keys: &[KeyId]) -> Result<Vec<ExportedRecord>> {
        self.read(|db| {
            let mut walk = Walk {
                db,
                own: keys.iter().copied().collect(),
                records: Vec::new(),
                index: HashMap::new(),
            };
            for key in keys {
                walk.visit(*key)?;
            }
            Ok(walk.records)
        })
    }
}

struct Walk<'a> {
    db: &'a Connection,
    own: HashSet<KeyId>,
    records: Vec<ExportedRecord>,
    /// Where a key's record is; `None` while what it refers to is visited.
    index: HashMap<KeyId, Option<usize>>,
}

/// One link that leads to a key.
struct Link {
    input: usize,
    selector: Option<Digest>,
    parent: KeyId,
    /// Whether the parent is a source or a content.
    is_from_root: bool,
}

impl Walk<'_> {
    /// Visits what leads to `key`, then `key`, without recursion.
    fn visit(&mut self, key: KeyId) -> Result<()> {
        let mut pending = vec![(key, false)];
        while let Some((key, parents_done)) = pending.pop() {
            if parents_done {
                self.add(key)?;
            } else if let Entry::Vacant(entry) = self.index.entry(key) {
                entry.insert(None);
                pending.push((key, true));
                for link in self.links(key)?.into_iter().rev() {
                    pending.push((link.parent, false));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, key: KeyId) -> Result<()> {
        let mut statement = self
            .db
            .prepare_cached("SELECT op, output, root FROM keys WHERE id = ?")?;
        let found = statement.query_row([key], |row| {
            let (op, output): (String, i32) = (row.get(0)?, row.get(1)?);
            Ok((op, output, row.get::<_, bool>(2)?))
        });
        let Some((op, output, is_root)) = found.optional()? else {
            return Ok(());
        };
        let mut inputs: Vec<Vec<_>> = Vec::new();
        for link in self.links(key)? {
            if inputs.len() <= link.input {
                inputs.resize_with(link.input + 1, Vec::new);
            }
            // A link from a record that is itself being visited would close a loop.
            if let Some(Some(index)) = self.index.get(&link.parent) {
                inputs[link.input].push((link.selector, *index));
            }
        }
        if inputs.is_empty() != is_root || inputs.iter().any(Vec::is_empty) {
            return Ok(());
        }
        self.index.insert(key, Some(self.records.len()));
        self.records.push(ExportedRecord {
            key,
            digest: Digest::sha256(format!("{op}@{output}")),
            inputs,
            result: result_of(self.db, key)?,
        });
        Ok(())
    }

    fn links(&self, key: KeyId) -> Result<Vec<Link>> {
        let mut statement = self.db.prepare_cached(
            "SELECT input, selector, parent, root FROM links JOIN keys ON keys.id = parent \
             WHERE child = ? ORDER BY input, selector, parent",
        )?;
        let links = statement.query_map([key], |row| {
            let selector = match row.get_ref(1)?.as_str()? {
                "" => None,
                _ => Some(digest_column(row, 1)?),
            };
            Ok(Link {
                input: row.get::<_, i64>(0)? as usize,
                selector,
                parent: row.get(2)?,
                is_from_root: row.get(3)?,
            })
        })?;
        let mut links = links.collect::<rusqlite::Result<Vec<_>>>()?;
        let is_own = |link: &Link| link.is_from_root || self.own.contains(&link.parent);
        let own: HashSet<usize> = links
            .iter()
            .filter(|link| is_own(link))
            .map(|link| link.input)
            .collect();
        links.retain(|link| is_own(link) || !own.contains(&link.input));
        Ok(links)
    }
}
