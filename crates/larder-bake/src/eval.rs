//! Expressions to values.

mod operator;
mod template;

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::definitions::Definitions;
use crate::error::Error;
use crate::functions;
use crate::syntax::{Call, Expr, ExprKind, For, Step};
use crate::types::Type;
use crate::value::Value;

pub(crate) use operator::arithmetic;

/// More steps than any sensible file takes; a file that takes them would not end in time.
const MAX_STEPS: u64 = 2_000_000;
/// More text than any sensible file makes.
const MAX_TEXT_BYTES: u64 = 256 << 20;
/// Expressions within expressions, through variables and functions; each takes stack.
const MAX_DEPTH: u32 = 250;

/// Bounds what hostile files can cost.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    steps: Cell<u64>,
    text_bytes: Cell<u64>,
    depth: Cell<u32>,
}

impl Budget {
    fn enter(&self) -> Result<(), Error> {
        self.steps.set(self.steps.get() + 1);
        self.depth.set(self.depth.get() + 1);
        if self.steps.get() > MAX_STEPS {
            return Err(Error::definition(
                "the file takes too many steps to evaluate",
            ));
        }
        if self.depth.get() > MAX_DEPTH {
            return Err(Error::definition(
                "expressions refer to each other too deeply",
            ));
        }
        Ok(())
    }

    fn leave(&self) {
        self.depth.set(self.depth.get() - 1);
    }

    /// Accounts for text that was made.
    pub(crate) fn spend_text(&self, bytes: usize) -> Result<(), Error> {
        self.text_bytes
            .set(self.text_bytes.get().saturating_add(bytes as u64));
        if self.text_bytes.get() > MAX_TEXT_BYTES {
            return Err(Error::definition("the file makes too much text"));
        }
        Ok(())
    }

    /// Accounts for elements that were made.
    pub(crate) fn spend_elements(&self, count: usize) -> Result<(), Error> {
        self.steps
            .set(self.steps.get().saturating_add(count as u64));
        if self.steps.get() > MAX_STEPS {
            return Err(Error::definition(
                "the file takes too many steps to evaluate",
            ));
        }
        Ok(())
    }
}

/// What the names in an expression stand for.
#[derive(Debug, Clone)]
pub(crate) struct Scope<'a> {
    pub(crate) definitions: &'a Definitions,
    /// Names of the matrix, parameters or loop variables; later ones hide earlier ones.
    locals: Vec<(String, Value)>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(definitions: &'a Definitions, locals: Vec<(String, Value)>) -> Self {
        Self {
            definitions,
            locals,
        }
    }

    fn local(&self, name: &str) -> Option<&Value> {
        let found = self.locals.iter().rev().find(|(local, _)| local == name);
        found.map(|(_, value)| value)
    }

    fn with(&self, locals: impl IntoIterator<Item = (String, Value)>) -> Self {
        let mut inner = self.clone();
        inner.locals.extend(locals);
        inner
    }

    fn budget(&self) -> &Budget {
        &self.definitions.budget
    }
}

/// Returns what `expr` comes to.
///
/// # Errors
/// With the span of the innermost expression that fails.
pub(crate) fn evaluate(expr: &Expr, scope: &Scope<'_>) -> Result<Value, Error> {
    let entered = scope.budget().enter();
    let value = entered.and_then(|()| evaluate_kind(expr, scope));
    scope.budget().leave();
    value.map_err(|error| error.at(expr.span))
}

fn evaluate_kind(expr: &Expr, scope: &Scope<'_>) -> Result<Value, Error> {
    match &expr.kind {
        ExprKind::Literal(value) => Ok(value.clone()),
        ExprKind::Template(parts) => template::render(parts, scope).map(Value::String),
        ExprKind::List(elements) => evaluate_all(elements, scope).map(Value::List),
        ExprKind::Object(items) => object(items, scope),
        ExprKind::Variable(name) => variable(name, scope),
        ExprKind::Conditional(parts) => conditional(parts, scope),
        ExprKind::Call(call) => evaluate_call(call, scope),
        ExprKind::Traversal(base, steps) => traversal(base, steps, scope),
        ExprKind::Negate(operand) => operator::negate(&evaluate(operand, scope)?),
        ExprKind::Not(operand) => operator::not(&evaluate(operand, scope)?),
        ExprKind::Binary(operator, operands) => {
            let [left, right] = operands.as_ref();
            operator::apply(*operator, &evaluate(left, scope)?, &evaluate(right, scope)?)
        }
        ExprKind::For(for_expr) => evaluate_for(for_expr, scope),
    }
}

fn evaluate_all(exprs: &[Expr], scope: &Scope<'_>) -> Result<Vec<Value>, Error> {
    exprs.iter().map(|expr| evaluate(expr, scope)).collect()
}

fn object(items: &[(Expr, Expr)], scope: &Scope<'_>) -> Result<Value, Error> {
    let mut entries = BTreeMap::new();
    for (key, value) in items {
        let name = evaluate(key, scope)?
            .to_text()
            .map_err(|error| error.in_key("key").at(key.span))?;
        entries.insert(name, evaluate(value, scope)?);
    }
    Ok(Value::Object(entries))
}

fn variable(name: &str, scope: &Scope<'_>) -> Result<Value, Error> {
    match scope.local(name) {
        Some(value) => Ok(value.clone()),
        None => scope.definitions.value(name),
    }
}

fn conditional(parts: &[Expr; 3], scope: &Scope<'_>) -> Result<Value, Error> {
    let [condition, then, otherwise] = parts;
    let is_met = evaluate(condition, scope)?
        .to_bool()
        .map_err(|error| error.in_key("condition").at(condition.span))?;
    evaluate(if is_met { then } else { otherwise }, scope)
}

fn evaluate_call(call: &Call, scope: &Scope<'_>) -> Result<Value, Error> {
    // These look at how their arguments are written, or whether they can be evaluated.
    match call.name.as_str() {
        "try" => return first_that_works(&call.args, scope),
        "can" => {
            let [arg] = arguments(call)?;
            return Ok(Value::Bool(evaluate(arg, scope).is_ok()));
        }
        "convert" => {
            let [arg, constraint] = arguments(call)?;
            return Type::of(constraint)?.convert(&evaluate(arg, scope)?);
        }
        _ => {}
    }
    let mut args = evaluate_all(&call.args, scope)?;
    if call.expands_last
        && let Some(last) = args.pop()
    {
        args.extend(last.elements()?);
    }
    match scope.definitions.call(&call.name, &args)? {
        Some(value) => Ok(value),
        None => functions::call(&call.name, &args, scope.definitions)
            .map_err(|error| error.in_key(&call.name)),
    }
}

fn arguments<const N: usize>(call: &Call) -> Result<&[Expr; N], Error> {
    call.args.as_slice().try_into().map_err(|_| {
        Error::definition(format!(
            "`{}` takes {N} arguments, not {}",
            call.name,
            call.args.len()
        ))
    })
}

fn first_that_works(args: &[Expr], scope: &Scope<'_>) -> Result<Value, Error> {
    let mut last = Error::definition("`try` takes at least one argument");
    for arg in args {
        match evaluate(arg, scope) {
            Ok(value) => return Ok(value),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn traversal(base: &Expr, steps: &[Step], scope: &Scope<'_>) -> Result<Value, Error> {
    if let ExprKind::Variable(kind) = &base.kind
        && scope.local(kind).is_none()
        && Definitions::has_blocks(kind)
    {
        return block_traversal(kind, steps, scope);
    }
    walk(evaluate(base, scope)?, steps, scope)
}

/// `target.name.attribute`: only that attribute is evaluated, so that targets may refer to each
/// other's.
fn block_traversal(kind: &str, steps: &[Step], scope: &Scope<'_>) -> Result<Value, Error> {
    match steps {
        [Step::Attribute(name), Step::Attribute(key), rest @ ..] => walk(
            scope.definitions.block_value(kind, name, Some(key))?,
            rest,
            scope,
        ),
        [Step::Attribute(name), rest @ ..] => walk(
            scope.definitions.block_value(kind, name, None)?,
            rest,
            scope,
        ),
        _ => Err(Error::definition(format!(
            "`{kind}` must be followed by the name of a {kind}"
        ))),
    }
}

fn walk(value: Value, steps: &[Step], scope: &Scope<'_>) -> Result<Value, Error> {
    let Some((step, rest)) = steps.split_first() else {
        return Ok(value);
    };
    match step {
        Step::Attribute(name) => walk(attribute(&value, name)?, rest, scope),
        Step::Index(index) => walk(self::index(&value, &evaluate(index, scope)?)?, rest, scope),
        Step::AttributeSplat => {
            let is_attribute = |step: &&Step| matches!(step, Step::Attribute(_));
            let (inner, outer) = rest.split_at(rest.iter().take_while(is_attribute).count());
            walk(splat(value, inner, scope)?, outer, scope)
        }
        Step::FullSplat => splat(value, rest, scope),
    }
}

/// Does `steps` with each element; a value that is no list is a list of one, null of none.
fn splat(value: Value, steps: &[Step], scope: &Scope<'_>) -> Result<Value, Error> {
    let elements = match value {
        Value::Null => Vec::new(),
        Value::List(elements) => elements,
        Value::Set(elements) => elements.into_iter().collect(),
        single => vec![single],
    };
    scope.budget().spend_elements(elements.len())?;
    let walked = elements
        .into_iter()
        .map(|element| walk(element, steps, scope));
    walked.collect::<Result<_, _>>().map(Value::List)
}

fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    match value {
        Value::Object(entries) => entries.get(name).cloned().ok_or_else(|| {
            let known = crate::error::suggestion(name, entries.keys().map(String::as_str));
            Error::definition(format!("the object has no attribute `{name}`{known}"))
        }),
        Value::Null => Err(Error::definition(format!("cannot take `.{name}` of null"))),
        other => Err(Error::definition(format!(
            "cannot take `.{name}` of a {}",
            other.type_name()
        ))),
    }
}

/// Returns the element at `key`.
pub(crate) fn index(value: &Value, key: &Value) -> Result<Value, Error> {
    match value {
        Value::List(elements) => {
            let at = key.to_index()?;
            elements.get(at).cloned().ok_or_else(|| {
                Error::definition(format!(
                    "the list has no index {at}: it has {} elements",
                    elements.len()
                ))
            })
        }
        Value::Object(_) => attribute(value, &key.to_text()?),
        Value::Null => Err(Error::definition("cannot index null")),
        other => Err(Error::definition(format!(
            "cannot index a {}",
            other.type_name()
        ))),
    }
}

fn evaluate_for(for_expr: &For, scope: &Scope<'_>) -> Result<Value, Error> {
    let mut values = Vec::new();
    let mut entries: BTreeMap<String, Value> = BTreeMap::new();
    let names = (for_expr.key_name.as_deref(), for_expr.value_name.as_str());
    for inner in iterations(&for_expr.collection, names, scope)? {
        if let Some(condition) = &for_expr.condition
            && !evaluate(condition, &inner)?
                .to_bool()
                .map_err(|error| error.at(condition.span))?
        {
            continue;
        }
        let value = evaluate(&for_expr.value, &inner)?;
        let Some(key_expr) = &for_expr.key else {
            values.push(value);
            continue;
        };
        let key = evaluate(key_expr, &inner)?
            .to_text()
            .map_err(|error| error.at(key_expr.span))?;
        if for_expr.groups {
            let group = entries
                .entry(key)
                .or_insert_with(|| Value::List(Vec::new()));
            if let Value::List(group) = group {
                group.push(value);
            }
        } else if entries.insert(key.clone(), value).is_some() {
            let message = "two elements have the key";
            let hint = "add `...` after the value to group them";
            let error = Error::definition(format!("{message} `{key}`; {hint}"));
            return Err(error.at(key_expr.span));
        }
    }
    Ok(match for_expr.key {
        Some(_) => Value::Object(entries),
        None => Value::List(values),
    })
}

/// Returns one scope for each element of a collection.
fn iterations<'s, 'a>(
    collection: &Expr,
    (key_name, value_name): (Option<&'s str>, &'s str),
    scope: &'s Scope<'a>,
) -> Result<impl Iterator<Item = Scope<'a>> + use<'s, 'a>, Error> {
    let value = evaluate(collection, scope)?;
    let pairs = value.pairs().ok_or_else(|| {
        Error::definition(format!("cannot iterate over a {}", value.type_name()))
            .at(collection.span)
    })?;
    scope.budget().spend_elements(pairs.len())?;
    Ok(pairs.into_iter().map(move |(key, value)| {
        let key = key_name.map(|name| (name.to_owned(), key));
        scope.with(key.into_iter().chain([(value_name.to_owned(), value)]))
    }))
}
