//! An upstream that answers every request with what it got, as JSON: for seeing what a gateway sends.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Parser;
use http::{HeaderMap, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// Answers every request with its method, target and headers.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let address = Arguments::parse().listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let serve = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo));
        // A client that goes away is no error of the upstream's.
        tokio::spawn(async move { drop(serve.await) });
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let body = json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "headers": headers(request.headers()),
    });
    let answer = Response::builder().header(header::CONTENT_TYPE, "application/json");
    Ok(answer.body(Full::from(format!("{body:#}\n")))?)
}

/// Every header with the list of its values.
fn headers(headers: &HeaderMap) -> Value {
    let values = |name| headers.get_all(name).iter();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = headers
        .keys()
        .map(|name| (name.to_string(), values(name).map(text).collect()));
    Value::Object(fields.collect::<Map<_, _>>())
}
