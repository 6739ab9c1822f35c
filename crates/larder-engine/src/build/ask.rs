//! Questions about a build's input, answered in place of building.

use larder_dockerfile::{Answer, describe};

use super::dockerfile_error;
use crate::engine::Engine;
use crate::error::Result;
use crate::event::EventSink;
use crate::request::{BuildRequest, ContextSource};

/// What can be asked of a build's input. The answers are those of BuildKit's subrequests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What the target takes: build arguments, secrets, SSH agents, cache mounts.
    Outline,
    /// Which targets there are.
    Targets,
    /// What can be asked.
    Describe,
}

impl Engine {
    /// Answers a question about a build, and builds nothing. For an outline base images are looked
    /// up, as for the build.
    ///
    /// # Errors
    /// When the Dockerfile can't be read or parsed; for an outline, when it can't be lowered.
    pub fn ask(
        &self,
        question: Question,
        request: BuildRequest,
        sink: &dyn EventSink,
    ) -> Result<Answer> {
        self.in_place_of_build(request, sink, |build, mut request| match question {
            Question::Describe => Ok(describe()),
            Question::Targets => {
                let source = std::mem::replace(&mut request.context, ContextSource::Empty);
                let context = build.open_context(source, &mut request)?;
                let (_, dockerfile) = build.parse_dockerfile(&context, &request)?;
                Ok(dockerfile.targets().answer())
            }
            Question::Outline => {
                let read = build.read(&mut request, false)?;
                let outline = read.dockerfile.outline(&read.options[0], &build.images);
                let outline = outline.map_err(|error| dockerfile_error(&error, &read.text))?;
                Ok(outline.answer())
            }
        })
    }
}
