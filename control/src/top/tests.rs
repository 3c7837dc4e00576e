//! Screens of answers that are made up: what is on them, at every size.

use super::ask::Seen;
use super::counts::{Counts, Family};
use super::state::{Next, State};
use super::{Looks, clean, draw};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const PLAIN: Looks = Looks { colour: true, unicode: false };

/// A clock that starts anywhere.
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }
    fn at(&self, seconds: u64) -> Instant {
        self.0 + Duration::from_secs(seconds)
    }
}

/// What a process says that has served `round` hundred requests, two of each hundred failed, on two shards.
fn metrics(round: u64) -> String {
    let (requests, failed) = (98 * round, 2 * round);
    let (slow, quick) = (100 * round, 90 * round);
    format!(
        "ringway_build_info{{version=\"0.1.0\"}} 1\nprocess_start_time_seconds 1763800000.25\n\
         ringway_listener_requests_total{{listener=\"edge\",status=\"2xx\"}} {requests}\n\
         ringway_listener_requests_total{{listener=\"edge\",status=\"5xx\"}} {failed}\n\
         ringway_listener_received_bytes_total{{listener=\"edge\"}} {slow}\n\
         ringway_listener_sent_bytes_total{{listener=\"edge\"}} {}\n\
         ringway_listener_connections_total{{listener=\"edge\"}} {round}\n\
         ringway_listener_connections_open{{listener=\"edge\"}} 7\n\
         ringway_listener_duration_seconds_bucket{{listener=\"edge\",le=\"0.000512\"}} 0\n\
         ringway_listener_duration_seconds_bucket{{listener=\"edge\",le=\"0.001024\"}} {quick}\n\
         ringway_listener_duration_seconds_bucket{{listener=\"edge\",le=\"0.065536\"}} {slow}\n\
         ringway_listener_duration_seconds_bucket{{listener=\"edge\",le=\"+Inf\"}} {slow}\n\
         ringway_cluster_requests_total{{cluster=\"app\",status=\"2xx\"}} {requests}\n\
         ringway_cluster_requests_total{{cluster=\"app\",status=\"5xx\"}} {failed}\n\
         ringway_endpoint_attempts_total{{cluster=\"app\",endpoint=\"one\",result=\"2xx\"}} {requests}\n\
         ringway_endpoint_attempts_total{{cluster=\"app\",endpoint=\"two\",result=\"connect_failed\"}} {failed}\n\
         ringway_refusals_total{{reason=\"connect_failed\"}} {failed}\n\
         ringway_refusals_total{{reason=\"bare_lf\"}} 3\n\
         ringway_refusals_total{{reason=\"bare_cr\"}} 0\n\
         ringway_closed_connections_total{{reason=\"client_closed\"}} 12\n\
         ringway_shard_turns_total{{shard=\"0\"}} {slow}\n\
         ringway_shard_turns_total{{shard=\"1\"}} {slow}\n\
         ringway_shard_requests_total{{shard=\"0\"}} {}\n\
         ringway_shard_requests_total{{shard=\"1\"}} {}\n\
         ringway_shard_connections_open{{shard=\"0\"}} 4\n\
         ringway_shard_connections_open{{shard=\"1\"}} 3\n",
        1_500_000 * round,
        75 * round,
        25 * round,
    )
}

fn seen(at: Instant, round: u64) -> Seen {
    let endpoint = |name: &str, usable: bool| {
        json!({ "name": name, "address": "127.0.0.1:9000", "weight": 1, "state": "ready", "health": if usable { "up" } else { "down" },
                "usable": usable, "eligible": if usable { "yes" } else { "no: down" }, "running": 1, "links": 2,
                "check": { "took_ms": 0.25 } })
    };
    let cluster = json!({ "name": "app", "balance": "round_robin", "breaker": "closed", "queued": 0,
                          "endpoints": [endpoint("one", true), endpoint("two", false)] });
    let event = |number: u64, message: &str| {
        json!({ "number": number, "time": format!("2026-11-22T10:00:0{number}.000Z"), "event": "endpoint_down",
                "cluster": "app", "endpoint": "two", "message": message })
    };
    let limit = |limit: &str, of: &str, used: u64, percent: f64| json!({ "limit": limit, "of": of, "used": used, "most": 100, "percent": percent });
    let mut counts = Counts::read(&metrics(round));
    counts.put(Family::ShardCpu, &["0"], round as f64 * 0.5);
    Seen {
        at,
        counts,
        clusters: json!({ "drain": {}, "clusters": [cluster] }),
        listeners: json!({ "listeners": [{ "name": "edge", "protocol": "http", "leaving": false, "connections": 7 }] }),
        limits: json!({ "limits": [limit("listener.max_connections", "edge", 97, 97.0), limit("ROUTES_MAX", "", 1, 1.0)] }),
        events: json!({ "events": [event(1, "two is down"), event(2, "two is down again")] }),
    }
}

/// Two answers, two seconds apart.
fn state(clock: &Clock) -> State {
    let mut state = State::new("127.0.0.1:9901", Duration::from_secs(1));
    state.took(clock.at(0), Ok(seen(clock.at(0), 1)));
    state.took(clock.at(2), Ok(seen(clock.at(2), 3)));
    state
}

fn screen_with(state: &State, now: Instant, looks: Looks, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, state, looks, now)).unwrap();
    terminal
}

/// Lines of the screen, without the spaces behind them.
fn screen(state: &State, now: Instant, width: u16, height: u16) -> Vec<String> {
    let terminal = screen_with(state, now, PLAIN, width, height);
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            c => KeyCode::Char(c),
        };
        assert_eq!(state.key(KeyEvent::new(code, KeyModifiers::NONE)), Next::Stay, "{key:?}");
    }
}

/// A screen of 80 by 24 has its first five lines and its last; those between them, with one space between words.
#[track_caller]
fn body(state: &State, clock: &Clock) -> Vec<String> {
    let top = [
        "ringway 0.1.0 at 127.0.0.1:9901, every 1s",
        "100 req/s  7 open  errors 2.0/s  endpoints 1/2  in 100B/s  out 1.5MB/s",
        "listener.max_connections of edge: 97.0% used",
        "app: 1 of 2 endpoints are usable",
        "1 Traffic  2 Clusters  3 Endpoints  4 Errors  5 Shards  6 Limits  7 Events",
    ];
    let keys = "? help  tab,1-7 view  s sort  r reverse  / filter  space pause  q quit";
    let lines = screen(state, clock.at(2), 80, 24);
    assert_eq!((&lines[..5], &*lines[23]), (&top.map(str::to_owned)[..], keys));
    lines[5..23].iter().take_while(|line| !line.is_empty()).map(|line| words(line)).collect()
}

#[test]
fn traffic_clusters_endpoints_and_errors() {
    let clock = Clock::new();
    let mut state = state(&clock);
    let body = |state: &State| body(state, &clock);
    // Of 100 requests a second 90 took up to 1.024 ms, the others up to 65.536 ms.
    assert_eq!(
        body(&state),
        [
            "LISTENER REQ/S CONN/S OPEN IN/S OUT/S 4XX/S 5XX/S P50 P90 P99 P99.9",
            "edge 100 1.0 7 100B 1.5MB 0 2.0 796us 1.0ms 59ms 65ms"
        ]
    );
    press(&mut state, "2");
    assert_eq!(
        body(&state),
        [
            "CLUSTER USABLE BREAKER QUEUED REQ/S 5XX/S RETRY/S P50 P99 BALANCE",
            "app 1/2 closed 0 100 2.0 0 - - round_robin"
        ]
    );
    press(&mut state, "\t");
    assert_eq!(
        body(&state),
        [
            "ENDPOINT USED STATE HEALTH RUNNING LINKS ATT/S FAIL/S CHECK WEIGHT",
            "app/one yes ready up 1 2 98 0 250us 1",
            "app/two no: down ready down 1 2 2.0 2.0 250us 1"
        ]
    );
    // The most frequent of now first, and then of all; what never was is not there.
    press(&mut state, "4");
    assert_eq!(
        body(&state),
        [
            "KIND REASON PER S TOTAL",
            "refused connect_failed 2.0 6",
            "attempt connect_failed 2.0 6",
            "closed client_closed 0 12",
            "refused bare_lf 0 3"
        ]
    );
}

#[test]
fn shards_limits_and_events() {
    let clock = Clock::new();
    let mut state = state(&clock);
    let body = |state: &State| body(state, &clock);
    press(&mut state, "5");
    assert_eq!(
        body(&state),
        [
            "the busiest shard has 1.50 x the mean of requests, 1.14 x the mean of connections",
            "SHARD REQ/S OF ALL OPEN LINKS QUEUED CPU TURNS/S STARVED BUFFERS",
            "0 75 75% 4 - - 50% 100 - -",
            "1 25 25% 3 - - - 100 - -"
        ]
        .map(|line| line[..line.len().min(80)].to_owned())
    );
    press(&mut state, "6");
    assert_eq!(
        body(&state),
        ["LIMIT OF USED % USED MOST", "listener.max_connections edge 97.0 97 100", "ROUTES_MAX - 1.0 1 100"]
    );
    press(&mut state, "7");
    assert_eq!(
        body(&state),
        [
            "TIME EVENT OF MESSAGE",
            "2026-11-22T10:00:02.000Z endpoint_down app/two two is down again",
            "2026-11-22T10:00:01.000Z endpoint_down app/two two is down"
        ]
    );
}

/// A line with one space between its words: how wide columns are is tested elsewhere.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_size_has_a_screen() {
    let clock = Clock::new();
    let mut state = state(&clock);
    let none = State::new("127.0.0.1:9901", Duration::from_secs(1));
    for key in ["1", "2", "3", "4", "5", "6", "7", "?"] {
        press(&mut state, key);
        for (width, height) in [(1, 1), (2, 3), (5, 8), (10, 7), (20, 10), (40, 12), (80, 24), (300, 100)] {
            for looks in [PLAIN, Looks { colour: false, unicode: true }] {
                screen_with(&state, clock.at(2), looks, width, height);
                screen_with(&none, clock.at(2), looks, width, height);
            }
        }
    }
    // What matters most is there on the smallest one.
    press(&mut state, " 1");
    let lines = screen(&state, clock.at(2), 40, 4);
    assert_eq!(lines[1], "100 req/s  7 open  errors 2.0/s  endpoin");
    assert_eq!(words(&lines[3]), "edge 100 7 1.5MB 2.0 59ms");
}

#[test]
fn rows_are_found_sorted_and_moved_through() {
    let clock = Clock::new();
    let mut state = state(&clock);
    let rows = |state: &State| -> Vec<String> {
        let lines = screen(state, clock.at(2), 80, 24);
        let rows = lines[6..23].iter().take_while(|line| !line.is_empty());
        rows.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    };
    press(&mut state, "3r");
    assert_eq!(rows(&state), ["app/two", "app/one"]);
    // By ATT/S, six columns on: the largest first.
    press(&mut state, "ssssss");
    assert_eq!(rows(&state), ["app/one", "app/two"]);
    press(&mut state, "r/DOWNx\u{8}\n");
    assert_eq!((rows(&state), &*state.filter), (vec!["app/two".to_owned()], "DOWN"));
    // Keys are text while a filter is typed.
    press(&mut state, "/q");
    assert_eq!((rows(&state), &*state.filter), (vec!["no".to_owned()], "DOWNq"));
    press(&mut state, "\u{1b}");
    assert_eq!(rows(&state), ["app/two", "app/one"]);
    // A screen of seven lines has three rows, and one that is at its end stays there.
    press(&mut state, "4");
    let shown = |state: &State| {
        screen(state, clock.at(2), 80, 6)[3..].iter().map(|line| words(line)).collect::<Vec<_>>()
    };
    press(&mut state, "G");
    assert_eq!(
        shown(&state),
        ["attempt connect_failed 2.0 6", "closed client_closed 0 12", "refused bare_lf 0 3"]
    );
    press(&mut state, "g");
    assert_eq!(shown(&state)[0], "refused connect_failed 2.0 6");
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    assert_eq!((state.key(control('c')), state.key(control('x'))), (Next::Leave, Next::Stay));
    assert_eq!(state.key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)), Next::Leave);
}

#[test]
fn who_is_gone_is_said_and_comes_back_without_false_rates() {
    let clock = Clock::new();
    let mut state = state(&clock);
    state.took(clock.at(3), Err("connection refused".to_owned()));
    state.took(clock.at(8), Err("connection refused".to_owned()));
    let first = |state: &State, at| screen(state, clock.at(at), 80, 24)[0].clone();
    let words = "no answer for 7 s from 127.0.0.1:9901: connection refused";
    assert_eq!(first(&state, 9), words);
    // One that is stopped answers nothing at all, which is seen before the question is given up.
    let mut stopped = self::state(&clock);
    assert_eq!(first(&stopped, 5), "ringway 0.1.0 at 127.0.0.1:9901, every 1s");
    assert_eq!(first(&stopped, 6), "no answer for 4 s from 127.0.0.1:9901: it is there and does not answer");
    stopped.took(clock.at(7), Ok(seen(clock.at(7), 4)));
    assert!(first(&stopped, 7).starts_with("ringway 0.1.0"));
    // The same process was only stopped: a gap has no rates, and nobody took over.
    state.took(clock.at(10), Ok(seen(clock.at(10), 4)));
    let summary = |state: &State| screen(state, clock.at(10), 80, 24)[1].clone();
    assert_eq!(first(&state, 10), "ringway 0.1.0 at 127.0.0.1:9901, every 1s");
    assert!(summary(&state).starts_with("- req/s  7 open  errors -/s"), "{}", summary(&state));
    state.took(clock.at(11), Ok(seen(clock.at(11), 5)));
    assert!(summary(&state).starts_with("100 req/s"), "{}", summary(&state));
    // Another process goes on, whose counters are higher already.
    let another = |at: u64| {
        let mut seen = seen(clock.at(at), 10 + at);
        seen.counts.put(Family::Began, &[], 2e9);
        Ok(seen)
    };
    state.took(clock.at(12), another(12));
    assert!(summary(&state).starts_with("- req/s"), "{}", summary(&state));
    assert!(screen(&state, clock.at(12), 80, 24)[4].contains("another process took over"));
    state.took(clock.at(13), another(13));
    assert!(summary(&state).starts_with("100 req/s"), "{}", summary(&state));
    // Times are of the new process alone: as many requests as it had since.
    let table = screen(&state, clock.at(13), 80, 24);
    assert!(table.iter().any(|line| line.contains("796us")), "{table:#?}");
}

#[test]
fn a_pause_stands_still_and_has_a_true_rate_behind_it() {
    let clock = Clock::new();
    let mut state = state(&clock);
    press(&mut state, " ");
    state.took(clock.at(4), Ok(seen(clock.at(4), 9)));
    let lines = screen(&state, clock.at(4), 80, 24);
    assert!(lines[0].ends_with(" stands still") && lines[1].starts_with("100 req/s"), "{lines:#?}");
    press(&mut state, " ");
    // 700 requests in the eight seconds since the last answer that was taken.
    state.took(clock.at(10), Ok(seen(clock.at(10), 10)));
    assert!(screen(&state, clock.at(10), 80, 24)[1].starts_with("88 req/s"));
}

#[test]
fn names_never_reach_the_terminal_as_escapes() {
    let hostile = "a\u{1b}[2J\u{9b}31m\u{7}\u{202e}b\r\n\u{8}";
    let clock = Clock::new();
    let mut seen = seen(clock.at(0), 1);
    let swap = |value: &mut Value| {
        let text = value
            .to_string()
            .replace("\"two\"", "HOSTILE")
            .replace("\"app\"", "HOSTILE")
            .replace("\"edge\"", "HOSTILE");
        *value = serde_json::from_str(&text.replace("HOSTILE", &json!(hostile).to_string())).unwrap();
    };
    seen.clusters["short"] = hostile.into();
    seen.clusters["drift"] = json!([hostile]);
    [&mut seen.clusters, &mut seen.listeners, &mut seen.limits, &mut seen.events].into_iter().for_each(swap);
    seen.counts.put(Family::Version, &[hostile], 1.0);
    seen.counts.put(Family::Refusals, &[hostile], 1.0);
    let mut state = State::new(&clean(hostile), Duration::from_secs(1));
    state.took(clock.at(0), Ok(seen));
    let text = draw::text(&state, clock.at(0));
    let is_shown = |text: &str| text.contains("a\\u{1b}[2J\\u{9b}31m\\u{7}\\u{202e}b\\u{d}\\u{a}\\u{8}");
    assert!(is_shown(&text));
    assert!(!text.contains(|c: char| c != '\n' && crate::log::access::unprintable(c)), "{text:?}");
    for view in "1234567".chars() {
        press(&mut state, &view.to_string());
        let lines = screen(&state, clock.at(0), 300, 30);
        assert!(is_shown(&lines.join("")), "{lines:#?}");
        assert!(!lines.join("").contains(crate::log::access::unprintable), "{lines:#?}");
    }
}

#[test]
fn colours_are_for_those_who_want_them() {
    let looks = |variables: &'static [(&str, &str)]| {
        Looks::of(|name| Some(variables.iter().find(|(key, _)| *key == name)?.1.to_owned()))
    };
    let of = |colour, unicode| Looks { colour, unicode };
    assert_eq!(looks(&[("TERM", "xterm-256color"), ("LANG", "en_GB.UTF-8")]), of(true, true));
    assert_eq!(
        looks(&[("TERM", "xterm"), ("NO_COLOR", "1"), ("LC_ALL", "C"), ("LANG", "C.utf8")]),
        of(false, false)
    );
    assert_eq!(looks(&[("TERM", "dumb"), ("LC_CTYPE", "C.utf8")]), of(false, true));
    assert_eq!(looks(&[("NO_COLOR", "")]), of(false, false));
    assert_eq!(looks(&[("TERM", "vt100"), ("NO_COLOR", "")]), of(true, false));
    let clock = Clock::new();
    let state = state(&clock);
    for colour in [true, false] {
        let terminal = screen_with(&state, clock.at(2), of(colour, false), 80, 24);
        let coloured = terminal
            .backend()
            .buffer()
            .content()
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(coloured, colour);
    }
}

#[test]
fn intervals_have_bounds() {
    for (text, wanted) in
        [("100ms", Some(100)), ("1h", Some(3_600_000)), ("99ms", None), ("61m", None), ("x", None)]
    {
        assert_eq!(super::interval(text).ok(), wanted.map(Duration::from_millis), "{text}");
    }
}
