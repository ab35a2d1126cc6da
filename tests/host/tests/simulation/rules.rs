//! What must hold whatever happened: each message arrives whole, masked, in order and once, or is refused;
//! no value under another name, none that is too old; no storm at Azure.

use std::collections::BTreeMap;

use envoy_test::emulator::{CallRecord, Endpoint};
use proxy_wasm_host::{Answer, Dialect, Outcome, Sent};

use super::traffic::{self, Asked, BODY, FRAME, Kind, SECOND, vault_and_name};
use super::world::MARK;
use super::{SECOND_CLIENT, Simulation, Stats};

impl Simulation {
    pub(crate) fn nothing_waits(&self) {
        assert_eq!(self.waiting(), [], "these requests hang");
    }

    pub(crate) fn every_request_arrives_by_the_rules(&self, stats: &mut Stats) {
        let upstream = self.upstream.borrow();
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        for sent in &upstream.seen {
            let number = traffic::number(sent);
            *times.entry(number).or_default() += 1;
            assert_eq!(times[&number], 1, "request {number} was sent twice");
            let asked = &self.asked[number];
            // Headers are decided before the host sends them: those of a slow request, and those that wait
            // for the second filter's secrets, by any time.
            let late = asked.slow || self.rules.second;
            let time = if late { 0 } else { sent.time };
            for (place, text) in &asked.texts {
                let bodyless = *place == BODY && !sent.complete;
                let unresolved = *place == SECOND && !self.rules.second;
                if bodyless {
                    continue;
                }
                let got = traffic::got(sent, place);
                if unresolved {
                    assert_eq!(got.as_ref(), Some(text), "no rule is about {place}");
                } else {
                    let at = format!("request {number} ({:?}), {place}: {text}", asked.kind);
                    self.check_text(&at, text, got.as_deref(), time, stats);
                }
            }
            self.check_whole(asked, sent);
            if self.rules.set {
                let at = format!("request {number} ({:?})", asked.kind);
                self.check_set(&at, sent, time);
            }
        }
    }

    /// The body's frame stayed, and what had nothing to change in it is the same byte for byte.
    fn check_whole(&self, asked: &Asked, sent: &Sent) {
        if !sent.complete || asked.kind == Kind::Upgrade {
            return;
        }
        let body = asked.texts.iter().find(|(place, _)| *place == BODY);
        if let Some((_, text)) = body {
            let before: serde_json::Value = serde_json::from_slice(&asked.body).expect("JSON");
            let after: serde_json::Value = serde_json::from_slice(&sent.body).expect("JSON");
            assert_eq!((&before["n"], &before["p"]), (&after["n"], &after["p"]));
            if !["azure", "second"]
                .iter()
                .any(|vault| text.contains(&format!("{{vault://{vault}/")))
            {
                assert_eq!(sent.body, asked.body, "nothing was to be changed");
            }
        } else {
            assert_eq!(sent.body, asked.body);
        }
        if asked.trailers && self.world.gateway.dialect() == Dialect::Envoy {
            let trailer = sent.trailers.text("x-trailer");
            assert_eq!(trailer, "{vault://azure/open-1}", "it stays as it is");
        }
    }

    pub(crate) fn every_answer_arrives_by_the_rules(&self, stats: &mut Stats) {
        for (number, asked) in self.asked.iter().enumerate() {
            match self.world.gateway.outcome(asked.id) {
                Outcome::Answered(answer) if answer.local => {
                    stats.denied += 1;
                    self.check_refusal(asked);
                }
                Outcome::Answered(answer) => self.check_answer(number, asked, &answer, stats),
                Outcome::Reset(_) => {
                    // Once the client has an answer's beginning, nothing but a reset can refuse.
                    let late = matches!(asked.kind, Kind::Early | Kind::Upgrade);
                    assert!(
                        late || self.drained || self.may_be_cut(number),
                        "request {number} was reset: {:?}",
                        asked.kind
                    );
                    stats.resets += 1;
                }
                Outcome::Gone => stats.left += 1,
                Outcome::Waiting => {}
            }
        }
    }

    /// Masking held the end of the body back as the possible beginning of a value, and trailers which the
    /// upstream had not announced ended the body: what is held cannot be written any more.
    fn may_be_cut(&self, number: usize) -> bool {
        let upstream = self.upstream.borrow();
        let said = upstream.said.get(&number);
        let log = self.world.gateway.log();
        let cut = |line: &proxy_wasm_host::LogLine| line.text.starts_with("event=response_cut ");
        said.is_some_and(traffic::has_unannounced_trailers) && log.iter().any(cut)
    }

    /// What was refused did not reach the upstream; where headers wait for their body, none of it did.
    fn check_refusal(&self, asked: &Asked) {
        let gateway = &self.world.gateway;
        if asked.kind == Kind::Redirect {
            return;
        }
        assert_eq!(
            gateway.sent(asked.id),
            None,
            "refused, and sent all the same"
        );
        if self.rules.hold_headers {
            assert_eq!(gateway.sent_so_far(asked.id), None, "its headers were sent");
        }
    }

    fn check_answer(&self, number: usize, asked: &Asked, answer: &Answer, stats: &mut Stats) {
        let upstream = self.upstream.borrow();
        // The host itself refuses a body that a filter holds beyond the limit, also one that was answered early.
        if answer.status == 413 && asked.body.len() > self.rules.body_limit {
            stats.too_large += 1;
            return;
        }
        let Some(said) = upstream.said.get(&number) else {
            panic!("request {number} was answered {} by no one", answer.status);
        };
        assert_eq!(answer.status, said.status);
        if asked.kind == Kind::Upgrade {
            assert_eq!(answer.body, FRAME.repeat(asked.frames), "a tunnel's bytes");
            return;
        }
        if self.rules.redact {
            self.check_masked(&said.body, &answer.body);
        } else {
            assert_eq!(answer.body, said.body, "the answer of request {number}");
        }
        if self.world.gateway.dialect() == Dialect::Envoy {
            assert_eq!(answer.trailers, said.trailers);
        }
        let length = |headers: &proxy_wasm_host::Headers| headers.text("content-length");
        if said.body.is_empty() && !length(&said.headers).is_empty() {
            assert_eq!(
                length(&answer.headers),
                length(&said.headers),
                "HEAD, 204, 304"
            );
        }
    }

    /// The same text with asterisks for each value of a secret.
    fn check_masked(&self, said: &[u8], got: &[u8]) {
        let (said, got) = (String::from_utf8_lossy(said), String::from_utf8_lossy(got));
        let (mut said, mut got) = (said.as_ref(), got.as_ref());
        while let Some(at) = said.find(MARK) {
            let (before, rest) = said.split_at(at);
            let after = got.strip_prefix(before);
            let after = after.unwrap_or_else(|| panic!("{got:.300} is not what came: {said:.300}"));
            let value = after_value(rest);
            let masked = after.trim_start_matches('*');
            assert!(masked.len() < after.len(), "not masked: {after:.200}");
            (said, got) = (value, masked);
        }
        assert!(
            said == got,
            "the rest is another: {said:.300} became {got:.300}"
        );
    }

    fn check_set(&self, at: &str, sent: &Sent, time: u64) {
        let got = sent.headers.text("authorization");
        match got.strip_prefix("Bearer ") {
            Some(value) if value.starts_with(MARK) => self.check_value("azure/db", value, time),
            Some(kept) => assert_eq!((kept, self.rules.on_error), ("{vault://azure/db}", "keep")),
            None => assert_ne!(
                self.rules.on_error, "deny",
                "{at} was sent without the operator's header: {sent:?}"
            ),
        }
    }

    fn check_text(&self, at: &str, text: &str, got: Option<&str>, time: u64, stats: &mut Stats) {
        let rest = text.strip_prefix("a ").unwrap_or(text);
        let name = rest
            .strip_prefix("{vault://")
            .and_then(|rest| rest.split_once('}'))
            .filter(|(name, _)| !name.starts_with("other/"));
        let listed = name.is_some_and(|(name, _)| name != "azure/closed");
        if !listed {
            // Not to be resolved: as it came; an escape loses its backslash.
            let plain = text.strip_prefix('\\').unwrap_or(text);
            assert!(
                got == Some(text) || got == Some(plain),
                "{at} became {got:?}"
            );
            return;
        }
        let name = name.map(|(name, _)| name).unwrap_or_default();
        // A host that cannot remove a header blanks it.
        let Some(got) = got.filter(|got| !got.is_empty()) else {
            assert_eq!(self.rules.on_error, "remove", "{at} was dropped");
            return;
        };
        if got == text {
            assert_eq!(self.rules.on_error, "keep", "{at} was let through");
            return;
        }
        let value = if text.starts_with("a ") {
            let inner = got.strip_prefix("a ").and_then(|v| v.strip_suffix(" z"));
            inner.expect("the text around it")
        } else {
            got
        };
        self.check_value(name, value, time);
        stats.resolved += 1;
    }

    /// A value of this secret, and no older than the rules allow.
    fn check_value(&self, name: &str, value: &str, time: u64) {
        let version = self.versions.iter().find(|v| v.value == value);
        let version = version.unwrap_or_else(|| panic!("{value} is no value that any secret had"));
        assert_eq!(version.secret, name, "another's value: {value}");
        if let (Some(until), Some(longest), false) =
            (version.until, self.rules.longest(), self.jumped)
        {
            let age = time.saturating_sub(until);
            assert!(
                age < longest.max(1),
                "{value} was replaced {age} ms ago; {:?}",
                self.rules
            );
        }
    }

    pub(crate) fn nothing_unlisted_is_fetched(&self) {
        assert_eq!(self.world.azure.secret_calls("closed"), 0);
    }

    pub(crate) fn each_token_goes_to_its_own_vault(&self) {
        for call in self.world.azure.calls() {
            let client = match call.client.as_deref() {
                Some(SECOND_CLIENT) => "second",
                Some(_) => "azure",
                None => continue,
            };
            assert_eq!(
                call.host,
                host_of(client),
                "another identity's token: {call:?}"
            );
        }
    }

    /// Failures are tried again after half a second at the earliest, values are renewed at 7/10 of their
    /// ttl at the earliest; on WasmX each waiting request calls for itself, and what a small cache evicted is
    /// fetched again for each request. Token calls have a bound that
    /// no request can lift: some at once, then one a second, in each VM.
    pub(crate) fn azure_is_not_stormed(&self) {
        let seconds = (self.world.gateway.now().saturating_sub(self.started) / 1000) as usize;
        let vms = (self.workers + 1) * if self.rules.second { 2 } else { 1 };
        let shares = self.world.gateway.dialect() == Dialect::Envoy && !self.rules.small_limits;
        let calls = self.world.azure.calls();
        for secret in &self.secrets {
            let asks = self.asked.iter().flat_map(|a| &a.texts);
            let asks = asks.filter(|(_, text)| text.contains(secret.as_str()));
            let (vault, name) = vault_and_name(secret);
            let host = host_of(vault);
            let path = format!("/secrets/{name}?");
            let to_it = |call: &&CallRecord| call.host == host && call.path.starts_with(&path);
            let own = if shares { 0 } else { asks.count() * 2 };
            let most = own + vms * (4 + 2 * seconds + 2 * self.lost);
            let calls = calls.iter().filter(to_it).count();
            assert!(
                self.jumped || calls <= most,
                "{secret}: {calls} calls, {most} at the most"
            );
        }
        let identities = 2;
        let tokens = self.world.azure.count(Endpoint::Token);
        let most = identities * vms * ((self.lost + 1) * 4 + seconds);
        assert!(tokens <= most, "{tokens} token calls, {most} at the most");
    }
}

fn host_of(vault: &str) -> &'static str {
    match vault {
        "azure" => "emulated.vault.azure.net",
        _ => "second.vault.azure.net",
    }
}

/// What follows a value, which ends in a number behind `#`, at the beginning of this text.
fn after_value(text: &str) -> &str {
    let name = text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-');
    let number = name.strip_prefix('#').or_else(|| name.strip_prefix("%23"));
    number.map_or(name, |n| n.trim_start_matches(|c: char| c.is_ascii_digit()))
}
