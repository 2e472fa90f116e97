//! What one item of a source says: its kind, its text, and what the provider told along with it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::label::{label_enum, read_back};
use crate::price::Cost;
use crate::usage::Usage;

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
    /// What the request costs, if this item says so. The last one seen in an attempt wins, also over
    /// what a price list says.
    pub cost: Option<&'a Cost>,
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
            cost: None,
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

    /// Adds what the request costs.
    #[must_use]
    pub const fn cost(mut self, cost: &'a Cost) -> Self {
        self.cost = Some(cost);
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
