//! Operators.

use rust_decimal::Decimal;

use crate::error::Error;
use crate::syntax::Operator;
use crate::value::Value;

pub(super) fn negate(operand: &Value) -> Result<Value, Error> {
    Ok(Value::Number(-operand.to_number()?))
}

pub(super) fn not(operand: &Value) -> Result<Value, Error> {
    Ok(Value::Bool(!operand.to_bool()?))
}

pub(super) fn apply(operator: Operator, left: &Value, right: &Value) -> Result<Value, Error> {
    match operator {
        Operator::Equal => Ok(Value::Bool(left == right)),
        Operator::NotEqual => Ok(Value::Bool(left != right)),
        Operator::And => Ok(Value::Bool(left.to_bool()? && right.to_bool()?)),
        Operator::Or => Ok(Value::Bool(left.to_bool()? || right.to_bool()?)),
        _ => with_numbers(operator, left.to_number()?, right.to_number()?),
    }
}

fn with_numbers(operator: Operator, left: Decimal, right: Decimal) -> Result<Value, Error> {
    let compared = match operator {
        Operator::Less => left < right,
        Operator::LessOrEqual => left <= right,
        Operator::Greater => left > right,
        Operator::GreaterOrEqual => left >= right,
        _ => return arithmetic(operator, left, right).map(Value::Number),
    };
    Ok(Value::Bool(compared))
}

/// Adds, subtracts, multiplies, divides, or returns the remainder.
pub(crate) fn arithmetic(
    operator: Operator,
    left: Decimal,
    right: Decimal,
) -> Result<Decimal, Error> {
    let divides = matches!(operator, Operator::Divide | Operator::Modulo);
    if divides && right.is_zero() {
        return Err(Error::definition("division by zero"));
    }
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide => left.checked_div(right),
        Operator::Modulo => left.checked_rem(right),
        _ => None,
    };
    result
        .map(|number| number.normalize())
        .ok_or_else(|| Error::definition("the result is out of the range of numbers"))
}
