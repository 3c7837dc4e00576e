//! Sockets of the unix domain: listening on a path that an earlier process may have left behind, and leaving none.

use super::enter::last_errno;
use super::socket::{self, RawAddress};
use crate::io::{Address, Errno, Family, Fd, SocketOption, UnixName};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file of a socket that we bound or were given; dropped, it is removed where it is ours, unless another process put its own there
/// meanwhile.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Another process removes it.
    left: bool,
}

impl SocketFile {
    /// What is at `path` now.
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino(), left: false })
    }

    /// That of a socket which another process bound and gave us; none of an abstract name, or where it is gone. Until we
    /// [`SocketFile::own`] it that process may take the socket back, and it stays.
    pub fn of(name: &UnixName) -> Option<Self> {
        let mut file = Self::at(Path::new(OsStr::from_bytes(name.path()?))).ok()?;
        file.left = true;
        Some(file)
    }

    /// It is ours alone, to be removed.
    pub fn own(&mut self) {
        self.left = false;
    }

    /// The socket is another process's, and so is its file.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// Gives the file other permissions, if it is still ours.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == (self.device, self.inode)) {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.left
            && fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == (self.device, self.inode))
        {
            // A directory that became read-only keeps it: the next start finds nobody listening and removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

/// A listening socket called `name`, and its file, which has the permissions `mode` from the beginning. A file that
/// nobody listens on any more is replaced. EADDRINUSE: somebody does; ENOTSOCK: a file is there that is no socket.
pub fn listener(name: &Arc<UnixName>, mode: u32, backlog: i32) -> Result<(Fd, Option<SocketFile>), Errno> {
    let fd = socket::socket(Family::Unix)?;
    bind(fd, name, mode).and_then(|file| socket::listen(fd, backlog).map(|()| (fd, file))).inspect_err(|_| {
        socket::close(fd);
    })
}

fn bind(fd: Fd, name: &Arc<UnixName>, mode: u32) -> Result<Option<SocketFile>, Errno> {
    let address = Address::Unix(name.clone());
    let Some(path) = name.path() else { return socket::bind(fd, &address).map(|()| None) };
    let path = Path::new(OsStr::from_bytes(path));
    // bind(2) makes the file with the socket's own mode, less the umask: never wider than asked, not for a moment.
    // SAFETY: no memory is passed.
    if unsafe { libc::fchmod(fd.0, mode) } < 0 {
        return Err(last_errno());
    }
    match socket::bind(fd, &address) {
        Err(Errno(libc::EADDRINUSE)) => {
            remove_stale(path, &address)?;
            socket::bind(fd, &address)?;
        }
        other => other?,
    }
    let file = SocketFile::at(path).map_err(|e| errno_of(&e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| errno_of(&e))?;
    Ok(Some(file))
}

/// Removes the file of a socket on which nobody listens.
fn remove_stale(path: &Path, address: &Address) -> Result<(), Errno> {
    let found = fs::symlink_metadata(path).map_err(|e| errno_of(&e))?;
    if !found.file_type().is_socket() {
        return Err(Errno(libc::ENOTSOCK));
    }
    match probe(address) {
        Err(Errno(libc::ECONNREFUSED)) => {}
        Err(Errno(libc::EACCES)) => return Err(Errno(libc::EACCES)),
        _ => return Err(Errno(libc::EADDRINUSE)),
    }
    fs::remove_file(path).map_err(|e| errno_of(&e))
}

/// How long somebody who was there may take to show that they are not: the rings of a process that was killed let go of
/// its sockets a little after its end.
const DYING_MS: libc::c_int = 500;
const PROBES: u32 = 3;

/// Whether somebody listens there: as connect(2) says, without waiting for a place in a full backlog.
fn probe(to: &Address) -> Result<(), Errno> {
    let mut found = Ok(());
    for _ in 0..PROBES {
        let fd = socket::socket(Family::Unix)?;
        found = probe_by(fd, to);
        let hung_up = found.is_ok() && hangs_up(fd);
        socket::close(fd);
        if !hung_up {
            break;
        }
    }
    found
}

fn probe_by(fd: Fd, to: &Address) -> Result<(), Errno> {
    socket::set_option(fd, SocketOption::NonBlocking)?;
    let raw = RawAddress::from(to);
    // SAFETY: `raw` outlives the call, and its length is the one passed.
    let connected = unsafe { libc::connect(fd.0, raw.as_ptr(), raw.len()) };
    if connected < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Whether the other end goes away soon, as that of a connection which nobody will accept.
fn hangs_up(fd: Fd) -> bool {
    let mut poll = libc::pollfd { fd: fd.0, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, valid during the call.
    unsafe { libc::poll(&raw mut poll, 1, DYING_MS) == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn name(path: &Path) -> Arc<UnixName> {
        Arc::new(UnixName::new(path.as_os_str().as_bytes()).unwrap())
    }
    /// A directory of this test's own.
    fn directory(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ringway-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_file_comes_with_its_mode_and_goes_with_its_socket() {
        let directory = directory("mode");
        let path = directory.join("x.sock");
        for mode in [0o600, 0o660, 0o666] {
            let (fd, file) = listener(&name(&path), mode, 8).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
            UnixStream::connect(&path).unwrap();
            drop(file);
            assert!(!path.exists());
            socket::close(fd);
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_stale_file_is_replaced_and_a_live_one_is_not() {
        let directory = directory("stale");
        let path = directory.join("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (first, file) = listener(&name(&path), 0o600, 8).unwrap();
        assert_eq!(listener(&name(&path), 0o600, 8).map(|_| ()), Err(Errno(libc::EADDRINUSE)));
        UnixStream::connect(&path).unwrap();
        // Another process takes the place over: its file is not ours to remove.
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
        socket::close(first);
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a letter").unwrap();
        assert_eq!(listener(&name(&path), 0o600, 8).map(|_| ()), Err(Errno(libc::ENOTSOCK)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a letter");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_given_file_stays_until_it_is_our_own() {
        let directory = directory("given");
        let path = directory.join("x.sock");
        let (fd, file) = listener(&name(&path), 0o600, 8).unwrap();
        file.unwrap().leave();
        drop(SocketFile::of(&name(&path)));
        UnixStream::connect(&path).unwrap();
        let mut file = SocketFile::of(&name(&path)).unwrap();
        file.own();
        drop(file);
        assert!(!path.exists());
        socket::close(fd);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn an_abstract_name_leaves_no_file() {
        let name = Arc::new(UnixName::new(format!("@ringway-{}", std::process::id()).as_bytes()).unwrap());
        let (fd, file) = listener(&name, 0o600, 8).unwrap();
        assert!(file.is_none());
        assert_eq!(listener(&name, 0o600, 8).map(|_| ()), Err(Errno(libc::EADDRINUSE)));
        assert!(socket::local_address(fd).is_ok_and(|a| a.is_unix()));
        socket::close(fd);
    }
}
