//! Templates to text.

use super::{Scope, evaluate, iterations};
use crate::error::Error;
use crate::syntax::Part;

pub(super) fn render(parts: &[Part], scope: &Scope<'_>) -> Result<String, Error> {
    let mut text = String::new();
    append(parts, scope, &mut text)?;
    Ok(text)
}

fn append(parts: &[Part], scope: &Scope<'_>, text: &mut String) -> Result<(), Error> {
    for part in parts {
        match part {
            Part::Text(literal) => push(literal, scope, text)?,
            Part::Value(expr) => {
                let value = evaluate(expr, scope)?
                    .to_text()
                    .map_err(|error| error.at(expr.span))?;
                push(&value, scope, text)?;
            }
            Part::If {
                condition,
                then,
                otherwise,
            } => {
                let is_met = evaluate(condition, scope)?
                    .to_bool()
                    .map_err(|error| error.at(condition.span))?;
                append(if is_met { then } else { otherwise }, scope, text)?;
            }
            Part::For {
                key_name,
                value_name,
                collection,
                body,
            } => {
                for inner in iterations(collection, (key_name.as_deref(), value_name), scope)? {
                    append(body, &inner, text)?;
                }
            }
        }
    }
    Ok(())
}

fn push(piece: &str, scope: &Scope<'_>, text: &mut String) -> Result<(), Error> {
    scope.budget().spend_text(piece.len())?;
    text.push_str(piece);
    Ok(())
}
