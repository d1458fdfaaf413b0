//! Providers and MCP servers, and the rules their fields keep.

use std::collections::{BTreeMap, HashSet};

use agentrouter_envelope::Secret;
use agentrouter_kernel::id::{self, Id};
use agentrouter_kernel::{Timestamp, Violations};

/// The most models of a provider.
pub(crate) const MODELS_MAX: usize = 1000;
/// The longest name of a model, in characters.
pub(crate) const MODEL_NAME_MAX: usize = 255;
/// The largest priority and the largest weight.
pub(crate) const RANK_MAX: i32 = 1_000_000;
/// The weight of a provider that was given none.
pub(crate) const DEFAULT_WEIGHT: i32 = 1;
/// The longest API key, in characters: service account keys are whole documents.
pub(crate) const API_KEY_MAX: usize = 16_384;

/// The API that a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schema {
    /// OpenAI and compatible APIs.
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Azure OpenAI.
    AzureOpenAi,
    /// AWS Bedrock.
    AwsBedrock,
    /// Google Cloud Vertex AI.
    GcpVertexAi,
    /// Cohere.
    Cohere,
}

impl Schema {
    const ALL: [Self; 6] =
        [Self::OpenAi, Self::Anthropic, Self::AzureOpenAi, Self::AwsBedrock, Self::GcpVertexAi, Self::Cohere];

    /// The name in rows and in configurations.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::AzureOpenAi => "azure_openai",
            Self::AwsBedrock => "aws_bedrock",
            Self::GcpVertexAi => "gcp_vertex_ai",
            Self::Cohere => "cohere",
        }
    }

    /// Reads a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|schema| schema.as_str() == text)
    }
}

/// What an update can change, apart from the API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Name for people.
    pub(crate) display_name: String,
    /// The API it speaks.
    pub(crate) schema: Schema,
    /// Where it is reached.
    pub(crate) base_url: String,
    /// Models it serves.
    pub(crate) models: Vec<String>,
    /// Lower values are tried first.
    pub(crate) priority: i32,
    /// Share of the traffic among providers of the same priority.
    pub(crate) weight: i32,
    /// Labels.
    pub(crate) labels: BTreeMap<String, String>,
}

/// A stored provider. Its API key is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provider {
    /// Row id.
    pub(crate) id: Id<id::Provider>,
    /// Slug.
    pub(crate) slug: String,
    /// What an update can change.
    pub(crate) settings: Settings,
    /// Whether data planes route to it.
    pub(crate) enabled: bool,
    /// Whether an API key is stored.
    pub(crate) has_api_key: bool,
    /// Grows with every write.
    pub(crate) revision: i64,
    /// When it was created.
    pub(crate) created_at: Timestamp,
    /// When it last changed.
    pub(crate) updated_at: Timestamp,
}

/// A provider to create.
#[derive(Debug)]
pub(crate) struct NewProvider {
    /// Slug.
    pub(crate) slug: String,
    /// What an update can change later.
    pub(crate) settings: Settings,
    /// Whether data planes route to it.
    pub(crate) enabled: bool,
    /// Its API key, if it needs one.
    pub(crate) api_key: Option<Secret>,
}

/// What an update does. Absent fields stay as they are.
#[derive(Debug)]
pub(crate) struct Change {
    /// New name for people.
    pub(crate) display_name: Option<String>,
    /// New API.
    pub(crate) schema: Option<Schema>,
    /// New base URL.
    pub(crate) base_url: Option<String>,
    /// New models.
    pub(crate) models: Option<Vec<String>>,
    /// New priority.
    pub(crate) priority: Option<i32>,
    /// New weight.
    pub(crate) weight: Option<i32>,
    /// New labels.
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// What becomes of the API key.
    pub(crate) api_key: KeyChange,
}

/// What becomes of a stored API key.
#[derive(Debug)]
pub(crate) enum KeyChange {
    /// It stays.
    Keep,
    /// It becomes this one.
    Set(Secret),
    /// It is removed.
    Remove,
}

impl Settings {
    /// These settings after a change.
    #[must_use]
    pub(crate) fn changed(&self, change: Change) -> Self {
        let old = self.clone();
        Self {
            display_name: change.display_name.unwrap_or(old.display_name),
            schema: change.schema.unwrap_or(old.schema),
            base_url: change.base_url.unwrap_or(old.base_url),
            models: change.models.unwrap_or(old.models),
            priority: change.priority.unwrap_or(old.priority),
            weight: change.weight.unwrap_or(old.weight),
            labels: change.labels.unwrap_or(old.labels),
        }
    }
}

/// Models: at most 1000, each named once by 1 to 255 characters.
pub(crate) fn check_models(violations: &mut Violations, models: &[String]) {
    if models.len() > MODELS_MAX {
        return violations.add("models", format!("must have at most {MODELS_MAX} entries"));
    }
    let mut seen = HashSet::new();
    for (index, model) in models.iter().enumerate() {
        let field = format!("models[{index}]");
        if model.is_empty() {
            violations.add(field, "must not be empty");
        } else if !seen.insert(model) {
            violations.add(field, format!("{model:?} is listed twice"));
        } else {
            violations.text(&field, model, MODEL_NAME_MAX);
        }
    }
}

/// Priorities: 0 to 1000000.
pub(crate) fn check_priority(violations: &mut Violations, priority: i32) {
    violations.require((0..=RANK_MAX).contains(&priority), "priority", "must be from 0 to 1000000");
}

/// Weights: 1 to 1000000. A provider that should get no traffic is disabled instead.
pub(crate) fn check_weight(violations: &mut Violations, weight: i32) {
    violations.require((1..=RANK_MAX).contains(&weight), "weight", "must be from 1 to 1000000");
}

/// API keys. Descriptions of what is wrong never quote the key.
pub(crate) fn check_api_key(violations: &mut Violations, key: &str) {
    violations.require(key.is_empty() || !key.trim().is_empty(), "api_key", "must not be blank");
    violations.text("api_key", key, API_KEY_MAX);
}

/// A stored MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct McpServer {
    /// Identifier from the catalog.
    pub(crate) id: String,
    /// Where it is reached.
    pub(crate) url: String,
    /// Name for people.
    pub(crate) name: String,
    /// What it offers.
    pub(crate) description: String,
    /// URL of an icon.
    pub(crate) icon_url: String,
    /// Catalog tags.
    pub(crate) categories: Vec<String>,
    /// How clients authenticate.
    pub(crate) authentication: String,
    /// Whether they must.
    pub(crate) requires_auth: bool,
    /// Whether data planes offer it.
    pub(crate) enabled: bool,
    /// Grows with every write.
    pub(crate) revision: i64,
    /// When it was created.
    pub(crate) created_at: Timestamp,
    /// When it last changed.
    pub(crate) updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use agentrouter_kernel::Fault;

    use super::*;

    fn violations(check: impl FnOnce(&mut Violations)) -> Vec<(String, String)> {
        let mut violations = Violations::new();
        check(&mut violations);
        let fault = violations.finish().err();
        let found = fault.as_ref().map(Fault::violations).unwrap_or_default();
        found.iter().map(|found| (found.field.clone(), found.description.clone())).collect()
    }

    fn pair(field: &str, description: &str) -> (String, String) {
        (field.to_owned(), description.to_owned())
    }

    #[test]
    fn schemas_are_read_back_by_their_names() {
        for schema in Schema::ALL {
            assert_eq!(Schema::parse(schema.as_str()), Some(schema));
        }
        assert_eq!(Schema::parse("OpenAI"), None);
    }

    #[test]
    fn each_wrong_model_is_named() {
        let models = ["a", "", "a", "b\u{7}", &"m".repeat(256), &"m".repeat(255)].map(str::to_owned);
        let found = violations(|violations| check_models(violations, &models));
        assert_eq!(
            found,
            [
                pair("models[1]", "must not be empty"),
                pair("models[2]", "\"a\" is listed twice"),
                pair("models[3]", "must not contain control characters"),
                pair("models[4]", "must have at most 255 characters"),
            ]
        );
        let many: Vec<String> = (0..1000).map(|index| format!("model-{index}")).collect();
        assert_eq!(violations(|violations| check_models(violations, &many)), []);
        let more = [many, vec!["one-more".to_owned()]].concat();
        let found = violations(|violations| check_models(violations, &more));
        assert_eq!(found, [pair("models", "must have at most 1000 entries")]);
    }

    #[test]
    fn ranks_have_bounds() {
        for (priority, weight, wrong) in
            [(0, 1, 0), (1_000_000, 1_000_000, 0), (-1, 0, 2), (1_000_001, 1_000_001, 2)]
        {
            let found = violations(|violations| {
                check_priority(violations, priority);
                check_weight(violations, weight);
            });
            assert_eq!(found.len(), wrong, "{priority} {weight}");
        }
    }

    #[test]
    fn a_wrong_key_is_not_quoted() {
        assert_eq!(violations(|violations| check_api_key(violations, "")), []);
        assert_eq!(violations(|violations| check_api_key(violations, "{\n  \"type\": \"service\"\n}")), []);
        assert_eq!(
            violations(|violations| check_api_key(violations, "  ")),
            [pair("api_key", "must not be blank")]
        );
        let found = violations(|violations| {
            check_api_key(violations, &format!("sk-{}\u{0}", "x".repeat(API_KEY_MAX)));
        });
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|(_, description)| !description.contains("sk-")));
    }
}
