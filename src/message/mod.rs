//! The content of a message: which references stand in its headers, its query and its body ([`find`]), and
//! what is written in their place ([`render`]). Pure: it makes no host call, and it does not know how
//! secrets are fetched: [`Cache`] is all that it needs.

pub mod find;
mod names;
pub mod render;
mod scan;
mod strings;

use std::ops::Range;

use zeroize::Zeroizing;

use crate::config::Config;
use crate::failure::Reason;
use crate::fetch::{Fetcher, Lookup, Want};
use crate::placement::Encoding;
use crate::secret::SecretValue;
use crate::template::Template;
use crate::time::{Span, Timestamp};

/// One change of a text: a range of it, and what is written there.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The bytes that are replaced.
    pub at: Range<usize>,
    /// The secret that is written, and the reference as it came, decoded; `None`: nothing is written, which
    /// is how the backslash before an escaped reference is taken away.
    pub secret: Option<(Want, Vec<u8>)>,
}

/// What is removed as a whole when one of its secrets could not be resolved (`on_error: remove`): a header's value, a
/// parameter, a JSON string.
#[derive(Clone, Debug)]
pub struct Field {
    /// The text that is changed; `None`: the message's own, which is passed in again for rendering and is
    /// never copied.
    pub text: Option<Vec<u8>>,
    /// The field's range in that text.
    pub at: Range<usize>,
    /// The changes in it, in their order.
    pub spots: Vec<Spot>,
}

/// What is rewritten as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All values of this header.
    Header(Vec<u8>),
    /// The whole query.
    Query,
    /// The whole body.
    Body,
    /// Nothing yet: the response needs it, and the request does not go on without it.
    Later,
}

/// The changes of one target. Of a body of any length it has a few hundred bytes for each reference.
#[derive(Clone, Debug)]
pub struct Place {
    /// What is rewritten.
    pub target: Target,
    encoding: Encoding,
    /// The query as it came. Bodies are not kept: the host has them.
    query: Vec<u8>,
    /// Fields stand between `&` and go with it.
    parameters: bool,
    /// Written for a field that is removed.
    instead: &'static [u8],
    fields: Vec<Field>,
}

/// A change of the message.
#[derive(Clone, Debug)]
pub enum Edit {
    /// All values of a header.
    Header(Vec<u8>, Vec<Zeroizing<Vec<u8>>>),
    /// A header goes.
    RemoveHeader(Vec<u8>),
    /// The new query, without `?`.
    Query(Zeroizing<Vec<u8>>),
    /// The new body.
    Body(Zeroizing<Vec<u8>>),
}

/// The part of a message that a refusal is about; it decides the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Within {
    /// 431 where there are too many references.
    #[default]
    Headers,
    /// 414
    Query,
    /// 413
    Body,
}

/// Why a message is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Denial {
    /// The class.
    pub reason: Reason,
    /// The reference that is to blame, as it came; empty if none is.
    pub reference: Vec<u8>,
    /// When to try again.
    pub retry_after: Option<Span>,
    /// Where.
    pub within: Within,
}

impl Denial {
    /// A refusal without a time to try again.
    #[must_use]
    pub fn new(reason: Reason, reference: &[u8]) -> Self {
        Self {
            reason,
            reference: reference.to_vec(),
            retry_after: None,
            within: Within::default(),
        }
    }

    fn within(reason: Reason, within: Within) -> Self {
        Self {
            within,
            ..Self::new(reason, b"")
        }
    }
}

/// What is to be done with a message.
#[derive(Debug)]
pub enum Verdict {
    /// Everything is known: these changes, and it goes on.
    Edit(Vec<Edit>),
    /// It is refused.
    Deny(Denial),
    /// These have to be fetched first.
    Wait(Vec<Want>),
}

/// The cache, as far as messages need it.
pub trait Cache {
    /// What there is for `want` now, for a message that waits since then, if it waits.
    fn look_up(&self, want: &Want, since: Option<Timestamp>, now: Timestamp) -> Lookup;
    /// A message used this.
    fn mark_used(&mut self, want: &Want, now: Timestamp);
    /// Fetches `want` for a later message: this one cannot wait.
    fn fetch_in_background(&mut self, want: &Want, now: Timestamp);
}

impl Cache for Fetcher {
    fn look_up(&self, want: &Want, since: Option<Timestamp>, now: Timestamp) -> Lookup {
        self.lookup(want, since, now)
    }

    fn mark_used(&mut self, want: &Want, now: Timestamp) {
        self.mark_used(want, now);
    }

    fn fetch_in_background(&mut self, want: &Want, now: Timestamp) {
        self.fetch_in_background(want, now);
    }
}

impl Place {
    /// The same changes, for what is needed later.
    #[must_use]
    pub fn for_later(&self) -> Self {
        Self {
            target: Target::Later,
            ..self.clone()
        }
    }

    /// How many references it resolves.
    #[must_use]
    pub fn references(&self) -> usize {
        self.wants().count()
    }

    /// About how many bytes it takes while its message waits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const REFERENCE: usize = 512;
        let texts = self.fields.iter().filter_map(|field| field.text.as_ref());
        let texts: usize = texts.map(Vec::len).sum();
        let references = self.references().saturating_mul(REFERENCE);
        references
            .saturating_add(self.query.len())
            .saturating_add(texts)
    }

    /// Whether this value can be written here.
    #[must_use]
    pub fn can_hold(&self, value: &SecretValue) -> bool {
        self.encoding.length(value.expose()).is_some()
    }

    /// What it wants.
    pub fn wants(&self) -> impl Iterator<Item = &Want> {
        wants(&self.fields)
    }

    /// What of it clients ask for, in a request: all but what the operator sets, which in a query comes
    /// last.
    pub fn of_clients(&self, config: &Config) -> impl Iterator<Item = &Want> {
        wants(self.fields_of_clients(config))
    }

    /// Whether anything that a client wrote in a request is changed here: a reference, or the backslash before
    /// an escaped one.
    #[must_use]
    pub fn changes_clients_text(&self, config: &Config) -> bool {
        let fields = self.fields_of_clients(config);
        fields.iter().any(|field| !field.spots.is_empty())
    }

    fn fields_of_clients(&self, config: &Config) -> &[Field] {
        let rules = &config.request;
        let set = |(name, _): &(String, Template), header: &[u8]| name.as_bytes() == header;
        let theirs = match &self.target {
            Target::Header(name) if rules.set_headers.iter().any(|s| set(s, name)) => 0,
            Target::Query => self.fields.len().saturating_sub(rules.set_query.len()),
            Target::Later => 0,
            Target::Header(_) | Target::Body => self.fields.len(),
        };
        self.fields.get(..theirs).unwrap_or_default()
    }
}

fn wants(fields: &[Field]) -> impl Iterator<Item = &Want> {
    let spots = fields.iter().flat_map(|field| &field.spots);
    spots.filter_map(|spot| spot.secret.as_ref().map(|(want, _)| want))
}

#[cfg(test)]
mod tests;
