//! The time of a source, where `SOURCE_DATE_EPOCH` asks for it.

use larder_dockerfile::{Dockerfile, EpochSource, LowerOptions};
use larder_llb::pb;

use super::Build;
use super::inputs::DockerfileText;
use crate::error::Result;
use crate::ops::git::{self, Access, Checkout};
use crate::policy;
use crate::progress::VertexProgress;
use crate::request::BuildRequest;
use crate::web::{WebFetch, parse};

const NAME: &str = "SOURCE_DATE_EPOCH";

impl Build<'_> {
    /// Puts the number of seconds in place of what `SOURCE_DATE_EPOCH` names; none where that has
    /// no time.
    pub(super) fn set_epoch(
        &self,
        dockerfile: &Dockerfile,
        text: &DockerfileText,
        request: &BuildRequest,
        options: &mut LowerOptions,
    ) -> Result<()> {
        let source = dockerfile.epoch_source(options);
        let seconds = match source.map_err(|error| super::dockerfile_error(&error, text))? {
            None => return Ok(()),
            Some(EpochSource::Untimed) => None,
            Some(EpochSource::Source(source, name)) => self.time_of(&source, &name, request)?,
        };
        let seconds = seconds.map(|seconds| seconds.to_string());
        let args = &mut options.build_args;
        args.insert(NAME.to_owned(), seconds.unwrap_or_default());
        Ok(())
    }

    fn time_of(
        &self,
        source: &pb::SourceOp,
        name: &str,
        request: &BuildRequest,
    ) -> Result<Option<i64>> {
        let source = &policy::source(self.images.policy(), source)?;
        let mut vertex = self.reporter.begin_internal(name, &source.identifier);
        let time = if git::is_git(source) {
            self.commit_time(source, request, &vertex).map(Some)
        } else {
            self.modified(source, request, &vertex)
        };
        match &time {
            Ok(_) => vertex.complete(),
            Err(error) => vertex.fail(&error.full_message()),
        };
        time
    }

    fn commit_time(
        &self,
        source: &pb::SourceOp,
        request: &BuildRequest,
        progress: &VertexProgress<'_>,
    ) -> Result<i64> {
        let source = git::read(source)?;
        let access = Access {
            secrets: &*request.secrets,
            ssh: &*request.ssh,
            variables: &|name| std::env::var(name).ok(),
            cancel: self.cancel,
        };
        let checkout = Checkout {
            lease: self.lease,
            access,
            progress,
            bundles: None,
        };
        let resolved = self.repositories.resolve(&source, &checkout)?;
        checkout.time(&source, &resolved)
    }

    fn modified(
        &self,
        source: &pb::SourceOp,
        request: &BuildRequest,
        progress: &VertexProgress<'_>,
    ) -> Result<Option<i64>> {
        let mut source = parse(source)?;
        // What is known already has no time; whether it is that is checked where it is used.
        source.checksum = None;
        let found = self.web.resolve(WebFetch {
            source: &source,
            secrets: &*request.secrets,
            progress,
            cancel: self.cancel,
        })?;
        Ok(found.modified_seconds())
    }
}
