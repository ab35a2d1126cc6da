//! Reads `request`, `response` and `audit`: what is set, where references are resolved, and which. It checks
//! references against the vaults that are configured and resolves none.

use super::reader::{Fields, Problems};
use super::vaults::Known;
use super::{Audit, Rules, TooLarge};
use crate::body::Kind;
use crate::placement;
use crate::policy::{Allowed, HeaderNames, MediaTypes, ParameterNames, Policy};
use crate::quoted::Quoted;
use crate::template::{Part, Template};

pub(super) fn read_request(mut fields: Fields<'_>, known: &Known, problems: &Problems) -> Rules {
    let mut rules = Rules::default();
    if let Some(mut set) = fields.object("set") {
        read_set_headers(&mut set, known, problems, &mut rules);
        let path = set.path("query");
        for (name, text) in set.map_of_texts("query") {
            let path = format!("{path}.{name}");
            let template = read_template(&text, known, &path, problems);
            rules.set_query.extend(template.map(|t| (name, t)));
        }
        rules.keep_underscores = set.boolean("keep_underscores").unwrap_or_default();
        set.done();
    }
    if let Some(mut resolve) = fields.object("resolve") {
        let names = resolve.texts("query").unwrap_or_default();
        rules.resolve_query = ParameterNames::new(names);
        let choices = [("deny", TooLarge::Deny), ("pass", TooLarge::Pass)];
        rules.on_too_large = resolve.choice("on_too_large", &choices).unwrap_or_default();
        read_resolve(&mut resolve, known, problems, &mut rules);
        resolve.done();
    }
    fields.done();
    rules
}

/// The rules, and whether values are masked.
pub(super) fn read_response(
    mut fields: Fields<'_>,
    known: &Known,
    problems: &Problems,
) -> (Rules, bool) {
    let mut rules = Rules::default();
    if let Some(mut set) = fields.object("set") {
        read_set_headers(&mut set, known, problems, &mut rules);
        set.done();
    }
    if let Some(mut resolve) = fields.object("resolve") {
        read_resolve(&mut resolve, known, problems, &mut rules);
        resolve.done();
    }
    let redact = fields.boolean("redact").unwrap_or_default();
    fields.done();
    (rules, redact)
}

/// The header must not be one that holds a secret by the time it is read.
pub(super) fn read_audit(mut fields: Fields<'_>, request: Option<&Rules>) -> Audit {
    let client_header = fields.text("client_header").map(|h| h.to_ascii_lowercase());
    if let Some(name) = &client_header {
        let set = |rules: &Rules| rules.set_headers.iter().any(|(set, _)| set == name);
        let filled = request.is_some_and(|r| set(r) || r.resolve_headers.lists(name.as_bytes()));
        let secret = ["authorization", "proxy-authorization", "cookie"].contains(&name.as_str());
        if filled || secret {
            let message = "is a header that may hold a secret, which would be in the log";
            fields.problem("client_header", message);
        } else if !placement::is_header_target(name.as_bytes()) {
            fields.problem("client_header", "is no header name");
        }
    }
    fields.done();
    Audit { client_header }
}

fn read_set_headers(set: &mut Fields<'_>, known: &Known, problems: &Problems, rules: &mut Rules) {
    let path = set.path("headers");
    for (name, text) in set.map_of_texts("headers") {
        let template = read_set_header(&name, &text, known, &format!("{path}.{name}"), problems);
        let header = template.map(|t| (name.to_ascii_lowercase(), t));
        rules.set_headers.extend(header);
    }
}

fn read_set_header(
    name: &str,
    text: &str,
    known: &Known,
    path: &str,
    problems: &Problems,
) -> Option<Template> {
    if !placement::is_header_target(name.as_bytes()) {
        problems.add(path, "is not a header that may be set: it routes or frames the message, or is no header name");
        return None;
    }
    if !placement::fits_header(text.as_bytes()) {
        problems.add(
            path,
            "holds a control character (a line break?), which no header can",
        );
        return None;
    }
    read_template(text, known, path, problems)
}

fn read_template(text: &str, known: &Known, path: &str, problems: &Problems) -> Option<Template> {
    let template = Template::parse(text.as_bytes());
    let before = problems_of(&template, known);
    for message in &before {
        problems.add(path, message);
    }
    before.is_empty().then_some(template)
}

fn problems_of(template: &Template, known: &Known) -> Vec<String> {
    let references = template.parts.iter().filter_map(|part| match part {
        Part::Reference { parsed, .. } => Some(parsed),
        Part::Literal(_) => None,
    });
    references
        .filter_map(|parsed| match parsed {
            Ok(reference) => known.problem_of(reference),
            Err(error) => Some(format!("holds a reference that cannot be read: {error}")),
        })
        .collect()
}

fn read_resolve(resolve: &mut Fields<'_>, known: &Known, problems: &Problems, rules: &mut Rules) {
    let path = resolve.path("headers");
    let names = resolve.texts("headers").unwrap_or_default();
    for (index, name) in names.iter().enumerate() {
        let literal = name.replace('*', "x");
        if !placement::is_header_target(literal.as_bytes()) {
            let message = "is not a header that may be resolved: it routes or frames the message, or is no header name";
            problems.add(format!("{path}[{index}]"), message);
        }
    }
    rules.resolve_headers = HeaderNames::new(names);
    rules.resolve_body = read_media_types(resolve, problems);
    let path = resolve.path("allow");
    let given = resolve.texts("allow").unwrap_or_default();
    if rules.resolves() && given.is_empty() {
        let message = "is missing: without it nothing is resolved in the places that are listed; \
                       list the references that may be resolved there, as VAULT/NAME (* stands for any)";
        problems.add(&path, message);
    }
    if !rules.resolves() && !given.is_empty() {
        let message = "lists references, but there is no place to resolve them in; \
                       list headers, query or body beside it";
        problems.add(&path, message);
    }
    let mut allowed = Vec::new();
    for (index, text) in given.iter().enumerate() {
        match Allowed::parse(text) {
            Ok(pattern)
                if pattern.vault().bytes().any(|b| b == b'*') || known.has(pattern.vault()) =>
            {
                allowed.push(pattern);
            }
            Ok(pattern) => problems.add(format!("{path}[{index}]"), known.unknown(pattern.vault())),
            Err(message) => problems.add(format!("{path}[{index}]"), message),
        }
    }
    rules.allow = Policy::new(allowed);
}

/// Only kinds whose rules of writing are known: elsewhere a value could break out of its place.
fn read_media_types(resolve: &mut Fields<'_>, problems: &Problems) -> MediaTypes {
    let path = resolve.path("body");
    let types = resolve.texts("body").unwrap_or_default();
    for (index, media_type) in types.iter().enumerate() {
        if Kind::of(&media_type.to_ascii_lowercase()).is_none() {
            let message = format!(
                "must be application/json, application/x-www-form-urlencoded, text/plain or a +json type, not {media_type}: \
                 of others it is not known how a value has to be written",
                media_type = Quoted(media_type)
            );
            problems.add(format!("{path}[{index}]"), message);
        }
    }
    MediaTypes::new(types.iter().map(|t| t.to_ascii_lowercase()).collect())
}
