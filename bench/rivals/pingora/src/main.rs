//! The smallest reverse proxy on pingora that adds what ringway adds: one endpoint, no filters beyond that.

use async_trait::async_trait;
use clap::Parser;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

#[derive(Debug, Parser)]
struct Cli {
    #[arg(long)]
    listen: String,
    #[arg(long)]
    origin: String,
    /// Idle upstream connections that are kept.
    #[arg(long, default_value_t = 1024)]
    pool: usize,
    /// A folder for its pid file and socket, which it insists on.
    #[arg(long)]
    dir: String,
}

#[derive(Debug)]
struct Edge {
    origin: String,
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.origin.as_str(), false, String::new());
        peer.options.idle_timeout = None; // upstream connections live as long as ringway's
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        if let Some(address) = session.client_addr().and_then(|a| a.as_inet()) {
            request.insert_header("X-Forwarded-For", address.ip().to_string())?;
        }
        request.insert_header("X-Forwarded-Proto", "http")?;
        if let Some(host) = request.headers.get("Host").cloned() {
            request.insert_header("X-Forwarded-Host", host)?;
        }
        request.insert_header("Via", "1.1 compare")
    }

    async fn response_filter(&self, _: &mut Session, response: &mut ResponseHeader, _: &mut ()) -> Result<()> {
        response.insert_header("Via", "1.1 compare")
    }
}

fn main() {
    let cli = Cli::parse();
    let conf = ServerConf {
        threads: 1,           // one core against one shard
        work_stealing: false, // one thread has nobody to steal from
        upstream_keepalive_pool_size: cli.pool,
        max_retries: 1, // no second try
        pid_file: format!("{}/pingora.pid", cli.dir),
        upgrade_sock: format!("{}/pingora.sock", cli.dir),
        grace_period_seconds: Some(0), // it has nothing to finish when the run is over
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Edge { origin: cli.origin });
    service.add_tcp(&cli.listen);
    server.add_service(service);
    server.run_forever();
}
