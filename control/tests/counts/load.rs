//! The fixed load: rounds in which every client sends one request and then every client reads its answer.

use crate::support::client::Client;
use crate::support::origin::{Origin, sized};
use std::net::SocketAddr;

pub const CLIENTS: usize = 64;
const REQUEST: &str = "GET /shop/item/4711?ref=start HTTP/1.1\r\nHost: www.example.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: */*\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nCookie: sid=0123456789abcdef0123456789abcdef\r\n\r\n";

/// An origin that answers with 128 bytes.
pub fn origin() -> Origin {
    let answer = sized(200, &[b'x'; 128]);
    Origin::scripted(move |connection| {
        // Not recorded: the load is long.
        while connection.head().is_some() {
            if !connection.send(&answer) {
                return;
            }
        }
    })
}

pub struct Load(Vec<Client>);

impl Load {
    pub fn connect(edge: SocketAddr) -> Self {
        Self((0..CLIENTS).map(|_| Client::connect(edge)).collect())
    }
    /// So many requests on each connection.
    pub fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.0.iter_mut().for_each(|client| client.send(REQUEST));
            for client in &mut self.0 {
                assert_eq!(client.response("GET").status, 200);
            }
        }
    }
}
