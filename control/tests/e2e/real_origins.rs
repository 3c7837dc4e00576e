//! Origins that others wrote: nginx and Python's http.server, where the machine has them.

use crate::support::client::Client;
use crate::support::programs::{self, Ours, port, program};
use crate::support::proxy::Setup;
use crate::support::{assert_same, eventually, pattern, skip};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Files of several sizes, by the name of their size.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    [0, 1, 4096, 65_537, 1 << 20]
        .map(|size| {
            let (name, bytes) = (format!("{size}.bin"), pattern(size, size as u64));
            std::fs::write(dir.join(&name), &bytes).unwrap();
            (name, bytes)
        })
        .into()
}

fn serves_files(address: SocketAddr, files: &[(String, Vec<u8>)]) {
    eventually("the origin's start", || std::net::TcpStream::connect(address).is_ok());
    let proxy = Setup { endpoints: &[address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for _ in 0..3 {
        for (name, bytes) in files {
            let response = client.exchange(&format!("GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(response.status, 200, "{name}");
            assert_same(&response.body, bytes, name);
            let head = client.exchange(&format!("HEAD /{name} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!((head.status, head.body.len()), (200, 0), "{name}");
            assert_eq!(head.field("content-length"), Some(bytes.len().to_string().as_str()));
        }
        assert_eq!(client.exchange("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n").status, 404);
    }
}

#[test]
fn pythons_http_server() {
    let Some(python) = program(&["python3"]) else { return skip("no python3") };
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let address = port();
    let mut command = Command::new(python);
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &address.port().to_string()]);
    let _origin = Ours::start(command.current_dir(dir.path()));
    serves_files(address, &files);
}

#[test]
fn nginx() {
    let Some(nginx) = program(&["nginx"]) else { return skip("no nginx") };
    let root = tempfile::tempdir().unwrap();
    let files = files(root.path());
    let address = port();
    let server = format!("server {{ listen {address}; root {}; }}", root.path().display());
    let _origin = programs::nginx(&nginx, "", &format!("http {{ {} {server} }}", programs::NGINX_HTTP));
    serves_files(address, &files);
}
