//! Detection, decoding and encoding of compressed streams.
