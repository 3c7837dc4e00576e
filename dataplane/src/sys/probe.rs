//! Whether this kernel and this container let us use io_uring; and if not, why, and what to change.

use super::buf_ring::BufRing;
use super::{fit, rlimit, sound};
use crate::buf::Class;
use crate::io::Errno;
use io_uring::{IoUring, Probe, opcode};
use std::{fmt, fs, io};

/// The oldest kernel that has all we need: IORING_SETUP_DEFER_TASKRUN came with it.
pub const KERNEL_FLOOR: (u32, u32) = (6, 1);

/// What the probe found beyond the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Major and minor number; zeroes where the kernel's name does not say.
    pub kernel: (u32, u32),
    /// IORING_SETUP_NO_SQARRAY, from 6.6.
    pub no_sqarray: bool,
    /// IORING_ENTER_NO_IOWAIT, from 6.15: a waiting ring is not counted as waiting for a disk.
    pub no_iowait: bool,
    /// Receives may stand: they have a limit, from 6.17, and do not lose the end of a stream.
    pub standing: bool,
}

/// Why io_uring cannot be used here. Its `Display` is one paragraph that says what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// Older than [`KERNEL_FLOOR`].
    KernelTooOld { release: String },
    /// ENOSYS, and no seccomp filter to blame.
    NotBuilt,
    /// EPERM by the sysctl kernel.io_uring_disabled (1: only the privileged, 2: nobody).
    Disabled { level: u8 },
    /// EPERM or ENOSYS by a seccomp filter or a security module.
    Forbidden { errno: Errno, filtered: bool },
    /// The kernel lacks an operation.
    NoOperation { name: &'static str },
    /// ENOMEM, with RLIMIT_MEMLOCK in bytes.
    NoMemory { memlock: u64 },
    /// The process or the machine is out of descriptors.
    NoDescriptors { errno: Errno },
    /// Any other failure of a call.
    Failed { call: &'static str, errno: Errno },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = KERNEL_FLOOR;
        match self {
            Self::KernelTooOld { release } => write!(
                f,
                "This kernel is {release}; ringway needs Linux {major}.{minor} or newer for its io_uring. Run it on a \
                 newer kernel (in a container, that of the host counts)."
            ),
            Self::NotBuilt => write!(
                f,
                "This kernel answers that it has no io_uring (ENOSYS): it was built without CONFIG_IO_URING, or a \
                 sandbox such as gVisor stands in for the kernel. ringway needs io_uring; run it on a Linux kernel \
                 from {major}.{minor} on that has it."
            ),
            Self::Disabled { level: 1 } => write!(
                f,
                "io_uring is switched off for ordinary processes on this machine (kernel.io_uring_disabled = 1). \
                 Switch it on with `sysctl -w kernel.io_uring_disabled=0`, or put ringway's group into \
                 kernel.io_uring_group, or give the process CAP_SYS_ADMIN."
            ),
            Self::Disabled { level } => write!(
                f,
                "io_uring is switched off for every process on this machine (kernel.io_uring_disabled = {level}). \
                 Switch it on with `sysctl -w kernel.io_uring_disabled=0`."
            ),
            Self::Forbidden { errno, filtered: true } => write!(
                f,
                "A seccomp filter forbids io_uring_setup ({errno}). The default profiles of Docker 25 and newer, of \
                 containerd 2.0 and newer and of Podman do that: allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the container's profile and pass it with `--security-opt \
                 seccomp=profile.json` (Kubernetes: securityContext.seccompProfile, type Localhost); \
                 `--security-opt seccomp=unconfined` shows at once whether that is the cause."
            ),
            Self::Forbidden { errno, filtered: false } => write!(
                f,
                "The kernel forbids io_uring_setup ({errno}), but neither kernel.io_uring_disabled nor a seccomp \
                 filter of this process explains it: look for a security module (SELinux, AppArmor, an eBPF policy) \
                 that denies io_uring, and allow it for ringway."
            ),
            Self::NoOperation { name } => write!(
                f,
                "This kernel's io_uring lacks {name}, which ringway needs. Linux {major}.{minor} and newer have it; \
                 run it on such a kernel."
            ),
            Self::NoMemory { memlock } => {
                let limit = match *memlock {
                    rlimit::UNLIMITED => "unlimited".to_owned(),
                    bytes => format!("{} KiB", bytes / 1024),
                };
                write!(
                    f,
                    "The kernel has no memory for an io_uring (ENOMEM). The limit on locked memory is {limit}; raise \
                     it with `ulimit -l unlimited` (systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1). If \
                     it is high already, the machine or the container's memory limit is short of memory."
                )
            }
            Self::NoDescriptors { errno } => write!(
                f,
                "There is no descriptor left for an io_uring ({errno}). Raise the limit with `ulimit -n` (systemd: \
                 LimitNOFILE=; Docker: --ulimit nofile=) or, for the whole machine, `sysctl -w fs.file-max`."
            ),
            Self::Failed { call, errno } => {
                write!(f, "{call} failed ({errno}), so io_uring cannot be used on this machine.")
            }
        }
    }
}
impl std::error::Error for Unusable {}

/// Asks for a small ring with everything a shard's ring has, and lets it go again.
pub fn probe() -> Result<Features, Unusable> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = parse_release(&release);
    if kernel.is_some_and(|k| k < KERNEL_FLOOR) {
        return Err(Unusable::KernelTooOld { release: release.trim().to_owned() });
    }
    fit::patiently(|| probe_ring(kernel.unwrap_or((0, 0))))
}

/// What a small ring shows of a kernel of this version.
fn probe_ring(kernel: (u32, u32)) -> Result<Features, Unusable> {
    let mut features = Features { kernel, no_sqarray: true, no_iowait: false, standing: false };
    let ring = match build(&features, 8, 16) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            features.no_sqarray = false;
            build(&features, 8, 16)
        }
        other => other,
    }
    .map_err(|error| refused("io_uring_setup", &error))?;
    features.no_iowait = ring.params().is_feature_no_iowait();
    check_operations(&ring)?;
    let group = BufRing::new(Class::Large);
    group.register(&ring.submitter()).map_err(|errno| refused_errno("io_uring_register", errno))?;
    group.unregister(&ring.submitter());
    features.standing = sound::stands_soundly(features);
    Ok(features)
}

/// A ring for the calling thread.
pub(super) fn build(features: &Features, submissions: u32, completions: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    builder.setup_clamp().setup_cqsize(completions).dontfork();
    if features.no_sqarray {
        builder.setup_no_sqarray();
    }
    builder.build(submissions)
}

/// The operations of `sqe.rs`.
const OPERATIONS: &[(u8, &str)] = &[
    (opcode::AcceptMulti::CODE, "IORING_OP_ACCEPT"),
    (opcode::Recv::CODE, "IORING_OP_RECV"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::SendMsg::CODE, "IORING_OP_SENDMSG"),
    (opcode::Connect::CODE, "IORING_OP_CONNECT"),
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
    (opcode::Close::CODE, "IORING_OP_CLOSE"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
    (opcode::MsgRingData::CODE, "IORING_OP_MSG_RING"),
];

fn check_operations(ring: &IoUring) -> Result<(), Unusable> {
    let mut probe = Probe::new();
    let asked = ring.submitter().register_probe(&mut probe);
    asked.map_err(|error| refused("io_uring_register", &error))?;
    let missing = OPERATIONS.iter().find(|(code, _)| !probe.is_supported(*code));
    missing.map_or(Ok(()), |(_, name)| Err(Unusable::NoOperation { name }))
}

pub(super) fn refused(call: &'static str, error: &io::Error) -> Unusable {
    refused_errno(call, Errno(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Turns an errno into its cause, with what /proc says about it.
fn refused_errno(call: &'static str, errno: Errno) -> Unusable {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    explain(call, errno, has_filter(&status), disabled.trim().parse().unwrap_or(0))
}

fn explain(call: &'static str, errno: Errno, filtered: bool, disabled: u8) -> Unusable {
    match errno.0 {
        // With the sysctl at 1 a privileged process is let through, so EPERM means that it is what stopped us.
        libc::EPERM | libc::EACCES if disabled > 0 => Unusable::Disabled { level: disabled },
        libc::EPERM | libc::EACCES => Unusable::Forbidden { errno, filtered },
        libc::ENOSYS if filtered => Unusable::Forbidden { errno, filtered },
        libc::ENOSYS => Unusable::NotBuilt,
        libc::ENOMEM => Unusable::NoMemory { memlock: rlimit::memlock() },
        libc::EMFILE | libc::ENFILE => Unusable::NoDescriptors { errno },
        libc::EINVAL => Unusable::NoOperation { name: "IORING_SETUP_DEFER_TASKRUN or a flag beside it" },
        _ => Unusable::Failed { call, errno },
    }
}

/// The line "Seccomp: 2" of /proc/thread-self/status says that a filter is installed.
fn has_filter(status: &str) -> bool {
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// "6.18.44-fc" is (6, 18).
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for (text, expected) in [
            ("6.18.44-fc-v595\n", Some((6, 18))),
            ("6.1-rc3", Some((6, 1))),
            ("5.14.0-427.el9.x86_64", Some((5, 14))),
            ("6", None),
            ("next", None),
            ("", None),
        ] {
            assert_eq!(parse_release(text), expected, "{text}");
        }
        assert!(
            parse_release("5.15.0").unwrap() < KERNEL_FLOOR
                && parse_release("6.1.0").unwrap() >= KERNEL_FLOOR
        );
    }

    #[test]
    fn each_cause_has_a_message_with_its_remedy() {
        let eperm = Errno(libc::EPERM);
        for (errno, filtered, disabled, words) in [
            (eperm, false, 2, "every process on this machine (kernel.io_uring_disabled = 2)"),
            (eperm, true, 1, "sysctl -w kernel.io_uring_disabled=0"),
            (eperm, true, 0, "Docker 25"),
            (eperm, false, 0, "security module"),
            (Errno(libc::ENOSYS), true, 0, "containerd 2.0"),
            (Errno(libc::ENOSYS), false, 0, "CONFIG_IO_URING"),
            (Errno(libc::ENOMEM), false, 0, "--ulimit memlock=-1"),
            (Errno(libc::EMFILE), false, 0, "ulimit -n"),
            (Errno(libc::EINVAL), false, 0, "Linux 6.1"),
            (Errno(libc::EFAULT), false, 0, "io_uring_setup failed"),
        ] {
            let message = explain("io_uring_setup", errno, filtered, disabled).to_string();
            assert!(message.contains(words), "{errno:?} {filtered} {disabled}: {message}");
            assert!(!message.contains('\n') && !message.contains("  "), "one paragraph: {message}");
        }
        let old = Unusable::KernelTooOld { release: "5.15.0".to_owned() }.to_string();
        assert!(old.contains("5.15.0") && old.contains("6.1"), "{old}");
    }

    #[test]
    fn filters_are_read_from_the_status() {
        assert!(has_filter("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!has_filter("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"));
    }
}
