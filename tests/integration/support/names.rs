//! Host names that lead elsewhere from one moment to the next, for the worker alone.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::process::Command;

use super::scratch::Scratch;
use super::world::World;

/// Mounts `$0` and `$1` over the files that names are resolved by, and turns into the rest of its arguments.
const MOUNT: &str =
    "mount --bind \"$0\" /etc/hosts && mount --bind \"$1\" /etc/nsswitch.conf && shift && exec \"$@\"";

/// What names mean to the workers that are started after it was made.
pub(crate) struct Names(Scratch);

impl Names {
    /// Runs the workers in a mount namespace of their own, with an `/etc/hosts` of their own.
    ///
    /// Panics if the machine grants neither the superuser nor others such a namespace.
    pub(crate) fn of(world: &mut World) -> Self {
        let files = Scratch::new("names");
        // Nobody else is to be asked.
        files.write("nsswitch.conf", "hosts: files\n");
        files.write("hosts", "127.0.0.1 localhost\n");
        let arguments = |unshare: &[&str]| {
            let (hosts, switch) = (files.path("hosts"), files.path("nsswitch.conf"));
            let shell = ["sh", "-c", MOUNT, &hosts, &switch];
            unshare.iter().chain(&shell).map(|&word| word.to_owned()).collect::<Vec<_>>()
        };
        let mut refusals = Vec::new();
        for unshare in [&["unshare", "--mount"][..], &["unshare", "--user", "--map-root-user", "--mount"]] {
            let wrapper = arguments(unshare);
            let tried = Command::new(&wrapper[0]).args(&wrapper[1..]).arg("true").output();
            match tried {
                Ok(output) if output.status.success() => {
                    world.run_by(wrapper);
                    return Self(files);
                }
                Ok(output) => refusals.push(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(error) => refusals.push(error.to_string()),
            }
        }
        panic!(
            "names can't be changed for one process, as this machine refuses mount namespaces: {refusals:?}"
        );
    }

    /// Replaces all names.
    pub(crate) fn lead<'a>(&self, names: impl IntoIterator<Item = (&'a str, Ipv4Addr)>) {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for (name, address) in names {
            writeln!(text, "{address} {name}").expect("a string takes all");
        }
        self.0.write("hosts", &text);
    }
}
