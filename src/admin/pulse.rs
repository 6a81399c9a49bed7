//! Whether the event loop turns, found out by asking it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::Question;

/// At most one ping is on its way at a time, and everybody who wants to know waits for its answer together.
pub(super) struct Pulse {
    questions: mpsc::Sender<Question>,
    last: Mutex<Option<Ping>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// It answered.
    Turns,
    /// It has not answered yet, and was asked this long ago.
    Silent(Duration),
    /// It takes no questions any more.
    Ended,
}

#[derive(Clone)]
struct Ping {
    sent: Instant,
    /// False if the loop has ended.
    pong: Shared<BoxFuture<'static, bool>>,
}

impl Pulse {
    pub(super) fn new(questions: mpsc::Sender<Question>) -> Self {
        Self { questions, last: Mutex::new(None) }
    }

    /// Asks the loop, and waits for the answer as long as `patience` lasts.
    ///
    /// A ping that stays unanswered is not forgotten: the silence counts from the first one.
    pub(super) async fn feel(&self, patience: Duration) -> Beat {
        let Ping { sent, pong } = self.ping();
        match timeout(patience, pong).await {
            Ok(true) => Beat::Turns,
            Ok(false) => Beat::Ended,
            Err(_) => Beat::Silent(sent.elapsed()),
        }
    }

    /// The ping that is on its way, or else a new one: an old answer says nothing about now.
    fn ping(&self) -> Ping {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ping) = &*last
            && ping.pong.clone().now_or_never().is_none()
        {
            return ping.clone();
        }
        let questions = self.questions.clone();
        let (reply, answer) = oneshot::channel();
        let pong = async move { questions.send(Question::Ping(reply)).await.is_ok() && answer.await.is_ok() };
        last.insert(Ping { sent: Instant::now(), pong: pong.boxed().shared() }).clone()
    }
}
