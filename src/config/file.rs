//! Reading the files that a configuration names.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::address::{self, Broker};
use super::value::{Shape as _, Token};
use super::{Secret, SecretSource, Urls};

/// A file that is longer isn't configuration.
const BYTES_MAX: u64 = 1 << 20;

impl SecretSource {
    /// The token as it is now; a file is read anew, which blocks.
    ///
    /// # Errors
    /// A fragment that says what is wrong with the file, without its path or content.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => token(path),
        }
    }
}

impl Urls {
    /// The URLs as they are now, at least one; a file is read anew, which blocks.
    ///
    /// # Errors
    /// A fragment that says what is wrong with the file, without its path or content.
    pub fn read(&self) -> Result<Vec<Secret>, String> {
        match self {
            Self::Values(urls) => Ok(urls.clone()),
            Self::File(path) => Ok(brokers(path)?.into_iter().map(|broker| broker.url).collect()),
        }
    }
}

/// The content of a short text file; the error says what is wrong, without the path.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let open = |path| -> std::io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut content)?;
        Ok(content)
    };
    let content = open(path).map_err(|error| format!("can't be read: {error}"))?;
    if content.len() as u64 > BYTES_MAX {
        return Err(format!("can't be read: has more than {BYTES_MAX} bytes"));
    }
    String::from_utf8(content).map_err(|_| "can't be read: is not UTF-8".to_owned())
}

/// The token in the file at `path`, without the white space round it.
pub(super) fn token(path: &Path) -> Result<Secret, String> {
    Token.parse(read(path)?.trim())
}

/// The brokers in the file at `path`.
pub(super) fn brokers(path: &Path) -> Result<Vec<Broker>, String> {
    address::brokers(&read(path)?)
}

/// Checks that the file at `path` holds certificates: TLS libraries accept one without any, and then every
/// connection fails.
pub(super) fn certificates(path: &Path) -> Result<(), String> {
    let content = read(path)?;
    let mut found = CertificateDer::pem_slice_iter(content.as_bytes()).peekable();
    let is_sound = found.peek().is_some() && found.all(|each| each.is_ok());
    if is_sound { Ok(()) } else { Err("holds no PEM certificate".to_owned()) }
}

/// Checks that the file at `path` holds a private key as PKCS#8.
pub(super) fn private_key(path: &Path) -> Result<(), String> {
    let content = read(path)?;
    match PrivatePkcs8KeyDer::from_pem_slice(content.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err("holds no PKCS#8 private key (BEGIN PRIVATE KEY)".to_owned()),
    }
}
