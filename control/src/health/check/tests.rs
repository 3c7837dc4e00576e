//! Checks against sockets that behave as told.

use super::super::spec::BodyMatch;
use super::*;
use dataplane::io::{Address, UnixName};
use dataplane::limits;
use std::future::Future;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};

const PATIENCE: Duration = Duration::from_secs(10);

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn http(body: Option<&str>) -> Http {
    Http {
        method: "GET".into(),
        path: "/health".into(),
        host: None,
        headers: Vec::new(),
        statuses: vec![(200, 399)],
        body: body.map(|text| BodyMatch::Contains(text.as_bytes().into())),
    }
}

fn task(to: &Address, kind: Kind, timeout: Duration) -> Task {
    let snapshot = crate::health::tests::snapshot(&[to.to_string()]);
    let cluster = snapshot.clusters[0].clone().unwrap();
    let check = Check { kind, timeout, ..Check::connect() };
    Task { cluster, at: 0, check: Arc::new(check), turn: 0 }
}

/// Serves each connection with `script`, and says where.
async fn origin<F: Future<Output = ()> + Send + 'static>(
    script: impl Fn(TcpStream, usize) -> F + Send + 'static,
) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(script(stream, number));
        }
    });
    socket(address)
}

fn socket(address: SocketAddr) -> Address {
    Address::Ip(address.into())
}

/// The next request's head.
async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn sized(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn the_exact_bytes_are_seen() {
    block_on(async {
        let to = origin(|mut stream, _| async move {
            head(&mut stream).await;
            stream.write_all(sized("fine\n").as_bytes()).await.unwrap();
        })
        .await;
        let mut http = http(Some("fine"));
        http.headers.push(("X-Check".into(), "yes".into()));
        let mut transcript = Transcript::default();
        let made = make(&task(&to, Kind::Http(http), PATIENCE), None, Some(&mut transcript)).await;
        assert_eq!(made.verdict, Verdict::Passed(Passed::Layer7(200)));
        let version = env!("CARGO_PKG_VERSION");
        let sent = format!(
            "GET /health HTTP/1.1\r\nHost: {to}\r\nUser-Agent: ringway/{version} (check)\r\nX-Check: yes\r\n\r\n"
        );
        assert_eq!(String::from_utf8(transcript.sent).unwrap(), sent);
        assert_eq!(String::from_utf8(transcript.received).unwrap(), sized("fine\n"));
        assert!(transcript.connected_after.is_some() && made.took < PATIENCE);
    });
}

#[test]
fn a_connection_serves_the_next_check_and_a_stale_one_says_nothing() {
    block_on(async {
        // Each connection answers twice, saying its number, and then ends.
        let to = origin(|mut stream, number| async move {
            for _ in 0..2 {
                if head(&mut stream).await.is_empty() {
                    return;
                }
                stream.write_all(sized(&format!("connection {number}")).as_bytes()).await.unwrap();
            }
        })
        .await;
        let task = task(&to, Kind::Http(http(Some("connection"))), PATIENCE);
        let (mut wire, mut numbers) = (None, String::new());
        for _ in 0..6 {
            let mut transcript = Transcript::default();
            let made = make(&task, wire, Some(&mut transcript)).await;
            assert_eq!(made.verdict, Verdict::Passed(Passed::Layer7(200)));
            numbers.push(char::from(*transcript.received.last().unwrap()));
            wire = made.wire;
            assert!(wire.is_some());
        }
        assert_eq!(numbers, "001122");
    });
}

#[test]
fn what_came_unasked_is_not_the_answer_to_the_next_check() {
    block_on(async {
        let (said, heard) = tokio::sync::oneshot::channel();
        let said = std::cell::Cell::new(Some(said));
        let to = origin(move |mut stream, number| {
            let said = said.take().filter(|_| number == 0);
            async move {
                head(&mut stream).await;
                stream.write_all(sized("ok").as_bytes()).await.unwrap();
                if let Some(said) = said {
                    // As servers say when a connection was idle for long.
                    let timeout = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(timeout.as_bytes()).await.unwrap();
                    let _ = said.send(());
                    let _ = head(&mut stream).await;
                }
            }
        })
        .await;
        let task = task(&to, Kind::Http(http(None)), PATIENCE);
        let first = make(&task, None, None).await;
        heard.await.unwrap();
        let Some(wire) = first.wire else { return };
        // The runtime hears of it when it next looks at its sockets.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let second = make(&task, Some(wire), None).await;
        assert_eq!(second.verdict, Verdict::Passed(Passed::Layer7(200)));
    });
}

#[test]
fn timeouts_name_their_layer() {
    block_on(async {
        let short = Duration::from_millis(50);
        let silent = origin(|stream, _| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        let made = make(&task(&silent, Kind::Http(http(None)), short), None, None).await;
        assert_eq!(made.verdict.to_string(), "Layer7 timeout");
        assert!(made.took >= short);
        // One byte at a time, each in time, the whole not.
        let drip = origin(|mut stream, _| async move {
            for byte in sized(&"x".repeat(10_000)).bytes() {
                let _ = stream.write_all(&[byte]).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        let made = make(&task(&drip, Kind::Http(http(Some("y"))), short), None, None).await;
        assert_eq!(made.verdict.to_string(), "Layer7 timeout");
        // A queue that is full and that nobody empties drops what asks for a place.
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = full.listen(1).unwrap();
        let to = listener.local_addr().unwrap();
        let (mut held, mut at_last) = (Vec::new(), None);
        for _ in 0..8 {
            let task = task(&socket(to), Kind::Tcp, short);
            match make(&task, None, None).await.verdict {
                Verdict::Passed(_) => held.push(TcpStream::connect(to)),
                verdict => {
                    at_last = Some(verdict.to_string());
                    break;
                }
            }
        }
        assert_eq!(at_last.as_deref(), Some("Layer4 timeout"));
    });
}

#[test]
fn garbage_and_endless_answers_end() {
    block_on(async {
        let endless = origin(|mut stream, _| async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        })
        .await;
        let mut transcript = Transcript::default();
        let task_of = |to: &Address, body| task(to, Kind::Http(http(body)), PATIENCE);
        let made = make(&task_of(&endless, Some("healthy")), None, Some(&mut transcript)).await;
        assert_eq!(made.verdict.class(), "layer7_wrong_body");
        assert!(
            transcript.received.len() <= limits::CHECK_BODY_BYTES + 64 * 1024,
            "{}",
            transcript.received.len()
        );
        assert!(make(&task_of(&endless, None), None, None).await.verdict.has_passed());
        let huge = origin(|mut stream, _| async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while stream.write_all(b"X-Padding: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").await.is_ok() {}
        })
        .await;
        let made = make(&task_of(&huge, None), None, None).await;
        assert!(made.verdict.to_string().contains("response_header_too_large"), "{}", made.verdict);
        let garbage = origin(|mut stream, _| async move {
            let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n").await;
        })
        .await;
        assert_eq!(
            make(&task_of(&garbage, None), None, None).await.verdict.class(),
            "layer7_invalid_response"
        );
    });
}

#[test]
fn refused_and_unreachable_are_told_apart() {
    block_on(async {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let made = make(&task(&socket(closed), Kind::Tcp, PATIENCE), None, None).await;
        assert_eq!(made.verdict.to_string(), "Layer4 refused, info: \"Connection refused\"");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no.sock");
        let name = UnixName::new(path.to_str().unwrap().as_bytes()).unwrap();
        let made = make(&task(&Address::from(name), Kind::Tcp, PATIENCE), None, None).await;
        let wanted = "Layer4 connection problem, info: \"No such file or directory\"";
        assert_eq!(made.verdict.to_string(), wanted);
    });
}

#[test]
fn unix_sockets_are_checked_too() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let _ = stream.read_buf(&mut bytes).await;
                let _ = stream.write_all(sized("ok").as_bytes()).await;
            }
        });
        let to = Address::from(UnixName::new(path.to_str().unwrap().as_bytes()).unwrap());
        assert!(
            make(&task(&to, Kind::Http(http(Some("ok"))), PATIENCE), None, None).await.verdict.has_passed()
        );
        assert!(make(&task(&to, Kind::Tcp, PATIENCE), None, None).await.verdict.has_passed());
    });
}

#[test]
fn a_proxy_header_says_that_it_is_no_client() {
    for (version, wanted) in [
        (SendProxy::V1, &b"PROXY UNKNOWN\r\nGET /health"[..]),
        (SendProxy::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET /health"),
    ] {
        block_on(async {
            let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
            let to = origin(move |mut stream, _| {
                let said = said.clone();
                async move {
                    let mut bytes = Vec::new();
                    while !bytes.ends_with(b"(check)\r\n\r\n")
                        && stream.read_buf(&mut bytes).await.unwrap() > 0
                    {}
                    let _ = said.send(bytes);
                    stream.write_all(sized("ok").as_bytes()).await.unwrap();
                }
            })
            .await;
            let mut task = task(&to, Kind::Http(http(None)), PATIENCE);
            Arc::make_mut(&mut task.cluster).send_proxy = Some(version);
            assert!(make(&task, None, None).await.verdict.has_passed());
            let bytes = heard.recv().await.unwrap();
            assert!(bytes.starts_with(wanted), "{}", bytes.escape_ascii());
        });
    }
}
