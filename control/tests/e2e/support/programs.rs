//! Programs that others wrote, started with a configuration of ours and ended with the test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A child of ours, ended with the test, and the folder that it runs in.
pub struct Ours {
    child: Child,
    dir: Option<tempfile::TempDir>,
}

impl Ours {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")), dir: None }
    }
}

impl Ours {
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of these programs that is installed.
pub fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let extra = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut places: Vec<_> = std::env::split_paths(&path).chain(extra).collect();
    places.dedup();
    names.iter().flat_map(|name| places.iter().map(move |dir| dir.join(name))).find(|file| file.is_file())
}

/// A port that was free a moment ago; none of these programs can say which port 0 became.
pub fn port() -> SocketAddr {
    super::closed_port()
}

/// What an `http` block needs to stay inside its folder.
pub const NGINX_HTTP: &str = "access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; \
                              uwsgi_temp_path t4; scgi_temp_path t5;";

/// nginx's stream module, where it is a file of its own.
pub fn nginx_stream() -> Option<PathBuf> {
    let places = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/nginx/modules"];
    places.iter().map(|place| Path::new(place).join("ngx_stream_module.so")).find(|file| file.is_file())
}

/// nginx with these blocks; `first` stands in front of everything (`load_module`).
#[track_caller]
pub fn nginx(nginx: &Path, first: &str, blocks: &str) -> Ours {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display();
    let text = format!(
        "{first}\ndaemon off; master_process off; pid {place}/pid; error_log {place}/error.log;\nevents {{}}\n{blocks}\n"
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-p").arg(dir.path()).arg("-c").arg(&file);
    let mut ours = Ours::start(&mut command);
    ours.dir = Some(dir);
    ours
}

/// HAProxy with these sections behind defaults of `mode`.
#[track_caller]
pub fn haproxy(haproxy: &Path, mode: &str, sections: &str) -> Ours {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "global\n  maxconn 100\ndefaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
         {sections}\n"
    );
    let file = dir.path().join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(&file);
    let mut ours = Ours::start(&mut command);
    ours.dir = Some(dir);
    ours
}
