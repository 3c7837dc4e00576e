//! kernel-tuning/: the script against machines made of files, and against a network namespace of its own; the unit.

use crate::support::proxy::{call, ringway};
use crate::support::skip;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROFILES: [&str; 3] = ["idle", "bulk", "latency"];

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel-tuning")
}

/// kernel-tuning/facts.toml, its tables of one kind.
fn facts(kind: &str) -> Vec<BTreeMap<String, String>> {
    let file: toml::Table = fs::read_to_string(folder().join("facts.toml")).unwrap().parse().unwrap();
    let tables = file[kind].as_array().unwrap().iter().map(|fact| fact.as_table().unwrap());
    let words = |fact: &toml::Table| {
        fact.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
    };
    tables.map(words).collect()
}

/// A directory that stands for `/`, with sysctls in it.
pub struct Root {
    pub dir: tempfile::TempDir,
}

impl Root {
    /// With every sysctl that a profile sets, each at its worst.
    pub fn worst() -> Self {
        let root = Self { dir: tempfile::tempdir().unwrap() };
        for fact in facts("sysctl") {
            let worst = fact["rule"].split(' ').zip(0..).map(|(rule, field)| match (rule, field) {
                ("less", _) => "99999".to_owned(),
                ("more", _) => "0".to_owned(),
                _ => "7".to_owned(),
            });
            root.set(&fact["key"], &worst.collect::<Vec<_>>().join("\t"));
        }
        root
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.path().join("proc/sys").join(key.replace('.', "/"))
    }
    pub fn set(&self, key: &str, value: &str) {
        self.file(self.path(key).to_str().unwrap(), &format!("{value}\n"));
    }
    /// A file below the directory.
    pub fn file(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    pub fn read(&self, key: &str) -> String {
        fs::read_to_string(self.path(key)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }
    /// Every file with its text, to see that nothing changed.
    pub fn all(&self) -> BTreeMap<PathBuf, String> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.dir.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path.clone(), fs::read_to_string(path).unwrap());
                }
            }
        }
        found
    }

    /// Runs the script on this machine.
    fn tune(&self, args: &[&str]) -> Ran {
        let mut command = Command::new("sh");
        command.arg(folder().join("tune.sh")).args(args).current_dir(self.dir.path());
        ran(command.env("RINGWAY_ROOT", self.dir.path()))
    }
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn ran(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("run a shell");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().expect("an exit code"), out: text(stdout), err: text(stderr) }
}

/// The keys that a check calls short.
fn short(out: &str) -> BTreeSet<String> {
    let lines = out.lines().filter_map(|line| line.strip_prefix("short"));
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn check_is_the_default_and_writes_nothing() {
    let root = Root::worst();
    let before = root.all();
    let (default, check) = (root.tune(&[]), root.tune(&["check", "latency"]));
    assert_eq!((default.code, &default.out), (1, &check.out), "{}", default.err);
    assert!(short(&default.out).contains("net.core.somaxconn"), "{}", default.out);
    for fact in facts("refused") {
        let line = default.out.lines().find(|line| line.contains(&fact["key"])).unwrap();
        assert!(line.starts_with("refused") && line.contains(&fact["why"]), "{line}");
    }
    assert_eq!(root.all(), before);
    for wrong in [
        &["check", "fast"][..],
        &["apply"],
        &["apply", "fast"],
        &["undo"],
        &["idle"],
        &["check", "idle", "x"],
    ] {
        let ran = root.tune(wrong);
        assert_eq!(ran.code, 2, "{wrong:?}: {}{}", ran.out, ran.err);
    }
    assert_eq!(root.all(), before);
}

#[test]
fn apply_says_what_it_does_and_undo_puts_it_back() {
    for profile in PROFILES {
        let root = Root::worst();
        let (before, wanted) = (root.all(), short(&root.tune(&["check", profile]).out));
        assert!(!wanted.is_empty());
        let applied = root.tune(&["apply", profile, "undo.conf"]);
        assert_eq!((applied.code, applied.err.as_str()), (0, ""), "{}", applied.out);
        assert!(applied.out.starts_with("undo: "), "the way back comes first: {}", applied.out);
        let told: BTreeSet<_> = applied
            .out
            .lines()
            .filter(|line| line.contains(" -> "))
            .map(|l| l.split(':').next().unwrap().to_owned())
            .collect();
        assert_eq!(told, wanted, "{profile}");
        for line in applied.out.lines().filter(|line| line.contains(" -> ")) {
            let (key, change) = line.split_once(": ").unwrap();
            assert_eq!(change.split_once(" -> ").unwrap().1, root.read(key), "{line}");
        }
        assert_eq!(root.tune(&["check", profile]).code, 0);
        let again = root.tune(&["apply", profile, "other.conf"]);
        assert_eq!((again.code, again.out.as_str()), (0, &*format!("nothing falls short of {profile}\n")));
        let printed = root.tune(&["print", profile]).out;
        assert!(printed.lines().all(|line| {
            let (key, value) = line.split_once(" = ").unwrap();
            root.read(key) == value
        }));
        assert_eq!(root.tune(&["undo", "undo.conf"]).code, 0);
        let after = root.all();
        assert!(
            !after.contains_key(&root.dir.path().join("undo.conf")),
            "used up, and not in the next one's way"
        );
        let words = |files: BTreeMap<PathBuf, String>| -> Vec<_> {
            files
                .into_values()
                .map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .collect()
        };
        assert_eq!(words(after), words(before), "{profile}");
    }
}

#[test]
fn what_is_better_already_stays() {
    let root = Root::worst();
    root.set("net.core.somaxconn", "100000");
    root.set("fs.file-max", "9223372036854775807");
    root.set("net.ipv4.ip_local_port_range", "32768\t65535");
    root.set("net.ipv4.tcp_notsent_lowat", "16384");
    assert_eq!(root.tune(&["apply", "idle"]).code, 0);
    assert_eq!(root.read("net.core.somaxconn"), "100000");
    assert_eq!(root.read("fs.file-max"), "9223372036854775807");
    assert_eq!(root.read("net.ipv4.ip_local_port_range"), "1024 65535", "only widened");
    assert_eq!(root.read("net.ipv4.tcp_notsent_lowat"), "16384");
    root.set("net.ipv4.tcp_rmem", "8192\t87380\t6291456");
    assert_eq!(root.tune(&["apply", "bulk", "second.conf"]).code, 0);
    assert_eq!(root.read("net.ipv4.tcp_rmem"), "8192 131072 16777216", "each field by itself");
}

#[test]
fn nothing_is_made_that_is_not_there_and_nothing_refused_is_touched() {
    let root = Root::worst();
    fs::remove_file(root.path("net.ipv4.tcp_migrate_req")).unwrap();
    root.set("net.ipv4.tcp_abort_on_overflow", "0");
    root.set("net.core.somaxconn", "not a number");
    let applied = root.tune(&["apply", "latency"]);
    assert_eq!(applied.code, 0, "{}", applied.err);
    assert!(applied.out.contains("left alone: net.ipv4.tcp_migrate_req: "), "{}", applied.out);
    assert!(applied.out.contains("left alone: net.core.somaxconn: "), "{}", applied.out);
    assert!(
        !root.path("net.ipv4.tcp_migrate_req").exists() && !root.path("net.ipv4.tcp_tw_recycle").exists()
    );
    assert_eq!(root.read("net.ipv4.tcp_abort_on_overflow"), "0");
    assert_eq!(root.read("net.core.somaxconn"), "not a number");
    assert_eq!(root.tune(&["check"]).code, 1, "what cannot be read is told");
}

#[test]
fn an_undo_file_is_never_lost_and_never_believed_blindly() {
    let root = Root::worst();
    root.file("ringway-undo.conf", "net.core.somaxconn = 128\n");
    let before = root.all();
    let applied = root.tune(&["apply", "latency"]);
    assert_eq!(applied.code, 2);
    assert!(applied.err.contains("nothing was changed"), "{}", applied.err);
    assert!(applied.err.contains("undo ringway-undo.conf` puts back what it holds"), "{}", applied.err);
    assert_eq!(root.all(), before);
    for line in [
        "net.ipv4.tcp_tw_recycle = 1",
        "net.ipv4.tcp_abort_on_overflow = 1",
        "../../etc/passwd = 1",
        "kernel.core_pattern = |/bin/sh",
        "net.core.somaxconn = 1; reboot",
        "net.core.somaxconn = $(reboot)",
        "net.core.somaxconn =",
        "net.core.somaxconn 1",
    ] {
        root.file("wrong.conf", &format!("net.core.somaxconn = 128\n{line}\n"));
        let before = root.all();
        let ran = root.tune(&["undo", "wrong.conf"]);
        assert_eq!(ran.code, 2, "{line}: {}", ran.out);
        assert_eq!(root.all(), before, "{line}");
    }
    assert_eq!(root.tune(&["undo", "nowhere.conf"]).code, 2);
}

/// One table of facts: the script and the binary call the same settings short, before and after.
#[test]
fn doctor_and_the_script_agree() {
    let root = Root::worst();
    let doctor = |profile: &str| -> BTreeSet<String> {
        let mut command = ringway();
        command.args(["doctor", "--json", "--profile", profile]).env("RINGWAY_ROOT", root.dir.path());
        let ended = call(&mut command);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap().iter();
        let short = findings.filter(|f| f["part"] == "sysctls" && f["state"] == "short");
        short.map(|f| f["subject"].as_str().unwrap().to_owned()).collect()
    };
    for profile in PROFILES {
        assert_eq!(doctor(profile), short(&root.tune(&["check", profile]).out), "{profile}");
        let undo = format!("{profile}.conf");
        assert_eq!(root.tune(&["apply", profile, &undo]).code, 0);
        assert_eq!(doctor(profile), BTreeSet::new(), "{profile}");
    }
}

#[test]
fn what_the_kernel_does_not_take_is_told_and_the_rest_is_done() {
    let root = Root::worst();
    // A number that root cannot write either.
    fs::remove_file(root.path("net.core.somaxconn")).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel/cap_last_cap", root.path("net.core.somaxconn")).unwrap();
    let applied = root.tune(&["apply", "latency"]);
    assert_eq!(applied.code, 1, "{}", applied.out);
    assert!(applied.err.contains("net.core.somaxconn: the kernel did not take it"), "{}", applied.err);
    assert_eq!(short(&root.tune(&["check"]).out), BTreeSet::from(["net.core.somaxconn".to_owned()]));
    let undone = root.tune(&["undo", "ringway-undo.conf"]);
    assert_eq!(
        (undone.code, undone.err.as_str()),
        (0, ""),
        "nothing is written where nothing changed: {}",
        undone.out
    );
    assert!(!undone.out.contains("somaxconn"), "{}", undone.out);
}

/// On the kernel's own sysctls, in a network namespace of its own. Those that are the machine's are a file here.
#[test]
fn a_network_namespace_is_tuned_and_put_back() {
    let root = Root { dir: tempfile::tempdir().unwrap() };
    root.set("fs.nr_open", "1");
    std::os::unix::fs::symlink("/proc/sys/net", root.dir.path().join("proc/sys/net")).unwrap();
    let here = fs::read_link("/proc/self/ns/net").unwrap();
    let outside = || fs::read_to_string("/proc/sys/net/ipv4/tcp_slow_start_after_idle").unwrap();
    let before = outside();
    let script = "test \"$(readlink /proc/self/ns/net)\" != \"$HERE\" || exit 99\n\
        seen() { cat /proc/sys/net/ipv4/tcp_slow_start_after_idle /proc/sys/net/core/somaxconn; }\n\
        echo 1 >/proc/sys/net/ipv4/tcp_slow_start_after_idle && echo 100 >/proc/sys/net/core/somaxconn || exit 98\n\
        sh \"$TUNE\" apply bulk undo.conf >log 2>&1 || { cat log; exit 97; }\n\
        seen; sh \"$TUNE\" check bulk >log || { cat log; exit 96; }\n\
        sh \"$TUNE\" undo undo.conf >log && seen";
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", script]).current_dir(root.dir.path());
    command.env("HERE", here).env("TUNE", folder().join("tune.sh")).env("RINGWAY_ROOT", root.dir.path());
    let ran = ran(&mut command);
    if [1, 98, 99].contains(&ran.code) {
        return skip(&format!("no network namespace with sysctls of its own: {}", ran.err));
    }
    assert_eq!((ran.code, ran.out.as_str()), (0, "0\n65535\n1\n100\n"), "{}", ran.err);
    assert_eq!((outside(), root.read("fs.nr_open")), (before, "1".to_owned()), "nothing outside");
}

#[test]
fn the_script_is_clean() {
    let mut shellcheck = Command::new("shellcheck");
    match shellcheck.arg(folder().join("tune.sh")).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => skip("no shellcheck"),
    }
}

#[test]
fn the_unit_is_one_for_systemd() {
    let unit = fs::read_to_string(folder().join("ringway.service")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringway.service");
    // verify wants the program to be there.
    fs::write(&path, unit.replace("/usr/local/bin/ringway", env!("CARGO_BIN_EXE_ringway"))).unwrap();
    match Command::new("systemd-analyze").arg("verify").arg(&path).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("ringway.service"), "{said}");
        }
        Err(_) => skip("no systemd-analyze"),
    }
}
