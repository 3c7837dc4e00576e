//! What a pick is told of a request: the hash of what the cluster balances on, and whom the client sticks to.
//!
//! The hash is XXH3 (Collet), whose values are the same in every version and on every machine, and no secret: whoever knows
//! the endpoints' names can choose keys that lead to one of them. `bounded_load` bounds what that does.

use super::balance::Hint;
use crate::proto::{RequestHead, cookie_values, values_of};
use crate::spec::{Cluster, EndpointId, HashOn, Sticky};
use std::net::IpAddr;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

impl Hint {
    /// Of a request from `source`, whose head was parsed from `bytes`. Nothing where the cluster asks for nothing.
    pub fn of_request(cluster: &Cluster, head: &RequestHead, bytes: &[u8], source: Option<IpAddr>) -> Self {
        let key = cluster
            .hash
            .as_ref()
            .map_or(0, |hash| key_of(&hash.on, head, bytes).unwrap_or_else(|| key_of_source(source)));
        Self {
            key,
            sticky: cluster.sticky.as_ref().and_then(|s| endpoint_of(s, head, bytes)),
            ..Self::default()
        }
    }

    /// Of a connection of a tcp listener.
    pub fn of_source(cluster: &Cluster, source: Option<IpAddr>) -> Self {
        let key = cluster.hash.as_ref().map_or(0, |_| key_of_source(source));
        Self { key, ..Self::default() }
    }
}

/// Whom the client sticks to: the first of its cookies of that name whose value is ours. Others, which it made up or has of
/// another cluster, are passed over.
fn endpoint_of(sticky: &Sticky, head: &RequestHead, bytes: &[u8]) -> Option<EndpointId> {
    cookie_values(&head.fields, bytes, sticky.cookie.as_bytes()).find_map(|value| sticky.endpoint(value))
}

/// The hash of what a request has of this; an empty value is none.
fn key_of(on: &HashOn, head: &RequestHead, bytes: &[u8]) -> Option<u64> {
    let value = match on {
        HashOn::Source => None,
        HashOn::Uri => {
            let path = xxh3_64(head.path.of(bytes));
            return Some(head.query.map_or(path, |query| xxh3_64_with_seed(query.of(bytes), path)));
        }
        // What the target names rules over the field (RFC 9112 section 3.2.2).
        HashOn::Header(name) if &**name == "host" => Some(head.authority.of(bytes)),
        HashOn::Header(name) => values_of(&head.fields, bytes, name.as_bytes()).next(),
        HashOn::Cookie(name) => cookie_values(&head.fields, bytes, name.as_bytes()).next(),
    };
    value.filter(|value| !value.is_empty()).map(xxh3_64)
}

/// The hash of a client's address. Clients on unix sockets have none: they are all one.
fn key_of_source(source: Option<IpAddr>) -> u64 {
    match source.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => xxh3_64(&ip.octets()),
        Some(IpAddr::V6(ip)) => xxh3_64(&ip.octets()),
        None => 0,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::test_cluster;
    use crate::proto::http1::{HeadLimits, Scan, parse_request};
    use crate::spec::Hash;
    use std::sync::Arc;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    /// The key of a GET with this target and these field lines.
    fn key(on: &HashOn, target: &str, fields: &str) -> u64 {
        let mut cluster = test_cluster(&[1]);
        cluster.hash = Some(Hash { on: on.clone(), bounded_load: u32::MAX, table: Arc::default() });
        let (head, bytes) = head(target, fields);
        Hint::of_request(&cluster, &head, &bytes, Some(SOURCE)).key
    }

    fn head(target: &str, fields: &str) -> (RequestHead, Vec<u8>) {
        let mut bytes = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes();
        let limits = HeadLimits { request_line: 8192, header_block: 16384, header_fields: 100 };
        let mut head = RequestHead::default();
        parse_request(&mut bytes, &mut Scan::default(), &limits, &mut head).expect("a head");
        (head, bytes)
    }

    #[test]
    fn the_uri_is_path_and_query() {
        let on = HashOn::Uri;
        assert_eq!(key(&on, "/a?b=c", ""), key(&on, "http://a.test/%61?b=c", "X: y\r\n"), "the normal form");
        let different =
            ["/a?b=c", "/a?b=d", "/a", "/a?", "/ab=c", "/b?b=c"].map(|target| key(&on, target, ""));
        for (at, one) in different.iter().enumerate() {
            assert!(different[..at].iter().all(|other| other != one || at == 3), "{at}");
        }
    }

    #[test]
    fn a_header_or_cookie_is_its_first_value() {
        let header = HashOn::Header("x-user".into());
        assert_eq!(key(&header, "/", "X-User: 1\r\n"), key(&header, "/b", "x-USER:  1 \r\nX-User: 2\r\n"));
        assert_ne!(key(&header, "/", "X-User: 1\r\n"), key(&header, "/", "X-User: 2\r\n"));
        let host = HashOn::Header("host".into());
        assert_ne!(key(&host, "/", ""), key(&host, "http://b.test/", ""));
        let cookie = HashOn::Cookie("id".into());
        assert_eq!(key(&cookie, "/", "Cookie: a=b; id=1\r\n"), key(&cookie, "/", "Cookie: id=1; id=2\r\n"));
        assert_ne!(key(&cookie, "/", "Cookie: id=1\r\n"), key(&cookie, "/", "Cookie: ID=1; id=2\r\n"));
    }

    #[test]
    fn what_has_no_value_is_hashed_by_its_source() {
        let source = key(&HashOn::Source, "/", "");
        for (on, fields) in [
            (HashOn::Header("x-user".into()), ""),
            (HashOn::Header("x-user".into()), "X-User:\r\n"),
            (HashOn::Cookie("id".into()), "X: y\r\n"),
            (HashOn::Cookie("id".into()), "Cookie: id=; ide=1\r\n"),
        ] {
            assert_eq!(key(&on, "/", fields), source, "{on:?} {fields:?}");
        }
    }

    #[test]
    fn the_first_cookie_of_ours_counts() {
        let values: Box<[_]> = Box::new([[b'a'; 32], [b'b'; 32]]);
        let sticky = Sticky::new("SO".into(), "".into(), values).unwrap();
        let [a, b] = ["a".repeat(32), "b".repeat(32)];
        for (fields, expected) in [
            (String::new(), None),
            (format!("Cookie: SO={a}\r\n"), Some(0)),
            (format!("Cookie: x=y;SO={b}; z\r\n"), Some(1)),
            (format!("Cookie: SO={b}; SO={a}\r\n"), Some(1)),
            (format!("Cookie: SO=forged\r\nCookie: SO=; SO={a}\r\n"), Some(0)),
            (format!("Cookie: SO={a}{b}\r\n"), None),
            (format!("Cookie: SO={}\r\n", "a".repeat(8000)), None),
            (format!("Cookie: SO=\"{a}\"; so={a}; XSO={a}\r\n"), None),
            (format!("X: SO={a}\r\n"), None),
        ] {
            let (head, bytes) = head("/", &fields);
            assert_eq!(endpoint_of(&sticky, &head, &bytes).map(|id| id.0), expected, "{fields}");
        }
    }

    #[test]
    fn a_source_is_its_address() {
        let mut cluster = test_cluster(&[1]);
        assert_eq!(Hint::of_source(&cluster, Some(SOURCE)).key, 0, "nothing asks for it");
        cluster.hash = Some(Hash { on: HashOn::Uri, bounded_load: u32::MAX, table: Arc::default() });
        let of = |ip: &str| Hint::of_source(&cluster, Some(ip.parse().unwrap())).key;
        assert_eq!(of("192.0.2.7"), of("::ffff:192.0.2.7"));
        assert!(of("192.0.2.7") != of("192.0.2.8") && of("2001:db8::1") != of("2001:db8::2"));
        assert_eq!(Hint::of_source(&cluster, None).key, 0);
    }
}
