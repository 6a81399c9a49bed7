//! The rules of the house that no compiler checks, each with a specimen to show that it can fail.

use std::fs;
use std::path::Path;

/// A rule about the lines of some files.
struct Rule {
    /// Said to whom it may concern.
    text: &'static str,
    /// Whether it holds for the file at this path.
    covers: fn(&str) -> bool,
    /// Whether a line breaks it; a line is seen without its comment unless `sees_comments`.
    breaks: fn(&str) -> bool,
    sees_comments: bool,
    /// Whether `#[cfg(test)]` modules are covered too.
    sees_tests: bool,
    /// A path and a line that break it.
    specimens: &'static [(&'static str, &'static str)],
    /// A path and a line that come close.
    counterparts: &'static [(&'static str, &'static str)],
}

const RULES: &[Rule] = &[
    Rule {
        text: "the engine is pure: no I/O, clock, randomness, threads, logging or shells (src/engine.rs)",
        covers: is_engine,
        breaks: |line| {
            const IMPURE: &[&str] = &[
                "Instant",
                "SystemTime",
                "RandomState",
                "HashMap",
                "HashSet",
                "async",
                "await",
                "async_rs",
                "axum",
                "eprintln",
                "futures_util",
                "hyper",
                "lapin",
                "print",
                "println",
                "prometheus",
                "rand",
                "reqwest",
                "tokio",
                "tracing",
            ];
            const IMPURE_PATHS: &[&str] = &[
                "std::env",
                "std::fs",
                "std::io",
                "std::net",
                "std::process",
                "std::sync",
                "std::thread",
                "crate::admin",
                "crate::broker",
                "crate::command",
                "crate::endpoint",
                "crate::metrics",
                "crate::status",
                "crate::worker",
            ];
            words(line).any(|word| IMPURE.contains(&word))
                || IMPURE_PATHS.iter().any(|path| line.contains(path))
                || line.replace("fastrand::Rng", "Rng").contains("fastrand::")
                || line.contains("Rng::new(")
                || line.contains("Rng::default(")
        },
        sees_comments: false,
        sees_tests: false,
        specimens: &[
            ("src/engine.rs", "use tokio::sync::mpsc;"),
            ("src/engine/pace.rs", "    let now = std::time::Instant::now();"),
            ("src/engine/pace.rs", "use std::time::{Duration, SystemTime};"),
            ("src/engine/health.rs", "    let jitter = fastrand::f64();"),
            ("src/engine/health.rs", "    let rng = fastrand::Rng::new();"),
            ("src/engine/item.rs", "use std::collections::HashMap;"),
            ("src/engine.rs", "    tracing::warn!(\"late\");"),
            ("src/engine.rs", "use crate::broker::Command;"),
            ("src/engine.rs", "    let token = std::fs::read(path)?;"),
        ],
        counterparts: &[
            ("src/engine.rs", "//! Knows nothing of tokio."),
            ("src/engine.rs", "    rng: fastrand::Rng::with_seed(seed), // not tokio's"),
            ("src/engine/time.rs", "use std::time::Duration;"),
            ("src/engine/health.rs", "    rng: &mut fastrand::Rng,"),
            ("src/worker.rs", "use tokio::sync::mpsc;"),
        ],
    },
    Rule {
        text: "only the broker shell knows lapin (src/broker.rs)",
        covers: |path| is_source(path) && !under(path, "src/broker"),
        breaks: |line| ["lapin", "async_rs", "async_compat"].iter().any(|name| uses(line, name)),
        sees_comments: false,
        sees_tests: false,
        specimens: &[
            ("src/worker.rs", "use lapin::Channel;"),
            ("src/worker.rs", "use lapin as amqp;"),
            ("src/worker.rs", "fn tag(delivery: lapin::message::Delivery) {}"),
            ("src/brokerage.rs", "use lapin::Channel;"),
        ],
        counterparts: &[
            ("src/broker.rs", "use lapin::Channel;"),
            ("src/broker/session.rs", "use lapin::Channel;"),
            ("src/worker.rs", "// lapin says so"),
            ("src/log.rs", "    for target in [\"lapin\", \"amq_protocol\"] {"),
        ],
    },
    Rule {
        text: "only the endpoint shell calls anything with reqwest (src/endpoint.rs)",
        covers: |path| is_source(path) && !under(path, "src/endpoint") && !under(path, "src/rabbitmq"),
        breaks: |line| uses(&line.replace("reqwest::header::", ""), "reqwest"),
        sees_comments: false,
        sees_tests: false,
        specimens: &[("src/admin.rs", "    reqwest::get(url).await?;")],
        counterparts: &[
            ("src/endpoint/client.rs", "use reqwest::Client;"),
            ("src/config/value.rs", "    reqwest::header::HeaderValue::from_str(text)"),
            ("src/log.rs", "    for target in [\"hyper\", \"reqwest\"] {"),
        ],
    },
    Rule {
        text: "only the metrics know prometheus (src/metrics.rs)",
        covers: |path| is_source(path) && !under(path, "src/metrics"),
        breaks: |line| uses(line, "prometheus"),
        sees_comments: false,
        sees_tests: false,
        specimens: &[("src/worker.rs", "use prometheus::IntCounter;")],
        counterparts: &[("src/metrics/family.rs", "use prometheus::Opts;")],
    },
    Rule {
        text: "a lint is expected with a reason, not allowed",
        covers: |_| true,
        breaks: |line| line.contains(concat!("[al", "low(")),
        sees_comments: false,
        sees_tests: true,
        specimens: &[
            ("src/worker.rs", concat!("#[al", "low(dead_code)]")),
            ("tests/cli.rs", concat!("#![al", "low(dead_code)]")),
        ],
        counterparts: &[("src/worker.rs", "#[expect(dead_code, reason = \"read by Debug\")]")],
    },
    Rule {
        text: "what is left to do stands in an issue, not in a comment",
        covers: |_| true,
        breaks: |line| {
            words(line)
                .any(|word| [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")].contains(&word))
        },
        sees_comments: true,
        sees_tests: true,
        specimens: &[
            ("src/worker.rs", concat!("// TO", "DO: retry")),
            ("src/worker.rs", concat!("/* FIX", "ME */")),
        ],
        counterparts: &[("src/worker.rs", "const TODOS: u8 = 0;")],
    },
    Rule {
        text: "a test runs: one that is ignored says by which other it is `run by`",
        covers: |_| true,
        breaks: |line| {
            let ignore = concat!("#[ig", "nore");
            line.contains(ignore) && !line.contains(&format!("{ignore} = \"run by "))
        },
        sees_comments: false,
        sees_tests: true,
        specimens: &[("src/worker/tests.rs", concat!("    #[ig", "nore = \"flaky\"]"))],
        counterparts: &[
            ("src/worker/tests.rs", "// what we ignore"),
            ("src/worker/tests.rs", concat!("#[ig", "nore = \"run by the_others\"]")),
        ],
    },
    Rule {
        text: "no invisible characters, and none that change the order in which others are read",
        covers: |_| true,
        breaks: |line| {
            line.contains(|char| {
                matches!(char, '\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
                    || matches!(char, '\u{2060}'..='\u{2069}' | '\u{feff}')
            })
        },
        sees_comments: true,
        sees_tests: true,
        specimens: &[("src/id.rs", "const SPACE: char = '\u{200b}';"), ("tests/cli.rs", "// \u{202e}txet")],
        counterparts: &[("src/id.rs", "Id::new(\"\u{e4}\") // \u{2192} \u{c4}")],
    },
];

/// Lines of a file, without what tests it.
const LINES_MAX: usize = 600;

#[test]
fn the_house_is_tidy() {
    let mut offences = Vec::new();
    let mut files = 0;
    for root in ["src", "tests", "benches"] {
        visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join(root), root, &mut |path, text| {
            files += 1;
            offences.extend(check(path, text));
        });
    }
    assert!(files > 20, "found {files} files only");
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn each_rule_catches_its_specimens_and_nothing_close_to_them() {
    for rule in RULES {
        for (path, line) in rule.specimens {
            let text = format!("//! A file.\n{line}\n");
            assert_eq!(check(path, &text), [format!("{path}:2: {}", rule.text)], "{line}");
        }
        for (path, line) in rule.counterparts {
            assert_eq!(check(path, &format!("{line}\n")), [""; 0], "{line}");
        }
    }
}

#[test]
fn tests_are_told_from_code() {
    let text = "use std::time::Duration;\n\n#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}\n";
    assert_eq!(check("src/engine/time.rs", text), [""; 0]);
    assert_eq!(check("src/engine/tests.rs", "use std::time::Instant;\n"), [""; 0]);
    assert_eq!(check("src/engine/tests/simulation.rs", "use std::time::Instant;\n"), [""; 0]);
    let text = "#[cfg(test)]\nmod tests;\nuse std::time::Instant;\n";
    assert_eq!(check("src/engine/time.rs", text).len(), 1, "code after the declaration of a test module");
}

#[test]
fn a_long_file_is_noticed() {
    let code = "mod one;\n".repeat(LINES_MAX);
    assert_eq!(check("src/long.rs", &code), [""; 0]);
    let tests = format!("{code}#[cfg(test)]\nmod tests {{\n{code}}}\n");
    assert_eq!(check("src/long.rs", &tests), [""; 0], "tests don't count");
    let longer = format!("{code}mod another;\n");
    assert_eq!(check("src/long.rs", &longer), [format!("src/long.rs: {} lines of code", LINES_MAX + 1)]);
}

/// Everything wrong with a file.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut offences = Vec::new();
    let code_lines = code_lines(path, text);
    for rule in RULES.iter().filter(|rule| (rule.covers)(path)) {
        for (index, line) in text.lines().enumerate() {
            let line = if rule.sees_comments { line } else { without_comment(line) };
            if (rule.sees_tests || index < code_lines) && (rule.breaks)(line) {
                offences.push(format!("{path}:{}: {}", index + 1, rule.text));
            }
        }
    }
    if code_lines > LINES_MAX {
        offences.push(format!("{path}: {code_lines} lines of code"));
    }
    offences
}

/// How many lines come before the tests, which stand last.
fn code_lines(path: &str, text: &str) -> usize {
    if path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/") {
        return 0;
    }
    let lines: Vec<&str> = text.lines().collect();
    let is_start = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with("mod tests {");
    lines.windows(2).position(is_start).unwrap_or(lines.len())
}

/// A line up to its `//`; one inside a string is taken for a comment too, unless it's a URL's.
fn without_comment(line: &str) -> &str {
    let start = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    start.map_or(line, |(at, _)| &line[..at])
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| !char.is_alphanumeric() && char != '_')
}

/// Whether a line names something of the library `name`.
fn uses(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        let is_whole = !before.ends_with(|char: char| char.is_alphanumeric() || char == '_' || char == ':');
        is_whole && (after.starts_with("::") || before.ends_with("use ") && after.starts_with([';', ' ']))
    })
}

fn is_source(path: &str) -> bool {
    path.starts_with("src/")
}

fn is_engine(path: &str) -> bool {
    under(path, "src/engine")
}

/// Whether a file is the module at `stem`, or a part of it.
fn under(path: &str, stem: &str) -> bool {
    path.strip_prefix(stem).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn visit(folder: &Path, name: &str, file: &mut dyn FnMut(&str, &str)) {
    // A project without, say, benches is fine; the count of files tells if nothing is found at all.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let entry = entry.expect("readable");
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            visit(&entry.path(), &name, file);
        } else if name.ends_with(".rs") {
            file(&name, &fs::read_to_string(entry.path()).expect("UTF-8"));
        }
    }
}
