//! Between an instance and PostgreSQL: every commit of something written is an effect, named after its statements.
//!
//! Reads just enough of the protocol (PostgreSQL, "Message Formats"): which statements were prepared and run, `COMMIT`, and whether the
//! server is inside a transaction.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::{Effects, Fault};

/// A proxy that ends when it is dropped.
pub struct DatabaseProxy {
    directory: tempfile::TempDir,
    task: JoinHandle<()>,
}

impl DatabaseProxy {
    /// Listens where a client of `database` that is given [`DatabaseProxy::directory`] looks for the server.
    pub fn before(database: &PgConnectOptions, effects: Arc<Effects>) -> Self {
        let port = database.get_port();
        let socket: PathBuf = database
            .get_socket()
            .unwrap()
            .join(format!(".s.PGSQL.{port}"));
        let directory = tempfile::tempdir_in(crate::scratch::directory()).unwrap();
        let listener =
            UnixListener::bind(directory.path().join(format!(".s.PGSQL.{port}"))).unwrap();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&socket).await else {
                    continue;
                };
                let connection = Connection::new(Arc::clone(&effects));
                tokio::spawn(connection.pass_on(client, server));
            }
        });
        Self { directory, task }
    }

    /// Where the socket is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for DatabaseProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A statement as it was prepared.
#[derive(Clone)]
struct Statement {
    name: String,
    writes: bool,
}

impl Statement {
    /// From its text. Statements of the product begin with a comment that names them.
    fn read(sql: &str) -> Self {
        let words: Vec<&str> = sql.split_whitespace().collect();
        let name = match words.as_slice() {
            ["--", name, ..] => (*name).to_owned(),
            words => words.iter().take(3).copied().collect::<Vec<_>>().join(" "),
        };
        let writes = words.windows(2).any(|pair| {
            let word = pair[1].trim_start_matches('(');
            // Not the lock of a SELECT .. FOR [NO KEY] UPDATE.
            ["INSERT", "UPDATE", "DELETE"].contains(&word) && !["FOR", "KEY"].contains(&pair[0])
        });
        Self { name, writes }
    }
}

/// One connection.
struct Connection {
    effects: Arc<Effects>,
    statements: HashMap<String, Statement>,
    bound: Option<Statement>,
    written: Vec<String>,
    is_started: bool,
    in_transaction: bool,
    /// A fault that strikes as soon as the server has done what it was asked.
    awaited: Option<Fault>,
}

impl Connection {
    fn new(effects: Arc<Effects>) -> Self {
        Self {
            effects,
            statements: HashMap::new(),
            bound: None,
            written: Vec::new(),
            is_started: false,
            in_transaction: false,
            awaited: None,
        }
    }

    /// Passes messages on until one side closes or a fault strikes.
    async fn pass_on(mut self, mut client: UnixStream, mut server: UnixStream) {
        let effects = Arc::clone(&self.effects);
        let (mut asked, mut said) = (Vec::new(), Vec::new());
        loop {
            let alive = tokio::select! {
                biased;
                () = effects.crashed() => false,
                read = client.read_buf(&mut asked) => {
                    matches!(read, Ok(1..)) && self.ask(&mut asked, &mut server).await
                }
                read = server.read_buf(&mut said) => {
                    matches!(read, Ok(1..)) && self.answer(&mut said, &mut client).await
                }
            };
            if !alive {
                return;
            }
        }
    }

    /// Passes on every whole message of the client. Returns whether the connection lives on.
    async fn ask(&mut self, asked: &mut Vec<u8>, server: &mut UnixStream) -> bool {
        let mut end = 0;
        while let Some(length) = whole_message(&asked[end..], self.is_started) {
            let message = &asked[end..end + length];
            if self.is_started {
                let fault = self.look_at(message);
                if let Some(fault) = fault.filter(|fault| !fault.happens()) {
                    // What was said before it in the same breath is done as well, and never committed.
                    let _ = server.write_all(&asked[..end]).await;
                    debug_assert!(fault.kills() == self.effects.is_crashed());
                    return false;
                }
                self.awaited = self.awaited.or(fault);
            }
            self.is_started = true;
            end += length;
        }
        let passed: Vec<u8> = asked.drain(..end).collect();
        !self.effects.is_crashed() && server.write_all(&passed).await.is_ok()
    }

    /// Passes on what the server says, unless a fault waits for the end of it.
    async fn answer(&mut self, said: &mut Vec<u8>, client: &mut UnixStream) -> bool {
        let mut end = 0;
        let mut is_ready = false;
        while let Some(length) = whole_message(&said[end..], true) {
            let message = &said[end..end + length];
            if message[0] == b'Z' {
                self.in_transaction = message[5] != b'I';
                is_ready = true;
            }
            end += length;
        }
        let passed: Vec<u8> = said.drain(..end).collect();
        match self.awaited {
            None => client.write_all(&passed).await.is_ok(),
            Some(fault) if is_ready => {
                if fault.kills() {
                    self.effects.crash();
                }
                false
            }
            Some(_) => true,
        }
    }

    /// Notes what a message of the client means, and returns what goes wrong if it commits something.
    fn look_at(&mut self, message: &[u8]) -> Option<Fault> {
        let body = &message[5..];
        match message[0] {
            // Parse: name of the statement, its text.
            b'P' => {
                let mut texts = texts(body);
                let name = texts.next()?;
                let statement = Statement::read(&texts.next()?);
                self.statements.insert(name, statement);
            }
            // Bind: name of the portal, name of the statement.
            b'B' => {
                let name = texts(body).nth(1)?;
                self.bound = self.statements.get(&name).cloned();
            }
            b'E' => {
                if let Some(statement) = self.bound.as_ref().filter(|statement| statement.writes)
                    && !self.written.contains(&statement.name)
                {
                    self.written.push(statement.name.clone());
                }
            }
            // A simple query. Of these the product sends only what begins and ends transactions.
            b'Q' => {
                let text = texts(body).next()?;
                if text.starts_with("BEGIN")
                    || text.starts_with("ROLLBACK") && !text.contains("SAVEPOINT")
                {
                    self.written.clear();
                } else if text.starts_with("COMMIT") {
                    return self.commit();
                }
            }
            // Sync: commits what was run outside a transaction.
            b'S' if !self.in_transaction => return self.commit(),
            _ => {}
        }
        None
    }

    fn commit(&mut self) -> Option<Fault> {
        if self.written.is_empty() {
            return None;
        }
        let written = std::mem::take(&mut self.written);
        self.effects.next(format!("commit {}", written.join(", ")))
    }
}

/// How long the first message is, once all of it is there. The very first of a connection has no type.
fn whole_message(bytes: &[u8], has_type: bool) -> Option<usize> {
    let offset = usize::from(has_type);
    let length = bytes.get(offset..offset + 4)?;
    let length = u32::from_be_bytes(length.try_into().unwrap());
    let length = usize::try_from(length).unwrap() + offset;
    (bytes.len() >= length).then_some(length)
}

/// Texts that end with a zero.
fn texts(bytes: &[u8]) -> impl Iterator<Item = String> + '_ {
    bytes
        .split(|byte| *byte == 0)
        .map(|text| String::from_utf8_lossy(text).into_owned())
}
