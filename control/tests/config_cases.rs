//! Each mistake and the message it earns: config_cases/*.toml is checked against the *.out beside it.
//!
//! `UPDATE_CASES=1` writes the *.out files anew: read what changed.

use control::config::{Environment, parse};
use std::fs;
use std::path::Path;

/// A machine that is the same everywhere.
fn environment() -> Environment {
    Environment { cpus: 4, descriptors: 65536, ..Environment::of_tests() }
}

#[test]
fn each_mistake_earns_its_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_cases");
    let update = std::env::var_os("UPDATE_CASES").is_some();
    let mut cases: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 20, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for path in cases {
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        let text = fs::read_to_string(&path).expect("a case");
        let (verdict, report) = match parse(&text, &name, &environment()) {
            Ok(loaded) => ("accepted", loaded.warnings),
            Err(report) => ("refused", report),
        };
        let got = format!("{report}{verdict}\n");
        let out = path.with_extension("out");
        if update {
            fs::write(&out, &got).expect("writing a case");
        } else if fs::read_to_string(&out).unwrap_or_default() != got {
            wrong.push(format!("--- {name}: got\n{got}"));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_CASES=1 writes these", wrong.join("\n"));
}
