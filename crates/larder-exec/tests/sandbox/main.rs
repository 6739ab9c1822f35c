//! Runs real processes. It has a `main` of its own: [`larder_exec::init`] must come first, and some
//! cases run in this program started again, as another user or to be killed.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "clippy does not see that this is a test"
)]

mod confinement;
mod fixture;
mod life;
mod networks;
mod ordinary_user;
mod process;
mod resources;
mod rights;
mod runner;
mod tree;

fn main() {
    larder_exec::init();
    if let Some(name) = std::env::args().nth(1).filter(|name| name.starts_with('@')) {
        return runner::part(
            &name,
            &[
                confinement::PARTS,
                life::PARTS,
                networks::PARTS,
                ordinary_user::PARTS,
            ],
        );
    }
    let groups = [
        process::CASES,
        confinement::CASES,
        rights::CASES,
        resources::CASES,
        networks::CASES,
        tree::CASES,
        life::CASES,
        ordinary_user::CASES,
    ];
    runner::run(&groups);
}
