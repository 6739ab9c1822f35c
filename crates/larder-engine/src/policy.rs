//! Where source policies act: on the sources of graphs, before anything is known by them. What
//! they do to images that frontends ask for is in `images::policed`.

use larder_dockerfile::Lowered;
use larder_llb::policy::{PolicyError, SourcePolicy};
use larder_llb::{Definition, GraphError, Rewritten, pb};
use larder_oci::Digest;

use crate::error::{BuildError, Result};

const LOCAL: &str = "local://";

/// What local sources are called in LLB, and what policies know them as: among several targets,
/// directories have names of their own.
pub(crate) type LocalNames = Vec<(String, String)>;

/// Returns a graph as `policy` has it; `None` if that is as it was.
///
/// # Errors
/// `Invalid`, with the vertex, for a source that is denied.
pub(crate) fn apply(
    policy: &SourcePolicy,
    definition: &Definition,
    locals: &LocalNames,
) -> Result<Option<Rewritten>> {
    if policy.is_empty() {
        return Ok(None);
    }
    let rewritten = definition.with_sources(|vertex, source| {
        let changed = evaluate(policy, source, locals);
        changed.map_err(|error| Failed(failed(&error).with_vertex(vertex.digest.clone())))
    });
    rewritten.map_err(|Failed(error)| error)
}

/// Makes what a Dockerfile became what `policy` has it be. Returns whether that is something else.
///
/// # Errors
/// As for [`apply`].
pub(crate) fn apply_to(
    policy: &SourcePolicy,
    lowered: &mut Lowered,
    locals: &LocalNames,
) -> Result<bool> {
    for (_, scanned) in &mut lowered.scanned {
        if let Some(rewritten) = apply(policy, scanned, locals)? {
            *scanned = rewritten.definition;
        }
    }
    let Some(rewritten) = apply(policy, &lowered.definition, locals)? else {
        return Ok(false);
    };
    lowered.definition = rewritten.definition;
    let renamed = |digest: Digest| rewritten.renamed.get(&digest).cloned().unwrap_or(digest);
    let steps = std::mem::take(&mut lowered.steps).into_iter();
    lowered.steps = steps
        .map(|(digest, step)| (renamed(digest), step))
        .collect();
    Ok(true)
}

/// Returns what `policy` makes of a source that is in no graph.
///
/// # Errors
/// `Invalid` if it is denied.
pub(crate) fn source(policy: &SourcePolicy, source: &pb::SourceOp) -> Result<pb::SourceOp> {
    let mut source = source.clone();
    let changed = policy.evaluate(&mut source);
    changed.map_err(|error| failed(&error))?;
    Ok(source)
}

/// Evaluates a source; one of the client's by each of the names that policies know it as.
fn evaluate(
    policy: &SourcePolicy,
    source: &mut pb::SourceOp,
    locals: &LocalNames,
) -> Result<bool, PolicyError> {
    let local = source.identifier.strip_prefix(LOCAL);
    let known = locals.iter().filter(|(own, _)| local == Some(own));
    let known: Vec<&String> = known.map(|(_, name)| name).collect();
    if known.is_empty() {
        return policy.evaluate(source);
    }
    let mut changed = None;
    for name in known {
        let mut told = source.clone();
        told.identifier = format!("{LOCAL}{name}");
        // The others are looked at, too: it must not be denied by any name.
        if policy.evaluate(&mut told)? {
            changed.get_or_insert(told);
        }
    }
    let Some(mut told) = changed else {
        return Ok(false);
    };
    let becomes = told.identifier.strip_prefix(LOCAL);
    if let Some((own, _)) = locals.iter().find(|(_, name)| becomes == Some(name)) {
        told.identifier = format!("{LOCAL}{own}");
    }
    *source = told;
    Ok(true)
}

fn failed(error: &PolicyError) -> BuildError {
    BuildError::invalid(format!("error evaluating the source policy: {error}"))
}

/// Why a graph could not be made.
struct Failed(BuildError);

impl From<GraphError> for Failed {
    fn from(error: GraphError) -> Self {
        let message = "the source policy makes a graph that can't be";
        Self(BuildError::invalid(message).with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_denied_by_any_of_its_names() {
        let rules = |of_second: &str| {
            let text = format!(
                r#"{{"rules":[
                    {{"action":"CONVERT","selector":{{"identifier":"local://first"}},
                      "updates":{{"attrs":{{"local.sharedkeyhint":"x"}}}}}},
                    {{"action":"{of_second}","selector":{{"identifier":"local://second"}}}}]}}"#
            );
            SourcePolicy::from_json(text.as_bytes(), "policy.json").unwrap()
        };
        let known = |name: &str| ("own".to_owned(), name.to_owned());
        let locals = vec![known("first"), known("second")];
        let source = pb::SourceOp {
            identifier: "local://own".to_owned(),
            ..pb::SourceOp::default()
        };
        let denied = evaluate(&rules("DENY"), &mut source.clone(), &locals);
        let identifier = "local://second".to_owned();
        assert_eq!(denied, Err(PolicyError::Denied { identifier }));
        let mut changed = source.clone();
        assert_eq!(evaluate(&rules("ALLOW"), &mut changed, &locals), Ok(true));
        assert_eq!(changed.identifier, source.identifier);
        assert_eq!(changed.attrs["local.sharedkeyhint"], "x");
    }
}
