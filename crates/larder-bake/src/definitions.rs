//! All that files define, and what their names come to: each when it is first asked for.

mod blocks;
mod variable;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::error::{Error, suggestion};
use crate::eval::{Budget, Scope, evaluate};
use crate::functions;
use crate::source::Span;
use crate::syntax::{Attribute, BLOCK_TYPES, Block, Body, Expr, ExprKind};
use crate::target::KEYS;
use crate::value::Value;

pub(crate) use blocks::Instance;
use variable::VariableBlock;

/// What files can see of the world.
#[derive(Debug, Clone)]
pub struct Options {
    /// Values that variables are set to, from `--var`.
    pub variables: BTreeMap<String, String>,
    /// Values that variables are set to unless `variables` sets them. Empty if the environment is
    /// not to be looked at.
    pub environment: BTreeMap<String, String>,
    /// The value of `BAKE_LOCAL_PLATFORM`, such as `linux/amd64`.
    pub local_platform: String,
    /// The time of the evaluation.
    pub now: Timestamp,
    /// Makes random bytes for `uuidv4`.
    pub random: fn() -> [u8; 16],
    /// The build argument `SOURCE_DATE_EPOCH` of targets that set none.
    pub source_date_epoch: Option<String>,
    /// Whether contexts are relative to the file that names them, not to the working directory.
    pub is_relative_to_files: bool,
    /// Whether files are from elsewhere: then paths of this machine keep the `cwd://` before them.
    pub is_remote: bool,
    /// The value of `BAKE_CMD_CONTEXT`.
    pub command_context: String,
}

impl Options {
    /// Returns options under which files see an empty environment.
    pub fn new(
        local_platform: impl Into<String>,
        now: Timestamp,
        random: fn() -> [u8; 16],
    ) -> Self {
        Self {
            variables: BTreeMap::new(),
            environment: BTreeMap::new(),
            local_platform: local_platform.into(),
            now,
            random,
            source_date_epoch: None,
            is_relative_to_files: false,
            is_remote: false,
            command_context: COMMAND_CONTEXT.to_owned(),
        }
    }
}

/// The main context of a build whose bake file is local.
const COMMAND_CONTEXT: &str = "cwd://";

/// A function that a file defines.
#[derive(Debug)]
struct UserFunction {
    params: Vec<String>,
    variadic: Option<String>,
    result: Expr,
}

/// The value of a name, or the mark that it is being evaluated.
#[derive(Debug)]
enum Slot {
    InProgress,
    Done(Value),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Definitions {
    options: Options,
    builtins: BTreeMap<&'static str, String>,
    variables: BTreeMap<String, VariableBlock>,
    attributes: BTreeMap<String, Attribute>,
    functions: BTreeMap<String, UserFunction>,
    groups: Vec<Block>,
    targets: Vec<Block>,
    /// What was found and means nothing.
    pub(crate) warnings: Vec<String>,
    pub(crate) budget: Budget,
    values: RefCell<BTreeMap<String, Slot>>,
    /// User functions that are being called.
    calls: RefCell<Vec<String>>,
    instances: OnceCell<Vec<Instance>>,
    /// Values of attributes of targets, by instance and key.
    target_values: RefCell<BTreeMap<(usize, String), Slot>>,
}

impl Definitions {
    /// Joins the files: the last definition of a name counts; targets are merged later.
    pub(crate) fn new(bodies: Vec<Body>, options: Options) -> Result<Self, Error> {
        let builtins = BTreeMap::from([
            ("BAKE_CMD_CONTEXT", options.command_context.clone()),
            ("BAKE_LOCAL_PLATFORM", options.local_platform.clone()),
        ]);
        let mut definitions = Self {
            options,
            builtins,
            variables: BTreeMap::new(),
            attributes: BTreeMap::new(),
            functions: BTreeMap::new(),
            groups: Vec::new(),
            targets: Vec::new(),
            warnings: Vec::new(),
            budget: Budget::default(),
            values: RefCell::default(),
            calls: RefCell::default(),
            instances: OnceCell::new(),
            target_values: RefCell::default(),
        };
        for body in bodies {
            definitions.add(body)?;
        }
        Ok(definitions)
    }

    fn add(&mut self, body: Body) -> Result<(), Error> {
        for attribute in body.attributes {
            if !self.is_reserved(&attribute.key) {
                self.attributes.insert(attribute.key.clone(), attribute);
            }
        }
        for mut block in body.blocks {
            self.drop_unknown(&mut block);
            let [name] = block.labels.as_slice() else {
                if BLOCK_TYPES.contains(&block.kind.as_str()) {
                    let message = format!("`{}` must be followed by one name", block.kind);
                    return Err(Error::definition(message).at(block.span));
                }
                self.warn_of(&block);
                continue;
            };
            let name = name.clone();
            match block.kind.as_str() {
                "variable" if self.is_reserved(&name) => {}
                "variable" => {
                    let variable =
                        VariableBlock::new(block).map_err(|error| error.in_key(&name))?;
                    self.variables.insert(name, variable);
                }
                "function" => {
                    let function = UserFunction::new(block).map_err(|error| error.in_key(&name))?;
                    self.functions.insert(name, function);
                }
                "group" => self.groups.push(block),
                "target" => self.targets.push(block),
                _ => self.warn_of(&block),
            }
        }
        Ok(())
    }

    fn warn_of(&mut self, block: &Block) {
        let known = suggestion(&block.kind, BLOCK_TYPES);
        self.warnings.push(format!(
            "blocks of the type `{}` mean nothing{known}",
            block.kind
        ));
    }

    /// Takes away the attributes of targets and groups that there are not, as buildx does, and
    /// warns of them.
    fn drop_unknown(&mut self, block: &mut Block) {
        let known: Vec<&str> = match block.kind.as_str() {
            "target" => KEYS
                .into_iter()
                .chain(["inherits", "matrix", "name"])
                .collect(),
            // Those that only targets have are refused later.
            "group" => vec!["description", "targets", "name", "matrix"],
            _ => return,
        };
        let attributes = std::mem::take(&mut block.body.attributes);
        for attribute in attributes {
            if known.contains(&attribute.key.as_str()) {
                block.body.attributes.push(attribute);
                continue;
            }
            let meant = suggestion(&attribute.key, known.iter().copied());
            self.warnings.push(format!(
                "`{}.{}`: the attribute `{}` means nothing{meant}",
                block.kind,
                block.labels.join("."),
                attribute.key,
            ));
        }
    }

    fn is_reserved(&self, name: &str) -> bool {
        matches!(name, "group" | "target") || self.builtins.contains_key(name)
    }

    /// Returns the value that `--var` or the environment sets a name to.
    pub(crate) fn override_of(&self, name: &str) -> Option<&str> {
        let given = self.options.variables.get(name);
        given
            .or_else(|| self.options.environment.get(name))
            .map(String::as_str)
    }

    pub(crate) fn environment(&self, name: &str) -> Option<&str> {
        self.options.environment.get(name).map(String::as_str)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.options.now
    }

    pub(crate) fn random(&self) -> [u8; 16] {
        (self.options.random)()
    }

    pub(crate) fn function_names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }

    /// Returns what a name comes to.
    ///
    /// # Errors
    /// If there is no such name, or it depends on itself.
    pub(crate) fn value(&self, name: &str) -> Result<Value, Error> {
        if let Some(builtin) = self.builtins.get(name) {
            return Ok(Value::text(builtin));
        }
        if matches!(name, "group" | "target") {
            let message = format!("`{name}` must be followed by the name of a {name}");
            return Err(Error::definition(message));
        }
        match self.values.borrow().get(name) {
            Some(Slot::Done(value)) => return Ok(value.clone()),
            Some(Slot::InProgress) => {
                return Err(Error::definition(format!(
                    "variable cycle not allowed for `{name}`"
                )));
            }
            None => {}
        }
        self.values
            .borrow_mut()
            .insert(name.to_owned(), Slot::InProgress);
        let value = self.compute(name);
        let mut values = self.values.borrow_mut();
        match &value {
            Ok(value) => drop(values.insert(name.to_owned(), Slot::Done(value.clone()))),
            // `try` may go on, and ask again.
            Err(_) => drop(values.remove(name)),
        }
        value
    }

    fn compute(&self, name: &str) -> Result<Value, Error> {
        let scope = Scope::new(self, Vec::new());
        let attribute = self.attributes.get(name).map(|attribute| &attribute.value);
        if let Some(variable) = self.variables.get(name) {
            return variable.value(name, attribute, &scope);
        }
        if let Some(expr) = attribute {
            return evaluate(expr, &scope);
        }
        let names = self.variables.keys().chain(self.attributes.keys());
        let names = names
            .map(String::as_str)
            .chain(self.builtins.keys().copied());
        let known = suggestion(name, names);
        Err(Error::definition(format!(
            "there is no variable named `{name}`{known}"
        )))
    }

    /// Whether blocks of this kind can be referred to.
    pub(crate) fn has_blocks(kind: &str) -> bool {
        matches!(kind, "group" | "target")
    }

    pub(crate) fn has_variable(&self, name: &str) -> bool {
        self.variables.contains_key(name) || self.builtins.contains_key(name)
    }

    /// Calls a function that a file defines; `None` if none does. The standard library's names
    /// can't be taken.
    pub(crate) fn call(&self, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
        let Some(function) = self
            .functions
            .get(name)
            .filter(|_| !functions::is_known(name))
        else {
            return Ok(None);
        };
        if self.calls.borrow().iter().any(|called| called == name) {
            return Err(Error::definition(format!(
                "function cycle not allowed for `{name}`"
            )));
        }
        let locals = function.bind(name, args)?;
        self.calls.borrow_mut().push(name.to_owned());
        let value = evaluate(&function.result, &Scope::new(self, locals));
        self.calls.borrow_mut().pop();
        value.map(Some)
    }

    /// Evaluates and validates all variables, also those that nothing asks for.
    pub(crate) fn check_variables(&self) -> Result<(), Error> {
        let place = |name: &str| format!("variable.{name}");
        for (name, variable) in &self.variables {
            self.value(name)
                .map_err(|error| error.at(variable.span).in_key(&place(name)))?;
        }
        for (name, variable) in &self.variables {
            let scope = Scope::new(self, Vec::new());
            variable
                .validate(&scope)
                .map_err(|error| error.in_key(&place(name)))?;
        }
        Ok(())
    }

    /// Evaluates all attributes outside of blocks, also those that nothing asks for.
    pub(crate) fn check_attributes(&self) -> Result<(), Error> {
        for (name, attribute) in &self.attributes {
            self.value(name)
                .map_err(|error| error.at(attribute.span).in_key(name))?;
        }
        Ok(())
    }

    /// Returns all variables with their values, sorted by name.
    pub(crate) fn all_variables(&self) -> Result<Vec<crate::Variable>, Error> {
        let all = self.variables.iter().map(|(name, variable)| {
            Ok(crate::Variable {
                name: name.clone(),
                description: variable.description.clone(),
                type_name: variable.type_name(),
                value: variable::shown(&self.value(name)?),
            })
        });
        all.collect()
    }
}

impl UserFunction {
    fn new(block: Block) -> Result<Self, Error> {
        let span = block.span;
        let mut function = (None, None, None);
        for attribute in block.body.attributes {
            match attribute.key.as_str() {
                "params" => function.0 = Some(params(&attribute.value)?),
                "variadic_params" => function.1 = Some(param(&attribute.value)?),
                "result" => function.2 = Some(attribute.value),
                key => {
                    let message = format!("functions have no attribute `{key}`");
                    return Err(Error::definition(message).at(attribute.span));
                }
            }
        }
        let missing = |key| Error::definition(format!("`{key}` is missing")).at(span);
        Ok(Self {
            params: function.0.ok_or_else(|| missing("params"))?,
            variadic: function.1,
            result: function.2.ok_or_else(|| missing("result"))?,
        })
    }

    fn bind(&self, name: &str, args: &[Value]) -> Result<Vec<(String, Value)>, Error> {
        let (given, wanted) = (args.len(), self.params.len());
        if given < wanted || given > wanted && self.variadic.is_none() {
            let least = if self.variadic.is_some() {
                "at least "
            } else {
                ""
            };
            return Err(Error::definition(format!(
                "`{name}` takes {least}{wanted} arguments, not {given}"
            )));
        }
        let (first, rest) = args.split_at(wanted);
        let mut locals: Vec<(String, Value)> = self
            .params
            .iter()
            .cloned()
            .zip(first.iter().cloned())
            .collect();
        if let Some(variadic) = &self.variadic {
            locals.push((variadic.clone(), Value::List(rest.to_vec())));
        }
        Ok(locals)
    }
}

fn params(expr: &Expr) -> Result<Vec<String>, Error> {
    match &expr.kind {
        ExprKind::List(names) => names.iter().map(param).collect(),
        _ => Err(Error::definition("a list of names is required").at(expr.span)),
    }
}

fn param(expr: &Expr) -> Result<String, Error> {
    expr.as_name()
        .map(str::to_owned)
        .ok_or_else(|| Error::definition("each parameter must be a name").at(expr.span))
}

/// Whether `name` can name a target.
pub(crate) fn check_name(name: &str, span: Span) -> Result<(), Error> {
    let is_valid = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if is_valid {
        return Ok(());
    }
    let message = format!("invalid name `{name}`: only letters, digits, `_` and `-` are allowed");
    Err(Error::definition(message).at(span))
}
