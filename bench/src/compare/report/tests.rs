//! What a journal becomes.

use super::*;

fn records(ours: f64, theirs: f64, second: f64) -> Vec<Record> {
    let run = |peer: &str, turn, value: f64| {
        Record::Run(Run {
            scenario: "K1".into(),
            case: "64".into(),
            peer: peer.into(),
            round: 0,
            turn,
            generator: "wrk".into(),
            failed: None,
            metrics: [("requests_per_cpu_second".to_owned(), value), ("busy".to_owned(), 0.97)].into(),
        })
    };
    let machine = Machine {
        facts: [("kernel".to_owned(), "6".to_owned())].into(),
        quick: true,
        rounds: 1,
        seconds: 2.0,
        noise: 0.05,
    };
    vec![
        Record::Machine(machine),
        run("nginx", 0, theirs),
        run("ringway", 0, ours),
        run("ringway", 1, ours),
        run("nginx", 1, theirs * second),
    ]
}

fn verdict(records: &[Record], peer: &'static str) -> Verdict {
    let rows = rows(records);
    rows.iter().find(|r| r.gate.against == Against::Peer(peer)).expect("a row").verdict
}

#[test]
fn gates_are_met_missed_void_or_absent() {
    assert_eq!(verdict(&records(140.0, 100.0, 1.0), "nginx"), Verdict::Met);
    assert_eq!(verdict(&records(120.0, 100.0, 1.0), "nginx"), Verdict::Missed);
    assert_eq!(verdict(&records(140.0, 100.0, 1.2), "nginx"), Verdict::Void);
    assert_eq!(verdict(&records(140.0, 100.0, 1.0), "haproxy"), Verdict::Absent);
}

#[test]
fn the_document_holds_losses_conditions_and_notes() {
    let text = document(
        &records(90.0, 100.0, 1.0),
        &["cpu.svg".to_owned()],
        "performance",
        "| tunnels |\n",
        "# Notes\n\n## Kept\n\nx\n",
    );
    assert_eq!(text.lines().filter(|l| l.starts_with("# ")).count(), 1);
    for part in [
        "**missed**",
        "0.90 of nginx's",
        "![cpu](performance/cpu.svg)",
        "97 %",
        "| kernel | 6 |",
        "## Scale\n\n| tunnels |",
        "## Kept",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(!text.contains("baseline"));
}

#[test]
fn figures_are_short() {
    let shown: Vec<String> = [123_456_789.0, 12_345.0, 321.4, 1.234, 0.055].map(figure).into();
    assert_eq!(shown, ["123.46 M", "12.3 k", "321", "1.23", "0.055"]);
}
