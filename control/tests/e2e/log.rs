//! The access log: a line for each exchange, with what happened; hostile strings stay inside it.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::Setup;
use rustix::process::Signal;

#[test]
fn each_exchange_has_its_line() {
    let origin = Origin::echo();
    let tables = "[[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\nrespond = { status = 418, body = \"short\" }\n";
    let proxy =
        Setup { runtime: "shards = 1", tables, endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    let peer = client.stream.local_addr().unwrap().to_string();
    client.exchange(
        "POST /p?q=1 HTTP/1.1\r\nHost: Example.com\r\nUser-Agent: test/1\r\nContent-Length: 5\r\n\r\nhello",
    );
    client.exchange("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
    client.exchange("GET /own HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");

    let first = proxy.log_line(|line| line["path"] == "/p");
    for (key, value) in [
        ("listener", "edge"),
        ("cluster", "app"),
        ("endpoint", origin.address.to_string().as_str()),
        ("client", &peer),
        ("method", "POST"),
        ("query", "q=1"),
        ("user_agent", "test/1"),
        ("version", "HTTP/1.1"),
    ] {
        assert_eq!(first[key], value, "{key} in {first}");
    }
    for (key, value) in [
        ("status", 200),
        ("request_body_bytes", 5),
        ("response_body_bytes", 5),
        ("attempts", 1),
        ("request_number", 1),
    ] {
        assert_eq!(first[key], value, "{key} in {first}");
    }
    assert!(first["host"].as_str().unwrap().eq_ignore_ascii_case("example.com"), "{first}");
    assert_eq!(first["link_reused"], false);
    assert!(first["duration_us"].as_u64() >= first["first_byte_us"].as_u64(), "{first}");
    assert!(first["upstream_local"].as_str().unwrap().starts_with("127.0.0.1:"), "{first}");
    for absent in ["reason", "close"] {
        assert!(first.get(absent).is_none(), "{absent} in {first}");
    }

    let again = proxy.log_line(|line| line["path"] == "/again");
    assert_eq!((&again["link_reused"], &again["request_number"]), (&true.into(), &2.into()), "{again}");

    let own = proxy.log_line(|line| line["path"] == "/own");
    assert_eq!(
        (&own["status"], &own["route"], &own["close"]),
        (&418.into(), &"own".into(), &"keep_alive_ended".into())
    );
    assert!(own.get("endpoint").is_none() && own.get("reason").is_none(), "{own}");
}

#[test]
fn no_exchange_is_left_out() {
    let origin = Origin::saying("x");
    let mut proxy = Setup { runtime: "shards = 4", endpoints: &[origin.address], ..Setup::default() }.start();
    for _ in 0..20 {
        let mut client = Client::connect(proxy.edge());
        for _ in 0..50 {
            assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
        }
    }
    proxy.signal(Signal::INT);
    proxy.exit_code(crate::support::PATIENCE);
    // The end of the pipe is the end of the log.
    assert_eq!(proxy.stdout.wait_for(|_| false), None);
    let lines = proxy.log_lines();
    assert_eq!(lines.len(), 1000);
    let mut ids: Vec<_> = lines.iter().map(|line| line["request_id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1000, "ids are unique");
}

/// Threat H09.
#[test]
fn hostile_strings_stay_inside_one_line() {
    let origin = Origin::saying("x");
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    client.send(b"GET /\"%0a%1b[2J?q=\"}{\" HTTP/1.1\r\nHost: a\r\nUser-Agent: \"\xff\xc2\x9b\\ {\"status\":1}\r\n\r\n");
    let _ = client.try_response("GET");
    let long = "u".repeat(10_000);
    client = Client::connect(proxy.edge());
    client.send(format!("GET /long HTTP/1.1\r\nHost: a\r\nUser-Agent: {long}\r\n\r\n"));
    assert_eq!(client.response("GET").status, 200);
    let line = proxy.log_line(|line| line["path"] == "/long");
    assert_eq!(line["user_agent"].as_str().unwrap().len(), 2048);
    // Every line was JSON, or `log_line` would have failed; and none holds a raw control character.
    for line in proxy.stdout.all() {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

#[test]
fn a_log_file_is_reopened_on_usr1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let tables = format!(
        "[[route]]\nmatch = {{ path_prefix = \"/\" }}\nrespond = {{ status = 200, body = \"ok\" }}\n\
         [[access_log]]\nto = \"file:{}\"\n",
        path.display()
    );
    let proxy = Setup { tables: &tables, ..Setup::default() }.start();
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    Client::get(proxy.edge(), "/");
    eventually("the first line", || lines(&path) == 1);
    let old = dir.path().join("access.log.1");
    std::fs::rename(&path, &old).unwrap();
    proxy.signal(Signal::USR1);
    eventually("the new file", || path.exists());
    Client::get(proxy.edge(), "/");
    eventually("the second line", || lines(&path) == 1);
    assert_eq!(lines(&old), 1);
}

/// Threat D09, goal R21: nobody reads standard output, and requests do not notice.
#[test]
fn a_stalled_standard_output_stalls_nobody() {
    let origin = Origin::saying("x");
    let setup = Setup { endpoints: &[origin.address], ..Setup::default() };
    let (_dir, file) = crate::support::proxy::file(&setup.text());
    let mut child = crate::support::proxy::ringway().arg("run").arg("-c").arg(&file).spawn().unwrap();
    // Reads the ready line and then no more.
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut out, &mut ready).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let edge = ready["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
    // A pipe holds 64 KiB; a line with a long path is 2 KiB.
    let path = "p".repeat(1800);
    let mut client = Client::connect(edge);
    for _ in 0..1500 {
        assert_eq!(client.exchange(&format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200);
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    let code = crate::support::proxy::exit_code(&mut child, std::time::Duration::from_secs(4));
    assert_eq!(code, 0, "it ends though its log cannot");
}
