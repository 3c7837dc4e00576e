//! Every request case: what reaches the origin, what the client is told, and whether its connection stays.

use crate::bed::{Bed, Far, say, wait};
use crate::cases::{Case, cases};
use crate::message::{self, Framing, Kind, Message};
use dataplane::sim::peers::{Act, Ended};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(1);
const GOOD: &[u8] = b"POST /good HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nok";

/// One line of a case.
#[derive(Debug)]
enum Outcome {
    Forward { start: String, host: String, framing: String, stays: bool, body: Option<String> },
    Own { status: u16, word: String, stays: Option<bool> },
    Wait,
}

fn outcome(line: &str) -> Outcome {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["wait"] => Outcome::Wait,
        ["forward", method, host, target, framing, then, rest @ ..] => Outcome::Forward {
            start: format!("{method} {target} HTTP/1.1"),
            host: host.trim_start_matches('-').to_owned(),
            framing: (*framing).to_owned(),
            stays: *then == "keep",
            body: rest.first().map(|b| b.strip_prefix("body=").expect("a body").to_owned()),
        },
        [status, word, then] => Outcome::Own {
            status: status.parse().expect("a status"),
            word: (*word).to_owned(),
            stays: (*then != "any").then_some(*then == "keep"),
        },
        _ => panic!("an unknown outcome {line}"),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"").replace(' ', "\\x20")
}

/// Whether a refusal says that a body, not a head, was wrong.
fn is_of_body(word: &str) -> bool {
    word.starts_with("chunk_") || word.starts_with("trailer_")
}

fn check_forwarded(want: &Outcome, got: &Message, whole: bool) -> Result<(), String> {
    let Outcome::Forward { start, host, framing, body, .. } = want else { unreachable!("a forward") };
    let framing_got = match got.framing {
        Framing::None => "none".to_owned(),
        Framing::Length(n) => format!("length:{n}"),
        Framing::Chunked => "chunked".to_owned(),
        Framing::UntilClose => "close".to_owned(),
    };
    // The start line was read as Latin-1; the case writes what is not ASCII as an escape.
    let line: Vec<u8> = got.start.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let line = line.split(|b| *b == b' ').map(text).collect::<Vec<_>>().join(" ");
    let none = |f: &str| matches!(f, "none" | "length:0");
    let same_framing = *framing == framing_got || none(framing) && none(&framing_got);
    let sent_host = got.field("host").unwrap_or_default().to_ascii_lowercase();
    let same_host = sent_host.strip_prefix(host.as_str()).is_some_and(|port| {
        let port = port.strip_prefix('.').unwrap_or(port);
        port.is_empty() || port.starts_with(':')
    });
    let wanted = body.as_deref().unwrap_or_default();
    let same_body = if whole { text(&got.body) == wanted } else { wanted.starts_with(&text(&got.body)) };
    if line == *start && same_framing && same_host && same_body {
        return Ok(());
    }
    Err(format!(
        "the origin got {line}, host {sent_host}, {framing_got}, {}: wanted {want:?}",
        text(&got.body)
    ))
}

/// Checks what the origin recorded. Nothing else may have begun to reach it.
fn check_origin(far: &Far, want: &[Outcome]) -> Result<(), String> {
    let forwards: Vec<&Outcome> = want.iter().filter(|o| matches!(o, Outcome::Forward { .. })).collect();
    let body_fails = match want.last() {
        Some(Outcome::Own { word, .. }) => is_of_body(word),
        // The last of several requests, with a body that has not come to its end.
        Some(Outcome::Wait) => far.requests.len() + 1 == forwards.len(),
        _ => false,
    };
    let whole = forwards.len() - usize::from(body_fails);
    if far.requests.len() != whole {
        return Err(format!("{} whole requests reached the origin, {whole} should", far.requests.len()));
    }
    for (want, (_, got)) in forwards.iter().zip(&far.requests) {
        check_forwarded(want, got, true)?;
    }
    let begun: Vec<&[u8]> =
        far.touched.iter().map(|at| far.ends[*at].unfinished()).filter(|rest| !rest.is_empty()).collect();
    match (begun.as_slice(), body_fails) {
        ([], _) => Ok(()),
        ([rest], true) => match message::read(rest, Kind::Request) {
            Ok(Some(part)) => check_forwarded(forwards[whole], &part, false),
            other => Err(format!("the origin got a part that is no request: {other:?}")),
        },
        _ => Err(format!("the origin also got {:?}", text(&begun.concat()))),
    }
}

/// Checks what the client was told.
fn check_client(far: &Far, at: usize, want: &[Outcome]) -> Result<(), String> {
    let end = &far.ends[at];
    let mut bytes = end.received.as_slice();
    let mut stays = Some(true);
    for (i, outcome) in want.iter().enumerate() {
        let (status, word, head_only) = match outcome {
            Outcome::Wait => break,
            // Its body is still to come, or was refused: then the refusal is its answer.
            Outcome::Forward { .. }
                if i + 1 < want.len() && !matches!(want[i + 1], Outcome::Forward { .. }) =>
            {
                match &want[i + 1] {
                    Outcome::Own { word, .. } if is_of_body(word) => continue,
                    Outcome::Wait if bytes.is_empty() => continue,
                    _ => (200, None, false),
                }
            }
            Outcome::Forward { start, .. } => (200, None, start.starts_with("HEAD ")),
            Outcome::Own { status, word, .. } => (*status, Some(word.as_str()), false),
        };
        let kind = if head_only { Kind::BodilessResponse } else { Kind::Response };
        let Some(got) = message::read(bytes, kind)?.filter(|m| m.whole) else {
            return Err(format!("no answer to {outcome:?}, but {}", text(bytes)));
        };
        bytes = &bytes[got.len..];
        let body_is_right = word.is_some() || head_only || got.body == b"ok";
        if got.status() != status || got.field("ringway-reason") != word || !body_is_right {
            return Err(format!("{} instead of an answer to {outcome:?}", text(&got.head)));
        }
        stays = match outcome {
            Outcome::Forward { stays, .. } => Some(*stays),
            Outcome::Own { stays, .. } => *stays,
            Outcome::Wait => None,
        };
        let says_close = got.field("connection") == Some("close");
        if stays.is_some_and(|stays| stays == says_close) {
            return Err(format!("the connection stays: {stays:?}, but it was told {}", text(&got.head)));
        }
    }
    if !bytes.is_empty() {
        return Err(format!("the client also got {}", text(bytes)));
    }
    match (stays, end.ended()) {
        (Some(true), Some(_)) => Err("the connection ended".to_owned()),
        (Some(false), None) => Err("the connection stayed".to_owned()),
        // A client that sends more than lingering takes is reset, but not before it has the answer.
        (Some(false), Some(Ended::Broken)) if end.received.is_empty() => Err("reset".to_owned()),
        _ => Ok(()),
    }
}

/// The pieces of `sent`, each in a segment of its own.
fn script(sent: &[u8], cut: &[usize]) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut from = 0;
    for to in cut.iter().copied().chain([sent.len()]) {
        acts.extend([say(&sent[from..to]), wait(PAUSE)]);
        from = to;
    }
    acts
}

/// Whole, in small pieces, and in two at each place; of what is longer than 2 KiB a sample.
pub(crate) fn cuts(len: usize) -> Vec<Vec<usize>> {
    let short = len <= 2048;
    let step = if short { 1 } else { len / 40 + 1 };
    let mut cuts = vec![vec![], (1..len).step_by(step).collect()];
    if short {
        cuts.extend((1..len).map(|at| vec![at]));
    } else {
        let places = [1, 17, 40, 511, 4095, 4096, 4097, 8191, len / 2, len - 5, len - 4, len - 2, len - 1];
        cuts.extend(places.into_iter().filter(|at| *at < len).map(|at| vec![at]));
    }
    cuts
}

fn run(bed: &mut Bed, sent: &[u8], cut: &[usize], want: &[Outcome]) -> Result<(), String> {
    bed.io.world.requests.clear();
    bed.io.world.touched.clear();
    let client = bed.client(script(sent, cut));
    bed.run_script(client);
    check_client(&bed.io.world, client, want)?;
    check_origin(&bed.io.world, want)?;
    bed.leave(client);
    bed.check_quiet()
}

fn check_text(case: &Case, far: &Far) -> Result<(), String> {
    let first = far.requests.first().map(|(_, m)| m.head.as_slice());
    let head = first.or_else(|| far.touched.first().map(|at| far.ends[*at].unfinished()));
    let head = text(head.unwrap_or_default()).replace("\\x20", " ").to_ascii_lowercase();
    let lines: Vec<&str> = head.split("\\r\\n").collect();
    if let Some(lost) = case.has.iter().find(|line| !lines.contains(&line.to_ascii_lowercase().as_str())) {
        return Err(format!("the origin's head lacks {lost}: {head}"));
    }
    match case.lacks.iter().find(|part| head.contains(part.as_str())) {
        Some(part) => Err(format!("the origin's head has {part}: {head}")),
        None => Ok(()),
    }
}

fn play(case: &Case) -> Result<(), String> {
    let mut bed = Bed::new(|_, _| {});
    let want: Vec<Outcome> = case.outcomes.iter().map(|line| outcome(line)).collect();
    for cut in cuts(case.sent.len()) {
        let failed = |why: String| format!("{}, cut at {:?}: {why}", case.name, &cut[..cut.len().min(3)]);
        run(&mut bed, &case.sent, &cut, &want).map_err(failed)?;
        if cut.is_empty() {
            check_text(case, &bed.io.world).map_err(failed)?;
        }
    }
    bed.check_empty()
}

fn play_behind_a_good_one(case: &Case) -> Result<(), String> {
    let mut bed = Bed::new(|_, _| {});
    let sent = [GOOD, case.sent.as_slice()].concat();
    let mut want = vec![outcome("forward POST g /good length:2 keep body=ok")];
    want.extend(case.outcomes.iter().map(|line| outcome(line)));
    let n = GOOD.len();
    for cut in [vec![], vec![n - 1], vec![n], vec![n + 1], vec![n, n + case.sent.len() / 2]] {
        run(&mut bed, &sent, &cut, &want).map_err(|why| format!("{}, cut at {cut:?}: {why}", case.name))?;
    }
    bed.check_empty()
}

/// Plays all cases on a few threads; every failure is told.
pub(crate) fn play_all(cases: &[Case], play: fn(&Case) -> Result<(), String>) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(4);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let part = |n: usize| {
            move || -> Vec<String> {
                cases.iter().skip(n).step_by(threads).filter_map(|case| play(case).err()).collect()
            }
        };
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(part(n))).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("a case panicked")).collect()
    });
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn every_request_case_through_a_shard_however_cut() {
    let cases = cases(|file| file != "responses.txt");
    assert!(cases.len() > 400, "the case files are there");
    play_all(&cases, play);
}

#[test]
fn every_request_case_through_a_shard_behind_a_good_one() {
    play_all(&cases(|file| file != "responses.txt"), play_behind_a_good_one);
}

/// As for responses: the body behind a large head is not held against the head.
#[test]
fn a_large_request_head_with_a_body_behind_it_is_no_larger() {
    for head in [3900, 4000, 4064, 5000, 16_000] {
        for body in [0, 1000, 70_000, 300_000] {
            let mut bed = Bed::new(|_, _| {});
            let fill = "v".repeat(head);
            let sent = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\nX: {fill}\r\n\r\n{}",
                "b".repeat(body)
            );
            let client = bed.client([say(sent)]);
            bed.run_script(client);
            assert_eq!(bed.told(client), "200", "head {head}, body {body}: {}", bed.counted());
            assert_eq!(bed.io.world.requests[0].1.body.len(), body);
            bed.leave(client);
            bed.check_empty().unwrap();
        }
    }
}
