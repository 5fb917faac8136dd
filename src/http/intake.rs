//! The intake: notices that come in together are stored in one commit, and each is answered after it.
//!
//! One task writes. What comes in during a commit is the next group, so a group is as large as the load makes it and a notice that
//! comes alone waits for nobody. Nothing is answered with "stored" before its commit is confirmed; a commit whose outcome is
//! unknown is none, as imoje sends the notice again and the same body is stored once.

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::store::inbox::NewNotice;
use crate::store::{Store, StoreError};

/// The largest group.
const GROUP_MAX: usize = 500;

/// How many notices may wait for the writer. With bodies as large as they may be that is 64 MiB.
const WAITING_MAX: usize = 1_024;

/// Where notices are handed in.
#[derive(Clone)]
pub(super) struct Intake {
    waiting: mpsc::Sender<Waiting>,
}

/// A notice that was not stored; imoje will send it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotStored;

/// A notice, and where its answer goes.
struct Waiting {
    notice: NewNotice,
    answer: Answer,
}

/// Whether the notice is new.
type Answer = oneshot::Sender<Result<bool, NotStored>>;

impl Intake {
    /// Starts the writer. It ends when every clone of the intake is gone and what was taken is answered.
    pub(super) fn open(store: Store, clock: Clock) -> (Self, JoinHandle<()>) {
        let (waiting, taken) = mpsc::channel(WAITING_MAX);
        let writer = Writer { store, clock };
        (Self { waiting }, tokio::spawn(writer.keep_writing(taken)))
    }

    /// Waits until the notice is stored. Returns whether it is new.
    pub(super) async fn store(&self, notice: NewNotice) -> Result<bool, NotStored> {
        let (answer, answered) = oneshot::channel();
        if let Err(refused) = self.waiting.try_send(Waiting { notice, answer }) {
            tracing::error!(error = %refused, "couldn't take a notice; imoje will send it again");
            return Err(NotStored);
        }
        // Without an answer the writer broke, and nothing is known.
        answered.await.unwrap_or(Err(NotStored))
    }
}

/// Stores what the handlers take.
struct Writer {
    store: Store,
    clock: Clock,
}

impl Writer {
    async fn keep_writing(self, mut taken: mpsc::Receiver<Waiting>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while taken.recv_many(&mut group, GROUP_MAX).await > 0 {
            let takes_more = self.write(group.split_off(0)).await;
            if !takes_more {
                // Who came in meanwhile has waited as long; for them the database would only be waited for once more.
                for _ in 0..taken.len() {
                    let Ok(waiting) = taken.try_recv() else { break };
                    tell(waiting.answer, Err(NotStored));
                }
            }
        }
    }

    /// Stores a group and answers it. Returns whether the database would take more.
    async fn write(&self, group: Vec<Waiting>) -> bool {
        let (notices, answers): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|waiting| (waiting.notice, waiting.answer))
            .unzip();
        let now = self.clock.now();
        let error = match self.store.receive_notices(&notices, now).await {
            Ok(is_new) => {
                for (answer, is_new) in answers.into_iter().zip(is_new) {
                    tell(answer, Ok(is_new));
                }
                return true;
            }
            Err(error) => error,
        };
        let is_away = matches!(error, StoreError::Unavailable(_));
        if is_away || answers.len() == 1 {
            let count = answers.len();
            tracing::error!(%error, notices = count, "couldn't store notices; imoje will send them again");
            for answer in answers {
                tell(answer, Err(NotStored));
            }
            return !is_away && !error.is_busy();
        }
        tracing::warn!(%error, notices = answers.len(), "couldn't store notices together; storing them one by one");
        let mut takes_more = true;
        for (notice, answer) in notices.into_iter().zip(answers) {
            if takes_more {
                let alone = vec![Waiting { notice, answer }];
                takes_more = Box::pin(self.write(alone)).await;
            } else {
                tell(answer, Err(NotStored));
            }
        }
        takes_more
    }
}

/// Answers a handler, unless its sender has hung up.
fn tell(answer: Answer, stored: Result<bool, NotStored>) {
    if answer.send(stored).is_err() {
        tracing::debug!("a notice's sender did not wait for the answer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> NewNotice {
        NewNotice {
            shop: "main".parse().expect("a name"),
            body_sha256: [0; 32],
            body: String::new(),
            order_id: None,
            transaction_id: None,
            attempt_id: None,
            is_refund: false,
            refund_of: None,
            says_settled: false,
        }
    }

    #[tokio::test]
    async fn when_as_many_wait_as_may_the_next_is_refused_at_once() {
        let (waiting, mut taken) = mpsc::channel(1);
        let intake = Intake { waiting };
        let (first, ()) = tokio::join!(biased; intake.store(notice()), async {
            assert_eq!(intake.store(notice()).await, Err(NotStored));
            let waiting = taken.recv().await.expect("the first");
            tell(waiting.answer, Ok(true));
        });
        assert_eq!(first, Ok(true));
    }

    #[tokio::test]
    async fn without_the_writer_nothing_is_said_to_be_stored() {
        let (waiting, taken) = mpsc::channel(1);
        let intake = Intake { waiting };
        let (first, ()) = tokio::join!(biased; intake.store(notice()), async { drop(taken) });
        assert_eq!(first, Err(NotStored));
        assert_eq!(intake.store(notice()).await, Err(NotStored));
    }
}
