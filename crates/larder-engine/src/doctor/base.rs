//! Base images that are another one each month.

use larder_oci::ImageRef;

use super::finding::{Finding, FindingKind};
use super::past;
use super::stages::Stages;
use crate::event::MissCause;

pub(super) fn look(stages: &Stages<'_>, findings: &mut Vec<Finding>) {
    for view in stages.all() {
        let base = view.default_base.as_str();
        if view.base_stage.is_some() || base.is_empty() || base == "scratch" {
            continue;
        }
        let Ok(image_ref) = base.parse::<ImageRef>() else {
            continue;
        };
        if image_ref.digest().is_some() || image_ref.tag() != Some("latest") {
            continue;
        }
        let name = base.strip_suffix(":latest").unwrap_or(base);
        let stage = view.name.as_ref();
        let stage = stage.map_or_else(String::new, |name| format!(" AS {name}"));
        let problem = format!(
            "`{base}` is whatever is newest: when it changes, every step of the stage runs again"
        );
        let line = view.lines.start;
        findings.push(Finding {
            cost: past::cost_of_cause(&stages.patient.history, |_, cause| {
                matches!(cause, MissCause::BaseImage { image_ref, .. } if image_ref == base)
            }),
            advice: "name a version".to_owned(),
            fix: vec![format!("FROM {name}:VERSION{stage}")],
            ..stages.finding(FindingKind::UnpinnedBase, line, problem)
        });
    }
}
