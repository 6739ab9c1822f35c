//! The tables, and how older ones become the present ones.

use rusqlite::{Connection, TransactionBehavior};

use crate::Result;

/// The present format, in the database's `user_version`.
///
/// A store of a lower version is migrated by the first process that opens it; one of a higher
/// version is refused.
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Step `n` leads from version `n` to `n + 1`. Once released, a step never changes.
const MIGRATIONS: [&str; 8] = [
    include_str!("v1.sql"),
    include_str!("v2.sql"),
    include_str!("v3.sql"),
    include_str!("v4.sql"),
    include_str!("v5.sql"),
    include_str!("v6.sql"),
    include_str!("v7.sql"),
    include_str!("v8.sql"),
];

pub(super) fn version(connection: &Connection) -> Result<i64> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

pub(super) fn migrate(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from = usize::try_from(version(&transaction)?).unwrap_or(0);
    for step in MIGRATIONS.iter().skip(from) {
        transaction.execute_batch(step)?;
    }
    if from < MIGRATIONS.len() {
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(())
}
