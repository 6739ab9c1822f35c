//! What imported records are known by, beyond what a build had need of.
//!
//! A build that finds a step by one alternative asks for no other. If its cache had only that one,
//! caches that go from build to build would lose the others. They are taken from the imported record,
//! as long as that says of the same contents: an alternative that names other contents than the
//! result was made of would be a false hit.

use std::collections::{BTreeSet, HashMap};

use larder_cache::{Link, Record};
use larder_oci::Digest;
use larder_store::{ExportedRecord, KeyId};

use crate::cache::import::Imports;
use crate::cache::index::{Index, Node, Record as ImportedRecord};

/// What is selected of an input, and the input's record.
type ImportedLink = (Option<Digest>, Node);

/// Adds the alternatives of imported records to those of the store.
pub(super) struct Alternatives<'a> {
    imports: &'a Imports<'a>,
    /// The places of imported records in the list of all.
    places: HashMap<Node, usize>,
    /// The places of sources and contents, and what is there.
    sources: HashMap<Digest, usize>,
    digests: HashMap<usize, Digest>,
    /// Sources and contents that only imported records know; they follow at the end of the list.
    new_sources: Vec<Record>,
    first_new: usize,
}

impl<'a> Alternatives<'a> {
    pub(super) fn new(imports: &'a Imports<'a>, exported: &[ExportedRecord]) -> Self {
        let mut places = HashMap::new();
        let mut sources = HashMap::new();
        let mut digests = HashMap::new();
        for (place, record) in exported.iter().enumerate() {
            if record.inputs.is_empty() {
                sources.insert(record.digest.clone(), place);
                digests.insert(place, record.digest.clone());
            }
            let nodes = imports.nodes(record.key).map(|(_, nodes)| nodes);
            places.extend(nodes.into_iter().flatten().map(|node| (node, place)));
        }
        Self {
            imports,
            places,
            sources,
            digests,
            new_sources: Vec::new(),
            first_new: exported.len(),
        }
    }

    /// Adds to the inputs of a record those that the imported caches have of it.
    pub(super) fn add(&mut self, key: KeyId, inputs: &mut [Vec<Link>]) {
        let Some((index, nodes)) = self.imports.nodes(key) else {
            return;
        };
        for node in nodes {
            let imported = &index.record(node).inputs;
            let says_the_same = imported.len() == inputs.len()
                && inputs
                    .iter()
                    .zip(imported)
                    .all(|(own, imported)| self.covers(index, imported, own));
            if says_the_same {
                for (own, imported) in inputs.iter_mut().zip(imported) {
                    let links = imported.iter().filter_map(|link| self.placed(index, link));
                    let known: BTreeSet<Link> = own.iter().cloned().collect();
                    let new: BTreeSet<Link> = links.filter(|link| !known.contains(link)).collect();
                    own.extend(new);
                }
            }
        }
    }

    /// Returns the sources and contents to be added at the end of the list.
    pub(super) fn into_sources(self) -> Vec<Record> {
        self.new_sources
    }

    /// Returns whether `imported` knows all sources and contents of `own`.
    fn covers(&self, index: &Index, imported: &[ImportedLink], own: &[Link]) -> bool {
        let known: BTreeSet<&Digest> = imported
            .iter()
            .map(|(_, node)| &index.record(*node).digest)
            .collect();
        let mut sources = own.iter().filter_map(|link| self.digests.get(&link.record));
        sources.all(|digest| known.contains(digest))
    }

    /// Returns a link of an imported record as the list has it; `None` if it leads to a step that
    /// this build does not know.
    fn placed(&mut self, index: &Index, (selector, node): &ImportedLink) -> Option<Link> {
        let place = match self.places.get(node) {
            Some(place) => *place,
            None => self.source(index.record(*node))?,
        };
        Some(Link {
            selector: selector.clone(),
            record: place,
        })
    }

    /// Returns the place of a source or content, which is new if it was not known.
    fn source(&mut self, record: &ImportedRecord) -> Option<usize> {
        if !record.inputs.is_empty() {
            return None;
        }
        let next = self.first_new + self.new_sources.len();
        let place = *self.sources.entry(record.digest.clone()).or_insert(next);
        if place == next {
            self.digests.insert(place, record.digest.clone());
            self.new_sources.push(Record::new(record.digest.clone()));
        }
        Some(place)
    }
}
