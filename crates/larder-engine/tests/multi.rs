//! Several targets in one run.
//!
//! The test has its own `main`, since the executor starts this program again.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and this one prints its own report"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder_engine::event::{BuildEvent, VertexEvent};
use larder_engine::request::{
    BuildOutcome, BuildRequest, ContextSource, DockerfileSource, NoCache, NoCacheSteps, Output,
    SecretBytes, SecretProvider, StepReport, TreeOutput,
};
use larder_engine::{
    CancelFlag, Engine, EngineOptions, ErrorClass, ManyOptions, TargetError, TargetRequest,
};
use larder_testkit::Base;

/// A RUN that tells how often it ran: `count` of the cache mount of that name.
const COUNTED: &str = "RUN --mount=type=cache,id=count,target=/count";

type Case = (&'static str, fn(&Kitchen));

const CASES: [Case; 14] = [
    ("a_shared_step_runs_once", a_shared_step_runs_once),
    (
        "a_shared_step_that_ignores_the_cache_runs_once",
        a_shared_step_that_ignores_the_cache_runs_once,
    ),
    (
        "one_limit_holds_for_all_targets",
        one_limit_holds_for_all_targets,
    ),
    ("targets_run_at_once", targets_run_at_once),
    ("a_target_reads_another", a_target_reads_another),
    (
        "a_context_is_scanned_once_and_an_image_looked_up_once",
        a_context_is_scanned_once_and_an_image_looked_up_once,
    ),
    (
        "directories_whose_names_look_alike_are_kept_apart",
        directories_whose_names_look_alike_are_kept_apart,
    ),
    (
        "a_step_gets_the_secrets_of_the_first_target_that_needs_it",
        a_step_gets_the_secrets_of_the_first_target_that_needs_it,
    ),
    (
        "a_failure_ends_the_others_and_names_its_target",
        a_failure_ends_the_others_and_names_its_target,
    ),
    (
        "a_shared_failure_is_told_once",
        a_shared_failure_is_told_once,
    ),
    ("cancel_ends_all", cancel_ends_all),
    (
        "names_have_prefixes_where_there_are_several",
        names_have_prefixes_where_there_are_several,
    ),
    (
        "what_ignores_the_cache_in_one_target_is_another_vertex",
        what_ignores_the_cache_in_one_target_is_another_vertex,
    ),
    ("each_target_has_its_history", each_target_has_its_history),
];

fn main() {
    larder_exec::init();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: base images can be made by root only");
        return;
    }
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let archive = match Base::Busybox.archive() {
        Ok(archive) => archive,
        Err(error) => {
            println!("skipped: no base image: {error:#}");
            return;
        }
    };
    let mut failed = 0;
    let chosen = CASES.iter().filter(|(name, _)| name.contains(&filter));
    for (name, case) in chosen {
        let scratch = tempfile::tempdir().unwrap();
        let kitchen = Kitchen::new(scratch.path(), &archive);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&kitchen)));
        failed += usize::from(done.is_err());
        println!(
            "test {name} ... {}",
            if done.is_ok() { "ok" } else { "FAILED" }
        );
    }
    larder_exec::shutdown();
    assert!(failed == 0, "{failed} failed");
}

/// An engine with a base image, and a place for contexts.
struct Kitchen {
    engine: Engine,
    contexts: PathBuf,
}

/// What came of a run, and what it told.
struct Ran {
    outcome: Result<Vec<BuildOutcome>, TargetError>,
    vertices: Vec<VertexEvent>,
    log: String,
}

impl Kitchen {
    fn new(scratch: &Path, base: &Path) -> Self {
        let engine = Engine::open(EngineOptions::new(scratch.join("root"))).unwrap();
        let mut archive = std::fs::File::open(base).unwrap();
        let name = "busybox:latest".parse().unwrap();
        engine.load_images(&mut archive, &[name]).unwrap();
        Self {
            engine,
            contexts: scratch.join("contexts"),
        }
    }

    /// Returns a target with a context of its own.
    fn target(&self, name: &str, dockerfile: &str) -> TargetRequest {
        let context = self.contexts.join(name);
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("file"), name).unwrap();
        target_in(&context, name, dockerfile)
    }

    fn run(&self, targets: Vec<TargetRequest>) -> Ran {
        self.run_with(targets, ManyOptions::default(), &CancelFlag::new(), |_| {})
    }

    fn run_with(
        &self,
        targets: Vec<TargetRequest>,
        options: ManyOptions,
        cancel: &CancelFlag,
        seen: impl Fn(&BuildEvent) + Send + Sync,
    ) -> Ran {
        let events = Mutex::new((Vec::new(), String::new()));
        let sink = |event: BuildEvent| {
            seen(&event);
            let mut events = events.lock().unwrap();
            match event {
                BuildEvent::Vertex(vertex) => events.0.push(vertex),
                BuildEvent::Log(log) => events.1 += &String::from_utf8_lossy(&log.data),
                _ => {}
            }
        };
        let outcome = self.engine.build_many(targets, options, &sink, cancel);
        let (vertices, log) = events.into_inner().unwrap();
        Ran {
            outcome,
            vertices,
            log,
        }
    }

    /// Returns the names of the steps of the last build, as it is remembered.
    fn last_build(&self) -> Vec<String> {
        let steps = self.engine.last_build().unwrap().unwrap();
        steps.into_iter().map(|step| step.name).collect()
    }

    /// Returns how often the steps with [`COUNTED`] have run.
    fn count(&self) -> usize {
        let seen = self.run(vec![self.target(
            "count",
            &format!(
                "FROM busybox\n{COUNTED} cat /count/* # {:?}\n",
                Instant::now()
            ),
        )]);
        seen.success();
        seen.log.lines().count()
    }
}

fn target_in(context: &Path, name: &str, dockerfile: &str) -> TargetRequest {
    let request = BuildRequest {
        dockerfile: DockerfileSource::Text(dockerfile.as_bytes().to_vec()),
        ..BuildRequest::new(ContextSource::Directory(context.to_owned()))
    };
    TargetRequest::new(name, request)
}

fn without_cache(mut target: TargetRequest) -> TargetRequest {
    target.request.no_cache = NoCache {
        steps: NoCacheSteps::All,
        keep_cache_mounts: true,
    };
    target
}

impl Ran {
    #[track_caller]
    fn success(&self) -> &[BuildOutcome] {
        match &self.outcome {
            Ok(outcomes) => outcomes,
            Err(failed) => panic!("{:?}: {}\n{}", failed.target, failed.error, self.log),
        }
    }

    #[track_caller]
    fn failure(&self) -> &TargetError {
        self.outcome.as_ref().expect_err("the run fails")
    }

    /// Returns the last state of each vertex whose name has `part` in it.
    fn last(&self, part: &str) -> Vec<&VertexEvent> {
        let mut last: BTreeMap<&str, &VertexEvent> = BTreeMap::new();
        for vertex in self
            .vertices
            .iter()
            .filter(|vertex| vertex.name.contains(part))
        {
            last.insert(vertex.digest.as_str(), vertex);
        }
        last.into_values().collect()
    }
}

/// Returns the RUN steps of a target.
fn runs(outcome: &BuildOutcome) -> impl Iterator<Item = &StepReport> {
    let steps = outcome.steps.iter();
    steps.filter(|step| step.name.contains("RUN"))
}

fn a_shared_step_runs_once(kitchen: &Kitchen) {
    let stage = format!(
        "FROM busybox AS shared\n{COUNTED} echo shared >> /count/1; sleep 0.2; touch /shared\n"
    );
    let targets = || {
        let own = |n: usize| {
            let own = format!("FROM shared\n{COUNTED} echo own >> /count/2-{n}\n");
            kitchen.target(&format!("t{n}"), &format!("{stage}{own}"))
        };
        (0..4).map(own).collect()
    };
    let ran = kitchen.run(targets());
    assert_eq!(ran.success().len(), 4);
    assert_eq!(kitchen.count(), 5);
    let shared = ran.last("echo shared");
    let names: Vec<&str> = shared.iter().map(|vertex| &*vertex.name).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].starts_with("[t0 shared 2/2] RUN"), "{names:?}");
    for outcome in ran.success() {
        let ran: Vec<_> = runs(outcome).map(|step| step.cached).collect();
        assert_eq!(ran, [false, false], "{:?}", outcome.steps);
    }

    let again = kitchen.run(targets());
    for outcome in again.success() {
        assert!(outcome.steps.iter().all(|step| step.cached));
    }
    assert!(again.last("RUN").iter().all(|vertex| vertex.cached));
    assert_eq!(kitchen.count(), 5);
}

fn a_shared_step_that_ignores_the_cache_runs_once(kitchen: &Kitchen) {
    let stage = format!("FROM busybox AS shared\n{COUNTED} echo shared >> /count/1\n");
    for round in 1..3 {
        let target = |n: usize| {
            let target = kitchen.target(
                &format!("t{n}"),
                &format!("{stage}FROM shared\nRUN echo {n}\n"),
            );
            without_cache(target)
        };
        kitchen.run((0..3).map(target).collect()).success();
        assert_eq!(kitchen.count(), round);
    }
}

/// Shell: waits, some 20 seconds at most, until `count` files lie in `/meet`.
fn meet(name: &str, count: usize) -> String {
    format!(
        "RUN --mount=type=cache,id=meet,target=/meet touch /meet/{name}; n=0; \
         until [ $(ls /meet | wc -l) -ge {count} ]; do \
         n=$((n+1)); [ $n -lt 400 ] || exit 1; sleep 0.05; done"
    )
}

fn one_limit_holds_for_all_targets(kitchen: &Kitchen) {
    let alone = "mkdir /held/now && sleep 0.05 && rmdir /held/now";
    let target = |n: usize| {
        let mount = "RUN --mount=type=cache,id=held,target=/held";
        let text = format!("FROM busybox\n{mount} {alone} # {n}\n{mount} {alone} # again {n}\n");
        kitchen.target(&format!("t{n}"), &text)
    };
    let options = ManyOptions {
        max_parallelism: Some(1),
    };
    let targets = (0..4).map(target).collect();
    let ran = kitchen.run_with(targets, options, &CancelFlag::new(), |_| {});
    ran.success();
    // What waits for its turn has not started; what has run may still be saved.
    let mut running: Vec<&str> = Vec::new();
    for vertex in ran
        .vertices
        .iter()
        .filter(|vertex| vertex.name.contains("RUN"))
    {
        match (vertex.started, vertex.completed) {
            (Some(_), None) => running.push(&vertex.name),
            (_, Some(_)) => running.retain(|name| *name != vertex.name),
            _ => {}
        }
        assert!(running.len() <= 2, "{running:?}");
    }
}

fn targets_run_at_once(kitchen: &Kitchen) {
    let target = |n: usize| {
        let text = format!("FROM busybox\n{}\n", meet(&n.to_string(), 5));
        kitchen.target(&format!("t{n}"), &text)
    };
    kitchen.run((0..5).map(target).collect()).success();
}

fn a_target_reads_another(kitchen: &Kitchen) {
    let base = format!(
        "FROM busybox\nENV WHO=base\nWORKDIR /w\nCOPY file here\n{COUNTED} echo base >> /count/1; date > made\n"
    );
    let reading = |name: &str, text: &str| {
        let mut target = kitchen.target(name, text);
        let input = ("parent".to_owned(), "base".to_owned());
        target.inputs = [input].into();
        target.request.outputs = vec![Output::Local(TreeOutput::new(
            kitchen.contexts.join(format!("{name}-out")),
        ))];
        target
    };
    // In any order: what is read is not known before its reader.
    let ran = kitchen.run(vec![
        reading(
            "api",
            "FROM parent\nRUN test $WHO = base; cp here from-$WHO; cp made made-2\n",
        ),
        reading(
            "worker",
            "FROM scratch\nCOPY --from=parent /w/made /w/made\nCOPY file /w/own\n",
        ),
        kitchen.target("base", &base),
    ]);
    ran.success();
    let read = |path: &str| std::fs::read_to_string(kitchen.contexts.join(path)).unwrap();
    assert_eq!(read("api-out/w/from-base"), "base");
    assert_eq!(read("api-out/w/made"), read("worker-out/w/made"));
    assert_eq!(read("worker-out/w/own"), "worker");
    // Each step is reported where it is from.
    let count = |part: &str| {
        kitchen
            .last_build()
            .iter()
            .filter(|name| name.contains(part))
            .count()
    };
    assert_eq!((count("echo base"), count("cp here")), (1, 1));
    assert_eq!(kitchen.count(), 1);

    let mut circle = kitchen.target("base", "FROM parent\n");
    circle.inputs = [("parent".to_owned(), "api".to_owned())].into();
    let ran = kitchen.run(vec![reading("api", "FROM parent\n"), circle]);
    let message = ran.failure().error.to_string();
    assert_eq!(
        message,
        "targets read each other: `api` reads `base` reads `api`"
    );
}

fn a_context_is_scanned_once_and_an_image_looked_up_once(kitchen: &Kitchen) {
    let context = kitchen.contexts.join("shared");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("file"), "content").unwrap();
    let target = |n: usize| {
        let text = format!("FROM busybox\nCOPY . /\nRUN echo {n}\n");
        target_in(&context, &format!("t{n}"), &text)
    };
    let ran = kitchen.run((0..4).map(target).collect());
    ran.success();
    let mut loads = ran.last("load build context");
    loads.sort_by_key(|vertex| vertex.name.clone());
    assert_eq!(loads.len(), 1);
    assert_eq!(loads[0].name, "[t0 internal] load build context");
    assert_eq!(ran.last("load metadata").len(), 1);
    assert_eq!(ran.last("COPY").len(), 1);
}

fn directories_whose_names_look_alike_are_kept_apart(kitchen: &Kitchen) {
    let target = |name: &str, byte: u8| {
        let context = kitchen.contexts.join(OsStr::from_bytes(&[b'd', byte]));
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("file"), name).unwrap();
        let text = format!("FROM busybox\nCOPY file /\nRUN grep -x {name} /file\n");
        target_in(&context, name, &text)
    };
    let ran = kitchen.run(vec![target("one", 0xfe), target("two", 0xff)]);
    assert_eq!(ran.success().len(), 2);
}

/// Has one secret.
struct Secret(&'static str, &'static str);

impl SecretProvider for Secret {
    fn secret(&self, id: &str) -> std::io::Result<Option<SecretBytes>> {
        Ok((id == self.0).then(|| SecretBytes::new(self.1.as_bytes().to_vec())))
    }
}

fn a_step_gets_the_secrets_of_the_first_target_that_needs_it(kitchen: &Kitchen) {
    let target = |name: &str, id: &str, secret: Secret| {
        let mount = format!("--mount=type=secret,id={id},target=/secret");
        let text =
            format!("FROM busybox\nRUN {mount} echo got-$(cat /secret 2>/dev/null || echo none)\n");
        let mut target = kitchen.target(name, &text);
        target.request.secrets = Arc::new(secret);
        target
    };
    let got = |ran: &Ran| {
        ran.success();
        let lines = ran.log.lines().filter_map(|line| line.strip_prefix("got-"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    // One step: what a secret says is in no key.
    let same = kitchen.run(vec![
        target("a", "token", Secret("token", "first")),
        target("b", "token", Secret("token", "second")),
    ]);
    assert_eq!(got(&same), ["first"]);
    // Each has but its own.
    let apart = kitchen.run(vec![
        target("c", "one", Secret("one", "mine")),
        target("d", "two", Secret("two", "yours")),
        target("e", "three", Secret("one", "mine")),
    ]);
    assert_eq!(got(&apart), ["mine", "none", "yours"]);
}

fn a_failure_ends_the_others_and_names_its_target(kitchen: &Kitchen) {
    let fails = format!("FROM busybox\n{}; exit 3\n", meet("fails", 2));
    let waits = format!("FROM busybox\n{}; sleep 100\n", meet("waits", 2));
    let start = Instant::now();
    let ran = kitchen.run(vec![
        kitchen.target("waits", &waits),
        kitchen.target("fails", &fails),
    ]);
    let failed = ran.failure();
    assert_eq!(failed.target.as_deref(), Some("fails"), "{}", failed.error);
    assert_eq!(failed.error.class(), ErrorClass::Step);
    let location = failed.error.location().expect("the step has a line");
    assert_eq!(location.ranges[0].start, 2);
    assert!(start.elapsed() < Duration::from_secs(60));
    let canceled = ran.last("[waits stage-0 2/2]");
    assert_eq!(canceled[0].error.as_deref(), Some("context canceled"));

    let ran = kitchen.run(vec![
        kitchen.target("good", "FROM busybox\n"),
        kitchen.target("bad", "FROM busybox\nNOPE\n"),
    ]);
    assert_eq!(ran.failure().target.as_deref(), Some("bad"));
    let ran = kitchen.run(vec![kitchen.target("alone", "FROM busybox\nRUN exit 1\n")]);
    assert_eq!(ran.failure().target, None);
}

fn a_shared_failure_is_told_once(kitchen: &Kitchen) {
    let text = format!(
        "FROM busybox AS shared\n{COUNTED} echo x >> /count/1; exit 4\nFROM shared\nRUN true\n"
    );
    let ran = kitchen.run(
        (0..3)
            .map(|n| kitchen.target(&format!("t{n}"), &text))
            .collect(),
    );
    assert_eq!(ran.failure().target.as_deref(), Some("t0"));
    let failed: Vec<_> = ran
        .last("RUN")
        .into_iter()
        .filter(|vertex| vertex.error.is_some())
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(kitchen.count(), 1);
}

fn cancel_ends_all(kitchen: &Kitchen) {
    let text = |name: &str| format!("FROM busybox\n{}; echo met; sleep 100\n", meet(name, 2));
    let cancel = CancelFlag::new();
    let targets = ["a", "b"].map(|name| kitchen.target(name, &text(name)));
    let start = Instant::now();
    let ran = kitchen.run_with(targets.into(), ManyOptions::default(), &cancel, |event| {
        if let BuildEvent::Log(_) = event {
            cancel.set();
        }
    });
    assert_eq!(ran.failure().error.class(), ErrorClass::Canceled);
    assert_eq!(ran.failure().target, None);
    assert!(start.elapsed() < Duration::from_secs(60));
}

fn names_have_prefixes_where_there_are_several(kitchen: &Kitchen) {
    let text = "FROM busybox\nCOPY --link file /\n";
    let targets = |names: &[&str]| {
        names
            .iter()
            .map(|name| kitchen.target(name, text))
            .collect()
    };
    let ran = kitchen.run(targets(&["a", "b"]));
    ran.success();
    for name in ["a", "b"] {
        for expected in [
            format!("[{name} internal] load build definition from Dockerfile"),
            format!("[{name} internal] load .dockerignore"),
            format!("[{name} internal] load build context"),
            format!("[{name} 2/2] COPY --link file /"),
        ] {
            assert_eq!(
                ran.last(&expected).len(),
                1,
                "{expected}: {:#?}",
                ran.vertices
            );
        }
    }
    // The steps of one instruction are a group, and each target has its own.
    let groups = ran.last("COPY --link").into_iter();
    let mut groups: Vec<_> = groups
        .filter_map(|vertex| vertex.progress_group.clone())
        .collect();
    groups.sort_by_key(|group| group.id.clone());
    groups.dedup_by_key(|group| group.id.clone());
    let names: Vec<_> = groups.iter().map(|group| &*group.name).collect();
    assert_eq!(
        names,
        ["[a 2/2] COPY --link file /", "[b 2/2] COPY --link file /"]
    );

    let alone = kitchen.run(targets(&["c"]));
    alone.success();
    assert_eq!(alone.last("[internal] load .dockerignore").len(), 1);
}

fn what_ignores_the_cache_in_one_target_is_another_vertex(kitchen: &Kitchen) {
    let text = format!("FROM busybox\n{COUNTED} echo x >> /count/1\nRUN true\n");
    kitchen.run(vec![kitchen.target("first", &text)]).success();
    let ran = kitchen.run(vec![
        kitchen.target("cached", &text),
        without_cache(kitchen.target("fresh", &text)),
    ]);
    ran.success();
    assert_eq!(kitchen.count(), 2);
    for (name, cached) in [("[cached ", true), ("[fresh ", false)] {
        let steps = ran.last(name).into_iter();
        let steps: Vec<_> = steps.filter(|vertex| vertex.name.contains("RUN")).collect();
        assert_eq!(steps.len(), 2, "{steps:#?}");
        assert!(
            steps.iter().all(|vertex| vertex.cached == cached),
            "{steps:#?}"
        );
    }
}

fn each_target_has_its_history(kitchen: &Kitchen) {
    let targets = |argument: &str| -> Vec<TargetRequest> {
        let stage = format!("FROM busybox AS shared\nRUN echo {argument}\nFROM shared\n");
        ["a", "b"]
            .map(|name| kitchen.target(name, &format!("{stage}RUN echo {name}\n")))
            .into()
    };
    kitchen.run(targets("1")).success();
    let ran = kitchen.run(targets("2"));
    for outcome in ran.success() {
        let causes = runs(outcome).map(|step| step.cause.clone().unwrap().to_string());
        let causes: Vec<String> = causes.collect();
        assert_eq!(
            causes,
            [
                "the command changed, line 2",
                "[shared 2/2] RUN echo 2 ran again"
            ]
        );
    }
    // All targets of the last run are explained.
    let names: Vec<String> = kitchen
        .last_build()
        .into_iter()
        .filter(|name| name.contains("RUN"))
        .collect();
    assert_eq!(
        names,
        [
            "[a shared 2/2] RUN echo 2",
            "[a stage-1 1/1] RUN echo a",
            "[b shared 2/2] RUN echo 2",
            "[b stage-1 1/1] RUN echo b",
        ]
    );
    kitchen
        .run(targets("3").into_iter().take(1).collect())
        .success();
    let names = kitchen.last_build();
    assert!(
        names.iter().any(|name| name == "[shared 2/2] RUN echo 3"),
        "{names:?}"
    );
}
