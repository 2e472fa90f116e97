//! Token counts as `genai` tells them.

use l0_core::Usage;

/// Reads them; `None` if there are none.
pub(crate) fn read(told: &genai::chat::Usage) -> Option<Usage> {
    let count = |count: Option<i32>| u64::try_from(count?).ok();
    // Where a provider does not tell of a part, the client may say 0.
    let part = |of: Option<i32>| count(of).filter(|count| *count > 0);
    let prompt = told.prompt_tokens_details.as_ref();
    let completion = told.completion_tokens_details.as_ref();
    let mut usage = Usage::new();
    usage.input = count(told.prompt_tokens);
    usage.output = count(told.completion_tokens);
    usage.total = count(told.total_tokens);
    usage.cached_input = part(prompt.and_then(|of| of.cached_tokens));
    usage.cache_write_input = part(prompt.and_then(|of| of.cache_creation_tokens));
    usage.reasoning = part(completion.and_then(|of| of.reasoning_tokens));
    // The client passes on what most providers send, and not all count in one way.
    (usage != Usage::new()).then(|| l0_providers::normalise(usage))
}
