//! `ringway-bench setup`: installs the peers from Debian, and builds those that are crates and what is measured.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// Where the built peers go, below the folder in which the bench is started.
pub(crate) const ROOT: &str = "target/rivals";
/// nginx and HAProxy are peers, wrk a generator, strace counts system calls; the rest builds sozu and pingora.
const PACKAGES: &[&str] = &[
    "nginx",
    "libnginx-mod-stream",
    "haproxy",
    "wrk",
    "strace",
    "gcc",
    "g++",
    "libc6-dev",
    "make",
    "cmake",
    "pkg-config",
    "protobuf-compiler",
];
const SOZU: &str = "2.3.3";
const PINGORA: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("../../rivals/pingora/Cargo.toml")),
    ("Cargo.lock", include_str!("../../rivals/pingora/Cargo.lock")),
    ("src/main.rs", include_str!("../../rivals/pingora/src/main.rs")),
];
/// Debian's scripts ask this program before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the built peers go.
    #[arg(long, default_value = ROOT)]
    rivals: PathBuf,
    /// The peers that are crates are absent then: they take minutes to build.
    #[arg(long)]
    without_crates: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    install()?;
    // Here, so that `compare` measures from its first minute on.
    crate::compare::build()?;
    if args.without_crates {
        return Ok(());
    }
    fs::create_dir_all(args.rivals.join("bin"))?;
    let rivals = args.rivals.canonicalize()?;
    // One that fails is named at the end and shown as absent by `compare`; the other is of use without it.
    let failed: Vec<String> = [sozu(&rivals), pingora(&rivals)]
        .into_iter()
        .filter_map(|done| done.err().map(|e| format!("{e:#}")))
        .collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

fn say(line: &str) {
    _ = writeln!(std::io::stderr(), "== {line}");
}

fn done(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Keeps services from starting while packages are installed; taken away with this value, unless it was there before.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn new() -> anyhow::Result<Self> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n").context("the installation needs root")?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            _ = fs::remove_file(POLICY);
        }
    }
}

fn is_installed(package: &str) -> bool {
    let status = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}", package]).output();
    status.is_ok_and(|done| done.stdout.starts_with(b"ii"))
}

fn install() -> anyhow::Result<()> {
    let missing: Vec<&str> = PACKAGES.iter().filter(|p| !is_installed(p)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("install: {}", missing.join(" ")));
    let _no_services = NoServices::new()?;
    done(apt().args(["update", "-qq"]))?;
    done(apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(missing))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn cargo(rivals: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Objects beside the results: a second run builds nothing.
    command.env("CARGO_TARGET_DIR", rivals.join("build"));
    command
}

fn sozu(rivals: &Path) -> anyhow::Result<()> {
    say(&format!("build: sozu {SOZU}"));
    done(cargo(rivals).args(["install", "sozu", "--locked", "--version", SOZU, "--root"]).arg(rivals))
}

fn pingora(rivals: &Path) -> anyhow::Result<()> {
    say("build: pingora");
    // Its sources are in this binary, which may have been built in another folder, or moved.
    let source = rivals.join("pingora");
    fs::create_dir_all(source.join("src"))?;
    for (name, text) in PINGORA {
        fs::write(source.join(name), text)?;
    }
    done(cargo(rivals).args(["build", "--release", "--locked"]).current_dir(source))?;
    let name = "rival-pingora";
    fs::copy(rivals.join("build/release").join(name), rivals.join("bin").join(name))?;
    Ok(())
}
