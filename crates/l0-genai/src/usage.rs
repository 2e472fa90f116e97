//! Token counts, as `genai` reports them.

use l0_core::Usage;

/// Reads the counts; `None` if there are none.
pub(crate) fn read(counts: &genai::chat::Usage) -> Option<Usage> {
    let count = |count: Option<i32>| u64::try_from(count?).ok();
    // The client may report 0 for a part that the provider does not report.
    let part = |of: Option<i32>| count(of).filter(|count| *count > 0);
    let prompt = counts.prompt_tokens_details.as_ref();
    let completion = counts.completion_tokens_details.as_ref();
    let mut usage = Usage::new();
    usage.input = count(counts.prompt_tokens);
    usage.output = count(counts.completion_tokens);
    usage.total = count(counts.total_tokens);
    usage.cached_input = part(prompt.and_then(|of| of.cached_tokens));
    usage.cache_write_input = part(prompt.and_then(|of| of.cache_creation_tokens));
    usage.reasoning = part(completion.and_then(|of| of.reasoning_tokens));
    // The client passes on most providers' counts unchanged, and these differ in meaning.
    (usage != Usage::new()).then(|| l0_providers::normalize(usage))
}
