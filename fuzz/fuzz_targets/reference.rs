//! References, digests and platforms: what is accepted reads back as itself.
#![no_main]

use larder_oci::{Digest, ImageRef, Platform};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(image_ref) = text.parse::<ImageRef>() {
        let shown = image_ref.to_string();
        assert_eq!(
            shown.parse::<ImageRef>().expect("what was shown"),
            image_ref
        );
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.as_str(), text);
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let shown = platform.to_string();
        assert_eq!(shown.parse::<Platform>().expect("what was shown"), platform);
    }
});
