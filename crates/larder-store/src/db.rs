//! The connection to the database, and its transactions.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::{Error, ErrorKind, Result};

mod schema;

pub(crate) use schema::VERSION;

/// How long a writer waits for the others' transactions, all of which take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// The write-ahead log is folded into the database at this length, in pages of 4 KiB. The first
/// process to open the store reads the whole log, so it is kept short.
const CHECKPOINT_PAGES: u64 = 128;
/// A page in the log, and what it says of the page.
const LOG_PAGE_BYTES: u64 = 4096 + 24;
const BEGIN: &str = "BEGIN DEFERRED";
const END: &str = "COMMIT";
/// More than the number of distinct statements of this crate.
const STATEMENT_CACHE: usize = 128;

/// One connection, used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Db(Mutex<State>);

#[derive(Debug)]
struct State {
    connection: Connection,
    /// What the next transaction begins with.
    waiting: Vec<Waiting>,
    /// Whether a transaction is open that [`Db::read_on`] reads by.
    reads_on: bool,
}

type Change = Box<dyn FnOnce(&Transaction<'_>) -> Result<()> + Send>;

/// A change that waits for a transaction, and what is to be let go when it is committed.
struct Waiting {
    change: Change,
    guard: Box<dyn Send>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiting")
    }
}

impl Db {
    /// Opens the database at `path`, which must exist and have the present schema; `None` if it
    /// doesn't, so that it has to be made or migrated first.
    ///
    /// # Errors
    /// `Denied` if it can't be written, `Invalid` if a newer version of larder wrote it.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let connection = match connect(path, OpenFlags::empty()) {
            Ok(connection) => connection,
            Err(_) if !path.exists() => return Ok(None),
            Err(error) => return Err(error),
        };
        match schema::version(&connection)? {
            VERSION => Ok(Some(Self(Mutex::new(State {
                connection,
                waiting: Vec::new(),
                reads_on: false,
            })))),
            newer if newer > VERSION => Err(Error::invalid(format_args!(
                "the state directory was written by a newer larder (format {newer}, known is {VERSION})"
            ))),
            _ => Ok(None),
        }
    }

    /// Makes or migrates the database at `path`. The caller excludes other processes from doing
    /// the same.
    pub(crate) fn migrate(path: &Path) -> Result<()> {
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_CREATE)?;
        let is_new = schema::version(&connection)? == 0;
        if is_new {
            // Four waits for the disk less. The tables are in the log, which counts as far as it is
            // whole, and are made again if it is not.
            connection.pragma_update(None, "synchronous", "OFF")?;
        }
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        schema::migrate(&mut connection)?;
        if is_new {
            let sync = || std::fs::File::open(path)?.sync_all();
            let failed = |error| Error::io("cannot write the state database", error);
            sync().map_err(failed)?;
        }
        Ok(())
    }

    /// Runs `body` on one consistent state of the database.
    pub(crate) fn read<T>(&self, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut state = self.flushed()?;
        state.stop_reading_on()?;
        let reading = Reading::begin(&state.connection)?;
        body(reading.connection)
    }

    /// As [`Db::read`], on the state of the database that the last call of this read, unless this process
    /// has used the database otherwise since: a transaction costs as much as the look-up of a row.
    pub(crate) fn read_on<T>(&self, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut state = self.flushed()?;
        if !state.reads_on {
            state.connection.prepare_cached(BEGIN)?.execute([])?;
            state.reads_on = true;
        }
        body(&state.connection)
    }

    /// Lets the next [`Db::read_on`] read what is there then.
    pub(crate) fn stop_reading_on(&self) -> Result<()> {
        self.state().stop_reading_on()
    }

    /// Runs `body` with the database locked for writing; what it wrote stays if it succeeds.
    ///
    /// The commit survives the end of the process, not necessarily that of the machine.
    pub(crate) fn write<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        // Let go when the connection is free again.
        let mut guards = Vec::new();
        let state = &mut *self.state();
        state.stop_reading_on()?;
        let State {
            connection,
            waiting,
            ..
        } = state;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for Waiting { change, guard } in waiting.drain(..) {
            guards.push(guard);
            change(&transaction)?;
        }
        let savepoint = !guards.is_empty();
        if savepoint {
            transaction.execute_batch("SAVEPOINT body")?;
        }
        let outcome = body(&transaction);
        if savepoint && outcome.is_err() {
            transaction.execute_batch("ROLLBACK TO body")?;
        }
        if savepoint || outcome.is_ok() {
            transaction.commit()?;
        }
        outcome
    }

    /// Has `change` made at the beginning of the next transaction, of whatever thread and kind, and `guard`
    /// dropped after its commit. An error of it is one of that transaction.
    ///
    /// So this process finds the change made, and others do as soon as it uses the database again.
    pub(crate) fn write_soon(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<()> + Send + 'static,
        guard: impl Send + 'static,
    ) {
        self.state().waiting.push(Waiting {
            change: Box::new(change),
            guard: Box::new(guard),
        });
    }

    /// Makes the changes that wait.
    pub(crate) fn flush(&self) -> Result<()> {
        self.flushed().map(drop)
    }

    /// Makes the changes that wait, and returns what has none.
    fn flushed(&self) -> Result<MutexGuard<'_, State>> {
        loop {
            let state = self.state();
            if state.waiting.is_empty() {
                return Ok(state);
            }
            drop(state);
            self.write(|_| Ok(()))?;
        }
    }

    /// Cuts off the log, which lies at `path`, if it was long enough for the last commit to fold it into the
    /// database; somebody who reads it prevents both. By itself SQLite begins a log anew only with a commit of a
    /// process that has folded it before, and most commit once.
    pub(crate) fn cut_log(&self, path: &Path) -> Result<()> {
        let length_bytes = std::fs::metadata(path).map_or(0, |log| log.len());
        if length_bytes < CHECKPOINT_PAGES * LOG_PAGE_BYTES {
            return Ok(());
        }
        let mut state = self.flushed()?;
        state.stop_reading_on()?;
        let connection = &state.connection;
        connection.busy_timeout(Duration::ZERO)?;
        let cut = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(cut?)
    }

    /// As [`Db::write`], and the commit has reached the disk on return: for removals, after
    /// which files go away that an older state of the database refers to.
    pub(crate) fn write_durably<T>(
        &self,
        body: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.flushed()?;
        state.stop_reading_on()?;
        let connection = &mut state.connection;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let outcome = (|| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        outcome
    }

    /// A panic in a transaction has rolled it back, so the connection is as good as before.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn stop_reading_on(&mut self) -> Result<()> {
        if std::mem::take(&mut self.reads_on) {
            self.connection.prepare_cached(END)?.execute([])?;
        }
        Ok(())
    }
}

/// A transaction that reads. Its statements are kept: to parse them takes as long as a look-up.
struct Reading<'a> {
    connection: &'a Connection,
}

impl<'a> Reading<'a> {
    fn begin(connection: &'a Connection) -> Result<Self> {
        connection.prepare_cached(BEGIN)?.execute([])?;
        Ok(Self { connection })
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let ended = self.connection.prepare_cached(END);
        let ended = ended.and_then(|mut end| end.execute([]));
        if let Err(error) = ended {
            tracing::debug!(%error, "a transaction that only read is rolled back");
            // It fails if there is none any more.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

fn connect(path: &Path, extra: OpenFlags) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
    let connection = Connection::open_with_flags(path, flags)?;
    if connection.is_readonly(rusqlite::MAIN_DB)? {
        return Err(Error::new(
            ErrorKind::Denied,
            "the state database can't be written by this user",
        ));
    }
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // The last process to close would fold the log into the database and wait for the disk; that
    // is left to the writer that makes the log too long.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // A log that begins anew takes no more room than what is in it: its length is that of what is read.
    connection.execute_batch(&format!(
        "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; \
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA journal_size_limit = 0;"
    ))?;
    Ok(connection)
}

/// Returns a time as the database holds it: nanoseconds since 1970.
pub(crate) fn to_nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// Returns a time that the database holds.
pub(crate) fn from_nanos(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}
