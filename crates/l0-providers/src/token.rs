//! What a provider's stream consists of.

use l0_core::{FinishReason, Token, TokenKind, TokenView, Usage};
use serde::{Deserialize, Serialize};

/// One piece of a provider's answer, owned.
///
/// One payload of the provider gives one token per kind of text it carries and per choice, and one
/// per piece of a tool call. A payload without text gives a token of kind
/// [`Other`](TokenKind::Other) if it says anything else worth knowing. [`Token`] is implemented
/// with `SENDS_FINISH`: a stream that ends without a finish reason was cut.
///
/// Fields may be added; tokens are made by the decoders, or from [`ProviderToken::new`] for tests.
/// In JSON, what is unknown is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ProviderToken {
    /// What the text is.
    pub kind: TokenKind,
    /// The new text, a delta; empty if there is none. Of a tool call: the function's name, if
    /// [`ToolCall::name`] is there, and then the new piece of the arguments.
    pub text: String,
    /// Which of the answers this belongs to, from 0; more than one only if the request asked for
    /// them (`n`).
    #[serde(default)]
    pub choice: u32,
    /// Which tool call this is a piece of; there for the kind [`ToolCall`](TokenKind::ToolCall).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool_call: Option<ToolCall>,
    /// Whether the text (of kind [`Text`](TokenKind::Text)) is the model's refusal to answer.
    #[serde(default)]
    pub refusal: bool,
    /// The token counts so far, on the tokens of the payloads that carry some. The last ones are
    /// valid for the response; they do not add up. They mean the same whatever the provider: the
    /// input has the cache reads and writes, the output has the reasoning, and the total is their
    /// sum. What a provider does not report is absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// Why the response ended, once all choices seen so far have finished: the reason of the
    /// lowest choice.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finish: Option<FinishReason>,
    /// Why this token's own choice ended, as the provider spells it, on its last token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finish_reason: Option<String>,
    /// The model that answers, on the first token and where it changes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    /// The provider's id of the response, on the first token and where it changes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response_id: Option<String>,
}

impl ProviderToken {
    /// A token of choice 0 that says nothing else.
    #[must_use]
    pub fn new(kind: TokenKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            choice: 0,
            tool_call: None,
            refusal: false,
            usage: None,
            finish: None,
            finish_reason: None,
            model: None,
            response_id: None,
        }
    }

    /// The new piece of a tool call's arguments: the text without the function's name. `None` if
    /// this is no piece of a tool call.
    #[must_use]
    pub fn arguments(&self) -> Option<&str> {
        let name = self.tool_call.as_ref()?.name.as_deref().unwrap_or_default();
        Some(self.text.strip_prefix(name).unwrap_or(&self.text))
    }
}

impl Token for ProviderToken {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        let mut view = TokenView::text(&self.text);
        view.kind = self.kind;
        view.usage = self.usage;
        view.finish = self.finish;
        view.model = self.model.as_deref();
        view.response_id = self.response_id.as_deref();
        view
    }
}

/// Which tool call a token is a piece of.
///
/// The pieces of one call have the same choice and index; id and name usually come with the first
/// piece only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ToolCall {
    /// The call's position among its choice's calls, from 0. Where the provider sends none, or the
    /// same one for several calls, they are numbered as they come.
    pub index: u32,
    /// The provider's id of the call, if this piece carries it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// The name of the function, if this piece carries it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
}

impl ToolCall {
    /// A call without id and name.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self {
            index,
            id: None,
            name: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_written_and_reads_back() {
        let mut token = ProviderToken::new(TokenKind::ToolCall, "get_weather{");
        let plain =
            json!({"kind": "tool_call", "text": "get_weather{", "choice": 0, "refusal": false});
        assert_eq!(serde_json::to_value(&token).unwrap(), plain);
        token.tool_call = Some(ToolCall::new(1));
        token.usage = Some(Usage::new().input(3));
        token.finish = Some(FinishReason::ToolCalls);
        let json = serde_json::to_string(&token).unwrap();
        assert_eq!(serde_json::from_str::<ProviderToken>(&json).unwrap(), token);

        let newer = json!({"kind": "hologram", "text": "", "finish": "bored", "more": 1});
        let token: ProviderToken = serde_json::from_value(newer).unwrap();
        assert_eq!(token.kind, TokenKind::Other);
        assert_eq!(token.finish, Some(FinishReason::Other));
    }
}
