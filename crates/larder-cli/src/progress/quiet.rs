//! The quiet form: nothing, unless a step fails.

use larder_engine::event::BuildEvent;

use super::summary::{self, FAILURE_LINES};
use super::trace::Trace;
use super::{Moment, Renderer};

/// Renders the last lines of failed steps, and nothing else. The image's id, which is the
/// command's result and no progress, is printed by the command.
#[derive(Debug)]
pub(super) struct Quiet(Trace);

impl Quiet {
    pub(super) fn new() -> Self {
        Self(Trace::new(FAILURE_LINES))
    }
}

impl Renderer for Quiet {
    fn event(&mut self, event: &BuildEvent, _: Moment) {
        self.0.event(event);
    }

    fn refresh(&mut self, _: Moment, _: &mut Vec<u8>) {}

    fn finish(&mut self, _: Moment, out: &mut Vec<u8>) {
        summary::failures(&self.0, out);
    }
}
