//! Where a provider's endpoints are: what the catalogue writes, and the clouds' own ways.

use super::auth::{self, Setup};
use super::catalog::Kind;
use super::encode::push_segment;
use super::{Operation, azure, bedrock, vertex};
use crate::canon::Dialect;

/// The paths of one configured provider, behind the path of its base URL.
#[derive(Debug)]
pub(super) struct Paths {
    /// The path of the base URL, without a slash at its end.
    base: String,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// As the catalogue's row writes them.
    Row,
    /// Azure's: the model is a deployment. Where no API version is named, the newer form is meant,
    /// which keeps the model in the body, as OpenAI has it.
    Deployments {
        api_version: Option<String>,
    },
    Bedrock,
    Vertex {
        project: String,
        location: String,
    },
}

// === impl Paths ===

impl Paths {
    /// The paths of a kind, and the base URL of the section where it writes none.
    pub(super) fn of(kind: &Kind, setup: Setup<'_>) -> Result<(Self, String), String> {
        let Setup { section, environment, .. } = setup;
        let (form, home) = match kind.id {
            azure::ID => {
                (Form::Deployments { api_version: section.api_version.clone() }, String::new())
            }
            bedrock::ID => {
                let region = auth::aws_region(section, environment)?;
                let endpoint = environment.aws.bedrock_endpoint.clone();
                (Form::Bedrock, endpoint.unwrap_or_else(|| bedrock::base_url(&region)))
            }
            vertex::ID => {
                let location =
                    section.cloud.location.as_ref().or(environment.google.location.as_ref());
                let location = location.map_or(vertex::LOCATION, String::as_str).to_owned();
                let home = vertex::base_url(&location);
                let project = auth::google_project(section, environment)?;
                (Form::Vertex { project, location }, home)
            }
            _ => (Form::Row, kind.base_url.to_owned()),
        };
        Ok((Self { base: String::new(), form }, home))
    }

    /// The same behind the path of the base URL. Azure's newer form of it ends in `/v1`.
    pub(super) fn behind(self, base: &str) -> Self {
        let is_newer = match &self.form {
            Form::Deployments { api_version } => api_version.is_none() || base.ends_with("/v1"),
            _ => return Self { base: base.to_owned(), ..self },
        };
        if is_newer {
            return Self { base: azure::newer(base), form: Form::Row };
        }
        Self { base: base.to_owned(), ..self }
    }

    /// Whether this model is asked in this one of the kind's dialects.
    pub(super) fn lead(&self, dialect: Dialect, model: &str) -> bool {
        match &self.form {
            Form::Vertex { .. } => match vertex::publisher(model).0 {
                vertex::GOOGLE => dialect == Dialect::Gemini,
                vertex::ANTHROPIC => dialect == Dialect::Messages,
                _ => false,
            },
            // Deployments have no path for the newer API.
            Form::Deployments { .. } => dialect == Dialect::Chat,
            Form::Row | Form::Bedrock => true,
        }
    }

    pub(super) fn fill_in(&self, kind: &Kind, operation: Operation, model: &str) -> String {
        match &self.form {
            Form::Row => {
                let mut path = self.base.clone();
                if let Operation::Relay(_) = operation {
                    path.push_str(kind.relays.0);
                }
                push_template(&mut path, template(kind, operation), operation, model);
                path.push_str(match operation {
                    Operation::CountTokens(Dialect::Messages) => "/count_tokens",
                    Operation::CountTokens(Dialect::Responses) => "/input_tokens",
                    Operation::Compact => "/compact",
                    _ => "",
                });
                path
            }
            Form::Deployments { api_version } => {
                let mut path = String::new();
                push_template(&mut path, template(kind, operation), operation, model);
                let deployment = match operation {
                    // Files and batches are the resource's and no deployment's.
                    Operation::Relay(relay) if !relay.has_model() => None,
                    _ => Some(model),
                };
                let version = api_version.as_deref().unwrap_or_default();
                azure::path(&self.base, &path, deployment, version)
            }
            Form::Bedrock => bedrock::path(
                &self.base,
                model,
                match operation {
                    Operation::Chat { stream: true, .. } => bedrock::Operation::ConverseStream,
                    Operation::Chat { stream: false, .. } => bedrock::Operation::Converse,
                    Operation::CountTokens(_)
                    | Operation::Compact
                    | Operation::Completions
                    | Operation::Embeddings
                    | Operation::Relay(_) => bedrock::Operation::Invoke,
                },
            ),
            Form::Vertex { project, location } => {
                let method = match operation {
                    Operation::Chat { dialect: Dialect::Messages, stream: true } => {
                        vertex::Method::StreamRawPredict
                    }
                    Operation::Chat { dialect: Dialect::Messages, stream: false } => {
                        vertex::Method::RawPredict
                    }
                    Operation::CountTokens(Dialect::Messages) => vertex::Method::CountClaudeTokens,
                    Operation::CountTokens(_) => vertex::Method::CountTokens,
                    Operation::Chat { stream: true, .. } => vertex::Method::StreamGenerate,
                    Operation::Chat { stream: false, .. } => vertex::Method::Generate,
                    Operation::Compact
                    | Operation::Completions
                    | Operation::Embeddings
                    | Operation::Relay(_) => vertex::Method::Predict,
                };
                vertex::path(&self.base, (project, location), model, method)
            }
        }
    }
}

/// The path as the catalogue writes it.
fn template(kind: &Kind, operation: Operation) -> &'static str {
    let dialect = match operation {
        Operation::Completions => return "/completions",
        Operation::Embeddings => {
            return kind.embeds.first().map_or("/embeddings", |embeds| embeds.path);
        }
        Operation::Relay(relay) => return relay.path(),
        Operation::Chat { dialect, .. } | Operation::CountTokens(dialect) => dialect,
        Operation::Compact => Dialect::Responses,
    };
    let speaks = kind.speaks.iter().find(|(spoken, _)| *spoken == dialect);
    speaks.map_or("", |(_, path)| path)
}

/// Appends a path of the catalogue with the model and the method in their places.
fn push_template(path: &mut String, template: &str, operation: Operation, model: &str) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        match name {
            "model" | "id" => push_segment(path, model),
            _ => path.push_str(method(operation)),
        }
        rest = after;
    }
    path.push_str(rest);
}

/// What Gemini's API calls what is asked.
fn method(operation: Operation) -> &'static str {
    match operation {
        Operation::Chat { stream: true, .. } => "streamGenerateContent?alt=sse",
        Operation::Chat { stream: false, .. } => "generateContent",
        Operation::CountTokens(_) => "countTokens",
        Operation::Compact
        | Operation::Completions
        | Operation::Embeddings
        | Operation::Relay(_) => "batchEmbedContents",
    }
}
