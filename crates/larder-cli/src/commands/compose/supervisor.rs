//! The process that runs one service: it makes the container, starts it again if it shall, checks
//! its health, and ends it when it is asked to.
//!
//! SIGTERM and SIGINT ask for the end: the service gets its stop signal and its grace period, then
//! SIGKILL. The second of them kills at once. The container dies with the supervisor in any case.

mod health;

use std::fs::File;
use std::io::{self, PipeWriter, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use larder_engine::{BuildError, CancelFlag, Container, ErrorClass, ProcessRequest};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Context;
use super::spec::{RestartSpec, Spec};
use super::state::{Record, ServiceState, Status};

/// How long the first restart waits; each further one waits twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest wait before a restart.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// A service that ran this long begins anew with the shortest wait.
const IS_STABLE: Duration = Duration::from_secs(10);

/// Runs the service whose directory is `directory`, until it ends for good.
pub(super) fn run(directory: PathBuf, context: &Context<'_>) -> anyhow::Result<()> {
    // Signals of the terminal are for the command that started it.
    rustix::process::setsid().ok();
    let state = ServiceState::at(directory);
    let _lock = state.acquire().context("cannot lock the service")?;
    let life = Arc::new(Life::new(state.clone()));
    life.update(|_| {})?;
    if let Err(error) = supervise(&state, &life, context) {
        let message = format!("{error:#}");
        if let Ok(mut log) = state.open_log() {
            // The record says it, too.
            let _ = writeln!(log, "{message}");
        }
        life.update(|record| record.status = Status::Failed(message))?;
    }
    Ok(())
}

fn supervise(state: &ServiceState, life: &Arc<Life>, context: &Context<'_>) -> anyhow::Result<()> {
    let spec = state.spec().context("the service is not described")?;
    // Before there is a second thread: a user's namespace is entered with the engine.
    let engine = context.engine()?;
    listen(Arc::clone(life)).context("cannot listen for signals")?;
    let container = engine.container(spec.container()?, &life.kill)?;
    life.set_stop_signal(&spec, &container)?;
    let args = container.command(spec.entrypoint.as_deref(), spec.command.as_deref())?;
    let check = health::Check::new(&spec.healthcheck, container.config());
    let mut delay = FIRST_DELAY;
    loop {
        let started = Instant::now();
        let code = match &check {
            Some(check) => health::watched(check, &container, life, || {
                run_once(&container, &args, state, life)
            }),
            None => run_once(&container, &args, state, life),
        }?;
        let restarts = life.lock().record.restarts;
        if life.is_stopping() || !starts_again(spec.restart, code, restarts) {
            life.update(|record| record.status = Status::Exited(code))?;
            return Ok(());
        }
        if started.elapsed() > IS_STABLE {
            delay = FIRST_DELAY;
        }
        if life.stops_within(delay) {
            life.update(|record| record.status = Status::Exited(code))?;
            return Ok(());
        }
        delay = (delay * 2).min(MAX_DELAY);
        life.update(|record| record.restarts += 1)?;
    }
}

/// Runs the service's process to its end. Returns its exit code.
fn run_once(
    container: &Container,
    args: &[String],
    state: &ServiceState,
    life: &Life,
) -> anyhow::Result<i32> {
    let log = state.open_log().context("cannot open the log")?;
    let (signals, forward) = io::pipe().context("cannot make a pipe for signals")?;
    life.started(forward)?;
    let process = ProcessRequest {
        args: args.to_vec(),
        stdio: [
            File::open("/dev/null")?.into(),
            log.try_clone()?.into(),
            log.into(),
        ],
        signals: Some(signals.into()),
    };
    let ended = container.run(process, &life.kill);
    life.lock().forward = None;
    match ended {
        Err(error) if is_canceled(&error) => Ok(137),
        other => Ok(other?),
    }
}

fn is_canceled(error: &BuildError) -> bool {
    error.class() == ErrorClass::Canceled
}

fn starts_again(restart: RestartSpec, code: i32, restarts: u32) -> bool {
    match restart {
        RestartSpec::No => false,
        RestartSpec::Always => true,
        RestartSpec::OnFailure(limit) => code != 0 && limit.is_none_or(|limit| restarts < limit),
    }
}

/// What the threads of a supervisor share.
struct Life {
    state: ServiceState,
    inner: Mutex<Inner>,
    /// Told when the service shall stop.
    stop: Condvar,
    /// Kills all processes of the service.
    kill: CancelFlag,
}

struct Inner {
    record: Record,
    is_stopping: bool,
    stop_signal: u8,
    grace: Duration,
    /// Takes signals for the running process.
    forward: Option<PipeWriter>,
}

impl Life {
    fn new(state: ServiceState) -> Self {
        let record = Record {
            pid: std::process::id(),
            status: Status::Starting,
            started_at: Timestamp::now(),
            health: None,
            restarts: 0,
        };
        Self {
            state,
            inner: Mutex::new(Inner {
                record,
                is_stopping: false,
                stop_signal: SIGTERM as u8,
                grace: Duration::ZERO,
                forward: None,
            }),
            stop: Condvar::new(),
            kill: CancelFlag::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record, and writes it.
    fn update(&self, change: impl FnOnce(&mut Record)) -> anyhow::Result<()> {
        let mut inner = self.lock();
        change(&mut inner.record);
        // Written beneath the lock, so that the last change is the last to be written.
        self.state.write_record(&inner.record)
    }

    fn set_stop_signal(&self, spec: &Spec, container: &Container) -> anyhow::Result<()> {
        let of_image = Some(&container.config().stop_signal).filter(|name| !name.is_empty());
        let name = spec.stop_signal.as_ref().or(of_image);
        let signal = name.map_or(Ok(SIGTERM as u8), |name| {
            signal_number(name).with_context(|| format!("`{name}` is no signal"))
        })?;
        let mut inner = self.lock();
        inner.stop_signal = signal;
        inner.grace = spec.grace;
        Ok(())
    }

    /// Notes that the process starts, and which pipe takes its signals.
    fn started(&self, forward: PipeWriter) -> anyhow::Result<()> {
        let mut inner = self.lock();
        inner.forward = Some(forward);
        inner.record.status = Status::Running;
        inner.record.started_at = Timestamp::now();
        if inner.is_stopping {
            // Asked to end while it was started.
            self.kill.set();
        }
        self.state.write_record(&inner.record)
    }

    fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// Waits for a time, unless the service is to stop. Returns whether it is.
    fn stops_within(&self, time: Duration) -> bool {
        let inner = self.lock();
        let waited = self
            .stop
            .wait_timeout_while(inner, time, |inner| !inner.is_stopping);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inner.is_stopping
    }

    /// Asks the service to end; kills it when it was asked before, or doesn't end in time.
    fn ask_to_stop(self: &Arc<Self>) {
        let mut inner = self.lock();
        if inner.is_stopping {
            self.kill.set();
            return;
        }
        inner.is_stopping = true;
        let signal = inner.stop_signal;
        let is_heard = match &mut inner.forward {
            Some(forward) => forward.write_all(&[signal]).is_ok(),
            None => false,
        };
        let grace = inner.grace;
        drop(inner);
        self.stop.notify_all();
        let life = Arc::clone(self);
        let timer = std::thread::Builder::new().name("grace".to_owned());
        let timer = timer.spawn(move || {
            std::thread::sleep(grace);
            life.kill.set();
        });
        if timer.is_err() || (!is_heard && grace.is_zero()) {
            self.kill.set();
        }
    }
}

/// Listens for signals in a thread that ends with the process.
fn listen(life: Arc<Life>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                life.ask_to_stop();
            }
        })?;
    Ok(())
}

/// Returns a signal's number: `SIGTERM`, `TERM` or `15`.
fn signal_number(name: &str) -> Option<u8> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    if let Ok(number) = short.parse::<u8>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let number = match short {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "TERM" => 15,
        "WINCH" => 28,
        _ => return None,
    };
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (name, expect) in [
            ("SIGTERM", Some(15)),
            ("INT", Some(2)),
            ("9", Some(9)),
            ("SIGNOPE", None),
            ("0", None),
            ("", None),
        ] {
            assert_eq!(signal_number(name), expect, "{name}");
        }
    }

    #[test]
    fn restarts_follow_their_policy() {
        for (restart, code, restarts, expect) in [
            (RestartSpec::No, 1, 0, false),
            (RestartSpec::Always, 0, 9, true),
            (RestartSpec::OnFailure(None), 0, 0, false),
            (RestartSpec::OnFailure(None), 1, 99, true),
            (RestartSpec::OnFailure(Some(2)), 1, 1, true),
            (RestartSpec::OnFailure(Some(2)), 1, 2, false),
        ] {
            assert_eq!(
                starts_again(restart, code, restarts),
                expect,
                "{restart:?} {code}"
            );
        }
    }
}
