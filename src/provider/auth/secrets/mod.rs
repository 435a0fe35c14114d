//! Fetches secrets from where they are kept: Vault, AWS Secrets Manager, Google Secret Manager.

mod aws;
mod google;
mod vault;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AuthFault, Setup};
use crate::config::{self, CloudEnvironment, Manager, Reference, Secret};
use crate::net::client::Client;

/// Asks those who keep secrets. Each is opened when it is first needed, and what it knows of itself
/// (tokens, credentials) is kept.
#[derive(Debug)]
pub struct Managers {
    settings: config::Secrets,
    client: Client,
    environment: CloudEnvironment,
    vault: Option<vault::Vault>,
    aws: Option<aws::Secrets>,
    google: Option<google::Secrets>,
}

/// What was found under one name, in one round.
#[derive(Debug, Default)]
pub struct Round(BTreeMap<(Manager, String), Result<Document, String>>);

/// What is kept under one name.
#[derive(Debug, Clone)]
enum Document {
    Text(Secret),
    /// Values by their names. It is never printed.
    Fields(BTreeMap<String, Secret>),
}

// === impl Managers ===

impl Managers {
    pub fn new(settings: config::Secrets, client: Client) -> Self {
        let environment = CloudEnvironment::read();
        Self { settings, client, environment, vault: None, aws: None, google: None }
    }

    /// How they are reached.
    pub fn settings(&self) -> &config::Secrets {
        &self.settings
    }

    /// The secret that `reference` stands for. What is kept under one name is fetched once a round.
    pub async fn fetch(
        &mut self,
        reference: &Reference,
        round: &mut Round,
    ) -> Result<Secret, String> {
        let place = (reference.manager, reference.name.clone());
        if !round.0.contains_key(&place) {
            let fetched = self.document(reference).await;
            round.0.insert(place.clone(), fetched);
        }
        let document = round.0.get(&place).ok_or_else(String::new)?;
        document.as_ref().map_err(Clone::clone)?.value(reference.field.as_deref())
    }

    async fn document(&mut self, reference: &Reference) -> Result<Document, String> {
        let name = &reference.name;
        let fetched = match reference.manager {
            Manager::Vault => self.vault()?.fetch(name).await,
            Manager::Aws => self.aws(name)?.fetch(name).await,
            Manager::Gcp => self.google()?.fetch(name).await,
        };
        fetched.map_err(|fault| fault.0)
    }

    fn vault(&mut self) -> Result<&vault::Vault, String> {
        if self.vault.is_none() {
            let settings = &self.settings.vault;
            let section = config::Provider {
                proxy: settings.proxy.clone(),
                ca: settings.ca.clone(),
                ..config::Provider::default()
            };
            self.vault = Some(vault::Vault::open(settings, self.setup(&section))?);
        }
        self.vault.as_ref().ok_or_else(String::new)
    }

    fn aws(&mut self, name: &str) -> Result<&aws::Secrets, String> {
        if self.aws.is_none() {
            self.aws = Some(aws::Secrets::open(self.setup(&self.settings.aws), name)?);
        }
        self.aws.as_ref().ok_or_else(String::new)
    }

    fn google(&mut self) -> Result<&google::Secrets, String> {
        if self.google.is_none() {
            self.google = Some(google::Secrets::open(self.setup(&self.settings.gcp))?);
        }
        self.google.as_ref().ok_or_else(String::new)
    }

    fn setup<'a>(&'a self, section: &'a config::Provider) -> Setup<'a> {
        Setup { section, environment: &self.environment, client: &self.client }
    }
}

// === impl Document ===

impl Document {
    /// Text that may be a JSON object of several values.
    fn text(text: &str) -> Result<Self, AuthFault> {
        // Files often end with one, and are then kept as they are.
        let text = text.trim_end_matches(['\r', '\n']);
        Secret::checked(text.to_owned()).map(Self::Text).or_else(|wrong| {
            // Only its values go anywhere.
            let is_object = serde_json::from_str::<Value>(text).is_ok_and(|json| json.is_object());
            if is_object { Ok(Self::Text(Secret::new(text))) } else { Err(AuthFault(wrong)) }
        })
    }

    fn fields(json: &Value) -> Self {
        let fields = json.as_object().into_iter().flatten();
        let field = |(name, value): (&String, &Value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((name.clone(), Secret::new(text)))
        };
        Self::Fields(fields.filter_map(field).collect())
    }

    fn value(&self, field: Option<&str>) -> Result<Secret, String> {
        let found = match (self, field) {
            (Self::Text(text), None) => Some(text.clone()),
            (Self::Text(text), Some(field)) => {
                let json = serde_json::from_str(text.expose()).unwrap_or_default();
                return Self::fields(&json).value(Some(field));
            }
            (Self::Fields(fields), Some(field)) => fields.get(field).cloned(),
            (Self::Fields(_), None) => None,
        };
        let found = found.ok_or_else(|| match field {
            Some(field) => format!("what is kept there has no text in a field {field:?}"),
            None => "several values are kept there; name one behind a `#`".to_owned(),
        })?;
        if found.expose().is_empty() {
            return Err("what is kept there is empty".to_owned());
        }
        Secret::checked(found.expose().to_owned())
    }
}

#[cfg(test)]
mod tests;
