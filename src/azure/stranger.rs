//! An answer that does not come from Azure: a proxy, a firewall, a portal or a wrong address answered
//! instead. Advice about roles and identities would mislead there. It does not decide who answered: each
//! service's reader knows the error shape and the request ids of its own service.

use super::http::Response;
use super::json;
use crate::failure::{Failure, Reason};
use crate::time::Timestamp;

/// The failure for an answer that has nothing of `service`'s own shape.
pub(super) fn failure(service: &str, response: &Response, now: Timestamp) -> Failure {
    let status = response.status;
    let (reason, advice) = match status {
        407 => (
            Reason::Gateway,
            format!(
                "a proxy between the gateway and {service} wants credentials of its own; configure them for the proxy, or let {service} be reached without it"
            ),
        ),
        429 => (
            Reason::Throttled,
            format!("a proxy between the gateway and {service} limits the calls"),
        ),
        504 => (Reason::Timeout, format!("{service} did not answer in time")),
        500.. => (
            Reason::Unavailable,
            format!("{service} could not be reached or is at fault"),
        ),
        300..=399 => (
            Reason::BadAnswer,
            format!(
                "a redirect, which {service} never sends: a proxy or portal is on the way, or the address is of something else"
            ),
        ),
        401 | 403 => (
            Reason::BadAnswer,
            format!(
                "a proxy or firewall between the gateway and {service} refused the call; let the gateway reach {service} directly, or allow it there"
            ),
        ),
        _ => (
            Reason::BadAnswer,
            format!(
                "what answered is not {service}; check the cluster's address and what is on the way"
            ),
        ),
    };
    let shape = match (json::is_html(&response.body), response.body.is_empty()) {
        (true, _) => "HTML",
        (_, true) => "no body",
        _ => "another body",
    };
    let detail = format!("{advice} (status {status}, not in {service}'s form: {shape})");
    Failure {
        retry_after: response.retry_after(now),
        ..Failure::new(reason, detail)
    }
}
