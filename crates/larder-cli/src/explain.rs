//! Why steps were not cached, as `larder explain` tells it.

use std::fmt::Write;

use larder_engine::request::StepReport;
use serde_json::{Value, json};

/// Returns the steps that `wanted` names: one by its number, from 1, or those with it in their
/// name; all by default.
///
/// # Errors
/// If it names none.
pub(crate) fn select<'a>(
    steps: &'a [StepReport],
    wanted: Option<&str>,
) -> Result<Vec<(usize, &'a StepReport)>, String> {
    let numbered = steps
        .iter()
        .enumerate()
        .map(|(index, step)| (index + 1, step));
    let Some(wanted) = wanted else {
        return Ok(numbered.collect());
    };
    let number: Option<usize> = wanted.trim_start_matches('#').parse().ok();
    let selected: Vec<_> = numbered
        .filter(|(position, step)| match number {
            Some(number) => *position == number,
            None => step.name.contains(wanted),
        })
        .collect();
    if selected.is_empty() {
        return Err(format!(
            "the last build has no step `{wanted}` (it has {}; `larder explain` lists them)",
            steps.len()
        ));
    }
    Ok(selected)
}

/// Returns the steps for people to read.
pub(crate) fn text(steps: &[(usize, &StepReport)]) -> String {
    let mut text = String::new();
    for (number, step) in steps {
        let result = if step.cached {
            "CACHED".to_owned()
        } else {
            let failed = if step.failed { "ERROR " } else { "" };
            format!("{failed}{:.1}s", step.duration_ms as f64 / 1000.0)
        };
        writeln!(text, "#{number} {}\n   {result}", step.name).expect("a String takes all");
        let cause = step.cause.as_ref().map(ToString::to_string);
        if let Some(cause) = &cause {
            writeln!(text, "   not cached: {cause}").expect("a String takes all");
        }
        // A single difference is the cause itself.
        let details = step
            .details
            .iter()
            .filter(|detail| cause.as_ref() != Some(detail));
        for detail in details {
            writeln!(text, "     {detail}").expect("a String takes all");
        }
    }
    text
}

/// Returns the steps for programs to read: one JSON object a line.
pub(crate) fn json(steps: &[(usize, &StepReport)]) -> String {
    let line = |(number, step): &(usize, &StepReport)| {
        let why = step.cause.as_ref().map(ToString::to_string);
        let step: Value = json!({
            "number": number,
            "name": step.name,
            "cached": step.cached,
            "failed": step.failed,
            "cause": step.cause,
            "why": why,
            "details": step.details,
            "duration_ms": step.duration_ms,
        });
        format!("{step}\n")
    };
    steps.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use larder_engine::event::{FileChange, MissCause};

    use super::*;

    fn steps() -> [StepReport; 2] {
        let base = StepReport {
            name: "[1/2] FROM a".to_owned(),
            cached: true,
            failed: false,
            cause: None,
            duration_ms: 0,
            details: Vec::new(),
        };
        let copy = StepReport {
            name: "[2/2] COPY src .".to_owned(),
            cached: false,
            failed: false,
            cause: Some(MissCause::File {
                path: "src/app.py".into(),
                change: FileChange::Mode,
                others_count: 0,
            }),
            duration_ms: 1250,
            details: vec!["`src/app.py`: mode 644 is now 755".to_owned()],
        };
        [base, copy]
    }

    #[test]
    fn all_steps_are_told() {
        let steps = steps();
        let all = select(&steps, None).unwrap();
        assert_snapshot!(text(&all), @"
        #1 [1/2] FROM a
           CACHED
        #2 [2/2] COPY src .
           1.2s
           not cached: `src/app.py` changed its mode
             `src/app.py`: mode 644 is now 755
        ");
        assert_snapshot!(json(&all), @r#"
        {"number":1,"name":"[1/2] FROM a","cached":true,"failed":false,"cause":null,"why":null,"details":[],"duration_ms":0}
        {"number":2,"name":"[2/2] COPY src .","cached":false,"failed":false,"cause":{"kind":"file","path":"src/app.py","change":"mode","others_count":0},"why":"`src/app.py` changed its mode","details":["`src/app.py`: mode 644 is now 755"],"duration_ms":1250}
        "#);
    }

    #[test]
    fn one_step_is_named_by_number_or_text() {
        let steps = steps();
        for wanted in ["2", "#2", "COPY src"] {
            let selected = select(&steps, Some(wanted)).unwrap();
            assert_eq!(selected, [(2, &steps[1])], "{wanted}");
        }
        let error = select(&steps, Some("3")).unwrap_err();
        assert!(error.contains("no step `3` (it has 2;"), "{error}");
    }
}
