//! Measures what a run costs: `cost ROOT [RUNS]`, where `ROOT` is a root filesystem with `/bin/true`.
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
    let began = Instant::now();
    let (system, used) = (processor_time()?, own_time()?);
    let mut inside = Duration::ZERO;
    for _ in 0..count {
        inside += run()?;
    }
    let (wall, system) = (began.elapsed(), processor_time()? - system);
    let own = own_time()? - used;
    larder_exec::shutdown();
    println!(
        "{count} runs, each: {:.2?} on the clock, {:.2?} CPU inside, {:.2?} CPU of this process, \
         {:.2?} CPU of the whole machine",
        wall / count,
        inside / count,
        own / count,
        system / count
    );
    Ok(())
}

/// Returns the time that all processors were busy.
fn processor_time() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace();
    let ticks: Vec<u64> = fields
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // Without idle and waiting time; hundredths of a second.
    let busy = ticks.iter().take(3).sum::<u64>() + ticks.iter().skip(5).take(3).sum::<u64>();
    Ok(Duration::from_millis(busy * 10))
}

/// Returns the time on a processor of this process.
fn own_time() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanos = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanos))
}
