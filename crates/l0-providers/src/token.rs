//! Tokens of a provider's stream.

use l0_core::{Cost, FinishReason, Token, TokenKind, TokenView, Usage};
use serde::{Deserialize, Serialize};

/// One piece of a provider's answer, owned.
///
/// One payload of the provider yields one token per kind of text and per choice, and one per piece of a tool call. A
/// payload without text yields a token of kind [`Other`](TokenKind::Other) if it has other useful content. [`Token`] is
/// implemented with `SENDS_FINISH`: a stream that ends without a finish reason is truncated.
///
/// Decoders create tokens; tests can use [`ProviderToken::new`]. Fields may be added in later versions. In JSON,
/// unknown values are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ProviderToken {
    /// The kind of content.
    pub kind: TokenKind,
    /// New text of the answer or of the reasoning, a delta. Empty if there is none, and in a piece of a tool call. Use
    /// [`answer`](Self::answer) for the text to display.
    #[serde(default)]
    pub text: String,
    /// The answer that this belongs to, counted from 0. Above 0 only if the request asked for several answers (`n`).
    #[serde(default)]
    pub choice: u32,
    /// The piece of a tool call; present for the kind [`ToolCall`](TokenKind::ToolCall).
    /// [`ToolCalls`](crate::ToolCalls) joins the pieces.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool_call: Option<ToolCall>,
    /// `true` if the text (of kind [`Text`](TokenKind::Text)) is the model's refusal to answer.
    #[serde(default)]
    pub refusal: bool,
    /// The token counts so far, on the tokens of payloads that carry counts. The last ones are valid for the response;
    /// they must not be added up. They have the same meaning for every provider: the input includes cache reads and
    /// writes, the output includes the reasoning, and the total is their sum. Counts that a provider does not report
    /// are absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// The cost of the response; absent if the provider does not report it. OpenRouter does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<Box<Cost>>,
    /// The finish reason of the response: that of the lowest choice, set once all choices seen so far have finished.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finish: Option<FinishReason>,
    /// The finish reason of this token's own choice, in the provider's spelling, on its last token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finish_reason: Option<String>,
    /// The model that answers, on the first token and whenever it changes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    /// The provider's id of the response, on the first token and whenever it changes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response_id: Option<String>,
}

impl ProviderToken {
    /// Creates a token of choice 0 with no other content.
    #[must_use]
    pub fn new(kind: TokenKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            choice: 0,
            tool_call: None,
            refusal: false,
            usage: None,
            cost: None,
            finish: None,
            finish_reason: None,
            model: None,
            response_id: None,
        }
    }

    /// Creates a token of choice 0 that is a piece of a tool call.
    #[must_use]
    pub fn tool_call(call: ToolCall) -> Self {
        let mut token = Self::new(TokenKind::ToolCall, "");
        token.tool_call = Some(call);
        token
    }

    /// Returns the text to display: that of the answer. Empty for reasoning, tool calls and other kinds.
    #[must_use]
    pub fn answer(&self) -> &str {
        self.view().answer()
    }

    /// Returns the text that this token is a piece of: answer, reasoning or arguments.
    pub(crate) fn piece_mut(&mut self) -> &mut String {
        match &mut self.tool_call {
            Some(call) => &mut call.arguments,
            None => &mut self.text,
        }
    }
}

/// A piece of a tool call is read as its arguments, or as its name if it has no arguments. So a piece that only names a
/// call is a token too.
impl Token for ProviderToken {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        let text = match &self.tool_call {
            Some(call) if call.arguments.is_empty() => call.name.as_deref().unwrap_or_default(),
            Some(call) => &call.arguments,
            None => &self.text,
        };
        let mut view = TokenView::text(text);
        view.kind = self.kind;
        view.tool = self
            .tool_call
            .as_ref()
            .and_then(|call| call.name.as_deref());
        view.usage = self.usage;
        view.cost = self.cost.as_deref();
        view.finish = self.finish;
        view.model = self.model.as_deref();
        view.response_id = self.response_id.as_deref();
        view
    }
}

/// A piece of a tool call.
///
/// The pieces of one call have the same choice and index. Usually only the first piece has the id and the name. The
/// arguments of all pieces, concatenated, are the call's arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ToolCall {
    /// The call's position among the calls of its choice, counted from 0. If the provider sends no position, or the
    /// same one for several calls, they are numbered in order of arrival.
    pub index: u32,
    /// The provider's id of the call; absent if this piece does not have it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// The name of the function; absent if this piece does not have it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// New text of the arguments, a delta; empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub arguments: String,
    /// `true` if the provider runs the call itself, such as Anthropic's web search. Set on the piece that has the name.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub hosted: bool,
}

impl ToolCall {
    /// Creates a piece without id, name and arguments.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self {
            index,
            id: None,
            name: None,
            arguments: String::new(),
            hosted: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_written_and_reads_back() {
        let mut call = ToolCall::new(1);
        call.id = Some("a".to_owned());
        call.name = Some("get_weather".to_owned());
        call.arguments = "{".to_owned();
        let mut token = ProviderToken::tool_call(call);
        let written = json!({
            "kind": "tool_call", "text": "", "choice": 0, "refusal": false,
            "toolCall": {"index": 1, "id": "a", "name": "get_weather", "arguments": "{"},
        });
        assert_eq!(serde_json::to_value(&token).unwrap(), written);
        token.usage = Some(Usage::new().input(3));
        token.finish = Some(FinishReason::ToolCalls);
        let json = serde_json::to_string(&token).unwrap();
        assert_eq!(serde_json::from_str::<ProviderToken>(&json).unwrap(), token);

        let newer = json!({"kind": "hologram", "text": "", "finish": "bored", "more": 1});
        let token: ProviderToken = serde_json::from_value(newer).unwrap();
        assert_eq!(token.kind, TokenKind::Other);
        assert_eq!(token.finish, Some(FinishReason::Other));
    }

    #[test]
    fn a_piece_of_a_call_is_read_as_its_arguments_or_else_its_name() {
        let mut call = ToolCall::new(0);
        let empty = ProviderToken::tool_call(call.clone());
        assert!(!empty.view().is_token());
        call.name = Some("get_weather".to_owned());
        let named = ProviderToken::tool_call(call.clone());
        assert_eq!(named.view().text, "get_weather");
        call.arguments = "{}".to_owned();
        let whole = ProviderToken::tool_call(call);
        let expected = TokenView::tool_call("{}").tool("get_weather");
        assert_eq!(whole.view(), expected);
        for token in [empty, named, whole] {
            assert_eq!(token.answer(), "");
        }
    }

    #[test]
    fn only_the_answer_is_text_to_display() {
        let answer = |kind| ProviderToken::new(kind, "a").answer().to_owned();
        assert_eq!(answer(TokenKind::Text), "a");
        for kind in [TokenKind::Reasoning, TokenKind::ToolCall, TokenKind::Other] {
            assert_eq!(answer(kind), "");
        }
    }
}
