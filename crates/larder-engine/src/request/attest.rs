use std::collections::BTreeMap;

use larder_oci::ImageRef;

/// What is attested of a result, beside the result itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attestations {
    /// How it was made.
    pub provenance: Option<Provenance>,
    /// What it contains.
    pub sbom: Option<Sbom>,
    /// What is told of how it was made in [`BuildOutcome`](super::BuildOutcome), whatever outputs
    /// hold.
    pub told: Option<ProvenanceMode>,
    /// The repository that a provenance says the context is from.
    pub vcs: Option<Vcs>,
}

/// A repository with a directory of the client's in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vcs {
    /// Where it is from, without a password.
    pub source: Option<String>,
    /// The commit that it is at.
    pub revision: Option<String>,
    /// Where in it the context is, `.` for its top.
    pub context: Option<String>,
    /// Where in it the Dockerfile's directory is.
    pub dockerfile: Option<String>,
}

/// How a result was made, as SLSA has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// How much is told.
    pub mode: ProvenanceMode,
    /// The form.
    pub version: SlsaVersion,
    /// Who builds, as a URI; may be empty.
    pub builder_id: String,
    /// Whether the build is said to give the same result each time. Nothing checks that.
    pub is_reproducible: bool,
    /// Whether only images that are pushed get it.
    pub inline_only: bool,
    /// The name of its file beside a file tree.
    pub file_name: String,
}

impl Default for Provenance {
    fn default() -> Self {
        Self {
            mode: ProvenanceMode::Max,
            version: SlsaVersion::V1,
            builder_id: String::new(),
            is_reproducible: false,
            inline_only: false,
            file_name: "provenance.json".to_owned(),
        }
    }
}

/// How much a provenance tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// What was built from what; no build arguments, labels and ids of secrets.
    Min,
    /// Also these, the graph, and the Dockerfile.
    Max,
}

/// A version of SLSA's provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlsaVersion {
    /// 0.2.
    V02,
    /// 1.
    V1,
}

/// A list of what a result contains, made by a program in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// The image.
    pub generator: ImageRef,
    /// Further options for it; each becomes a variable `BUILDKIT_SCAN_NAME`.
    pub parameters: BTreeMap<String, String>,
}
