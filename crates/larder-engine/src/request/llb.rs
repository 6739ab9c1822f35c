use std::collections::BTreeMap;
use std::path::PathBuf;

use larder_llb::{Definition, Message as _, dump, pb};

use crate::error::{BuildError, Result};

/// A graph that is built in place of a Dockerfile's.
#[derive(Debug, Clone)]
pub struct LlbInput {
    pub(crate) definition: Definition,
    pub(crate) locals: BTreeMap<String, PathBuf>,
    pub(crate) layouts: BTreeMap<String, PathBuf>,
}

impl LlbInput {
    /// Reads a definition in its wire form. `locals` are the directories of its local sources, by
    /// their names.
    ///
    /// # Errors
    /// `Invalid` for bytes that are no definition, and for one that is not sound.
    pub fn new(definition: &[u8], locals: BTreeMap<String, PathBuf>) -> Result<Self> {
        let definition = Llb::read(definition)?;
        if definition.0.def.is_empty() {
            return Err(BuildError::invalid("invalid empty definition"));
        }
        let definition = Definition::from_pb(&definition.0)
            .map_err(|error| BuildError::invalid("failed to load LLB").with_source(error))?;
        Ok(Self {
            definition,
            locals,
            layouts: BTreeMap::new(),
        })
    }

    /// Lets it read images and blobs in OCI layouts: directories, by the names that its sources have for
    /// them.
    #[must_use]
    pub fn with_layouts(self, layouts: BTreeMap<String, PathBuf>) -> Self {
        Self { layouts, ..self }
    }
}

/// A definition to be looked at. It need not be sound.
#[derive(Debug, Clone)]
pub struct Llb(pub(crate) pb::Definition);

impl Llb {
    /// Reads a definition in its wire form.
    ///
    /// # Errors
    /// `Invalid` for bytes that are none.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let definition = pb::Definition::decode(bytes);
        let failed =
            |error| BuildError::invalid("the input is no LLB definition").with_source(error);
        Ok(Self(definition.map_err(failed)?))
    }

    /// Returns the wire form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    /// Returns the ops as JSON, one a line, as BuildKit's `dump-llb` prints them.
    ///
    /// # Errors
    /// `Invalid` for an op that can't be decoded.
    pub fn to_json(&self) -> Result<String> {
        dump::json(&self.0).map_err(undecodable)
    }

    /// Returns the graph in the language of Graphviz.
    ///
    /// # Errors
    /// `Invalid` for an op that can't be decoded.
    pub fn to_dot(&self) -> Result<String> {
        dump::dot(&self.0).map_err(undecodable)
    }
}

fn undecodable(error: larder_llb::GraphError) -> BuildError {
    BuildError::invalid("the input is no LLB definition").with_source(error)
}
