//! What strangers can do, and what nobody gets to see: publishers, the endpoint, clients of the admin server, readers of
//! logs. `docs/security.md` has the whole picture.

mod endpoint;
mod lines;
mod secrets;
mod server;

/// The value in KiB of a line of `/proc/{pid}/status`, in bytes.
fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs, on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    1024 * kib.parse::<u64>().expect("a number of KiB")
}

/// Whether `char` could end a line, speak to a terminal, or change the order in which others are read.
fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
