//! What both formats are parsed into: attributes and blocks whose values are expressions.

mod hcl;
mod json;

use crate::error::Error;
use crate::source::{File, Format, Span};
use crate::value::Value;

/// Blocks with one label; all other keys of a file are attributes.
pub(crate) const BLOCK_TYPES: [&str; 4] = ["group", "target", "variable", "function"];

/// A file, or what stands between the braces of a block.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) blocks: Vec<Block>,
}

/// `key = expression`
#[derive(Debug)]
pub(crate) struct Attribute {
    pub(crate) key: String,
    pub(crate) value: Expr,
    /// That of the key.
    pub(crate) span: Span,
}

/// `kind "label" { … }`
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) kind: String,
    pub(crate) labels: Vec<String>,
    pub(crate) body: Body,
    /// That of the label, else of the kind.
    pub(crate) span: Span,
}

/// An expression.
#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) enum ExprKind {
    Literal(Value),
    Template(Vec<Part>),
    List(Vec<Expr>),
    Object(Vec<(Expr, Expr)>),
    Variable(String),
    Conditional(Box<[Expr; 3]>),
    Call(Call),
    Traversal(Box<Expr>, Vec<Step>),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    Binary(Operator, Box<[Expr; 2]>),
    For(Box<For>),
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) args: Vec<Expr>,
    /// Whether `...` follows the last argument, whose elements then are the last arguments.
    pub(crate) expands_last: bool,
}

/// A step from a value to one inside of it.
#[derive(Debug)]
pub(crate) enum Step {
    Attribute(String),
    Index(Expr),
    /// `.*`: what follows, up to the first index, is done with each element.
    AttributeSplat,
    /// `[*]`: all that follows is done with each element.
    FullSplat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
}

/// `[for … ]` or `{for … }`
#[derive(Debug)]
pub(crate) struct For {
    pub(crate) key_name: Option<String>,
    pub(crate) value_name: String,
    pub(crate) collection: Expr,
    /// Makes an object if there is one.
    pub(crate) key: Option<Expr>,
    pub(crate) value: Expr,
    /// Whether values of equal keys are put together in lists.
    pub(crate) groups: bool,
    pub(crate) condition: Option<Expr>,
}

/// A part of a template.
#[derive(Debug)]
pub(crate) enum Part {
    Text(String),
    Value(Expr),
    If {
        condition: Expr,
        then: Vec<Part>,
        otherwise: Vec<Part>,
    },
    For {
        key_name: Option<String>,
        value_name: String,
        collection: Expr,
        body: Vec<Part>,
    },
}

impl Expr {
    /// Returns the text if the expression is a string without templates.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.kind {
            ExprKind::Literal(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns the name if the expression is one: an identifier, or in JSON a string.
    pub(crate) fn as_name(&self) -> Option<&str> {
        match &self.kind {
            ExprKind::Variable(name) => Some(name),
            _ => self.as_text().filter(|text| !text.is_empty()),
        }
    }
}

/// Parses the file with index `index`, which is no compose file.
///
/// # Errors
/// [`Definition`](crate::ErrorKind::Definition), with the place.
pub(crate) fn parse(file: &File, index: usize) -> Result<Body, Error> {
    match file.format() {
        Format::Json => json::parse(&file.text, index),
        Format::Hcl | Format::Compose => hcl::parse(&file.text, index),
    }
}

/// Parses `text` as an expression that stands at `span`, as type constraints in JSON are.
pub(crate) fn parse_expr(text: &str, span: Span) -> Result<Expr, Error> {
    hcl::parse_embedded(text, span)
}
