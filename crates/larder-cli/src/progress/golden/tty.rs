use insta::assert_snapshot;
use larder_engine::event::MissCause;

use super::Script;
use crate::progress::colors::{Colors, Paint};
use crate::progress::tty::Tty;

fn tty() -> Script<Tty> {
    Script::new(Tty::new(Paint::new(None), 6, false))
}

#[test]
fn draws_a_table_and_draws_over_it() {
    let mut script = tty();
    script.vertex("[internal] load build context", 0.0, None);
    script.status(
        "[internal] load build context",
        "transferring context:",
        (1_980_000, 0),
        (0.0, None),
    );
    script.refresh(0.2);
    assert_snapshot!(screen(&script.take()), @"
    [+] Building 0.2s (0/1)
     => [internal] load build context                      0.2s
     => => transferring context: 1.98MB                    0.2s
    ");
    script.vertex("[internal] load build context", 0.0, 0.3);
    script.now = 0.3;
    script.cached("[1/4] FROM docker.io/library/python:3.11-slim@sha256:0123456789abcdef");
    let run = "[2/4] RUN pip install\t-r requirements.txt";
    script.vertex(run, 0.3, None);
    script.miss(
        run,
        MissCause::Arg {
            name: "V".to_owned(),
            line: Some(3),
        },
    );
    script.log(
        run,
        "Collecting \x1b[31mflask\x1b[0m\n 10%\r 50%\r100%\n\nDone\x1b[2J\n",
    );
    script.refresh(1.25);
    let second = script.take();
    assert!(
        second.starts_with("\x1b[?25l\x1b[?7l\r\x1b[3A[+]"),
        "{second:?}"
    );
    assert!(second.ends_with("\x1b[J\x1b[?7h\x1b[?25h"), "{second:?}");
    assert_snapshot!(screen(&second), @"
    [+] Building 1.2s (2/3)
     => [internal] load build context                      0.3s
     => => transferring context: 1.98MB                    0.3s
     => CACHED [1/4] FROM docker.io/library/python:3.11-s  0.0s
     => [2/4] RUN pip install -r requirements.txt          0.9s
     => => not cached: `ARG V` changed, line 3
     => => # Collecting flask
     => => # 100%
     => => # Done
    ");
    script.vertex(run, 0.3, 3.5);
    script.now = 3.6;
    assert_snapshot!(screen(&script.finish()), @"
    [+] Building 3.6s (3/3) FINISHED
     => [internal] load build context                      0.3s
     => => transferring context: 1.98MB                    0.3s
     => CACHED [1/4] FROM docker.io/library/python:3.11-s  0.0s
     => [2/4] RUN pip install -r requirements.txt          3.2s
     => => not cached: `ARG V` changed, line 3
    ");
}

/// Returns a frame without the sequences that place it.
fn screen(frame: &str) -> String {
    let lines = frame
        .trim_start_matches("\x1b[?25l\x1b[?7l")
        .replace("\x1b[K", "");
    let (head, tail) = lines.split_once("\x1b[J\x1b[?7h\x1b[?25h").unwrap();
    let head = match head.strip_prefix("\r\x1b[") {
        Some(moved) => moved.split_once('A').unwrap().1,
        None => head,
    };
    assert!(!head.contains('\x1b'), "{head:?}");
    format!("{head}{tail}")
}

#[test]
fn running_steps_stay_when_space_is_short() {
    let mut script = tty();
    script.size.height = 6;
    script.vertex("running first", 0.0, None);
    for step in 0..9 {
        script.vertex(&format!("done {step}"), 0.0, 0.1);
    }
    script.vertex("running last", 0.0, None).refresh(1.0);
    assert_snapshot!(screen(&script.take()), @"
    [+] Building 1.0s (9/11)
     => running first                                      1.0s
     => done 7                                             0.1s
     => done 8                                             0.1s
     => running last                                       1.0s
    ");
    script.size.width = 10;
    script.refresh(1.0);
    assert_eq!(screen(&script.take()), "[+] Buildi\n");
}

#[test]
fn colours_tell_states_apart() {
    let mut script = Script::new(Tty::new(Paint::new(Some(Colors::default())), 6, false));
    script.vertex("done", 0.0, 0.5);
    script.vertex("running", 0.0, None);
    script.failed("broken", 0.0, 0.2, "exit code: 1");
    script.failed("stopped", 0.0, 0.2, "context canceled");
    script.refresh(0.6);
    let shown = script.take();
    for (text, escape) in [
        (" => done", "\x1b[34m"),
        (" => ERROR broken", "\x1b[31m"),
        (" => CANCELED stopped", "\x1b[33m"),
    ] {
        assert!(shown.contains(&format!("{escape}{text}")), "{shown:?}");
    }
    assert!(shown.contains("\n => running"), "{shown:?}");
}
