//! Tokens: the kind and text of a source's item, and what the provider reported with it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::label::{label_enum, read_back};
use crate::price::Cost;
use crate::usage::Usage;

/// A type of stream item that L0 can read.
///
/// Implemented for strings, and for references, boxes and `Arc`s of tokens. For a type of another
/// crate, call `view_with` on the run's builder instead.
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
    note = "implement `Token` for `{Self}`; or, for a type from another crate, pass a function that reads it: `.view_with(|item| TokenView::text(&item.text))` before `.start()`"
)]
pub trait Token {
    /// `true` if a source of these items always reports why it ended. A stream that ends without a
    /// [`FinishReason`] is then truncated.
    const SENDS_FINISH: bool = false;

    /// Returns a borrowed view of the item. Called once per item on the hot path, so it should not
    /// allocate.
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

/// A view of one item, borrowed from it.
///
/// An item is a *token* if its kind is [`Text`](TokenKind::Text), [`Reasoning`](TokenKind::Reasoning)
/// or [`ToolCall`](TokenKind::ToolCall) and its text is not empty, or if its kind is
/// [`Media`](TokenKind::Media). Tokens are counted, set the time to first token and have gaps between
/// them. One item is one token, even if the provider packed several of the model's own tokens into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenView<'a> {
    /// The kind of the text.
    pub kind: TokenKind,
    /// The new text, a delta. Empty if the item has no text.
    pub text: &'a str,
    /// The name of the called tool. The first piece of a tool call carries it. The text can be the same
    /// name if the piece contains nothing else.
    pub tool: Option<&'a str>,
    /// The provider's own token counts, if this item carries them. The last counts seen in an attempt
    /// win. Counts of several items are never added up.
    pub usage: Option<Usage>,
    /// The cost of the request, if this item carries it. The last cost seen in an attempt wins, and
    /// takes precedence over a price list.
    pub cost: Option<&'a Cost>,
    /// Why the model stopped, if this item reports it.
    pub finish: Option<FinishReason>,
    /// The model that answers, as named by the provider, if this item reports it.
    pub model: Option<&'a str>,
    /// The provider's response id, if this item reports it.
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

    /// Creates a view of a piece of the answer.
    #[must_use]
    pub const fn text(text: &'a str) -> Self {
        Self::new(TokenKind::Text, text)
    }

    /// Creates a view of a piece of the model's reasoning.
    #[must_use]
    pub const fn reasoning(text: &'a str) -> Self {
        Self::new(TokenKind::Reasoning, text)
    }

    /// Creates a view of a piece of a tool call: its name or its arguments.
    #[must_use]
    pub const fn tool_call(text: &'a str) -> Self {
        Self::new(TokenKind::ToolCall, text)
    }

    /// Creates a view of a piece of an image, audio or other media.
    #[must_use]
    pub const fn media() -> Self {
        Self::new(TokenKind::Media, "")
    }

    /// Creates a view of an item without text: a role, a usage report, a finish reason, a keep-alive.
    #[must_use]
    pub const fn other() -> Self {
        Self::new(TokenKind::Other, "")
    }

    /// Sets the name of the called tool.
    #[must_use]
    pub const fn tool(mut self, name: &'a str) -> Self {
        self.tool = Some(name);
        self
    }

    /// Sets the provider's token counts.
    #[must_use]
    pub const fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Sets the cost of the request.
    #[must_use]
    pub const fn cost(mut self, cost: &'a Cost) -> Self {
        self.cost = Some(cost);
        self
    }

    /// Sets why the model stopped.
    #[must_use]
    pub const fn finish(mut self, finish: FinishReason) -> Self {
        self.finish = Some(finish);
        self
    }

    /// Sets the name of the model that answers.
    #[must_use]
    pub const fn model(mut self, model: &'a str) -> Self {
        self.model = Some(model);
        self
    }

    /// Sets the provider's response id.
    #[must_use]
    pub const fn response_id(mut self, response_id: &'a str) -> Self {
        self.response_id = Some(response_id);
        self
    }

    /// Returns the text if it belongs to the answer, and an empty text otherwise. Reasoning and tool
    /// calls are not part of the answer.
    #[must_use]
    pub const fn answer(&self) -> &'a str {
        match self.kind {
            TokenKind::Text => self.text,
            _ => "",
        }
    }

    /// Returns `true` if the item is a token: text of any kind except [`TokenKind::Other`], or media.
    #[must_use]
    pub const fn is_token(&self) -> bool {
        match self.kind {
            TokenKind::Text | TokenKind::Reasoning | TokenKind::ToolCall => !self.text.is_empty(),
            TokenKind::Media => true,
            TokenKind::Other => false,
        }
    }

    /// Returns `true` if the item is a token and carries nothing else about its attempt, except perhaps
    /// the model and the response id.
    #[inline(always)]
    pub(crate) const fn is_plain_token(&self) -> bool {
        self.is_token() && self.usage.is_none() && self.cost.is_none() && self.finish.is_none()
    }
}

label_enum! {
    /// The kind of an item's text.
    pub enum TokenKind {
        /// The answer. Only this kind reaches `Run::text` and the checks.
        Text = "text",
        /// The model's reasoning.
        Reasoning = "reasoning",
        /// A tool call's name or arguments.
        ToolCall = "tool_call",
        /// An image, audio, or a piece of them. Counts as a token with or without text.
        Media = "media",
        /// Anything else. Never counts as a token.
        Other = "other",
    }
}
read_back!(TokenKind);

label_enum! {
    /// Why the model stopped, normalized over providers.
    pub enum FinishReason {
        /// The answer is complete.
        Stop = "stop",
        /// The token limit was reached.
        Length = "length",
        /// The model requested tool calls.
        ToolCalls = "tool_calls",
        /// The provider withheld content.
        ContentFilter = "content_filter",
        /// The model refused to answer.
        Refusal = "refusal",
        /// Any other reason, or an end marker without a reason.
        Other = "other",
    }
}
read_back!(FinishReason);

impl FinishReason {
    /// Returns `true` if this reason explains an empty answer: the limit left no space for one, or the
    /// provider withheld it.
    pub(crate) const fn explains_no_output(self) -> bool {
        matches!(self, Self::Length | Self::ContentFilter | Self::Refusal)
    }
}
