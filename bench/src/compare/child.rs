//! Child processes: pinned, bounded, ended on every way out.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::cgroup::Group;

/// Set by SIGINT and SIGTERM: everything that waits looks at it, so that the way out is the ordinary one.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Makes the two signals end the run in order; a second SIGINT ends it at once.
pub(super) fn stop_on_signals() -> anyhow::Result<()> {
    let stop = STOP.get_or_init(|| Arc::new(AtomicBool::new(false)));
    use signal_hook::consts::{SIGINT, SIGTERM};
    // Not for SIGTERM: `timeout` sends it twice, and the second would leave the group behind.
    signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(stop))?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

/// An error once a signal asked to stop.
pub(super) fn check_stop() -> anyhow::Result<()> {
    if STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
        bail!("stopped by a signal");
    }
    Ok(())
}

/// Waits, and no less.
pub(super) fn pause(length: Duration) {
    let end = Instant::now() + length;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// As [`pause`], but an error when a signal asks to stop.
pub(super) fn pause_checked(length: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + length;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        check_stop()?;
        pause(left.min(Duration::from_millis(100)));
    }
    check_stop()
}

/// `program` on one CPU, in a group if there is one, killed if this process is: in one chain of `exec`s, so that the
/// child's pid is the program's and nothing of it ever runs outside the group.
pub(super) fn pinned(program: &Path, cpu: usize, group: Option<&Group>) -> Command {
    let mut command = Command::new("/bin/sh");
    let join = if group.is_some() { "echo $$ >\"$0\" && " } else { "" };
    let procs = group.map_or_else(|| "sh".into(), |g| g.path().join("cgroup.procs"));
    command.arg("-c").arg(format!("{join}exec setpriv --pdeathsig KILL taskset -c {cpu} \"$@\"")).arg(procs);
    command.arg(program).stdin(Stdio::null());
    command
}

/// A running child; ended and reaped with this value.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
}

impl Running {
    pub(super) fn new(mut command: Command) -> anyhow::Result<Self> {
        Ok(Self { child: command.spawn().with_context(|| format!("cannot start {command:?}"))? })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line it prints, within `limit`. The rest is read and dropped, so that it never blocks on a full pipe.
    pub(super) fn first_line(&mut self, limit: Duration) -> anyhow::Result<String> {
        let out = self.child.stdout.take().context("no pipe")?;
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                _ = send.send(line);
            }
        });
        receive.recv_timeout(limit).context("it printed no line in time")
    }

    /// `Some(code)` when it has ended.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    pub(super) fn wait(&mut self, limit: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + limit;
        while self.ended().is_none() {
            check_stop()?;
            if Instant::now() > end {
                bail!("it did not end within {} s", limit.as_secs());
            }
            pause(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Asks it to end, with a signal that `kill` knows by this name.
    pub(super) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        _ = Command::new("kill").args(["-s", name, &pid]).stderr(Stdio::null()).status();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal("TERM");
            let end = Instant::now() + Duration::from_secs(2);
            while self.ended().is_none() && Instant::now() < end {
                pause(Duration::from_millis(5));
            }
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Runs `command` to its end and returns what it printed on both outputs.
pub(super) fn output(mut command: Command, limit: Duration) -> anyhow::Result<String> {
    let file = tempfile::tempfile()?;
    command.stdout(file.try_clone()?).stderr(file.try_clone()?);
    let mut running = Running::new(command)?;
    running.wait(limit)?;
    drop(running);
    let mut file = file;
    let mut text = String::new();
    std::io::Seek::rewind(&mut file)?;
    std::io::Read::read_to_string(&mut file, &mut text)?;
    Ok(text)
}
