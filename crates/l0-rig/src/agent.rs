//! Agents: their streams, as L0 reads them.

use std::fmt;
use std::future::{Ready, ready};
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready as poll_ready};

use futures_core::Stream;
use l0_core::source::ByToken;
use l0_core::{Attempt, Description, Failure, FinishReason, Source, Token, TokenView, Usage};
use rig_agent::AgentRunner;
use rig_agent::agent::{MultiTurnStreamItem, StreamingResult};
use rig_agent::completion::PromptError;
use rig_agent::run::response::CompletionCall;
use rig_core::{DynModel, operation};
use serde_json::Value;

use crate::error::{Error, known, read, read_report};
use crate::event::{finish, usage, view_item};
use crate::request::describe;

/// An error of an agent's run.
pub type AgentError = Error<PromptError>;

/// Creates a run of an agent, for [`L0::stream_from`](l0_core::L0::stream_from).
///
/// ```no_run
/// use l0_core::L0;
/// use rig_agent::Agent;
///
/// async fn ask(l0: &L0, agent: &Agent) -> Result<String, Box<dyn std::error::Error>> {
///     let mut run = l0.stream_from(l0_rig::agent(agent.prompt("What is a monad?"))).start();
///     Ok(run.text().await?)
/// }
/// ```
///
/// An attempt is a whole run of the agent: all of its model calls and tool calls, which another attempt repeats. Its
/// usage is the sum of all its model calls, even if it fails after some of them. If a tool must not run twice, disable
/// retries with [`Retry::none`](l0_core::Retry::none).
pub fn agent(runner: AgentRunner) -> AgentStream {
    AgentStream {
        runner,
        description: Description::new(),
    }
    .describe_as("invoke_agent")
}

/// A run of an agent. Created by [`agent`].
#[derive(Clone)]
#[must_use = "a request is sent by a run"]
pub struct AgentStream {
    runner: AgentRunner,
    description: Description,
}

impl AgentStream {
    /// Sets the model that the agent calls, as the client does not expose it.
    pub fn model<M>(mut self, model: &M) -> Self
    where
        M: Clone + Into<DynModel<operation::Completion>>,
    {
        self.description = describe(&model.clone().into(), "invoke_agent", true);
        self
    }

    fn describe_as(mut self, operation: &'static str) -> Self {
        self.description.operation = Some(operation.into());
        self.description.streaming = Some(true);
        self
    }
}

impl Source for AgentStream {
    type Answer = AgentEvents;
    type Error = AgentError;
    type Connecting = Ready<Result<AgentEvents, AgentError>>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Self::Connecting {
        ready(Ok(AgentEvents {
            stream: Some(self.runner.clone().stream()),
            spent: None,
        }))
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        self.description.clone()
    }
}

/// `Debug` shows neither the prompt nor the agent.
impl fmt::Debug for AgentStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentStream")
            .field("model", &self.description.model)
            .finish_non_exhaustive()
    }
}

/// An item of an agent's stream. Dereferences to the client's own item.
///
/// `Debug` does not print its text.
#[derive(Clone)]
pub struct AgentEvent {
    item: MultiTurnStreamItem,
    /// The usage of all model calls so far, set at the end of each.
    spent: Option<Usage>,
}

impl AgentEvent {
    /// Returns the client's own item.
    #[must_use]
    pub fn into_inner(self) -> MultiTurnStreamItem {
        self.item
    }
}

impl Deref for AgentEvent {
    type Target = MultiTurnStreamItem;

    fn deref(&self) -> &MultiTurnStreamItem {
        &self.item
    }
}

impl Token for AgentEvent {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        let mut view = match &self.item {
            MultiTurnStreamItem::StreamAssistantItem(item) => return view_item(item),
            MultiTurnStreamItem::CompletionCall(call) => view_call(call),
            MultiTurnStreamItem::FinalResponse(response) => {
                let last = response.completion_calls.last();
                let reason = last.and_then(|call| call.finish_reason.as_ref());
                let mut view = last.map_or_else(TokenView::other, view_call);
                // The reason of the last model call; `other` if there is none, as the agent has ended.
                view.finish = Some(reason.map_or(FinishReason::Other, finish));
                view
            }
            _ => TokenView::other(),
        };
        view.usage = self.spent;
        view
    }
}

/// Returns the view of a model call, which does not mean that the agent has ended.
fn view_call(call: &CompletionCall) -> TokenView<'_> {
    let mut view = TokenView::other();
    view.response_id = call.response_id.as_deref();
    // Only the provider's own response names the model that answered.
    let names = ["model", "modelVersion"];
    let name = names.iter().find_map(|name| call.raw.get(name));
    view.model = name.and_then(Value::as_str);
    view
}

impl fmt::Debug for AgentEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view();
        f.debug_struct("AgentEvent")
            .field("kind", &view.kind)
            .field("bytes", &view.text.len())
            .field("finish", &view.finish)
            .field("usage", &view.usage)
            .finish_non_exhaustive()
    }
}

/// The items of one attempt of an [`AgentStream`].
///
/// A truncated run of an agent ends without its final response.
#[must_use = "streams do nothing unless polled"]
pub struct AgentEvents {
    stream: Option<StreamingResult>,
    spent: Option<Usage>,
}

impl Stream for AgentEvents {
    type Item = Result<AgentEvent, AgentError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        let item = match poll_ready!(stream.as_mut().poll_next(cx)) {
            Some(Ok(item)) => item,
            Some(Err(error)) => {
                this.stream = None;
                let error = AgentError::from(error);
                return Poll::Ready((!error.is_truncated()).then_some(Err(error)));
            }
            None => {
                this.stream = None;
                return Poll::Ready(None);
            }
        };
        let spent = match &item {
            MultiTurnStreamItem::CompletionCall(call) => {
                let sum = this.spent.unwrap_or_default();
                this.spent = usage(&call.usage)
                    .map(|usage| sum.plus(usage))
                    .or(this.spent);
                this.spent
            }
            MultiTurnStreamItem::FinalResponse(response) => usage(&response.usage).or(this.spent),
            _ => None,
        };
        Poll::Ready(Some(Ok(AgentEvent { item, spent })))
    }
}

impl fmt::Debug for AgentEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentEvents").finish_non_exhaustive()
    }
}

impl From<PromptError> for AgentError {
    fn from(error: PromptError) -> Self {
        let read = match &error {
            PromptError::Provider(error) => read(error),
            PromptError::Report(report) => read_report(report),
            PromptError::MaxTurns { .. } => {
                known("the agent reached its turn limit", Failure::fatal())
            }
            PromptError::UnknownToolCall { .. } => {
                known("the model called an unknown tool", Failure::model())
            }
            _ => known("the agent failed", Failure::fatal()),
        };
        Self::new(error, read)
    }
}
