//! The network against TCP's rules. What Linux answers was probed on loopback sockets of a real one.

use super::*;
use crate::io::Shutdown;
use crate::sim::random::ALWAYS;

const HERE: Owner = Owner::Actor(1);

fn address(port: u16) -> SocketAddress {
    SocketAddress::new([127, 0, 0, 1].into(), port)
}
fn calm() -> Net {
    Net::new(FaultPlan::calm(1))
}
/// Lets `seconds` pass.
fn pass(net: &mut Net, seconds: u64) {
    let until = Mono(net.now.0 + seconds * 1_000_000_000);
    while let Some(at) = net.next_at().filter(|at| *at <= until) {
        net.now = net.now.max(at);
        while net.step().is_some() {}
    }
    net.now = until;
}
fn pair_in(net: &mut Net) -> (SocketId, SocketId) {
    let listener = net.listen(address(80), 8, HERE);
    let client = net.socket(HERE);
    net.connect(client, address(80)).unwrap();
    pass(net, 1);
    assert_eq!(net.take_connected(client), Some(Ok(())));
    let accepted = net.accept(listener, HERE).unwrap();
    net.close_listener(listener);
    (client, accepted)
}
fn pair() -> (Net, SocketId, SocketId) {
    let mut net = calm();
    let (client, accepted) = pair_in(&mut net);
    (net, client, accepted)
}
/// What a read of up to `n` bytes says, in words.
fn read(net: &mut Net, id: SocketId, n: usize) -> String {
    match net.read_up_to(id, n) {
        Ok((Read::Bytes(_), bytes)) => String::from_utf8(bytes).unwrap(),
        Ok((Read::Eof, _)) => "eof".into(),
        Ok((Read::Empty, _)) => "empty".into(),
        Err(errno) => name(errno),
    }
}
fn name(errno: Errno) -> String {
    match errno.0 {
        libc::ECONNRESET => "reset".into(),
        libc::EPIPE => "pipe".into(),
        libc::ENOTCONN => "notconn".into(),
        n => format!("errno {n}"),
    }
}
fn write(net: &mut Net, id: SocketId, bytes: &[u8]) -> String {
    let result = net.write(id, bytes).map_or_else(name, |n| n.to_string());
    pass(net, 1);
    result
}

#[test]
fn bytes_then_fin_then_eof() {
    let (mut net, a, b) = pair();
    assert_eq!(read(&mut net, b, 9), "empty");
    assert_eq!(write(&mut net, a, b"hello"), "5");
    net.close(a);
    pass(&mut net, 1);
    assert_eq!(read(&mut net, b, 3), "hel");
    assert_eq!([read(&mut net, b, 9), read(&mut net, b, 9), read(&mut net, b, 9)], ["lo", "eof", "eof"]);
}

#[test]
fn shutdown_sends_fin_behind_the_queue_and_leaves_the_other_way_open() {
    let (mut net, a, b) = pair();
    let big = vec![b'x'; 200_000];
    let first = net.write(a, &big).unwrap();
    let second = net.write(a, &big[first..]).unwrap();
    assert!(first + second < 2 * ROOM + 1 && second > 0);
    net.shutdown(a, Shutdown::Write).unwrap();
    assert_eq!(write(&mut net, a, b"more"), "pipe");
    let mut got = 0;
    while read(&mut net, b, 1) == "x" {
        got += 1;
        if got % 50_000 == 0 {
            pass(&mut net, 1);
        }
    }
    pass(&mut net, 1);
    while read(&mut net, b, 1) == "x" {
        got += 1;
    }
    assert_eq!((got, read(&mut net, b, 1)), (first + second, "eof".into()));
    assert_eq!(write(&mut net, b, b"back"), "4");
    assert_eq!(read(&mut net, a, 9), "back");
}

#[test]
fn buffers_are_bounded_and_reading_opens_the_window() {
    let (mut net, a, b) = pair();
    let block = vec![7u8; 1 << 20];
    let mut written = 0;
    for _ in 0..10 {
        written += net.write(a, &block).unwrap();
        pass(&mut net, 1);
    }
    assert_eq!(written, 2 * ROOM);
    assert_eq!(net.writable(a), Ok(0));
    let (_, bytes) = net.read_up_to(b, 1000).unwrap();
    assert_eq!((bytes.len(), net.writable(a)), (1000, Ok(1000)));
}

#[test]
fn close_over_unread_bytes_sends_reset() {
    let (mut net, a, b) = pair();
    write(&mut net, a, b"unread");
    write(&mut net, b, b"answer");
    net.close(b);
    pass(&mut net, 1);
    assert_eq!(
        [read(&mut net, a, 9), read(&mut net, a, 9), read(&mut net, a, 9)],
        ["answer", "reset", "eof"]
    );
}

#[test]
fn a_reset_is_reported_once_and_then_writing_breaks() {
    let (mut net, a, b) = pair();
    net.reset(b);
    pass(&mut net, 1);
    assert_eq!([write(&mut net, a, b"x"), write(&mut net, a, b"x")], ["reset", "pipe"]);
    assert_eq!(read(&mut net, a, 9), "eof");
    assert_eq!(net.peer_address(a).map_err(name), Err("notconn".into()));
    assert_eq!(net.shutdown(a, Shutdown::Both).map_err(name), Err("notconn".into()));
}

#[test]
fn a_reset_drops_what_was_queued_and_may_drop_what_was_received() {
    for (rate, expect) in [(0, "seen"), (ALWAYS, "reset")] {
        let mut net = Net::new(FaultPlan::calm(1).with(Fault::ResetDiscards, rate));
        let (a, b) = pair_in(&mut net);
        write(&mut net, b, b"seen");
        net.reset(b);
        pass(&mut net, 1);
        assert_eq!(read(&mut net, a, 9), expect);
    }
}

#[test]
fn data_to_a_closed_end_is_answered_by_reset() {
    let (mut net, a, b) = pair();
    net.close(b);
    pass(&mut net, 1);
    // After a FIN the error is EPIPE, and reading still ends well.
    assert_eq!([write(&mut net, a, b"x"), write(&mut net, a, b"x")], ["1", "pipe"]);
    assert_eq!(read(&mut net, a, 9), "eof");
}

#[test]
fn shutdown_of_both_directions_wakes_the_reader_and_resets_a_talker() {
    let (mut net, a, b) = pair();
    net.shutdown(a, Shutdown::Both).unwrap();
    assert_eq!(read(&mut net, a, 9), "eof");
    pass(&mut net, 1);
    assert_eq!(read(&mut net, b, 9), "eof");
    assert_eq!([write(&mut net, b, b"x"), write(&mut net, b, b"x")], ["1", "pipe"]);
    assert_eq!([read(&mut net, a, 9), read(&mut net, a, 9)], ["reset", "eof"]);
}

#[test]
fn connects_are_refused_unanswered_or_queued() {
    let mut net = calm();
    let refused = net.socket(HERE);
    net.connect(refused, address(81)).unwrap();
    pass(&mut net, 1);
    assert_eq!(net.take_connected(refused), Some(Err(Errno(libc::ECONNREFUSED))));

    net.listen(address(82), 8, HERE);
    net.set_silent(address(82), true);
    let silent = net.socket(HERE);
    net.connect(silent, address(82)).unwrap();
    pass(&mut net, 126);
    assert_eq!(net.take_connected(silent), None);
    pass(&mut net, 2);
    assert_eq!(net.take_connected(silent), Some(Err(Errno(libc::ETIMEDOUT))));

    let listener = net.listen(address(83), 1, HERE);
    let sockets = [0, 1].map(|_| {
        let id = net.socket(HERE);
        net.connect(id, address(83)).unwrap();
        id
    });
    pass(&mut net, 2);
    assert_eq!(sockets.map(|id| net.take_connected(id)), [Some(Ok(())), None]);
    assert!(net.overflows > 0);
    net.accept(listener, HERE).unwrap();
    pass(&mut net, 2);
    assert_eq!(net.take_connected(sockets[1]), Some(Ok(())));
    // The queue goes with its listener.
    net.close_listener(listener);
    pass(&mut net, 1);
    assert_eq!(read(&mut net, sockets[1], 1), "reset");
}

#[test]
fn ports_are_shared_by_four_tuple_and_run_out() {
    let mut net = calm();
    net.port_range = (40_000, 40_001);
    net.listen(address(90), 8, HERE);
    net.listen(address(91), 8, HERE);
    let mut connect = |late: bool, port| {
        let id = net.socket(HERE);
        if late {
            net.set_late_port(id);
        }
        let bound = net.bind(id, address(0));
        (id, bound.and_then(|()| net.connect(id, address(port))))
    };
    let (first, second) = (connect(true, 90), connect(true, 90));
    assert_eq!((first.1, second.1), (Ok(()), Ok(())));
    assert_eq!(connect(true, 90).1, Err(Errno(libc::EADDRNOTAVAIL)));
    assert_eq!(connect(true, 91).1, Ok(()));
    net.close(first.0);
    let id = net.socket(HERE);
    net.set_late_port(id);
    assert_eq!(net.connect(id, address(90)), Ok(()));
}

#[test]
fn small_segments_and_latency_keep_the_order() {
    let plan = FaultPlan::calm(3)
        .with(Fault::Segments, ALWAYS)
        .with(Fault::Latency, ALWAYS / 2)
        .with(Fault::SmallWindow, ALWAYS);
    let mut net = Net::new(plan);
    let (a, b) = pair_in(&mut net);
    let text: Vec<u8> = (0..5000u32).map(|i| b'a' + (i % 26) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < text.len() {
        sent += net.write(a, &text[sent..]).unwrap();
        pass(&mut net, 1);
        got.extend(net.read_up_to(b, 700).unwrap().1);
    }
    assert!(got == text);
}
