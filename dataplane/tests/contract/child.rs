//! Tests that change their whole process run in a child of this test binary: an ignored test is its body.

use std::process::Command;

/// Runs the ignored test `name` of this binary in a process of its own.
pub fn run(name: &str) {
    let me = std::env::current_exe().unwrap();
    let output = Command::new(me).args(["--exact", name, "--ignored", "--nocapture"]).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed in its child:\n{text}");
    assert!(text.contains("1 passed"), "there is no test {name}:\n{text}");
}
