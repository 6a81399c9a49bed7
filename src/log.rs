//! Log lines on standard error: text for people, JSON for collectors.
//!
//! What is logged may come from strangers (a message's body, an endpoint's answer), so no value can end its line
//! or speak to the terminal: characters that could are escaped, in both formats.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write};

use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::TryInitError;

use crate::config::{Log, LogFormat};
use crate::text::{harmless_json, is_harmful};

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// `log.level` isn't one; a [`Config`](crate::config::Config) never has such.
    #[error("log.level {0}")]
    Level(String),
    /// Something else already logs.
    #[error("log: {0}")]
    Taken(#[from] TryInitError),
}

/// Sends events to standard error from now on.
///
/// # Errors
/// If another subscriber has been installed before.
pub fn init(log: &Log) -> Result<(), Fault> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let is_terminal = io::stderr().is_terminal();
    let style = match log.format {
        LogFormat::Auto if is_terminal => Style::Text,
        LogFormat::Auto | LogFormat::Json => Style::Json,
        LogFormat::Text => Style::Text,
    };
    let is_coloured = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let filter = filter(&log.level).map_err(Fault::Level)?;
    Ok(subscriber(style, is_coloured, filter, io::stderr).try_init()?)
}

/// What `level` lets through: a level, or directives like `info,deletion_worker::engine=debug`.
///
/// The libraries below us stay quiet unless `level` names them: they log what we handle, and then report, ourselves;
/// lapin logs even expected disconnects as errors.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, String> {
    let mut base = LevelFilter::INFO;
    // EnvFilter takes an empty part for a level, a misspelt level for a target, and cuts a target in the wrong place
    // if there is white space before it.
    let parts: Vec<_> = level.split(',').map(str::trim).collect();
    for part in &parts {
        match part.parse() {
            _ if part.is_empty() => return Err("has an empty part".to_owned()),
            Ok(level) => base = level,
            Err(_) if !part.contains('=') => return Err("has a part that is no level".to_owned()),
            Err(_) => {}
        }
    }
    let quiet = base.min(LevelFilter::WARN);
    let mut directives = base.to_string();
    for target in ["lapin", "amq_protocol", "async_rs"] {
        directives.push_str(&format!(",{target}=off"));
    }
    for target in ["hyper", "reqwest", "h2", "rustls", "tower"] {
        directives.push_str(&format!(",{target}={quiet}"));
    }
    // The last directive for a target wins.
    EnvFilter::try_new(format!("{directives},{}", parts.join(",")))
        .map_err(|_| "has a directive that can't be read".to_owned())
}

/// Whether an event may be logged at all: at this level lapin shows every frame, the one with our password included.
fn is_fit(event: &Metadata<'_>) -> bool {
    let is_wire = ["lapin", "amq_protocol"].iter().any(|library| event.target().starts_with(library));
    !is_wire || *event.level() < Level::TRACE
}

/// A format that is decided upon.
#[derive(Clone, Copy, Debug)]
enum Style {
    Text,
    Json,
}

fn subscriber<W>(
    style: Style,
    is_coloured: bool,
    filter: EnvFilter,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // By default a failure to write is reported to standard error, with a panic if that fails too.
        .log_internal_errors(false);
    match style {
        Style::Text => Box::new(
            builder
                .with_ansi(is_coloured)
                .fmt_fields(debug_fn(write_field).delimited(" "))
                .with_writer(writer)
                .finish()
                .with(filter_fn(is_fit)),
        ),
        Style::Json => Box::new(
            builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_writer(JsonLines(writer))
                .finish()
                .with(filter_fn(is_fit)),
        ),
    }
}

/// Writes `name=value`, or the bare value of the message itself.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        let [dim, plain] = if writer.has_ansi_escapes() { ["\x1b[2m", "\x1b[0m"] } else { [""; 2] };
        write!(writer, "{dim}{}={plain}", field.name())?;
    }
    write!(Escaped(writer), "{value:?}")
}

/// Passes text on, harmful characters as in Rust's string literals.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| {
            if is_harmful(char) {
                write!(self.0, "{}", char.escape_default())
            } else {
                self.0.write_char(char)
            }
        })
    }
}

/// Makes writers that escape what JSON itself does not.
struct JsonLines<M>(M);

/// A writer of [`JsonLines`].
struct JsonLine<W>(W);

impl<'w, M: MakeWriter<'w>> MakeWriter<'w> for JsonLines<M> {
    type Writer = JsonLine<M::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        JsonLine(self.0.make_writer())
    }
}

impl<W: Write> Write for JsonLine<W> {
    /// Takes `line` as a whole, which is how events are written.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.0.write_all(harmless_json(&text).as_bytes()).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests;
