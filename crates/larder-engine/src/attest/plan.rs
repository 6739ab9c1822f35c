use super::RequestFacts;
use crate::request::{Attestations, BuildRequest, Provenance};

/// What is to be said of a target's results; by default nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// What was asked for.
    pub(crate) request: RequestFacts,
    pub(crate) asked: Attestations,
}

impl Plan {
    /// Takes from a request what attestations need of it.
    pub(crate) fn of(request: &mut BuildRequest) -> Self {
        Self {
            request: RequestFacts::of(request),
            asked: std::mem::take(&mut request.attestations),
        }
    }

    /// Returns the provenance that an output gets. `inline` tells whether it takes what is for
    /// images in registries only.
    pub(crate) fn provenance(&self, inline: bool) -> Option<&Provenance> {
        let provenance = self.asked.provenance.as_ref();
        provenance.filter(|provenance| inline || !provenance.inline_only)
    }
}
