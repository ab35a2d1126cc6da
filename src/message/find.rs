//! Which references of a message may be resolved, and where they stand. What nothing is resolved in yields
//! no [`Place`], so that it goes on byte for byte. It asks for no value.

use std::ops::Range;

use super::names::{Name, Names};
use super::scan::{self, Scan};
use super::strings;
use super::{Denial, Field, Place, Spot, Target, Within};
use crate::body::Kind;
use crate::cache::{SecretKey, View};
use crate::config::{CacheRules, Config, Rules};
use crate::failure::Reason;
use crate::fetch::Want;
use crate::filter::header_map::{HeaderMap, Hit};
use crate::filter::seen::Seen;
use crate::limits::Limits;
use crate::placement::{self, Encoding};
use crate::policy::Policy;
use crate::query;
use crate::reference::Reference;
use crate::template::{Part, Template};
use crate::time::Span;

/// A longer candidate counts as several: what reading it costs grows with its length.
const COUNTED: usize = 256;
/// A reference may give each of its four options once.
const OPTIONS: usize = 4;

/// Counts the references of one message over its headers, its query and its body. The first one beyond the
/// limit ends the search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Those that are resolved, and escaped ones.
    pub changed: usize,
    /// All texts that begin like a reference, also those that end too early.
    pub parsed: usize,
}

impl Count {
    /// Whether there are more than a message may have.
    #[must_use]
    pub const fn exceeds(self, limits: &Limits) -> bool {
        self.changed > limits.references || self.parsed > limits.candidates
    }

    fn check(self, config: &Config, within: Within) -> Result<(), Denial> {
        if self.exceeds(&config.limits) {
            return Err(Denial::within(Reason::TooManyReferences, within));
        }
        Ok(())
    }
}

/// A search in one message.
pub struct Search<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// What clients' references may name.
    pub allow: &'a Policy,
    /// What was found in this message so far.
    pub count: Count,
}

impl<'a> Search<'a> {
    /// A search in a request.
    #[must_use]
    pub fn of_requests(config: &'a Config) -> Self {
        Self {
            config,
            allow: &config.request.allow,
            count: Count::default(),
        }
    }

    /// A search in a response.
    #[must_use]
    pub fn of_responses(config: &'a Config) -> Self {
        Self {
            config,
            allow: &config.response.allow,
            count: Count::default(),
        }
    }

    /// The changes in a range of a text.
    fn spots(
        &mut self,
        text: &[u8],
        range: Range<usize>,
        encoding: Encoding,
        within: Within,
    ) -> Result<Vec<Spot>, Denial> {
        let mut spots = Vec::new();
        let mut scan = Scan::new(text, range, encoding);
        for found in scan.by_ref() {
            self.count.parsed += 1 + found.text.len() / COUNTED;
            let spot = match found.backslash {
                Some(at) => Some(Spot { at, secret: None }),
                None => {
                    let want = self.want(&found.text);
                    want.map(|want| Spot {
                        at: found.at,
                        secret: Some((want, found.text)),
                    })
                }
            };
            if let Some(spot) = spot {
                self.count.changed += 1;
                spots.push(spot);
            }
            self.count.check(self.config, within)?;
        }
        self.count.parsed += usize::from(scan.is_unfinished());
        self.count.check(self.config, within)?;
        Ok(spots)
    }

    fn want(&self, text: &[u8]) -> Option<Want> {
        if !may_be_wanted(self.config, text) {
            return None;
        }
        let reference = Reference::parse(std::str::from_utf8(text).ok()?).ok()?;
        clients_want(self.config, self.allow, &reference)
    }

    /// The headers that hold references which may be resolved. Headers that the operator sets are left out:
    /// a client's reference there loses.
    ///
    /// # Errors
    /// There are more references than the limit.
    pub(crate) fn headers(
        &mut self,
        rules: &Rules,
        references: Hit<'_>,
        seen: &mut Seen,
    ) -> Result<Vec<Place>, Denial> {
        let mut found: Vec<Place> = Vec::new();
        let headers = references.map();
        let mut names = Names::of(headers);
        for (name, value) in references.pairs(Template::first_start) {
            if !is_for_clients(rules, name) {
                continue;
            }
            let place = match names.next(name) {
                Name::Done => continue,
                Name::Repeated => self.header(name, headers.all_of(name))?,
                Name::Alone => seen.header(name, value, &mut self.count, |count| {
                    let mut alone = Search {
                        count: *count,
                        ..*self
                    };
                    let place = alone.header(name, std::iter::once(value));
                    *count = alone.count;
                    place
                })?,
            };
            self.count.check(self.config, Within::Headers)?;
            found.extend(place);
        }
        Ok(found)
    }

    /// A header with all of its values, if one of them holds a reference that may be resolved.
    fn header<'v>(
        &mut self,
        name: &[u8],
        values: impl Iterator<Item = &'v [u8]>,
    ) -> Result<Option<Place>, Denial> {
        let mut fields = Vec::new();
        for value in values {
            let spots = self.spots(value, 0..value.len(), Encoding::Header, Within::Headers)?;
            fields.push(Field {
                text: Some(value.to_vec()),
                at: 0..value.len(),
                spots,
            });
        }
        let changes = fields.iter().any(|field| !field.spots.is_empty());
        Ok(changes.then(|| Place::of(Target::Header(name.to_vec()), Encoding::Header, fields)))
    }

    /// The query with what the operator sets in it and with the references that may be resolved; `None` when
    /// it stays as it is.
    ///
    /// # Errors
    /// There are more references than the limit.
    pub fn query(&mut self, text: Option<&[u8]>) -> Result<Option<Place>, Denial> {
        let rules = &self.config.request;
        let text = text.unwrap_or_default();
        let mut fields = Vec::new();
        let start_from = |at| scan::first_start(text, at, Encoding::Form).map(|(start, _)| start);
        let mut reference = start_from(0);
        for (at, parameter) in query::ranges(text) {
            if at.is_empty() {
                continue;
            }
            if reference.is_some_and(|start| start < at.start) {
                reference = start_from(at.start);
            }
            let holds_start = reference.is_some_and(|start| start < at.end);
            if !holds_start && rules.set_query.is_empty() {
                continue;
            }
            let name = parameter.name();
            let ours = |(set, _): &(String, Template)| query::is_spelling_of(&name, set.as_bytes());
            if rules.set_query.iter().any(ours) {
                // A field without a value is one that goes.
                fields.push(Field {
                    text: Some(Vec::new()),
                    at,
                    spots: Vec::new(),
                });
            } else if holds_start && rules.resolve_query.lists(&name) {
                fields.extend(self.parameter(text, at, &parameter, Within::Query)?);
            }
        }
        for (name, template) in &rules.set_query {
            let mut field = operators(
                self.config,
                template,
                Encoding::Form,
                query::start(name.as_bytes()),
            );
            field.at = text.len()..text.len();
            fields.push(field);
        }
        Ok((!fields.is_empty()).then(|| Place {
            query: text.to_vec(),
            parameters: true,
            ..Place::of(Target::Query, Encoding::Form, fields)
        }))
    }

    fn parameter(
        &mut self,
        text: &[u8],
        at: Range<usize>,
        parameter: &query::Parameter<'_>,
        within: Within,
    ) -> Result<Option<Field>, Denial> {
        let value = at.start + parameter.raw_start().len()..at.end;
        let spots = self.spots(text, value, Encoding::Form, within)?;
        Ok((!spots.is_empty()).then_some(Field {
            text: None,
            at,
            spots,
        }))
    }

    /// The references in a body that may be resolved; `None` when it stays as it is.
    ///
    /// # Errors
    /// There are more references than the limit.
    pub fn body(&mut self, kind: Kind, text: &[u8]) -> Result<Option<Place>, Denial> {
        let mut fields = Vec::new();
        let encoding = match kind {
            Kind::Json => {
                for at in strings::with_starts(text) {
                    let inner = at.start + 1..at.end - 1;
                    let spots = self.spots(text, inner, Encoding::Json, Within::Body)?;
                    if !spots.is_empty() {
                        fields.push(Field {
                            text: None,
                            at,
                            spots,
                        });
                    }
                }
                Encoding::Json
            }
            Kind::Form => {
                for (at, parameter) in parameters_with_starts(text) {
                    fields.extend(self.parameter(text, at, &parameter, Within::Body)?);
                }
                Encoding::Form
            }
            Kind::Text => {
                let spots = self.spots(text, 0..text.len(), Encoding::Text, Within::Body)?;
                // Each by itself: one that could not be resolved does not take the whole text with it.
                fields.extend(spots.into_iter().map(|spot| Field {
                    text: None,
                    at: spot.at.clone(),
                    spots: vec![spot],
                }));
                Encoding::Text
            }
        };
        Ok((!fields.is_empty()).then(|| Place {
            parameters: kind == Kind::Form,
            instead: if kind == Kind::Json { b"null" } else { b"" },
            ..Place::of(Target::Body, encoding, fields)
        }))
    }
}

impl Place {
    fn of(target: Target, encoding: Encoding, fields: Vec<Field>) -> Self {
        Self {
            target,
            encoding,
            query: Vec::new(),
            parameters: false,
            instead: b"",
            fields,
        }
    }

    /// A header that the operator sets.
    #[must_use]
    pub fn set_header(config: &Config, name: &str, template: &Template) -> Self {
        let field = operators(config, template, Encoding::Header, Vec::new());
        let name = Target::Header(name.as_bytes().to_vec());
        Self::of(name, Encoding::Header, vec![field])
    }
}

/// The parameters of a form in which a reference begins: looked for from there, since a form may have as many
/// parameters as bytes.
fn parameters_with_starts(
    text: &[u8],
) -> impl Iterator<Item = (Range<usize>, query::Parameter<'_>)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let (at, _) = scan::first_start(text, from, Encoding::Form)?;
        let before = text.get(from..at)?;
        let start = memchr::memrchr(b'&', before).map_or(from, |and| from + and + 1);
        let behind = text.get(at..)?;
        let end = memchr::memchr(b'&', behind).map_or(text.len(), |and| at + and);
        from = end + 1;
        Some((start..end, query::Parameter::of(text.get(start..end)?)))
    })
}

/// What can be seen of a reference before it is parsed, which costs far more: whether a vault has its prefix,
/// and that it has no more keys and options than any that is resolved. What is not certain passes.
fn may_be_wanted(config: &Config, text: &[u8]) -> bool {
    let inner = text.strip_prefix(b"{vault://").unwrap_or_default();
    let until = |text: &[u8], mark: u8| memchr::memchr(mark, text).unwrap_or(text.len());
    let (inner, _) = inner.split_at(until(inner, b'#'));
    let (authority, path) = inner.split_at(until(inner, b'/'));
    let (path, options) = path.split_at(until(path, b'?'));
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let prefix = std::str::from_utf8(authority).unwrap_or_default();
    if authority.iter().all(is_plain) && config.vault_index(prefix).is_none() {
        return false;
    }
    let keys = path
        .split(|byte| *byte == b'/')
        .filter(|key| !key.is_empty());
    // The first one is the secret's name.
    let keys = keys.skip(1).take(config.limits.reference_keys + 1).count();
    let options = options.get(1..).unwrap_or_default();
    let named = |option: &&[u8]| !matches!(option.first(), None | Some(b'='));
    let options = options.split(|byte| *byte == b'&').filter(named);
    keys <= config.limits.reference_keys && options.take(OPTIONS + 1).count() <= OPTIONS
}

/// A value that the operator wrote, behind `text`. Without a reference it is a fixed text, which is fine.
fn operators(config: &Config, template: &Template, encoding: Encoding, mut text: Vec<u8>) -> Field {
    let mut spots = Vec::new();
    for part in &template.parts {
        let from = text.len();
        let (bytes, want) = match part {
            Part::Literal(bytes) => (bytes, None),
            Part::Reference { text, parsed } => {
                let reference = parsed.as_ref().ok();
                (text, reference.and_then(|r| operators_want(config, r)))
            }
        };
        // What an operator's template holds can be written where it was configured.
        let _ = encoding.write(&mut text, bytes);
        if let Some(want) = want {
            spots.push(Spot {
                at: from..text.len(),
                secret: Some((want, bytes.clone())),
            });
        }
    }
    Field {
        at: 0..text.len(),
        text: Some(text),
        spots,
    }
}

/// The names of a client's headers that an upstream may take for one of `set`, as the client wrote them: CGI and
/// what is like it reads `_` for `-` (RFC 3875, section 4.1.18). Those that are spelled as in `set` are not among
/// them: they are replaced. The work is one pass over the map; a name that comes twice is given twice.
#[must_use]
pub fn shadows<'m, 's>(
    map: HeaderMap<'m>,
    set: impl Iterator<Item = &'s [u8]> + Clone,
) -> Vec<&'m [u8]> {
    let shadows = |name: &&[u8]| {
        let mut alike = set
            .clone()
            .filter(|set| is_same_to_cgi(set, name))
            .peekable();
        alike.peek().is_some() && !alike.any(|set| set.eq_ignore_ascii_case(name))
    };
    map.iter().map(|(name, _)| name).filter(shadows).collect()
}

/// Whether two names become one where `_` is read for `-`.
fn is_same_to_cgi(one: &[u8], other: &[u8]) -> bool {
    let fold = |byte: &u8| {
        if *byte == b'_' {
            b'-'
        } else {
            byte.to_ascii_lowercase()
        }
    };
    one.len() == other.len() && one.iter().map(fold).eq(other.iter().map(fold))
}

/// Whether references of clients are resolved in a header of this name.
#[must_use]
pub fn is_for_clients(rules: &Rules, name: &[u8]) -> bool {
    let set = |(set, _): &(String, Template)| name.eq_ignore_ascii_case(set.as_bytes());
    placement::is_header_target(name)
        && rules.resolve_headers.lists(name)
        && !rules.set_headers.iter().any(set)
}

/// The want of a reference of the operator: its options override the vault's times.
#[must_use]
pub fn operators_want(config: &Config, reference: &Reference) -> Option<Want> {
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
