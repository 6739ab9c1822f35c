//! In-toto statements.

use larder_oci::Digest;
use serde_json::{Value, json};

const TYPE: &str = "https://in-toto.io/Statement/v1";

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) digest: Digest,
}

/// Something that is said about a result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attestation {
    /// A URI.
    pub(crate) predicate_type: String,
    pub(crate) predicate: Value,
    /// What it is about, where that is not the whole result.
    pub(crate) subjects: Vec<Value>,
    /// The name of its file beside a file tree.
    pub(crate) file_name: String,
}

impl Attestation {
    /// Returns the statement, about `whole` unless it says otherwise itself.
    pub(crate) fn statement(&self, whole: &[Subject]) -> Value {
        let whole = whole.iter().map(|subject| {
            let digest = &subject.digest;
            json!({"name": subject.name, "digest": {digest.algorithm(): digest.hex()}})
        });
        let subjects = if self.subjects.is_empty() {
            whole.collect()
        } else {
            self.subjects.clone()
        };
        json!({
            "_type": TYPE,
            "predicateType": self.predicate_type,
            "subject": subjects,
            "predicate": self.predicate,
        })
    }
}
