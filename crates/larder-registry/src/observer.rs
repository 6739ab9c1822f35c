use std::time::Duration;

use larder_oci::Descriptor;

use crate::Error;

/// Hears what a client does. Called from the futures that do it, so it must not block.
pub trait Observer: Send + Sync {
    /// `host` wants a token for `scope`, such as `repository:library/python:pull`, and is asked
    /// for one.
    fn token_requested(&self, host: &str, scope: &str) {
        let _ = (host, scope);
    }

    /// Of `blob`, `current_bytes` have arrived in all. Falls back to 0 when a blob is fetched
    /// anew, because what had arrived was wrong.
    fn received(&self, blob: &Descriptor, current_bytes: u64) {
        let _ = (blob, current_bytes);
    }

    /// A request to `host` failed with `error`, and is sent again after `delay`.
    fn retrying(&self, host: &str, error: &Error, delay: Duration) {
        let _ = (host, error, delay);
    }
}

/// Hears nothing.
impl Observer for () {}
