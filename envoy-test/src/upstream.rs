//! An upstream that reports every request exactly as it parsed it, and whatever came that is none: what
//! the gateway really sent, byte for byte. It knows nothing of secrets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

/// More headers than any test sends.
const MAX_HEADERS: usize = 256;

/// A request as the upstream saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query as they stood in the request line.
    pub target: String,
    /// Headers in their order; values are bytes.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, unchunked.
    pub body: Vec<u8>,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
}

impl Received {
    /// All values of a header, as text for reading; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<String> {
        let found = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    /// Its head for reading, a line for each header.
    #[must_use]
    pub fn head(&self) -> String {
        let lines = self.headers.iter();
        let lines =
            lines.map(|(name, value)| format!("\n{name}: {}", String::from_utf8_lossy(value)));
        format!(
            "{} {}{}",
            self.method,
            self.target,
            lines.collect::<String>()
        )
    }

    fn chunked(&self) -> bool {
        let coding = self.header("transfer-encoding").pop();
        coding.is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }
}

#[derive(Default)]
struct Log {
    received: Vec<Received>,
    stray: Vec<Vec<u8>>,
}

/// A running upstream. Its thread ends with the process.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

impl Upstream {
    /// Starts on a free port of 127.0.0.1. It answers 200 with a few words, and below `/echo` with the
    /// request as it parsed it.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("starting the upstream")?;
        let address = listener.local_addr()?;
        let log = Arc::<Mutex<Log>>::default();
        let shared = Arc::clone(&log);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let log = Arc::clone(&shared);
                thread::spawn(move || Connection::new(stream, number).serve(&log));
            }
        });
        Ok(Self { address, log })
    }

    /// What was received since it was last taken, in the order in which it arrived.
    #[must_use]
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut lock(&self.log).received)
    }

    /// The same, and leaves it.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.log).received.clone()
    }

    /// Bytes that came where a request should have begun and are none: what is left over when a gateway
    /// announces a body shorter than the one it sends.
    #[must_use]
    pub fn stray(&self) -> Vec<Vec<u8>> {
        lock(&self.log).stray.clone()
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why no further request comes from a connection.
enum End {
    /// The gateway closed it.
    Closed,
    /// What came is not HTTP.
    Broken,
}

struct Connection {
    stream: TcpStream,
    number: usize,
    buffer: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream, number: usize) -> Self {
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            number,
            buffer: Vec::new(),
        }
    }

    fn serve(mut self, log: &Mutex<Log>) {
        let end = loop {
            match self.read_request() {
                Ok(request) => {
                    let answer = answer(&request);
                    // Known before it is answered: a client that has its answer may look.
                    lock(log).received.push(request);
                    if self.stream.write_all(&answer).is_err() {
                        break End::Closed;
                    }
                }
                Err(end) => break end,
            }
        };
        if !self.buffer.is_empty() {
            lock(log).stray.push(std::mem::take(&mut self.buffer));
        }
        if matches!(end, End::Broken) {
            let refusal =
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = self.stream.write_all(refusal);
        }
    }

    /// Takes a whole request out of the buffer; what is no request stays there.
    fn read_request(&mut self) -> Result<Received, End> {
        let (mut received, head) = loop {
            match parse_head(&self.buffer)? {
                Some(found) => break found,
                None => self.fill()?,
            }
        };
        received.connection = self.number;
        let taken = if received.chunked() {
            let (body, end) = self.read_chunks(head)?;
            received.body = body;
            end
        } else {
            let end = head
                .checked_add(content_length(&received)?)
                .ok_or(End::Broken)?;
            received.body = self.range(head, end)?;
            end
        };
        self.buffer.drain(..taken);
        Ok(received)
    }

    /// The chunks that begin at `at`, and where they end. Envoy sends trailers only when
    /// it is configured to.
    fn read_chunks(&mut self, mut at: usize) -> Result<(Vec<u8>, usize), End> {
        let mut body = Vec::new();
        loop {
            let (length, size) = self.chunk_size(at)?;
            let data = at + length;
            let end = data.checked_add(size).ok_or(End::Broken)?;
            body.extend(self.range(data, end)?);
            if self.range(end, end + 2)? != b"\r\n" {
                return Err(End::Broken);
            }
            at = end + 2;
            if size == 0 {
                return Ok((body, at));
            }
        }
    }

    fn chunk_size(&mut self, at: usize) -> Result<(usize, usize), End> {
        loop {
            let rest = self.buffer.get(at..).unwrap_or_default();
            match httparse::parse_chunk_size(rest).map_err(|_| End::Broken)? {
                httparse::Status::Complete((length, size)) => {
                    return Ok((length, usize::try_from(size).map_err(|_| End::Broken)?));
                }
                httparse::Status::Partial => self.fill()?,
            }
        }
    }

    fn range(&mut self, from: usize, to: usize) -> Result<Vec<u8>, End> {
        loop {
            if let Some(bytes) = self.buffer.get(from..to) {
                return Ok(bytes.to_vec());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut chunk = [0; 16 * 1024];
        let read = self.stream.read(&mut chunk).unwrap_or(0);
        if read == 0 {
            return Err(End::Closed);
        }
        self.buffer
            .extend_from_slice(chunk.get(..read).unwrap_or_default());
        Ok(())
    }
}

/// A request without its body, and where its head ends.
fn parse_head(bytes: &[u8]) -> Result<Option<(Received, usize)>, End> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes).map_err(|_| End::Broken)?;
    let (httparse::Status::Complete(head), Some(method), Some(path)) =
        (parsed, request.method, request.path)
    else {
        return Ok(None);
    };
    let headers = request.headers.iter();
    let received = Received {
        method: method.to_owned(),
        target: path.to_owned(),
        headers: headers
            .map(|h| (h.name.to_owned(), h.value.to_vec()))
            .collect(),
        ..Received::default()
    };
    Ok(Some((received, head)))
}

fn content_length(received: &Received) -> Result<usize, End> {
    let length = received.header("content-length");
    let length = length.first().map(|length| length.parse());
    length.unwrap_or(Ok(0)).map_err(|_| End::Broken)
}

fn answer(request: &Received) -> Vec<u8> {
    let echo = request.target.starts_with("/echo");
    let body = if echo {
        let headers = request.headers.iter();
        let headers =
            headers.map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)));
        let headers: String = headers.collect();
        format!(
            "{} {}\n{headers}\n{}",
            request.method,
            request.target,
            String::from_utf8_lossy(&request.body)
        )
    } else {
        "upstream's answer\n".to_owned()
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\ncontent-type: text/plain\r\n\r\n",
        body.len()
    );
    let body = if request.method == "HEAD" { "" } else { &body };
    format!("{head}{body}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{self, Connection as Client};

    #[test]
    fn requests_are_reported_byte_for_byte_and_in_order() {
        let upstream = Upstream::start().unwrap();
        let long = vec![b'{'; 60_000];
        let headers: [(&str, &[u8]); 4] = [
            ("x-a", b"caf\xe9"),
            ("X-a", b""),
            ("x-a", b"3"),
            ("x-long", &long),
        ];
        let mut client = Client::open(upstream.address).unwrap();
        let first = client::request("POST", "/p?q=%7B", &headers, b"body");
        assert_eq!(client.send(&first).unwrap().text(), "upstream's answer\n");
        let second = client::request("HEAD", "/two", &[], b"");
        assert_eq!(client.send(&second).unwrap().status, 200);
        client::send(upstream.address, &client::request("GET", "/echo", &[], b"")).unwrap();
        let expected = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
            .chain([("content-length".to_owned(), b"4".to_vec())]);
        assert_eq!(upstream.requests().len(), 3);
        let received = upstream.take();
        assert_eq!(received[0].headers, expected.collect::<Vec<_>>());
        assert_eq!(
            (received[0].target.as_str(), received[0].body.as_slice()),
            ("/p?q=%7B", &b"body"[..])
        );
        let connections: Vec<usize> = received.iter().map(|r| r.connection).collect();
        assert_eq!(connections, [0, 0, 1]);
        assert!(upstream.take().is_empty() && upstream.stray().is_empty());
    }

    #[test]
    fn a_chunked_body_is_put_together() {
        let upstream = Upstream::start().unwrap();
        let mut client = Client::open(upstream.address).unwrap();
        let request =
            b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        for _ in 0..2 {
            assert_eq!(client.send(request).unwrap().status, 200);
        }
        let bodies: Vec<Vec<u8>> = upstream.take().into_iter().map(|r| r.body).collect();
        assert_eq!(bodies, [b"abcde", b"abcde"]);
    }

    #[test]
    fn what_follows_a_body_that_was_announced_too_short_is_stray() {
        let upstream = Upstream::start().unwrap();
        let mut client = Client::open(upstream.address).unwrap();
        let smuggled = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nab{\"surplus\": 1}\r\n\r\n";
        assert_eq!(client.send(smuggled).unwrap().status, 200);
        assert_eq!(client.send(b"").unwrap().status, 400);
        assert_eq!(upstream.stray(), [b"{\"surplus\": 1}\r\n\r\n"]);
        assert_eq!(upstream.take().len(), 1);
    }
}
