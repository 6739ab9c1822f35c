//! Health checks: a command that runs beside a service, again and again.

use std::fs::File;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use larder_engine::{CancelFlag, Container, ProcessRequest};
use larder_oci::ContainerConfig;

use super::super::spec::CheckSpec;
use super::super::state::Health;
use super::Life;

/// As Docker has them where neither service nor image says otherwise.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// A health check with all it needs.
#[derive(Debug, PartialEq)]
pub(super) struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Check {
    /// Returns the service's check, which is the image's where the service does not say otherwise;
    /// `None` if there is none.
    pub(super) fn new(spec: &CheckSpec, config: &ContainerConfig) -> Option<Self> {
        let of_image = config.healthcheck.clone().unwrap_or_default();
        let test = spec.test.clone().unwrap_or(of_image.test);
        let command = match test.split_first() {
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
            Some((kind, [line])) if kind == "CMD-SHELL" => {
                let shell = ["/bin/sh".to_owned(), "-c".to_owned()];
                let shell = if config.shell.is_empty() {
                    &shell[..]
                } else {
                    &config.shell
                };
                shell.iter().cloned().chain([line.clone()]).collect()
            }
            _ => return None,
        };
        // 0 means that nothing is said.
        let time = |own: Option<Duration>, nanos: i64, default: Duration| {
            let of_image = u64::try_from(nanos).ok().map(Duration::from_nanos);
            let given = |time: &Duration| !time.is_zero();
            own.filter(given)
                .or(of_image.filter(given))
                .unwrap_or(default)
        };
        let retries = spec.retries.filter(|count| *count > 0);
        let retries = retries.or(u32::try_from(of_image.retries)
            .ok()
            .filter(|count| *count > 0));
        Some(Self {
            command,
            interval: time(spec.interval, of_image.interval, INTERVAL),
            timeout: time(spec.timeout, of_image.timeout, TIMEOUT),
            start_period: time(spec.start_period, of_image.start_period, Duration::ZERO),
            start_interval: time(spec.start_interval, of_image.start_interval, START_INTERVAL),
            retries: retries.unwrap_or(RETRIES),
        })
    }

    /// Runs the command once. Returns whether it says that all is well.
    fn passes(&self, container: &Container, end: &CancelFlag) -> bool {
        let open = || -> std::io::Result<[std::os::fd::OwnedFd; 3]> {
            let input = File::open("/dev/null")?;
            let output = File::options().write(true).open("/dev/null")?;
            Ok([input.into(), output.try_clone()?.into(), output.into()])
        };
        let Ok(stdio) = open() else {
            return false;
        };
        let process = ProcessRequest {
            args: self.command.clone(),
            stdio,
            signals: None,
        };
        matches!(container.run(process, end), Ok(0))
    }
}

/// Whether what is watched has ended, and the check that runs meanwhile.
#[derive(Default)]
struct Watch {
    is_over: bool,
    running: Option<CancelFlag>,
}

/// Does `work`, and checks meanwhile.
pub(super) fn watched<T>(
    check: &Check,
    container: &Container,
    life: &Life,
    work: impl FnOnce() -> T,
) -> T {
    // Before the process starts: whoever waits for it sees that there is a check.
    set(life, Health::Starting);
    let watch = (Mutex::new(Watch::default()), Condvar::new());
    std::thread::scope(|scope| {
        scope.spawn(|| check_until_over(check, container, life, &watch));
        let done = work();
        let mut state = watch.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_over = true;
        if let Some(running) = &state.running {
            running.set();
        }
        watch.1.notify_all();
        drop(state);
        done
    })
}

fn check_until_over(
    check: &Check,
    container: &Container,
    life: &Life,
    watch: &(Mutex<Watch>, Condvar),
) {
    let started = Instant::now();
    let mut failures = 0;
    let mut is_starting = true;
    loop {
        let is_in_start = is_starting && started.elapsed() < check.start_period;
        let pause = if is_in_start {
            check.start_interval.min(check.interval)
        } else {
            check.interval
        };
        if is_over_within(watch, pause) {
            return;
        }
        let end = CancelFlag::new();
        let passes = within(check.timeout, &end, watch, || check.passes(container, &end));
        let Some(passes) = passes else {
            return;
        };
        if passes {
            failures = 0;
            is_starting = false;
            set(life, Health::Healthy);
        } else if !(is_starting && started.elapsed() < check.start_period) {
            failures += 1;
            if failures >= check.retries {
                is_starting = false;
                set(life, Health::Unhealthy);
            }
        }
    }
}

/// Does `work`, and sets `end` after `timeout`, or when the watch is over. Returns what it says;
/// `None` when the watch is over.
fn within(
    timeout: Duration,
    end: &CancelFlag,
    watch: &(Mutex<Watch>, Condvar),
    work: impl FnOnce() -> bool,
) -> Option<bool> {
    {
        let mut state = watch.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            return None;
        }
        state.running = Some(end.clone());
    }
    let done = (Mutex::new(false), Condvar::new());
    let passes = std::thread::scope(|scope| {
        scope.spawn(|| {
            let is_done = done.0.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = done
                .1
                .wait_timeout_while(is_done, timeout, |is_done| !*is_done);
            let (is_done, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if !*is_done {
                end.set();
            }
        });
        let passes = work();
        *done.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        done.1.notify_all();
        passes
    });
    let mut state = watch.0.lock().unwrap_or_else(PoisonError::into_inner);
    state.running = None;
    (!state.is_over).then_some(passes)
}

fn is_over_within(watch: &(Mutex<Watch>, Condvar), time: Duration) -> bool {
    let state = watch.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = watch
        .1
        .wait_timeout_while(state, time, |state| !state.is_over);
    let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    state.is_over
}

fn set(life: &Life, health: Health) {
    let has_changed = life.lock().record.health != Some(health);
    if has_changed && let Err(error) = life.update(|record| record.health = Some(health)) {
        tracing::warn!(%error, "the health of a service was not recorded");
    }
}

#[cfg(test)]
mod tests {
    use larder_oci::Healthcheck;

    use super::*;

    #[test]
    fn a_check_is_the_service_s_then_the_image_s() {
        let config = ContainerConfig {
            healthcheck: Some(Healthcheck {
                test: vec!["CMD-SHELL".to_owned(), "probe".to_owned()],
                interval: 2_000_000_000,
                retries: 7,
                ..Healthcheck::default()
            }),
            ..ContainerConfig::default()
        };
        let none = CheckSpec::default();
        let check = Check::new(&none, &config).unwrap();
        assert_eq!(check.command, ["/bin/sh", "-c", "probe"]);
        assert_eq!((check.interval.as_secs(), check.retries), (2, 7));
        assert_eq!(check.timeout, TIMEOUT);
        let own = CheckSpec {
            test: Some(vec!["CMD".to_owned(), "own".to_owned()]),
            retries: Some(1),
            ..CheckSpec::default()
        };
        let check = Check::new(&own, &config).unwrap();
        assert_eq!((check.command, check.retries), (vec!["own".to_owned()], 1));
        let off = CheckSpec {
            test: Some(vec!["NONE".to_owned()]),
            ..CheckSpec::default()
        };
        assert_eq!(Check::new(&off, &config), None);
        assert_eq!(Check::new(&none, &ContainerConfig::default()), None);
    }
}
