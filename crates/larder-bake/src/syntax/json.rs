//! HCL's JSON syntax: strings are templates, blocks are objects under their labels, and an array
//! stands for blocks that are repeated.

use jsonc_parser::ast::{Object, ObjectPropName, Value as Json};
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, ParseOptions};

use super::{Attribute, BLOCK_TYPES, Block, Body, Expr, ExprKind, hcl};
use crate::error::Error;
use crate::source::Span;
use crate::value::{Value, parse_number};

/// JSON, and nothing that looks like it.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Expressions nest no deeper than those that `hcl-edit` parses.
const MAX_DEPTH: usize = 64;

/// The key of comments.
const COMMENT: &str = "//";

pub(super) fn parse(text: &str, file: usize) -> Result<Body, Error> {
    let at = |start| Span {
        file,
        start,
        end: start,
    };
    let parsed =
        jsonc_parser::parse_to_ast(text, &CollectOptions::default(), &STRICT).map_err(|error| {
            let start = error.range().start;
            Error::definition(error.kind().to_string().to_lowercase()).at(at(start))
        })?;
    let Some(Json::Object(object)) = parsed.value else {
        return Err(Error::definition("expected an object").at(at(0)));
    };
    Converter { file }.file(&object)
}

struct Converter {
    file: usize,
}

impl Converter {
    fn span(&self, range: jsonc_parser::common::Range) -> Span {
        Span {
            file: self.file,
            start: range.start,
            end: range.end,
        }
    }

    fn file(&self, object: &Object<'_>) -> Result<Body, Error> {
        let mut body = Body::default();
        for (key, span, value) in self.properties(object) {
            if BLOCK_TYPES.contains(&key) {
                for (labels, _) in self.objects(value)? {
                    self.labeled(key, labels, &mut body)?;
                }
            } else {
                body.attributes.push(self.attribute(key, span, value)?);
            }
        }
        Ok(body)
    }

    /// Adds the blocks of `labels`: each key is a label, each value one block or several.
    fn labeled(&self, kind: &str, labels: &Object<'_>, body: &mut Body) -> Result<(), Error> {
        for (label, span, value) in self.properties(labels) {
            for (object, _) in self.objects(value).map_err(|error| error.in_key(label))? {
                body.blocks.push(Block {
                    kind: kind.to_owned(),
                    labels: vec![label.to_owned()],
                    body: self.block(kind, object)?,
                    span,
                });
            }
        }
        Ok(())
    }

    fn block(&self, kind: &str, object: &Object<'_>) -> Result<Body, Error> {
        let mut body = Body::default();
        for (key, span, value) in self.properties(object) {
            if kind == "variable" && key == "validation" {
                for (object, span) in self.objects(value)? {
                    body.blocks.push(Block {
                        kind: key.to_owned(),
                        labels: Vec::new(),
                        body: self.block(key, object)?,
                        span,
                    });
                }
            } else {
                body.attributes.push(self.attribute(key, span, value)?);
            }
        }
        Ok(body)
    }

    fn attribute(&self, key: &str, span: Span, value: &Json<'_>) -> Result<Attribute, Error> {
        Ok(Attribute {
            key: key.to_owned(),
            value: self.expr(value, 0).map_err(|error| error.in_key(key))?,
            span,
        })
    }

    /// Returns the properties of `object`, comments left out.
    fn properties<'a>(
        &self,
        object: &'a Object<'_>,
    ) -> impl Iterator<Item = (&'a str, Span, &'a Json<'a>)> {
        object.properties.iter().filter_map(|property| {
            let (name, range) = match &property.name {
                ObjectPropName::String(name) => (name.value.as_ref(), name.range),
                ObjectPropName::Word(name) => (name.value, name.range),
            };
            (name != COMMENT).then(|| (name, self.span(range), &property.value))
        })
    }

    /// Returns an object, or the objects in an array.
    fn objects<'a>(&self, value: &'a Json<'a>) -> Result<Vec<(&'a Object<'a>, Span)>, Error> {
        let elements = match value {
            Json::Array(array) => array.elements.iter().collect(),
            other => vec![other],
        };
        elements
            .into_iter()
            .map(|element| match element {
                Json::Object(object) => Ok((object, self.span(object.range))),
                other => Err(Error::definition("expected an object").at(self.span(other.range()))),
            })
            .collect()
    }

    fn expr(&self, value: &Json<'_>, depth: usize) -> Result<Expr, Error> {
        let span = self.span(value.range());
        if depth > MAX_DEPTH {
            return Err(Error::definition("expected at most 64 nested levels").at(span));
        }
        let kind = match value {
            Json::NullKeyword(_) => ExprKind::Literal(Value::Null),
            Json::BooleanLit(literal) => ExprKind::Literal(Value::Bool(literal.value)),
            Json::NumberLit(literal) => {
                let number = parse_number(literal.value).ok_or_else(|| {
                    Error::definition(format!(
                        "`{}` is out of the range of numbers",
                        literal.value
                    ))
                    .at(span)
                })?;
                ExprKind::Literal(Value::Number(number))
            }
            Json::StringLit(literal) => return hcl::parse_template(&literal.value, span),
            Json::Array(array) => ExprKind::List(
                array
                    .elements
                    .iter()
                    .map(|element| self.expr(element, depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            Json::Object(object) => {
                let mut items = Vec::with_capacity(object.properties.len());
                for (key, key_span, value) in self.properties(object) {
                    items.push((
                        hcl::parse_template(key, key_span)?,
                        self.expr(value, depth + 1)?,
                    ));
                }
                ExprKind::Object(items)
            }
        };
        Ok(Expr { kind, span })
    }
}
