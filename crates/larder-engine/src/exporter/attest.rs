//! What outputs say of results, beside the results.

use jiff::Timestamp;
use larder_oci::{Descriptor, ImageManifest, ImageRef};
use larder_store::Store;
use serde_json::Value;

use super::manifest::Wanted;
use super::{Export, Part};
use crate::attest::{self, Attestation, Facts, Form, Subject};
use crate::error::Result;
use crate::layers;
use crate::progress::VertexProgress;
use crate::request::{Provenance, ProvenanceMode};

/// What is to be said about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attests {
    /// Nothing: there is no place for it.
    Nothing,
    /// What was asked for.
    Of {
        /// Whether that includes what is for images in registries only.
        inline: bool,
    },
}

impl Attests {
    /// Returns whether anything is said of a part.
    pub(super) fn any(self, part: &Part<'_>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Of { inline } => {
                !part.sbom.is_empty() || part.attest.provenance(inline).is_some()
            }
        }
    }
}

/// The manifest of what is said about an image.
pub(super) struct Attached {
    /// As an index names it.
    pub(super) descriptor: Descriptor,
    pub(super) manifest: ImageManifest,
}

impl Export<'_> {
    /// Writes what is said of an image, whose manifest and layers are given; `None` if nothing
    /// is.
    pub(super) fn attach(
        &self,
        part: &Part<'_>,
        manifest: (&Descriptor, &[Descriptor]),
        wanted: &Wanted<'_>,
        vertex: &VertexProgress<'_>,
    ) -> Result<Option<Attached>> {
        let (image, layers) = manifest;
        let Attests::Of { inline } = wanted.attests else {
            return Ok(None);
        };
        let options = wanted.options;
        let epoch = options.source_date_epoch.or(self.source_date_epoch());
        let said = part.said(self.lease.store(), layers, inline, epoch)?;
        if said.is_empty() {
            return Ok(None);
        }
        let subject = |name: &ImageRef| Subject {
            name: attest::purl(name, Some(part.platform)),
            digest: image.digest.clone(),
        };
        let subjects: Vec<Subject> = wanted.names.iter().map(subject).collect();
        let statements: Vec<Value> = said.iter().map(|said| said.statement(&subjects)).collect();
        let form = if options.oci_artifact {
            Form::Artifact
        } else {
            Form::Image
        };
        let (descriptor, manifest) = attest::write_manifest(self.lease, &statements, image, form)?;
        vertex.status_done(format!(
            "exporting attestation manifest {}",
            descriptor.digest
        ));
        Ok(Some(Attached {
            descriptor,
            manifest,
        }))
    }

    /// Returns how each part was made, as far as `mode` tells it; in the form that was asked for.
    pub(crate) fn provenance(&self, mode: ProvenanceMode) -> Result<Vec<Value>> {
        let store = self.lease.store();
        let of = |part: &Part<'_>| {
            let options = Provenance {
                mode,
                ..part.attest.asked.provenance.clone().unwrap_or_default()
            };
            let (_, predicate) = part.predicate(&options, store, &[], self.source_date_epoch())?;
            Ok(match mode {
                ProvenanceMode::Min => attest::without_details(predicate),
                ProvenanceMode::Max => predicate,
            })
        };
        self.parts.iter().map(of).collect()
    }
}

impl Part<'_> {
    /// Returns what is said of this part: what a generator says, then how it was made. `layers` are
    /// its layers where they are blobs, `epoch` binds the times.
    pub(super) fn said(
        &self,
        store: &Store,
        layers: &[Descriptor],
        inline: bool,
        epoch: Option<i64>,
    ) -> Result<Vec<Attestation>> {
        let mut said = self.sbom.clone();
        if let Some(options) = self.attest.provenance(inline) {
            let (predicate_type, predicate) = self.predicate(options, store, layers, epoch)?;
            said.push(Attestation {
                predicate_type: predicate_type.to_owned(),
                predicate,
                subjects: Vec::new(),
                file_name: options.file_name.clone(),
            });
        }
        Ok(said)
    }

    fn predicate(
        &self,
        options: &Provenance,
        store: &Store,
        layers: &[Descriptor],
        epoch: Option<i64>,
    ) -> Result<(&'static str, Value)> {
        Ok(attest::predicate(
            options,
            &Facts {
                request: &self.attest.request,
                lowered: self.lowered,
                platform: self.platform,
                further: self.generator.iter().cloned().collect(),
                times: self.times(store, epoch)?,
                layers,
                fetched: &self.fetched,
            },
        ))
    }

    /// Returns when the first and the last of the layers were made that the base image has not.
    fn times(&self, store: &Store, epoch: Option<i64>) -> Result<Option<(Timestamp, Timestamp)>> {
        let all: Vec<Option<Timestamp>> = match &self.snapshot {
            Some(snapshot) => layers::created_at(store, snapshot)?,
            None => self.far.iter().map(|layer| layer.created_at).collect(),
        };
        let base = self.lowered.base.as_ref();
        let base_count = base.map_or(0, |(_, config)| config.rootfs.diff_ids.len());
        let epoch = epoch.and_then(|seconds| Timestamp::from_second(seconds).ok());
        let bound = |time: Timestamp| epoch.map_or(time, |epoch| time.min(epoch));
        let new = all.into_iter().skip(base_count).flatten().map(bound);
        let new: Vec<Timestamp> = new.collect();
        Ok(new.iter().min().copied().zip(new.iter().max().copied()))
    }
}
