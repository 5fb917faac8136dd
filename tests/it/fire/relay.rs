//! Where imoje sends its notices: whichever instance has its door open, or nobody.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// An address that leads to another, which may change.
pub struct Relay {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Leads nowhere yet.
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let towards = Arc::clone(&target);
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = *towards.lock().unwrap_or_else(PoisonError::into_inner);
                tokio::spawn(async move {
                    // Without a door, and when it closes in between, the connection ends, as it would by itself.
                    if let Some(target) = target
                        && let Ok(mut door) = TcpStream::connect(target).await
                    {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut door).await;
                    }
                });
            }
        });
        Self {
            address,
            target,
            task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it leads to `target`.
    pub fn lead_to(&self, target: Option<SocketAddr>) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
