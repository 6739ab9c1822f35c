//! `--call`: what is done with a build's input in place of building.

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
}

impl CallArg {
    /// What `--check` stands for.
    pub(crate) const CHECK: Self = Self {
        method: Method::Check,
        json: false,
        ignore_status: false,
    };
}

/// Reads `METHOD[,format=json|text][,ignorestatus=BOOL]`.
pub(crate) fn parse(text: &str) -> Result<CallArg, String> {
    let mut method = None;
    let (mut json, mut ignore_status) = (false, false);
    for field in text.split(',') {
        match field.split_once('=') {
            None if method.is_none() => method = Some(self::method(field)?),
            None => return Err(format!("`{field}` is one method too many")),
            Some(("format", "json")) => json = true,
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
    let method = method.ok_or("a method is missing (expected build or check)")?;
    Ok(CallArg {
        method,
        json,
        ignore_status,
    })
}

fn method(name: &str) -> Result<Method, String> {
    match name {
        "build" => Ok(Method::Build),
        "check" | "lint" => Ok(Method::Check),
        "outline" | "targets" | "subrequests.describe" => {
            Err(format!("`{name}` is not supported yet"))
        }
        _ => Err(format!("`{name}` is no method (expected build or check)")),
    }
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
            ("outline", Err("`outline` is not supported yet")),
            ("", Err("`` is no method (expected build or check)")),
            (
                "check,format=yaml",
                Err("`yaml` is no format (expected json or text)"),
            ),
            ("check,lint", Err("`lint` is one method too many")),
            (
                "format=json",
                Err("a method is missing (expected build or check)"),
            ),
            ("check,colour=no", Err("invalid print field: colour")),
        ] {
            assert_eq!(parse(text), expected.map_err(str::to_owned), "{text}");
        }
    }
}
