use crate::Run;

/// A step of a build, as plain progress told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// As shown, `[stage-0 2/3] RUN make`.
    pub name: String,
    /// What was said of it, line by line, without its number.
    pub lines: Vec<String>,
}

impl Step {
    /// Returns the instruction; `None` for a step of larder's own.
    pub fn instruction(&self) -> Option<&str> {
        let (place, instruction) = self.name.strip_prefix('[')?.split_once("] ")?;
        (place != "internal").then_some(instruction)
    }

    /// Returns whether its result was found and not made.
    pub fn is_cached(&self) -> bool {
        self.lines.iter().any(|line| line == "CACHED")
    }

    /// Returns why it was not cached; `None` where that was not told.
    pub fn cause(&self) -> Option<&str> {
        let mut lines = self.lines.iter();
        lines.find_map(|line| line.strip_prefix("not cached: "))
    }

    /// Returns the lines that its process wrote.
    pub fn output(&self) -> Vec<&str> {
        let written = |line: &'_ String| {
            let (seconds, _) = line.split_once(' ')?;
            let is_time = seconds.contains('.') && seconds.parse::<f64>().is_ok();
            is_time.then_some(seconds.len() + 1)
        };
        let lines = self.lines.iter();
        lines
            .filter_map(|line| Some(&line[written(line)?..]))
            .collect()
    }
}

impl Run {
    /// Returns the steps of the build and larder's own (`[internal] …`), in the order of their
    /// numbers, by the plain progress on standard error.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for line in self.stderr.lines() {
            let Some((number, text)) = line.strip_prefix('#').and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            match number.parse::<usize>() {
                Ok(number) if number == steps.len() + 1 => steps.push(Step {
                    name: text.to_owned(),
                    lines: Vec::new(),
                }),
                Ok(number) if (1..=steps.len()).contains(&number) => {
                    let step = &mut steps[number - 1];
                    // A block that is shown again begins with the name again.
                    if text != step.name && text != "..." {
                        step.lines.push(text.to_owned());
                    }
                }
                _ => {}
            }
        }
        steps
    }

    /// Returns the digest of the image that was made. Panics if none was.
    #[track_caller]
    pub fn manifest_digest(&self) -> String {
        let export = self.step("exporting to image");
        let mut lines = export.lines.iter();
        let line = lines.find_map(|line| line.strip_prefix("exporting manifest "));
        let digest = line.and_then(|line| line.split(' ').next());
        digest.expect("a manifest was made").to_owned()
    }

    /// Returns the only step with `text` in its name. Panics, showing all that was said, unless
    /// there is one.
    #[track_caller]
    pub fn step(&self, text: &str) -> Step {
        let mut found = self.steps();
        found.retain(|step| step.name.contains(text));
        assert!(
            found.len() == 1,
            "expected one step with `{text}` in its name, got {}:\n{}",
            found.len(),
            self.stderr
        );
        found.remove(0)
    }

    /// Returns the instructions of the Dockerfile that were not cached, in the order of the steps.
    pub fn ran(&self) -> Vec<String> {
        let steps = self.steps().into_iter();
        let ran = steps.filter(|step| !step.is_cached());
        ran.filter_map(|step| Some(step.instruction()?.to_owned()))
            .collect()
    }

    /// Returns the instructions that were not cached for a cause that was told, with the cause,
    /// see [`without_place`].
    pub fn misses(&self) -> Vec<(String, String)> {
        let steps = self.steps().into_iter();
        let miss = |step: Step| {
            let cause = without_place(step.cause()?);
            Some((step.instruction()?.to_owned(), cause.to_owned()))
        };
        steps.filter_map(miss).collect()
    }
}

/// Returns a step's name without the stage and the numbers in front: `RUN make` of
/// `[2/3] RUN make`; what does not begin with them as it is.
pub fn without_place(name: &str) -> &str {
    let after = name
        .strip_prefix('[')
        .and_then(|name| name.split_once("] "));
    after.map_or(name, |(_, after)| after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_progress_tells_the_steps() {
        let stderr = "#0 building\n\n#1 [internal] load .dockerignore\n#1 DONE 0.0s\n\n\
                      #2 [a 1/2] RUN one\n#2 not cached: `ARG A` changed, line 2\n#2 0.105 hi\n\
                      #2 ...\n\n#3 [a 2/2] RUN two\n#3 CACHED\n\n#2 [a 1/2] RUN one\n\
                      #2 0.2 there\n#2 DONE 0.2s\n";
        let run = Run {
            code: Some(0),
            stdout: Vec::new(),
            stderr: stderr.to_owned(),
            elapsed: std::time::Duration::ZERO,
        };
        assert_eq!(run.steps().len(), 3);
        let one = run.step("RUN one");
        assert_eq!(one.output(), ["hi", "there"]);
        assert!(!one.is_cached());
        assert!(run.step("RUN two").is_cached());
        let cause = "`ARG A` changed, line 2".to_owned();
        assert_eq!(run.ran(), ["RUN one"]);
        assert_eq!(run.misses(), [("RUN one".to_owned(), cause)]);
    }
}
