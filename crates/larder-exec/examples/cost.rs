//! Measures what a run costs: `cost ROOT [RUNS]`, where `ROOT` is a root filesystem with
//! `/bin/true`.
#![expect(clippy::print_stdout, reason = "a program")]

use std::time::{Duration, Instant};

use larder_exec::mount::{self, Access};
use larder_exec::{Cancel, Outcome, ProcessSpec};

fn main() -> anyhow::Result<()> {
    larder_exec::init();
    let mut args = std::env::args().skip(1);
    let root = args.next().unwrap_or_default();
    let count: u32 = args.next().map_or(Ok(200), |count| count.parse())?;
    let cancel = Cancel::new()?;
    let run = || -> anyhow::Result<Duration> {
        let root = mount::bind(&root, Access::ReadWrite)?;
        let spec = ProcessSpec::new(root, vec!["/bin/true".to_owned()]);
        let exit = larder_exec::run(spec, &mut |_, _| {}, &cancel)?;
        anyhow::ensure!(exit.outcome == Outcome::Exited(0), "{exit:?}");
        Ok(exit.usage.user_time + exit.usage.system_time)
    };
    let began = Instant::now();
    run()?;
    println!("first run: {:.2?}", began.elapsed());
    larder_exec::shutdown();
    let (began, before) = (Instant::now(), processor_millis()?);
    let mut inside = Duration::ZERO;
    for _ in 0..count {
        inside += run()?;
    }
    let wall = began.elapsed();
    larder_exec::shutdown();
    let all = Duration::from_millis(processor_millis()? - before);
    println!(
        "{count} runs, each: {:.2?} on the clock; {:.2?} CPU, of it {:.2?} in the container",
        wall / count,
        all / count,
        inside / count
    );
    Ok(())
}

/// Returns the time on a processor of this process and of all that it has waited for.
fn processor_millis() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let fields = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    // utime, stime, cutime and cstime, in hundredths of a second.
    let ticks = fields.skip(11).take(4).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? * 10)
}
