//! Tells the sink what happens to a vertex.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use larder_oci::Digest;

use crate::event::{
    BuildEvent, EventSink, LogEvent, LogStream, MissCause, MissEvent, ProgressGroup, StatusEvent,
    VertexEvent, WarningEvent,
};

/// How often the state of one status is told while bytes move.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// The sink of one run, with its clock.
pub(crate) struct Reporter<'a> {
    sink: &'a dyn EventSink,
    clock: &'a (dyn Fn() -> Timestamp + Send + Sync),
    /// Serializes the events of all threads; the vertices of which nothing more is told.
    told: Arc<Mutex<HashSet<Digest>>>,
    /// What all names begin with: that of the target, where there are several.
    prefix: Option<String>,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(
        sink: &'a dyn EventSink,
        clock: &'a (dyn Fn() -> Timestamp + Send + Sync),
    ) -> Self {
        Self {
            sink,
            clock,
            told: Arc::default(),
            prefix: None,
        }
    }

    /// Returns a reporter whose names begin with that of a target, if there is one.
    pub(crate) fn for_target(&self, name: Option<&str>) -> Self {
        Self {
            sink: self.sink,
            clock: self.clock,
            told: Arc::clone(&self.told),
            prefix: name.map(str::to_owned),
        }
    }

    fn named(&self, name: &str) -> String {
        match &self.prefix {
            None => name.to_owned(),
            Some(target) => of_target(target, name),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn send(&self, event: BuildEvent) {
        let told = self.told();
        let vertex = match &event {
            BuildEvent::Vertex(vertex) => Some(&vertex.digest),
            BuildEvent::Status(status) => Some(&status.vertex),
            _ => None,
        };
        if !vertex.is_some_and(|vertex| told.contains(vertex)) {
            self.sink.event(event);
        }
    }

    /// Takes note that vertices were done before the build, and told of: it finds them done.
    pub(crate) fn told_of<'v>(&self, vertices: impl IntoIterator<Item = &'v Digest>) {
        self.told().extend(vertices.into_iter().cloned());
    }

    fn told(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of something that does not stop the build.
    pub(crate) fn warning(&self, warning: WarningEvent) {
        self.send(BuildEvent::Warning(warning));
    }

    /// Announces a vertex that stands for work outside the graph, and starts it. `seed` tells
    /// apart vertices of equal names.
    pub(crate) fn begin_internal(&self, name: &str, seed: &str) -> VertexProgress<'_> {
        let named = self.named(name);
        let digest = Digest::sha256(format!("larder.internal\0{seed}\0{named}"));
        self.begin(digest, Vec::new(), name, None)
    }

    /// Announces a vertex and starts it.
    pub(crate) fn begin(
        &self,
        digest: Digest,
        inputs: Vec<Digest>,
        name: &str,
        progress_group: Option<ProgressGroup>,
    ) -> VertexProgress<'_> {
        let progress = self.announced(digest, inputs, name, progress_group);
        progress.start()
    }

    /// Returns the handle of a vertex that is known and has not started.
    pub(crate) fn announced(
        &self,
        digest: Digest,
        inputs: Vec<Digest>,
        name: &str,
        progress_group: Option<ProgressGroup>,
    ) -> VertexProgress<'_> {
        let progress_group = progress_group.map(|group| ProgressGroup {
            id: match &self.prefix {
                // Equal steps of several targets are not one.
                Some(prefix) => format!("{prefix}/{}", group.id),
                None => group.id,
            },
            name: self.named(&group.name),
            weak: group.weak,
        });
        let event = VertexEvent {
            digest,
            inputs,
            name: self.named(name),
            started: None,
            completed: None,
            cached: false,
            error: None,
            progress_group,
        };
        VertexProgress {
            reporter: self,
            event,
        }
    }
}

/// Returns the name of a target's vertex as buildx shows it: `[target 2/3] RUN make`. A target without
/// a name is not shown.
pub(crate) fn of_target(target: &str, name: &str) -> String {
    if target.is_empty() {
        return name.to_owned();
    }
    match name.strip_prefix('[') {
        Some(rest) => format!("[{target} {rest}"),
        None => format!("[{target}] {name}"),
    }
}

/// The state of one vertex, told as it changes.
#[derive(Clone)]
pub(crate) struct VertexProgress<'a> {
    reporter: &'a Reporter<'a>,
    event: VertexEvent,
}

impl<'a> VertexProgress<'a> {
    /// Tells that the vertex exists.
    pub(crate) fn announce(&self) {
        self.reporter.send(BuildEvent::Vertex(self.event.clone()));
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.event.digest
    }

    /// Tells that the work began; once more, if what was found turned out to be lost.
    pub(crate) fn start(mut self) -> Self {
        self.event.started = Some(self.reporter.now());
        self.event.completed = None;
        self.event.cached = false;
        self.announce();
        self
    }

    /// Tells that the vertex was done, and how long it took.
    pub(crate) fn complete(&mut self) -> Duration {
        self.end(false, None)
    }

    /// Tells that the result was found.
    pub(crate) fn cached(&mut self) {
        self.end(true, None);
    }

    pub(crate) fn fail(&mut self, error: &str) -> Duration {
        self.end(false, Some(error.to_owned()))
    }

    fn end(&mut self, cached: bool, error: Option<String>) -> Duration {
        let now = self.reporter.now();
        let started = *self.event.started.get_or_insert(now);
        self.event.completed = Some(now);
        self.event.cached = cached;
        self.event.error = error;
        self.announce();
        Duration::try_from(now.duration_since(started)).unwrap_or_default()
    }

    /// Starts a part of the work.
    pub(crate) fn status(&self, id: impl Into<String>, total: u64) -> StatusProgress<'a> {
        let now = self.reporter.now();
        let event = StatusEvent {
            id: id.into(),
            vertex: self.event.digest.clone(),
            current: 0,
            total,
            timestamp: now,
            started: Some(now),
            completed: None,
        };
        self.reporter.send(BuildEvent::Status(event.clone()));
        StatusProgress {
            reporter: self.reporter,
            state: Mutex::new(event),
        }
    }

    /// Tells of a part of the work that is already done.
    pub(crate) fn status_done(&self, id: impl Into<String>) {
        self.status(id, 0).done();
    }

    pub(crate) fn log(&self, stream: LogStream, data: &[u8]) {
        self.reporter.send(BuildEvent::Log(LogEvent {
            vertex: self.event.digest.clone(),
            stream,
            data: data.to_vec(),
            timestamp: self.reporter.now(),
        }));
    }

    /// Tells why the vertex was not cached.
    pub(crate) fn miss(&self, cause: MissCause) {
        self.reporter.send(BuildEvent::Miss(MissEvent {
            vertex: self.event.digest.clone(),
            cause,
        }));
    }

    pub(crate) fn warn(&self, short: impl Into<String>) {
        self.reporter.send(BuildEvent::Warning(WarningEvent {
            vertex: self.event.digest.clone(),
            level: 1,
            short: short.into(),
            detail: Vec::new(),
            url: String::new(),
            source: None,
            ranges: Vec::new(),
        }));
    }
}

/// A part of a vertex's work.
pub(crate) struct StatusProgress<'a> {
    reporter: &'a Reporter<'a>,
    state: Mutex<StatusEvent>,
}

impl StatusProgress<'_> {
    /// Tells how many bytes are done, unless that was told a moment ago.
    pub(crate) fn set(&self, current: u64) {
        let now = self.reporter.now();
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state.current = current;
        let since = Duration::try_from(now.duration_since(state.timestamp)).unwrap_or_default();
        if since >= STATUS_INTERVAL {
            state.timestamp = now;
            self.reporter.send(BuildEvent::Status(state.clone()));
        }
    }

    /// Tells that this part is done.
    pub(crate) fn done(self) {
        drop(self);
    }
}

/// A part that is given up ends, too: the end of a vertex is shown when all its parts have ended.
impl Drop for StatusProgress<'_> {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let state = state.unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = self.reporter.now();
        state.timestamp = now;
        state.completed = Some(now);
        self.reporter.send(BuildEvent::Status(state.clone()));
    }
}
