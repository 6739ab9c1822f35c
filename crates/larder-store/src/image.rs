use jiff::Timestamp;
use larder_oci::{Descriptor, Digest, ImageRef};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::db::{from_nanos, to_nanos};
use crate::snapshot::digest_column;
use crate::{Error, Lease, Result, SnapshotId, Store, gc, prune};

/// The fewest hexadecimal digits that are taken for the start of an image's ID.
const SHORTEST_ID: usize = 4;

/// An image about to be stored. Of an index that is stored already, an image for a further platform.
#[derive(Debug, Clone)]
pub struct NewImage<'a> {
    /// The manifest, or the index of several.
    pub manifest: &'a Descriptor,
    /// The digest of the image config: the image's ID. Of the images of an index, the one that
    /// stands for all.
    pub config: &'a Digest,
    /// As in `linux/amd64`.
    pub platform: &'a str,
    /// When the image was made, by its config.
    pub created_at: Option<Timestamp>,
    /// The topmost layer, if the layers are unpacked.
    pub snapshot: Option<&'a SnapshotId>,
    /// The further images of an index.
    pub others: &'a [PlatformImage],
    /// All stored blobs that the image needs. Layers that are unpacked need none: their tars are
    /// written anew when asked for.
    pub blobs: &'a [Digest],
}

/// One of several images of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformImage {
    /// The digest of its config.
    pub config: Digest,
    /// As in `linux/arm64`.
    pub platform: String,
    /// Its topmost layer, if its layers are unpacked.
    pub snapshot: Option<SnapshotId>,
}

/// A stored image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInfo {
    /// Its names, sorted; empty if others took them.
    pub names: Vec<String>,
    /// The manifest, or the index of several.
    pub manifest: Descriptor,
    /// The digest of the image config: the image's ID.
    pub config: Digest,
    /// As in `linux/amd64`.
    pub platform: String,
    /// When the image was made, by its config.
    pub created_at: Option<Timestamp>,
    /// When it was first stored here.
    pub stored_at: Timestamp,
    /// The topmost layer, if the layers are unpacked.
    pub snapshot: Option<SnapshotId>,
    /// The further images of an index that are stored, by platform.
    pub others: Vec<PlatformImage>,
}

impl ImageInfo {
    /// Returns all its images: the one that stands for all first.
    pub fn images(&self) -> Vec<PlatformImage> {
        let first = PlatformImage {
            config: self.config.clone(),
            platform: self.platform.clone(),
            snapshot: self.snapshot.clone(),
        };
        std::iter::once(first).chain(self.others.clone()).collect()
    }

    /// Returns the platform of the image that `text` means: of several, the one whose config's digest
    /// begins so; `None` if it means them all.
    pub fn platform_meant(&self, text: &str) -> Option<String> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let begins =
            |digest: &Digest| digits.len() >= SHORTEST_ID && digest.hex().starts_with(digits);
        let mut images = self.images().into_iter();
        let image = images.find(|image| begins(&image.config))?;
        Some(image.platform)
    }

    /// Returns the topmost layer of the image with this config, if its layers are unpacked.
    pub fn snapshot_of(&self, config: &Digest) -> Option<SnapshotId> {
        let mut images = self.images().into_iter();
        images.find(|image| image.config == *config)?.snapshot
    }
}

impl Lease {
    /// Stores an image, and gives it `names`, taking them from other images. Its blobs and
    /// snapshots stay as long as it has a name; without, it is there until the next prune.
    ///
    /// # Errors
    /// `NotFound` if a blob or the snapshot does not exist (any more).
    pub fn add_image(&self, new: &NewImage<'_>, names: &[ImageRef]) -> Result<()> {
        let store = self.store();
        if store.read(|db| is_known(db, new, names))? {
            return Ok(());
        }
        store.write(|tx| {
            let manifest = new.manifest.digest.as_str();
            let mut blobs = vec![&new.manifest.digest, new.config];
            blobs.extend(new.others.iter().map(|other| &other.config));
            blobs.extend(new.blobs);
            for digest in &blobs {
                let stored = "SELECT 1 FROM blobs WHERE digest = ?";
                if !tx.prepare_cached(stored)?.exists([digest.as_str()])? {
                    return Err(Error::not_found(format_args!("blob `{digest}`")));
                }
            }
            let others = new
                .others
                .iter()
                .filter_map(|other| other.snapshot.as_ref());
            for id in new.snapshot.into_iter().chain(others) {
                let stored = "SELECT 1 FROM snapshots WHERE id = ?";
                if !tx.prepare_cached(stored)?.exists([id])? {
                    return Err(crate::snapshot::missing(id));
                }
            }
            insert(tx, new, store.now())?;
            for digest in blobs {
                tx.prepare_cached(
                    "INSERT OR IGNORE INTO image_blobs (image, digest) VALUES (?, ?)",
                )?
                .execute([manifest, digest.as_str()])?;
            }
            for name in names {
                set_tag(tx, name, manifest)?;
            }
            Ok(())
        })
    }
}

impl Store {
    /// Gives the image `manifest` one more name, taken from the image that had it.
    ///
    /// # Errors
    /// `NotFound` if there is no such image.
    pub fn tag(&self, manifest: &Digest, name: &ImageRef) -> Result<()> {
        self.write(|tx| {
            let known = "SELECT 1 FROM images WHERE manifest = ?";
            if !tx.prepare_cached(known)?.exists([manifest.as_str()])? {
                return Err(Error::not_found(format_args!("image `{manifest}`")));
            }
            set_tag(tx, name, manifest.as_str())
        })
    }

    /// Takes a name away. With its last name the image goes, and what only it needed becomes
    /// cache. Returns the image if it went.
    ///
    /// # Errors
    /// `NotFound` if there is no such name.
    pub fn untag(&self, name: &ImageRef) -> Result<Option<ImageInfo>> {
        let gone = self.write(|tx| {
            let image = by_name(tx, &name_of(name))?
                .ok_or_else(|| Error::not_found(format_args!("image `{}`", name.familiar())))?;
            tx.prepare_cached("DELETE FROM tags WHERE name = ?")?
                .execute([name_of(name)])?;
            gc::forget_collected(tx)?;
            if image.names.len() > 1 {
                return Ok(None);
            }
            Ok(Some((delete(tx, &image.manifest.digest)?, image)))
        })?;
        match gone {
            None => Ok(None),
            Some((blobs, image)) => {
                prune::remove_loose_blobs(self, &blobs)?;
                Ok(Some(image))
            }
        }
    }

    /// Removes the image `manifest` with all its names; what only it needed becomes cache.
    ///
    /// # Errors
    /// `NotFound` if there is no such image.
    pub fn remove_image(&self, manifest: &Digest) -> Result<()> {
        let blobs = self.write(|tx| {
            gc::forget_collected(tx)?;
            delete(tx, manifest)
        })?;
        if blobs.is_empty() {
            return Err(Error::not_found(format_args!("image `{manifest}`")));
        }
        prune::remove_loose_blobs(self, &blobs)
    }

    /// Returns all images, the latest stored first.
    pub fn images(&self) -> Result<Vec<ImageInfo>> {
        self.read(|db| select(db, "1 ORDER BY stored_at DESC, i.manifest", ""))
    }

    /// Returns the image that `name` means: the one with its digest, if it has one.
    pub fn image_by_name(&self, name: &ImageRef) -> Result<Option<ImageInfo>> {
        self.read(|db| by_ref(db, name))
    }

    /// Returns the image that `text` means: a name, the digest of its manifest or config, or the
    /// first digits of one.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if several images' digests begin so.
    pub fn resolve_image(&self, text: &str) -> Result<ImageInfo> {
        let name = text.parse::<ImageRef>().ok();
        self.read(|db| {
            if let Some(name) = &name
                && let Some(image) = by_ref(db, name)?
            {
                return Ok(image);
            }
            let pinned = name.as_ref().and_then(|name| name.digest());
            let digits = match pinned {
                Some(digest) => digest.hex(),
                None => text.strip_prefix("sha256:").unwrap_or(text),
            };
            let is_hex = digits
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if digits.len() < SHORTEST_ID || !is_hex {
                return Err(Error::not_found(format_args!("image `{text}`")));
            }
            let pattern = format!("sha256:{digits}%");
            let mut found = select(db, LIKE, &pattern)?;
            match (found.pop(), found.is_empty()) {
                (Some(image), true) => Ok(image),
                (Some(_), false) => Err(Error::invalid(format_args!(
                    "`{text}` is the start of several images' IDs"
                ))),
                (None, _) => Err(Error::not_found(format_args!("image `{text}`"))),
            }
        })
    }
}

/// Images whose manifest or one of whose configs has a digest of this pattern.
const LIKE: &str = "i.manifest LIKE ?1 OR config LIKE ?1 \
    OR i.manifest IN (SELECT image FROM image_platforms WHERE config LIKE ?1)";

/// Adds an image; to an index that is known, what is new of it.
fn insert(tx: &Transaction<'_>, new: &NewImage<'_>, now: i64) -> Result<()> {
    let manifest = new.manifest.digest.as_str();
    tx.prepare_cached(
        "INSERT INTO images \
           (manifest, media_type, config, platform, created_at, stored_at) \
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (manifest) DO NOTHING",
    )?
    .execute(params![
        manifest,
        new.manifest.media_type,
        new.config.as_str(),
        new.platform,
        new.created_at.map(to_nanos),
        now,
    ])?;
    let first = PlatformImage {
        config: new.config.clone(),
        platform: new.platform.to_owned(),
        snapshot: new.snapshot.cloned(),
    };
    for image in std::iter::once(&first).chain(new.others) {
        let (config, snapshot) = (image.config.as_str(), &image.snapshot);
        let is_first = tx
            .prepare_cached(
                "UPDATE images SET snapshot = coalesce(?3, snapshot) \
                 WHERE manifest = ?1 AND config = ?2",
            )?
            .execute(params![manifest, config, snapshot])?;
        if is_first == 0 {
            tx.prepare_cached(
                "INSERT INTO image_platforms (image, config, platform, snapshot) \
                 VALUES (?, ?, ?, ?) ON CONFLICT (image, config) DO UPDATE \
                 SET snapshot = coalesce(excluded.snapshot, snapshot)",
            )?
            .execute(params![manifest, config, image.platform, snapshot])?;
        }
    }
    Ok(())
}

/// Whether nothing about the image and its names would change: the case of a cached rebuild.
fn is_known(db: &Connection, new: &NewImage<'_>, names: &[ImageRef]) -> Result<bool> {
    let manifest = new.manifest.digest.as_str();
    let others = new
        .others
        .iter()
        .map(|other| (&other.config, other.snapshot.as_ref()));
    let mut image = db.prepare_cached(
        "SELECT snapshot FROM images WHERE manifest = ?1 AND config = ?2 \
         UNION ALL SELECT snapshot FROM image_platforms WHERE image = ?1 AND config = ?2",
    )?;
    for (config, snapshot) in std::iter::once((new.config, new.snapshot)).chain(others) {
        let known: Option<Option<SnapshotId>> = image
            .query_row([manifest, config.as_str()], |row| row.get(0))
            .optional()?;
        if known.is_none_or(|known| snapshot.is_some() && known.as_ref() != snapshot) {
            return Ok(false);
        }
    }
    for digest in new.blobs {
        let known = "SELECT 1 FROM image_blobs WHERE image = ? AND digest = ?";
        if !db
            .prepare_cached(known)?
            .exists([manifest, digest.as_str()])?
        {
            return Ok(false);
        }
    }
    for name in names {
        let known = "SELECT 1 FROM tags WHERE name = ? AND manifest = ?";
        let name = name_of(name);
        if !db
            .prepare_cached(known)?
            .exists([name.as_str(), manifest])?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The text under which a name is kept: without a digest, and with a tag.
fn name_of(name: &ImageRef) -> String {
    name.without_digest().to_string()
}

fn set_tag(tx: &Transaction<'_>, name: &ImageRef, manifest: &str) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO tags (name, manifest) VALUES (?, ?) \
         ON CONFLICT (name) DO UPDATE SET manifest = excluded.manifest",
    )?
    .execute(params![name_of(name), manifest])?;
    Ok(())
}

/// Deletes an image; returns the blobs it had, none if there was no such image.
pub(crate) fn delete(tx: &Transaction<'_>, manifest: &Digest) -> Result<Vec<Digest>> {
    let mut list = tx.prepare_cached("SELECT digest FROM image_blobs WHERE image = ?")?;
    let blobs = list
        .query_map([manifest.as_str()], |row| digest_column(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    tx.prepare_cached("DELETE FROM images WHERE manifest = ?")?
        .execute([manifest.as_str()])?;
    Ok(blobs)
}

fn by_ref(db: &Connection, name: &ImageRef) -> Result<Option<ImageInfo>> {
    match name.digest() {
        Some(digest) => Ok(select(db, "i.manifest = ?1", digest.as_str())?.pop()),
        None => by_name(db, &name_of(name)),
    }
}

fn by_name(db: &Connection, name: &str) -> Result<Option<ImageInfo>> {
    let condition = "i.manifest = (SELECT manifest FROM tags WHERE name = ?1)";
    Ok(select(db, condition, name)?.pop())
}

fn select(db: &Connection, condition: &str, parameter: &str) -> Result<Vec<ImageInfo>> {
    let sql = format!(
        "SELECT i.manifest, media_type, b.size_bytes, config, platform, i.created_at, stored_at, \
           snapshot \
         FROM images i JOIN blobs b ON b.digest = i.manifest \
         WHERE (?1 = '' OR ?1 <> '') AND {condition}"
    );
    let mut images = db
        .prepare_cached(&sql)?
        .query_map([parameter], from_row)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut names = db.prepare_cached("SELECT name FROM tags WHERE manifest = ? ORDER BY name")?;
    let mut others = db.prepare_cached(
        "SELECT config, platform, snapshot FROM image_platforms WHERE image = ? ORDER BY platform",
    )?;
    for image in &mut images {
        image.others = others
            .query_map([image.manifest.digest.as_str()], |row| {
                Ok(PlatformImage {
                    config: digest_column(row, 0)?,
                    platform: row.get(1)?,
                    snapshot: row.get(2)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        image.names = names
            .query_map([image.manifest.digest.as_str()], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
    }
    Ok(images)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<ImageInfo> {
    let media_type: String = row.get(1)?;
    let size_bytes = row.get::<_, i64>(2)? as u64;
    Ok(ImageInfo {
        names: Vec::new(),
        manifest: Descriptor::new(&media_type, digest_column(row, 0)?, size_bytes),
        config: digest_column(row, 3)?,
        platform: row.get(4)?,
        created_at: row.get::<_, Option<i64>>(5)?.map(from_nanos),
        stored_at: from_nanos(row.get(6)?),
        snapshot: row.get(7)?,
        others: Vec::new(),
    })
}
