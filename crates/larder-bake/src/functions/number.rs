//! Numbers, comparisons and logic.

use rust_decimal::prelude::ToPrimitive as _;
use rust_decimal::{Decimal, MathematicalOps as _};

use super::{Done, exactly};
use crate::error::Error;
use crate::eval::arithmetic;
use crate::syntax::Operator;
use crate::value::Value;

fn one(args: &[Value]) -> Result<Decimal, Error> {
    let [number] = exactly(args)?;
    number.to_number()
}

fn two(args: &[Value]) -> Result<(Decimal, Decimal), Error> {
    let [left, right] = exactly(args)?;
    Ok((left.to_number()?, right.to_number()?))
}

fn calculate(operator: Operator, args: &[Value]) -> Done {
    let (left, right) = two(args)?;
    arithmetic(operator, left, right).map(Value::Number)
}

fn out_of_range() -> Error {
    Error::definition("the result is out of the range of numbers")
}

pub(super) fn add(args: &[Value]) -> Done {
    calculate(Operator::Add, args)
}

pub(super) fn subtract(args: &[Value]) -> Done {
    calculate(Operator::Subtract, args)
}

pub(super) fn multiply(args: &[Value]) -> Done {
    calculate(Operator::Multiply, args)
}

pub(super) fn divide(args: &[Value]) -> Done {
    calculate(Operator::Divide, args)
}

pub(super) fn modulo(args: &[Value]) -> Done {
    calculate(Operator::Modulo, args)
}

pub(super) fn absolute(args: &[Value]) -> Done {
    Ok(Value::Number(one(args)?.abs()))
}

pub(super) fn negate(args: &[Value]) -> Done {
    Ok(Value::Number(-one(args)?))
}

pub(super) fn ceil(args: &[Value]) -> Done {
    Ok(Value::Number(one(args)?.ceil()))
}

pub(super) fn floor(args: &[Value]) -> Done {
    Ok(Value::Number(one(args)?.floor()))
}

pub(super) fn int(args: &[Value]) -> Done {
    Ok(Value::Number(one(args)?.trunc()))
}

pub(super) fn signum(args: &[Value]) -> Done {
    let number = one(args)?.trunc();
    let sign = i64::from(number > Decimal::ZERO) - i64::from(number < Decimal::ZERO);
    Ok(Value::integer(sign))
}

pub(super) fn pow(args: &[Value]) -> Done {
    let (base, exponent) = two(args)?;
    if !exponent.fract().is_zero() {
        // Roots are no exact numbers: they have the digits of a float, as buildx has them.
        let power = base.to_f64().zip(exponent.to_f64());
        return power
            .and_then(|(base, exponent)| shortest(base.powf(exponent)))
            .map(Value::Number)
            .ok_or_else(out_of_range);
    }
    base.checked_powd(exponent)
        .map(|number| Value::Number(number.normalize()))
        .ok_or_else(out_of_range)
}

/// Returns the number that a float is written as.
fn shortest(float: f64) -> Option<Decimal> {
    float.to_string().parse().ok()
}

/// `log(number, base)`
pub(super) fn log(args: &[Value]) -> Done {
    let (number, base) = two(args)?;
    let quotient = number
        .checked_ln()
        .zip(base.checked_ln())
        .and_then(|(number, base)| number.checked_div(base));
    // The last digits of both logarithms are rounded.
    quotient
        .map(|number| Value::Number(number.round_dp(20).normalize()))
        .ok_or_else(out_of_range)
}

pub(super) fn max(args: &[Value]) -> Done {
    extreme(args, Iterator::max)
}

pub(super) fn min(args: &[Value]) -> Done {
    extreme(args, Iterator::min)
}

fn extreme(args: &[Value], choose: fn(std::vec::IntoIter<Decimal>) -> Option<Decimal>) -> Done {
    let numbers: Vec<Decimal> = args
        .iter()
        .map(Value::to_number)
        .collect::<Result<_, _>>()?;
    choose(numbers.into_iter())
        .map(Value::Number)
        .ok_or_else(|| Error::definition("at least one number is required"))
}

/// `parseint(text, base)`
pub(super) fn parse_int(args: &[Value]) -> Done {
    /// The digits of bases up to 62, as Go has them.
    const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let [text, base] = exactly(args)?;
    let (text, base) = (text.to_text()?, base.to_index()?);
    if !(2..=62).contains(&base) {
        return Err(Error::definition("the base must be from 2 to 62"));
    }
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let digit = |byte: u8| {
        // Up to base 36, capitals are the same as small letters.
        let byte = if base <= 36 {
            byte.to_ascii_lowercase()
        } else {
            byte
        };
        DIGITS[..base].iter().position(|digit| *digit == byte)
    };
    let invalid = || Error::definition(format!("cannot parse `{text}` as a number of base {base}"));
    let mut number = (!digits.is_empty())
        .then_some(Decimal::ZERO)
        .ok_or_else(invalid)?;
    for byte in digits.bytes() {
        let digit = digit(byte).ok_or_else(invalid)?;
        number = number
            .checked_mul(Decimal::from(base))
            .and_then(|number| number.checked_add(Decimal::from(digit)))
            .ok_or_else(out_of_range)?;
    }
    Ok(Value::Number(if is_negative { -number } else { number }))
}

pub(super) fn equal(args: &[Value]) -> Done {
    let [left, right] = exactly(args)?;
    Ok(Value::Bool(left == right))
}

pub(super) fn notequal(args: &[Value]) -> Done {
    let [left, right] = exactly(args)?;
    Ok(Value::Bool(left != right))
}

pub(super) fn less(args: &[Value]) -> Done {
    two(args).map(|(left, right)| Value::Bool(left < right))
}

pub(super) fn less_or_equal(args: &[Value]) -> Done {
    two(args).map(|(left, right)| Value::Bool(left <= right))
}

pub(super) fn greater(args: &[Value]) -> Done {
    two(args).map(|(left, right)| Value::Bool(left > right))
}

pub(super) fn greater_or_equal(args: &[Value]) -> Done {
    two(args).map(|(left, right)| Value::Bool(left >= right))
}

pub(super) fn and(args: &[Value]) -> Done {
    let [left, right] = exactly(args)?;
    Ok(Value::Bool(left.to_bool()? & right.to_bool()?))
}

pub(super) fn or(args: &[Value]) -> Done {
    let [left, right] = exactly(args)?;
    Ok(Value::Bool(left.to_bool()? | right.to_bool()?))
}

pub(super) fn not(args: &[Value]) -> Done {
    let [value] = exactly(args)?;
    Ok(Value::Bool(!value.to_bool()?))
}
