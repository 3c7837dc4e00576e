//! Every response case: what the client is told of what the origin said, and whether the link may serve again.

use crate::bed::{Answer, Bed, say, wait};
use crate::cases::{Case, cases};
use crate::message::{self, Framing, Kind};
use crate::requests::{cuts, play_all};
use dataplane::sim::peers::{Act, Ended};
use std::time::Duration;

/// What the client must have in the end.
#[derive(Debug, Default)]
struct Wanted {
    interim: Vec<u16>,
    status: u16,
    word: Option<String>,
    framing: Option<Framing>,
    body: String,
    /// The connection became a tunnel.
    tunnel: bool,
    /// The response cannot be completed.
    cut: bool,
    /// The origin must close for anything to come of it.
    closes: bool,
    link_stays: bool,
}

fn wanted(case: &Case) -> Wanted {
    let mut want = Wanted::default();
    for line in &case.outcomes {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["wait"] => (want.cut, want.closes) = (true, true),
            ["left", bytes] => {
                want.link_stays = false;
                if want.tunnel {
                    want.body = (*bytes).to_owned();
                }
            }
            // Its head was passed on already: nothing can be said any more.
            ["502", _] if want.status == 200 => (want.cut, want.link_stays) = (true, false),
            ["502", word] => (want.status, want.word) = (502, Some((*word).to_owned())),
            ["101", "none", "keep", "upgrade"] => (want.status, want.tunnel) = (101, true),
            ["101", ..] => {
                (want.status, want.word) = (502, Some("response_unexpected_upgrade".to_owned()));
                break;
            }
            [status @ ("100" | "103"), ..] => want.interim.push(status.parse().unwrap()),
            [status, framing, then, rest @ ..] => {
                want.status = status.parse().expect("a status");
                want.link_stays = *then == "keep";
                want.body = rest.first().map_or("", |b| b.strip_prefix("body=").expect("a body")).to_owned();
                want.framing = Some(match (*framing, framing.strip_prefix("length:")) {
                    (_, Some(n)) => Framing::Length(n.parse().expect("a length")),
                    ("none", _) => Framing::None,
                    // Towards HTTP/1.1 what only closing would end is chunked.
                    _ => Framing::Chunked,
                });
                want.closes |= *framing == "close";
            }
            _ => panic!("{}: an unknown outcome {line}", case.name),
        }
    }
    // A head that ended neither well nor badly: there is no whole response.
    if want.status == 0 {
        (want.status, want.word, want.cut) = (502, Some("origin_closed".to_owned()), false);
    }
    want.link_stays &= !want.cut;
    want
}

fn script(case: &Case, cut: &[usize], closes: bool) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut from = 0;
    for to in cut.iter().copied().chain([case.sent.len()]) {
        acts.extend([say(&case.sent[from..to]), wait(Duration::from_millis(1))]);
        from = to;
    }
    if closes {
        acts.push(Act::Close);
    }
    acts
}

fn check(bed: &Bed, client: usize, case: &Case, want: &Wanted) -> Result<(), String> {
    let end = bed.end(client);
    let mut bytes = end.received.as_slice();
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    for status in &want.interim {
        let got = message::read(bytes, Kind::Response)?.ok_or("an interim response is missing")?;
        if got.status() != *status {
            return Err(format!("{} instead of {status}", got.start));
        }
        bytes = &bytes[got.len..];
    }
    let kind = if case.method.is_some() { Kind::BodilessResponse } else { Kind::Response };
    let got = message::read(bytes, kind)?.ok_or_else(|| format!("no response, but {}", show(bytes)))?;
    let mut rest = &bytes[got.len..];
    if got.status() != want.status || got.field("ringway-reason") != want.word.as_deref() {
        return Err(format!("{} instead of {want:?}", show(&got.head)));
    }
    if want.tunnel {
        if show(rest) != want.body {
            return Err(format!("the tunnel brought {}", show(rest)));
        }
        rest = &[];
    } else if want.word.is_none() {
        let body = show(&got.body);
        // How much of a response that is cut off came before the cut depends on the pieces it came in.
        let right = if want.cut { want.body.starts_with(&body) } else { body == want.body };
        if Some(got.framing) != want.framing || !right || got.whole == want.cut {
            return Err(format!("{:?} {body} {} instead of {want:?}", got.framing, got.whole));
        }
    }
    if !rest.is_empty() {
        return Err(format!("the client also got {}", show(rest)));
    }
    // The framing shows the cut; a reset would destroy what was answered before.
    let ended = if want.cut { Some(Ended::Eof) } else { None };
    if end.ended() != ended {
        return Err(format!("the connection ended: {:?}, it should: {ended:?}", end.ended()));
    }
    let head = show(&got.head).replace("\\'", "'").replace("\\\"", "\"").to_ascii_lowercase();
    let lines: Vec<&str> = head.split("\\r\\n").collect();
    if let Some(lost) = case.has.iter().find(|line| !lines.contains(&line.to_ascii_lowercase().as_str())) {
        return Err(format!("the client's head lacks {lost}: {head}"));
    }
    if let Some(part) = case.lacks.iter().find(|part| head.contains(part.as_str())) {
        return Err(format!("the client's head has {part}: {head}"));
    }
    if bed.idle_links() != usize::from(want.link_stays) {
        return Err(format!("{} idle links", bed.idle_links()));
    }
    Ok(())
}

fn play(case: &Case) -> Result<(), String> {
    let mut bed = Bed::new(|_, _| {});
    let want = wanted(case);
    let upgrade = if want.tunnel { "Connection: Upgrade\r\nUpgrade: websocket\r\n" } else { "" };
    let method = case.method.as_deref().unwrap_or("GET");
    let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n");
    for cut in cuts(case.sent.len()) {
        let failed = |why: String| format!("{}, cut at {:?}: {why}", case.name, &cut[..cut.len().min(3)]);
        let pieces = u32::try_from(cut.len() + 2).expect("few pieces");
        bed.io.world.answer = Answer::Script(script(case, &cut, want.closes));
        let client = bed.client([say(&request), wait(Duration::from_millis(1) * pieces)]);
        bed.run_script(client);
        check(&bed, client, case, &want).map_err(failed)?;
        bed.leave(client);
        bed.check_quiet().map_err(failed)?;
    }
    bed.check_empty()
}

#[test]
fn every_response_case_through_a_shard_however_cut() {
    let cases = cases(|file| file == "responses.txt");
    assert!(cases.len() > 60, "the case file is there");
    play_all(&cases, play);
}

/// A head of any legal size with a body close behind it: what a receive brings beyond the head never counts against it.
#[test]
fn a_large_head_with_a_body_behind_it_is_no_larger() {
    for head in [4000, 4063, 4064, 4065, 5000, 30_000, 57_000] {
        for body in [0, 1000, 70_000, 300_000] {
            let mut bed = Bed::new(|_, _| {});
            let fill = "v".repeat(head);
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\nX: {fill}\r\n\r\n{}", "b".repeat(body));
            bed.io.world.answer = Answer::Script(vec![say(answer)]);
            let client = bed.client([say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")]);
            bed.run_script(client);
            let got = bed.responses(client);
            let status: Vec<u16> = got.iter().map(message::Message::status).collect();
            assert_eq!(status, [200], "a head of {head} bytes and a body of {body}: {}", bed.counted());
            assert!(got[0].whole && got[0].body.len() == body, "{} of {body} bytes", got[0].body.len());
            bed.leave(client);
            bed.check_empty().unwrap();
        }
    }
}
