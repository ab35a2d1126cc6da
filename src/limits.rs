//! Every bound of the filter, as one value: what traffic may cost in fetches, memory and time. Tests run
//! with each bound at 3. It decides nothing; the code that works within a bound reads it from here.

use crate::time::Span;

/// The bounds. Each field says what happens beyond it, and why it has its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest body, in bytes, in which references are resolved, and longest body that resolving may
    /// make: beyond, 413. 1 MiB is Envoy's default buffer for a connection.
    pub body_bytes: usize,
    /// Longest header value, or query, in bytes, that resolving may make; beyond, `not_representable`.
    /// Upstreams refuse heads that are longer than this.
    pub header_bytes: usize,
    /// References to resolve in one message, over all of its headers, its query and its body; beyond, 431
    /// (headers), 414 (query) or 413 (body). Real messages have a handful.
    pub references: usize,
    /// Texts in one message that begin like a reference, those too that stay text; beyond, refused like too many
    /// references. One of more than 256 bytes counts as several, so that this bounds what reading them costs.
    pub candidates: usize,
    /// Keys of one reference of a client, the way into a nested JSON secret; one with more stays text.
    pub reference_keys: usize,
    /// Bytes that one worker holds for messages that wait and for responses that are collected; beyond,
    /// requests that would have to wait are answered 503 with `Retry-After`. Envoy gives a VM 1 GiB.
    pub held_bytes: usize,
    /// Bytes of one response that masking holds back at most, because they may be the beginning of a value;
    /// what exceeds that goes on masked. A value of 25 KB (Key Vault's longest) in `\u` escapes is 150 KB.
    pub masked_bytes_held: usize,
    /// Bytes of one message's values that masking looks for exactly, at sixteen bytes of memory each; of values
    /// that have more together, the longest are known by their beginnings, at least sixteen bytes, and masking
    /// goes on after one while pairs of bytes follow each other as in some value, so that it may mask more.
    pub masked_value_bytes: usize,
    /// Fetches in a second that clients' references may cause in one worker; beyond, `too_many_fetches`.
    pub fetches_per_second: u64,
    /// Such fetches at the same time; beyond, `too_many_fetches`.
    pub fetches_in_flight: usize,
    /// The share of these fetches, in percent, that names which were never found cannot use.
    pub reserved_percent: u64,
    /// Secrets in one worker's cache that only clients asked for; the least recently used one is evicted.
    pub cached_secrets: usize,
    /// Names in one worker's cache that the vault does not have (negative caching), apart from the secrets.
    pub cached_misses: usize,
    /// Entries in shared data for names that the operator did not list: they are hashed into this many
    /// keys, since Envoy's shared data cannot delete one.
    pub shared_entries: usize,
    /// Forms (keys of a JSON secret, base64) of one secret that are kept beside it.
    pub views: usize,
    /// Headers of clients whose text was parsed and is kept, so that it is not parsed again.
    pub memo_entries: usize,
    /// Longest such header, in bytes.
    pub memo_bytes: usize,
    /// Requests that are resumed or answered in one callback. Envoy carries this out when the callback
    /// returns, and where a request is answered at once, the response's callback runs inside of it: some two
    /// thousand deep the stack ends, and the VM with it.
    pub woken_at_once: usize,
    /// Requests that ended without a response whose values one worker keeps for masking, in case that Envoy begins them
    /// again at once (internal redirect); beyond, the oldest is forgotten, and refused if it comes.
    pub ended_requests: usize,
    /// How often a request that waits is evaluated again before it is given up.
    pub rounds: u32,
    /// Token calls that one identity may make at once, before `token_interval` holds.
    pub token_burst: u32,
    /// Shortest time between two token calls of one identity after that.
    pub token_interval: Span,
    /// Longest time that a request waits for a refresh while there is a value that the rules allow.
    pub stale_wait: Span,
    /// Rounds of key derivation in a PKCS#12; beyond, it is not opened.
    pub derivation_rounds: u32,
    /// Lines that `audit` writes for one request; then one line with the sum of the rest.
    pub audit_lines: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            header_bytes: 64 << 10,
            references: 100,
            candidates: 1_000,
            reference_keys: 16,
            held_bytes: 64 << 20,
            masked_bytes_held: 256 << 10,
            masked_value_bytes: 64 << 10,
            fetches_per_second: 50,
            fetches_in_flight: 100,
            reserved_percent: 50,
            cached_secrets: 10_000,
            cached_misses: 1_000,
            shared_entries: 1_024,
            views: 64,
            memo_entries: 256,
            memo_bytes: 512,
            woken_at_once: 64,
            ended_requests: 100,
            rounds: 5,
            token_burst: 3,
            token_interval: Span::seconds(1),
            stale_wait: Span(300),
            derivation_rounds: 100_000,
            audit_lines: 100,
        }
    }
}
