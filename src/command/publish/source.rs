//! Where the IDs to publish come from: read twice, so that nothing is sent if one of them is wrong.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Failure;
use crate::id::{CHARS_MAX, Id};
use crate::text::harmless;

/// The longest line that can hold an ID, and one byte more that tells that it doesn't.
const LINE_BYTES_MAX: usize = CHARS_MAX * 4 + 1;
/// Problems spelt out.
const SHOWN_MAX: usize = 10;
/// What is kept in memory of a source that can't be read twice.
const KEPT_BYTES_MAX: u64 = 1 << 30;

/// IDs, one a line.
#[derive(Debug)]
pub(super) struct Source {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    /// Arguments, standard input, or a pipe.
    Kept { name: String, lines: Bytes },
    /// Read again when its turn comes.
    File(PathBuf),
}

/// What a first reading found.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) ids: u64,
    pub(super) problems: Problems,
}

/// Lines that hold no ID.
#[derive(Debug, Default)]
pub(super) struct Problems {
    count: u64,
    shown: Vec<String>,
}

/// Reads IDs in bounded memory.
pub(super) struct Reader {
    parts: std::vec::IntoIter<Part>,
    current: Option<(String, Box<dyn BufRead>)>,
    line: Vec<u8>,
    number: u64,
}

impl Source {
    /// # Errors
    /// The file can't be read.
    pub(super) fn new(ids: &[String], file: Option<&Path>) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        if !ids.is_empty() {
            // A line break in an argument makes two IDs of it, as it would in a file.
            parts.push(Part::Kept { name: "argument".to_owned(), lines: ids.join("\n").into() });
        }
        if file == Some(Path::new("-")) {
            parts.push(keep("standard input", &mut io::stdin().lock())?);
        } else if let Some(path) = file {
            let name = harmless(&path.to_string_lossy()).into_owned();
            let mut opened = File::open(path).map_err(|error| unreadable(&name, &error))?;
            let regular = opened.metadata().map_err(|error| unreadable(&name, &error))?.is_file();
            let part = if regular { Part::File(path.to_owned()) } else { keep(&name, &mut opened)? };
            parts.push(part);
        }
        Ok(Self { parts })
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// A file can't be read.
    pub(super) fn census(&self) -> Result<Census, Failure> {
        let mut census = Census::default();
        let mut reader = self.open();
        loop {
            match reader.next().map_err(|error| Failure::Usage(format!("failed to read IDs: {error}")))? {
                Some(Ok(_)) => census.ids += 1,
                Some(Err(problem)) => census.problems.add(problem),
                None => return Ok(census),
            }
        }
    }

    /// Reads from the beginning.
    pub(super) fn open(&self) -> Reader {
        Reader { parts: self.parts.clone().into_iter(), current: None, line: Vec::new(), number: 0 }
    }
}

fn keep(name: &str, source: &mut dyn Read) -> Result<Part, Failure> {
    let mut lines = Vec::new();
    let read = source.take(KEPT_BYTES_MAX + 1).read_to_end(&mut lines);
    if read.map_err(|error| unreadable(name, &error))? as u64 > KEPT_BYTES_MAX {
        return Err(Failure::Usage(format!("{name} has more than 1 GiB: write it to a file first")));
    }
    Ok(Part::Kept { name: format!("{name} line"), lines: lines.into() })
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::Usage(format!("failed to read {name}: {error}"))
}

impl Reader {
    /// The next ID, or what is wrong with the next line that holds none; empty lines are passed over.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Id, String>>> {
        loop {
            let Some((name, source)) = &mut self.current else {
                let Some(part) = self.parts.next() else { return Ok(None) };
                self.number = 0;
                self.current = Some(part.open()?);
                continue;
            };
            if !read_line(source.as_mut(), &mut self.line)? {
                self.current = None;
                continue;
            }
            self.number += 1;
            let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
            if line.is_empty() {
                continue;
            }
            let id = str::from_utf8(line)
                .map_err(|_| "is not UTF-8".to_owned())
                .and_then(|text| Id::new(text).map_err(|unfit| unfit.to_string()));
            return Ok(Some(id.map_err(|problem| format!("{name} {} {problem}", self.number))));
        }
    }
}

impl Part {
    fn open(self) -> io::Result<(String, Box<dyn BufRead>)> {
        match self {
            Self::Kept { name, lines } => Ok((name, Box::new(Cursor::new(lines)))),
            Self::File(path) => {
                let file = BufReader::with_capacity(1 << 16, File::open(&path)?);
                Ok((format!("{} line", harmless(&path.to_string_lossy())), Box::new(file)))
            }
        }
    }
}

/// Reads up to the next line end into `line`, of which no more is kept than tells that it is too long for an ID;
/// whether there was anything.
fn read_line(source: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let available = source.fill_buf()?;
        if available.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        source.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, problem: String) {
        self.count += 1;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(problem);
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = self.count - self.shown.len() as u64;
        write!(f, "{}", self.shown.join("; "))?;
        if more > 0 { write!(f, "; and {more} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &[u8]) -> Source {
        let lines = Bytes::copy_from_slice(text);
        Source { parts: vec![Part::Kept { name: "standard input line".to_owned(), lines }] }
    }

    fn read(source: &Source) -> Vec<Result<String, String>> {
        let mut reader = source.open();
        let mut read = Vec::new();
        while let Some(id) = reader.next().expect("in memory") {
            read.push(id.map(|id| id.as_str().to_owned()));
        }
        read
    }

    #[test]
    fn one_id_a_line_with_any_line_end_and_empty_lines_between() {
        let ids = read(&source(b"VI1\nVI2\r\n\n\r\nVI3"));
        assert_eq!(ids, [Ok("VI1".to_owned()), Ok("VI2".to_owned()), Ok("VI3".to_owned())]);
        assert!(read(&source(b"")).is_empty());
    }

    #[test]
    fn a_problem_is_named_by_its_line() {
        let problems = read(&source(b"VI1\n\n VI2\n\xff\n"));
        assert_eq!(problems[1], Err("standard input line 3 has white space at character 0".to_owned()));
        assert_eq!(problems[2], Err("standard input line 4 is not UTF-8".to_owned()));
    }

    #[test]
    fn the_longest_id_passes_and_an_endless_line_takes_no_memory() {
        let longest = "\u{10ffff}".repeat(CHARS_MAX);
        assert_eq!(read(&source(longest.as_bytes())), [Ok(longest)]);
        let mut line = Vec::new();
        let mut endless = BufReader::new(io::repeat(b'x').take(10 << 20));
        assert!(read_line(&mut endless, &mut line).expect("in memory"));
        assert_eq!(line.len(), LINE_BYTES_MAX);
        assert!(line.capacity() < 10 * LINE_BYTES_MAX);
        assert!(!read_line(&mut endless, &mut line).expect("in memory"));
    }

    #[test]
    fn a_census_counts_all_and_shows_some() {
        let text: Vec<u8> =
            (0..25).flat_map(|number| format!("VI{number}\n{number} \n").into_bytes()).collect();
        let census = source(&text).census().expect("in memory");
        assert_eq!(census.ids, 25);
        assert!(census.problems.to_string().ends_with("; and 15 more"), "{}", census.problems);
    }

    #[test]
    fn arguments_come_first_and_a_missing_file_is_named() {
        let ids = ["VI1".to_owned(), "VI 2".to_owned()];
        let source = Source::new(&ids, None).expect("no file");
        assert_eq!(read(&source)[1], Err("argument 2 has white space at character 2".to_owned()));
        let missing = Path::new("/nowhere/ids.txt");
        let Err(Failure::Usage(sentence)) = Source::new(&ids, Some(missing)) else { panic!("read it") };
        assert!(sentence.contains("/nowhere/ids.txt"), "{sentence}");
    }
}
