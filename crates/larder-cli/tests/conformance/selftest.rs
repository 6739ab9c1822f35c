//! The suite's own test: what is not as expected is found.

use std::path::Path;

use anyhow::{Result, ensure};

use super::case::Case;
use super::run::{self, Setup};

/// Nothing of what it expects is so, but for the last section.
const WRONG: &str = r#"
Everything is expected wrongly.
=== Dockerfile
FROM busybox
COPY --chmod=600 a.txt /b.txt
ENV A=1
RUN echo hi
=== context
a.txt 0600 "a\n"
=== tree
/b.txt "a\n"
=== tree /nothing
/nothing/at/all
=== layers
layer
b.txt 0600 "other\n"
=== config
Env = []
=== history
COPY a.txt /b.txt # buildkit
=== output
ho
=== steps
CACHED [3/3] RUN echo hi
=== warnings
Rule: none (line 1)
=== says
what is not said
=== build
=== error
none
=== build
=== digest other
=== digest same
"#;

/// Checks that every wrong expectation is told, and no right one.
pub(crate) fn wrong_cases_fail(setup: &Setup) -> Result<()> {
    let case = Case::parse(WRONG, "wrong", Path::new("wrong.case"))?;
    let expects = |name: &str| !["Dockerfile", "context", "build"].contains(&name);
    for (section, found) in case.sections.iter().zip(run::observed(setup, &case)?) {
        let is_wrong = expects(&section.name) && section.argument != "same";
        ensure!(
            found.is_some() == is_wrong,
            "=== {} {}: expected a difference: {is_wrong}, found: {:?}",
            section.name,
            section.argument,
            found.map(|found| found.actual)
        );
    }
    for wrong in [
        "Nothing is expected.\n=== Dockerfile\nFROM busybox\n",
        "There is no such section.\n=== nothing\n=== tree\n",
        "A build fails.\n=== Dockerfile\nFROM busybox\nRUN false\n=== tree\n",
    ] {
        let case = Case::parse(wrong, "wrong", Path::new("wrong.case"))?;
        ensure!(run::observed(setup, &case).is_err(), "{wrong}");
    }
    Ok(())
}
