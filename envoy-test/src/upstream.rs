//! An upstream that reports every request exactly as it parsed it, and whatever came after: what the
//! gateway really sent, byte for byte. It knows nothing of secrets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

/// A request as the upstream saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query as they stood in the request line.
    pub target: String,
    /// Headers in their order; values are bytes.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
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
}

/// A running upstream. Its thread ends with the process.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Upstream {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("starting the upstream")?;
        let address = listener.local_addr()?;
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let log = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                thread::spawn(move || serve(stream, &log));
            }
        });
        Ok(Self { address, received })
    }

    /// What was received since the last time this was asked.
    #[must_use]
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Received>>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer) {
        let echo = request.target.starts_with("/echo");
        let body = if echo {
            format!("{request:?}")
        } else {
            "upstream's answer\n".to_owned()
        };
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\ncontent-type: text/plain\r\n\r\n",
            body.len()
        );
        if stream
            .write_all(format!("{head}{body}").as_bytes())
            .is_err()
        {
            return;
        }
    }
}

fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 256];
        let mut request = httparse::Request::new(&mut headers);
        if let Ok(httparse::Status::Complete(head)) = request.parse(buffer) {
            let mut received = Received {
                method: request.method?.to_owned(),
                target: request.path?.to_owned(),
                headers: request
                    .headers
                    .iter()
                    .map(|h| (h.name.to_owned(), h.value.to_vec()))
                    .collect(),
                body: Vec::new(),
            };
            let length = received
                .header("content-length")
                .first()
                .and_then(|l| l.parse().ok())
                .unwrap_or(0);
            while buffer.len() < head + length {
                fill(stream, buffer)?;
            }
            received.body = buffer.get(head..head + length)?.to_vec();
            buffer.drain(..head + length);
            return Some(received);
        }
        fill(stream, buffer)?;
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 16 * 1024];
    let read = stream.read(&mut chunk).ok().filter(|&n| n > 0)?;
    buffer.extend_from_slice(chunk.get(..read)?);
    Some(())
}
