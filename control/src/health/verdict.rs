//! How a check ended, in the classes of HAProxy's health checks: which layer, and what there.

use std::fmt;
use std::io;

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed(Passed),
    Failed(Reason),
    /// Nothing was learnt of the endpoint: this machine lacked a descriptor, memory or a port. Counts as no check.
    NotMade(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// Connected.
    Layer4,
    /// Answered with this status.
    Layer7(u16),
}

/// Why a check failed. Texts quote what came, escaped and cut, or are the kernel's words for an errno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Not connected in time.
    Layer4Timeout,
    /// The connect was refused.
    Layer4Refused(String),
    /// It failed otherwise.
    Layer4Problem(String),
    /// Connected, and no whole answer in time.
    Layer7Timeout,
    WrongStatus {
        code: u16,
        body: String,
    },
    WrongBody {
        code: u16,
        body: String,
    },
    /// No answer of HTTP, or half of one.
    InvalidResponse(String),
}

impl Verdict {
    /// How a connect failed.
    pub(super) fn of_connect(error: &io::Error) -> Self {
        let text = words_of(error);
        match error.raw_os_error() {
            Some(
                libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRNOTAVAIL
                | libc::EADDRINUSE,
            ) => Self::NotMade(text),
            Some(libc::ECONNREFUSED) => Self::Failed(Reason::Layer4Refused(text)),
            Some(libc::ETIMEDOUT) => Self::Failed(Reason::Layer4Timeout),
            _ => Self::Failed(Reason::Layer4Problem(text)),
        }
    }

    pub fn has_passed(&self) -> bool {
        matches!(self, Self::Passed(_))
    }

    /// The class in one word, for programs.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Passed(Passed::Layer4) => "layer4_passed",
            Self::Passed(Passed::Layer7(_)) => "layer7_passed",
            Self::Failed(Reason::Layer4Timeout) => "layer4_timeout",
            Self::Failed(Reason::Layer4Refused(_)) => "layer4_refused",
            Self::Failed(Reason::Layer4Problem(_)) => "layer4_problem",
            Self::Failed(Reason::Layer7Timeout) => "layer7_timeout",
            Self::Failed(Reason::WrongStatus { .. }) => "layer7_wrong_status",
            Self::Failed(Reason::WrongBody { .. }) => "layer7_wrong_body",
            Self::Failed(Reason::InvalidResponse(_)) => "layer7_invalid_response",
            Self::NotMade(_) => "not_made",
        }
    }
}

/// The kernel's words, without the number that std puts behind them.
fn words_of(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(Passed::Layer4) => f.write_str("Layer4 check passed"),
            Self::Passed(Passed::Layer7(code)) => write!(f, "Layer7 check passed, code: {code}"),
            Self::Failed(reason) => reason.fmt(f),
            Self::NotMade(why) => write!(f, "not checked, info: \"{why}\""),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = |f: &mut fmt::Formatter<'_>, text: &str| match text {
            "" => Ok(()),
            text => write!(f, ", info: \"{text}\""),
        };
        match self {
            Self::Layer4Timeout => f.write_str("Layer4 timeout"),
            Self::Layer4Refused(info) => {
                f.write_str("Layer4 refused")?;
                quote(f, info)
            }
            Self::Layer4Problem(info) => {
                f.write_str("Layer4 connection problem")?;
                quote(f, info)
            }
            Self::Layer7Timeout => f.write_str("Layer7 timeout"),
            Self::WrongStatus { code, body } => {
                write!(f, "Layer7 wrong status, code: {code}")?;
                quote(f, body)
            }
            Self::WrongBody { code, body } => {
                write!(f, "Layer7 wrong body, code: {code}")?;
                quote(f, body)
            }
            Self::InvalidResponse(info) => {
                f.write_str("Layer7 invalid response")?;
                quote(f, info)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_words() {
        let of = |errno| Verdict::of_connect(&io::Error::from_raw_os_error(errno)).to_string();
        assert_eq!(of(libc::ECONNREFUSED), "Layer4 refused, info: \"Connection refused\"");
        assert_eq!(of(libc::EHOSTUNREACH), "Layer4 connection problem, info: \"No route to host\"");
        assert_eq!(of(libc::ETIMEDOUT), "Layer4 timeout");
        assert_eq!(of(libc::EMFILE), "not checked, info: \"Too many open files\"");
        let status = Verdict::Failed(Reason::WrongStatus { code: 500, body: "oops".to_owned() });
        assert_eq!(status.to_string(), "Layer7 wrong status, code: 500, info: \"oops\"");
        let status = Verdict::Failed(Reason::WrongStatus { code: 500, body: String::new() });
        assert_eq!(status.to_string(), "Layer7 wrong status, code: 500");
        assert_eq!(Verdict::Passed(Passed::Layer7(200)).to_string(), "Layer7 check passed, code: 200");
    }
}
