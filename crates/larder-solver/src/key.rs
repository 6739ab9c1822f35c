use larder_oci::Digest;

/// A key node of the store: the identity by which one output of a step is found again. Opaque
/// here; equal ids are equal keys, and an id that was pruned is never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub i64);

/// What a vertex feeds into its cache key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheMap {
    /// A vertex without inputs.
    Root {
        /// Digests, each of which alone identifies the result, the most general last (an image:
        /// by manifest, then by chain ID). Empty if nothing but the content does (a local source): the result is then
        /// never looked up or saved, and steps that read it match by its content only.
        keys: Vec<Digest>,
    },
    /// A vertex with inputs.
    Step {
        /// Identifies the op, apart from its inputs.
        digest: Digest,
        /// How each input enters the key, in the vertex's order.
        inputs: Vec<InputMap>,
    },
}

/// How an input enters a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputMap {
    /// Qualifies the input's own keys (which paths are read, say); not its content key.
    pub selector: Option<Digest>,
    /// Whether the input can also be keyed by the content that the step reads (the slow key).
    pub content: bool,
}

/// What identifies one output of a vertex for reuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheKey {
    /// A vertex without inputs: any of these digests.
    Root(Vec<Digest>),
    /// A vertex with inputs.
    Step {
        /// Identifies the op, apart from its inputs.
        digest: Digest,
        /// For each input what it is known as. A record matches if for *every* input *some*
        /// candidate leads to it; an input without candidates matches nothing.
        inputs: Vec<Vec<Candidate>>,
    },
}

/// One of the ways in which an input is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// By its own key (the fast key).
    Key {
        /// The key node of the input.
        key: KeyId,
        /// Qualifies it.
        selector: Option<Digest>,
    },
    /// By the content that is read of it (the slow key): a root key of its own.
    Content(Digest),
}
