//! Fetches: one worker's secrets and tokens, the calls to Azure that are under way, and who waits for them
//! (single flight). A state machine in the manner of quinn-proto: events and the time go in, [`Action`]s
//! come out of [`Fetcher::poll`]. It never calls the host, and knows a request by its number only.
//!
//! ```text
//!   fetch(secret) -> in shared data?  -yes-> wake
//!                 -> another worker fetches it (lease)? -> Following: look again at each tick
//!                 -> usable token?    -no-> a flight for the token, which this one waits for
//!                 -> Calling: GET secret -> answer -> cache, shared data -> wake
//! ```

mod admission;
mod backoff;
mod budget;
mod flight;
mod gauges;
mod holds;
mod lookup;
mod record;
mod report;
pub mod seal;
mod secrets;
mod shared;
mod tick;
mod tokens;
mod versions;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use hashlink::{LinkedHashMap, LinkedHashSet};

use crate::azure::forms::Collection;
use crate::azure::http::HttpRequest;
use crate::azure::identity::Identity;
use crate::cache::{Entries, Failed, SecretKey};
use crate::config::{CacheRules, Config};
pub use crate::events::LogLine;
use crate::events::{Events, Line};
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::time::Timestamp;
use admission::Paid;
use budget::Budget;
use flight::{Flight, FlightKey, Pending};
pub use lookup::{Lookup, Want};
use seal::Sealer;
use shared::Names;
pub use shared::{Now, Shared};
use tokens::TokenState;

/// Who owns a fetch. On Envoy all calls are the worker's, and any request can wait for them. On WasmX a
/// request can be woken by the answers to its own calls only, so each has a lane of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Calls of the root context.
    Worker,
    /// Calls of this request.
    Request(u32),
}

/// What a fetch is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A token, by the number of the identity.
    Token(usize),
    /// A secret. Its whole key, which stands for vault and identity too: an answer can never be taken
    /// for another secret's.
    Secret(SecretKey),
}

/// The number of a call; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

/// A call to make.
pub struct Call {
    /// To be passed to [`Fetcher::handle_answer`] with the answer.
    pub id: CallId,
    /// Whose call this is.
    pub lane: Lane,
    /// What it fetches.
    pub subject: Subject,
    /// The request.
    pub request: HttpRequest,
}

/// What the caller has to do.
pub enum Action {
    /// Make this call.
    Call(Call),
    /// This request has something new to look at.
    Wake(u32),
    /// Write this line.
    Log(LogLine),
}

/// One worker's secrets, tokens and fetches under way.
pub struct Fetcher {
    config: Rc<Config>,
    identities: Vec<Identity>,
    /// For each vault of the configuration, its identity's number.
    identity_of: Vec<usize>,
    /// One for each identity that has a secret to make a key of.
    sealers: Vec<Option<Sealer>>,
    tokens: Vec<TokenState>,
    entries: Entries,
    names: Names,
    /// The backoff of each vault of the configuration that was too busy.
    holds: Vec<Option<Failed>>,
    /// The backoff of each vault that refuses its identity's fresh tokens.
    refusals: Vec<Option<Failed>>,
    budget: Budget,
    paid: Paid,
    flights: BTreeMap<FlightKey, Flight>,
    calls: HashMap<CallId, Pending>,
    next_call: u64,
    /// What each request waits for.
    waiting: HashMap<u32, Vec<FlightKey>>,
    /// To be fetched by the next tick, for requests that cannot wait.
    background: LinkedHashMap<SecretKey, CacheRules>,
    /// When a tick last scanned the whole cache.
    scanned_at: Option<Timestamp>,
    /// When a fetch was last refused for the budget, for the requests that wait for it.
    refused: LinkedHashMap<SecretKey, Timestamp>,
    /// The newest names that were found.
    found_before: LinkedHashSet<SecretKey>,
    actions: VecDeque<Action>,
    epoch: u64,
    /// What is counted.
    pub metrics: Metrics,
    /// Which lines were written, and how often each was repeated.
    pub events: Events,
}

impl Fetcher {
    /// Nothing is fetched before the first event.
    #[must_use]
    pub fn new(config: Rc<Config>) -> Self {
        let mut identities: Vec<Identity> = Vec::new();
        let mut identity_of = Vec::new();
        for vault in &config.vaults {
            let known = identities.iter().position(|other| *other == vault.identity);
            identity_of.push(known.unwrap_or(identities.len()));
            if known.is_none() {
                identities.push(vault.identity.clone());
            }
        }
        let limits = &config.limits;
        Self {
            holds: vec![None; config.vaults.len()],
            refusals: vec![None; config.vaults.len()],
            budget: Budget::new(limits.fetches_per_second, limits.reserved_percent),
            metrics: Metrics::new(&config),
            events: Events::default(),
            entries: Entries::new(limits),
            names: listed_names(&config),
            sealers: identities.iter().map(Sealer::of).collect(),
            tokens: identities.iter().map(|_| TokenState::new(limits)).collect(),
            identities,
            identity_of,
            paid: Paid::default(),
            flights: BTreeMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            waiting: HashMap::new(),
            background: LinkedHashMap::new(),
            scanned_at: None,
            refused: LinkedHashMap::new(),
            found_before: LinkedHashSet::new(),
            actions: VecDeque::new(),
            epoch: 0,
            config,
        }
    }

    /// Changes with every change of any value.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Marks what the operator's configuration needs, to be fetched ahead and kept.
    pub fn pin(&mut self, want: &Want) {
        self.entries.pin(&want.key, &want.rules);
        self.names.list(&want.key);
    }

    /// The beginning of a line about a secret.
    #[must_use]
    pub fn about(&self, event: &str, key: &SecretKey) -> Line {
        report::about(event, &self.config, key)
    }

    /// Fetches what `want` asks for, or joins the fetch under way (single flight). `waiter` is woken when it ends.
    pub fn fetch(&mut self, want: &Want, lane: Lane, waiter: u32, now: &Now<'_>) {
        if lane != Lane::Worker && self.has_old_value(want, now.time) {
            // A request on WasmX cannot be woken before its own call is answered.
            self.fetch_in_background(want, now.time);
            return self.actions.push_back(Action::Wake(waiter));
        }
        self.start_secret(lane, &want.key, &want.rules, Some(waiter), now);
    }

    /// What to do next; `None` until the next event.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

/// The names that the operator lists exactly in `allow`; clients did not make these up.
fn listed_names(config: &Config) -> Names {
    let mut names = Names::new(config.limits.shared_entries);
    let allowed = [&config.request.allow, &config.response.allow];
    for (prefix, name) in allowed.into_iter().flat_map(Policy::exact) {
        if let Some(vault) = config.vaults.iter().position(|v| v.prefix == prefix) {
            names.list(&SecretKey {
                vault,
                collection: Collection::Secrets,
                name: name.to_ascii_lowercase(),
                version: None,
            });
        }
    }
    names
}
