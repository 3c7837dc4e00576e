//! Files that are none, that never end, or that a parser panics at: a reload of them is refused, and all else goes on.

use crate::admin::{JSON, admin, ask};
use crate::reload::{command, configuration, reload};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, call, ringway};
use crate::support::{PATIENCE, eventually};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const LIMITED: &str = "[[route]]\nname = \"limited\"\nmatch = { path = \"/\" }\nrespond = { status = 299 }\n";

fn text(origin: &Origin, more: &str) -> String {
    configuration("", &format!("endpoints = [\"{}\"]", origin.address), more)
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// A file beside the configuration's.
fn beside(proxy: &Proxy, end: &str) -> PathBuf {
    PathBuf::from(format!("{}.{end}", proxy.file.display()))
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let origin = Origin::saying("one");
    let proxy = Proxy::start(&text(&origin, ""));
    type Make = fn(&Path);
    let kinds: [(&str, Make); 3] = [
        ("is a FIFO", fifo),
        ("is a directory", |path| std::fs::create_dir(path).unwrap()),
        ("is a device", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
    ];
    for (what, make) in kinds {
        std::fs::remove_file(&proxy.file).unwrap();
        make(&proxy.file);
        let begun = Instant::now();
        let ended = command(&proxy, &["reload"]);
        assert!(ended.code == 1 && ended.stderr.contains(what), "{what}: {}", ended.stderr);
        assert!(ended.stderr.contains(proxy.file.to_str().unwrap()), "{}", ended.stderr);
        assert!(begun.elapsed() < PATIENCE / 2, "{what}: {:?}", begun.elapsed());
        assert_eq!(Client::get(proxy.edge(), "/").text(), "one", "{what}");
        if what == "is a FIFO" {
            let ended = command(&proxy, &["upgrade"]);
            assert!(ended.code == 1 && ended.stderr.contains("nothing changed"), "{}", ended.stderr);
            assert!(begun.elapsed() < PATIENCE / 2, "the next process waits for nobody either");
        }
        match what {
            "is a directory" => std::fs::remove_dir(&proxy.file).unwrap(),
            _ => std::fs::remove_file(&proxy.file).unwrap(),
        }
        // The same of a file that it names, for plans and changes too.
        let pipe = beside(&proxy, "page");
        fifo(&pipe);
        let body = format!("respond = {{ status = 299, body = {{ file = \"{}\" }} }}", pipe.display());
        let named = text(&origin, &LIMITED.replace("respond = { status = 299 }", &body));
        std::fs::write(&proxy.file, &named).unwrap();
        let refused = command(&proxy, &["reload"]);
        assert!(refused.code == 1 && refused.stderr.contains("is a FIFO"), "{}", refused.stderr);
        let asked = serde_json::json!({ "name": "f", "text": named }).to_string();
        let (status, answer) = ask(admin(&proxy), "POST /v1/plan", JSON, &asked);
        assert!(status == 422 && answer.to_string().contains("is a FIFO"), "{status} {answer}");
        let to = serde_json::json!({ "respond": { "status": 299, "body": { "file": pipe } } }).to_string();
        let (status, answer) = ask(admin(&proxy), "PUT /v1/routes/limited", JSON, &to);
        assert!(status == 422 && answer.to_string().contains("is a FIFO"), "{status} {answer}");
        std::fs::remove_file(&pipe).unwrap();
        reload(&proxy, &text(&origin, LIMITED));
        assert_eq!(Client::get(proxy.edge(), "/").status, 299, "{what}");
        reload(&proxy, &text(&origin, ""));
    }
}

#[test]
fn whoever_starts_or_checks_may_read_a_pipe() {
    let origin = Origin::saying("one");
    let text = text(&origin, "");
    let mut child = ringway().args(["check", "-c", "/dev/stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert_eq!(crate::support::proxy::exit_code(&mut child, PATIENCE), 0);

    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    fifo(&pipe);
    let (to, written) = (pipe.clone(), text.clone());
    let writes = std::thread::spawn(move || std::fs::write(to, written).unwrap());
    let proxy = Proxy::start_with(&text, |command| {
        *command = ringway();
        command.args(["run", "-c"]).arg(&pipe);
    });
    writes.join().unwrap();
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one");
    let ended = command(&proxy, &["reload"]);
    assert!(ended.code == 1 && ended.stderr.contains("is a FIFO"), "{}", ended.stderr);
    let writes = {
        let (to, written) = (pipe.clone(), text);
        std::thread::spawn(move || std::fs::write(to, written).unwrap())
    };
    let mut plans = ringway();
    plans.args(["plan", "-c"]).arg(&pipe).args(["--admin", proxy.ready["admin"].as_str().unwrap()]);
    let planned = call(&mut plans);
    assert_eq!((planned.code, planned.stdout.as_str()), (0, "nothing changes"), "{}", planned.stderr);
    writes.join().unwrap();
}

#[test]
fn a_file_that_never_ends_holds_up_its_reload_alone() {
    let origin = Origin::saying("one");
    let proxy = Proxy::start_with(&text(&origin, ""), |command| {
        command.env("RINGWAY_INJECT", "read");
    });
    let hangs = beside(&proxy, "hangs");
    std::fs::write(&hangs, "").unwrap();
    std::fs::write(&proxy.file, text(&origin, LIMITED)).unwrap();
    let ended = command(&proxy, &["reload"]);
    assert!(ended.code == 1 && ended.stderr.contains("took longer than 1 s"), "{}", ended.stderr);
    for asked in ["reload", "upgrade"] {
        let begun = Instant::now();
        let ended = command(&proxy, &[asked]);
        assert!(ended.code == 1 && ended.stderr.contains("has not ended"), "{asked}: {}", ended.stderr);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{asked} is refused at once: {:?}",
            begun.elapsed()
        );
    }
    proxy.signal(Signal::HUP);
    assert!(proxy.stderr.wait_for(|line| line.contains("has not ended")).is_some());
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one");
    assert_eq!(command(&proxy, &["status"]).code, 0);
    let (status, answer) = ask(admin(&proxy), "PUT /v1/routes/more", JSON, "{\"cluster\": \"app\"}");
    assert_eq!(status, 200, "{answer}");
    assert_eq!(command(&proxy, &["drain", "--cluster", "app"]).code, 0);
    assert_eq!(command(&proxy, &["drain", "--cluster", "app", "--abort"]).code, 0);
    // What it read at last is not used: whoever wants it asks again.
    std::fs::remove_file(&hangs).unwrap();
    eventually("the next reload", || command(&proxy, &["reload"]).code == 0);
    assert_eq!(Client::get(proxy.edge(), "/").status, 299);

    // A plan and a change that hang.
    let of_plan = beside(&proxy, "plan");
    std::fs::write(format!("{}.hangs", of_plan.display()), "").unwrap();
    let asked = serde_json::json!({ "name": of_plan, "text": text(&origin, "") }).to_string();
    let (status, answer) = ask(admin(&proxy), "POST /v1/plan", JSON, &asked);
    assert!(status == 409 && answer.to_string().contains("took longer"), "{status} {answer}");
    let of_change = format!("{} with a change.hangs", proxy.file.display());
    std::fs::write(&of_change, "").unwrap();
    for why in ["took longer", "has not ended"] {
        let (status, answer) = ask(admin(&proxy), "DELETE /v1/routes/more", JSON, "");
        assert!(status == 409 && answer.to_string().contains(why), "{status} {answer}");
    }
    assert_eq!(command(&proxy, &["reload"]).code, 0, "the file itself can be read");
    std::fs::remove_file(&of_change).unwrap();
    eventually("the change", || ask(admin(&proxy), "DELETE /v1/routes/more", JSON, "").0 == 200);
}

#[test]
fn a_parser_that_panics_ends_nothing_but_its_question() {
    let origin = Origin::saying("one");
    let proxy = Proxy::start_with(&text(&origin, ""), |command| {
        command.env("RINGWAY_INJECT", "read");
    });
    let told = |(status, body): (u16, serde_json::Value)| {
        let why = body["error"].as_str().unwrap_or_default();
        assert!(status == 500 && why.contains("internal error while reading"), "{status} {body}");
        assert!(why.contains(proxy.file.to_str().unwrap()), "{why}");
    };
    std::fs::write(beside(&proxy, "panics"), "").unwrap();
    std::fs::write(format!("{} with a change.panics", proxy.file.display()), "").unwrap();
    let asked = serde_json::json!({ "name": proxy.file, "text": text(&origin, "") }).to_string();
    told(ask(admin(&proxy), "POST /v1/reload", JSON, ""));
    told(ask(admin(&proxy), "POST /v1/plan", JSON, &asked));
    told(ask(admin(&proxy), "PUT /v1/routes/more", JSON, "{\"cluster\": \"app\"}"));
    assert!(proxy.stderr.wait_for(|line| line.contains("panic") && line.contains("configuration")).is_some());
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one");
    std::fs::remove_file(beside(&proxy, "panics")).unwrap();
    std::fs::remove_file(format!("{} with a change.panics", proxy.file.display())).unwrap();
    reload(&proxy, &text(&origin, LIMITED));
    assert_eq!(Client::get(proxy.edge(), "/").status, 299);
    let (_, drift) = ask(admin(&proxy), "GET /v1/drift", "", "");
    assert!(drift["changes"].as_array().unwrap().is_empty(), "{drift}");
}
