//! Between an instance and imoje: how many requests wait for their answer is known, and answers can be held back.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A proxy that ends when it is dropped.
pub struct HeldGateway {
    address: SocketAddr,
    crowd: watch::Sender<Crowd>,
    is_held: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Default)]
struct Crowd {
    waiting: usize,
    most: usize,
}

impl HeldGateway {
    /// Listens in front of `gateway`, and holds every answer back.
    pub async fn open(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (crowd, is_held) = (
            watch::Sender::new(Crowd::default()),
            watch::Sender::new(true),
        );
        let (counted, holding) = (crowd.clone(), is_held.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(gateway).await.unwrap();
                tokio::spawn(pass_on(
                    client,
                    server,
                    counted.clone(),
                    holding.subscribe(),
                ));
            }
        });
        Self {
            address,
            crowd,
            is_held,
            task,
        }
    }

    /// What an instance takes for imoje's address.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1/merchant", self.address)
    }

    /// Waits until so many requests wait for their answer.
    pub async fn is_asked(&self, requests: usize) {
        let mut crowd = self.crowd.subscribe();
        crowd
            .wait_for(|crowd| crowd.waiting >= requests)
            .await
            .unwrap();
    }

    /// Every answer goes through from now on.
    pub fn let_go(&self) {
        self.is_held.send_replace(false);
    }

    /// The most requests that ever waited for their answer at once.
    pub fn most_at_once(&self) -> usize {
        self.crowd.borrow().most
    }
}

impl Drop for HeldGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes requests and answers on, one after the other, until one side closes.
async fn pass_on(
    mut client: TcpStream,
    mut server: TcpStream,
    crowd: watch::Sender<Crowd>,
    mut is_held: watch::Receiver<bool>,
) {
    let (mut asked, mut said) = (Vec::new(), Vec::new());
    let mut is_asking = false;
    loop {
        tokio::select! {
            read = client.read_buf(&mut asked) => {
                if !matches!(read, Ok(1..)) {
                    break;
                }
                if !is_asking {
                    is_asking = true;
                    crowd.send_modify(|crowd| {
                        crowd.waiting += 1;
                        crowd.most = crowd.most.max(crowd.waiting);
                    });
                }
                if server.write_all(&asked).await.is_err() {
                    break;
                }
                asked.clear();
            }
            read = server.read_buf(&mut said) => {
                if !matches!(read, Ok(1..)) || is_held.wait_for(|is_held| !is_held).await.is_err() {
                    break;
                }
                if is_asking {
                    is_asking = false;
                    crowd.send_modify(|crowd| crowd.waiting -= 1);
                }
                if client.write_all(&said).await.is_err() {
                    break;
                }
                said.clear();
            }
        }
    }
    if is_asking {
        crowd.send_modify(|crowd| crowd.waiting -= 1);
    }
}
