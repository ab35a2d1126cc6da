//! `limits` in the configuration: one table of its fields, from which the reader, the schema and the
//! reference page are made. It knows their names and ranges, not what happens at a limit.

use super::fields::{Field, Shape, field};
use super::reader::Fields;
use crate::limits::Limits;
use crate::time::Span;

/// A bound of [`Limits`] that the configuration can set.
pub struct Limit {
    /// Its field; times have the suffix `_ms`.
    pub field: Field,
    /// The value as the configuration writes it.
    pub get: fn(&Limits) -> u64,
    set: fn(&mut Limits, u32),
}

/// A type of a field of [`Limits`].
trait Bound {
    fn from_number(number: u32) -> Self;
    fn number(self) -> u64;
}

impl Bound for u32 {
    fn from_number(number: u32) -> Self {
        number
    }
    fn number(self) -> u64 {
        self.into()
    }
}

impl Bound for u64 {
    fn from_number(number: u32) -> Self {
        number.into()
    }
    fn number(self) -> u64 {
        self
    }
}

impl Bound for usize {
    fn from_number(number: u32) -> Self {
        Self::try_from(number).unwrap_or(Self::MAX)
    }
    fn number(self) -> u64 {
        u64::try_from(self).unwrap_or(u64::MAX)
    }
}

impl Bound for Span {
    fn from_number(number: u32) -> Self {
        Self(number.into())
    }
    fn number(self) -> u64 {
        self.0
    }
}

macro_rules! limit {
    ($name:literal, $field:ident, $min:expr, $max:expr, $about:literal) => {
        Limit {
            field: field($name, Shape::Number($min, $max), $about),
            get: |limits| Bound::number(limits.$field),
            set: |limits, number| limits.$field = Bound::from_number(number),
        }
    };
}

/// The three that stand at the top of the configuration, for which they were made before `limits` was.
#[rustfmt::skip]
pub const TOP_LEVEL: &[Limit] = &[
    limit!("max_body_bytes", body_bytes, 1, 64 << 20, "Longest body of a listed type, before and after its references are resolved. Beyond: 413."),
    limit!("max_fetches_per_second", fetches_per_second, 1, 100_000, "Fetches in a second that clients' references may cause in one worker. Beyond: 503 at once."),
    limit!("max_fetches_in_flight", fetches_in_flight, 1, 100_000, "Such fetches at the same time. Beyond: 503 at once."),
];

/// The fields of `limits`.
#[rustfmt::skip]
pub const LIMITS: &[Limit] = &[
    limit!("header_bytes", header_bytes, 1, 1 << 20, "Longest header value, or query, that resolving may make, in bytes. Beyond: `not_representable`."),
    limit!("references", references, 1, 10_000, "References to resolve in one message. Beyond: 431 (headers), 414 (query) or 413 (body)."),
    limit!("candidates", candidates, 1, 100_000, "Texts in one message that begin like a reference, those too that stay text. Beyond: refused like too many references."),
    limit!("reference_keys", reference_keys, 1, 1_000, "Keys of one reference of a client, the way into a nested JSON secret. One with more stays text."),
    limit!("held_bytes", held_bytes, 1, 512 << 20, "Bytes that one worker holds for messages that wait and for responses that are collected. Beyond: 503 with Retry-After for requests that would have to wait."),
    limit!("masked_bytes_held", masked_bytes_held, 1, 64 << 20, "Bytes of one response that masking holds back at most. What exceeds that goes on masked."),
    limit!("masked_value_bytes", masked_value_bytes, 1, 1 << 20, "Bytes of one message's values that masking looks for exactly. Of the longest values beyond: after their beginning, what may be the rest is masked, which may be more."),
    limit!("reserved_percent", reserved_percent, 0, 100, "Share of `max_fetches_…` that names which were never found cannot use."),
    limit!("cached_secrets", cached_secrets, 1, 1_000_000, "Secrets in one worker's cache that only clients asked for. Beyond: the least recently used one is evicted."),
    limit!("cached_misses", cached_misses, 1, 1_000_000, "Missing names in one worker's cache (negative caching), apart from the secrets."),
    limit!("shared_entries", shared_entries, 1, 1_000_000, "Entries in shared data for names that the operator did not list."),
    limit!("views", views, 1, 10_000, "Forms (keys of a JSON secret, base64) of one secret that are kept beside it."),
    limit!("memo_entries", memo_entries, 1, 100_000, "Clients' header values that are kept parsed."),
    limit!("memo_bytes", memo_bytes, 1, 65_536, "Longest such header value, in bytes."),
    limit!("woken_at_once", woken_at_once, 1, 1_000, "Requests that are resumed or answered in one callback; more of them end the stack of Envoy's VM."),
    limit!("ended_requests", ended_requests, 1, 10_000, "Requests that ended without a response whose values are kept for masking, in case that Envoy begins them again (internal redirect). Beyond: such a redirect is refused."),
    limit!("rounds", rounds, 1, 1_000, "How often a request that waits is evaluated again before it is given up."),
    limit!("token_burst", token_burst, 1, 1_000, "Token calls that one identity may make at once, before `token_interval_ms` holds."),
    limit!("token_interval_ms", token_interval, 1, 3_600_000, "Shortest time between two token calls of one identity after that."),
    limit!("stale_wait_ms", stale_wait, 1, 600_000, "Longest time that a request waits for a refresh while there is a value that the rules allow."),
    limit!("derivation_rounds", derivation_rounds, 1, 10_000_000, "Rounds of key derivation in a PKCS#12. Beyond: it is not opened."),
    limit!("audit_lines", audit_lines, 1, 10_000, "Lines that `audit` writes for one request; then one line with the number of the rest."),
];

/// Reads those at the top, and the object `limits`.
pub(super) fn read(root: &mut Fields<'_>) -> Limits {
    let mut limits = Limits::default();
    fill(&mut limits, TOP_LEVEL, root);
    if let Some(mut fields) = root.object("limits") {
        fill(&mut limits, LIMITS, &mut fields);
        fields.done();
    }
    limits
}

fn fill(limits: &mut Limits, table: &[Limit], fields: &mut Fields<'_>) {
    for limit in table {
        if let Some(number) = fields.whole_number(limit.field.name) {
            (limit.set)(limits, number);
        }
    }
}
