//! The platforms that a target is built for.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_dockerfile::{LowerOptions, NamedContext};
use larder_oci::{Digest, Platform};

use super::OnPlatform;
use crate::error::{BuildError, Result};
use crate::request::BuildRequest;

/// The build argument that makes an index of an image for one platform, too.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// Returns the options of a target for each platform it is built for, with what it reads of other
/// targets on that platform.
///
/// # Errors
/// When the argument for an index contradicts the platforms, and when another target is not built
/// for one of them.
pub(super) fn on_each(
    request: &BuildRequest,
    options: &LowerOptions,
    inputs: &BTreeMap<String, Vec<OnPlatform>>,
) -> Result<Vec<LowerOptions>> {
    let multi_platform = is_multi_platform(request)?;
    let mut asked: Vec<Option<&Platform>> = Vec::new();
    for platform in &request.platforms {
        if !asked.contains(&Some(platform)) {
            asked.push(Some(platform));
        }
    }
    if asked.is_empty() {
        asked.push(None);
    }
    let on = |platform: Option<&Platform>| {
        let mut options = LowerOptions {
            platform: platform.cloned(),
            multi_platform,
            ..options.clone()
        };
        let wanted = options.target_platform().clone();
        for (name, builds) in inputs {
            check_input(name, builds, &wanted)?;
            for build in builds {
                let name = match builds.len() {
                    // What is built for a single platform is the same for all.
                    1 => name.clone(),
                    _ => format!("{name}::{}", build.platform),
                };
                let input = NamedContext::Input(Arc::clone(&build.lowered));
                options.named_contexts.insert(name, input);
            }
        }
        Ok(options)
    };
    asked.into_iter().map(on).collect()
}

/// Checks that another target is built for a platform, if it is for several.
fn check_input(name: &str, builds: &[OnPlatform], wanted: &Platform) -> Result<()> {
    if builds.len() == 1 || builds.iter().any(|build| build.platform == *wanted) {
        return Ok(());
    }
    let known: Vec<String> = builds.iter().map(|it| it.platform.to_string()).collect();
    Err(BuildError::invalid(format!(
        "build context `{name}` is a target that is built for {}, not for {wanted}",
        known.join(", ")
    )))
}

fn is_multi_platform(request: &BuildRequest) -> Result<bool> {
    let has_several = request.platforms.windows(2).any(|pair| pair[0] != pair[1]);
    let mut arguments = request.build_args.iter().rev();
    let given = arguments.find(|(name, value)| name == MULTI_PLATFORM && !value.is_empty());
    let Some((_, value)) = given else {
        return Ok(has_several);
    };
    match value.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" if has_several => Err(BuildError::invalid(
            "conflicting config: returning multiple target platforms is not allowed",
        )),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(BuildError::invalid(format!(
            "invalid boolean value for multi-platform: {other}"
        ))),
    }
}

/// Returns under which name the history of a target on a platform is kept, and under which another
/// platform's is: what differs from that tells why the first build for a platform finds nothing.
pub(super) fn scopes(scope: &str, asked: Option<&Platform>) -> (String, Option<String>) {
    match asked {
        Some(platform) if !platform.satisfies(&Platform::host()) => {
            let own = Digest::sha256(format!("{scope}\0{platform}"));
            (own.hex().to_owned(), Some(scope.to_owned()))
        }
        _ => (scope.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ContextSource;

    fn request(platforms: &[&str], argument: Option<&str>) -> BuildRequest {
        let platforms = platforms.iter().map(|text| text.parse().unwrap());
        let argument = argument.map(|value| (MULTI_PLATFORM.to_owned(), value.to_owned()));
        BuildRequest {
            platforms: platforms.collect(),
            build_args: argument.into_iter().collect(),
            ..BuildRequest::new(ContextSource::Empty)
        }
    }

    #[test]
    fn several_platforms_or_an_argument_make_an_index() {
        type Case<'a> = (
            &'a [&'a str],
            Option<&'a str>,
            Result<(usize, bool), &'a str>,
        );
        let both = ["linux/amd64", "linux/arm64"];
        let cases: [Case<'_>; 8] = [
            (&[], None, Ok((1, false))),
            (&[], Some("1"), Ok((1, true))),
            (&both[..1], None, Ok((1, false))),
            (&[both[0], both[0]], None, Ok((1, false))),
            (&both, None, Ok((2, true))),
            (&both[..1], Some("true"), Ok((1, true))),
            (&both, Some("0"), Err("returning multiple target platforms")),
            (&[], Some("x"), Err("invalid boolean value")),
        ];
        for (platforms, argument, expected) in cases {
            let request = request(platforms, argument);
            let options = on_each(&request, &LowerOptions::default(), &BTreeMap::new());
            match (options, expected) {
                (Ok(options), Ok(expected)) => {
                    assert_eq!((options.len(), options[0].multi_platform), expected);
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (found, expected) => panic!("{platforms:?}: {} {expected:?}", found.is_ok()),
            }
        }
    }
}
