//! Lists and objects.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::{Done, exactly};
use crate::error::Error;
use crate::eval;
use crate::value::Value;

/// More numbers than any `range` has in HCL.
const MAX_RANGE: usize = 1024;

pub(super) fn length(args: &[Value]) -> Done {
    let [value] = exactly(args)?;
    let count = match value {
        Value::List(elements) => elements.len(),
        Value::Set(elements) => elements.len(),
        Value::Object(entries) => entries.len(),
        other => return Err(other.mismatch("list")),
    };
    Ok(Value::integer(count as u64))
}

pub(super) fn keys(args: &[Value]) -> Done {
    let [object] = exactly(args)?;
    Ok(Value::texts(object.entries()?.keys()))
}

pub(super) fn values(args: &[Value]) -> Done {
    let [object] = exactly(args)?;
    Ok(Value::List(object.entries()?.values().cloned().collect()))
}

/// `lookup(object, key, default)`
pub(super) fn lookup(args: &[Value]) -> Done {
    let (object, key, default) = match args {
        [object, key] => (object, key, None),
        [object, key, default] => (object, key, Some(default)),
        _ => {
            return Err(Error::definition(
                "an object, a key and a default are required",
            ));
        }
    };
    let key = key.to_text()?;
    object
        .entries()?
        .get(&key)
        .or(default)
        .cloned()
        .ok_or_else(|| Error::definition(format!("the object has no key `{key}`")))
}

pub(super) fn merge(args: &[Value]) -> Done {
    let mut merged = BTreeMap::new();
    for object in args.iter().filter(|object| **object != Value::Null) {
        merged.extend(object.entries()?.clone());
    }
    Ok(Value::Object(merged))
}

pub(super) fn zipmap(args: &[Value]) -> Done {
    let [keys, values] = exactly(args)?;
    let (keys, values) = (keys.elements()?, values.elements()?);
    if keys.len() != values.len() {
        return Err(Error::definition(format!(
            "there are {} keys for {} values",
            keys.len(),
            values.len()
        )));
    }
    let entries = keys
        .iter()
        .zip(values)
        .map(|(key, value)| Ok((key.to_text()?, value)));
    entries.collect::<Result<_, Error>>().map(Value::Object)
}

pub(super) fn concat(args: &[Value]) -> Done {
    if args.is_empty() {
        return Err(Error::definition("at least one list is required"));
    }
    let mut all = Vec::new();
    for list in args {
        all.extend(list.elements()?);
    }
    Ok(Value::List(all))
}

pub(super) fn contains(args: &[Value]) -> Done {
    let [list, value] = exactly(args)?;
    Ok(Value::Bool(list.elements()?.contains(value)))
}

pub(super) fn distinct(args: &[Value]) -> Done {
    let [list] = exactly(args)?;
    let mut seen = std::collections::BTreeSet::new();
    let mut elements = list.elements()?;
    elements.retain(|element| seen.insert(element.clone()));
    Ok(Value::List(elements))
}

/// Leaves out empty texts.
pub(super) fn compact(args: &[Value]) -> Done {
    let [list] = exactly(args)?;
    let mut elements = list.elements()?;
    elements.retain(|element| !matches!(element, Value::Null) && *element != Value::text(""));
    Ok(Value::List(elements))
}

pub(super) fn reverselist(args: &[Value]) -> Done {
    let [list] = exactly(args)?;
    let mut elements = list.elements()?;
    elements.reverse();
    Ok(Value::List(elements))
}

/// Sorts texts.
pub(super) fn sort(args: &[Value]) -> Done {
    let [list] = exactly(args)?;
    let mut texts: Vec<String> = list
        .elements()?
        .iter()
        .map(Value::to_text)
        .collect::<Result<_, _>>()?;
    texts.sort();
    Ok(Value::texts(texts))
}

pub(super) fn flatten(args: &[Value]) -> Done {
    let [list] = exactly(args)?;
    let mut flat = Vec::new();
    flatten_into(list.elements()?, &mut flat);
    Ok(Value::List(flat))
}

fn flatten_into(elements: Vec<Value>, flat: &mut Vec<Value>) {
    for element in elements {
        match element {
            Value::List(inner) => flatten_into(inner, flat),
            Value::Set(inner) => flatten_into(inner.into_iter().collect(), flat),
            other => flat.push(other),
        }
    }
}

/// `element(list, index)`, where the index starts over at the end.
pub(super) fn element(args: &[Value]) -> Done {
    let [list, index] = exactly(args)?;
    let elements = list.elements()?;
    if elements.is_empty() {
        return Err(Error::definition("the list is empty"));
    }
    let at = index.to_whole()?.rem_euclid(elements.len() as i64);
    Ok(elements[at as usize].clone())
}

pub(super) fn index(args: &[Value]) -> Done {
    let [collection, key] = exactly(args)?;
    eval::index(collection, key)
}

pub(super) fn hasindex(args: &[Value]) -> Done {
    let [collection, key] = exactly(args)?;
    Ok(Value::Bool(eval::index(collection, key).is_ok()))
}

pub(super) fn indexof(args: &[Value]) -> Done {
    let [list, value] = exactly(args)?;
    list.elements()?
        .iter()
        .position(|element| element == value)
        .map(|index| Value::integer(index as u64))
        .ok_or_else(|| Error::definition("item not found"))
}

/// `slice(list, start, end)`
pub(super) fn slice(args: &[Value]) -> Done {
    let [list, start, end] = exactly(args)?;
    let (elements, start, end) = (list.elements()?, start.to_index()?, end.to_index()?);
    elements
        .get(start..end)
        .map(|part| Value::List(part.to_vec()))
        .ok_or_else(|| {
            Error::definition(format!(
                "a list of {} has no slice {start} to {end}",
                elements.len()
            ))
        })
}

pub(super) fn chunklist(args: &[Value]) -> Done {
    let [list, size] = exactly(args)?;
    let (elements, size) = (list.elements()?, size.to_index()?);
    // Zero means no limit.
    let size = if size == 0 {
        elements.len().max(1)
    } else {
        size
    };
    Ok(Value::List(
        elements
            .chunks(size)
            .map(|chunk| Value::List(chunk.to_vec()))
            .collect(),
    ))
}

pub(super) fn coalesce(args: &[Value]) -> Done {
    args.iter()
        .find(|value| **value != Value::Null)
        .cloned()
        .ok_or_else(|| Error::definition("all arguments are null"))
}

pub(super) fn coalescelist(args: &[Value]) -> Done {
    for list in args.iter().filter(|list| **list != Value::Null) {
        let elements = list.elements()?;
        if !elements.is_empty() {
            return Ok(Value::List(elements));
        }
    }
    Err(Error::definition("all lists are empty"))
}

/// `range(end)`, `range(start, end)` or `range(start, end, step)`
pub(super) fn range(args: &[Value]) -> Done {
    let numbers: Vec<Decimal> = args
        .iter()
        .map(Value::to_number)
        .collect::<Result<_, _>>()?;
    let (start, end, step) = match *numbers.as_slice() {
        [end] => (Decimal::ZERO, end, None),
        [start, end] => (start, end, None),
        [start, end, step] => (start, end, Some(step)),
        _ => return Err(Error::definition("1 to 3 numbers are required")),
    };
    let step = step.unwrap_or(if start <= end {
        Decimal::ONE
    } else {
        -Decimal::ONE
    });
    if step.is_zero() || (start < end) != step.is_sign_positive() && start != end {
        return Err(Error::definition("the step does not lead to the end"));
    }
    let mut numbers = Vec::new();
    let mut next = start;
    while if step.is_sign_positive() {
        next < end
    } else {
        next > end
    } {
        if numbers.len() == MAX_RANGE {
            return Err(Error::definition("more than 1024 numbers"));
        }
        numbers.push(Value::Number(next));
        next = next
            .checked_add(step)
            .ok_or_else(|| Error::definition("the result is out of the range of numbers"))?;
    }
    Ok(Value::List(numbers))
}
