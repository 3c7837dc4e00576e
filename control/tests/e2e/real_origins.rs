//! Origins that others wrote: nginx and Python's http.server, where the machine has them.

use crate::support::client::Client;
use crate::support::proxy::Setup;
use crate::support::{assert_same, eventually, pattern, skip};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A child of ours, ended with the test.
struct Ours(Child);

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let extra = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut places: Vec<_> = std::env::split_paths(&path).chain(extra).collect();
    places.dedup();
    names.iter().flat_map(|name| places.iter().map(move |dir| dir.join(name))).find(|file| file.is_file())
}

/// A port that was free a moment ago; neither program can say which port 0 became.
fn port() -> SocketAddr {
    crate::support::closed_port()
}

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
    command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _origin = Ours(command.spawn().expect("start python3"));
    serves_files(address, &files);
}

#[test]
fn nginx() {
    let Some(nginx) = program(&["nginx"]) else { return skip("no nginx") };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let files = files(&root);
    let address = port();
    let place = dir.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {place}/{kind};"))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;\n\
         events {{}}\nhttp {{ access_log off; {temporary} server {{ listen {address}; root {place}/root; }} }}\n"
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-p").arg(dir.path()).arg("-c").arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _origin = Ours(command.spawn().expect("start nginx"));
    serves_files(address, &files);
}
