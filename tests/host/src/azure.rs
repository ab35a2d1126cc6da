//! The emulated Azure behind the calls out: the same one that end-to-end tests reach over TLS, here
//! without sockets and by the test's clock.

use std::time::Duration;

use bytes::Bytes;
use envoy_test::emulator::{Azure, Cut};
use http::Request;

use crate::calls::{Call, Ending};
use crate::gateway::Gateway;
use crate::headers::Headers;
use crate::stream::Response;

/// What Azure answers to a call, and after how long.
#[must_use]
pub fn ending(azure: &Azure, call: &Call, now: u64) -> (Ending, Duration) {
    azure.set_time(now / 1000);
    let mut request = Request::builder()
        .method(call.headers.text(":method").as_str())
        .uri(call.headers.text(":path"))
        .header("host", call.headers.text(":authority"));
    for (name, value) in call
        .headers
        .iter()
        .filter(|(name, _)| !name.starts_with(':'))
    {
        request = request.header(name, value);
    }
    let Ok(request) = request.body(Bytes::from(call.body.clone())) else {
        return (Ending::Refused, Duration::ZERO);
    };
    let reply = azure.answer(&request);
    let mut headers = Headers::default();
    for (name, value) in reply.response.headers() {
        headers.push(name.as_str(), value.as_bytes());
    }
    let response = Response {
        status: reply.response.status().as_u16(),
        headers,
        body: reply.response.body().to_vec(),
        ..Response::default()
    };
    let ending = match reply.cut {
        None => Ending::Answer(response),
        Some(Cut::BeforeAnswer) => Ending::Closed,
        Some(Cut::InBody) => Ending::Cut(response),
    };
    (ending, reply.delay)
}

/// Answers the oldest call; one whose answer would come after the host's patience ends with its timeout.
/// Whether there was a call.
pub fn answer_oldest(gateway: &mut Gateway, azure: &Azure) -> bool {
    answer(gateway, azure, 0)
}

/// Answers the call at this place among those that wait. Whether there was one.
pub fn answer(gateway: &mut Gateway, azure: &Azure, place: usize) -> bool {
    let Some(call) = gateway.calls().into_iter().nth(place) else {
        return false;
    };
    let now = gateway.now();
    let (ending, delay) = ending(azure, &call, now);
    let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    if delay > 0 {
        let late = call
            .deadline
            .is_some_and(|deadline| now.saturating_add(delay) >= deadline);
        let wait = if late {
            call.deadline.unwrap_or(now) - now
        } else {
            delay
        };
        gateway.advance(wait);
    }
    gateway.end_call(call.token, ending);
    true
}

/// Answers every call, and those that follow from the answers. How many there were.
pub fn answer_all(gateway: &mut Gateway, azure: &Azure) -> usize {
    let mut answered = 0;
    while answer_oldest(gateway, azure) {
        answered += 1;
        assert!(answered < 100_000, "calls without end");
    }
    answered
}
