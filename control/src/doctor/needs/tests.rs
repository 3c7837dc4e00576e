//! The arithmetic of a configuration, on machines made of a few files.

use super::*;
use crate::config::parse;
use std::fs;

/// The seed's shape: a front with nine source addresses, three origins with 30,000 connections each.
const FRONT: &str = r#"
[runtime]
shards = 4
[[listener]]
name = "front"
address = "0.0.0.0:80"
cluster = "origins"
[[cluster]]
name = "origins"
source_addresses = ["127.0.0.1-127.0.0.9"]
endpoints = [
  { address = "127.0.0.1:8080", max_connections = 30000 },
  { address = "127.0.0.2:8080", max_connections = 30000 },
  { address = "127.0.0.3:8080", max_connections = 30000 },
]
"#;

fn environment(descriptors: u64) -> Environment {
    Environment { cpus: 4, descriptors, ..Environment::of_tests() }
}

/// A machine of these files, in a directory that lives as long as the answer.
fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let machine = Machine::at(dir.path().to_owned());
    (dir, machine)
}

/// What is found for `text` with so many descriptors on a machine of these files.
fn found(text: &str, descriptors: u64, files: &[(&str, &str)]) -> Vec<Finding> {
    let loaded = parse(text, "test", &environment(descriptors)).unwrap();
    let (_dir, machine) = machine(files);
    let resources = Resources { shards: 4, descriptors, locked_memory: u64::MAX };
    of(&loaded, &environment(descriptors), &machine, &resources)
}

#[track_caller]
fn about<'f>(findings: &'f [Finding], subject: &str) -> &'f Finding {
    findings
        .iter()
        .find(|finding| finding.subject == subject)
        .unwrap_or_else(|| panic!("{subject}: {findings:#?}"))
}

const PORTS_FILE: &str = "proc/sys/net/ipv4/ip_local_port_range";
const RESERVED_FILE: &str = "proc/sys/net/ipv4/ip_local_reserved_ports";

#[test]
fn the_arithmetic_of_many_connections_is_printed() {
    let files =
        [(PORTS_FILE, "32768\t60999\n"), (RESERVED_FILE, "\n"), ("proc/meminfo", "MemTotal: 16777216 kB\n")];
    let findings = found(FRONT, 20_000, &files);
    assert!(about(&findings, "connections").what.contains("up to 90,000 pairs"));
    let descriptors = about(&findings, "descriptors");
    assert_eq!(descriptors.state, State::Short);
    // 2 x 90,000 + 4 x (1 + 128) + 128
    assert!(descriptors.what.contains("= 180,644, but only 20,000"), "{}", descriptors.what);
    assert_eq!(descriptors.mend.as_deref(), Some("ulimit -n 180644 (systemd: LimitNOFILE=180644)"));
    let ports = about(&findings, "cluster origins");
    assert_eq!(ports.state, State::Good);
    let product =
        "9 x 28,232 x 3 = 762,264 links, 254,088 to one destination; max_connections makes that 90,000";
    assert_eq!(ports.what, product);
    assert_eq!(about(&findings, "memory").state, State::Good);
    assert_eq!(about(&found(FRONT, 180_644, &files), "descriptors").state, State::Good);
    assert_eq!(about(&found(FRONT, 180_643, &files), "descriptors").state, State::Short);
}

#[test]
fn links_that_come_back_count_again() {
    let origins = "[[listener]]\nname = \"origins\"\n\
        address = [\"127.0.0.1:8080\", \"127.0.0.2:8080\", \"127.0.0.3:8080\"]\n\
        [[route]]\nlisteners = [\"origins\"]\nrespond = { body = \"ok\" }\n";
    let findings = found(&format!("{FRONT}{origins}"), 20_000, &[]);
    // 90,000 more descriptors, and three more listening sockets in each of four shards.
    assert!(about(&findings, "descriptors").what.contains("= 270,656"), "{findings:#?}");
}

#[test]
fn a_limit_beyond_the_machines_names_all_that_must_be_raised() {
    let text = FRONT
        .replace("30000", "400000")
        .replace("address = \"0.0.0.0:80\"", "address = \"0.0.0.0:80\"\nmax_connections = 1200000");
    let files =
        [("proc/sys/fs/nr_open", "1048576"), ("proc/sys/fs/file-max", "2000000"), (PORTS_FILE, "1024 65535")];
    let findings = found(&text, 1_048_576, &files);
    let mend = about(&findings, "descriptors").mend.clone().unwrap();
    assert!(
        mend.starts_with("sysctl -w fs.nr_open=2400644, then sysctl -w fs.file-max=2400644, then ulimit"),
        "{mend}"
    );
    assert_eq!(about(&findings, "cluster origins").state, State::Good, "9 x 64,512 suffice for 400,000");
    let memory = found(&text, 1_048_576, &[("proc/meminfo", "MemTotal: 8388608 kB")]);
    assert_eq!(about(&memory, "memory").state, State::Short, "10 GiB into 8");
}

#[test]
fn too_few_ports_are_told_with_what_would_do() {
    let one = FRONT.replace("source_addresses = [\"127.0.0.1-127.0.0.9\"]\n", "");
    let at = |range| found(&one, 1 << 20, &[(PORTS_FILE, range)]);
    let findings = at("32768 60999");
    let ports = about(&findings, "cluster origins");
    assert_eq!(ports.state, State::Short);
    assert!(ports.what.contains("1 x 28,232 x 3 = 84,696 links"), "{}", ports.what);
    assert!(ports.mend.as_deref().unwrap().starts_with("source_addresses of 2 addresses, or sysctl -w"));
    assert_eq!(about(&at("20000 49999"), "cluster origins").state, State::Good, "30,000 ports are enough");
    assert_eq!(about(&at("20000 49998"), "cluster origins").state, State::Short);
    let clients = one.replace("30000", "1000").replace("[[cluster]]", "[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:1\"\ncluster = \"origins\"\nmax_connections = 90000\n[[cluster]]");
    let findings = found(&clients, 1 << 20, &[(PORTS_FILE, "32768 60999")]);
    assert!(about(&findings, "cluster origins").what.contains("90,000 clients may want a link each"));
    let unreadable = found(FRONT, 1 << 20, &[]);
    assert_eq!(about(&unreadable, "ip_local_port_range").state, State::Short);
}

#[test]
fn addresses_that_are_not_there_are_told() {
    // 192.0.2.0/24 is nobody's (RFC 5737).
    let text = FRONT.replace("127.0.0.9", "127.0.0.9\", \"192.0.2.7");
    let findings = found(&text, 1 << 20, &[(PORTS_FILE, "32768 60999")]);
    let missing: Vec<_> = findings.iter().filter(|f| f.subject == "source_addresses of origins").collect();
    assert_eq!(missing.len(), 1, "{findings:#?}");
    assert_eq!(missing[0].mend.as_deref(), Some("ip address add 192.0.2.7/32 dev INTERFACE"));
}

#[test]
fn ports_that_listen_belong_among_the_reserved() {
    let files = [(PORTS_FILE, "1024 65535"), (RESERVED_FILE, "9000-9009\n")];
    let findings = found(FRONT, 1 << 20, &files);
    let mend = about(&findings, "ports that listen").mend.as_deref().unwrap();
    assert_eq!(mend, "sysctl -w net.ipv4.ip_local_reserved_ports=9000-9009,8080");
    let files = [(PORTS_FILE, "1024 65535"), (RESERVED_FILE, "8000-8100")];
    assert!(found(FRONT, 1 << 20, &files).iter().all(|finding| finding.subject != "ports that listen"));
    let set = [8080, 8081, 8082, 9000, 65535].into_iter().collect();
    assert_eq!(as_ranges(&set), "8080-8082,9000,65535");
}

#[test]
fn rights_tables_and_pipes() {
    const STATUS: &str = "proc/self/status";
    let poor = [
        (STATUS, "CapEff:\t0000000000000000\n"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "100000"),
        ("proc/sys/fs/pipe-user-pages-soft", "16384"),
    ];
    let findings = found(FRONT, 1 << 20, &poor);
    assert!(about(&findings, "listener front").what.contains("0.0.0.0:80 is below 1024"));
    let tracking = about(&findings, "connection tracking");
    assert!(
        tracking.state == State::Short
            && tracking.mend.as_deref().unwrap().contains("nf_conntrack_max=180000")
    );
    let pipes = about(&findings, "pipes");
    assert!(pipes.state == State::Short && pipes.mend.as_deref().unwrap().ends_with("=65536"), "{pipes:?}");
    let rich = [(STATUS, "Name:\tx\nCapEff:\t000001ffffffffff\n"), ("proc/sys/fs/pipe-user-pages-soft", "1")];
    let findings = found(FRONT, 1 << 20, &rich);
    assert!(findings.iter().all(|finding| finding.subject != "listener front"), "{findings:#?}");
    assert_eq!(about(&findings, "pipes").state, State::Good);
    assert_eq!(about(&findings, "connection tracking").state, State::Good);
}

#[test]
fn nothing_asked_for_falls_short_of_nothing() {
    let text = "[[listener]]\nname = \"e\"\naddress = \"127.0.0.1:8080\"\ncluster = \"a\"\n\
        [[cluster]]\nname = \"a\"\nendpoints = [\"127.0.0.1:9000\"]\n";
    let files = [(PORTS_FILE, "32768 60999"), ("proc/meminfo", "MemTotal: 16777216 kB")];
    let findings = found(text, 1024, &[files[0], files[1], ("proc/self/status", "CapEff: ffffffffffffffff")]);
    assert!(findings.iter().all(|finding| finding.state != State::Short), "{findings:#?}");
}
