use super::parts::{BasePart, EnvPart, SourcePart, StepParts};
use crate::event::MissCause;

/// Returns the first difference between two states of a step, apart from the files it reads, the
/// steps it stands on, and what its environment has from a base image.
pub(crate) fn difference(now: &StepParts, before: &StepParts) -> Option<MissCause> {
    if let (Some(from), Some(to)) = (&before.platform, &now.platform)
        && from != to
    {
        return Some(MissCause::Platform {
            from: from.clone(),
            to: to.clone(),
        });
    }
    field_difference(now, before)
        .or_else(|| variable_difference(now, before, |part| !part.is_of_base()))
        .or_else(|| base_difference(now, before))
}

/// Returns the first difference in what the environment has from a base image.
pub(crate) fn base_variable_difference(now: &StepParts, before: &StepParts) -> Option<MissCause> {
    variable_difference(now, before, EnvPart::is_of_base)
}

fn field_difference(now: &StepParts, before: &StepParts) -> Option<MissCause> {
    let (shorter, longer) = if now.fields.len() < before.fields.len() {
        (&now.fields, &before.fields)
    } else {
        (&before.fields, &now.fields)
    };
    // What is gone, and what is new, is at this place in the longer list only.
    let same = shorter
        .iter()
        .zip(longer)
        .take_while(|(one, other)| one == other);
    let (what, _) = longer.get(same.count())?;
    Some(MissCause::Instruction {
        line: now.line,
        what: what.clone(),
    })
}

/// Returns the first of the `wanted` variables that differs.
fn variable_difference(
    now: &StepParts,
    before: &StepParts,
    wanted: impl Fn(&EnvPart) -> bool,
) -> Option<MissCause> {
    let find = |parts: &[EnvPart], name: &str| parts.iter().position(|part| part.name == name);
    let is_new = |part: &&EnvPart| match find(&before.env, &part.name) {
        Some(old) => before.env[old].value != part.value,
        None => true,
    };
    let new = now.env.iter().filter(|part| wanted(part)).find(is_new);
    let gone = || {
        let mut gone = before.env.iter().filter(|part| wanted(part));
        gone.find(|part| find(&now.env, &part.name).is_none())
    };
    let (part, line) = match new {
        Some(part) => (part, part.line),
        None => (gone()?, None),
    };
    let name = part.name.clone();
    Some(if part.is_arg {
        MissCause::Arg { name, line }
    } else {
        MissCause::Env { name, line }
    })
}

/// Returns the first of what was fetched whose content differs, and what told so.
pub(crate) fn source_difference(now: &[SourcePart], before: &[SourcePart]) -> Option<MissCause> {
    now.iter().find_map(|source| {
        let old = before.iter().find(|old| old.name == source.name)?;
        if old.told.last() == source.told.last() {
            return None;
        }
        let (what, _) = source.told.iter().find(|told| !old.told.contains(told))?;
        Some(MissCause::Source {
            name: source.name.clone(),
            what: what.clone(),
        })
    })
}

fn base_difference(now: &StepParts, before: &StepParts) -> Option<MissCause> {
    now.bases.iter().find_map(|base| {
        let same_name = |old: &&BasePart| old.image_ref == base.image_ref;
        let old = before.bases.iter().find(same_name);
        // A step that stood on no image has another place now.
        let old = old.or(before.bases.first())?;
        if let (Some(from), Some(to)) = (&old.platform, &base.platform)
            && from != to
        {
            let (from, to) = (from.clone(), to.clone());
            return Some(MissCause::Platform { from, to });
        }
        (old.digest != base.digest).then(|| MissCause::BaseImage {
            image_ref: base.image_ref.clone(),
            from: Some(old.digest.clone()),
            to: base.digest.clone(),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use larder_oci::Digest;

    use super::*;

    fn step() -> StepParts {
        StepParts {
            stage: "stage-0".into(),
            ordinal: 2,
            name: "[2/3] RUN make".into(),
            instruction: "RUN make".into(),
            line: Some(4),
            platform: Some("linux/amd64".into()),
            fields: vec![("the command".into(), 1), ("the user".into(), 2)],
            env: vec![EnvPart {
                name: "A".into(),
                value: 1,
                is_arg: true,
                line: Some(2),
            }],
            sources: vec![],
            bases: vec![BasePart {
                image_ref: "python:3".into(),
                digest: Digest::sha256("a"),
                platform: None,
            }],
            contents: BTreeMap::new(),
            inputs: vec![],
            key: None,
        }
    }

    #[test]
    fn each_single_cause_is_named() {
        let check = |change: &dyn Fn(&mut StepParts), expected: &str| {
            let (before, mut now) = (step(), step());
            change(&mut now);
            assert_eq!(
                difference(&now, &before).map(|cause| cause.to_string()),
                Some(expected.to_owned())
            );
        };
        assert_eq!(difference(&step(), &step()), None);
        check(&|now| now.fields[0].1 = 9, "the command changed, line 4");
        check(
            &|now| now.fields.push(("the mount `/x`".into(), 1)),
            "the mount `/x` changed, line 4",
        );
        check(
            &|now| drop(now.fields.remove(0)),
            "the command changed, line 4",
        );
        check(&|now| now.env[0].value = 9, "`ARG A` changed, line 2");
        check(&|now| now.env.clear(), "`ARG A` changed");
        check(
            &|now| now.platform = Some("linux/arm64".into()),
            "the platform changed from linux/amd64 to linux/arm64",
        );
        let mut before = step();
        before.bases[0].platform = Some("linux/amd64".into());
        let mut now = before.clone();
        now.bases[0].platform = Some("linux/arm64".into());
        assert_eq!(
            difference(&now, &before).map(|cause| cause.to_string()),
            Some("the platform changed from linux/amd64 to linux/arm64".to_owned())
        );
        check(
            &|now| now.bases[0].digest = Digest::sha256("b"),
            "base image `python:3` changed from ca978112ca1b to 3e23e8160039",
        );
    }

    #[test]
    fn what_was_fetched_is_told_by_what_told_so() {
        let source = |etag, content| {
            SourcePart::new(
                "https://x.test/f",
                [("ETag", etag), ("the content", content)],
            )
        };
        let old = [source("1", "a")];
        for (now, expected) in [
            (source("1", "a"), None),
            (source("2", "a"), None),
            (source("2", "b"), Some("`https://x.test/f` changed (ETag)")),
            (
                source("1", "b"),
                Some("`https://x.test/f` changed (the content)"),
            ),
        ] {
            let cause = source_difference(&[now], &old);
            assert_eq!(cause.map(|cause| cause.to_string()).as_deref(), expected);
        }
    }
}
