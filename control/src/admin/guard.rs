//! Who may ask what of the API.
//!
//! A page of another site, opened in an operator's browser, must not reach it: every request names a host that is an address or
//! `localhost` (against DNS rebinding), and what changes something needs `Content-Type: application/json`, which no form can
//! send and no script may without being asked for first (CORS). Where there is a token, what changes something or shows a secret
//! needs it, and all else too if that is wanted: each row of `paths` says which it is. Where there is none, only this machine
//! can ask: the configuration sees to that.

use super::Answer;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt;
use std::net::IpAddr;

/// What whoever asks must know.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// A token may be sent as it is in a field (RFC 6750 2.1): printable ASCII without spaces.
    pub fn new(text: &str) -> Option<Self> {
        let whole = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        whole.then(|| Self(text.into()))
    }
    /// As the field of a request says it.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
    /// Whether `given` is this one. Macs are compared, in a time that tells nothing of either.
    fn is(&self, given: &[u8]) -> bool {
        let mac = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).ok().map(|mac| mac.chain_update(b"token"));
        // HMAC takes keys of any length: there is no error.
        let (Some(wanted), Some(given)) = (mac(self.0.as_bytes()), mac(given)) else { return false };
        given.verify_slice(&wanted.finalize().into_bytes()).is_ok()
    }
}

/// What the configuration asks of whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guard {
    pub token: Option<Token>,
    /// Reading needs the token too.
    pub all: bool,
}

/// When a request needs the token, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Never: what whatever watches the process asks for, and the page, which holds no data and asks whoever reads it for the token.
    Nothing,
    /// Where reading does.
    Reading,
    /// Always: it changes something, has something done elsewhere, or may show what is secret.
    Token,
}

impl Needs {
    /// Of what no path answers.
    pub(super) fn of_stranger(method: &Method) -> Self {
        if reads(method) { Self::Reading } else { Self::Token }
    }
}

/// Whether a page of another site could send it without being asked for first.
fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

impl Guard {
    /// Says why a request is refused, if it is.
    pub(super) fn admit(
        &self,
        method: &Method,
        needs: Needs,
        headers: &HeaderMap,
    ) -> Result<(), Box<Response>> {
        let text =
            |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let refused = |status, why| Err(Box::new(Answer::refused(status, why).into_response()));
        if !is_literal(text(HOST)) {
            return refused(StatusCode::MISDIRECTED_REQUEST, "the Host must be an address or localhost");
        }
        let guarded = match needs {
            Needs::Nothing => false,
            Needs::Reading => self.all,
            Needs::Token => true,
        };
        if let Some(token) = self.token.as_ref().filter(|_| guarded)
            && !bearer(text(AUTHORIZATION)).is_some_and(|given| token.is(given.as_bytes()))
        {
            let why =
                "needs the token of admin.token: Authorization: Bearer TOKEN (ringway: --token-file FILE)";
            let mut answer = Answer::refused(StatusCode::UNAUTHORIZED, why).into_response();
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Err(Box::new(answer));
        }
        let kind = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        if !reads(method) && !kind.eq_ignore_ascii_case("application/json") {
            return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "needs Content-Type: application/json");
        }
        Ok(())
    }
}

/// The credentials of a scheme whose name has no case (RFC 9110 11.1).
fn bearer(field: &str) -> Option<&str> {
    let (scheme, given) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
}

/// Whether a Host names no name that somebody else's DNS could point here: an address, or `localhost`.
fn is_literal(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() && (!name.contains(':') || name.ends_with(']')) => {
            name
        }
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_dns_cannot_point_here() {
        for good in [
            "127.0.0.1",
            "127.0.0.1:9901",
            "[::1]:9901",
            "[::1]",
            "localhost",
            "LOCALHOST:9901",
            "10.0.0.5:1",
        ] {
            assert!(is_literal(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "example.com:9901",
            "127.0.0.1.nip.io",
            "localhost.evil.com",
            "localhost:x",
            "::1:z",
        ] {
            assert!(!is_literal(bad), "{bad}");
        }
    }

    fn status(guard: &Guard, method: Method, needs: Needs, authorization: &str) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        guard.admit(&method, needs, &headers).map_or_else(|refused| refused.status().as_u16(), |()| 200)
    }

    #[test]
    fn a_token_guards_what_changes_and_what_is_secret() {
        let token = Token::new("0123456789abcdef");
        let (open, changes) = (Guard::default(), Guard { token: token.clone(), all: false });
        let all = Guard { token, all: true };
        let right = "Bearer 0123456789abcdef";
        for (needs, method, of_changes, of_all) in [
            (Needs::Nothing, Method::GET, 200, 200),
            (Needs::Reading, Method::GET, 200, 401),
            (Needs::Reading, Method::POST, 200, 401),
            (Needs::Token, Method::GET, 401, 401),
            (Needs::Token, Method::POST, 401, 401),
            (Needs::of_stranger(&Method::GET), Method::GET, 200, 401),
            (Needs::of_stranger(&Method::DELETE), Method::DELETE, 401, 401),
        ] {
            for wrong in [
                "",
                "Bearer",
                "Bearer ",
                "Bearer 0123456789abcde",
                "Bearer 0123456789abcdefg",
                "Basic 0123456789abcdef",
            ] {
                let found = [&open, &changes, &all].map(|guard| status(guard, method.clone(), needs, wrong));
                assert_eq!(found, [200, of_changes, of_all], "{needs:?} {wrong:?}");
            }
            for right in [right, "bearer  0123456789abcdef"] {
                let found = [&open, &changes, &all].map(|guard| status(guard, method.clone(), needs, right));
                assert_eq!(found, [200; 3], "{needs:?} {right:?}");
            }
        }
    }

    #[test]
    fn tokens_can_be_sent_as_they_are() {
        for wrong in ["", "a b", "a\n", "\u{e4}"] {
            assert_eq!(Token::new(wrong), None, "{wrong:?}");
        }
        assert_eq!(format!("{:?}", Token::new("secret")), "Some(Token)");
    }
}
