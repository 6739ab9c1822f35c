//! Which failures are worth another attempt, and when.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::RETRY_AFTER;

use crate::error::Retry;
use crate::{Config, Error};

/// Attempts at what rarely gets better: a registry to which no connection can be made, an upload
/// that it has refused.
const SELDOM_ATTEMPTS: u32 = 2;

/// Returns whether, after this answer, the same request may do better.
pub(crate) fn retry_of(response: &Response) -> Retry {
    if !matches!(
        response.status().as_u16(),
        408 | 429 | 500 | 502 | 503 | 504
    ) {
        return Retry::Never;
    }
    let seconds = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match seconds {
        Some(seconds) => Retry::After(Duration::from_secs(seconds)),
        None => Retry::Backoff,
    }
}

/// Counts failures in a row, and waits in between.
pub(crate) struct Retries<'a> {
    config: &'a Config,
    host: &'a str,
    failures_count: u32,
}

impl<'a> Retries<'a> {
    pub(crate) fn new(config: &'a Config, host: &'a str) -> Self {
        Self {
            config,
            host,
            failures_count: 0,
        }
    }

    /// Begins to count anew: something was achieved.
    pub(crate) fn reset(&mut self) {
        self.failures_count = 0;
    }

    /// Waits before the next attempt. Returns `error` if there should be none.
    pub(crate) async fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.failures_count += 1;
        let policy = &self.config.retry;
        let attempts_count = match error.retry() {
            Retry::Never => 0,
            Retry::Seldom => policy.attempts_count.min(SELDOM_ATTEMPTS),
            Retry::Backoff | Retry::After(_) => policy.attempts_count,
        };
        let delay = match error.retry() {
            Retry::After(delay) => delay,
            _ => policy.delay(self.failures_count),
        };
        if self.failures_count >= attempts_count || delay > policy.longest_delay {
            return Err(error);
        }
        tracing::debug!(host = self.host, %error, ?delay, "retrying");
        self.config.observer.retrying(self.host, &error, delay);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
