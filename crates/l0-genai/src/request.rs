//! Requests that describe themselves: the sources of runs and calls.

use std::borrow::Cow;
use std::fmt;

use genai::adapter::AdapterKind;
use genai::chat::{ChatOptions, ChatRequest, ChatResponse};
use genai::embed::{EmbedOptions, EmbedRequest, EmbedResponse};
use genai::{Client, ModelSpec};
use l0_core::source::{ByAnswer, ByFn, ByToken, Connecting};
use l0_core::{Attempt, Description, Source, TokenView};
use l0_providers::provider_at;
use reqwest::Url;
use serde_json::{Value, json};

use crate::error::Error;
use crate::event::{Events, view_whole};
use crate::usage;

/// The client and the model of a request.
#[derive(Clone)]
struct Target {
    client: Client,
    model: ModelSpec,
}

impl Target {
    fn describe(&self, operation: &'static str, streaming: bool) -> Description {
        let (kind, name, url) = match &self.model {
            ModelSpec::Name(name) => {
                let bound = self.client.adapter_kind();
                let kind = bound.or_else(|| AdapterKind::from_model(name).ok());
                (kind, name, None)
            }
            ModelSpec::Iden(model) => (Some(model.adapter_kind), &model.model_name, None),
            ModelSpec::Target(target) => {
                let url = Url::parse(target.endpoint.base_url()).ok();
                let model = &target.model;
                (Some(model.adapter_kind), &model.model_name, url)
            }
        };
        let (_, name) = name.namespace_and_name();
        let mut description = Description::new();
        description.provider = match &url {
            Some(url) => provider_at(url).or_else(|| kind.and_then(alone)),
            None => kind.map(provider),
        }
        .map(Cow::Borrowed);
        description.model = Some(Cow::Owned(name.to_owned()));
        description.operation = Some(Cow::Borrowed(operation));
        if let Some(host) = url.as_ref().and_then(Url::host_str) {
            // An IPv6 address is in brackets.
            let host = host.trim_start_matches('[').trim_end_matches(']');
            description.server_address = Some(Cow::Owned(host.to_owned()));
        }
        description.server_port = url.as_ref().and_then(Url::port_or_known_default);
        description.streaming = Some(streaming);
        description
    }
}

/// Returns the name of the adapter's provider in OpenTelemetry's conventions.
fn provider(kind: AdapterKind) -> &'static str {
    match kind {
        AdapterKind::OpenAI | AdapterKind::OpenAIResp => "openai",
        AdapterKind::Gemini | AdapterKind::GeminiIx => "gcp.gemini",
        AdapterKind::Vertex => "gcp.vertex_ai",
        AdapterKind::BedrockApi => "aws.bedrock",
        AdapterKind::Mistral => "mistral_ai",
        AdapterKind::Moonshot => "moonshot_ai",
        AdapterKind::Xai => "x_ai",
        AdapterKind::Fireworks => "fireworks_ai",
        AdapterKind::Together => "together_ai",
        kind => kind.as_lower_str(),
    }
}

/// Returns the provider at an unknown address; `None` if other servers speak the adapter's API too.
fn alone(kind: AdapterKind) -> Option<&'static str> {
    let shared = matches!(
        kind,
        AdapterKind::OpenAI
            | AdapterKind::OpenAIResp
            | AdapterKind::Anthropic
            | AdapterKind::Custom(_)
    );
    (!shared).then(|| provider(kind))
}

fn describe_chat(target: &Target, options: &ChatOptions, streaming: bool) -> Description {
    let mut description = target.describe("chat", streaming);
    let parameters: [(&str, Option<Value>); 4] = [
        ("temperature", options.temperature.map(Value::from)),
        ("top_p", options.top_p.map(Value::from)),
        ("max_tokens", options.max_tokens.map(Value::from)),
        ("seed", options.seed.map(Value::from)),
    ];
    for (name, value) in parameters {
        if let Some(value) = value {
            description.parameters.insert(name.to_owned(), value);
        }
    }
    description
}

fn input(request: &ChatRequest) -> Option<Value> {
    let mut input = json!({ "messages": request.messages });
    if let Some(system) = &request.system {
        input["system"] = json!(system);
    }
    Some(input)
}

/// A chat whose answer is streamed. Created by [`chat`](crate::chat).
#[derive(Clone)]
#[must_use = "a request is sent by a run"]
pub struct Chat {
    target: Target,
    request: ChatRequest,
    options: ChatOptions,
}

impl Chat {
    pub(crate) fn new(client: &Client, model: ModelSpec, request: ChatRequest) -> Self {
        let client = client.clone();
        Self {
            target: Target { client, model },
            request,
            options: ChatOptions::default(),
        }
        .options(ChatOptions::default())
    }

    /// Sets the options. They take precedence over the client's.
    ///
    /// `capture_usage` and `capture_tool_calls` are enabled unless set: the first is needed for token counts, the
    /// second for whole tool calls.
    pub fn options(mut self, mut options: ChatOptions) -> Self {
        options.capture_usage.get_or_insert(true);
        options.capture_tool_calls.get_or_insert(true);
        self.options = options;
        self
    }
}

impl Source for Chat {
    type Answer = Events;
    type Error = Error;
    type Connecting = Connecting<Events, Error>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Connecting<Events, Error> {
        let Self {
            target,
            request,
            options,
        } = self.clone();
        Box::pin(async move {
            let Target { client, model } = target;
            let response = client.exec_chat_stream(model, request, Some(&options));
            Ok(Events::new(response.await?))
        })
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        describe_chat(&self.target, &self.options, true)
    }

    fn input(&self) -> Option<Value> {
        input(&self.request)
    }
}

/// A chat whose answer is whole. Created by [`chat_once`](crate::chat_once).
#[derive(Clone)]
#[must_use = "a request is sent by a call"]
pub struct ChatOnce {
    target: Target,
    request: ChatRequest,
    options: ChatOptions,
}

impl ChatOnce {
    pub(crate) fn new(client: &Client, model: ModelSpec, request: ChatRequest) -> Self {
        let client = client.clone();
        Self {
            target: Target { client, model },
            request,
            options: ChatOptions::default(),
        }
    }

    /// Sets the options. They take precedence over the client's.
    pub fn options(mut self, options: ChatOptions) -> Self {
        self.options = options;
        self
    }
}

impl Source for ChatOnce {
    type Answer = ChatResponse;
    type Error = Error;
    type Connecting = Connecting<ChatResponse, Error>;
    type View = ByAnswer<ChatResponse>;

    fn connect(&mut self, _: Attempt) -> Connecting<ChatResponse, Error> {
        let Self {
            target,
            request,
            options,
        } = self.clone();
        Box::pin(async move {
            let Target { client, model } = target;
            let answer = client.exec_chat(model, request, Some(&options));
            Ok(answer.await?)
        })
    }

    fn view(&self) -> ByAnswer<ChatResponse> {
        ByFn::new(view_whole)
    }

    fn describe(&self) -> Description {
        describe_chat(&self.target, &self.options, false)
    }

    fn input(&self) -> Option<Value> {
        input(&self.request)
    }
}

/// A request for embeddings. Created by [`embeddings`](crate::embeddings).
#[derive(Clone)]
#[must_use = "a request is sent by a call"]
pub struct Embeddings {
    target: Target,
    request: EmbedRequest,
    options: EmbedOptions,
}

impl Embeddings {
    pub(crate) fn new(client: &Client, model: ModelSpec, request: EmbedRequest) -> Self {
        let client = client.clone();
        Self {
            target: Target { client, model },
            request,
            options: EmbedOptions::default(),
        }
    }

    /// Sets the options. They take precedence over the client's.
    pub fn options(mut self, options: EmbedOptions) -> Self {
        self.options = options;
        self
    }
}

impl Source for Embeddings {
    type Answer = EmbedResponse;
    type Error = Error;
    type Connecting = Connecting<EmbedResponse, Error>;
    type View = ByAnswer<EmbedResponse>;

    fn connect(&mut self, _: Attempt) -> Connecting<EmbedResponse, Error> {
        let Self {
            target,
            request,
            options,
        } = self.clone();
        Box::pin(async move {
            let Target { client, model } = target;
            let answer = client.exec_embed(model, request, Some(&options));
            Ok(answer.await?)
        })
    }

    fn view(&self) -> ByAnswer<EmbedResponse> {
        ByFn::new(|answer| {
            let mut view = TokenView::other();
            view.usage = usage::read(&answer.usage);
            view.model = Some(&answer.provider_model_iden.model_name);
            view
        })
    }

    fn describe(&self) -> Description {
        let mut description = self.target.describe("embeddings", false);
        if let Some(dimensions) = self.options.dimensions {
            let name = "embeddings.dimension.count".to_owned();
            description.parameters.insert(name, dimensions.into());
        }
        description
    }

    fn input(&self) -> Option<Value> {
        Some(json!({ "input": self.request.inputs() }))
    }
}

/// `Debug` shows neither the request nor the client, which may contain a key.
macro_rules! debug {
    ($($request:ident)*) => {$(
        impl fmt::Debug for $request {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($request)).finish_non_exhaustive()
            }
        }
    )*};
}

debug!(Chat ChatOnce Embeddings);
