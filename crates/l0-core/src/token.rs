//! What one item of a source says: its kind, its text, and what the provider told along with it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::label::{label_enum, read_back};

/// How L0 reads one item of a source.
///
/// Implemented for strings and for references, boxes and `Arc`s of tokens. For a type of another
/// crate, use `view_with` on the run's builder instead.
///
/// ```
/// use l0_core::{Token, TokenView};
///
/// struct Delta {
///     content: String,
/// }
///
/// impl Token for Delta {
///     fn view(&self) -> TokenView<'_> {
///         TokenView::text(&self.content)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `Token`",
    label = "this stream's items do not implement `Token`",
    note = "implement `Token` for `{Self}`; or, if the type is not yours, say how it is read: `.view_with(|item| TokenView::text(&item.text))` before `.start()`"
)]
pub trait Token {
    /// Whether a source of these items always says why it ended. If so, an end without a
    /// [`FinishReason`] is a truncated stream.
    const SENDS_FINISH: bool = false;

    /// Borrows what the item says. Called once per item, on the hot path: it should not allocate.
    fn view(&self) -> TokenView<'_>;
}

impl Token for str {
    fn view(&self) -> TokenView<'_> {
        TokenView::text(self)
    }
}

impl Token for String {
    fn view(&self) -> TokenView<'_> {
        TokenView::text(self)
    }
}

impl Token for Cow<'_, str> {
    fn view(&self) -> TokenView<'_> {
        TokenView::text(self)
    }
}

impl<T: Token + ?Sized> Token for &T {
    const SENDS_FINISH: bool = T::SENDS_FINISH;

    fn view(&self) -> TokenView<'_> {
        (**self).view()
    }
}

impl<T: Token + ?Sized> Token for Box<T> {
    const SENDS_FINISH: bool = T::SENDS_FINISH;

    fn view(&self) -> TokenView<'_> {
        (**self).view()
    }
}

impl<T: Token + ?Sized> Token for Arc<T> {
    const SENDS_FINISH: bool = T::SENDS_FINISH;

    fn view(&self) -> TokenView<'_> {
        (**self).view()
    }
}

/// What one item says, borrowed from it.
///
/// An item counts as a *token* if its kind is [`Text`](TokenKind::Text),
/// [`Reasoning`](TokenKind::Reasoning) or [`ToolCall`](TokenKind::ToolCall) and its text is not
/// empty, or if its kind is [`Media`](TokenKind::Media): it is counted, sets the time to first token
/// and makes gaps. One item is one token, however many of the model's own tokens the provider packed
/// into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenView<'a> {
    /// What the text is.
    pub kind: TokenKind,
    /// The new text, a delta; empty if the item carries none.
    pub text: &'a str,
    /// The name of the tool that is called, if this item says so: the first piece of a call does. The
    /// text may be the same name, where the piece has nothing else.
    pub tool: Option<&'a str>,
    /// The provider's own token counts, if this item carries them. The last one seen in an attempt
    /// wins: counts are never added up over items.
    pub usage: Option<Usage>,
    /// Why the model stopped, if this item says so.
    pub finish: Option<FinishReason>,
    /// The model that answers, as the provider names it, if this item says so.
    pub model: Option<&'a str>,
    /// The provider's id of the response, if this item says so.
    pub response_id: Option<&'a str>,
}

impl<'a> TokenView<'a> {
    pub(crate) const fn new(kind: TokenKind, text: &'a str) -> Self {
        Self {
            kind,
            text,
            tool: None,
            usage: None,
            finish: None,
            model: None,
            response_id: None,
        }
    }

    /// Creates a piece of the answer.
    #[must_use]
    pub const fn text(text: &'a str) -> Self {
        Self::new(TokenKind::Text, text)
    }

    /// Creates a piece of the model's reasoning.
    #[must_use]
    pub const fn reasoning(text: &'a str) -> Self {
        Self::new(TokenKind::Reasoning, text)
    }

    /// Creates a piece of a tool call: its name or its arguments.
    #[must_use]
    pub const fn tool_call(text: &'a str) -> Self {
        Self::new(TokenKind::ToolCall, text)
    }

    /// Creates a piece of an image, of audio, or of other media.
    #[must_use]
    pub const fn media() -> Self {
        Self::new(TokenKind::Media, "")
    }

    /// Creates an item without text: a role, a usage report, a finish reason, a keep-alive.
    #[must_use]
    pub const fn other() -> Self {
        Self::new(TokenKind::Other, "")
    }

    /// Adds the name of the tool that is called.
    #[must_use]
    pub const fn tool(mut self, name: &'a str) -> Self {
        self.tool = Some(name);
        self
    }

    /// Adds the provider's token counts.
    #[must_use]
    pub const fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Adds the reason why the model stopped.
    #[must_use]
    pub const fn finish(mut self, finish: FinishReason) -> Self {
        self.finish = Some(finish);
        self
    }

    /// Adds the name of the model that answers.
    #[must_use]
    pub const fn model(mut self, model: &'a str) -> Self {
        self.model = Some(model);
        self
    }

    /// Adds the provider's id of the response.
    #[must_use]
    pub const fn response_id(mut self, response_id: &'a str) -> Self {
        self.response_id = Some(response_id);
        self
    }

    /// Returns the text if it is of the answer, and an empty text if not: what people are to read.
    /// Reasoning and tool calls are left out.
    #[must_use]
    pub const fn answer(&self) -> &'a str {
        match self.kind {
            TokenKind::Text => self.text,
            _ => "",
        }
    }

    /// Returns whether the item counts as a token: text of any kind but [`TokenKind::Other`], or
    /// media.
    #[must_use]
    pub const fn is_token(&self) -> bool {
        match self.kind {
            TokenKind::Text | TokenKind::Reasoning | TokenKind::ToolCall => !self.text.is_empty(),
            TokenKind::Media => true,
            TokenKind::Other => false,
        }
    }
}

label_enum! {
    /// What the text of an item is.
    pub enum TokenKind {
        /// The answer. Only this kind reaches `Run::text` and the checks.
        Text = "text",
        /// The model's reasoning.
        Reasoning = "reasoning",
        /// A tool call's name or arguments.
        ToolCall = "tool_call",
        /// An image, audio, or a piece of them. It counts as a token with or without a text.
        Media = "media",
        /// Anything else. Never counts as a token.
        Other = "other",
    }
}
read_back!(TokenKind);

/// The provider's own token counts. A count that the provider does not report is absent, never 0.
///
/// It means the same whatever the provider: `input` is all tokens of the prompt, those read from and
/// written to a cache included; `output` is all tokens that were generated, reasoning included;
/// `total` is their sum. Whoever reads a provider's counts into it sees to that.
///
/// These are the model's tokens, as billed; they are never mixed with L0's count of tokens, which
/// counts the items of the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Usage {
    /// All tokens of the prompt, those read from and written to a cache included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// All tokens that were generated, reasoning included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Tokens in all: input and output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Tokens of the prompt that came from the provider's cache; part of [`input`](Self::input).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<u64>,
    /// Tokens of the prompt that were written to the provider's cache; part of
    /// [`input`](Self::input).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_input: Option<u64>,
    /// Tokens that were reasoning; part of [`output`](Self::output).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Creates a usage without counts.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            input: None,
            output: None,
            total: None,
            cached_input: None,
            cache_write_input: None,
            reasoning: None,
        }
    }

    /// Sets all tokens of the prompt.
    #[must_use]
    pub const fn input(mut self, tokens: u64) -> Self {
        self.input = Some(tokens);
        self
    }

    /// Sets all tokens that were generated.
    #[must_use]
    pub const fn output(mut self, tokens: u64) -> Self {
        self.output = Some(tokens);
        self
    }

    /// Sets the tokens in all.
    #[must_use]
    pub const fn total(mut self, tokens: u64) -> Self {
        self.total = Some(tokens);
        self
    }

    /// Sets the prompt tokens that came from the provider's cache.
    #[must_use]
    pub const fn cached_input(mut self, tokens: u64) -> Self {
        self.cached_input = Some(tokens);
        self
    }

    /// Sets the prompt tokens that were written to the provider's cache.
    #[must_use]
    pub const fn cache_write_input(mut self, tokens: u64) -> Self {
        self.cache_write_input = Some(tokens);
        self
    }

    /// Sets the generated tokens that were reasoning.
    #[must_use]
    pub const fn reasoning(mut self, tokens: u64) -> Self {
        self.reasoning = Some(tokens);
        self
    }

    /// Adds up two usages, count by count. What is absent in both stays absent. The total of a usage
    /// that has none is what it adds to input and output.
    ///
    /// ```
    /// use l0_core::Usage;
    ///
    /// let first = Usage::new().input(10).output(3).total(13);
    /// let cut = Usage::new().input(12);
    /// assert_eq!(first.plus(cut), Usage::new().input(22).output(3).total(25));
    /// ```
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        // One that was cut tells no total, and yet is part of what was billed.
        let known = |usage: Self| usage.with_total().total;
        let is_told = self.total.is_some() || other.total.is_some();
        Self {
            input: add(self.input, other.input),
            output: add(self.output, other.output),
            total: add(known(self), known(other)).filter(|_| is_told),
            cached_input: add(self.cached_input, other.cached_input),
            cache_write_input: add(self.cache_write_input, other.cache_write_input),
            reasoning: add(self.reasoning, other.reasoning),
        }
    }

    /// Sets the total to what it adds to those of others.
    pub(crate) fn with_total(mut self) -> Self {
        self.total = self.total.or_else(|| add(self.input, self.output));
        self
    }
}

/// Adds up counts of which either may be unknown.
fn add(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

label_enum! {
    /// Why the model stopped, normalised over providers.
    pub enum FinishReason {
        /// The answer is complete.
        Stop = "stop",
        /// The token limit was reached.
        Length = "length",
        /// The model asks for tool calls.
        ToolCalls = "tool_calls",
        /// The provider withheld content.
        ContentFilter = "content_filter",
        /// The model refused to answer.
        Refusal = "refusal",
        /// Any other reason, or the provider's end mark without a reason.
        Other = "other",
    }
}
read_back!(FinishReason);

impl FinishReason {
    /// Returns whether an answer may well be empty for this reason: the limit left no room for one,
    /// or there was not to be one.
    pub(crate) const fn explains_no_output(self) -> bool {
        matches!(self, Self::Length | Self::ContentFilter | Self::Refusal)
    }
}
