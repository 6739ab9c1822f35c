//! HCL, from `hcl-edit`'s tree, which bounds its own depth.

use hcl_edit::Span as _;
use hcl_edit::expr::{
    self, BinaryOperator, Expression, ObjectKey, TraversalOperator, UnaryOperator,
};
use hcl_edit::structure::{self, BlockLabel, Structure};
use hcl_edit::template::{Directive, Element, Strip, Template};
use rust_decimal::Decimal;

use super::{Attribute, Block, Body, Call, Expr, ExprKind, For, Operator, Part, Step};
use crate::error::Error;
use crate::source::Span;
use crate::value::{Value, parse_number};

/// Parses a whole file.
pub(super) fn parse(text: &str, file: usize) -> Result<Body, Error> {
    let body = hcl_edit::parser::parse_body(text).map_err(|error| {
        let start = error.location().offset();
        Error::definition(error.message().to_owned()).at(Span {
            file,
            start,
            end: start,
        })
    })?;
    let converter = Converter { file, within: None };
    converter.body(&body)
}

/// Parses an expression that stands inside of a JSON string.
pub(super) fn parse_embedded(text: &str, span: Span) -> Result<Expr, Error> {
    let expression = hcl_edit::parser::parse_expr(text)
        .map_err(|error| Error::definition(error.message().to_owned()).at(span))?;
    Converter::within(span).expr(&expression)
}

/// Parses a JSON string, which is a template.
pub(super) fn parse_template(text: &str, span: Span) -> Result<Expr, Error> {
    let template = hcl_edit::parser::parse_template(text)
        .map_err(|error| Error::definition(error.message().to_owned()).at(span))?;
    Converter::within(span).template(&template, span)
}

struct Converter {
    file: usize,
    /// Where all of it stands, if not in a file of its own.
    within: Option<Span>,
}

impl Converter {
    fn within(span: Span) -> Self {
        Self {
            file: span.file,
            within: Some(span),
        }
    }

    fn span(&self, range: Option<std::ops::Range<usize>>) -> Span {
        let range = range.unwrap_or_default();
        self.within.unwrap_or(Span {
            file: self.file,
            start: range.start,
            end: range.end,
        })
    }

    fn body(&self, body: &structure::Body) -> Result<Body, Error> {
        let mut converted = Body::default();
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => converted.attributes.push(Attribute {
                    key: attribute.key.as_str().to_owned(),
                    value: self.expr(&attribute.value)?,
                    span: self.span(attribute.key.span()),
                }),
                Structure::Block(block) => converted.blocks.push(self.block(block)?),
            }
        }
        Ok(converted)
    }

    fn block(&self, block: &structure::Block) -> Result<Block, Error> {
        let label_span = block.labels.first().and_then(BlockLabel::span);
        Ok(Block {
            kind: block.ident.as_str().to_owned(),
            labels: block
                .labels
                .iter()
                .map(|label| label.as_str().to_owned())
                .collect(),
            body: self.body(&block.body)?,
            span: self.span(label_span.or_else(|| block.ident.span())),
        })
    }

    fn expr(&self, expression: &Expression) -> Result<Expr, Error> {
        let span = self.span(expression.span());
        let kind = match expression {
            Expression::Null(_) => ExprKind::Literal(Value::Null),
            Expression::Bool(value) => ExprKind::Literal(Value::Bool(*value.value())),
            Expression::Number(number) => ExprKind::Literal(number_literal(number, span)?),
            Expression::String(text) => ExprKind::Literal(Value::String(text.value().clone())),
            Expression::Array(array) => ExprKind::List(self.exprs(array.iter())?),
            Expression::Object(object) => ExprKind::Object(self.object(object)?),
            Expression::StringTemplate(template) => return self.template(template, span),
            Expression::HeredocTemplate(heredoc) => return self.template(&heredoc.template, span),
            Expression::Parenthesis(inner) => return self.expr(inner.inner()),
            Expression::Variable(name) => ExprKind::Variable(name.as_str().to_owned()),
            Expression::Conditional(conditional) => ExprKind::Conditional(Box::new([
                self.expr(&conditional.cond_expr)?,
                self.expr(&conditional.true_expr)?,
                self.expr(&conditional.false_expr)?,
            ])),
            Expression::FuncCall(call) => ExprKind::Call(self.call(call)?),
            Expression::Traversal(traversal) => ExprKind::Traversal(
                Box::new(self.expr(&traversal.expr)?),
                self.steps(&traversal.operators)?,
            ),
            Expression::UnaryOp(unary) => {
                let operand = Box::new(self.expr(&unary.expr)?);
                match unary.operator.value() {
                    UnaryOperator::Neg => ExprKind::Negate(operand),
                    UnaryOperator::Not => ExprKind::Not(operand),
                }
            }
            Expression::BinaryOp(binary) => ExprKind::Binary(
                operator(*binary.operator.value()),
                Box::new([self.expr(&binary.lhs_expr)?, self.expr(&binary.rhs_expr)?]),
            ),
            Expression::ForExpr(for_expr) => ExprKind::For(Box::new(self.for_expr(for_expr)?)),
        };
        Ok(Expr { kind, span })
    }

    fn exprs<'a>(
        &self,
        expressions: impl Iterator<Item = &'a Expression>,
    ) -> Result<Vec<Expr>, Error> {
        expressions
            .map(|expression| self.expr(expression))
            .collect()
    }

    fn object(&self, object: &expr::Object) -> Result<Vec<(Expr, Expr)>, Error> {
        let mut items = Vec::with_capacity(object.len());
        for (key, value) in object {
            let key = match key {
                ObjectKey::Ident(name) => Expr {
                    kind: ExprKind::Literal(Value::String(name.as_str().to_owned())),
                    span: self.span(name.span()),
                },
                ObjectKey::Expression(expression) => self.object_key(expression)?,
            };
            items.push((key, self.expr(value.expr())?));
        }
        Ok(items)
    }

    /// A bare word is a key, and a variable only in parentheses.
    fn object_key(&self, expression: &Expression) -> Result<Expr, Error> {
        let mut key = self.expr(expression)?;
        if let (Expression::Variable(name), ExprKind::Variable(_)) = (expression, &key.kind) {
            key.kind = ExprKind::Literal(Value::String(name.as_str().to_owned()));
        }
        Ok(key)
    }

    fn call(&self, call: &expr::FuncCall) -> Result<Call, Error> {
        let mut name = String::new();
        for namespace in &call.name.namespace {
            name.push_str(namespace.as_str());
            name.push_str("::");
        }
        name.push_str(call.name.name.as_str());
        Ok(Call {
            name,
            args: self.exprs(call.args.iter())?,
            expands_last: call.args.expand_final(),
        })
    }

    fn steps(
        &self,
        operators: &[hcl_edit::Decorated<TraversalOperator>],
    ) -> Result<Vec<Step>, Error> {
        operators
            .iter()
            .map(|operator| {
                Ok(match operator.value() {
                    TraversalOperator::AttrSplat(_) => Step::AttributeSplat,
                    TraversalOperator::FullSplat(_) => Step::FullSplat,
                    TraversalOperator::GetAttr(name) => Step::Attribute(name.as_str().to_owned()),
                    TraversalOperator::Index(index) => Step::Index(self.expr(index)?),
                    TraversalOperator::LegacyIndex(index) => Step::Index(Expr {
                        kind: ExprKind::Literal(Value::Number(Decimal::from(*index.value()))),
                        span: self.span(operator.span()),
                    }),
                })
            })
            .collect()
    }

    fn for_expr(&self, for_expr: &expr::ForExpr) -> Result<For, Error> {
        let intro = &for_expr.intro;
        Ok(For {
            key_name: intro.key_var.as_ref().map(|name| name.as_str().to_owned()),
            value_name: intro.value_var.as_str().to_owned(),
            collection: self.expr(&intro.collection_expr)?,
            key: for_expr
                .key_expr
                .as_ref()
                .map(|key| self.expr(key))
                .transpose()?,
            value: self.expr(&for_expr.value_expr)?,
            groups: for_expr.grouping,
            condition: for_expr
                .cond
                .as_ref()
                .map(|cond| self.expr(&cond.expr))
                .transpose()?,
        })
    }

    /// A template that is nothing but one interpolation is that expression, of whatever type.
    fn template(&self, template: &Template, span: Span) -> Result<Expr, Error> {
        if let Some(Element::Interpolation(single)) = template.as_single_element() {
            return self.expr(&single.expr);
        }
        let mut parts = self.parts(template)?;
        let kind = match parts.as_mut_slice() {
            [] => ExprKind::Literal(Value::String(String::new())),
            [Part::Text(text)] => ExprKind::Literal(Value::String(std::mem::take(text))),
            _ => ExprKind::Template(parts),
        };
        Ok(Expr { kind, span })
    }

    fn parts(&self, template: &Template) -> Result<Vec<Part>, Error> {
        let mut parts = Parts::default();
        for element in template {
            match element {
                Element::Literal(text) => parts.text(text.value()),
                Element::Interpolation(interpolation) => {
                    let value = Part::Value(self.expr(&interpolation.expr)?);
                    parts.marked(interpolation.strip, interpolation.strip, value);
                }
                Element::Directive(directive) => self.directive(directive, &mut parts)?,
            }
        }
        Ok(parts.done)
    }

    fn directive(&self, directive: &Directive, parts: &mut Parts) -> Result<(), Error> {
        let (first, last, part) = match directive {
            Directive::If(directive) => {
                let (opening, closing) = (&directive.if_expr, &directive.endif_expr);
                let mut then = self.parts(&opening.template)?;
                let mut otherwise = Vec::new();
                let end_of_then = directive
                    .else_expr
                    .as_ref()
                    .map_or(closing.strip, |e| e.strip);
                strip_inside(&mut then, opening.strip, end_of_then);
                if let Some(else_expr) = &directive.else_expr {
                    otherwise = self.parts(&else_expr.template)?;
                    strip_inside(&mut otherwise, else_expr.strip, closing.strip);
                }
                let part = Part::If {
                    condition: self.expr(&opening.cond_expr)?,
                    then,
                    otherwise,
                };
                (opening.strip, closing.strip, part)
            }
            Directive::For(directive) => {
                let (opening, closing) = (&directive.for_expr, &directive.endfor_expr);
                let mut body = self.parts(&opening.template)?;
                strip_inside(&mut body, opening.strip, closing.strip);
                let part = Part::For {
                    key_name: opening
                        .key_var
                        .as_ref()
                        .map(|name| name.as_str().to_owned()),
                    value_name: opening.value_var.as_str().to_owned(),
                    collection: self.expr(&opening.collection_expr)?,
                    body,
                };
                (opening.strip, closing.strip, part)
            }
        };
        parts.marked(first, last, part);
        Ok(())
    }
}

/// Parts of a template, whose texts lose spaces beside `~`.
#[derive(Default)]
struct Parts {
    done: Vec<Part>,
    strips_next: bool,
}

impl Parts {
    fn text(&mut self, text: &str) {
        let text = if self.strips_next {
            text.trim_start()
        } else {
            text
        };
        self.strips_next = false;
        if !text.is_empty() {
            self.done.push(Part::Text(text.to_owned()));
        }
    }

    /// Adds what is not text; `first` and `last` are the marks of its first and last braces.
    fn marked(&mut self, first: Strip, last: Strip, part: Part) {
        if first.strip_start() {
            strip_end(&mut self.done);
        }
        self.done.push(part);
        self.strips_next = last.strip_end();
    }
}

/// Strips what stands between two braces.
fn strip_inside(parts: &mut [Part], opening: Strip, closing: Strip) {
    if opening.strip_end()
        && let Some(Part::Text(text)) = parts.first_mut()
    {
        *text = text.trim_start().to_owned();
    }
    if closing.strip_start() {
        strip_end(parts);
    }
}

fn strip_end(parts: &mut [Part]) {
    if let Some(Part::Text(text)) = parts.last_mut() {
        text.truncate(text.trim_end().len());
    }
}

fn number_literal(
    number: &hcl_edit::Formatted<hcl_edit::Number>,
    span: Span,
) -> Result<Value, Error> {
    let text = number.value().to_string();
    parse_number(&text).map(Value::Number).ok_or_else(|| {
        Error::definition(format!("`{text}` is out of the range of numbers")).at(span)
    })
}

fn operator(operator: BinaryOperator) -> Operator {
    match operator {
        BinaryOperator::Eq => Operator::Equal,
        BinaryOperator::NotEq => Operator::NotEqual,
        BinaryOperator::LessEq => Operator::LessOrEqual,
        BinaryOperator::GreaterEq => Operator::GreaterOrEqual,
        BinaryOperator::Less => Operator::Less,
        BinaryOperator::Greater => Operator::Greater,
        BinaryOperator::Plus => Operator::Add,
        BinaryOperator::Minus => Operator::Subtract,
        BinaryOperator::Mul => Operator::Multiply,
        BinaryOperator::Div => Operator::Divide,
        BinaryOperator::Mod => Operator::Modulo,
        BinaryOperator::And => Operator::And,
        BinaryOperator::Or => Operator::Or,
    }
}
