//! Caches of several platforms.

use crate::{BOTH, setup};

const DOCKERFILE: &str = "\
FROM --platform=$BUILDPLATFORM BASE AS native
COPY a.txt /native
FROM BASE AS other
ARG TARGETARCH
COPY a.txt /other-$TARGETARCH
FROM BASE
ARG TARGETARCH
COPY --from=native /native /
COPY --from=other /other-$TARGETARCH /
";

/// All steps but the images.
const STEPS: usize = 7;

#[test]
fn a_cache_has_the_steps_of_all_platforms() {
    let setup = setup!();
    let name = setup.name("cache:1");
    let directory = setup.scratch.join("cache");
    let directory = directory.to_str().unwrap();
    let caches = [
        (
            format!("type=registry,ref={name},mode=max"),
            format!("type=registry,ref={name}"),
        ),
        (
            format!("type=local,dest={directory},mode=max"),
            format!("type=local,src={directory}"),
        ),
    ];
    for (to, from) in &caches {
        let args = ["--platform", BOTH, "--cache-to", to, "--no-cache"];
        let _ = setup.build(DOCKERFILE, &args).success();
        for (platforms, steps) in [(BOTH, STEPS), ("linux/arm64", 4), ("linux/amd64", 4)] {
            let args = ["--platform", platforms, "--cache-from", from];
            let run = setup.build_with(&setup.elsewhere(), DOCKERFILE, &args);
            let run = run.success();
            let copies = run.stderr.lines().filter(|line| line.contains("] COPY"));
            let numbers: std::collections::BTreeSet<&str> =
                copies.filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(numbers.len(), steps, "{from} {platforms}: {}", run.stderr);
            for number in numbers {
                let end = format!("{number} CACHED");
                assert!(
                    run.stderr.contains(&end),
                    "{from} {platforms}: {}",
                    run.stderr
                );
            }
        }
    }
}

#[test]
fn each_image_of_an_index_holds_its_cache() {
    let setup = setup!();
    let name = setup.name("team/app:1");
    let dockerfile = "FROM BASE\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH\n";
    let inline = ["--build-arg", "BUILDKIT_INLINE_CACHE=1"];
    let args = ["--platform", BOTH, "-t", &name, "--push"];
    let _ = setup
        .build(dockerfile, &[&args[..], &inline].concat())
        .success();
    for platforms in [BOTH, "linux/arm64", "linux/amd64"] {
        let args = ["--platform", platforms, "--cache-from", &name];
        let run = setup
            .build_with(&setup.elsewhere(), dockerfile, &args)
            .success();
        for architecture in ["amd64", "arm64"] {
            let step = format!("COPY a.txt /{architecture}");
            let lines = run.stderr.lines();
            let Some(line) = lines.clone().find(|line| line.ends_with(&step)) else {
                assert!(platforms != BOTH && !platforms.ends_with(architecture));
                continue;
            };
            let cached = format!("{} CACHED", line.split(' ').next().unwrap());
            assert!(run.stderr.contains(&cached), "{platforms}: {}", run.stderr);
        }
    }
    // The store's own image serves as well.
    let _ = setup.larder.run(["prune", "-af"]).success();
    let args = ["--platform", BOTH, "--cache-from", &name];
    let run = setup.build(dockerfile, &args).success();
    assert!(!run.stderr.contains("not cached"), "{}", run.stderr);
}
