//! What a single message can make the parser allocate.

use std::io::Write as _;

use deletion_worker::request::parse;
use flate2::Compression;
use flate2::write::GzEncoder;

/// What a message may decompress to, less what else is in it.
const BYTES: usize = 16 * 1024 * 1024 - 64;

/// The text, and half as much while it grows; a stack of brackets; the process. Names that are all kept, or values
/// that become a tree, take several hundred MiB.
const PEAK_MAX: u64 = 80 * 1024 * 1024;

/// Bodies of 16 MiB, a few KiB each on the wire: how they begin, what is repeated, how they end.
const BODIES: [[&str; 3]; 11] = [
    ["", " ", "[\"VI1\"]"],
    ["", "[", ""],
    ["{\"x\":", "[", "}"],
    ["{\"x\":", "{\"x\":", "}"],
    ["{\"videoNo\":\"VI1\",\"x\":", "9", "}"],
    ["{\"videoNo\":\"VI1\",\"x\":\"", "\\u00e4", "\"}"],
    ["{\"videoNo\":\"VI1\",\"reason\":\"", "\\n", "\"}"],
    ["{", "\"\":0,", "\"videoNo\":\"VI1\"}"],
    ["{", "\"\\n\":0,", "\"videoNo\":\"VI1\"}"],
    ["[", "\"VI1\",", "\"VI1\"]"],
    ["{\"videoNo\":\"VI1\",\"x\":[", "{},", "0]}"],
];

#[test]
#[ignore = "run by a_message_cannot_exhaust_the_memory, as a process of its own"]
#[expect(clippy::print_stdout, reason = "it is read by the test that runs this")]
fn child() {
    for [start, part, end] in BODIES {
        let packed = pack(start, part, end);
        for content_type in [None, Some("application/cloudevents+json")] {
            // Taken or not: what counts is what it costs.
            let _ = parse(&packed, content_type, Some("gzip"), 10_000);
        }
        println!("peak {}", high_water());
    }
}

#[test]
fn a_message_cannot_exhaust_the_memory() {
    let child = std::process::Command::new(std::env::current_exe().expect("we run"))
        .args(["--ignored", "--exact", "memory::child", "--nocapture"])
        .output()
        .expect("it runs too");
    assert!(child.status.success(), "{child:?}");
    let said = String::from_utf8_lossy(&child.stdout);
    let peaks: Vec<u64> = said.lines().filter_map(|line| line.strip_prefix("peak ")?.parse().ok()).collect();
    assert_eq!(peaks.len(), BODIES.len(), "{said}");
    assert!(peaks[0] > BYTES as u64, "nothing was unpacked: {peaks:?}");
    let guilty = peaks.iter().zip(BODIES).find(|(peak, _)| **peak > PEAK_MAX);
    assert_eq!(guilty, None, "{peaks:?}");
}

/// The most that this process has had in memory at once, in bytes.
fn high_water() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is told");
    let kib = line.trim().strip_suffix(" kB").expect("it is told in KiB");
    1024 * kib.parse::<u64>().expect("a number")
}

/// Never has the text in one piece, which would count.
fn pack(start: &str, part: &str, end: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let chunk = part.repeat(64 * 1024 / part.len());
    encoder.write_all(start.as_bytes()).expect("memory takes all");
    for _ in 0..BYTES / chunk.len() {
        encoder.write_all(chunk.as_bytes()).expect("memory takes all");
    }
    encoder.write_all(end.as_bytes()).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}
