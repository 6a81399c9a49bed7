//! The `dead-letters` command: the dead-letter queue, as the operator's work begins with it.

mod body;
mod export;
mod filter;
mod group;
mod letter;
mod list;
mod output;
mod purge;
mod reading;
mod replay;
mod show;
mod table;
mod tally;

use std::io::{self, Write};

use self::filter::Filter;
use self::output::Output;
use self::reading::{End, Reading};
use crate::config::Config;

/// What to do, and to which letters.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Task {
    /// Count the dead letters by cause
    ///
    /// Groups them by reason, code and, for malformed ones, kind of fault: how many, the oldest, the newest, who published
    /// them, and an example. Includes what the broker itself dead-lettered. Nothing is removed or reordered.
    ///
    /// Example: deletion-worker dead-letters list --after 2h
    List(list::Args),
    /// Print dead letters: where they come from, properties, headers, body
    ///
    /// JSON is indented, what isn't text is printed as hex. Nothing is removed or reordered.
    ///
    /// Example: deletion-worker dead-letters show --reason malformed --limit 3
    Show(show::Args),
    /// Publish dead letters again, to where they were published before
    ///
    /// Each goes to its original exchange and routing key, with the properties it was published with; its header
    /// x-deletion-replays counts how often that was done. It is removed from the dead-letter queue only once the broker
    /// has confirmed that it is stored in a queue again. Stopped at any point, even by kill -9, nothing is lost: run it
    /// again. Letters that aren't selected stay, in their order.
    ///
    /// Example: deletion-worker dead-letters replay --reason rejected --code 0001 --dry-run
    Replay(replay::Args),
    /// Write dead letters to standard output, one JSON object a line
    ///
    /// Everything that is needed to look at them or to replay them elsewhere: where they come from, properties, headers
    /// with their types, bodies byte for byte (body, or body_base64 where it isn't text). Nothing is removed.
    ///
    /// Example: deletion-worker dead-letters export > letters.jsonl
    Export(export::Args),
    /// Remove dead letters for good
    ///
    /// Shows what it would remove, and asks. Without a terminal it needs --yes.
    ///
    /// Example: deletion-worker dead-letters purge --reason expired --before 30d
    Purge(purge::Args),
}

/// What all tasks take.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    filter: Filter,
    /// Go on with letters that were given back up to N times before (x-delivery-count)
    ///
    /// Each look at a letter gives it back once, and a quorum queue with a delivery limit throws away what is given back
    /// too often. Where the limit isn't known, letters that were given back 10 times stop the command. Give a number
    /// well below the queue's limit.
    #[arg(long, value_name = "N")]
    returns_max: Option<u64>,
}

/// Why the command ends with something else than 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What was asked for makes no sense (exit code 2).
    #[error("{0}")]
    Usage(String),
    /// Something went wrong on the way (exit code 1).
    #[error("{0}")]
    Fault(String),
}

/// Runs the command: results to standard output, all else to standard error.
///
/// # Errors
/// See [`Failure`]. A reader of the output that has seen enough is none.
pub async fn run(args: Args, config: &Config) -> Result<(), Failure> {
    let out = &mut Output::default();
    let ended = match args.task {
        Task::List(args) => list::run(args, config, out).await,
        Task::Show(args) => show::run(&args, config, out).await,
        Task::Replay(args) => replay::run(args, config, out).await,
        Task::Export(args) => export::run(args, config, out).await,
        Task::Purge(args) => purge::run(args, config, out).await,
    };
    let ended = ended.and_then(|()| Ok(out.flush()?));
    match ended {
        Ok(()) | Err(End::Closed) => Ok(()),
        Err(End::Usage(sentence)) => Err(Failure::Usage(sentence)),
        Err(End::Fault(sentence)) => Err(Failure::Fault(sentence)),
        Err(End::Interrupted) => Err(Failure::Fault("interrupted".to_owned())),
    }
}

/// Says something that is no result, on standard error.
fn say(sentence: &str) {
    // Without a standard error nobody listens.
    let _ = writeln!(io::stderr(), "{sentence}");
}
