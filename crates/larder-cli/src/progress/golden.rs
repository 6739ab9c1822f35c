//! Renderers against what BuildKit shows of the same builds.

mod plain;
mod rawjson;
mod tty;

use jiff::{SignedDuration, Timestamp};
use larder_engine::event::{
    BuildEvent, LogEvent, LogStream, MissCause, MissEvent, SourceFile, SourceRange, StatusEvent,
    VertexEvent, WarningEvent,
};
use larder_oci::Digest;
use serde_json::Value;

use super::{Moment, Renderer, Size};

fn at(seconds: f64) -> Timestamp {
    let start: Timestamp = "2026-11-22T10:43:57Z".parse().unwrap();
    start + SignedDuration::from_secs_f64(seconds)
}

/// A build made by hand: events with their times, shown by a renderer.
struct Script<R> {
    renderer: R,
    now: f64,
    size: Size,
    out: Vec<u8>,
}

impl<R: Renderer> Script<R> {
    fn new(renderer: R) -> Self {
        let size = Size {
            width: 60,
            height: 20,
        };
        Self {
            renderer,
            now: 0.0,
            size,
            out: Vec::new(),
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            now: at(self.now),
            size: self.size,
        }
    }

    fn event(&mut self, event: &BuildEvent) -> &mut Self {
        let moment = self.moment();
        self.renderer.event(event, moment);
        self
    }

    fn vertex(&mut self, name: &str, started: f64, completed: impl Into<Option<f64>>) -> &mut Self {
        let event = vertex(name, started, completed.into());
        self.event(&BuildEvent::Vertex(event))
    }

    fn cached(&mut self, name: &str) -> &mut Self {
        let event = VertexEvent {
            cached: true,
            ..vertex(name, self.now, Some(self.now))
        };
        self.event(&BuildEvent::Vertex(event))
    }

    fn failed(&mut self, name: &str, started: f64, completed: f64, error: &str) -> &mut Self {
        let event = VertexEvent {
            error: Some(error.to_owned()),
            ..vertex(name, started, Some(completed))
        };
        self.event(&BuildEvent::Vertex(event))
    }

    /// A part of a vertex's work, with bytes done and bytes in all.
    fn status(
        &mut self,
        name: &str,
        id: &str,
        (current, total): (u64, u64),
        (started, completed): (f64, Option<f64>),
    ) -> &mut Self {
        let event = StatusEvent {
            id: id.to_owned(),
            vertex: Digest::sha256(name),
            current,
            total,
            timestamp: at(completed.unwrap_or(self.now)),
            started: Some(at(started)),
            completed: completed.map(at),
        };
        self.event(&BuildEvent::Status(event))
    }

    fn log(&mut self, name: &str, data: &str) -> &mut Self {
        let event = LogEvent {
            vertex: Digest::sha256(name),
            stream: LogStream::Stdout,
            data: data.as_bytes().to_vec(),
            timestamp: at(self.now),
        };
        self.event(&BuildEvent::Log(event))
    }

    fn miss(&mut self, name: &str, cause: MissCause) -> &mut Self {
        let vertex = Digest::sha256(name);
        self.event(&BuildEvent::Miss(MissEvent { vertex, cause }))
    }

    fn warning(&mut self, name: &str, short: &str) -> &mut Self {
        let event = WarningEvent {
            vertex: Digest::sha256(name),
            level: 1,
            short: short.to_owned(),
            detail: vec!["Names should be lowercase".to_owned()],
            url: "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/".to_owned(),
            source: Some(SourceFile {
                filename: "Dockerfile".to_owned(),
                data: b"FROM a AS B\nRUN c\n".to_vec(),
                language: "Dockerfile".to_owned(),
            }),
            ranges: vec![SourceRange { start: 1, end: 1 }],
        };
        self.event(&BuildEvent::Warning(event))
    }

    fn refresh(&mut self, now: f64) -> &mut Self {
        self.now = now;
        let moment = self.moment();
        self.renderer.refresh(moment, &mut self.out);
        self
    }

    /// Returns what was shown since the last time.
    fn take(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.out)).unwrap()
    }

    fn finish(&mut self) -> String {
        let moment = self.moment();
        self.renderer.finish(moment, &mut self.out);
        self.take()
    }
}

fn vertex(name: &str, started: f64, completed: Option<f64>) -> VertexEvent {
    VertexEvent {
        digest: Digest::sha256(name),
        inputs: Vec::new(),
        name: name.to_owned(),
        started: Some(at(started)),
        completed: completed.map(at),
        cached: false,
        error: None,
        progress_group: None,
    }
}

/// What BuildKit printed of cached builds.
const RECORDED: [&str; 3] = [
    include_str!("testdata/guide.rawjson"),
    include_str!("testdata/parallel.rawjson"),
    include_str!("testdata/run-secret.rawjson"),
];

/// Reads a line that BuildKit printed back into events.
fn recorded_events(line: &str) -> Vec<BuildEvent> {
    let status: Value = serde_json::from_str(line).unwrap();
    let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let digest = |value: &Value| text(value).parse::<Digest>().unwrap();
    let time = |value: &Value| value.as_str().map(|at| at.parse::<Timestamp>().unwrap());
    let vertex = |vertex: Value| {
        BuildEvent::Vertex(VertexEvent {
            digest: digest(&vertex["digest"]),
            inputs: vertex["inputs"]
                .as_array()
                .into_iter()
                .flatten()
                .map(digest)
                .collect(),
            name: text(&vertex["name"]),
            started: time(&vertex["started"]),
            completed: time(&vertex["completed"]),
            cached: vertex["cached"].as_bool().unwrap_or_default(),
            error: None,
            progress_group: None,
        })
    };
    let status = |status: Value| {
        BuildEvent::Status(StatusEvent {
            id: text(&status["id"]),
            vertex: digest(&status["vertex"]),
            current: status["current"].as_u64().unwrap(),
            total: status["total"].as_u64().unwrap_or_default(),
            timestamp: time(&status["timestamp"]).unwrap(),
            started: time(&status["started"]),
            completed: time(&status["completed"]),
        })
    };
    let vertexes = list("vertexes").into_iter().map(vertex);
    vertexes
        .chain(list("statuses").into_iter().map(status))
        .collect()
}
