//! A client that sends one request over and over on many connections, from one thread: as fast as it is
//! answered, at a fixed rate, or all at once. It knows HTTP/1.1 as far as answers with a length go.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// An answer that takes longer is a fault.
const LIMIT: Duration = Duration::from_secs(30);

/// Open connections, with the request that they send.
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    request: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// When its request was due; `None` while it has none.
    due: Option<Instant>,
}

/// What went through in a stretch of time.
#[derive(Clone, Copy)]
pub(crate) struct Throughput {
    pub(crate) requests: u64,
    pub(crate) time: Duration,
}

impl Throughput {
    pub(crate) fn per_second(self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }
}

impl Load {
    pub(crate) fn open(address: SocketAddr, connections: usize, request: &[u8]) -> Result<Self> {
        let poll = Poll::new()?;
        let mut all = Vec::with_capacity(connections);
        for n in 0..connections {
            all.push(
                Connection::open(address, &poll, Token(n))
                    .with_context(|| format!("connection {n} of {connections} to {address}"))?,
            );
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(connections.clamp(64, 4096)),
            connections: all,
            request: request.to_vec(),
        })
    }

    /// Keeps one request under way on every connection for so long.
    pub(crate) fn saturate(&mut self, time: Duration) -> Result<Throughput> {
        let start = Instant::now();
        let idle = self.connections.iter_mut().filter(|c| c.due.is_none());
        for connection in idle {
            connection.send(&self.request, start)?;
        }
        let mut requests = 0;
        loop {
            self.poll.poll(&mut self.events, Some(LIMIT))?;
            ensure!(!self.events.is_empty(), "no answer within {LIMIT:?}");
            let now = Instant::now();
            for event in &self.events {
                if let Some(connection) = self.connections.get_mut(event.token().0)
                    && connection.answered()?
                {
                    requests += 1;
                    connection.send(&self.request, now)?;
                }
            }
            let time = if start.elapsed() < time {
                continue;
            } else {
                start.elapsed()
            };
            return Ok(Throughput { requests, time });
        }
    }

    /// Sends so many requests a second for so long, each on a connection that is free, and gives the time
    /// from when each was due to its answer in nanoseconds: a request that had to wait for its turn counts
    /// with its waiting. It never sleeps, so it needs a core of its own.
    pub(crate) fn at_rate(&mut self, per_second: f64, time: Duration) -> Result<Histogram<u64>> {
        self.finish()?;
        let mut took = Histogram::new(3)?;
        let mut free: Vec<usize> = (0..self.connections.len()).collect();
        let start = Instant::now();
        let total = (time.as_secs_f64() * per_second) as u64;
        let due = |n: u64| start + Duration::from_secs_f64(n as f64 / per_second);
        let mut sent = 0;
        while took.len() < total {
            while sent < total && due(sent) <= Instant::now() {
                let Some(at) = free.pop() else { break };
                let connection = self.connections.get_mut(at).context("a connection")?;
                connection.send(&self.request, due(sent))?;
                sent += 1;
            }
            self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            ensure!(start.elapsed() < time + LIMIT, "answers are missing");
            for event in &self.events {
                let at = event.token().0;
                if let Some(connection) = self.connections.get_mut(at) {
                    let due = connection.due;
                    if connection.answered()? {
                        let waited = due.map(|due| due.elapsed()).unwrap_or_default();
                        took.record(waited.as_nanos() as u64)?;
                        free.push(at);
                    }
                }
            }
        }
        Ok(took)
    }

    /// Sends each of these once, as many at a time as there are connections.
    pub(crate) fn each(&mut self, requests: impl Iterator<Item = Vec<u8>>) -> Result<()> {
        self.finish()?;
        let mut free: Vec<usize> = (0..self.connections.len()).collect();
        for request in requests {
            while free.is_empty() {
                self.poll.poll(&mut self.events, Some(LIMIT))?;
                ensure!(!self.events.is_empty(), "no answer within {LIMIT:?}");
                for event in &self.events {
                    let at = event.token().0;
                    if let Some(connection) = self.connections.get_mut(at)
                        && connection.answered()?
                    {
                        free.push(at);
                    }
                }
            }
            let connection = free.pop().and_then(|at| self.connections.get_mut(at));
            connection
                .context("a free connection")?
                .send(&request, Instant::now())?;
        }
        self.finish()
    }

    /// Sends one request on every connection before it reads an answer. How long it took until all were
    /// answered.
    pub(crate) fn at_once(&mut self) -> Result<Duration> {
        let start = Instant::now();
        for connection in &mut self.connections {
            connection.send(&self.request, start)?;
        }
        self.finish()?;
        Ok(start.elapsed())
    }

    /// Waits for the answers that are still to come.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let mut left = self.connections.iter().filter(|c| c.due.is_some()).count();
        while left > 0 {
            self.poll.poll(&mut self.events, Some(LIMIT))?;
            ensure!(
                !self.events.is_empty(),
                "{left} answers are missing after {LIMIT:?}"
            );
            for event in &self.events {
                if let Some(connection) = self.connections.get_mut(event.token().0)
                    && connection.answered()?
                {
                    left -= 1;
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    fn open(address: SocketAddr, poll: &Poll, token: Token) -> Result<Self> {
        let stream = loop {
            match std::net::TcpStream::connect(address) {
                Ok(stream) => break stream,
                // The queue of the listener is full: it takes a moment to accept thousands.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => bail!(error),
                Err(error) if error.raw_os_error() == Some(99) => bail!(error),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        };
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry()
            .register(&mut stream, token, Interest::READABLE)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(4096),
            due: None,
        })
    }

    fn send(&mut self, request: &[u8], due: Instant) -> Result<()> {
        let sent = self.stream.write(request).context("sending a request")?;
        ensure!(
            sent == request.len(),
            "a request of {sent} bytes did not fit the socket"
        );
        self.due = Some(due);
        Ok(())
    }

    /// Reads what came. Whether that ends the answer; anything but 200 is an error.
    fn answered(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            let read = match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the gateway closed a connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => bail!(error),
            };
            self.received
                .extend_from_slice(buffer.get(..read).unwrap_or_default());
            if self.due.is_some() && is_whole(&self.received)? {
                self.received.clear();
                self.due = None;
                return Ok(true);
            }
        }
    }
}

/// Whether this is a whole answer, which has to be a 200.
fn is_whole(received: &[u8]) -> Result<bool> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(received)? else {
        return Ok(false);
    };
    let text = || String::from_utf8_lossy(received).into_owned();
    ensure!(answer.code == Some(200), "an answer is no 200:\n{}", text());
    let length = answer
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| {
            std::str::from_utf8(header.value)
                .ok()?
                .parse::<usize>()
                .ok()
        });
    let length = length.with_context(|| format!("an answer without a length:\n{}", text()))?;
    Ok(received.len() >= head + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body_and_must_be_a_200() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        for cut in 0..whole.len() {
            assert!(!is_whole(&whole[..cut]).unwrap(), "{cut}");
        }
        assert!(is_whole(whole).unwrap());
        assert!(is_whole(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(is_whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
