//! An answer that came whole.

use std::collections::BTreeMap;

use l0_core::{Cost, FinishReason, Token, TokenKind, TokenView, Usage};
use serde::{Deserialize, Serialize};

use crate::error::{AnswerTooLarge, ProviderError};
use crate::finish::Finish;
use crate::token::ProviderToken;
use crate::tool_calls::{TooManyCalls, ToolCalls, WholeCall};

/// A whole answer of a model: what a request that asks for no stream gives, such as
/// `openai::Client::chat_once`.
///
/// It says what the tokens of a stream of the same answer say, and they are read by the same code.
/// Fields may be added. In JSON, what is unknown is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Completion {
    /// The answer; empty if there is none.
    pub text: String,
    /// The model's reasoning; empty if the provider sent none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// The tool calls, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<WholeCall>,
    /// Whether the text is the model's refusal to answer.
    pub refusal: bool,
    /// How many images, audio and files there are. Their data is not read.
    pub media: u32,
    /// Why the answer ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish: Option<FinishReason>,
    /// Why the answer ended, as the provider spells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// The token counts, which mean the same whatever the provider; those of all answers to the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What the answer costs, where the provider tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Box<Cost>>,
    /// The model that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider's id of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The further answers, if the request asked for several (`n`): without usage, model and id.
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

/// Read as its text, or as its first tool call where it has none, with what it says besides.
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

/// Puts the tokens of a response together.
pub(crate) struct Gathered {
    choices: BTreeMap<u32, Completion>,
    calls: ToolCalls,
    /// What is said of the response, and not of one choice.
    said: Completion,
    bytes: usize,
    max_bytes: usize,
}

impl Gathered {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            choices: BTreeMap::new(),
            calls: ToolCalls::new().max_bytes(max_bytes),
            said: Completion::new(),
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
        let said = &mut self.said;
        said.finish = token.finish.or(said.finish);
        said.usage = token.usage.or(said.usage);
        said.cost = token.cost.or(said.cost.take());
        said.model = token.model.or(said.model.take());
        said.response_id = token.response_id.or(said.response_id.take());
        Ok(())
    }

    /// The whole answer.
    pub(crate) fn finish<E>(mut self) -> Result<Completion, ProviderError<E>> {
        if self.said.finish.is_none() {
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
            finish: self.said.finish,
            usage: self.said.usage,
            cost: self.said.cost,
            model: self.said.model,
            response_id: self.said.response_id,
            ..first
        })
    }
}
