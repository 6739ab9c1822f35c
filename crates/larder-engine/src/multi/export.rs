//! What comes of a target that is solved: its outputs and its caches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_store::SnapshotId;
use larder_tree::beneath::Root;

use super::run::{Part, Run, Target};
use crate::attest::{Attestation, Scan, sbom};
use crate::build::{OnPlatform, located};
use crate::cache::export::{CacheExporter, is_inline};
use crate::cancel::CancelFlag;
use crate::error::{BuildError, Result};
use crate::exporter::{self, Export};
use crate::request::{BuildOutcome, ImageOutcome, Output};
use crate::solve::{self, Job};
use crate::worker::ResultRef;

impl Run<'_> {
    pub(super) fn export(&self, target: &Target<'_>, stop: &CancelFlag) -> Result<BuildOutcome> {
        stop.check()?;
        let outputs = target.take_outputs();
        let results: Vec<Option<ResultRef>> = target.parts.iter().map(Part::result).collect();
        let caches = &target.prepared.cache_exports;
        let is_inline = caches.iter().any(is_inline);
        let inline: Vec<CacheExporter<'_>> = target
            .parts
            .iter()
            .zip(&results)
            .map(|(part, result)| self.cache_exporter(target, &[part], result.iter().collect()))
            .collect();
        let mut parts = Vec::with_capacity(target.parts.len());
        for ((part, result), inline) in target.parts.iter().zip(&results).zip(&inline) {
            let worker = &part.worker;
            let mut made = exporter::Part {
                platform: &part.build.platform,
                snapshot: None,
                far: Vec::new(),
                lowered: &part.build.lowered,
                inline_cache: is_inline.then_some(inline),
                attest: &target.prepared.attest,
                sbom: Vec::new(),
                generator: None,
                fetched: worker.fetched(),
            };
            if let Some(result) = result {
                made.far = worker.far_layers(result, &outputs)?;
                if made.far.is_empty() && !outputs.is_empty() {
                    made.snapshot = Some(self.tree(target, part, result)?);
                }
            }
            if let Some(scan) = &part.build.scan {
                made.sbom = self.contents(target, part, scan)?;
                made.generator = Some(scan.material.clone());
            }
            parts.push(made);
        }
        let mut export = Export {
            engine: self.engine,
            cancel: stop,
            lease: &self.lease,
            packed: target.shared.packed,
            reporter: target.reporter,
            parts,
            multi_platform: target.prepared.multi_platform,
            base_layers: target.parts[0].worker.base_layers(),
            tags: &target.prepared.tags,
        };
        let mut image = None;
        for output in outputs {
            stop.check()?;
            let made = self.write(output, &mut export, target, &results)?;
            image = image.or(made);
        }
        target.exports_cache.store(false, Ordering::Relaxed);
        let all: Vec<&Part<'_>> = target.parts.iter().collect();
        let cache = self.cache_exporter(target, &all, results.iter().flatten().collect());
        let emptied = |part: &Part<'_>| part.worker.emptied_bytes.load(Ordering::Relaxed);
        let told = target.prepared.attest.asked.told;
        let told = told.map(|mode| export.provenance(mode)).transpose()?;
        let platforms = target.prepared.builds.iter();
        let platforms = platforms.map(|build| build.platform.clone());
        Ok(BuildOutcome {
            image,
            provenance: platforms.zip(told.into_iter().flatten()).collect(),
            cache_manifest: cache.export(caches)?,
            steps: target.parts.iter().flat_map(Part::reports).collect(),
            emptied_cache_bytes: target.parts.iter().map(emptied).sum(),
        })
    }

    /// Writes one output. What was to be sent on from elsewhere and can't be had is made here, and
    /// stays in `export` for the outputs that follow.
    fn write(
        &self,
        output: Output,
        export: &mut Export<'_>,
        target: &Target<'_>,
        results: &[Option<ResultRef>],
    ) -> Result<Option<ImageOutcome>> {
        match output {
            Output::Image(image) => {
                let made = export.to_image(&image);
                let is_far = export.parts.iter().any(|part| !part.far.is_empty());
                match made {
                    Err(error) if error.lost_blob().is_some() && is_far => {
                        export.cancel.check()?;
                        target.parts[0].worker.imports.lose_far_results();
                        let places = target.parts.iter().zip(results);
                        for (part, (place, result)) in export.parts.iter_mut().zip(places) {
                            part.far.clear();
                            if let Some(result) = result {
                                part.snapshot = Some(self.tree(target, place, result)?);
                            }
                        }
                        export.to_image(&image).map(Some)
                    }
                    made => made.map(Some),
                }
            }
            Output::Oci(archive) => {
                let made = export.to_archive(archive, exporter::ArchiveKind::Oci)?;
                Ok(Some(made))
            }
            Output::Docker(archive) => {
                let made = export.to_archive(archive, exporter::ArchiveKind::Docker)?;
                Ok(Some(made))
            }
            Output::Tar(tar) => export.to_tar(tar).map(|()| None),
            Output::Local(local) => export.to_directory(&local).map(|()| None),
        }
    }

    /// Lets a generator list what is in a part's result; returns what it says.
    fn contents(
        &self,
        target: &Target<'_>,
        part: &Part<'_>,
        scan: &Scan,
    ) -> Result<Vec<Attestation>> {
        let (scope, _) = &part.build.scopes;
        let build = OnPlatform {
            platform: part.build.platform.clone(),
            lowered: Arc::new(scan.lowered.clone()),
            scopes: (format!("{scope}-sbom"), None),
            scan: None,
        };
        let worker = self.worker(target.prepared, &build, target.reporter, target.shared);
        let job = Job {
            worker: &worker,
            definition: &build.lowered.definition,
            reporter: target.reporter,
        };
        let solved = solve::solve(&[job], self.cancel, None, &|_, solved, _| {
            solved.ok_or_else(|| BuildError::internal("a generator's step came to nothing"))
        });
        let solved = solved.map_err(|failed| located(failed.error, &build.lowered))?;
        let Some(solved) = solved.first() else {
            return Err(BuildError::internal("a job came to nothing"));
        };
        let snapshot = worker.snapshot_of(&solved.result)?;
        let mount = self.lease.store().view(&snapshot)?;
        sbom::read(&Root::from_fd(larder_exec::mount::open(&mount)?))
    }

    /// Returns what exports the caches of some of a target's platforms, as one.
    fn cache_exporter<'a>(
        &'a self,
        target: &'a Target<'_>,
        parts: &[&'a Part<'_>],
        results: Vec<&'a ResultRef>,
    ) -> CacheExporter<'a> {
        let keys = parts.iter().flat_map(|part| part.worker.history.found());
        let keys: BTreeSet<_> = keys.collect();
        CacheExporter {
            engine: self.engine,
            lease: &self.lease,
            reporter: target.reporter,
            cancel: self.cancel,
            packed: target.shared.packed,
            imports: target.parts[0].worker.imports,
            base_layers: target.parts[0].worker.base_layers(),
            keys: keys.into_iter().collect(),
            withheld: parts
                .iter()
                .flat_map(|part| part.worker.history.withheld())
                .collect(),
            results,
        }
    }

    /// Exports the caches of targets that did not come so far: what was done is done.
    pub(super) fn export_unfinished(&self, targets: &[Target<'_>]) {
        for target in targets {
            if target.exports_cache.load(Ordering::Relaxed) {
                let exports = target.prepared.cache_exports.iter();
                let exports = exports.filter(|export| export.on_failure);
                let parts: Vec<&Part<'_>> = target.parts.iter().collect();
                // It is told where it happened; what the build failed for is told at the end.
                let _ = self
                    .cache_exporter(target, &parts, Vec::new())
                    .export(exports);
            }
        }
    }

    /// Returns the tree of a result. Where an imported one can't be fetched, the steps that make it
    /// run.
    fn tree(&self, target: &Target<'_>, part: &Part<'_>, result: &ResultRef) -> Result<SnapshotId> {
        let error = match part.worker.snapshot_of(result) {
            Err(error) if result.is_lost() => error,
            tree => return tree,
        };
        let job = part.job(target.reporter);
        let solved = solve::solve(&[job], self.cancel, None, &|_, solved, _| {
            let solved = solved.ok_or_else(|| BuildError::internal("a result came to nothing"))?;
            Ok(solved.result)
        });
        match solved.map_err(|failed| failed.error)?.first() {
            Some(again) if !again.is_lost() => self.tree(target, part, again),
            _ => Err(error),
        }
    }
}
