//! Manifests, indexes, image configs, caches and cache layouts: all is read as each of them.
#![no_main]

use larder_cache::{Exported, Imported, Manifest, ManifestForm, layout};
use larder_oci::{Descriptor, ImageConfig, ImageIndex, ImageManifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(input) {
        let bytes = serde_json::to_vec(&config).expect("a config is JSON");
        let again: ImageConfig = serde_json::from_slice(&bytes).expect("a config");
        assert_eq!(again, config);
    }
    let _ = serde_json::from_slice::<ImageIndex>(input);
    let layers: Vec<Descriptor> = serde_json::from_slice::<ImageManifest>(input)
        .map(|manifest| manifest.layers)
        .unwrap_or_default();
    let _ = layout::parse(input);
    let _ = Manifest::parse(input);
    let _ = Imported::from_image(input, &layers);
    if let Ok(imported) = Imported::parse(input, &layers) {
        let exported = Exported::new(&imported.records);
        let written = exported.manifest(ManifestForm::Image);
        let Ok(Manifest::Cache { layers, .. }) = Manifest::parse(&written.bytes) else {
            panic!("a cache was written");
        };
        Imported::parse(exported.config_bytes(), &layers).expect("what was written is read");
    }
});
