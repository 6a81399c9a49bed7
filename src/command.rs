//! The command line: what can be asked of the program, and how it ends. One module per command.

pub mod check_config;
pub mod dead_letters;
pub mod demo;
pub mod healthcheck;
pub mod load;
pub mod mock_endpoint;
pub mod publish;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _};
use indicatif::{ProgressState, ProgressStyle};

use crate::config::{Config, Loaded, Need, Problems};
use crate::text::harmless;
use crate::worker;

/// Exit code for what trying again won't mend.
const EXIT_FAULT: u8 = 1;
/// Exit code for bad usage, which clap uses too, and for bad configuration.
const EXIT_USAGE: u8 = 2;

/// The argument that clap can't make global: given before and after a command, the former would be lost.
const SETS: &str = "sets";

const ABOUT: &str = "\
Deletes videos: consumes deletion requests from RabbitMQ, coalesces their IDs into full calls of the memories.ai \
delete endpoint, acknowledges a message once all its IDs are deleted, and dead-letters what can never succeed, \
saying why.";

const AFTER_HELP: &str = "\
Configuration:
  Defaults, overridden by the TOML file of --config, by environment variables, by --set. The key batch.linger is the \
variable DELETION_WORKER__BATCH__LINGER: two underscores between the parts, lists separated by commas.
  `deletion-worker check-config` shows every key with its value and where that comes from.

Environment:
  DELETION_WORKER_CONFIG       the file, if --config isn't given
  DELETION_WORKER__<KEY>       one configuration key
  SSL_CERT_FILE, SSL_CERT_DIR  roots to trust instead of the system's
  NO_COLOR                     no colours in the log

Exit codes:
  0  done, or drained cleanly
  1  a fault that trying again won't mend; the last line says which
  2  bad usage or configuration; every problem is listed with its key";

/// The command line.
#[derive(Debug, clap::Parser)]
#[command(name = "deletion-worker", version, about = ABOUT, after_long_help = AFTER_HELP)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Command,
}

/// Where configuration comes from, beside the environment.
#[derive(Debug, clap::Args)]
pub struct Sources {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", global = true, env = "DELETION_WORKER_CONFIG")]
    config: Option<PathBuf>,
    /// Set one configuration key, e.g. --set batch.linger=250ms; can be repeated
    #[arg(id = SETS, long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the worker
    ///
    /// Consumes amqp.queue until SIGTERM or SIGINT: then it takes no more messages, finishes what is open within
    /// shutdown.grace, gives the rest back, and exits with 0. A second signal stops it at once.
    ///
    /// Example: DELETION_WORKER__ENDPOINT__TOKEN_FILE=/run/secrets/token deletion-worker run --config worker.toml
    Run,
    /// Print the effective configuration, and where each value comes from
    ///
    /// Prints every key as TOML that can be used as a configuration file, with secrets masked. Exits with 0, or with
    /// 2 after listing every problem, each with its key.
    ///
    /// Example: deletion-worker check-config --config worker.toml
    CheckConfig,
    /// Ask a running worker whether it is healthy
    ///
    /// Asks /healthz of the admin server at admin.listen: does the event loop turn? With --ready it asks /readyz: is
    /// the worker connected, and consuming or paused on purpose? Prints one line; exits with 0 for yes, with 1 for no
    /// or no answer.
    ///
    /// Example: deletion-worker healthcheck --ready --url http://10.0.0.7:9090
    ///
    /// In a Dockerfile: HEALTHCHECK CMD ["/deletion-worker", "healthcheck"]
    Healthcheck(healthcheck::Args),
    /// Run the whole system on this machine, and check what comes of it
    ///
    /// Gets a RabbitMQ (AMQP_URL, Docker, an installed rabbitmq-server, or Debian's package, in that order), starts a
    /// mock of the endpoint and a worker, and publishes requests with duplicates, messages of many IDs, malformed ones
    /// and bad IDs, while the endpoint throttles, fails and recovers. Ends by itself with a summary that is checked
    /// against the mock's and the broker's own counts; exits with 1 if they disagree, or at SIGTERM or SIGINT.
    ///
    /// Leaves nothing running, even if it is killed, and touches nothing that it didn't create: on a broker of AMQP_URL it
    /// works in a virtual host of its own, or under names of its own where it may not create one.
    ///
    /// Example: deletion-worker demo --messages 10000
    Demo(demo::Args),
    /// Publish made-up requests without an end, to see a system at work
    ///
    /// The messages of the demo, for a system that stands: one ID or many, duplicates, and a few that are malformed or have
    /// a bad ID. Goes to amqp.exchange, which has to be there, and stops with SIGTERM or SIGINT. Its IDs, VILOAD..., name
    /// nobody's video; the bad ones are what `mock-endpoint --bad-prefix VIBAD` rejects.
    ///
    /// Example: deletion-worker load --rate 500
    Load(load::Args),
    /// Publish deletion requests
    ///
    /// Checks all IDs before anything is sent, then publishes them to amqp.exchange and waits for the broker to confirm
    /// each message. With amqp.declare = "create" exchange and queues are created first. Stopped half-way by SIGTERM or
    /// SIGINT, or by a fault, it says how much is confirmed; to publish an ID twice does no harm.
    ///
    /// Example: deletion-worker publish --file ids.txt --per-message 100 --requested-by me --reason cleanup
    ///
    /// Example: deletion-worker publish VI625239098370850816
    Publish(publish::Args),
    /// Look at dead letters, replay, export or remove them
    ///
    /// Works on the queue dead_letter.queue: what the worker dead-lettered, and what the broker did. All tasks read the
    /// queue in its order, in bounded memory, and give back what they don't remove; they may run beside the worker and
    /// beside each other. docs/dead-letters.md says what each reason means and who has to act.
    ///
    /// Example: deletion-worker dead-letters list
    DeadLetters(Box<dead_letters::Args>),
    /// Run a stand-in for the delete endpoint, with faults that can be switched on
    ///
    /// Serves both API versions, at the paths of the real ones. Faults are set by flags, or at run time by
    /// PUT /_mock/faults; GET /_mock/stats says what came in. Stops with SIGTERM or SIGINT.
    ///
    /// Example: deletion-worker mock-endpoint --latency 50ms --requests-per-second 5
    ///
    /// The worker for it: deletion-worker run --set endpoint.token=any --set
    /// endpoint.url=http://127.0.0.1:8088/api/serve/video/delete
    MockEndpoint(Box<mock_endpoint::Args>),
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Everything that is wrong with the configuration.
    #[error("bad configuration:\n{0}")]
    Configuration(#[from] Problems),
    /// Arguments that make no sense, as only looking closer shows.
    #[error("{}", presentable(.0))]
    Usage(String),
    /// What trying again won't mend.
    #[error("{}", presentable(&format!("{:#}", .0)))]
    Fault(#[from] anyhow::Error),
}

impl Cli {
    /// Reads the process's arguments; bad ones, and the wish for help, end the process.
    #[must_use]
    pub fn parse() -> Self {
        let matches = Self::definition().try_get_matches().unwrap_or_else(|error| discreet(error).exit());
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let mut level = &matches;
        while let Some((_, deeper)) = level.subcommand() {
            cli.sources.sets.extend(deeper.get_many::<String>(SETS).into_iter().flatten().cloned());
            level = deeper;
        }
        cli
    }

    /// The command line with `--set` at every level.
    fn definition() -> clap::Command {
        fn deepen(command: clap::Command, sets: &clap::Arg) -> clap::Command {
            command.mut_subcommands(|deeper| deepen(deeper.arg(sets), sets))
        }
        let command = Self::command();
        let sets = command.get_arguments().find(|argument| argument.get_id() == SETS);
        let sets = sets.expect("it is declared in Sources").clone();
        deepen(command, &sets)
    }

    /// Does what was asked, and says with which code to exit.
    ///
    /// # Errors
    /// [`Failure`] has a code of its own.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        let Self { sources, command } = self;
        match command {
            Command::CheckConfig => {
                let loaded = sources.load(Need::Worker);
                let code = check_config::run(loaded, &mut io::stdout().lock(), &mut io::stderr().lock());
                return Ok(ExitCode::from(code.context("failed to print the configuration")?));
            }
            Command::Run => {
                let config = sources.start(Need::Worker)?;
                worker::run(&config).await.map_err(anyhow::Error::from)?;
            }
            Command::Publish(args) => {
                let config = sources.load(Need::Broker)?.config;
                publish::run(args, &config, &mut io::stdout().lock()).await?;
            }
            Command::DeadLetters(args) => {
                let config = sources.load(Need::Broker)?.config;
                dead_letters::run(*args, &config).await?;
            }
            Command::MockEndpoint(args) => mock_endpoint::run(*args).await?,
            Command::Load(args) => {
                let config = sources.load(Need::Broker)?.config;
                load::run(&args, &config, &mut io::stdout().lock()).await?;
            }
            Command::Demo(args) => demo::run(&args).await?,
            Command::Healthcheck(args) => healthcheck::run(&args, &sources, &mut io::stdout().lock()).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Sources {
    /// Reads them all.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(&self, need: Need) -> Result<Loaded, Problems> {
        Config::load(self.config.as_deref(), std::env::vars_os(), &self.sets, need)
    }

    /// Reads them all and starts the log, as a program that stays does; what is doubtful is its first lines.
    ///
    /// # Errors
    /// Everything that is wrong, or that something else already logs.
    pub fn start(&self, need: Need) -> Result<Config, Failure> {
        let Loaded { config, notes, .. } = self.load(need)?;
        crate::log::init(&config.log).context("failed to start the log")?;
        for note in notes {
            tracing::warn!(key = note.key, "doubtful configuration: {note}");
        }
        Ok(config)
    }
}

impl Failure {
    /// 1 or 2, as documented.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Configuration(_) | Self::Usage(_) => EXIT_USAGE,
            Self::Fault(_) => EXIT_FAULT,
        })
    }
}

impl From<publish::Failure> for Failure {
    fn from(failure: publish::Failure) -> Self {
        match failure {
            publish::Failure::Usage(sentence) => Self::Usage(sentence),
            publish::Failure::Fault(sentence) => Self::Fault(anyhow::Error::msg(sentence)),
        }
    }
}

/// A failure's text without what a terminal may act upon; some have several lines.
fn presentable(text: &str) -> String {
    text.split('\n').map(harmless).collect::<Vec<_>>().join("\n")
}

/// An `error` that doesn't repeat what may be a secret: the value of an option that there isn't, one that stands alone
/// because `=` was forgotten, a URL's password.
fn discreet(mut error: clap::Error) -> clap::Error {
    let is_unknown = error.kind() == ErrorKind::UnknownArgument;
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue, ContextKind::InvalidSubcommand] {
        let Some(ContextValue::String(text)) = error.get(kind) else { continue };
        let shown = match text.split_once('=') {
            Some((name, _)) if is_unknown => format!("{}=***", harmless(name)),
            Some(_) | None if text.contains('@') => "***".to_owned(),
            Some(_) | None if text.starts_with('-') || !is_unknown => harmless(text).into_owned(),
            Some(_) | None => "***".to_owned(),
        };
        error.insert(kind, ContextValue::String(shown));
    }
    if is_unknown {
        // A tip may quote it once more.
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::TrailingArg);
    }
    error
}

impl From<dead_letters::Failure> for Failure {
    fn from(failure: dead_letters::Failure) -> Self {
        match failure {
            dead_letters::Failure::Usage(sentence) => Self::Usage(sentence),
            dead_letters::Failure::Fault(sentence) => Self::Fault(anyhow::Error::msg(sentence)),
        }
    }
}

/// A progress bar's style from an indicatif template, which may name the `rate`: whole units a second.
fn bar_style(template: &str) -> ProgressStyle {
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // A progress bar that can't be drawn is nobody's loss.
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    let style = ProgressStyle::with_template(template).expect("a template known at compile time");
    style.with_key("rate", rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::definition().debug_assert();
    }
}
