//! A client that does little but send and receive: HTTP/1.1 on kept connections, the same bytes again and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::cores;
use crate::server::KEY;
use crate::stats::{Millis, figure};

/// A request, and what the body of its answer says.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) title: &'static str,
    request: Arc<[u8]>,
    answer: Value,
}

impl Exchange {
    /// A POST of a text that is answered with the same.
    pub(crate) fn post(title: &'static str, path: &str, text: &str) -> Result<Self> {
        let head = format!("content-type: application/json\r\ncontent-length: {}\r\n", text.len());
        Ok(Self::new(title, &format!("POST {path}"), &head, text, serde_json::from_str(text)?))
    }

    /// A GET.
    pub(crate) fn get(title: &'static str, path: &str, answer: Value) -> Self {
        Self::new(title, &format!("GET {path}"), "", "", answer)
    }

    fn new(title: &'static str, line: &str, head: &str, body: &str, answer: Value) -> Self {
        let request = format!(
            "{line} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\nauthorization: Bearer {KEY}\r\n{head}\r\n{body}"
        );
        Self { title, request: request.into_bytes().into(), answer }
    }

    /// Fails where the server does not answer with the same JSON.
    pub(crate) fn check(&self, server: SocketAddr) -> Result<()> {
        let body = cores::on(cores::client()?, || {
            runtime()?.block_on(async {
                let mut connection = Connection::open(server).await?;
                connection.exchange(&self.request).await?;
                connection.body()
            })
        })?;
        let answer: Value = serde_json::from_slice(&body)?;
        ensure!(answer == self.answer, "another answer: {answer}");
        Ok(())
    }

    /// Sends the request on so many connections, each as soon as it has its answer, for a while.
    pub(crate) fn load(&self, server: SocketAddr, connections: usize, length: Duration) -> Result<Load> {
        cores::on(cores::client()?, || runtime()?.block_on(self.drive(server, connections, length)))
    }

    async fn drive(&self, server: SocketAddr, connections: usize, length: Duration) -> Result<Load> {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Connection::open(server).await?);
        }
        let (busy, started) = (thread_time(), Instant::now());
        let mut callers = JoinSet::new();
        for mut connection in open {
            let request = Arc::clone(&self.request);
            callers.spawn(async move {
                let mut latencies = Vec::new();
                while started.elapsed() < length {
                    let sent = Instant::now();
                    connection.exchange(&request).await?;
                    latencies.push(sent.elapsed());
                }
                anyhow::Ok(latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(of_one) = callers.join_next().await {
            latencies.extend(of_one??);
        }
        let (elapsed, busy) = (started.elapsed(), thread_time().saturating_sub(busy));
        Ok(Load { requests: figure(latencies.len()), elapsed, busy, latencies: Millis::new(latencies) })
    }
}

/// What a load came to.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) requests: f64,
    pub(crate) elapsed: Duration,
    /// CPU time of the client.
    pub(crate) busy: Duration,
    pub(crate) latencies: Millis,
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A kept connection, and the last answer on it.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    async fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(8 << 10) })
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<()> {
        self.answer.clear();
        self.stream.write_all(request).await?;
        loop {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the server hung up");
            if let Some(head) = Head::read(&self.answer)? {
                let is_whole = match head.length {
                    Some(length) => self.answer.len() >= head.size + length,
                    None => self.answer.ends_with(b"\r\n0\r\n\r\n"),
                };
                if is_whole {
                    return Ok(());
                }
            }
        }
    }

    /// The body of the last answer.
    fn body(&self) -> Result<Vec<u8>> {
        let head = Head::read(&self.answer)?.context("no answer")?;
        let mut rest = self.answer.get(head.size..).unwrap_or_default();
        if head.length.is_some() {
            return Ok(rest.to_vec());
        }
        let mut body = Vec::new();
        loop {
            let line = rest.windows(2).position(|pair| pair == b"\r\n").context("no length of a chunk")?;
            let (length, after) = rest.split_at(line);
            let length = usize::from_str_radix(std::str::from_utf8(length)?, 16)?;
            if length == 0 {
                return Ok(body);
            }
            let after = after.get(2..).unwrap_or_default();
            body.extend_from_slice(after.get(..length).context("a chunk is cut off")?);
            rest = after.get(length + 2..).context("a chunk does not end")?;
        }
    }
}

/// The head of an answer.
struct Head {
    size: usize,
    /// Of the body; none where that comes in chunks.
    length: Option<usize>,
}

impl Head {
    /// None while it is not whole.
    fn read(answer: &[u8]) -> Result<Option<Self>> {
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let (head, body) = answer.split_at(end);
        let mut lines = std::str::from_utf8(head)?.split("\r\n");
        let status = lines.next().unwrap_or_default();
        if !status.starts_with("HTTP/1.1 200") {
            bail!("{status}: {}", String::from_utf8_lossy(body));
        }
        let mut fields = lines.filter_map(|line| line.split_once(':'));
        let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.map(|(_, value)| value.trim().parse()).transpose()?;
        Ok(Some(Self { size: end + 4, length }))
    }
}
