//! `[cluster.sticky]`: clients come back to their endpoint by a cookie of ours.

use super::keys::ReloadEffect::NextExchange;
use super::keys::{Key, Section, Shape};
use super::matching::is_token;
use super::tree::{Item, Table};
use super::{Environment, template};
use dataplane::limits;
use dataplane::spec::{Endpoint, Sticky, StickyValue};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::time::Duration;

pub(super) static SECTION: Section = Section {
    path: "cluster.sticky",
    shared: false,
    doc: "Clients come back to the endpoint that answered them first, by a cookie that ringway sets and reads. Its value is a \
          keyed hash of the endpoint's name. It is set where a request has none of a known value, and anew where the endpoint \
          it names may not be used; an endpoint that is only full keeps its clients, and another answers meanwhile. Of several \
          such cookies the first of a known value counts. A Set-Cookie of this name from an origin is dropped. Without \
          cookies, see `balance = \"hash\"`.",
    keys: &[
        Key::new("cookie", Shape::Free("a cookie's name"), NextExchange, "Its name, at most 64 characters.")
            .absent("required"),
        Key::new(
            "indirect",
            Shape::Flag,
            NextExchange,
            "Origins do not see it: it is taken out of the Cookie fields of requests, the others stay as they are.",
        ),
        Key::new(
            "nocache",
            Shape::Flag,
            NextExchange,
            "An answer that sets it has a line `Cache-Control: private` beside the origin's own, so that no shared cache hands \
             one client's cookie to others. Of directives that conflict a cache obeys the more restrictive.",
        ),
        Key::new("http_only", Shape::Flag, NextExchange, "Scripts do not see it.").absent("true"),
        Key::new(
            "secure",
            Shape::Flag,
            NextExchange,
            "Browsers send it over TLS only, which something in front of this process must then end.",
        ),
        Key::new(
            "same_site",
            Shape::Word(&["lax", "strict", "none"], &[]),
            NextExchange,
            "Its SameSite. `\"none\"` needs `secure`.",
        ),
        Key::new("domain", Shape::Free("a domain, as \"example.com\""), NextExchange, "Its Domain.")
            .absent("none: the host that was asked for"),
        Key::new("path", Shape::Free("a path, as \"/app\""), NextExchange, "Its Path.").absent("\"/\""),
        Key::new(
            "max_age",
            Shape::Duration(limits::STICKY_MAX_AGE, Some(("session", Duration::MAX))),
            NextExchange,
            "How long a client keeps it, from when it was set; `\"session\"` is until the browser ends.",
        ),
        Key::new(
            "key",
            Shape::Free("a string of 16 bytes or more"),
            NextExchange,
            "What its values are made with: the first 16 bytes of the HMAC-SHA-256 of the endpoint's name, in hexadecimal. \
             Processes with the same key and the same names agree. A line end behind it is not part of it.",
        )
        .absent("a random one, with a warning: no other process agrees, nor this one when it starts again"),
    ],
};

/// The cookie, and the key that its values are made with.
pub(super) fn read(
    cluster: &Table<'_>,
    endpoints: &[Endpoint],
    environment: &Environment,
) -> Option<(Sticky, Vec<u8>)> {
    let item = cluster.get("sticky")?;
    let table = item.table(&SECTION)?;
    let cookie = table.need("cookie").and_then(|item| cookie_name(&item));
    let attributes = attributes(&table);
    let key = match table.get("key") {
        Some(item) => key(&item),
        None => {
            item.warn(
                "without `key` a random one is drawn: after a restart, and at sibling processes, clients lose their endpoint",
                None,
            );
            Some(environment.random_key.to_vec())
        }
    };
    let key = key?;
    let values = endpoints.iter().map(|endpoint| value(&key, &endpoint.name)).collect();
    match Sticky::new(cookie?.into(), attributes.into(), values) {
        Ok(mut sticky) => {
            (sticky.indirect, sticky.nocache) = (table.flag("indirect"), table.flag("nocache"));
            Some((sticky, key))
        }
        Err(same) => {
            let [a, b] =
                same.map(|id| endpoints.get(usize::from(id.0)).map_or("", |endpoint| &*endpoint.name));
            // Two of one name have been told of.
            if a != b {
                item.error(format!(
                    "the endpoints {a:?} and {b:?} have the same value: give one another name"
                ));
            }
            None
        }
    }
}

fn cookie_name<'t>(item: &Item<'t>) -> Option<&'t str> {
    let name = item.words()?;
    if !is_token(name) {
        item.error(format!("{name:?} is not a cookie's name"));
    } else if name.len() > limits::STICKY_COOKIE_BYTES {
        item.error(format!("has more than {} characters", limits::STICKY_COOKIE_BYTES));
    } else {
        return Some(name);
    }
    None
}

/// What follows the value in Set-Cookie (RFC 6265 section 4.1).
fn attributes(table: &Table<'_>) -> String {
    let path = table.get("path").and_then(|item| path(&item)).unwrap_or("/");
    let mut text = format!("; Path={path}");
    if let Some(domain) = table.get("domain").and_then(|item| domain(&item)) {
        text += &format!("; Domain={domain}");
    }
    let max_age = table.duration("max_age");
    if max_age != Duration::MAX {
        text += &format!("; Max-Age={}", max_age.as_secs());
    }
    if table.get("http_only").and_then(|item| item.flag()).unwrap_or(true) {
        text += "; HttpOnly";
    }
    let secure = table.flag("secure");
    if secure {
        text += "; Secure";
    }
    text += match table.word("same_site") {
        "strict" => "; SameSite=Strict",
        "none" => "; SameSite=None",
        _ => "; SameSite=Lax",
    };
    if let Some(item) = table.get("same_site")
        && item.value.as_str() == Some("none")
        && !secure
    {
        item.error("\"none\" needs `secure = true`: browsers refuse the cookie otherwise");
    }
    text
}

/// Text that ends neither the attribute nor the line.
fn is_attribute(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && b != b';')
}

fn path<'t>(item: &Item<'t>) -> Option<&'t str> {
    let path = item.words()?;
    let good = path.starts_with('/') && path.len() <= limits::STICKY_PATH_BYTES && is_attribute(path);
    if !good {
        let most = limits::STICKY_PATH_BYTES;
        item.error(format!(
            "{path:?} is not a path: \"/\" first, no space and no \";\", at most {most} characters"
        ));
    }
    good.then_some(path)
}

fn domain<'t>(item: &Item<'t>) -> Option<&'t str> {
    let domain = item.words()?;
    let of_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let good = domain.len() <= limits::STICKY_DOMAIN_BYTES && domain.bytes().all(of_name);
    if !good {
        item.error(format!("{domain:?} is not a domain, as \"example.com\""));
    }
    good.then_some(domain)
}

fn key(item: &Item<'_>) -> Option<Vec<u8>> {
    let bound = limits::STICKY_KEY_BYTES;
    let text = template::string(item, bound.max)?;
    let key = text.trim_end_matches(['\r', '\n']);
    if key.len() < bound.min {
        item.error(format!("has {} bytes, and {} at least keep it from being guessed", key.len(), bound.min));
        return None;
    }
    Some(key.as_bytes().to_vec())
}

/// What the cookie says of an endpoint.
pub(crate) fn value(key: &[u8], name: &str) -> StickyValue {
    let mut value: StickyValue = [b'0'; 32];
    // HMAC takes keys of any length: there is no error.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return value };
    mac.update(name.as_bytes());
    let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
    for (pair, byte) in value.chunks_mut(2).zip(mac.finalize().into_bytes()) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `printf %s one | openssl dgst -sha256 -hmac 0123456789abcdef` says.
    #[test]
    fn a_value_is_the_hmac_of_a_name() {
        let text = |name| String::from_utf8(value(b"0123456789abcdef", name).to_vec()).unwrap();
        assert_eq!(text("one"), "f6585f1c82cb369b383e1cfb1e1b9bbe");
        assert_eq!(text(""), "496dc93fa2d26eae500ec0bc37a12270");
    }
}
