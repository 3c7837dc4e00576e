//! Two network namespaces of a test's own, joined by a veth pair: a network that can be cut without anybody being told.

use super::skip;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A namespace by its name; gone with the test.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.0]);
    }
}

/// `near` and `far`, each with its loopback.
pub struct Namespaces {
    near: Namespace,
    far: Namespace,
}

pub const NEAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1));
pub const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2));
const FAR_LINK: &str = "02:00:00:00:77:02";

/// ip(8).
fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", arguments.join(" "))) }
}

impl Namespaces {
    /// Skips the test where they cannot be had.
    pub fn new() -> Option<Self> {
        match Self::build() {
            Ok(both) => Some(both),
            Err(why) => {
                skip(&format!("no network namespaces: {why}"));
                None
            }
        }
    }
    fn build() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let add = |side: &str| {
            let name = format!("ringway-{}-{number}-{side}", std::process::id());
            ip(&["netns", "add", &name]).map(|()| Namespace(name))
        };
        let both = Self { near: add("near")?, far: add("far")? };
        let (near, far) = (both.near.0.as_str(), both.far.0.as_str());
        let peer = ["type", "veth", "peer", "name", "wire", "netns", far, "address", FAR_LINK];
        ip(&[&["-n", near, "link", "add", "wire"], &peer[..]].concat())?;
        for (name, address) in [(near, NEAR), (far, FAR)] {
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", "wire", "up"])?;
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "wire"])?;
        }
        Ok(both)
    }

    /// Runs `work` in the near namespace; threads and processes that it starts are there too.
    pub fn near<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.near, work)
    }
    pub fn far<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.far, work)
    }

    /// The far side vanishes: it hears and says nothing more, and near goes on sending to where it was.
    pub fn vanish(&self) {
        let to = FAR.to_string();
        let neighbour = ["neigh", "replace", &to, "lladdr", FAR_LINK, "dev", "wire", "nud", "permanent"];
        ip(&[&["-n", &self.near.0], &neighbour[..]].concat()).unwrap();
        ip(&["-n", &self.far.0, "addr", "del", &format!("{FAR}/24"), "dev", "wire"]).unwrap();
    }
}

fn inside<T: Send>(namespace: &Namespace, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            let file = std::fs::File::open(format!("/run/netns/{}", namespace.0)).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
