//! A simple request.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// The body of a simple Chat Completions request: a model, messages and parameters.
///
/// For more, send any type that serializes to the provider's JSON.
///
/// ```
/// use l0_providers::openai::ChatRequest;
///
/// let request = ChatRequest::new("gpt-4o-mini")
///     .system("Be brief.")
///     .user("What is a monad?")
///     .set("temperature", 0.2);
/// assert_eq!(
///     serde_json::to_value(&request).unwrap(),
///     serde_json::json!({
///         "model": "gpt-4o-mini",
///         "messages": [
///             {"role": "system", "content": "Be brief."},
///             {"role": "user", "content": "What is a monad?"},
///         ],
///         "temperature": 0.2,
///     }),
/// );
/// ```
#[derive(Clone, PartialEq, Serialize)]
#[must_use]
pub struct ChatRequest {
    model: String,
    messages: Vec<Message>,
    #[serde(flatten)]
    parameters: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, Serialize)]
struct Message {
    role: String,
    content: String,
}

impl ChatRequest {
    /// Creates a request to this model, without messages.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            messages: Vec::new(),
            parameters: BTreeMap::new(),
        }
    }

    /// Adds a message with a role of your choice.
    pub fn message(mut self, role: impl Into<String>, content: impl Into<String>) -> Self {
        self.messages.push(Message {
            role: role.into(),
            content: content.into(),
        });
        self
    }

    /// Adds a message with the role `system`.
    pub fn system(self, content: impl Into<String>) -> Self {
        self.message("system", content)
    }

    /// Adds a message with the role `user`.
    pub fn user(self, content: impl Into<String>) -> Self {
        self.message("user", content)
    }

    /// Adds a message with the role `assistant`.
    pub fn assistant(self, content: impl Into<String>) -> Self {
        self.message("assistant", content)
    }

    /// Sets another parameter, such as `temperature` or `max_tokens`. The last value counts. `model` and `messages`
    /// have their own methods and are not changed.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let name = name.into();
        if !matches!(name.as_str(), "model" | "messages") {
            self.parameters.insert(name, value.into());
        }
        self
    }
}

/// Omits the texts of messages and the values of parameters, which may contain a prompt.
impl fmt::Debug for ChatRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<_> = self.parameters.keys().collect();
        f.debug_struct("ChatRequest")
            .field("model", &self.model)
            .field("messages", &self.messages.len())
            .field("parameters", &parameters)
            .finish_non_exhaustive()
    }
}
