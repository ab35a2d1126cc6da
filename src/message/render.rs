//! What is written in a message: every value is looked up, the length of the result is added up and
//! compared with its limit, and only then is anything written. Nothing is changed before all is known.

use zeroize::Zeroizing;

use super::{Cache, Denial, Edit, Field, Place, Spot, Target, Verdict, Within};
use crate::config::OnError;
use crate::failure::Reason;
use crate::fetch::{Lookup, Want};
use crate::limits::Limits;
use crate::metrics::Source;
use crate::placement::Encoding;
use crate::secret::SecretValue;
use crate::time::Timestamp;

/// What the evaluation of a message depends on beside its places.
pub struct Context<'a, C> {
    /// What becomes of references that could not be resolved.
    pub on_error: OnError,
    /// The cache.
    pub cache: &'a mut C,
    /// The bounds of what is written.
    pub limits: &'a Limits,
    /// The body as it came, for places in it.
    pub body: &'a [u8],
    /// When the message began to wait, if it did.
    pub since: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
    /// Whether what is not known can be waited for.
    pub patient: bool,
    /// Whether the message can still be refused: a response's body cannot, and goes on as it is.
    pub refusable: bool,
    /// Where the values of the references came from, and which vault they are of, for the metrics.
    pub looked_up: &'a mut Vec<(Source, usize)>,
    /// The values that were used, where they are to be masked on their way back.
    pub used: Option<&'a mut Vec<SecretValue>>,
}

/// What is written at a spot.
enum Written {
    Value(SecretValue),
    /// What stands there.
    Same,
    Nothing,
}

/// What becomes of a field.
enum Outcome {
    Kept(Vec<Written>),
    Removed,
}

/// A place whose values are all known.
struct Plan {
    fields: Vec<Outcome>,
    until: Timestamp,
}

enum Looked {
    Plan(Plan),
    Failed(Denial),
    Unknown(Vec<Want>),
}

/// Decides on all places together: nothing is changed before all is known.
pub fn judge<'p, C: Cache>(
    places: impl Iterator<Item = &'p Place>,
    context: &mut Context<'_, C>,
) -> Verdict {
    let mut edits = Vec::new();
    let mut unknown = Vec::new();
    for place in places {
        match look(place, context) {
            Looked::Unknown(wants) => unknown.extend(wants),
            Looked::Failed(denial) if context.on_error == OnError::Deny => {
                return Verdict::Deny(denial);
            }
            Looked::Failed(_) => {
                if let Target::Header(name) = &place.target {
                    edits.push(Edit::RemoveHeader(name.clone()));
                }
            }
            Looked::Plan(_) if !unknown.is_empty() => {}
            Looked::Plan(plan) => match edit(place, &plan, context) {
                Ok(edit) => edits.extend(edit),
                Err(denial) if context.refusable => return Verdict::Deny(denial),
                Err(_) => {}
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
pub fn render_one(
    place: &Place,
    cache: &mut impl Cache,
    limits: &Limits,
    looked_up: &mut Vec<(Source, usize)>,
    now: Timestamp,
) -> Option<(Zeroizing<Vec<u8>>, Timestamp)> {
    let mut context = Context {
        on_error: OnError::Deny,
        cache,
        limits,
        body: b"",
        since: None,
        now,
        patient: true,
        refusable: true,
        looked_up,
        used: None,
    };
    let Looked::Plan(plan) = look(place, &mut context) else {
        return None;
    };
    let values = header_values(place, &plan, limits).ok()?;
    Some((values.into_iter().next()?, plan.until))
}

/// Looks up every value of a place.
fn look<C: Cache>(place: &Place, context: &mut Context<'_, C>) -> Looked {
    let mut fields = Vec::with_capacity(place.fields.len());
    let mut unknown = Vec::new();
    let mut until = Timestamp(u64::MAX);
    for field in &place.fields {
        // Of the operator's templates without a value: a parameter of that name goes.
        if field.text.as_ref().is_some_and(Vec::is_empty) && place.target == Target::Query {
            fields.push(Outcome::Removed);
            continue;
        }
        match look_field(place, field, context, &mut until, &mut unknown) {
            Ok(written) => fields.push(Outcome::Kept(written)),
            Err(denial) => {
                // A header goes as a whole, anything else field by field.
                let whole = matches!(place.target, Target::Header(_) | Target::Later);
                if whole || context.on_error == OnError::Deny {
                    return Looked::Failed(denial);
                }
                fields.push(Outcome::Removed);
            }
        }
    }
    if unknown.is_empty() {
        Looked::Plan(Plan { fields, until })
    } else {
        Looked::Unknown(unknown)
    }
}

/// What there is for a reference, which counts as used unless its message waits.
fn look_up<C: Cache>(want: &Want, context: &mut Context<'_, C>) -> Lookup {
    let found = context.cache.look_up(want, context.since, context.now);
    if let Lookup::Value { source, .. } | Lookup::Failed { source, .. } = &found {
        context.looked_up.push((*source, want.key.vault));
    }
    if context.since.is_none() {
        context.cache.mark_used(want, context.now);
    }
    found
}

fn look_field<C: Cache>(
    place: &Place,
    field: &Field,
    context: &mut Context<'_, C>,
    until: &mut Timestamp,
    unknown: &mut Vec<Want>,
) -> Result<Vec<Written>, Denial> {
    let mut written = Vec::with_capacity(field.spots.len());
    for spot in &field.spots {
        let Some((want, text)) = &spot.secret else {
            written.push(Written::Nothing);
            continue;
        };
        let (reason, retry_after) = match look_up(want, context) {
            Lookup::Miss if context.patient => {
                unknown.push(want.clone());
                continue;
            }
            Lookup::Miss => {
                context.cache.fetch_in_background(want, context.now);
                (Reason::NotReady, None)
            }
            Lookup::Value {
                value: secret,
                fresh_until,
                ..
            } if place.can_hold(&secret) => {
                *until = (*until).min(fresh_until);
                // What only the response gets is no value that came back.
                if let Some(used) = context
                    .used
                    .as_mut()
                    .filter(|_| place.target != Target::Later)
                {
                    used.push(secret.clone());
                }
                written.push(Written::Value(secret));
                continue;
            }
            Lookup::Value { .. } => (Reason::NotRepresentable, None),
            Lookup::Failed {
                reason,
                retry_after,
                ..
            } => (reason, retry_after),
        };
        if context.on_error != OnError::Keep {
            return Err(Denial {
                retry_after,
                ..Denial::new(reason, text)
            });
        }
        *until = context.now;
        written.push(Written::Same);
    }
    Ok(written)
}

fn edit<C>(place: &Place, plan: &Plan, context: &Context<'_, C>) -> Result<Option<Edit>, Denial> {
    let limits = context.limits;
    let not_representable = |within| Denial::within(Reason::NotRepresentable, within);
    Ok(match &place.target {
        Target::Later => None,
        Target::Header(name) => match header_values(place, plan, limits) {
            Ok(values) => Some(Edit::Header(name.clone(), values)),
            Err(()) => match context.on_error {
                OnError::Deny => return Err(not_representable(Within::Headers)),
                OnError::Remove => Some(Edit::RemoveHeader(name.clone())),
                OnError::Keep => None,
            },
        },
        Target::Query => {
            let query = whole(place, plan, &place.query, limits.header_bytes);
            Some(Edit::Query(
                query.ok_or_else(|| not_representable(Within::Query))?,
            ))
        }
        Target::Body => {
            let body = whole(place, plan, context.body, limits.body_bytes);
            let too_large = Denial::within(Reason::BodyTooLarge, Within::Body);
            Some(Edit::Body(body.ok_or(too_large)?))
        }
    })
}

/// The values of a header; `Err` when they are too long together.
fn header_values(
    place: &Place,
    plan: &Plan,
    limits: &Limits,
) -> Result<Vec<Zeroizing<Vec<u8>>>, ()> {
    let fields = || place.fields.iter().zip(&plan.fields);
    let mut length = Length(0);
    for (field, outcome) in fields() {
        write_field(place, field, outcome, b"", &mut length);
    }
    if length.0 > limits.header_bytes {
        return Err(());
    }
    let values = fields().map(|(field, outcome)| {
        let mut value = Zeroizing::new(Vec::new());
        write_field(place, field, outcome, b"", &mut *value);
        value
    });
    Ok(values.collect())
}

/// A query or a body with its changes; `None` when it would be longer than `most`, or than the memory.
fn whole(place: &Place, plan: &Plan, text: &[u8], most: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut length = Length(0);
    write_all(place, plan, text, &mut length);
    if length.0 > most {
        return None;
    }
    let mut out = Zeroizing::new(Vec::new());
    out.try_reserve_exact(length.0.saturating_add(1)).ok()?;
    write_all(place, plan, text, &mut *out);
    Some(out)
}

/// Where a result goes: into memory, or only into the sum of its length.
trait Sink {
    fn raw(&mut self, bytes: &[u8]);
    fn value(&mut self, encoding: Encoding, value: &[u8]);
    /// Takes back the separator at the end, if there is one.
    fn take_back(&mut self, separator: u8);
    fn is_empty(&self) -> bool;
}

struct Length(usize);

impl Sink for Length {
    fn raw(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }

    fn value(&mut self, encoding: Encoding, value: &[u8]) {
        self.0 = self.0.saturating_add(encoding.length(value).unwrap_or(0));
    }

    fn take_back(&mut self, _: u8) {
        self.0 = self.0.saturating_sub(1);
    }

    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

impl Sink for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn value(&mut self, encoding: Encoding, value: &[u8]) {
        // That it can be written was found out when it was looked up.
        let _ = encoding.write(self, value);
    }

    fn take_back(&mut self, separator: u8) {
        if self.last() == Some(&separator) {
            self.pop();
        }
    }

    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

fn write_all(place: &Place, plan: &Plan, text: &[u8], out: &mut impl Sink) {
    let mut at = 0;
    for (field, outcome) in place.fields.iter().zip(&plan.fields) {
        out.raw(text.get(at..field.at.start).unwrap_or_default());
        at = field.at.end;
        if matches!(outcome, Outcome::Removed) {
            if !place.parameters {
                out.raw(place.instead);
            } else if at < text.len() {
                // Its `&` goes with it.
                at += 1;
            } else {
                out.take_back(b'&');
            }
            continue;
        }
        let appended = field.text.is_some();
        if appended && !out.is_empty() {
            out.raw(b"&");
        }
        write_field(place, field, outcome, text, out);
    }
    out.raw(text.get(at..).unwrap_or_default());
}

fn write_field(place: &Place, field: &Field, outcome: &Outcome, text: &[u8], out: &mut impl Sink) {
    let text = field.text.as_deref().unwrap_or(text);
    let (mut at, end) = match &field.text {
        Some(own) => (0, own.len()),
        None => (field.at.start, field.at.end),
    };
    let Outcome::Kept(written) = outcome else {
        return;
    };
    for (Spot { at: spot, .. }, written) in field.spots.iter().zip(written) {
        out.raw(text.get(at..spot.start).unwrap_or_default());
        at = spot.end;
        match written {
            Written::Nothing => {}
            Written::Same => out.raw(text.get(spot.clone()).unwrap_or_default()),
            Written::Value(value) => out.value(place.encoding, value.expose()),
        }
    }
    out.raw(text.get(at..end).unwrap_or_default());
}
