//! Variables: defaults, types, overrides, validation.

use super::Definitions;
use crate::csv;
use crate::error::Error;
use crate::eval::{Scope, evaluate};
use crate::source::Span;
use crate::syntax::{Block, Expr};
use crate::types::Type;
use crate::value::{Value, parse_bool, parse_number};

/// After the name of a variable: its override as JSON.
const JSON_SUFFIX: &str = "_JSON";

#[derive(Debug)]
pub(super) struct VariableBlock {
    default: Option<Expr>,
    constraint: Option<Type>,
    pub(super) description: String,
    validations: Vec<Validation>,
    pub(super) span: Span,
}

#[derive(Debug)]
struct Validation {
    condition: Expr,
    message: Expr,
}

impl VariableBlock {
    pub(super) fn new(block: Block) -> Result<Self, Error> {
        let mut variable = Self {
            default: None,
            constraint: None,
            description: String::new(),
            validations: Vec::new(),
            span: block.span,
        };
        for attribute in block.body.attributes {
            let wrong = |message: &str| Error::definition(message.to_owned()).at(attribute.span);
            match attribute.key.as_str() {
                "default" => variable.default = Some(attribute.value),
                "type" => variable.constraint = Some(Type::of(&attribute.value)?),
                "description" => match attribute.value.as_text() {
                    Some(text) => text.clone_into(&mut variable.description),
                    None => return Err(wrong("`description` must be a plain text")),
                },
                key => return Err(wrong(&format!("variables have no attribute `{key}`"))),
            }
        }
        for block in block.body.blocks {
            if block.kind != "validation" {
                let message = format!("variables have no blocks `{}`", block.kind);
                return Err(Error::definition(message).at(block.span));
            }
            variable.validations.push(Validation::new(block)?);
        }
        Ok(variable)
    }

    /// Returns the value: that of the override, else of `attribute`, else of the default.
    pub(super) fn value(
        &self,
        name: &str,
        attribute: Option<&Expr>,
        scope: &Scope<'_>,
    ) -> Result<Value, Error> {
        let default = attribute.or(self.default.as_ref());
        let default = default.map(|expr| evaluate(expr, scope)).transpose()?;
        match &self.constraint {
            Some(constraint) => typed(name, constraint, default, scope.definitions),
            None => untyped(name, default, scope.definitions),
        }
    }

    pub(super) fn validate(&self, scope: &Scope<'_>) -> Result<(), Error> {
        for validation in &self.validations {
            let span = validation.condition.span;
            let condition = evaluate(&validation.condition, scope)?;
            if !condition.to_bool().map_err(|error| error.at(span))? {
                let message = evaluate(&validation.message, scope)?.to_text()?;
                return Err(Error::request(format!("validation failed: {message}")).at(span));
            }
        }
        Ok(())
    }

    /// Returns the type if it is declared, else nothing.
    pub(super) fn type_name(&self) -> String {
        self.constraint
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    }
}

impl Validation {
    fn new(block: Block) -> Result<Self, Error> {
        let (mut condition, mut message) = (None, None);
        for attribute in block.body.attributes {
            match attribute.key.as_str() {
                "condition" => condition = Some(attribute.value),
                "error_message" => message = Some(attribute.value),
                key => {
                    let text = format!("validations have no attribute `{key}`");
                    return Err(Error::definition(text).at(attribute.span));
                }
            }
        }
        let missing = |key| Error::definition(format!("`{key}` is missing")).at(block.span);
        Ok(Self {
            condition: condition.ok_or_else(|| missing("condition"))?,
            message: message.ok_or_else(|| missing("error_message"))?,
        })
    }
}

/// A text takes the place of a default of a primitive type.
fn untyped(name: &str, default: Option<Value>, definitions: &Definitions) -> Result<Value, Error> {
    let given = definitions.override_of(name);
    match (default, given) {
        (None, given) => Ok(Value::text(given.unwrap_or_default())),
        (Some(default), None) => Ok(default),
        (Some(Value::String(_) | Value::Null), Some(text)) => Ok(Value::text(text)),
        (Some(Value::Bool(_)), Some(text)) => parse_primitive(name, &Type::Bool, text),
        (Some(Value::Number(_)), Some(text)) => parse_primitive(name, &Type::Number, text),
        (Some(other), Some(_)) => Err(Error::request(format!(
            "unsupported type {} for variable `{name}`: give it a `type` to override it",
            other.type_name()
        ))),
    }
}

fn typed(
    name: &str,
    constraint: &Type,
    default: Option<Value>,
    definitions: &Definitions,
) -> Result<Value, Error> {
    let default = constraint
        .convert(&default.unwrap_or(Value::Null))
        .map_err(|error| {
            Error::definition(format!("invalid type: `{name}` default value: {error}"))
        })?;
    let json_name = format!("{name}{JSON_SUFFIX}");
    // A variable of that name is another variable.
    if !definitions.has_variable(&json_name)
        && let Some(text) = definitions.override_of(&json_name)
    {
        return parse_json(constraint, text).map_err(|reason| {
            Error::request(format!("failed to convert `{name}` from JSON: {reason}"))
        });
    }
    match definitions.override_of(name) {
        Some(text) => parse(name, constraint, text),
        None => Ok(default),
    }
}

fn parse_json(constraint: &Type, text: &str) -> Result<Value, Error> {
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|error| Error::request(error.to_string()))?;
    constraint.convert(&Value::from_json(&json)?)
}

/// Reads an override: primitive types as they are, collections of them as CSV.
fn parse(name: &str, constraint: &Type, text: &str) -> Result<Value, Error> {
    match constraint {
        Type::Any => Ok(Value::text(text)),
        primitive if primitive.is_primitive() => parse_primitive(name, primitive, text),
        collection => parse_csv(name, collection, text),
    }
}

fn parse_csv(name: &str, constraint: &Type, text: &str) -> Result<Value, Error> {
    let failed = |reason: &dyn std::fmt::Display| {
        Error::request(format!("failed to convert `{name}` from CSV: {reason}"))
    };
    let fields = csv::fields(text).map_err(|error| failed(&error))?;
    let element = |inner: &Type, text: &str| {
        parse_primitive(name, inner, text)
            .map_err(|_| failed(&format!("failed to parse element `{text}` as {inner}")))
    };
    let elements = |inner: &Type| -> Result<Vec<Value>, Error> {
        fields.iter().map(|field| element(inner, field)).collect()
    };
    match constraint {
        Type::List(inner) if inner.is_primitive() => elements(inner).map(Value::List),
        Type::Set(inner) if inner.is_primitive() => {
            Ok(Value::Set(elements(inner)?.into_iter().collect()))
        }
        Type::Tuple(types) if types.iter().all(Type::is_primitive) => {
            if fields.len() != types.len() {
                let (wanted, given) = (types.len(), fields.len());
                return Err(failed(&format!(
                    "{wanted} elements are required, not {given}"
                )));
            }
            let elements = types
                .iter()
                .zip(&fields)
                .map(|(inner, field)| element(inner, field));
            elements.collect::<Result<_, _>>().map(Value::List)
        }
        Type::Map(inner) if inner.is_primitive() => {
            let pair = |field: &String| match field.split(':').collect::<Vec<_>>()[..] {
                [key, value] => Ok((key.to_owned(), element(inner, value)?)),
                _ => Err(failed(&format!("expected one k/v pair, not `{field}`"))),
            };
            fields
                .iter()
                .map(pair)
                .collect::<Result<_, _>>()
                .map(Value::Object)
        }
        _ => Err(Error::request(format!(
            "unsupported type {constraint} for variable `{name}`: use `{name}{JSON_SUFFIX}`"
        ))),
    }
}

fn parse_primitive(name: &str, constraint: &Type, text: &str) -> Result<Value, Error> {
    let parsed = match constraint {
        Type::Bool => parse_bool(text).map(Value::Bool),
        Type::Number => parse_number(text).map(Value::Number),
        _ => Some(Value::text(text)),
    };
    parsed.ok_or_else(|| {
        Error::request(format!(
            "failed to parse `{name}` as {constraint}: `{text}`"
        ))
    })
}

/// Returns a value as lists of variables show it; `None` for null.
pub(super) fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::List(_) | Value::Set(_) | Value::Object(_) => Some(value.to_json().to_string()),
        primitive => primitive.to_text().ok(),
    }
}
