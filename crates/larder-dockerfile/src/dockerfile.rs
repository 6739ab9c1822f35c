use crate::directive;
use crate::error::{Error, ErrorKind};
use crate::instruction::{From, Instruction, InstructionKind};
use crate::lint::{self, Finding};
use crate::parse::{self, Parsed};
use crate::statement::{self, Statement};

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    pub(crate) filename: String,
    pub(crate) text: Vec<u8>,
    pub(crate) escape: char,
    pub(crate) syntax: Option<String>,
    /// The value of the `check` directive.
    pub(crate) check: Option<String>,
    /// The ARGs before the first FROM.
    pub(crate) global_args: Vec<Instruction>,
    pub(crate) stages: Vec<Stage>,
    /// What the text alone shows.
    pub(crate) findings: Vec<Finding>,
}

/// FROM and what follows it.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) from: From,
    pub(crate) instructions: Vec<Instruction>,
}

impl Dockerfile {
    /// Parses a Dockerfile. `filename` is for messages and the build record.
    ///
    /// # Errors
    /// [`ErrorKind::Dockerfile`] with the lines, when the text is wrong;
    /// [`ErrorKind::Unsupported`] when it is written for a frontend other than Docker's.
    pub fn parse(text: &[u8], filename: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::dockerfile("the Dockerfile cannot be empty"));
        }
        let syntax = directive::detect_syntax(&String::from_utf8_lossy(text));
        Self::parse_as(text, filename, syntax.clone()).map_err(|error| match &syntax {
            // Another frontend's language need not look like ours at all.
            Some(syntax) if !directive::is_builtin(syntax) => unavailable_frontend(syntax),
            _ => error,
        })
    }

    fn parse_as(text: &[u8], filename: &str, syntax: Option<String>) -> Result<Self, Error> {
        let (statements, directives) = statement::read(text).map_err(parse_error)?;
        if statements.is_empty() {
            return Err(Error::dockerfile("file with no instructions"));
        }
        let mut dockerfile = Self {
            filename: filename.to_owned(),
            text: text.to_vec(),
            escape: directives.escape(),
            syntax,
            check: directives.get("check").map(str::to_owned),
            global_args: Vec::new(),
            stages: Vec::new(),
            findings: Vec::new(),
        };
        for statement in &statements {
            dockerfile.add(statement).map_err(parse_error)?;
        }
        if dockerfile.stages.is_empty() {
            return Err(Error::dockerfile("dockerfile contains no stages to build"));
        }
        Ok(dockerfile)
    }

    fn add(&mut self, statement: &Statement) -> Result<(), Error> {
        self.findings.extend(lint::check_statement(statement));
        match parse::parse(statement, self.escape)? {
            Parsed::From(from) => self.stages.push(Stage {
                from,
                instructions: Vec::new(),
            }),
            Parsed::Instruction(instruction) => match self.stages.last_mut() {
                Some(stage) => stage.instructions.push(instruction),
                None if matches!(instruction.kind, InstructionKind::Arg(_)) => {
                    self.global_args.push(instruction);
                }
                None => {
                    let message = "no build stage in current context";
                    return Err(Error::dockerfile(message).at(statement.lines));
                }
            },
        }
        Ok(())
    }

    /// Returns the frontend that the `syntax` directive names.
    pub fn syntax_directive(&self) -> Option<&str> {
        self.syntax.as_deref()
    }
}

fn parse_error(error: Error) -> Error {
    match error.ranges().first() {
        Some(range) if error.kind() == ErrorKind::Dockerfile => {
            let line = range.start;
            error.map_message(|text| format!("dockerfile parse error on line {line}: {text}"))
        }
        _ => error,
    }
}

/// The error for a `syntax` that larder does not speak.
pub(crate) fn unavailable_frontend(syntax: &str) -> Error {
    Error::unsupported(format!(
        "frontend image `{syntax}` is not available: larder builds Dockerfiles with its own frontend, \
         which stands in for `docker/dockerfile`"
    ))
}
