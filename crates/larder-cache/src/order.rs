//! Orders of records in which each comes after all it refers to.

use crate::record::Record;

/// Returns the indexes of `records` so that each comes after all it refers to; `None` if some
/// refer to each other in a circle. All links must lead into the list.
pub(crate) fn strict(records: &[Record]) -> Option<Vec<usize>> {
    let mut missing: Vec<usize> = records
        .iter()
        .map(|record| record.inputs.iter().map(Vec::len).sum())
        .collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); records.len()];
    for (index, record) in records.iter().enumerate() {
        for link in record.inputs.iter().flatten() {
            children[link.record].push(index);
        }
    }
    let mut order: Vec<usize> = (0..records.len()).filter(|&i| missing[i] == 0).collect();
    let mut next = 0;
    while let Some(&index) = order.get(next) {
        next += 1;
        for &child in &children[index] {
            missing[child] -= 1;
            if missing[child] == 0 {
                order.push(child);
            }
        }
    }
    (order.len() == records.len()).then_some(order)
}

/// Makes an order as [`strict`] does, with links left out where none exists otherwise.
///
/// Where records refer to each other in circles, those come next that have an alternative for
/// every input already; what they refer to beyond that is left out. Records that can't be reached
/// by any combination of alternatives are left out as a whole. Which these are does not depend on
/// the order of `records`.
pub(crate) fn relaxed(records: &mut [Record]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut done = vec![false; records.len()];
    loop {
        let ready = |all: bool| -> Vec<usize> {
            let is_ready = |record: &Record| {
                record.inputs.iter().all(|input| {
                    let mut known = input.iter().map(|link| done[link.record]);
                    if all && !input.is_empty() {
                        known.all(|known| known)
                    } else {
                        known.any(|known| known)
                    }
                })
            };
            (0..records.len())
                .filter(|&index| !done[index] && is_ready(&records[index]))
                .collect()
        };
        let mut batch = ready(true);
        if batch.is_empty() {
            batch = ready(false);
        }
        if batch.is_empty() {
            return order;
        }
        for &index in &batch {
            for input in &mut records[index].inputs {
                input.retain(|link| done[link.record]);
            }
        }
        for index in batch {
            done[index] = true;
            order.push(index);
        }
    }
}
