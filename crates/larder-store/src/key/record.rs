use std::collections::BTreeSet;

use jiff::Timestamp;
use larder_oci::Digest;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::db::from_nanos;
use crate::{KeyId, Lease, Result, SnapshotId, Store};

/// The output that keys of contents have, as in BuildKit.
const CONTENT_OUTPUT: i32 = -1;

/// One way to name an input of an op.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CacheKey {
    /// A key that depends on no other: a source, or the digest of some content. It need not be
    /// known to the store.
    Root {
        /// The op's digest, or the content's.
        digest: Digest,
        /// The op's output.
        output: i32,
    },
    /// A key of the store.
    Record(KeyId),
}

impl CacheKey {
    /// Returns the key of a source.
    pub fn root(digest: Digest, output: i32) -> Self {
        Self::Root { digest, output }
    }

    /// Returns the key of the content with the digest `digest`.
    pub fn content(digest: Digest) -> Self {
        Self::root(digest, CONTENT_OUTPUT)
    }
}

/// One of the alternative keys of an input, and what part of it is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyDep {
    /// The key.
    pub key: CacheKey,
    /// The digest of what is selected from the input; `None` for all, and for content keys.
    pub selector: Option<Digest>,
}

/// A key found.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyMatch {
    /// The key, to look up what depends on it.
    pub key: KeyId,
    /// What is stored under it. A key without result may have dependents that have one.
    pub result: Option<ResultInfo>,
}

/// A stored result.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultInfo {
    /// The result.
    pub snapshot: SnapshotId,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A result about to be saved.
#[derive(Debug, Clone)]
pub struct NewKey<'a> {
    /// The op's digest.
    pub op: &'a Digest,
    /// The op's output.
    pub output: i32,
    /// For each input of the op, all keys it is known by; empty for a source.
    pub deps: &'a [Vec<KeyDep>],
    /// The result.
    pub snapshot: &'a SnapshotId,
    /// What becomes of an earlier result.
    pub mode: SaveMode,
}

/// What becomes of an earlier result of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveMode {
    /// It stays: the first of two builds wins.
    Keep,
    /// It is replaced, as by a build with `--no-cache`; keys that depended on the earlier result
    /// are no longer found through it.
    Replace,
}

/// What a save led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The key.
    pub key: KeyId,
    /// The result now stored under it: another build's, if that was first.
    pub result: ResultInfo,
}

impl Store {
    /// Returns the keys of an op's output that match at least one alternative of every input,
    /// those with a result first and the newest of them first of all.
    ///
    /// The results are not protected: see [`Lease::query`].
    pub fn query(&self, op: &Digest, output: i32, deps: &[Vec<KeyDep>]) -> Result<Vec<KeyMatch>> {
        self.read(|db| find_matches(db, op, output, deps))
    }

    /// Returns the key's result, if it has one (any more).
    pub fn result(&self, key: KeyId) -> Result<Option<ResultInfo>> {
        self.read(|db| result_of(db, key))
    }
}

impl Lease {
    /// Returns a key of the op's output that is reachable from every alternative of its inputs;
    /// made, without a result, if there is none. For no inputs, the root.
    pub fn ensure_key(&self, op: &Digest, output: i32, deps: &[Vec<KeyDep>]) -> Result<KeyId> {
        self.store().write(|tx| {
            if deps.is_empty() {
                return ensure_root(tx, op, output);
            }
            let parents = ensure_parents(tx, deps)?;
            let key = match best(tx, &matching(tx, op, output, deps)?)? {
                Some(key) => key,
                None => insert_key(tx, op, output)?,
            };
            for parent in &parents {
                link(tx, parent, op, output, key)?;
            }
            Ok(key)
        })
    }

    /// Gives a key that has no result this one. A key that is gone, or that got one meanwhile,
    /// stays as it is.
    pub fn save_result(&self, key: KeyId, snapshot: &SnapshotId) -> Result<()> {
        let now = self.store().now();
        self.store().write(|tx| {
            let known = "SELECT 1 FROM keys WHERE id = ?";
            let has_result = result_of(tx, key)?.is_some();
            if has_result || !tx.prepare_cached(known)?.exists([key])? {
                return Ok(());
            }
            insert_result(tx, key, snapshot, now)
        })
    }

    /// Saves a result under its key, reachable from every alternative of its inputs.
    ///
    /// # Errors
    /// `NotFound` if the snapshot does not exist (any more).
    pub fn save(&self, new: &NewKey<'_>) -> Result<Saved> {
        let store = self.store();
        store.write(|tx| {
            let parents = ensure_parents(tx, new.deps)?;
            let matches = matching(tx, new.op, new.output, new.deps)?;
            let key = match (new.mode, new.deps.is_empty()) {
                (_, true) => ensure_root(tx, new.op, new.output)?,
                (SaveMode::Keep, false) => match best(tx, &matches)? {
                    Some(key) => key,
                    None => insert_key(tx, new.op, new.output)?,
                },
                (SaveMode::Replace, false) => {
                    let key = insert_key(tx, new.op, new.output)?;
                    for old in &matches {
                        take_over(tx, *old, key)?;
                    }
                    key
                }
            };
            for parent in &parents {
                link(tx, parent, new.op, new.output, key)?;
            }
            if let (SaveMode::Keep, Some(result)) = (new.mode, result_of(tx, key)?) {
                self.protect(std::slice::from_ref(&result.snapshot), &[])?;
                return Ok(Saved { key, result });
            }
            insert_result(tx, key, new.snapshot, store.now())?;
            let result =
                result_of(tx, key)?.ok_or_else(|| crate::snapshot::missing(new.snapshot))?;
            Ok(Saved { key, result })
        })
    }
}

/// See [`Store::query`].
pub(crate) fn find_matches(
    db: &Connection,
    op: &Digest,
    output: i32,
    deps: &[Vec<KeyDep>],
) -> Result<Vec<KeyMatch>> {
    let mut matches = Vec::new();
    for key in matching(db, op, output, deps)? {
        let result = result_of(db, key)?;
        matches.push(KeyMatch { key, result });
    }
    matches.sort_by_key(|found| {
        let created_at = found.result.as_ref().map(|result| result.created_at);
        (std::cmp::Reverse(created_at), found.key)
    });
    Ok(matches)
}

/// A key that an op depends on, and how.
pub(super) struct Parent {
    key: KeyId,
    input: usize,
    selector: String,
}

/// Returns the keys linked from at least one alternative of every input; for no inputs, the root.
fn matching(db: &Connection, op: &Digest, output: i32, deps: &[Vec<KeyDep>]) -> Result<Vec<KeyId>> {
    if deps.is_empty() {
        return Ok(find_root(db, op, output)?.into_iter().collect());
    }
    let mut children = db.prepare_cached(
        "SELECT child FROM links \
         WHERE parent = ? AND input = ? AND op = ? AND output = ? AND selector = ?",
    )?;
    let mut common: Option<BTreeSet<KeyId>> = None;
    for (input, alternatives) in deps.iter().enumerate() {
        let mut found = BTreeSet::new();
        for dep in alternatives {
            let Some(parent) = find(db, &dep.key)? else {
                continue;
            };
            let selector = selector_text(dep);
            let range = params![parent, input as i64, op.as_str(), output, selector];
            for child in children.query_map(range, |row| row.get(0))? {
                found.insert(child?);
            }
        }
        let narrowed = match common {
            Some(common) => common.intersection(&found).copied().collect(),
            None => found,
        };
        if narrowed.is_empty() {
            return Ok(Vec::new());
        }
        common = Some(narrowed);
    }
    Ok(common.into_iter().flatten().collect())
}

/// Returns the key to reuse of several that match: one with a result, else the oldest.
fn best(db: &Connection, matches: &[KeyId]) -> Result<Option<KeyId>> {
    for key in matches {
        if result_of(db, *key)?.is_some() {
            return Ok(Some(*key));
        }
    }
    Ok(matches.first().copied())
}

pub(super) fn find(db: &Connection, key: &CacheKey) -> Result<Option<KeyId>> {
    match key {
        CacheKey::Root { digest, output } => find_root(db, digest, *output),
        CacheKey::Record(id) => Ok(Some(*id)),
    }
}

fn find_root(db: &Connection, op: &Digest, output: i32) -> Result<Option<KeyId>> {
    let mut statement =
        db.prepare_cached("SELECT id FROM keys WHERE op = ? AND output = ? AND root = 1")?;
    let found = statement.query_row(params![op.as_str(), output], |row| row.get(0));
    Ok(found.optional()?)
}

fn ensure_root(tx: &Transaction<'_>, op: &Digest, output: i32) -> Result<KeyId> {
    if let Some(id) = find_root(tx, op, output)? {
        return Ok(id);
    }
    tx.prepare_cached("INSERT INTO keys (op, output, root) VALUES (?, ?, 1)")?
        .execute(params![op.as_str(), output])?;
    Ok(KeyId(tx.last_insert_rowid()))
}

fn insert_key(tx: &Transaction<'_>, op: &Digest, output: i32) -> Result<KeyId> {
    tx.prepare_cached("INSERT INTO keys (op, output, root) VALUES (?, ?, 0)")?
        .execute(params![op.as_str(), output])?;
    Ok(KeyId(tx.last_insert_rowid()))
}

/// Makes the roots that are not known yet. A key that was pruned since it was looked up is left
/// out: no look-up leads to it any more.
pub(super) fn ensure_parents(tx: &Transaction<'_>, deps: &[Vec<KeyDep>]) -> Result<Vec<Parent>> {
    let mut parents = Vec::new();
    for (input, alternatives) in deps.iter().enumerate() {
        for dep in alternatives {
            let key = match &dep.key {
                CacheKey::Root { digest, output } => ensure_root(tx, digest, *output)?,
                CacheKey::Record(id) => {
                    let known = "SELECT 1 FROM keys WHERE id = ?";
                    if !tx.prepare_cached(known)?.exists([id])? {
                        continue;
                    }
                    *id
                }
            };
            let selector = selector_text(dep).to_owned();
            parents.push(Parent {
                key,
                input,
                selector,
            });
        }
    }
    Ok(parents)
}

pub(super) fn link(
    tx: &Transaction<'_>,
    parent: &Parent,
    op: &Digest,
    output: i32,
    child: KeyId,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO links (parent, input, op, output, selector, child) \
         VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        parent.key,
        parent.input as i64,
        op.as_str(),
        output,
        parent.selector,
        child
    ])?;
    Ok(())
}

/// Makes all links to `old` lead to `new`, so that nothing leads to `old` any more.
fn take_over(tx: &Transaction<'_>, old: KeyId, new: KeyId) -> Result<()> {
    tx.prepare_cached("UPDATE OR IGNORE links SET child = ?2 WHERE child = ?1")?
        .execute([old, new])?;
    tx.prepare_cached("DELETE FROM links WHERE child = ?")?
        .execute([old])?;
    tx.prepare_cached("DELETE FROM results WHERE key = ?")?
        .execute([old])?;
    Ok(())
}

fn insert_result(tx: &Transaction<'_>, key: KeyId, snapshot: &SnapshotId, now: i64) -> Result<()> {
    let known = "SELECT 1 FROM snapshots WHERE id = ?";
    if !tx.prepare_cached(known)?.exists([snapshot])? {
        return Err(crate::snapshot::missing(snapshot));
    }
    tx.prepare_cached(
        "INSERT INTO results (key, snapshot, created_at) VALUES (?, ?, ?) \
         ON CONFLICT (key) DO UPDATE \
         SET snapshot = excluded.snapshot, created_at = excluded.created_at",
    )?
    .execute(params![key, snapshot, now])?;
    tx.prepare_cached("DELETE FROM tombstones WHERE key = ?")?
        .execute([key])?;
    Ok(())
}

pub(super) fn result_of(db: &Connection, key: KeyId) -> Result<Option<ResultInfo>> {
    let mut statement =
        db.prepare_cached("SELECT snapshot, created_at FROM results WHERE key = ?")?;
    let result = statement.query_row([key], |row| {
        Ok(ResultInfo {
            snapshot: row.get(0)?,
            created_at: from_nanos(row.get(1)?),
        })
    });
    Ok(result.optional()?)
}

pub(super) fn selector_text(dep: &KeyDep) -> &str {
    dep.selector.as_ref().map_or("", Digest::as_str)
}
