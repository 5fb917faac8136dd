//! Between an instance and imoje: every request is an effect, named after its call.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Effects, Fault};

/// A proxy that ends when it is dropped.
pub struct GatewayProxy {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl GatewayProxy {
    /// Listens in front of `gateway`.
    pub async fn open(gateway: SocketAddr, effects: Arc<Effects>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // As a gateway that is down: the connection ends at once.
                if let Ok(server) = TcpStream::connect(gateway).await {
                    tokio::spawn(pass_on(client, server, Arc::clone(&effects)));
                }
            }
        });
        Self { address, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for GatewayProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes requests and answers on, one after the other, until one side closes or a fault strikes.
async fn pass_on(mut client: TcpStream, mut server: TcpStream, effects: Arc<Effects>) {
    // A read fills what room there is, and the first one has to have the whole first line.
    let (mut asked, mut said) = (Vec::with_capacity(8_192), Vec::with_capacity(8_192));
    let mut is_asking = false;
    let mut awaited: Option<Fault> = None;
    loop {
        tokio::select! {
            biased;
            () = effects.crashed() => return,
            read = client.read_buf(&mut asked) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                if !is_asking {
                    is_asking = true;
                    awaited = effects.next(call(&asked));
                }
                if awaited.is_some_and(|fault| !fault.happens()) || effects.is_crashed() {
                    return;
                }
                if server.write_all(&asked).await.is_err() {
                    return;
                }
                asked.clear();
            }
            read = server.read_buf(&mut said) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                is_asking = false;
                if let Some(fault) = awaited {
                    if fault.kills() {
                        effects.crash();
                    }
                    return;
                }
                if client.write_all(&said).await.is_err() {
                    return;
                }
                said.clear();
            }
        }
    }
}

/// The name of a call, from the first line of its request, without ids.
fn call(request: &[u8]) -> String {
    let line = String::from_utf8_lossy(
        request
            .split(|byte| *byte == b'\r')
            .next()
            .unwrap_or_default(),
    )
    .into_owned();
    let mut words = line.split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let names: Vec<&str> = path
        .split('/')
        .filter(|part| {
            [
                "transaction",
                "profile",
                "service",
                "id",
                "cid",
                "deactivate",
                "refund",
                "can-refund",
                "payment",
                "cancel",
            ]
            .contains(part)
        })
        .collect();
    format!("send {method} {}", names.join("/"))
}
