//! The variables that a configuration is checked with. A check runs elsewhere than the gateway, so a
//! credential that the gateway will pass on is assumed, and said to be. It knows which credentials there
//! are, and none of their values.

use std::cell::RefCell;

use crate::document::Node;

/// A throw-away certificate, so that one can be assumed.
const CERTIFICATE: &str = include_str!("../../../tests/data/keys/bundle.pem");

/// What the gateway passes on, as far as its file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It is said elsewhere.
    Unknown,
    /// These, and nothing else.
    Exactly {
        /// Names of the gateway's own variables.
        host: Vec<String>,
        /// Names and values.
        values: Vec<(String, String)>,
    },
}

impl Passed {
    pub(crate) const fn exactly(host: Vec<String>, values: Vec<(String, String)>) -> Self {
        Self::Exactly { host, values }
    }
}

/// A variable of `--env`: `NAME=VALUE`, or `NAME` for one with any value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    name: String,
    value: Option<String>,
}

impl std::str::FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() {
            return Err("must be NAME or NAME=VALUE".into());
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

/// What a configuration sees.
pub(crate) struct Environment<'a> {
    given: &'a [Variable],
    own: &'a dyn Fn(&str) -> Option<String>,
    passed: &'a Passed,
    strict: bool,
    assumed: RefCell<Vec<String>>,
}

impl<'a> Environment<'a> {
    /// `own` is the environment of this process. With `strict` nothing is assumed.
    pub(crate) const fn new(
        given: &'a [Variable],
        own: &'a dyn Fn(&str) -> Option<String>,
        passed: &'a Passed,
        strict: bool,
    ) -> Self {
        Self {
            given,
            own,
            passed,
            strict,
            assumed: RefCell::new(Vec::new()),
        }
    }

    /// A variable's value.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        if let Some(given) = self.given.iter().find(|given| given.name == name) {
            return given.value.clone().or_else(|| placeholder(name));
        }
        let host = match self.passed {
            Passed::Unknown => {
                let assumed = self.assumed.borrow().iter().any(|assumed| assumed == name);
                return (self.own)(name).or_else(|| assumed.then(|| placeholder(name))?);
            }
            Passed::Exactly { host, values } => {
                if let Some((_, value)) = values.iter().find(|(other, _)| other == name) {
                    return Some(value.clone());
                }
                host
            }
        };
        if !host.iter().any(|other| other == name) {
            return None;
        }
        (self.own)(name).or_else(|| {
            let value = placeholder(name).filter(|_| !self.strict)?;
            self.note(name);
            Some(value)
        })
    }

    fn note(&self, name: &str) {
        let mut assumed = self.assumed.borrow_mut();
        if !assumed.iter().any(|other| other == name) {
            assumed.push(name.to_owned());
        }
    }

    /// Assumes the credential whose absence is a problem at this path; whether there is one to assume.
    pub(crate) fn assume_for(&self, path: &str, configuration: &Node) -> bool {
        if self.strict || *self.passed != Passed::Unknown {
            return false;
        }
        let names = credentials_at(path, configuration);
        names.iter().for_each(|name| self.note(name));
        !names.is_empty()
    }

    /// The variables that were assumed.
    pub(crate) fn assumed(self) -> Vec<String> {
        self.assumed.into_inner()
    }
}

/// The variables that hold the credential of `vaults[N].config.FIELD`.
fn credentials_at(path: &str, configuration: &Node) -> Vec<String> {
    let Some((vault, field)) = path.rsplit_once(".config.") else {
        return Vec::new();
    };
    let index = vault
        .strip_prefix("vaults[")
        .and_then(|rest| rest.strip_suffix(']')?.parse::<usize>().ok());
    let vaults = configuration.get("vaults").map(Node::items);
    let config = index
        .and_then(|index| vaults?.get(index))
        .and_then(|vault| vault.get("config"));
    let setting = |name: &str| config.and_then(|config| config.text_at(&[name]));
    let prefix = setting("credentials_prefix").unwrap_or("AZURE");
    match (field, setting("managed_identity_source")) {
        ("client_secret", _) => vec![format!("{prefix}_CLIENT_SECRET")],
        ("client_certificate", _) => vec![format!("{prefix}_CLIENT_CERTIFICATE")],
        ("identity" | "managed_identity_endpoint", Some("app_service")) => {
            vec!["IDENTITY_ENDPOINT".into(), "IDENTITY_HEADER".into()]
        }
        ("identity" | "managed_identity_endpoint", Some("app_service_2017")) => {
            vec!["MSI_ENDPOINT".into(), "MSI_SECRET".into()]
        }
        _ => Vec::new(),
    }
}

/// A value of the right form for a credential; `None` for what decides more than that, such as a vault's
/// address.
fn placeholder(name: &str) -> Option<String> {
    if name.ends_with("_CLIENT_CERTIFICATE") {
        return Some(CERTIFICATE.to_owned());
    }
    if matches!(name, "IDENTITY_ENDPOINT" | "MSI_ENDPOINT")
        || name.ends_with("_FEDERATED_TOKEN_URL")
    {
        return Some("http://127.0.0.1/assumed".to_owned());
    }
    let is_credential = matches!(name, "IDENTITY_HEADER" | "MSI_SECRET")
        || name.ends_with("_CLIENT_SECRET")
        || name.ends_with("_FEDERATED_TOKEN");
    is_credential.then(|| "assumed".to_owned())
}
