//! An HTTP/1.1 client for tests, which sends any bytes that it is given, right or wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Longer than any request in a test may take.
const LIMIT: Duration = Duration::from_secs(30);

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

/// Sends `GET target` with these headers on a connection of its own and reads the whole answer.
///
/// # Errors
/// When there is no answer, or none that is HTTP.
pub fn get(address: SocketAddr, target: &str, headers: &[(&str, &[u8])]) -> Result<Answer> {
    let mut request =
        format!("GET {target} HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\n")
            .into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    send(address, &request)
}

/// Sends these bytes and reads one answer up to the end of the connection.
///
/// # Errors
/// As [`get`].
pub fn send(address: SocketAddr, request: &[u8]) -> Result<Answer> {
    let start = Instant::now();
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request).context("sending the request")?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .context("waiting for the answer")?;
    parse(&bytes, start.elapsed())
}

fn parse(bytes: &[u8], took: Duration) -> Result<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).context("reading the answer")?
    else {
        bail!(
            "the answer breaks off: {:?}",
            String::from_utf8_lossy(bytes)
        );
    };
    let answer = Answer {
        status: response.code.unwrap_or(0),
        headers: response
            .headers
            .iter()
            .map(|h| {
                (
                    h.name.to_owned(),
                    String::from_utf8_lossy(h.value).into_owned(),
                )
            })
            .collect(),
        body: bytes.get(head..).unwrap_or_default().to_vec(),
        took,
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        let body = unchunk(&answer.body)?;
        return Ok(Answer { body, ..answer });
    }
    Ok(answer)
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((head, size))) = httparse::parse_chunk_size(rest) else {
            bail!("a chunk breaks off");
        };
        let end = head + usize::try_from(size)?;
        body.extend_from_slice(rest.get(head..end).context("a chunk breaks off")?);
        if size == 0 {
            return Ok(body);
        }
        rest = rest.get(end + 2..).context("a chunk breaks off")?;
    }
}
