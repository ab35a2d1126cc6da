//! The places in a message that hold references: which they are, what becomes of each, and what happens
//! when a value cannot be had. It makes no host call.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::header_map::Hit;
use super::seen::Seen;
use crate::body::{self, JsonPart, Kind};
use crate::cache::{SecretKey, View};
use crate::config::{CacheRules, Config, OnError, Rules};
use crate::failure::Reason;
use crate::fetch::{Fetcher, Lookup, Want};
use crate::metrics::Source;
use crate::placement::{self, Encoding};
use crate::policy::Policy;
use crate::query;
use crate::reference::Reference;
use crate::secret::SecretValue;
use crate::template::{Part, Template};
use crate::time::{Span, Timestamp};

/// A piece of a text.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// As it is to be written, encoded.
    Literal(Vec<u8>),
    /// A value, and the reference as it came, not encoded.
    Secret { want: Want, text: Vec<u8> },
}

/// What is written, left out or replaced as a whole: a header's value, a parameter, a JSON string.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pieces: Vec<Piece>,
    /// What stands there when it is to be removed; `None`: nothing, and no separator either.
    instead: Option<&'static [u8]>,
}

/// Where the fields go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// All values of this header.
    Header(Vec<u8>),
    /// The whole query.
    Query,
    /// The whole body.
    Body,
    /// Nowhere yet: the response needs it, and the request does not go on without it.
    Later,
}

/// A place with everything in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) target: Target,
    encoding: Encoding,
    /// Between two fields.
    separator: &'static [u8],
    pub(super) fields: Vec<Field>,
}

/// A change of the message.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Header(Vec<u8>, Vec<Zeroizing<Vec<u8>>>),
    RemoveHeader(Vec<u8>),
    Query(Zeroizing<Vec<u8>>),
    Body(Zeroizing<Vec<u8>>),
}

/// Why a message is not sent on.
#[derive(Debug)]
pub(super) struct Denial {
    pub(super) reason: Reason,
    pub(super) reference: Vec<u8>,
    pub(super) retry_after: Option<Span>,
}

/// What is to be done with a message.
#[derive(Debug)]
pub(super) enum Verdict {
    Edit(Vec<Edit>),
    Deny(Denial),
    Wait(Vec<Want>),
}

/// What a judgement depends on beside the places.
pub(super) struct Bench<'a> {
    pub(super) on_error: OnError,
    pub(super) resolver: &'a mut Fetcher,
    /// Where the values of the references came from, for the metrics.
    pub(super) looked_up: &'a mut Vec<(Source, usize)>,
    /// When the message began to wait, if it did.
    pub(super) since: Option<Timestamp>,
    pub(super) now: Timestamp,
    /// Whether what is not known can be waited for.
    pub(super) patient: bool,
    /// The values that were used, for whoever has to know them when they come back.
    pub(super) used: Option<&'a mut Vec<SecretValue>>,
}

impl Place {
    /// A header that the operator sets.
    pub(super) fn set_header(config: &Config, name: &str, template: &Template) -> Self {
        Self {
            target: Target::Header(name.as_bytes().to_vec()),
            encoding: Encoding::Header,
            separator: b"",
            fields: vec![operators(config, template, Encoding::Header, Vec::new())],
        }
    }

    /// The same place, for what is needed later.
    pub(super) fn for_later(&self) -> Self {
        Self {
            target: Target::Later,
            ..self.clone()
        }
    }

    /// What of it clients ask for, in a request: all but what the operator sets, which in a query comes
    /// last.
    pub(super) fn of_clients(&self, config: &Config) -> impl Iterator<Item = &Want> {
        let rules = &config.request;
        let set = |(name, _): &(String, Template), header: &[u8]| name.as_bytes() == header;
        let theirs = match &self.target {
            Target::Header(name) if rules.set_headers.iter().any(|s| set(s, name)) => 0,
            Target::Query => self.fields.len().saturating_sub(rules.set_query.len()),
            Target::Later => 0,
            Target::Header(_) | Target::Body => self.fields.len(),
        };
        let pieces = self.fields.iter().take(theirs).flat_map(|f| &f.pieces);
        pieces.filter_map(|piece| match piece {
            Piece::Secret { want, .. } => Some(want),
            Piece::Literal(_) => None,
        })
    }

    /// Whether this value can be written here.
    pub(super) fn can_hold(&self, value: &SecretValue) -> bool {
        let mut written = Zeroizing::new(Vec::new());
        self.encoding.write(&mut written, value.expose())
    }

    /// What it wants.
    pub(super) fn wants(&self) -> impl Iterator<Item = &Want> {
        let pieces = self.fields.iter().flat_map(|field| &field.pieces);
        pieces.filter_map(|piece| match piece {
            Piece::Secret { want, .. } => Some(want),
            Piece::Literal(_) => None,
        })
    }
}

/// A value that the operator wrote. Without a reference it is a fixed text, which is fine.
fn operators(config: &Config, template: &Template, encoding: Encoding, start: Vec<u8>) -> Field {
    let found = pieces(template, encoding, |r| operators_want(config, r));
    let found = found.unwrap_or_else(|| {
        let mut text = Vec::new();
        template.render_literally(&mut text);
        vec![Piece::Literal(encoded(encoding, &text))]
    });
    Field {
        pieces: core::iter::once(Piece::Literal(start))
            .chain(found)
            .collect(),
        instead: None,
    }
}

fn encoded(encoding: Encoding, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    // What came in a place can be written there again.
    let _ = encoding.write(&mut out, text);
    out
}

/// The want of a reference of the operator: its options override the vault's times.
pub(super) fn operators_want(config: &Config, reference: &Reference) -> Option<Want> {
    let mut want = want(config, reference)?;
    let options = &reference.options;
    let rules = &mut want.rules;
    if let Some(ttl) = options.ttl.map(Span::from_seconds) {
        rules.ttl = if ttl.0 == 0 { Span::FOREVER } else { ttl };
    }
    rules.neg_ttl = options.neg_ttl.map_or(rules.neg_ttl, Span::from_seconds);
    rules.resurrect_ttl = options
        .resurrect_ttl
        .map_or(rules.resurrect_ttl, Span::from_seconds);
    Some(want)
}

/// The want of a reference from the traffic, if it may have one. Its times are the vault's whatever it
/// says: a client must not get round the operator's caching.
fn clients_want(config: &Config, allow: &Policy, reference: &Reference) -> Option<Want> {
    let allowed = allow.allows(&reference.vault, reference.secret.as_str(), &reference.keys);
    if allowed {
        want(config, reference)
    } else {
        None
    }
}

fn want(config: &Config, reference: &Reference) -> Option<Want> {
    let at = config.vault_index(&reference.vault)?;
    let vault = config.vaults.get(at)?;
    let (collection, form) = vault.kind.locate(&reference.keys)?;
    let rules: CacheRules = vault.cache;
    Some(Want {
        key: SecretKey {
            vault: at,
            collection,
            name: reference.secret.folded().to_owned(),
            version: reference.version.as_ref().map(|v| v.as_str().to_owned()),
        },
        view: View {
            form,
            keys: vault.kind.keys_in_text(&reference.keys).to_vec(),
            base64: reference
                .options
                .base64_decode
                .unwrap_or(vault.base64_decode),
        },
        rules,
    })
}

/// The pieces of a value; `None` when it stays as it is, because it holds neither a reference that `want`
/// knows nor an escaped one. References that `want` does not know stay as they are.
fn pieces(
    template: &Template,
    encoding: Encoding,
    want: impl Fn(&Reference) -> Option<Want>,
) -> Option<Vec<Piece>> {
    let mut changes = template.unescaped;
    let pieces = template.parts.iter().map(|part| match part {
        Part::Literal(bytes) => Piece::Literal(encoded(encoding, bytes)),
        Part::Reference { text, parsed } => match parsed.as_ref().ok().and_then(&want) {
            Some(want) => {
                changes = true;
                Piece::Secret {
                    want,
                    text: text.clone(),
                }
            }
            None => Piece::Literal(encoded(encoding, text)),
        },
    });
    let pieces = pieces.collect();
    changes.then_some(pieces)
}

/// The headers that hold references which may be resolved. Headers that the operator sets are left out: a
/// client's reference there loses.
pub(super) fn in_headers(
    config: &Config,
    rules: &Rules,
    references: Hit<'_>,
    seen: &mut Seen,
) -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    let headers = references.map();
    for (name, value) in references.pairs(Template::first_start) {
        let known = |place: &Place| matches!(&place.target, Target::Header(n) if n.eq_ignore_ascii_case(name));
        if !is_for_clients(rules, name) || found.iter().any(known) {
            continue;
        }
        let same = |(other, _): &(&[u8], &[u8])| other.eq_ignore_ascii_case(name);
        let values = headers.iter().filter(same).map(|(_, value)| value);
        let work_out = || in_header(config, rules, name, values);
        found.extend(if headers.iter().filter(same).nth(1).is_some() {
            work_out()
        } else {
            seen.header(name, value, work_out)
        });
    }
    found
}

/// Whether references of clients are resolved in a header of this name.
pub(super) fn is_for_clients(rules: &Rules, name: &[u8]) -> bool {
    let set = |(set, _): &(String, Template)| name.eq_ignore_ascii_case(set.as_bytes());
    placement::is_header_target(name)
        && rules.resolve_headers.lists(name)
        && !rules.set_headers.iter().any(set)
}

/// A header with all of its values, if one of them holds a reference that may be resolved.
fn in_header<'v>(
    config: &Config,
    rules: &Rules,
    name: &[u8],
    values: impl Iterator<Item = &'v [u8]>,
) -> Option<Place> {
    let mut changes = false;
    let fields = values.map(|value| {
        let template = Template::parse(value);
        let want = |r: &Reference| clients_want(config, &rules.allow, r);
        let found = pieces(&template, Encoding::Header, want);
        changes |= found.is_some();
        Field {
            pieces: found.unwrap_or_else(|| vec![Piece::Literal(value.to_vec())]),
            instead: None,
        }
    });
    let fields = fields.collect();
    changes.then(|| Place {
        target: Target::Header(name.to_vec()),
        encoding: Encoding::Header,
        separator: b"",
        fields,
    })
}

/// The query with what the operator sets in it and with the references that may be resolved; `None` when
/// it stays as it is.
pub(super) fn in_query(config: &Config, text: Option<&[u8]>) -> Option<Place> {
    let rules = &config.request;
    let set = |name: &[u8]| rules.set_query.iter().any(|(n, _)| n.as_bytes() == name);
    let mut changes = !rules.set_query.is_empty();
    let mut fields = Vec::new();
    for parameter in query::parameters(text.unwrap_or_default()) {
        let name = parameter.name();
        if set(&name) {
            continue;
        }
        let listed = rules.resolve_query.lists(&name);
        let (field, changed) = parameter_field(config, &rules.allow, &parameter, listed);
        changes |= changed;
        fields.push(field);
    }
    let set = rules.set_query.iter();
    fields.extend(set.map(|(name, template)| {
        operators(
            config,
            template,
            Encoding::Form,
            query::start(name.as_bytes()),
        )
    }));
    changes.then_some(Place {
        target: Target::Query,
        encoding: Encoding::Form,
        separator: b"&",
        fields,
    })
}

/// A parameter, and whether it holds something to resolve.
fn parameter_field(
    config: &Config,
    allow: &Policy,
    parameter: &query::Parameter<'_>,
    listed: bool,
) -> (Field, bool) {
    let value = parameter.value();
    let want = |r: &Reference| clients_want(config, allow, r);
    let found = (listed && Template::may_hold_reference(&value))
        .then(|| pieces(&Template::parse(&value), Encoding::Form, want))
        .flatten();
    let changes = found.is_some();
    let pieces = match found {
        Some(found) => {
            let start = Piece::Literal(parameter.raw_start().to_vec());
            core::iter::once(start).chain(found).collect()
        }
        None => vec![Piece::Literal(parameter.raw.to_vec())],
    };
    let field = Field {
        pieces,
        instead: None,
    };
    (field, changes)
}

/// The body with the references that may be resolved; `None` when it stays as it is.
pub(super) fn in_body(config: &Config, allow: &Policy, kind: Kind, text: &[u8]) -> Option<Place> {
    let want = |r: &Reference| clients_want(config, allow, r);
    let mut changes = false;
    let literal = |bytes: &[u8]| Field {
        pieces: vec![Piece::Literal(bytes.to_vec())],
        instead: None,
    };
    let (fields, encoding, separator): (Vec<Field>, _, &[u8]) = match kind {
        Kind::Json => {
            let parts = body::json_parts(text).into_iter();
            let fields = parts.map(|part| match part {
                JsonPart::Raw(raw) => literal(raw),
                JsonPart::Value(raw, value) => {
                    let template = Template::parse(value.as_bytes());
                    let Some(found) = pieces(&template, Encoding::Json, want) else {
                        return literal(raw);
                    };
                    changes = true;
                    let quote = || core::iter::once(Piece::Literal(b"\"".to_vec()));
                    Field {
                        pieces: quote().chain(found).chain(quote()).collect(),
                        instead: Some(b"null"),
                    }
                }
            });
            (fields.collect(), Encoding::Json, b"")
        }
        Kind::Form => {
            let fields = query::parameters(text).map(|parameter| {
                let (field, changed) = parameter_field(config, allow, &parameter, true);
                changes |= changed;
                field
            });
            (fields.collect(), Encoding::Form, b"&")
        }
        Kind::Text => {
            let found = pieces(&Template::parse(text), Encoding::Text, want);
            changes = found.is_some();
            // Each piece by itself: one that cannot be had does not take the whole text with it.
            let fields = found.into_iter().flatten().map(|piece| Field {
                pieces: vec![piece],
                instead: Some(b""),
            });
            (fields.collect(), Encoding::Text, b"")
        }
    };
    changes.then_some(Place {
        target: Target::Body,
        encoding,
        separator,
        fields,
    })
}

/// Decides on all places together: nothing is changed before all is known.
pub(super) fn judge<'p>(places: impl Iterator<Item = &'p Place>, bench: &mut Bench<'_>) -> Verdict {
    let mut edits = Vec::new();
    let mut unknown = Vec::new();
    for place in places {
        // What only the response gets is no value that came back.
        let elsewhere = (place.target == Target::Later).then(|| bench.used.take());
        let rendered = render(place, bench);
        if let Some(used) = elsewhere {
            bench.used = used;
        }
        match rendered {
            Rendered::Unknown(wants) => unknown.extend(wants),
            Rendered::Failed(denial) if bench.on_error == OnError::Deny => {
                return Verdict::Deny(denial);
            }
            Rendered::Failed(_) => {
                if let Target::Header(name) = &place.target {
                    edits.push(Edit::RemoveHeader(name.clone()));
                }
            }
            Rendered::Fields(mut fields, _) => match &place.target {
                Target::Header(name) => {
                    let values = fields.into_iter().flatten().collect();
                    edits.push(Edit::Header(name.clone(), values));
                }
                Target::Query => edits.push(Edit::Query(join(&mut fields, place.separator))),
                Target::Body => edits.push(Edit::Body(join(&mut fields, place.separator))),
                Target::Later => {}
            },
        }
    }
    if unknown.is_empty() {
        Verdict::Edit(edits)
    } else {
        Verdict::Wait(unknown)
    }
}

/// The one value of a header that the operator sets, if all of it is known and good, with the time until
/// which it stays so.
pub(super) fn render_one(
    place: &Place,
    resolver: &mut Fetcher,
    looked_up: &mut Vec<(Source, usize)>,
    now: Timestamp,
) -> Option<(Zeroizing<Vec<u8>>, Timestamp)> {
    let mut bench = Bench {
        on_error: OnError::Deny,
        resolver,
        looked_up,
        since: None,
        now,
        patient: true,
        used: None,
    };
    match render(place, &mut bench) {
        Rendered::Fields(mut fields, until) => Some((fields.pop()??, until)),
        _ => None,
    }
}

/// What became of a place: `None` for a field that was removed.
enum Rendered {
    Fields(Vec<Option<Zeroizing<Vec<u8>>>>, Timestamp),
    Failed(Denial),
    Unknown(Vec<Want>),
}

fn join(fields: &mut [Option<Zeroizing<Vec<u8>>>], separator: &[u8]) -> Zeroizing<Vec<u8>> {
    let kept = || fields.iter().flatten();
    let size = kept().map(|field| field.len() + separator.len()).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(size));
    for (n, field) in kept().enumerate() {
        if n > 0 {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(field);
    }
    out
}

fn render(place: &Place, bench: &mut Bench<'_>) -> Rendered {
    let mut fields = Vec::with_capacity(place.fields.len());
    let mut unknown = Vec::new();
    let mut until = Timestamp(u64::MAX);
    for field in &place.fields {
        match render_field(field, place.encoding, bench) {
            Written::Value(value, holds) => {
                until = until.min(holds);
                fields.push(Some(value));
            }
            Written::Unknown(wants) => unknown.extend(wants),
            Written::Failed(denial) => {
                // A header goes as a whole, anything else field by field.
                let whole = matches!(place.target, Target::Header(_) | Target::Later);
                if whole || bench.on_error == OnError::Deny {
                    return Rendered::Failed(denial);
                }
                fields.push(field.instead.map(|text| Zeroizing::new(text.to_vec())));
            }
        }
    }
    if unknown.is_empty() {
        Rendered::Fields(fields, until)
    } else {
        Rendered::Unknown(unknown)
    }
}

enum Written {
    Value(Zeroizing<Vec<u8>>, Timestamp),
    Failed(Denial),
    Unknown(Vec<Want>),
}

/// What there is for a reference, which counts as used.
fn look_up(want: &Want, bench: &mut Bench<'_>) -> Lookup {
    let found = bench.resolver.lookup(want, bench.since, bench.now);
    match &found {
        Lookup::Value { source, .. } | Lookup::Failed { source, .. } => {
            bench.looked_up.push((*source, want.key.vault));
        }
        Lookup::Miss => {}
    }
    if bench.since.is_none() {
        bench.resolver.mark_used(want, bench.now);
    }
    found
}

fn render_field(field: &Field, encoding: Encoding, bench: &mut Bench<'_>) -> Written {
    let mut value = Zeroizing::new(Vec::new());
    let mut unknown = Vec::new();
    let mut until = Timestamp(u64::MAX);
    for piece in &field.pieces {
        let (want, text) = match piece {
            Piece::Literal(bytes) => {
                value.extend_from_slice(bytes);
                continue;
            }
            Piece::Secret { want, text } => (want, text),
        };
        let (reason, retry_after) = match look_up(want, bench) {
            Lookup::Miss if bench.patient => {
                unknown.push(want.clone());
                continue;
            }
            Lookup::Miss => {
                bench.resolver.fetch_in_background(want, bench.now);
                (Reason::NotReady, None)
            }
            Lookup::Value {
                value: secret,
                fresh_until,
                ..
            } if encoding.write(&mut value, secret.expose()) => {
                until = until.min(fresh_until);
                if let Some(used) = &mut bench.used {
                    used.push(secret);
                }
                continue;
            }
            Lookup::Value { .. } => (Reason::NotRepresentable, None),
            Lookup::Failed {
                reason,
                retry_after,
                ..
            } => (reason, retry_after),
        };
        if bench.on_error == OnError::Keep {
            until = bench.now;
            value.extend(encoded(encoding, text));
        } else {
            return Written::Failed(Denial {
                reason,
                reference: text.clone(),
                retry_after,
            });
        }
    }
    if unknown.is_empty() {
        Written::Value(value, until)
    } else {
        Written::Unknown(unknown)
    }
}
