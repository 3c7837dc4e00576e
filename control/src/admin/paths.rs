//! Every path of the API, once: what is asked there, what answers it, and what its description says. The router and
//! the OpenAPI document (`openapi`) are made of this table, so that neither knows a path that the other does not.

use super::api::{self, Door};
use super::change;
use super::drain::paths as drain;
use super::page;
use super::upgrade;
use axum::routing::{MethodRouter, delete, get, post, put};

/// What a request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// An object of this schema.
    Object(&'static str),
}

/// What is answered with 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// An object of this schema.
    Object(&'static str),
    /// An object with a list of these under a key.
    List(&'static str, &'static str),
    /// Text of a kind.
    Text(&'static str),
}

/// One method of one path.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Its name in the description.
    pub(super) id: &'static str,
    pub(super) doc: &'static str,
    /// What may stand behind the "?", each with what it is.
    pub(super) query: &'static [(&'static str, &'static str)],
    pub(super) body: Body,
    pub(super) answer: Answered,
    /// Statuses other than 200 that are its own; the others are everybody's.
    pub(super) refusals: &'static [u16],
    pub(super) on: fn() -> MethodRouter<Door>,
}

const fn reads(
    path: &'static str,
    id: &'static str,
    doc: &'static str,
    answer: Answered,
    on: fn() -> MethodRouter<Door>,
) -> Operation {
    Operation { method: "get", path, id, doc, query: &[], body: Body::None, answer, refusals: &[], on }
}

const fn changes(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    doc: &'static str,
    body: Body,
    on: fn() -> MethodRouter<Door>,
) -> Operation {
    let (answer, refusals) = (Object("Changed"), &[404, 409, 422, 503]);
    Operation { method, path, id, doc, query: &[], body, answer, refusals, on }
}

use Answered::{List, Object, Text};

const CLUSTER: &str = "/v1/clusters/{cluster}";
const ENDPOINT: &str = "/v1/clusters/{cluster}/endpoints/{endpoint}";
const ROUTE: &str = "/v1/routes/{route}";
/// The one path whose requests are long: they have a whole configuration in them.
pub(super) const PLAN: &str = "/v1/plan";

/// All of them.
pub(super) static OPERATIONS: &[Operation] = &[
    reads("/live", "live", "Answers while the process runs.", Object("Live"), || get(api::live)),
    Operation {
        refusals: &[503],
        ..reads(
            "/ready",
            "ready",
            "Answers while new connections are taken; 503 while it drains.",
            Object("Ready"),
            || get(api::ready),
        )
    },
    reads("/metrics", "metrics", "Everything that is counted, for Prometheus.", Text("text/plain"), || {
        get(api::metrics)
    }),
    reads("/", "page", "The dashboard, for a browser.", Text("text/html"), || get(page::index)),
    Operation {
        refusals: &[404],
        ..reads("/page/{file}", "pageFile", "A file of the dashboard.", Text("text/*"), || get(page::file))
    },
    Operation {
        query: &[
            (
                "find",
                "Clusters and endpoints with this in their names, and those that something stands against.",
            ),
            ("events_after", "Only events of higher numbers."),
            ("history_after", "Only seconds that ended later, in milliseconds since the start."),
        ],
        ..reads(
            "/v1/dashboard",
            "dashboard",
            "What the dashboard shows, in one answer.",
            Object("DashboardView"),
            || get(page::dashboard),
        )
    },
    reads("/v1/openapi.json", "openapi", "This description.", Object("Any"), || get(api::described)),
    reads("/v1/clusters", "clusters", "Every cluster with its endpoints.", Object("Clusters"), || {
        get(api::clusters)
    }),
    Operation {
        refusals: &[404],
        ..reads(CLUSTER, "cluster", "One cluster.", Object("ClusterView"), || get(api::cluster))
    },
    changes(
        "put",
        CLUSTER,
        "putCluster",
        "Puts a cluster there at run time, or another in its place.",
        Body::Object("Cluster"),
        || put(change::put_cluster),
    ),
    changes("delete", CLUSTER, "endCluster", "Takes a cluster away.", Body::None, || {
        delete(change::end_cluster)
    }),
    Operation {
        refusals: &[404],
        ..reads(ENDPOINT, "endpoint", "One endpoint.", Object("EndpointView"), || get(api::endpoint))
    },
    changes(
        "put",
        ENDPOINT,
        "putEndpoint",
        "Puts an endpoint there at run time, or another in its place.",
        Body::Object("Endpoint"),
        || put(change::put_endpoint),
    ),
    changes("delete", ENDPOINT, "endEndpoint", "Takes an endpoint away.", Body::None, || {
        delete(change::end_endpoint)
    }),
    changes(
        "put",
        "/v1/clusters/{cluster}/endpoints/{endpoint}/weight",
        "weigh",
        "Gives an endpoint another weight; all else of it stays.",
        Body::Object("Weight"),
        || put(change::put_weight),
    ),
    Operation {
        method: "put",
        path: "/v1/clusters/{cluster}/endpoints/{endpoint}/state",
        id: "setState",
        doc: "Says what an endpoint is to do, until the process ends.",
        query: &[],
        body: Body::Object("State"),
        answer: Object("EndpointView"),
        refusals: &[404],
        on: || put(api::set_state),
    },
    Operation {
        method: "post",
        path: "/v1/clusters/{cluster}/endpoints/{endpoint}/probe",
        id: "probe",
        doc: "Makes one check of an endpoint, and shows its bytes.",
        query: &[],
        body: Body::None,
        answer: Object("Probe"),
        refusals: &[404, 429],
        on: || post(api::probe_one),
    },
    reads("/v1/listeners", "listeners", "Every listener.", List("listeners", "ListenerView"), || {
        get(api::listeners)
    }),
    reads(
        "/v1/routes",
        "routes",
        "Every route, in the order in which requests try them.",
        List("routes", "RouteView"),
        || get(api::routes),
    ),
    Operation {
        refusals: &[404],
        ..reads(ROUTE, "route", "One route.", Object("RouteView"), || get(api::route))
    },
    Operation {
        query: &[(
            "before",
            "The route in front of which it stands, or goes. A new one stands at the end otherwise.",
        )],
        ..changes(
            "put",
            ROUTE,
            "putRoute",
            "Puts a route there at run time, or another in its place.",
            Body::Object("Route"),
            || put(change::put_route),
        )
    },
    changes("delete", ROUTE, "endRoute", "Takes a route away.", Body::None, || delete(change::end_route)),
    reads(
        "/v1/export",
        "export",
        "The configuration that runs, as a file. May hold secrets.",
        Text("application/toml"),
        || get(api::export),
    ),
    reads(
        "/v1/drift",
        "drift",
        "What was changed at run time and is not in the file.",
        Object("Drift"),
        || get(api::drift),
    ),
    changes("delete", "/v1/drift", "forget", "Goes back to what the file says.", Body::None, || {
        delete(change::forget)
    }),
    reads("/v1/shards", "shards", "Every shard.", List("shards", "ShardView"), || get(api::shards)),
    reads(
        "/v1/limits",
        "limits",
        "Every limit that is counted, the nearest to its bound first.",
        List("limits", "LimitView"),
        || get(api::limits_used),
    ),
    Operation {
        query: &[
            ("listener", "Those of a listener."),
            ("cluster", "Those that go to a cluster now."),
            ("endpoint", "Those that go to an endpoint of the cluster now."),
            ("source", "Those of clients at an address, or in a network as 10.0.0.0/8."),
            ("limit", "How many at most, 1 to 1000; 100 without it."),
            ("after", "Those behind the page that said this as its `next`."),
        ],
        refusals: &[404, 503],
        ..reads(
            "/v1/connections",
            "connections",
            "Connections of clients, a page at a time.",
            Object("Connections"),
            || get(api::connections),
        )
    },
    Operation {
        refusals: &[404, 503],
        ..reads("/v1/connections/{id}", "connection", "One connection.", Object("ConnectionView"), || {
            get(api::connection)
        })
    },
    Operation {
        method: "delete",
        refusals: &[404, 503],
        ..reads(
            "/v1/connections/{id}",
            "kill",
            "Closes one connection at once.",
            Object("ConnectionView"),
            || delete(api::kill),
        )
    },
    changes("post", "/v1/reload", "reload", "Has the process read its file anew.", Body::None, || {
        post(api::reload)
    }),
    Operation {
        answer: Object("Upgraded"),
        ..changes(
            "post",
            "/v1/upgrade",
            "upgrade",
            "Has the program's file take the place of the process.",
            Body::None,
            || post(upgrade::begin),
        )
    },
    reads("/v1/drain", "drains", "What drains.", Object("Drains"), || get(drain::show)),
    Operation {
        answer: Object("Drains"),
        ..changes(
            "post",
            "/v1/drain",
            "drain",
            "Sends connections away, or calls that off.",
            Body::Object("Drain"),
            || post(drain::begin),
        )
    },
    Operation {
        answer: Object("Planned"),
        ..changes(
            "post",
            PLAN,
            "plan",
            "What a reload to a text would change; changes nothing.",
            Body::Object("Text"),
            || post(api::plan),
        )
    },
    reads(
        "/v1/events",
        "events",
        "The last events of endpoints and clusters.",
        List("events", "Any"),
        || get(api::events),
    ),
    reads("/v1/logs", "logs", "What the logs lost.", List("logs", "Any"), || get(api::logs)),
    Operation {
        method: "post",
        body: Body::Object("Asked"),
        ..reads(
            "/v1/explain",
            "explain",
            "Where a request, or a connection to a tcp listener, would go; nothing is sent.",
            Object("ExplainedView"),
            || post(api::explain),
        )
    },
];
