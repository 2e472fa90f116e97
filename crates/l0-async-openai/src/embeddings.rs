//! Embeddings.

use async_openai::config::Config;
use async_openai::types::embeddings::{
    CreateEmbeddingRequest, CreateEmbeddingResponse, EncodingFormat,
};
use l0_core::{Token, TokenView, Usage};
use l0_providers::normalize;

use crate::client::Client;
use crate::request::{ClientRequest, DescribeRequest, Input, Parameters};
use crate::viewed::Viewed;

/// Creates a request for embeddings, the source of a call. Vectors are numbers: the client rejects a request for base64
/// here.
pub fn embeddings<C: Config + Clone + 'static>(
    client: &Client<C>,
    request: CreateEmbeddingRequest,
) -> ClientRequest<Viewed<CreateEmbeddingResponse>> {
    let client = client.for_whole_answers();
    ClientRequest::new(client, request, false, |client, request| {
        Box::pin(async move { Ok(Viewed::new(client.embeddings().create(request).await?)) })
    })
}

impl DescribeRequest for CreateEmbeddingRequest {
    const OPERATION: &'static str = "embeddings";
    const PATH: &'static str = "/embeddings";

    fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    fn parameters(&self) -> Parameters {
        let format = self.encoding_format.as_ref().map(|format| match format {
            EncodingFormat::Float => vec!["float"],
            EncodingFormat::Base64 => vec!["base64"],
        });
        Parameters::default()
            .with("encoding_formats", format)
            .with("embeddings.dimension.count", self.dimensions)
    }

    fn input(&self) -> Input {
        Input::default().with("input", &self.input)
    }
}

/// Read as an item without text, with the token counts and the model.
impl Token for Viewed<CreateEmbeddingResponse> {
    fn view(&self) -> TokenView<'_> {
        let counts = &self.usage;
        let usage = Usage::new()
            .input(counts.prompt_tokens.into())
            .total(counts.total_tokens.into());
        TokenView::other()
            .usage(normalize(usage))
            .model(&self.model)
    }
}
