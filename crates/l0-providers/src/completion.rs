//! A whole answer.

use std::collections::BTreeMap;

use l0_core::{Cost, FinishReason, Token, TokenKind, TokenView, Usage};
use serde::{Deserialize, Serialize};

use crate::error::{AnswerTooLarge, ProviderError};
use crate::finish::Finish;
use crate::token::ProviderToken;
use crate::tool_calls::{TooManyCalls, ToolCalls, WholeCall};

/// A model's whole answer, returned by a request that does not stream, such as `openai::Client::chat_once`.
///
/// It is read by the same code as a stream, and has what the tokens of a stream of the same answer have. Fields may be
/// added in later versions. In JSON, unknown values are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Completion {
    /// The answer; empty if the model sent none.
    pub text: String,
    /// The model's reasoning; empty if the provider sent none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// The tool calls, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<WholeCall>,
    /// `true` if the text is the model's refusal to answer.
    pub refusal: bool,
    /// Number of images, audio clips and files. Their data is not read.
    pub media: u32,
    /// The reason why the answer ended; [`Other`](FinishReason::Other) if the provider reports none. Absent in one of
    /// [`others`](Self::others) without a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish: Option<FinishReason>,
    /// The finish reason, in the provider's spelling; absent if the provider sends none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// The token counts of all answers to the request, with the same meaning for every provider;
    /// absent if the provider reports none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The cost of the answer; absent if the provider does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Box<Cost>>,
    /// The model that answered, as named by the provider; absent if it does not name one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider's id of the response; absent if it sends none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The other answers, if the request asked for several (`n`). They have no usage, model or id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Completion>,
}

impl Completion {
    /// Creates a completion without text, for tests.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// Read as its text, or as its first tool call if it has no text, with its metadata.
impl Token for Completion {
    fn view(&self) -> TokenView<'_> {
        let mut view = match &*self.tool_calls {
            [call, ..] if self.text.is_empty() => {
                TokenView::tool_call(&call.arguments).tool(&call.name)
            }
            _ => TokenView::text(&self.text),
        };
        view.usage = self.usage;
        view.cost = self.cost.as_deref();
        view.finish = self.finish;
        view.model = self.model.as_deref();
        view.response_id = self.response_id.as_deref();
        view
    }
}

/// Collects the tokens of a response.
pub(crate) struct Gathered {
    choices: BTreeMap<u32, Completion>,
    calls: ToolCalls,
    /// Metadata of the response, which belongs to no single choice.
    metadata: Completion,
    bytes: usize,
    max_bytes: usize,
}

impl Gathered {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            choices: BTreeMap::new(),
            calls: ToolCalls::new().max_bytes(max_bytes),
            metadata: Completion::new(),
            bytes: 0,
            max_bytes,
        }
    }

    pub(crate) fn push<E>(&mut self, token: ProviderToken) -> Result<(), ProviderError<E>> {
        let too_large = |limit, of| ProviderError::AnswerTooLarge(AnswerTooLarge { limit, of });
        self.calls.push(&token).map_err(|error| match error {
            TooManyCalls::Calls { limit } => too_large(limit, "tool calls"),
            TooManyCalls::Bytes { limit } => too_large(limit, "bytes"),
        })?;
        let mut bytes = token.text.len();
        if !self.choices.contains_key(&token.choice) {
            bytes += size_of::<Completion>();
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.max_bytes {
            return Err(too_large(self.max_bytes, "bytes"));
        }
        let choice = self.choices.entry(token.choice).or_default();
        match token.kind {
            TokenKind::Text => choice.text.push_str(&token.text),
            TokenKind::Reasoning => choice.reasoning.push_str(&token.text),
            TokenKind::Media => choice.media = choice.media.saturating_add(1),
            _ => {}
        }
        choice.refusal |= token.refusal;
        choice.finish_reason = token.finish_reason.or(choice.finish_reason.take());
        let metadata = &mut self.metadata;
        metadata.finish = token.finish.or(metadata.finish);
        metadata.usage = token.usage.or(metadata.usage);
        metadata.cost = token.cost.or(metadata.cost.take());
        metadata.model = token.model.or(metadata.model.take());
        metadata.response_id = token.response_id.or(metadata.response_id.take());
        Ok(())
    }

    /// Returns the whole answer.
    pub(crate) fn finish<E>(mut self) -> Result<Completion, ProviderError<E>> {
        if self.metadata.finish.is_none() {
            return Err(ProviderError::Truncated);
        }
        for call in self.calls.finish() {
            let choice = self.choices.entry(call.choice).or_default();
            choice.tool_calls.push(call);
        }
        let mut choices = self.choices.into_values().map(|choice| {
            let reason = choice.finish_reason.as_deref().and_then(Finish::read);
            Completion {
                finish: reason.map(Finish::reason),
                ..choice
            }
        });
        let first = choices.next().unwrap_or_default();
        Ok(Completion {
            others: choices.collect(),
            finish: self.metadata.finish,
            usage: self.metadata.usage,
            cost: self.metadata.cost,
            model: self.metadata.model,
            response_id: self.metadata.response_id,
            ..first
        })
    }
}
