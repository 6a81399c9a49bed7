//! The `deletion-worker` binary.

use std::io::Write as _;
use std::process::ExitCode;

use deletion_worker::command::{Cli, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    rustls::crypto::ring::default_provider().install_default().expect("nobody has installed one before");
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::Fault(error.into())),
    };
    let end = runtime.block_on(cli.run());
    // Someone may still sit at a terminal's standard input: that thread can't be waited for.
    runtime.shutdown_background();
    match end {
        Ok(code) => code,
        Err(failure) => report(&failure),
    }
}

/// Says why the program ends, where its log goes if it has one.
fn report(failure: &Failure) -> ExitCode {
    if tracing::dispatcher::has_been_set() {
        tracing::error!("{failure}");
    } else {
        // Without a standard error there's still the exit code.
        let _ = writeln!(std::io::stderr(), "error: {failure}");
    }
    failure.exit_code()
}
