//! Type constraints: `string`, `list(number)`, `object({a = string})`, …

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Error;
use crate::syntax::{Call, Expr, ExprKind};
use crate::value::Value;

/// A type that a variable is declared to have, or `convert` converts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    Any,
    Bool,
    Number,
    String,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Tuple(Vec<Type>),
    /// Attributes, and whether each may be missing.
    Object(BTreeMap<String, (Type, bool)>),
}

impl Type {
    /// Reads the type that an expression names.
    pub(crate) fn of(expr: &Expr) -> Result<Self, Error> {
        // In JSON, a type is a string.
        if let Some(text) = expr.as_text() {
            let inner = crate::syntax::parse_expr(text, expr.span)?;
            return Self::of_native(&inner);
        }
        Self::of_native(expr)
    }

    fn of_native(expr: &Expr) -> Result<Self, Error> {
        match &expr.kind {
            ExprKind::Variable(name) => match name.as_str() {
                "any" => Ok(Self::Any),
                "bool" => Ok(Self::Bool),
                "number" => Ok(Self::Number),
                "string" => Ok(Self::String),
                _ => Err(invalid(&format!("`{name}` is not a valid type"), expr)),
            },
            ExprKind::Call(call) => Self::constructed(call, expr),
            _ => Err(invalid("not a valid type", expr)),
        }
    }

    fn constructed(call: &Call, expr: &Expr) -> Result<Self, Error> {
        let [argument] = call.args.as_slice() else {
            return Err(invalid(
                &format!("`{}` takes one type: not a valid type", call.name),
                expr,
            ));
        };
        let inner = || Self::of_native(argument).map(Box::new);
        match (call.name.as_str(), &argument.kind) {
            ("list", _) => inner().map(Self::List),
            ("set", _) => inner().map(Self::Set),
            ("map", _) => inner().map(Self::Map),
            ("tuple", ExprKind::List(elements)) => elements
                .iter()
                .map(Self::of_native)
                .collect::<Result<_, _>>()
                .map(Self::Tuple),
            ("object", ExprKind::Object(items)) => {
                let mut attributes = BTreeMap::new();
                for (key, value) in items {
                    let key = key
                        .as_name()
                        .ok_or_else(|| invalid("not a valid type", key))?;
                    attributes.insert(key.to_owned(), Self::attribute(value)?);
                }
                Ok(Self::Object(attributes))
            }
            (name, _) => Err(invalid(&format!("`{name}(…)` is not a valid type"), expr)),
        }
    }

    fn attribute(expr: &Expr) -> Result<(Self, bool), Error> {
        match &expr.kind {
            ExprKind::Call(call) if call.name == "optional" && call.args.len() == 1 => {
                Ok((Self::of_native(&call.args[0])?, true))
            }
            _ => Ok((Self::of_native(expr)?, false)),
        }
    }

    pub(crate) fn is_primitive(&self) -> bool {
        matches!(self, Self::Bool | Self::Number | Self::String)
    }

    /// Converts `value`; null stays null.
    pub(crate) fn convert(&self, value: &Value) -> Result<Value, Error> {
        if *value == Value::Null {
            return Ok(Value::Null);
        }
        match self {
            Self::Any => Ok(value.clone()),
            Self::Bool => value.to_bool().map(Value::Bool),
            Self::Number => value.to_number().map(Value::Number),
            Self::String => value.to_text().map(Value::String),
            Self::List(inner) => inner.convert_all(&value.elements()?).map(Value::List),
            Self::Set(inner) => {
                let elements = inner.convert_all(&value.elements()?)?;
                Ok(Value::Set(elements.into_iter().collect()))
            }
            Self::Map(inner) => value
                .entries()?
                .iter()
                .map(|(key, value)| Ok((key.clone(), inner.convert(value)?)))
                .collect::<Result<_, Error>>()
                .map(Value::Object),
            Self::Tuple(types) => {
                let elements = value.elements()?;
                if elements.len() != types.len() {
                    return Err(Error::definition(format!(
                        "{} elements are required, not {}",
                        types.len(),
                        elements.len()
                    )));
                }
                let converted = types
                    .iter()
                    .zip(&elements)
                    .map(|(inner, value)| inner.convert(value));
                converted.collect::<Result<_, _>>().map(Value::List)
            }
            Self::Object(attributes) => convert_object(attributes, value),
        }
    }

    fn convert_all(&self, elements: &[Value]) -> Result<Vec<Value>, Error> {
        elements
            .iter()
            .map(|element| self.convert(element))
            .collect()
    }
}

fn convert_object(
    attributes: &BTreeMap<String, (Type, bool)>,
    value: &Value,
) -> Result<Value, Error> {
    let entries = value.entries()?;
    let mut converted = BTreeMap::new();
    for (key, (inner, is_optional)) in attributes {
        let value = match entries.get(key) {
            Some(value) => inner.convert(value).map_err(|error| error.in_key(key))?,
            None if *is_optional => Value::Null,
            None => return Err(Error::definition(format!("attribute `{key}` is required"))),
        };
        converted.insert(key.clone(), value);
    }
    Ok(Value::Object(converted))
}

fn invalid(message: &str, expr: &Expr) -> Error {
    Error::definition(message).at(expr.span)
}

impl fmt::Display for Type {
    /// Writes the type as buildx names it: `list of string`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |f: &mut fmt::Formatter<'_>, kind: &str, inner: &Type| match inner {
            Self::Any => write!(f, "{kind} of any single type"),
            inner => write!(f, "{kind} of {inner}"),
        };
        match self {
            Self::Any => f.write_str("any type"),
            Self::Bool => f.write_str("bool"),
            Self::Number => f.write_str("number"),
            Self::String => f.write_str("string"),
            Self::List(inner) => of(f, "list", inner),
            Self::Set(inner) => of(f, "set", inner),
            Self::Map(inner) => of(f, "map", inner),
            Self::Tuple(_) => f.write_str("tuple"),
            Self::Object(_) => f.write_str("object"),
        }
    }
}
