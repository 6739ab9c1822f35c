//! `--call`: what is done with a build's input in place of building.

use larder_engine::Question;

/// The value of `--call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallArg {
    /// What is done.
    pub(crate) method: Method,
    /// Whether the answer is JSON.
    pub(crate) json: bool,
    /// Whether the command succeeds whatever the answer is.
    pub(crate) ignore_status: bool,
}

/// What `--call` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// The build itself.
    Build,
    /// The build checks.
    Check,
    /// A question about the build's input.
    Ask(Question),
    /// The graph that would be built.
    Llb,
}

impl Method {
    /// What can be called, for messages.
    const NAMES: &str = "build, check, outline, targets, subrequests.describe or llb";

    /// Reads a method as `--call` names it; `None` if there is no such method.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "build" => Self::Build,
            "check" | "lint" => Self::Check,
            "outline" => Self::Ask(Question::Outline),
            "targets" => Self::Ask(Question::Targets),
            "subrequests.describe" => Self::Ask(Question::Describe),
            "llb" => Self::Llb,
            _ => return None,
        })
    }

    /// Returns its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Check => "check",
            Self::Ask(Question::Outline) => "outline",
            Self::Ask(Question::Targets) => "targets",
            Self::Ask(Question::Describe) => "subrequests.describe",
            Self::Llb => "llb",
        }
    }
}

impl CallArg {
    /// What `--check` stands for.
    pub(crate) const CHECK: Self = Self {
        method: Method::Check,
        json: false,
        ignore_status: false,
    };
}

/// Reads `METHOD[,format=json|text][,ignorestatus=BOOL]`; a graph has no text, but is `proto`.
pub(crate) fn parse(text: &str) -> Result<CallArg, String> {
    let mut method = None;
    let (mut json, mut ignore_status) = (false, false);
    for field in text.split(',') {
        match field.split_once('=') {
            None if method.is_none() => method = Some(self::method(field)?),
            None => return Err(format!("`{field}` is one method too many")),
            Some(("format", "json")) => json = true,
            Some(("format", "proto")) if method == Some(Method::Llb) => json = false,
            Some(("format", "text")) if method == Some(Method::Llb) => {
                return Err("`text` is no format of llb (expected json or proto)".to_owned());
            }
            Some(("format", "text" | "")) => json = false,
            Some(("format", format)) => {
                return Err(format!("`{format}` is no format (expected json or text)"));
            }
            Some(("ignorestatus", "true" | "1")) => ignore_status = true,
            Some(("ignorestatus", "false" | "0")) => ignore_status = false,
            Some(("ignorestatus", value)) => {
                return Err(format!("`ignorestatus={value}` is neither true nor false"));
            }
            Some((key, _)) => return Err(format!("invalid print field: {key}")),
        }
    }
    let missing = || format!("a method is missing (expected {})", Method::NAMES);
    let method = method.ok_or_else(missing)?;
    Ok(CallArg {
        method,
        json,
        ignore_status,
    })
}

fn method(name: &str) -> Result<Method, String> {
    let unknown = || format!("`{name}` is no method (expected {})", Method::NAMES);
    Method::parse(name).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_methods_with_options() {
        for (text, expected) in [
            ("check", Ok(CallArg::CHECK)),
            ("lint", Ok(CallArg::CHECK)),
            (
                "check,format=json,ignorestatus=true",
                Ok(CallArg {
                    json: true,
                    ignore_status: true,
                    ..CallArg::CHECK
                }),
            ),
            (
                "build",
                Ok(CallArg {
                    method: Method::Build,
                    ..CallArg::CHECK
                }),
            ),
            (
                "outline,format=json",
                Ok(CallArg {
                    method: Method::Ask(Question::Outline),
                    json: true,
                    ..CallArg::CHECK
                }),
            ),
            (
                "",
                Err(
                    "`` is no method (expected build, check, outline, targets, subrequests.describe or llb)",
                ),
            ),
            (
                "check,format=yaml",
                Err("`yaml` is no format (expected json or text)"),
            ),
            ("check,lint", Err("`lint` is one method too many")),
            (
                "llb,format=json",
                Ok(CallArg {
                    method: Method::Llb,
                    json: true,
                    ignore_status: false,
                }),
            ),
            (
                "llb,format=proto",
                Ok(CallArg {
                    method: Method::Llb,
                    json: false,
                    ignore_status: false,
                }),
            ),
            (
                "llb,format=text",
                Err("`text` is no format of llb (expected json or proto)"),
            ),
            (
                "format=json",
                Err(
                    "a method is missing (expected build, check, outline, targets, subrequests.describe or llb)",
                ),
            ),
            ("check,colour=no", Err("invalid print field: colour")),
        ] {
            assert_eq!(parse(text), expected.map_err(str::to_owned), "{text}");
        }
    }
}
