//! Requests that describe themselves: the sources of runs and calls.

use std::borrow::Cow;
use std::fmt;
use std::future::{Ready, ready};

use l0_core::source::{ByAnswer, ByFn, ByToken, Connecting};
use l0_core::{Attempt, Description, Source, TokenView};
use rig_core::DynModel;
use rig_core::completion::{CompletionRequest, CompletionResponse};
use rig_core::embeddings::EmbeddingResponse;
use rig_core::operation;
use rig_core::wire::Operation;
use serde_json::{Value, json};

use crate::error::Error;
use crate::event::{Events, usage, view_whole};

pub(crate) fn describe<Op: Operation>(
    model: &DynModel<Op>,
    operation: &'static str,
    streaming: bool,
) -> Description {
    let mut description = Description::new();
    description.provider = Some(provider(model.name()));
    description.model = model.id().map(|id| Cow::Owned(id.to_owned()));
    description.operation = Some(Cow::Borrowed(operation));
    description.streaming = Some(streaming);
    description
}

/// Returns the provider's name in OpenTelemetry's conventions, or one of the same form for other providers.
fn provider(name: &str) -> Cow<'static, str> {
    Cow::Borrowed(match name {
        "azure.openai" => "azure.ai.openai",
        "mistral" => "mistral_ai",
        "moonshot" => "moonshot_ai",
        "together" => "together_ai",
        "voyageai" => "voyage",
        "xai" => "x_ai",
        "zai" => "z_ai",
        name => return Cow::Owned(name.to_owned()),
    })
}

fn describe_completion(
    model: &DynModel<operation::Completion>,
    request: &CompletionRequest,
    streaming: bool,
) -> Description {
    let mut description = describe(model, "chat", streaming);
    if let Some(model) = &request.model {
        description.model = Some(Cow::Owned(model.clone()));
    }
    let parameters: [(&str, Option<Value>); 4] = [
        ("temperature", request.temperature.map(Value::from)),
        ("top_p", request.options.top_p.map(Value::from)),
        ("max_tokens", request.max_tokens.map(Value::from)),
        ("seed", request.options.seed.map(Value::from)),
    ];
    for (name, value) in parameters {
        if let Some(value) = value {
            description.parameters.insert(name.to_owned(), value);
        }
    }
    description
}

fn input(request: &CompletionRequest) -> Option<Value> {
    let mut input = json!({ "messages": request.chat_history });
    if !request.documents.is_empty() {
        input["documents"] = json!(request.documents);
    }
    Some(input)
}

/// A completion whose answer is streamed. Created by [`completion`](crate::completion).
#[derive(Clone)]
#[must_use = "a request is sent by a run"]
pub struct Completion {
    pub(crate) model: DynModel<operation::Completion>,
    pub(crate) request: CompletionRequest,
}

impl Source for Completion {
    type Answer = Events;
    type Error = Error;
    type Connecting = Ready<Result<Events, Error>>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Self::Connecting {
        let stream = self.model.stream(self.request.clone());
        ready(stream.map(Events::new).map_err(Error::from))
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        describe_completion(&self.model, &self.request, true)
    }

    fn input(&self) -> Option<Value> {
        input(&self.request)
    }
}

/// A completion whose answer is whole. Created by [`completion_once`](crate::completion_once).
#[derive(Clone)]
#[must_use = "a request is sent by a call"]
pub struct CompletionOnce {
    pub(crate) model: DynModel<operation::Completion>,
    pub(crate) request: CompletionRequest,
}

impl Source for CompletionOnce {
    type Answer = CompletionResponse;
    type Error = Error;
    type Connecting = Connecting<CompletionResponse, Error>;
    type View = ByAnswer<CompletionResponse>;

    fn connect(&mut self, _: Attempt) -> Self::Connecting {
        let response = self.model.call(self.request.clone());
        Box::pin(async move { Ok(response.await?) })
    }

    fn view(&self) -> Self::View {
        ByFn::new(view_whole)
    }

    fn describe(&self) -> Description {
        describe_completion(&self.model, &self.request, false)
    }

    fn input(&self) -> Option<Value> {
        input(&self.request)
    }
}

/// A request for embeddings. Created by [`embeddings`](crate::embeddings).
#[derive(Clone)]
#[must_use = "a request is sent by a call"]
pub struct Embeddings {
    pub(crate) model: DynModel<operation::Embedding>,
    pub(crate) texts: Vec<String>,
}

impl Source for Embeddings {
    type Answer = EmbeddingResponse;
    type Error = Error;
    type Connecting = Connecting<EmbeddingResponse, Error>;
    type View = ByAnswer<EmbeddingResponse>;

    fn connect(&mut self, _: Attempt) -> Self::Connecting {
        let response = self.model.call(self.texts.clone());
        Box::pin(async move { Ok(response.await?) })
    }

    fn view(&self) -> Self::View {
        ByFn::new(|response| {
            let mut view = TokenView::other();
            view.usage = usage(&response.usage);
            view.model = response.model.as_deref();
            view.response_id = response.response_id.as_deref();
            view
        })
    }

    fn describe(&self) -> Description {
        describe(&self.model, "embeddings", false)
    }

    fn input(&self) -> Option<Value> {
        Some(json!({ "input": self.texts }))
    }
}

/// `Debug` shows the model, but not the request.
macro_rules! debug {
    ($($request:ident)*) => {$(
        impl fmt::Debug for $request {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($request))
                    .field("model", &self.model)
                    .finish_non_exhaustive()
            }
        }
    )*};
}

debug!(Completion CompletionOnce Embeddings);
