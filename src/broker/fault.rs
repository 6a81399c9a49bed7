//! What goes wrong with a broker, classified by AMQP's reply codes and never by their texts.

use lapin::ErrorKind;

/// AMQP reply codes that a decision hangs on.
pub(crate) mod code {
    /// ACCESS_REFUSED: wrong password, or a missing permission.
    pub(crate) const ACCESS_REFUSED: u16 = 403;
    /// NOT_FOUND: no such queue or exchange.
    pub(crate) const NOT_FOUND: u16 = 404;
    /// PRECONDITION_FAILED: other arguments, a body too large, an acknowledgement that came too late.
    pub(crate) const PRECONDITION_FAILED: u16 = 406;
    /// INVALID_PATH: no such vhost.
    pub(crate) const INVALID_PATH: u16 = 402;
    /// FRAME_ERROR: what lapin calls a frame larger than agreed.
    pub(crate) const FRAME_ERROR: u16 = 501;
    /// NOT_ALLOWED: no such vhost, or not for this user.
    pub(crate) const NOT_ALLOWED: u16 = 530;
    /// NOT_IMPLEMENTED: the broker does not know what is asked of it.
    pub(crate) const NOT_IMPLEMENTED: u16 = 540;
}

/// Why a connection could not be had, or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub(crate) struct Fault {
    /// What may be done about it.
    pub(crate) nature: Nature,
    /// What happened, as a fragment that reads alone; never a URL, never a secret.
    pub(crate) sentence: String,
}

/// What may be done about a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Trying again may help.
    Passing,
    /// Trying again won't help until somebody changes something.
    Lasting,
    /// lapin cannot read what the broker sent; it will be sent again.
    Unreadable,
}

impl Fault {
    pub(crate) fn passing(sentence: impl Into<String>) -> Self {
        Self { nature: Nature::Passing, sentence: sentence.into() }
    }

    pub(crate) fn lasting(sentence: impl Into<String>) -> Self {
        Self { nature: Nature::Lasting, sentence: sentence.into() }
    }

    /// What `error` means for `doing`, a fragment like "open a channel".
    pub(crate) fn amqp(doing: &str, error: &lapin::Error) -> Self {
        Self { nature: nature(error), sentence: format!("failed to {doing}: {error}") }
    }

    pub(crate) fn is_lasting(&self) -> bool {
        self.nature == Nature::Lasting
    }
}

/// The broker's reply code, if it is the broker that complained.
pub(crate) fn reply_code(error: &lapin::Error) -> Option<u16> {
    if let ErrorKind::ProtocolError(error) = error.kind() { Some(error.get_id()) } else { None }
}

/// The broker's own words, or lapin's where the broker said nothing.
pub(crate) fn words(error: &lapin::Error) -> String {
    if let ErrorKind::ProtocolError(error) = error.kind() {
        error.get_message().to_string()
    } else {
        error.to_string()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "lapin's enum is open")]
fn nature(error: &lapin::Error) -> Nature {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.get_id() {
            code::ACCESS_REFUSED
            | code::NOT_FOUND
            | code::PRECONDITION_FAILED
            | code::INVALID_PATH
            | code::NOT_ALLOWED
            | code::NOT_IMPLEMENTED => Nature::Lasting,
            code::FRAME_ERROR => Nature::Unreadable,
            _ => Nature::Passing,
        },
        ErrorKind::ParsingError(_) => Nature::Unreadable,
        ErrorKind::AuthProviderError(_)
        | ErrorKind::SerialisationError(_)
        | ErrorKind::InvalidProtocolVersion(_) => Nature::Lasting,
        _ => Nature::Passing,
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    fn said(code: u16) -> lapin::Error {
        let error = AMQPError::from_id(code, "the broker's words".into()).expect("a known code");
        ErrorKind::ProtocolError(error).into()
    }

    #[test]
    fn reply_codes_decide() {
        for code in [402, 403, 404, 406, 530, 540] {
            assert_eq!(nature(&said(code)), Nature::Lasting, "{code}");
        }
        // 541 is what a vhost that is still starting answers, 320 an operator's close, 405 another's lock.
        for code in [311, 312, 313, 320, 405, 502, 503, 504, 505, 506, 541] {
            assert_eq!(nature(&said(code)), Nature::Passing, "{code}");
        }
        assert_eq!(nature(&said(501)), Nature::Unreadable);
    }

    #[test]
    fn losses_of_the_connection_pass() {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(nature(&reset.into()), Nature::Passing);
        assert_eq!(nature(&ErrorKind::MissingHeartbeatError.into()), Nature::Passing);
    }

    #[test]
    fn sentences_hold_the_broker_s_words() {
        let fault = Fault::amqp("open a channel", &said(504));
        assert!(fault.sentence.starts_with("failed to open a channel: "), "{fault}");
        assert!(fault.sentence.ends_with("the broker's words"), "{fault}");
        assert_eq!(words(&said(403)), "the broker's words");
        assert_eq!(reply_code(&said(403)), Some(403));
        assert_eq!(reply_code(&ErrorKind::MissingHeartbeatError.into()), None);
    }
}
