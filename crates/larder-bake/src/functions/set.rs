//! Sets. Lists are taken for sets.

use std::collections::BTreeSet;

use super::{Done, exactly};
use crate::error::Error;
use crate::value::Value;

/// A product grows with the product of the sizes.
const MAX_PRODUCT: usize = 100_000;

fn set(value: &Value) -> Result<BTreeSet<Value>, Error> {
    Ok(value.elements()?.into_iter().collect())
}

fn fold(args: &[Value], join: fn(&BTreeSet<Value>, &BTreeSet<Value>) -> BTreeSet<Value>) -> Done {
    let Some((first, others)) = args.split_first() else {
        return Err(Error::definition("at least one set is required"));
    };
    let mut all = set(first)?;
    for other in others {
        all = join(&all, &set(other)?);
    }
    Ok(Value::Set(all))
}

pub(super) fn union(args: &[Value]) -> Done {
    fold(args, |left, right| left | right)
}

pub(super) fn intersection(args: &[Value]) -> Done {
    fold(args, |left, right| left & right)
}

pub(super) fn symmetric_difference(args: &[Value]) -> Done {
    fold(args, |left, right| left ^ right)
}

pub(super) fn subtract(args: &[Value]) -> Done {
    let [left, right] = exactly(args)?;
    Ok(Value::Set(&set(left)? - &set(right)?))
}

pub(super) fn has_element(args: &[Value]) -> Done {
    let [all, element] = exactly(args)?;
    Ok(Value::Bool(set(all)?.contains(element)))
}

/// All lists that take one element of each argument.
pub(super) fn product(args: &[Value]) -> Done {
    if args.len() < 2 {
        return Err(Error::definition("at least two lists are required"));
    }
    let mut rows = vec![Vec::new()];
    for list in args {
        let elements = list.elements()?;
        if rows
            .len()
            .saturating_mul(elements.len())
            .saturating_mul(args.len())
            > MAX_PRODUCT
        {
            return Err(Error::definition("the product has too many elements"));
        }
        rows = rows
            .iter()
            .flat_map(|row: &Vec<Value>| {
                elements
                    .iter()
                    .map(|element| [row.as_slice(), std::slice::from_ref(element)].concat())
            })
            .collect();
    }
    let is_set = args.iter().all(|list| matches!(list, Value::Set(_)));
    let rows = rows.into_iter().map(Value::List);
    Ok(if is_set {
        Value::Set(rows.collect())
    } else {
        Value::List(rows.collect())
    })
}
