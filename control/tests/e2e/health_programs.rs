//! Origins that others wrote (nginx, Python, Node): killed, stopped, made to answer 500 and to lie, told apart by their checks.

use crate::health::{configuration, event};
use crate::support::client::Client;
use crate::support::programs::{self, Ours, port, program};
use crate::support::proxy::Proxy;
use crate::support::{eventually, skip};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const PYTHON: &str = "
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass
    def do_GET(self):
        if os.path.exists('broken'):
            self.connection.close()
            return
        health = self.path == '/health'
        status = 500 if health and os.path.exists('error') else 200
        body = (b'maintaining' if os.path.exists('lie') else b'healthy') if health else b'python'
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";

const NODE: &str = "
const fs = require('fs');
require('http').createServer((request, response) => {
  const health = request.url === '/health';
  response.statusCode = health && fs.existsSync('error') ? 500 : 200;
  response.end(health ? (fs.existsSync('lie') ? 'maintaining' : 'healthy') : 'node');
}).listen(Number(process.argv[2]), '127.0.0.1');
";

/// A program that answers `/health` by files in its folder: `error` is 500, `lie` is 200 and \"maintaining\".
struct Subject {
    name: &'static str,
    address: SocketAddr,
    dir: tempfile::TempDir,
    process: Option<Ours>,
}

impl Subject {
    fn new(name: &'static str) -> Option<Self> {
        let binary = match name {
            "nginx" => program(&["nginx"]),
            "python" => program(&["python3"]),
            _ => program(&["node", "nodejs"]),
        };
        let Some(binary) = binary else {
            skip(&format!("no {name}"));
            return None;
        };
        let (address, dir) = (port(), tempfile::tempdir().unwrap());
        let mut subject = Self { name, address, dir, process: None };
        subject.start(&binary);
        Some(subject)
    }

    fn start(&mut self, binary: &Path) {
        let (dir, port) = (self.dir.path(), self.address.port().to_string());
        let script = |file: &str, text: &str| {
            let path = dir.join(file);
            std::fs::write(&path, text).unwrap();
            Ours::start(Command::new(binary).arg(path).arg(&port).current_dir(dir))
        };
        self.process = Some(match self.name {
            "nginx" => {
                // The seed's construction: a file in place of the answer.
                let server = format!(
                    "server {{ listen {}; root {}; location = /health {{ if (-f $document_root/error) {{ return 500; }} \
                     if (-f $document_root/lie) {{ return 200 maintaining; }} return 200 healthy; }} location / {{ return 200 \
                     nginx; }} }}",
                    self.address,
                    dir.display()
                );
                programs::nginx(binary, "", &format!("http {{ {} {server} }}", programs::NGINX_HTTP))
            }
            "python" => script("origin.py", PYTHON),
            _ => script("origin.js", NODE),
        });
        let address = self.address;
        eventually(self.name, || std::net::TcpStream::connect(address).is_ok());
    }
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// Each in turn is made to fail while the others serve, and everything that clients ask meanwhile is answered.
#[test]
fn programs_that_fail_their_checks_are_left_and_taken_back() {
    let subjects: Vec<_> = ["nginx", "python", "node"].into_iter().filter_map(Subject::new).collect();
    if subjects.len() < 2 {
        return skip("one origin alone has nobody to take its place");
    }
    let endpoints: Vec<_> = subjects.iter().map(|subject| subject.address.to_string()).collect();
    let health = "[cluster.health]\nkind = \"http\"\npath = \"/health\"\nexpect_body = { contains = \"healthy\" }\n\
                  interval = \"20ms\"\ntimeout = \"500ms\"\n";
    let proxy = Proxy::start(&configuration(&endpoints, "", health));
    let ask = || {
        let response = Client::get(proxy.edge(), "/");
        assert_eq!(response.status, 200, "{}", response.reason());
        response.text().to_owned()
    };
    let others_serve = |name: &str| (0..12).for_each(|_| assert_ne!(ask(), name));
    for subject in &subjects {
        let Subject { name, address, .. } = subject;
        let down = |reason: &str| {
            event(&proxy, &format!("app/{address} is DOWN, reason: {reason}"));
            others_serve(name);
        };
        let mut ups = 0;
        let mut up = || {
            ups += 1;
            let line = format!("app/{address} is UP");
            eventually(name, || proxy.stderr.all().iter().filter(|l| l.contains(&line)).count() == ups);
            eventually(name, || ask() == *name);
        };
        std::fs::write(subject.file("error"), "").unwrap();
        down("Layer7 wrong status, code: 500");
        std::fs::remove_file(subject.file("error")).unwrap();
        up();
        std::fs::write(subject.file("lie"), "").unwrap();
        down("Layer7 wrong body, code: 200, info: \"maintaining\"");
        std::fs::remove_file(subject.file("lie")).unwrap();
        up();
        let process = subject.process.as_ref().unwrap();
        process.signal(Signal::STOP);
        // Its kernel still accepts; nobody answers.
        down("Layer7 timeout");
        process.signal(Signal::CONT);
        up();
    }
    let mut subjects = subjects;
    let last = subjects.pop().unwrap();
    drop(last.process);
    event(
        &proxy,
        &format!("app/{} is DOWN, reason: Layer4 refused, info: \"Connection refused\"", last.address),
    );
    others_serve(last.name);
}
