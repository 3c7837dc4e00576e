//! `[cluster.sticky]`: the cookie by which a client comes back to its endpoint.

use super::{Endpoint, EndpointId};
use std::sync::Arc;

/// What the cookie says of an endpoint: a keyed hash of its name, in hexadecimal digits.
pub type StickyValue = [u8; 32];

/// A cluster's cookie and the value that stands for each of its endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: Arc<str>,
    /// What follows the value in Set-Cookie, from its first ";" on.
    pub attributes: Arc<str>,
    /// Origins do not see the cookie.
    pub indirect: bool,
    /// An answer that sets it is marked private.
    pub nocache: bool,
    /// By endpoint.
    values: Box<[StickyValue]>,
    /// The same, in the order of the values.
    endpoints: Box<[(StickyValue, EndpointId)]>,
}

impl Sticky {
    /// A cookie with these values, which are in the order of the endpoints; or two endpoints that share a value.
    pub fn new(
        cookie: Arc<str>,
        attributes: Arc<str>,
        values: Box<[StickyValue]>,
    ) -> Result<Self, [EndpointId; 2]> {
        let mut endpoints: Box<[_]> =
            values.iter().zip(0u16..).map(|(value, at)| (*value, EndpointId(at))).collect();
        endpoints.sort_unstable();
        if let Some(same) = endpoints.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err([same[0].1, same[1].1]);
        }
        Ok(Self { cookie, attributes, indirect: false, nocache: false, values, endpoints })
    }

    /// The same cookie with the values of these endpoints, which `value` makes of their names; one that is gone has a value
    /// that leads to nobody. Or two endpoints that share one.
    pub fn with_endpoints(
        &self,
        endpoints: &[Endpoint],
        value: impl Fn(&str) -> StickyValue,
    ) -> Result<Self, [EndpointId; 2]> {
        let value = |endpoint: &Endpoint| match endpoint.gone {
            false => value(&endpoint.name),
            true => value_of_gone(endpoint.id),
        };
        let values = endpoints.iter().map(value).collect();
        let sticky = Self::new(Arc::clone(&self.cookie), Arc::clone(&self.attributes), values)?;
        Ok(Self { indirect: self.indirect, nocache: self.nocache, ..sticky })
    }

    /// The value that stands for an endpoint.
    pub fn value(&self, id: EndpointId) -> Option<&StickyValue> {
        self.values.get(usize::from(id.0))
    }

    /// The endpoint that a value stands for; none of a value that is not ours.
    pub fn endpoint(&self, value: &[u8]) -> Option<EndpointId> {
        let value = StickyValue::try_from(value).ok()?;
        let at = self.endpoints.binary_search_by(|(own, _)| own.cmp(&value)).ok()?;
        self.endpoints.get(at).map(|(_, id)| *id)
    }
}

/// No keyed hash: they have hexadecimal digits alone.
fn value_of_gone(id: EndpointId) -> StickyValue {
    let mut value = *b"gone----------------------------";
    for (at, digit) in value.iter_mut().rev().zip((0..5).map(|n| id.0 / 10u16.pow(n) % 10)) {
        *at = b'0' + u8::try_from(digit).unwrap_or(0);
    }
    value
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn values_lead_to_their_endpoints_and_no_other_value_does() {
        let values = [[b'c'; 32], [b'a'; 32], [b'b'; 32]];
        let sticky = Sticky::new("c".into(), "".into(), values.into()).unwrap();
        for (value, at) in values.iter().zip(0u16..) {
            assert_eq!(sticky.endpoint(value), Some(EndpointId(at)));
            assert_eq!(sticky.value(EndpointId(at)), Some(value));
        }
        let wrong: [&[u8]; 5] = [b"", b"c", &[b'c'; 31], &[b'c'; 33], &[b'd'; 32]];
        assert!(wrong.iter().all(|value| sticky.endpoint(value).is_none()));
        assert_eq!(sticky.value(EndpointId(3)), None);
    }

    #[test]
    fn two_endpoints_with_one_value_are_told() {
        let values = [[b'a'; 32], [b'b'; 32], [b'a'; 32]];
        let same = Sticky::new("c".into(), "".into(), values.into()).unwrap_err();
        assert_eq!(same, [EndpointId(0), EndpointId(2)]);
    }

    #[test]
    fn what_is_gone_has_no_cookie_that_leads_to_it() {
        let address = crate::io::SocketAddress::new([127, 0, 0, 1].into(), 80);
        let endpoint = |id, gone| Endpoint { gone, ..Endpoint::new(EndpointId(id), "app", address.into()) };
        let sticky = Sticky::new("c".into(), "; Path=/".into(), Box::default()).unwrap();
        let sticky = Sticky { indirect: true, ..sticky };
        let endpoints = [endpoint(0, true), endpoint(1, true), endpoint(2, false)];
        let sticky = sticky.with_endpoints(&endpoints, |_| [b'a'; 32]).unwrap();
        assert_eq!((sticky.endpoint(&[b'a'; 32]), sticky.indirect), (Some(EndpointId(2)), true));
        assert!(sticky.value(EndpointId(1)).unwrap().ends_with(b"-00001"));
        sticky.with_endpoints(&[endpoint(0, false), endpoint(1, false)], |_| [b'a'; 32]).unwrap_err();
    }
}
