//! Requests and answers at random, and what is remembered of them for the rules.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm_host::{Dialect, Gateway, Request, Response, Sent, StreamId};
use serde_json::{Value, json};

/// Names under which a query's parameter and a JSON body's string are remembered.
pub(crate) const QUERY: &str = "query";
pub(crate) const BODY: &str = "body";
/// Where references come in the traffic; the last one is the second filter's, if there is one.
const PLACES: [&str; 5] = ["x-key", "x-other", QUERY, BODY, SECOND];
pub(crate) const SECOND: &str = "y-second";
/// Bytes of a tunnel, in which nothing is resolved.
pub(crate) const FRAME: &[u8] = b"{vault://azure/open-1} frame";

/// What kind of message a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Head,
    /// The upstream answers before it has the body.
    Early,
    /// Bytes flow after a 101.
    Upgrade,
    /// Envoy follows a redirect.
    Redirect,
}

/// A request that was sent.
pub(crate) struct Asked {
    pub(crate) id: StreamId,
    pub(crate) kind: Kind,
    /// Places with the texts that came in them.
    pub(crate) texts: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: bool,
    /// Pieces that the client has not sent yet.
    pub(crate) later: Vec<Vec<u8>>,
    pub(crate) open: bool,
    pub(crate) slow: bool,
    /// The answer is open too.
    pub(crate) streams: bool,
    pub(crate) frames: usize,
}

/// A response's trailers come as a surprise.
pub(crate) fn has_unannounced_trailers(response: &Response) -> bool {
    !response.trailers.is_empty() && response.headers.get("trailer").is_none()
}

/// What the upstream got and said, by the requests' numbers.
#[derive(Default)]
pub(crate) struct Upstream {
    pub(crate) seen: Vec<Sent>,
    pub(crate) said: BTreeMap<usize, Response>,
}

pub(crate) fn one<T: Copy>(random: &mut fastrand::Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

/// Of a secret's name with its vault's prefix.
pub(crate) fn vault_and_name(secret: &str) -> (&str, &str) {
    secret.split_once('/').expect("prefix/name")
}

pub(crate) fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

pub(crate) fn number(sent: &Sent) -> usize {
    sent.headers.text("x-number").parse().expect("a number")
}

/// A text for a place: mostly a reference to this secret, in one of the ways that clients have.
fn text(random: &mut fastrand::Rng, secret: &str) -> String {
    match random.u8(..10) {
        0 => "no reference".to_owned(),
        1 => format!("{{vault://other/{}}}", vault_and_name(secret).1),
        2 => format!("{{vault://{secret}"),
        3 => format!("a {{vault://{secret}}} z"),
        4 => format!("\\{{vault://{secret}}}"),
        _ => format!("{{vault://{secret}}}"),
    }
}

/// A request at random, with this number.
pub(crate) fn request(
    random: &mut fastrand::Rng,
    dialect: Dialect,
    number: usize,
    secret: impl Fn(&mut fastrand::Rng) -> String,
) -> (Request, Asked) {
    let mut texts = Vec::new();
    for place in PLACES {
        if random.u8(..if place == BODY { 4 } else { 3 }) == 0 {
            let secret = secret(random);
            texts.push((place, text(random, &secret)));
        }
    }
    let find = |wanted: &str| texts.iter().find(|(place, _)| *place == wanted);
    let target = match find(QUERY) {
        Some((_, text)) => format!("/?a=1&key={}&b=2", percent(text)),
        None => "/?a=1".to_owned(),
    };
    let envoy = dialect == Dialect::Envoy;
    let mut kind = match random.u8(..20) {
        0 => Kind::Head,
        1 | 2 if envoy => Kind::Early,
        3 => Kind::Upgrade,
        4 if envoy => Kind::Redirect,
        _ => Kind::Plain,
    };
    let mut request = match find(BODY) {
        Some((_, text)) => {
            let padding = "p".repeat(one(random, &[0, 0, 40, 700, 3000]));
            let body = json!({ "k": [text], "n": number, "p": padding }).to_string();
            if matches!(kind, Kind::Head | Kind::Upgrade) {
                kind = Kind::Plain;
            }
            Request::post(&target, "application/json", body.as_bytes())
        }
        None => Request::get(&target, &[]),
    };
    for (name, value) in &texts {
        if ![QUERY, BODY].contains(name) {
            request.headers.push(name, value.as_bytes());
        }
    }
    request
        .headers
        .push("x-number", number.to_string().as_bytes());
    let body = request.body.concat();
    if !body.is_empty() {
        request = request.in_pieces(random.usize(1..=body.len() + 10));
        if random.bool() {
            request = request.without_length();
        }
        if random.u8(..4) == 0 {
            request = request.with_trailers(&[("x-trailer", "{vault://azure/open-1}")]);
        }
    }
    match kind {
        Kind::Head => request.headers.set(":method", b"HEAD"),
        Kind::Early => request.headers.push("x-early", b"1"),
        Kind::Redirect => request.headers.push("x-redirect", b"1"),
        Kind::Upgrade => {
            request.headers.push("upgrade", b"websocket");
            request.headers.push("connection", b"Upgrade");
            request.more = true;
        }
        Kind::Plain => {}
    }
    // The client takes its time with the rest; trailers come at once or not at all.
    let mut later = Vec::new();
    let trailers = !request.trailers.is_empty();
    if !body.is_empty() && !trailers && random.u8(..3) == 0 {
        let keep = random.usize(..=request.body.len());
        later = request.body.split_off(keep);
        request.more = true;
    }
    let asked = Asked {
        id: StreamId {
            worker: 0,
            context: 0,
        },
        kind,
        texts,
        body,
        trailers,
        later,
        open: request.more,
        slow: request.more,
        streams: false,
        frames: 0,
    };
    (request, asked)
}

/// The upstream says everything back that it got, with a filler that shows its order; in pieces, with or
/// without a length, with trailers. No piece is longer than `most`.
pub(crate) fn echo(gateway: &mut Gateway, seed: u64, most: usize) -> Rc<RefCell<Upstream>> {
    let upstream = Rc::new(RefCell::new(Upstream::default()));
    let (whole, early) = (Rc::clone(&upstream), Rc::clone(&upstream));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut other = fastrand::Rng::with_seed(seed + 1);
    gateway.answer_upstream(move |sent| {
        let again = sent.headers.text(":path").starts_with("/again");
        if sent.headers.get("x-redirect").is_some() && !again {
            let target = sent.headers.text(":path");
            let mut response = Response::new(302, &[], b"");
            response.redirect = Some(target.replacen('/', "/again", 1));
            return response;
        }
        let response = answer(&mut random, sent, most);
        let mut upstream = whole.borrow_mut();
        upstream.said.insert(number(sent), response.clone());
        upstream.seen.push(sent.clone());
        response
    });
    if gateway.dialect() == Dialect::Envoy {
        gateway.answer_early(move |sent| {
            sent.headers.get("x-early")?;
            let response = answer(&mut other, sent, most);
            let mut upstream = early.borrow_mut();
            upstream.said.insert(number(sent), response.clone());
            upstream.seen.push(sent.clone());
            Some(response)
        });
    }
    upstream
}

fn answer(random: &mut fastrand::Rng, sent: &Sent, longest: usize) -> Response {
    if sent.headers.get("upgrade").is_some() {
        let mut response = Response::new(101, &[("upgrade", "websocket")], b"");
        response.more = true;
        return response;
    }
    let headers = sent.headers.iter();
    let mut echo: Vec<u8> = headers
        .flat_map(|(n, v)| [n.as_bytes(), b": ", v, b"\n"].concat())
        .collect();
    echo.extend(&sent.body);
    let lines = one(random, &[0, 1, 10, 100, 4000]);
    for line in 0..lines {
        echo.extend(format!("line {line}\n").bytes());
    }
    let head = sent.headers.text(":method") == "HEAD";
    let mut response = Response::new(200, &[("content-type", "text/plain")], &echo);
    match random.u8(..6) {
        0..=2 => {
            let length = echo.len().to_string();
            response.headers.push("content-length", length.as_bytes());
        }
        3 => {
            response = response.with_trailers(&[("x-end", "1")]);
            // Most upstreams announce them; of those that do not, masking may have to reset the response.
            if random.u8(..8) > 0 {
                response.headers.push("trailer", b"x-end");
            }
        }
        4 => response.status = one(random, &[200, 204, 304, 500]),
        _ => {}
    }
    if head || response.status == 204 || response.status == 304 {
        response.body.clear();
        response.trailers = proxy_wasm_host::Headers::default();
    }
    let most = one(random, &[5, 100, 100, 5000]) + echo.len() / 50;
    response.in_pieces(random.usize(1..most).min(longest))
}

/// What the upstream got in this place; nothing for a place that was dropped.
pub(crate) fn got(sent: &Sent, place: &str) -> Option<String> {
    match place {
        QUERY => {
            let target = sent.headers.text(":path");
            let query = target.split_once('?').map_or("", |(_, query)| query);
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let value = pairs.find(|(name, _)| *name == "key")?.1;
            assert!(
                query.starts_with("a=1&key=") && query.ends_with("&b=2"),
                "{target}"
            );
            Some(unpercent(value))
        }
        BODY => {
            let body: Value = serde_json::from_slice(&sent.body).expect("the body is JSON still");
            body["k"][0].as_str().map(str::to_owned)
        }
        _ => sent
            .headers
            .get(place)
            .map(|v| String::from_utf8_lossy(v).into_owned()),
    }
}

fn unpercent(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next(), bytes.next()].map(|d| char::from(d.expect("a digit")));
            let digits: String = digits.iter().collect();
            out.push(u8::from_str_radix(&digits, 16).expect("hexadecimal"));
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).expect("a text")
}
