//! What the command exits with.

use std::process::ExitCode;

use larder_engine::{BuildError, ErrorClass};

/// The command did what it was asked for.
pub(crate) const SUCCESS: u8 = 0;
/// It could not: bad input, a failed step, something missing, or a check that found something.
pub(crate) const FAILURE: u8 = 1;
/// Larder itself is wrong; BuildKit's code for gRPC's `Internal`.
pub(crate) const INTERNAL: u8 = 100;
/// A disk or a limit is exhausted; BuildKit's code for gRPC's `ResourceExhausted`.
pub(crate) const EXHAUSTED: u8 = 102;
/// `larder run` could not run the command: Docker's code for its own failures.
pub(crate) const NOT_RUN: u8 = 125;
/// The command of `larder run` can't be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The command of `larder run` is not there.
pub(crate) const NO_COMMAND: u8 = 127;
/// The user canceled it: 128 and the number of SIGINT, as shells have it.
pub(crate) const CANCELED: u8 = 130;

/// A command's own exit code, where it is none of larder's: that of the process it ran.
pub(crate) type Code = u8;

/// Returns the exit code for an error.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    let class = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<BuildError>())
        .map(BuildError::class);
    ExitCode::from(class.map_or(FAILURE, code_of_class))
}

/// Returns the exit code of `larder run` where it is not the command's own.
pub(crate) fn code_of_run(error: &anyhow::Error) -> Code {
    let class = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<BuildError>())
        .map(BuildError::class);
    match class {
        Some(ErrorClass::Step) => {
            let text = format!("{error:#}");
            let is_missing = text.contains("executable file not found")
                || text.ends_with("no such file or directory");
            if is_missing {
                NO_COMMAND
            } else {
                NOT_EXECUTABLE
            }
        }
        Some(ErrorClass::Canceled) => CANCELED,
        _ => NOT_RUN,
    }
}

fn code_of_class(class: ErrorClass) -> Code {
    match class {
        ErrorClass::Invalid
        | ErrorClass::Step
        | ErrorClass::NotFound
        | ErrorClass::Denied
        | ErrorClass::Unavailable => FAILURE,
        ErrorClass::Internal => INTERNAL,
        ErrorClass::Exhausted => EXHAUSTED,
        ErrorClass::Canceled => CANCELED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_was_not_run_has_docker_s_codes() {
        for (class, message, expected) in [
            (
                ErrorClass::Step,
                "exec: \"x\": executable file not found in $PATH",
                127,
            ),
            (
                ErrorClass::Step,
                "exec: \"/x\": stat /x: no such file or directory",
                127,
            ),
            (ErrorClass::Step, "exec: \"/x\": permission denied", 126),
            (ErrorClass::NotFound, "no such image: `x`", 125),
            (ErrorClass::Internal, "x", 125),
            (ErrorClass::Canceled, "x", 130),
        ] {
            let error = anyhow::Error::new(BuildError::new(class, message));
            assert_eq!(code_of_run(&error), expected, "{message}");
        }
        assert_eq!(code_of_run(&anyhow::anyhow!("x")), 125);
    }

    #[test]
    fn each_class_has_its_code() {
        for (class, expected) in [
            (ErrorClass::Invalid, 1),
            (ErrorClass::Step, 1),
            (ErrorClass::Exhausted, 102),
            (ErrorClass::Internal, 100),
            (ErrorClass::Canceled, 130),
        ] {
            let error = anyhow::Error::new(BuildError::new(class, "x")).context("failed to build");
            assert_eq!(code(&error), ExitCode::from(expected), "{class:?}");
        }
        assert_eq!(code(&anyhow::anyhow!("x")), ExitCode::from(1));
    }
}
