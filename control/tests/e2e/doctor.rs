//! `ringway doctor` on machines made of files.

use crate::support::client::Client;
use crate::support::proxy::{Ended, Proxy, Setup, call, file, ringway};
use crate::support::{seccomp, skip};
use crate::tuning::Root;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// A machine of 24 GiB with the kernel's own port range, and a process that may do nothing special.
fn machine() -> Root {
    let root = Root::worst();
    root.set("net.ipv4.ip_local_port_range", "32768\t60999");
    root.set("net.ipv4.ip_local_reserved_ports", "");
    root.set("net.ipv4.ip_unprivileged_port_start", "1024");
    root.set("net.netfilter.nf_conntrack_max", "262144");
    root.set("fs.pipe-user-pages-soft", "16384");
    root.set("fs.nr_open", "1048576");
    root.set("fs.file-max", "2466183");
    root.file("proc/meminfo", "MemTotal:       25165824 kB\nMemFree: 1 kB\n");
    root.file("proc/self/status", "Name:\tringway\nCapEff:\t0000000000000000\n");
    root
}

/// Calls doctor with 20,000 descriptors at most, or fewer where the machine has no more.
fn doctor(root: &Root, args: &[&str]) -> Ended {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 20000; exec \"$0\" doctor \"$@\"",
        ringway().get_program().to_str().unwrap(),
    ]);
    command.args(args).env("RINGWAY_ROOT", root.dir.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    call(&mut command)
}

fn findings(ended: &Ended) -> Vec<Value> {
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    report["findings"].as_array().unwrap().clone()
}

#[test]
fn what_falls_short_is_named_with_its_remedy_and_nothing_is_written() {
    let root = machine();
    let before = root.all();
    let ended = doctor(&root, &[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{}", ended.stdout);
    for wanted in ["profile latency", "  ok     io_uring: Linux ", "mend: sysctl -w net.core.somaxconn=65535"]
    {
        assert!(ended.stdout.contains(wanted), "{wanted}: {}", ended.stdout);
    }
    assert!(ended.stdout.contains("`kernel-tuning/tune.sh apply latency` sets "), "{}", ended.stdout);
    assert_eq!(doctor(&root, &["--strict"]).code, 1);
    let json = doctor(&root, &["--json", "--strict", "--profile", "bulk"]);
    assert_eq!((json.code, json.stdout.lines().count()), (1, 1));
    let short = findings(&json).iter().filter(|f| f["state"] == "short").count();
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap()["short"], short);
    assert_eq!(root.all(), before);
}

#[test]
fn a_machine_without_fault_passes_strictly() {
    let root = machine();
    for (key, value) in [
        ("net.core.somaxconn", "65535"),
        ("net.core.netdev_max_backlog", "16384"),
        ("net.ipv4.ip_local_port_range", "10240 65535"),
        ("net.ipv4.tcp_tw_reuse", "1"),
        ("net.ipv4.tcp_timestamps", "1"),
        ("net.ipv4.tcp_max_tw_buckets", "262144"),
        ("net.ipv4.tcp_syncookies", "1"),
        ("net.ipv4.tcp_migrate_req", "1"),
        ("net.ipv4.tcp_slow_start_after_idle", "0"),
        ("net.ipv4.tcp_notsent_lowat", "131072"),
        ("net.netfilter.nf_conntrack_max", "1048576"),
        ("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "30"),
    ] {
        root.set(key, value);
    }
    root.file("proc/self/status", "CapEff:\tffffffffffffffff\n");
    let ended = doctor(&root, &["--strict"]);
    assert_eq!(ended.code, 0, "{}", ended.stdout);
    assert!(ended.stdout.ends_with("nothing falls short"), "{}", ended.stdout);
}

#[test]
fn a_wrong_configuration_is_told_as_check_tells_it() {
    let (_dir, path) = file("[[listener]]\nname = \"edge\"\nadress = \"127.0.0.1:0\"\n");
    let ended = doctor(&machine(), &["-c", path.to_str().unwrap()]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert!(
        ended.stderr.contains(":3:1: error: ") && ended.stderr.contains("nearest: address"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_kernel_that_refuses_io_uring_is_a_finding() {
    let root = machine();
    let asked = |strict: bool| {
        let mut command = ringway();
        command
            .args(["doctor", "--json"])
            .args(strict.then_some("--strict"))
            .env("RINGWAY_ROOT", root.dir.path());
        seccomp::refuse_io_uring(&mut command);
        call(&mut command)
    };
    let ended = asked(false);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let found = findings(&ended);
    assert!(
        found[0]["state"] == "short" && found[0]["what"].as_str().unwrap().contains("seccomp"),
        "{}",
        found[0]
    );
    assert_eq!(asked(true).code, 1);
}

#[test]
fn descriptors_and_locked_memory_are_those_of_the_process() {
    let root = machine();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 300; ulimit -l 64; exec \"$0\" doctor --json -c \"$1\"",
        ringway().get_program().to_str().unwrap(),
    ]);
    let text =
        Setup { runtime: "shards = 2", listener: "max_connections = 200", tables: "", ..Setup::default() }
            .text();
    let (_dir, path) = file(&text);
    command.arg(&path).env("RINGWAY_ROOT", root.dir.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let found = findings(&call(&mut command));
    let about = |subject: &str| found.iter().rfind(|f| f["subject"] == subject).unwrap().clone();
    // 2 x 200 + 2 x (1 + 128) + 128
    assert!(about("descriptors")["what"].as_str().unwrap().contains("= 786, but only 300"), "{found:#?}");
    let locked = about("locked memory");
    assert!(locked["state"] == "short" && locked["what"].as_str().unwrap().contains("64 KiB"), "{locked}");
}

/// Eight shards in 4 MiB, without the capability that lifts the limit: one warning, the same words from `status` and doctor.
#[test]
fn rings_that_had_to_be_made_smaller_are_told_of() {
    if !rustix::process::geteuid().is_root() {
        return skip("a process that may lock no more than this has to be made by root");
    }
    let limited = |command: &mut Command| {
        let mut by = Command::new("sh");
        let script = "ulimit -l 4096; exec setpriv --bounding-set=-ipc_lock \"$0\" \"$@\"";
        by.args(["-c", script]).arg(command.get_program()).args(command.get_args());
        by.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        by.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        *command = by;
    };
    let text = "[admin]\naddress = \"127.0.0.1:0\"\n[runtime]\nshards = 8\n[[listener]]\nname = \"edge\"\naddress = \
                \"127.0.0.1:0\"\n[[route]]\nmatch = { path_prefix = \"/\" }\nrespond = { status = 200 }\n";
    let proxy = Proxy::start_with(text, limited);
    let said = "8 rings of 292 KiB in place of 1156 KiB, because 4096 KiB may be locked (RLIMIT_MEMLOCK)";
    let warned = proxy.stderr.wait_for(|line| line.contains(said)).expect("a warning");
    assert!(warned.contains("LimitMEMLOCK=infinity"), "{warned}");
    assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    let mut status = ringway();
    let status = call(status.args(["status", "--admin", proxy.ready["admin"].as_str().unwrap()]));
    assert!(status.stdout.starts_with(&format!("short: {said}")), "{}{}", status.stdout, status.stderr);
    assert!(status.stdout.contains("LimitMEMLOCK=infinity"));
    let (root, (_dir, path)) = (machine(), file(text));
    let mut command = ringway();
    command.args(["doctor", "--json", "-c"]).arg(&path).env("RINGWAY_ROOT", root.dir.path());
    limited(&mut command);
    let found = findings(&call(&mut command));
    let locked = found.iter().find(|f| f["subject"] == "locked memory").unwrap();
    assert!(locked["what"].as_str().unwrap().starts_with(said), "{locked}");
    assert_eq!(proxy.stderr.all().iter().filter(|line| line.contains("RLIMIT_MEMLOCK")).count(), 1);
}

/// What docs/recipes/many-connections.md shows is what doctor prints for its configuration on such a machine.
#[test]
fn the_recipe_shows_what_doctor_prints() {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recipes/many-connections.md");
    let recipe = std::fs::read_to_string(recipe).unwrap();
    let block = |language: &str| {
        let rest = recipe.split_once(&format!("```{language}\n")).expect(language).1;
        rest.split_once("```").unwrap().0.to_owned()
    };
    let (_dir, path) = file(&block("toml"));
    let ended = doctor(&machine(), &["-c", path.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let shown = block("text");
    assert!(shown.lines().count() > 8);
    for line in shown.lines().filter(|line| !line.is_empty()) {
        assert!(ended.stdout.lines().any(|printed| printed == line), "not printed: {line}\n{}", ended.stdout);
    }
}
