//! Connections that can fail on purpose.
//!
//! A handler arms the [`Line`] of its connection with a [`Fault`] before it returns its answer; the [`Wire`] then does
//! to the bytes of that answer what the fault says. Other connections are unaffected.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

/// What happens to the bytes of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    /// They arrive.
    #[default]
    None,
    /// The connection is closed in an orderly way after this many bytes.
    CutAfter(usize),
    /// The connection is reset before the first byte.
    Reset,
    /// They arrive one at a time.
    Drip(Duration),
}

/// The switch of one connection, shared between its handlers and its [`Wire`].
#[derive(Clone, Debug)]
pub(super) struct Line {
    fault: Arc<Mutex<Fault>>,
    closing: CancellationToken,
}

impl Line {
    fn new(closing: CancellationToken) -> Self {
        Self {
            fault: Arc::default(),
            closing,
        }
    }

    /// Decides about the next answer on this connection.
    pub(super) fn arm(&self, fault: Fault) {
        *self.fault() = fault;
    }

    fn fault(&self) -> MutexGuard<'_, Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections whose answers can be made to fail.
pub(super) struct Door {
    listener: TcpListener,
    closing: CancellationToken,
}

impl Door {
    /// Connections wait for nothing any more once `closing` is cancelled.
    pub(super) fn new(listener: TcpListener, closing: CancellationToken) -> Self {
        Self { listener, closing }
    }
}

impl Listener for Door {
    type Io = Wire;
    type Addr = Line;

    async fn accept(&mut self) -> (Wire, Line) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "couldn't switch off Nagle's algorithm");
                    }
                    let line = Line::new(self.closing.clone());
                    return (
                        Wire {
                            stream,
                            line: line.clone(),
                            pause: None,
                        },
                        line,
                    );
                }
                Err(error) => {
                    // Out of file descriptors, or the caller left already: neither is a reason to stop serving.
                    tracing::warn!(%error, "couldn't accept a connection to the simulator");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Line> {
        Ok(Line::new(self.closing.clone()))
    }
}

impl Connected<IncomingStream<'_, Door>> for Line {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.remote_addr().clone()
    }
}

/// One connection.
pub(super) struct Wire {
    stream: TcpStream,
    line: Line,
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let fault = *self.line.fault();
        match fault {
            Fault::None => Pin::new(&mut self.stream).poll_write(cx, bytes),
            Fault::CutAfter(left) => {
                let allowed = bytes.get(..left).unwrap_or(bytes);
                if allowed.is_empty() {
                    return Poll::Ready(Err(broken()));
                }
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, allowed))?;
                self.line.arm(Fault::CutAfter(left.saturating_sub(written)));
                Poll::Ready(Ok(written))
            }
            Fault::Reset => {
                self.stream.set_zero_linger()?;
                Poll::Ready(Err(broken()))
            }
            Fault::Drip(every) => {
                let closing = self.line.closing.clone();
                let pause = self.pause.get_or_insert_with(|| {
                    Box::pin(async move {
                        tokio::select! {
                            () = tokio::time::sleep(every) => {}
                            () = closing.cancelled() => {}
                        }
                    })
                });
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
                if self.line.closing.is_cancelled() {
                    return Poll::Ready(Err(broken()));
                }
                Pin::new(&mut self.stream).poll_write(cx, bytes.get(..1).unwrap_or(bytes))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the script breaks this connection",
    )
}
