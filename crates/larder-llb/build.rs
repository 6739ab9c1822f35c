//! Compiles `proto/ops.proto`, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/ops.proto");
    let descriptors = protox::compile(["proto/ops.proto"], ["proto"])?;
    // Ordered maps make the encoding deterministic: the digest of an op is that of its bytes.
    prost_build::Config::new()
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
