use larder_oci::go_json_pretty;
use serde_json::{Value, json};

use super::{Answer, table};

const PREFIX: &str = "frontend.";
const VERSION: &str = "1.0.0";

/// What can be asked: its name, what it tells, and the options that it takes.
struct Request {
    name: &'static str,
    description: &'static str,
    options: Value,
}

/// Returns what can be asked of a Dockerfile. BuildKit does not count the build checks among that.
pub fn describe() -> Answer {
    let requests = [
        Request {
            name: "frontend.outline",
            description: "List all parameters current build target supports",
            options: json!([{"name": "target", "description": "Target build stage"}]),
        },
        Request {
            name: "frontend.targets",
            description: "List all targets current build supports",
            options: json!([]),
        },
        Request {
            name: "frontend.subrequests.describe",
            description: "List available subrequest types",
            options: Value::Null,
        },
    ];
    let entries = requests.iter().map(|request| {
        json!({
            "name": request.name,
            "version": VERSION,
            "type": "rpc",
            "description": request.description,
            "opts": request.options,
            "inputs": null,
            "metadata": [
                {"name": "result.json", "description": ""},
                {"name": "result.txt", "description": ""},
            ],
            "refs": null,
        })
    });
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"]];
    rows.extend(requests.iter().map(|request| {
        let name = request.name.strip_prefix(PREFIX).unwrap_or(request.name);
        [name, VERSION, request.description]
    }));
    Answer {
        json: go_json_pretty(&entries.collect::<Vec<_>>()),
        text: table::table(&rows, 1),
    }
}
