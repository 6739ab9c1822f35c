//! A test harness as small as can be, with the output of the usual one.

use std::panic::catch_unwind;

/// A named test.
pub type Case = (&'static str, fn());

/// Runs all cases whose names contain one of the arguments, or all.
pub fn run(groups: &[&[Case]]) {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let chosen: Vec<&Case> = groups
        .iter()
        .copied()
        .flatten()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|part| name.contains(part)))
        .collect();
    if std::env::args().any(|arg| arg == "--list") {
        for (name, _) in chosen {
            println!("{name}: test");
        }
        return;
    }
    println!("\nrunning {} tests", chosen.len());
    let mut failed = Vec::new();
    for (name, case) in &chosen {
        let passed = catch_unwind(case).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out\n",
        chosen.len() - failed.len(),
        failed.len()
    );
    if !failed.is_empty() {
        std::process::exit(101);
    }
}

/// Runs the part of a case that was started as a program of its own.
pub fn part(name: &str, groups: &[&[Case]]) {
    let part = groups.iter().copied().flatten().find(|part| part.0 == name);
    let (_, part) = part.unwrap_or_else(|| panic!("no part is named {name}"));
    part();
}
