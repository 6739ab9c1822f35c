//! Arguments that are known before the first FROM.

use std::collections::BTreeMap;

use super::super::asked::{Args, DeclaredArg};
use super::super::env::{Env, EnvOrigin};
use crate::dockerfile::Dockerfile;
use crate::error::Error;
use crate::expand::Expander;
use crate::instruction::InstructionKind;
use crate::options::LowerOptions;

/// Returns the platform arguments and those before the first FROM, with the build's values; and the
/// latter once more, with what is said of them.
pub(in super::super) fn global_args(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
) -> Result<(Env, Args), Error> {
    declare(
        dockerfile,
        platform_args(dockerfile, options),
        &options.build_args,
    )
}

/// Returns the same arguments as if the build had given none.
pub(super) fn default_args(dockerfile: &Dockerfile, options: &LowerOptions) -> Result<Env, Error> {
    let platforms = platform_args(dockerfile, options);
    Ok(declare(dockerfile, platforms, &BTreeMap::new())?.0)
}

/// Returns the names of the arguments before the first FROM, with and without values.
pub(super) fn declared(dockerfile: &Dockerfile) -> impl Iterator<Item = &str> {
    let instructions = dockerfile.global_args.iter();
    let pairs = instructions.flat_map(|instruction| match &instruction.kind {
        InstructionKind::Arg(pairs) => &pairs[..],
        _ => &[],
    });
    pairs.map(|pair| pair.name.as_str())
}

fn platform_args(dockerfile: &Dockerfile, options: &LowerOptions) -> Env {
    let mut env = Env::default();
    let last = dockerfile
        .stages
        .last()
        .and_then(|s| s.from.name.as_deref());
    let stage = options.target.as_deref().filter(|name| !name.is_empty());
    let target_stage = stage.or(last).unwrap_or("default").to_owned();
    for (prefix, platform) in [
        ("BUILD", &options.build_platform),
        ("TARGET", options.target_platform()),
    ] {
        for (suffix, value) in [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", platform.os_version.clone()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone()),
        ] {
            set_global(&mut env, options, &format!("{prefix}{suffix}"), &value);
        }
    }
    set_global(&mut env, options, "TARGETSTAGE", &target_stage);
    env
}

fn declare(
    dockerfile: &Dockerfile,
    mut env: Env,
    build_args: &BTreeMap<String, String>,
) -> Result<(Env, Args), Error> {
    let mut args = Args::new();
    let expander = Expander::new(dockerfile.escape);
    for instruction in &dockerfile.global_args {
        let InstructionKind::Arg(pairs) = &instruction.kind else {
            continue;
        };
        for pair in pairs {
            let line = instruction.lines.start;
            let mut arg = DeclaredArg {
                description: pair.description.clone(),
                lines: instruction.lines,
                ..DeclaredArg::default()
            };
            if let Some(value) = build_args.get(&pair.name) {
                env.set(&pair.name, value, EnvOrigin::Arg { line, given: true });
                arg.value.clone_from(value);
            } else if let Some(default) = &pair.default {
                let value = expander
                    .expand(default, &env)
                    .map_err(|message| Error::dockerfile(message).at(instruction.lines))?;
                env.set(
                    &pair.name,
                    &value.text,
                    EnvOrigin::Arg { line, given: false },
                );
                arg.value = value.text;
                arg.parts = value.matched;
            }
            args.insert(pair.name.clone(), arg);
        }
    }
    Ok((env, args))
}

fn set_global(env: &mut Env, options: &LowerOptions, name: &str, default: &str) {
    let value = options.build_args.get(name).map_or(default, String::as_str);
    env.set(name, value, EnvOrigin::Base);
}
