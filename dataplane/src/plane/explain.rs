//! Where a request would go, by the functions and tables that the shards use, with nothing sent or counted.

use super::Plane;
use crate::cluster::ClusterState;
use crate::cluster::balance::Hint;
use crate::cluster::usable::Usable;
use crate::conn::serve;
use crate::fault::{CloseReason, Refusal};
use crate::io::Mono;
use crate::proto::RequestHead;
use crate::proto::client_hello;
use crate::proto::http1::{HeadLimits, Parsed, Scan, parse_request, via_names};
use crate::route::{Opening, Request};
use crate::shard::swap::Swap;
use crate::spec::{Action, Cluster, ClusterId, EndpointId, ListenerId, Route};
use crate::sys::clock;
use std::net::IpAddr;
use std::sync::Arc;

/// What would become of a request.
#[derive(Debug)]
pub struct Explained {
    /// The routes in front of the one that takes it, each with the key for which it does not.
    pub passed_over: Vec<(Arc<str>, &'static str)>,
    /// The route that takes it, as it is in force.
    pub route: Option<Arc<Route>>,
    /// That route's switch is on.
    pub in_maintenance: bool,
    /// Where it goes.
    pub cluster: Option<ClusterId>,
    /// The endpoints that picks choose among.
    pub choice: Vec<EndpointId>,
    /// Whom its client sticks to, whether that may be used or not.
    pub sticky: Option<EndpointId>,
    /// Who gets it, where that is no matter of turns or chance.
    pub endpoint: Option<EndpointId>,
    /// Why it is refused before an endpoint is asked.
    pub refusal: Option<Refusal>,
}

impl Explained {
    fn refused(refusal: Refusal) -> Self {
        Self {
            passed_over: Vec::new(),
            route: None,
            in_maintenance: false,
            cluster: None,
            choice: Vec::new(),
            sticky: None,
            endpoint: None,
            refusal: Some(refusal),
        }
    }
}

impl Plane {
    /// What a request would meet whose head, whole and with nothing behind it, comes from `source` at an http listener. None if
    /// there is no such listener, or the head is not whole.
    pub fn explain(
        &self,
        listener: ListenerId,
        source: Option<IpAddr>,
        mut head: Vec<u8>,
    ) -> Option<Explained> {
        let present = self.present.borrow();
        let spec = present.snapshot.listener(listener)?;
        let limits = HeadLimits {
            request_line: spec.limits.request_line,
            header_block: spec.limits.header_block,
            header_fields: spec.limits.header_fields,
        };
        let mut parsed = RequestHead::default();
        match parse_request(&mut head, &mut Scan::default(), &limits, &mut parsed) {
            Ok(Parsed::Complete { .. }) => {}
            Ok(Parsed::Partial) => return None,
            Err(refusal) => return Some(Explained::refused(refusal)),
        }
        if let Some(refusal) = serve::refusal_of(&parsed, spec.limits.request_body) {
            return Some(Explained::refused(refusal));
        }
        let now = clock::now().mono;
        let available = present.available(now);
        let request = Request { listener, head: &parsed, bytes: &head, source, available: &available };
        let found = present.routes.find(&request);
        let route = found.map(|route| present.shared.in_force(route));
        let passed_over = present.routes.passed_over(&request);
        let mut explained = Explained {
            passed_over: passed_over.into_iter().map(|(route, key)| (Arc::clone(&route.name), key)).collect(),
            in_maintenance: found.zip(route).is_some_and(|(found, route)| !Arc::ptr_eq(found, route)),
            cluster: match route.map(|route| &route.action) {
                None => spec.cluster,
                Some(Action::Forward { cluster, .. }) => Some(*cluster),
                Some(Action::Respond(_) | Action::Redirect(_)) => None,
            },
            route: route.cloned(),
            choice: Vec::new(),
            sticky: None,
            endpoint: None,
            refusal: (route.is_none() && spec.cluster.is_none()).then_some(Refusal::NoRoute),
        };
        let Some(cluster) = explained.cluster.and_then(|id| present.snapshot.cluster(id)) else {
            return Some(explained);
        };
        if via_names(&parsed, &head, &present.snapshot.runtime.node) {
            explained.refusal = Some(Refusal::Loop);
            return Some(explained);
        }
        let hint = Hint { now, ..Hint::of_request(cluster, &parsed, &head, source) };
        present.foresee(cluster, hint, &mut explained);
        explained.sticky = hint.sticky;
        Some(explained)
    }

    /// What a connection from `source` to a tcp listener would meet: one that begins with a ClientHello that names `sni` and offers
    /// `alpn`, if routes ask for one. None if there is no such listener.
    pub fn explain_opening(
        &self,
        listener: ListenerId,
        source: Option<IpAddr>,
        sni: Option<&str>,
        alpn: &[String],
    ) -> Option<Result<Explained, CloseReason>> {
        let present = self.present.borrow();
        let spec = present.snapshot.listener(listener)?;
        let (now, mut message) = (clock::now().mono, Vec::new());
        let hello = match present.routes.asks_for_hello(listener) {
            true => client_hello::read(
                &client_hello::write(sni, alpn),
                &mut client_hello::Scan::default(),
                &mut message,
            ),
            false => Ok(None),
        };
        let hello = match hello {
            Ok(hello) => hello,
            Err(reason) => return Some(Err(reason)),
        };
        let available = present.available(now);
        let hello = hello.as_ref().map(|hello| (hello, message.as_slice()));
        let opening = Opening { listener, source, hello, available: &available };
        let route = present.routes.find_opening(&opening);
        let passed_over = present.routes.openings_passed_over(&opening);
        let mut explained = Explained {
            passed_over: passed_over.into_iter().map(|(route, key)| (Arc::clone(&route.name), key)).collect(),
            in_maintenance: false,
            cluster: match route.map(|route| &route.action) {
                Some(Action::Forward { cluster, .. }) => Some(*cluster),
                Some(Action::Respond(_) | Action::Redirect(_)) | None => spec.cluster,
            },
            route: route.cloned(),
            choice: Vec::new(),
            sticky: None,
            endpoint: None,
            refusal: (route.is_none() && spec.cluster.is_none()).then_some(Refusal::NoRoute),
        };
        if let Some(cluster) = explained.cluster.and_then(|id| present.snapshot.cluster(id)) {
            let hint = Hint { now, ..Hint::of_source(cluster, source) };
            present.foresee(cluster, hint, &mut explained);
        }
        Some(Ok(explained))
    }
}

impl Swap {
    /// By cluster, how many endpoints are usable, of those that routes ask about.
    fn available(&self, now: Mono) -> Vec<u32> {
        let mut available = vec![0; self.snapshot.clusters.len()];
        for id in self.routes.asks_about() {
            let at = usize::from(id.0);
            let (spec, shared) = (self.snapshot.cluster(*id), self.shared.clusters.get(at));
            if let (Some(spec), Some(Some(shared)), Some(count)) = (spec, shared, available.get_mut(at)) {
                *count = Usable::new(spec, shared, now).count();
            }
        }
        available
    }

    /// Who may get it, and who does where that is certain.
    fn foresee(&self, cluster: &Arc<Cluster>, hint: Hint, explained: &mut Explained) {
        let Some(Some(shared)) = self.shared.clusters.get(usize::from(cluster.id.0)) else { return };
        let mut state = ClusterState::new(Arc::clone(cluster), Arc::clone(shared), 0, 0);
        state.refresh(hint.now);
        let ids = cluster.present().map(|endpoint| endpoint.id);
        explained.choice = ids.filter(|id| state.usable().contains(*id)).collect();
        explained.endpoint = state.foresee(hint);
        if explained.choice.is_empty() {
            let shut = state.usable().reopens().is_some();
            explained.refusal = Some(if shut { Refusal::CircuitOpen } else { Refusal::NoEndpoint });
        }
    }
}
