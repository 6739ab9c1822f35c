//! A Dockerfile is parsed, checked, viewed and lowered; the graph survives its encoding.
#![no_main]

use larder_dockerfile::{
    Dockerfile, ImageRequest, ImageResolver, LowerOptions, ResolveError, ResolvedImage,
};
use larder_llb::Definition;
use larder_oci::{Digest, ImageConfig};
use libfuzzer_sys::fuzz_target;

/// Knows all images; each has a trigger that the first bytes of its name make.
struct AllImages;

impl ImageResolver for AllImages {
    fn resolve_image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let mut config = ImageConfig::default();
        config.architecture = "amd64".to_owned();
        config.os = "linux".to_owned();
        config.config.env = vec!["PATH=/bin".to_owned(), "A=b".to_owned()];
        config.config.on_build = vec![
            "COPY . /trigger".to_owned(),
            format!("RUN {}", request.image_ref),
        ];
        Ok(ResolvedImage {
            image_ref: request.image_ref.clone(),
            digest: Digest::sha256(request.image_ref.to_string().as_bytes()),
            config,
        })
    }
}

fuzz_target!(|text: &[u8]| {
    let Ok(dockerfile) = Dockerfile::parse(text, "Dockerfile") else {
        return;
    };
    let options = LowerOptions {
        all_stages: true,
        ..LowerOptions::default()
    };
    assert!(!dockerfile.view().is_empty(), "there is a stage");
    let _images = dockerfile.base_images(&options);
    if let Ok(lowered) = dockerfile.lower(&options, &AllImages) {
        let encoded = lowered.definition.to_pb();
        let decoded = Definition::from_pb(&encoded).expect("what was made is sound");
        assert_eq!(decoded.to_pb(), encoded);
    }
});
