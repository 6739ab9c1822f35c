//! Compiles `proto/ops.proto`, without `protoc`.

use std::error::Error;

/// Messages whose JSON is written by hand in `json.rs`: Go's types for their one-ofs do likewise.
const HAND_WRITTEN: [&str; 3] = ["Op", "FileAction", "UserOpt"];
/// The number of a field's type that protobuf calls `bytes`.
const BYTES: i32 = 12;
/// The number of a field's label that protobuf calls `repeated`.
const REPEATED: i32 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/ops.proto");
    let descriptors = protox::compile(["proto/ops.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    // Ordered maps make the encoding deterministic: the digest of an op is that of its bytes.
    config.btree_map(["."]);
    for message in descriptors.file.iter().flat_map(|file| &file.message_type) {
        if HAND_WRITTEN.contains(&message.name()) {
            continue;
        }
        let path = format!(".pb.{}", message.name());
        config.type_attribute(&path, "#[derive(serde::Serialize)]");
        for field in &message.field {
            // Go's tags: the name as it stands in the proto file, left out where it is zero.
            let mut tag = format!(
                "rename = {:?}, skip_serializing_if = \"crate::json::is_zero\"",
                field.name()
            );
            match (field.r#type, field.label) {
                (Some(BYTES), Some(REPEATED)) => {
                    tag.push_str(", serialize_with = \"crate::json::base64_list\"");
                }
                (Some(BYTES), _) => tag.push_str(", serialize_with = \"crate::json::base64\""),
                _ => {}
            }
            config.field_attribute(
                format!("{path}.{}", field.name()),
                format!("#[serde({tag})]"),
            );
        }
    }
    config.compile_fds(descriptors)?;
    Ok(())
}
