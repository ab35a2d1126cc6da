//! A blocking HTTP/1.1 client for tests, which sends any bytes that it is given, right or wrong. It knows
//! nothing of the gateway.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Longer than any request in a test may take.
const LIMIT: Duration = Duration::from_secs(30);
/// More headers than any gateway here answers with.
const MAX_HEADERS: usize = 128;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers in their order.
    pub headers: Vec<(String, String)>,
    /// The body, unchunked.
    pub body: Vec<u8>,
    /// From the first byte sent to the last byte received.
    pub took: Duration,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's first value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The bytes of a request with these headers, exactly as given. A body gets its `content-length`; a host
/// and what is to become of the connection are the caller's to say.
#[must_use]
pub fn request(method: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    let length = body.len().to_string();
    let length = (!body.is_empty()).then_some(("content-length", length.as_bytes()));
    for (name, value) in headers.iter().copied().chain(length) {
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

/// The bytes of a request with these headers, and this body in chunks of up to 7,000 bytes.
#[must_use]
pub fn chunked_request(
    method: &str,
    target: &str,
    headers: &[(&str, &[u8])],
    body: &[u8],
) -> Vec<u8> {
    let headers = [headers, &[("transfer-encoding", b"chunked")]].concat();
    let mut request = request(method, target, &headers, b"");
    for piece in body.chunks(7000) {
        request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

/// Sends `GET target` with these headers on a connection of its own and reads the whole answer.
///
/// # Errors
/// When there is no answer, or none that is HTTP.
pub fn get(address: SocketAddr, target: &str, headers: &[(&str, &[u8])]) -> Result<Answer> {
    let own: [(&str, &[u8]); 2] = [("host", b"gateway.test"), ("connection", b"close")];
    let headers = [&own, headers].concat();
    send(address, &request("GET", target, &headers, b""))
}

/// Sends these bytes on a connection of its own and reads one answer.
///
/// # Errors
/// As [`get`].
pub fn send(address: SocketAddr, request: &[u8]) -> Result<Answer> {
    Connection::open(address)?.send(request)
}

/// A connection for several requests.
pub struct Connection {
    stream: TcpStream,
    /// What was received and not yet read as an answer.
    buffer: Vec<u8>,
    /// The other side will send no more.
    ended: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nothing listens there.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            ended: false,
        })
    }

    /// Sends these bytes and reads one answer; the connection may be used again if both sides keep it.
    ///
    /// # Errors
    /// When there is no answer, or none that is HTTP, or it breaks off.
    pub fn send(&mut self, request: &[u8]) -> Result<Answer> {
        let start = Instant::now();
        let sent = self
            .stream
            .write_all(request)
            .context("sending the request");
        // A gateway may answer (413, 431) and close before it has read everything.
        let answer = self.read_answer(request.starts_with(b"HEAD "));
        let answer = if answer.is_err() {
            sent.and(answer)
        } else {
            answer
        };
        Ok(Answer {
            took: start.elapsed(),
            ..answer?
        })
    }

    fn read_answer(&mut self, head_only: bool) -> Result<Answer> {
        let mut answer = self.read_head()?;
        while answer.status < 200 {
            answer = self.read_head()?;
        }
        let chunked = answer
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length = answer.header("content-length").map(str::parse);
        answer.body = if head_only || matches!(answer.status, 204 | 304) {
            Vec::new()
        } else if chunked {
            self.read_chunks()?
        } else if let Some(length) = length {
            self.take(length.context("reading content-length")?)?
        } else {
            while self.fill()? {}
            std::mem::take(&mut self.buffer)
        };
        Ok(answer)
    }

    fn read_head(&mut self) -> Result<Answer> {
        loop {
            if let Some((answer, length)) = parse_head(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(answer);
            }
            self.need_more("the answer")?;
        }
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.read_chunk_size()?;
            body.extend(self.take(size)?);
            let end = self.take(2)?;
            if end != b"\r\n" {
                bail!("a chunk of {size} bytes ends with {end:?} (trailers are not read here)");
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn read_chunk_size(&mut self) -> Result<usize> {
        loop {
            let parsed = httparse::parse_chunk_size(&self.buffer);
            let Ok(parsed) = parsed else {
                bail!("a chunk has no size");
            };
            if let httparse::Status::Complete((length, size)) = parsed {
                self.buffer.drain(..length);
                return Ok(usize::try_from(size)?);
            }
            self.need_more("a chunk")?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.need_more("the body")?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn need_more(&mut self, what: &str) -> Result<()> {
        if self.fill()? {
            return Ok(());
        }
        bail!(
            "{what} breaks off: {:?}",
            String::from_utf8_lossy(&self.buffer)
        );
    }

    /// Whether there was more.
    fn fill(&mut self) -> Result<bool> {
        let mut chunk = [0; 16 * 1024];
        if !self.ended {
            let read = self.stream.read(&mut chunk);
            let read = read.context("waiting for the answer")?;
            self.ended = read == 0;
            self.buffer
                .extend_from_slice(chunk.get(..read).unwrap_or_default());
        }
        Ok(!self.ended)
    }
}

/// An answer without its body, and how many bytes it took.
fn parse_head(bytes: &[u8]) -> Result<Option<(Answer, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).with_context(|| {
        format!(
            "this is no HTTP answer: {:?}",
            String::from_utf8_lossy(bytes)
        )
    })?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = response.headers.iter();
    let answer = Answer {
        status: response.code.unwrap_or(0),
        headers: headers
            .map(|h| (h.name.to_owned(), text(h.value)))
            .collect(),
        body: Vec::new(),
        took: Duration::ZERO,
    };
    Ok(Some((answer, length)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Sends these bytes to the first client, in small pieces, and returns what that client sent first.
    fn serve(pieces: &'static [&'static [u8]]) -> (SocketAddr, thread::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 64 * 1024];
            let read = stream.read(&mut request).unwrap();
            for piece in pieces {
                stream.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(2));
            }
            // Closing before all is read would reset the connection under the answer.
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
            request.truncate(read);
            request
        });
        (address, served)
    }

    #[test]
    fn headers_go_out_as_the_bytes_they_are() {
        let (address, served) = serve(&[b"HTTP/1.1 204 No Content\r\n\r\n"]);
        let headers: [(&str, &[u8]); 3] = [("x-a", b"caf\xe9"), ("x-a", b""), ("X-A", b"{}}{")];
        assert_eq!(get(address, "/p?q", &headers).unwrap().status, 204);
        assert_eq!(
            served.join().unwrap(),
            b"GET /p?q HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\nx-a: caf\xe9\r\nx-a: \r\nX-A: {}}{\r\n\r\n"
        );
    }

    #[test]
    fn answers_of_every_length_are_read_from_one_connection() {
        let (address, served) = serve(&[
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-le",
            b"ngth: 3\r\n\r\nab",
            b"cHTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n4\r",
            b"\nwxyz\r\n1;x=y\r\n!\r\n0\r\n\r",
            b"\nHTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
            b"HTTP/1.1 503 Busy\r\n\r\nto the ",
            b"end",
        ]);
        let mut connection = Connection::open(address).unwrap();
        let mut ask = |method: &str| connection.send(&request(method, "/", &[], b"")).unwrap();
        assert_eq!(ask("GET").text(), "abc");
        assert_eq!(ask("POST").text(), "wxyz!");
        assert_eq!(ask("HEAD").text(), "");
        let last = ask("GET");
        assert_eq!((last.status, last.text().as_str()), (503, "to the end"));
        drop(connection);
        served.join().unwrap();
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        let (address, _served) = serve(&[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"]);
        let error = get(address, "/", &[]).unwrap_err().to_string();
        assert_eq!(error, "the body breaks off: \"abc\"");
    }
}
