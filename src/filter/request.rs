//! What is to be done to one request: which of its headers hold references that may be resolved, what
//! they become, and what happens when they cannot. It makes no host call.

use zeroize::Zeroizing;

use super::header_map::HeaderMap;
use crate::cache::{SecretKey, View};
use crate::config::{CacheRules, Config, OnError};
use crate::failure::Reason;
use crate::placement;
use crate::reference::Reference;
use crate::resolver::{Answered, Resolver, Want};
use crate::template::{Part, Template};
use crate::time::{Span, Timestamp};

/// A piece of a header's value.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Literal(Vec<u8>),
    Secret { want: Want, text: Vec<u8> },
}

/// A header that is to be written: all its values in their order.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) values: Vec<Vec<Piece>>,
}

/// A change of the request's headers.
#[derive(Debug)]
pub(super) enum Edit {
    Set(Vec<u8>, Vec<Zeroizing<Vec<u8>>>),
    Remove(Vec<u8>),
}

/// Why a request is not sent on.
#[derive(Debug)]
pub(super) struct Denial {
    pub(super) reason: Reason,
    pub(super) reference: Vec<u8>,
    pub(super) retry_after: Option<Span>,
}

/// What became of a header.
enum Rendered {
    Values(Vec<Zeroizing<Vec<u8>>>, Timestamp),
    Failed(Denial),
    Unknown(Vec<Want>),
}

/// What is to be done with a request.
#[derive(Debug)]
pub(super) enum Verdict {
    Edit(Vec<Edit>),
    Deny(Denial),
    Wait(Vec<Want>),
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
fn clients_want(config: &Config, reference: &Reference) -> Option<Want> {
    let allow = &config.request.allow;
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
pub(super) fn pieces(
    template: &Template,
    want: impl Fn(&Reference) -> Option<Want>,
) -> Option<Vec<Piece>> {
    let mut changes = template.unescaped;
    let pieces = template.parts.iter().map(|part| match part {
        Part::Literal(bytes) => Piece::Literal(bytes.clone()),
        Part::Reference { text, parsed } => match parsed.as_ref().ok().and_then(&want) {
            Some(want) => {
                changes = true;
                Piece::Secret {
                    want,
                    text: text.clone(),
                }
            }
            None => Piece::Literal(text.clone()),
        },
    });
    let pieces = pieces.collect();
    changes.then_some(pieces)
}

/// The request's headers that hold references which may be resolved. Headers that the operator sets are
/// left out: a client's reference there loses.
pub(super) fn find_references(config: &Config, headers: HeaderMap<'_>) -> Vec<Header> {
    let mut found: Vec<Header> = Vec::new();
    for (name, value) in headers.iter() {
        if !Template::may_hold_reference(value)
            || !placement::is_header_target(name)
            || !config.request.resolve_headers.lists(name)
            || config
                .request
                .set_headers
                .iter()
                .any(|(set, _)| name.eq_ignore_ascii_case(set.as_bytes()))
            || found
                .iter()
                .any(|header| header.name.eq_ignore_ascii_case(name))
        {
            continue;
        }
        let name_text = String::from_utf8_lossy(name);
        let values = headers.all(&name_text).map(|value| {
            let template = Template::parse(value);
            pieces(&template, |r| clients_want(config, r)).ok_or_else(|| value.to_vec())
        });
        let values: Vec<_> = values.collect();
        if values.iter().any(Result::is_ok) {
            let values = values.into_iter();
            found.push(Header {
                name: name.to_vec(),
                values: values
                    .map(|v| v.unwrap_or_else(|raw| vec![Piece::Literal(raw)]))
                    .collect(),
            });
        }
    }
    found
}

/// Decides on all headers together: nothing is changed before all is known.
pub(super) fn judge<'h>(
    headers: impl Iterator<Item = &'h Header>,
    on_error: OnError,
    resolver: &mut Resolver,
    since: Option<Timestamp>,
    now: Timestamp,
) -> Verdict {
    let mut edits = Vec::new();
    let mut unknown = Vec::new();
    for header in headers {
        match render(header, on_error, resolver, since, now) {
            Rendered::Values(values, _) => edits.push(Edit::Set(header.name.clone(), values)),
            Rendered::Unknown(wants) => unknown.extend(wants),
            Rendered::Failed(denial) if on_error == OnError::Deny => return Verdict::Deny(denial),
            Rendered::Failed(_) => edits.push(Edit::Remove(header.name.clone())),
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
    header: &Header,
    resolver: &mut Resolver,
    now: Timestamp,
) -> Option<(Zeroizing<Vec<u8>>, Timestamp)> {
    match render(header, OnError::Deny, resolver, None, now) {
        Rendered::Values(mut values, until) => values.pop().map(|value| (value, until)),
        _ => None,
    }
}

fn render(
    header: &Header,
    on_error: OnError,
    resolver: &mut Resolver,
    since: Option<Timestamp>,
    now: Timestamp,
) -> Rendered {
    let mut values = Vec::with_capacity(header.values.len());
    let mut unknown = Vec::new();
    let mut until = Timestamp(u64::MAX);
    for pieces in &header.values {
        let mut value = Zeroizing::new(Vec::new());
        for piece in pieces {
            let (want, text) = match piece {
                Piece::Literal(bytes) => {
                    value.extend_from_slice(bytes);
                    continue;
                }
                Piece::Secret { want, text } => (want, text),
            };
            let failed = match resolver.answer(want, since, now) {
                Answered::Unknown => {
                    unknown.push(want.clone());
                    continue;
                }
                Answered::Value(secret, fresh_until) if placement::fits_header(secret.expose()) => {
                    until = until.min(fresh_until);
                    value.extend_from_slice(secret.expose());
                    continue;
                }
                Answered::Value(..) => (Reason::NotRepresentable, None),
                Answered::Failed(reason, retry_after) => (reason, retry_after),
            };
            if on_error == OnError::Keep {
                until = now;
                value.extend_from_slice(text);
            } else {
                let (reason, retry_after) = failed;
                return Rendered::Failed(Denial {
                    reason,
                    reference: text.clone(),
                    retry_after,
                });
            }
        }
        values.push(value);
    }
    if unknown.is_empty() {
        Rendered::Values(values, until)
    } else {
        Rendered::Unknown(unknown)
    }
}
