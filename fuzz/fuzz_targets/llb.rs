//! A definition is decoded and checked; what is sound has cache maps, and encodes to itself.
#![no_main]

use larder_llb::{Definition, cache_map, pb};
use larder_oci::{Digest, Platform};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    let Ok(encoded) = pb::Definition::decode(bytes) else {
        return;
    };
    check(&encoded);
    check(&linked(&encoded));
});

fn check(encoded: &pb::Definition) {
    let Ok(definition) = Definition::from_pb(encoded) else {
        return;
    };
    let host: Platform = "linux/amd64".parse().expect("a platform");
    for vertex in definition.vertices() {
        let _ = vertex.name();
        let _ = cache_map::cache_map(vertex, &host);
        let _ = definition.locations(&vertex.digest);
    }
    if definition.result().is_none() {
        return;
    }
    let again = Definition::from_pb(&definition.to_pb()).expect("what was sound is sound again");
    assert_eq!(again.vertices().len(), definition.vertices().len());
    assert_eq!(again.result(), definition.result());
}

/// Returns the definition with inputs that exist: no fuzzer guesses a digest.
fn linked(encoded: &pb::Definition) -> pb::Definition {
    let mut linked = pb::Definition::default();
    let mut digests: Vec<String> = Vec::new();
    for bytes in &encoded.def {
        let Ok(mut op) = pb::Op::decode(bytes.as_slice()) else {
            continue;
        };
        if digests.is_empty() {
            op.inputs.clear();
        }
        for input in &mut op.inputs {
            input
                .digest
                .clone_from(&digests[input.digest.len() % digests.len()]);
        }
        let bytes = op.encode_to_vec();
        digests.push(Digest::sha256(&bytes).to_string());
        linked.def.push(bytes);
    }
    // What was said of some vertex is said of one that there is.
    let metadata = encoded.metadata.values().cloned();
    linked.metadata = digests.iter().cloned().zip(metadata).collect();
    linked.source.clone_from(&encoded.source);
    linked
}
