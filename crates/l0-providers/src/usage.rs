//! Token counts with the same meaning for every provider.
//!
//! Providers name their counts differently, and some exclude a part from the whole that others include in it. All
//! dialects read their counts here. In the resulting [`Usage`], the input includes cache reads and writes, the output
//! includes the reasoning, no part exceeds its whole, and the total is the sum. The provider's own total decides which
//! parts are excluded. Without a total, the names decide, and a part that is larger than its whole counts as excluded.

use l0_core::{Cost, CostSource, Currency, Money, Usage};
use serde::de::MapAccess;

use crate::lenient::{Count, Dollars, Fields, List, Object, Text, skip};

/// A count and the rank of its name; the lowest rank is the best known name. If several names are present, the best one
/// with a nonzero count is used.
#[derive(Debug, Clone, Copy)]
struct Slot {
    count: u64,
    name: u8,
}

const ABSENT: u8 = u8::MAX;

/// Ranks of names. Those of Anthropic and Google also decide the meaning of a count.
const USUAL: u8 = 0;
const OUTSIDE_OF_DETAILS: u8 = 1;
const ANTHROPIC: u8 = 2;
const ANTHROPIC_BY_LIFETIME: u8 = 3;
const GOOGLE: u8 = 4;

impl Default for Slot {
    fn default() -> Self {
        Self {
            count: 0,
            name: ABSENT,
        }
    }
}

impl Slot {
    fn get(self) -> Option<u64> {
        (self.name != ABSENT).then_some(self.count)
    }

    fn read<'de, A: MapAccess<'de>>(&mut self, name: u8, map: &mut A) -> Result<(), A::Error> {
        let Count(count) = map.next_value()?;
        self.put_some(name, count);
        Ok(())
    }

    /// Adds the count of another name in the same payload, if present.
    fn put_some(&mut self, name: u8, count: Option<u64>) {
        let Some(count) = count else { return };
        let better = match (self.count, count) {
            (0, 1..) => true,
            (1.., 0) => false,
            _ => name <= self.name,
        };
        if better {
            *self = Self { count, name };
        }
    }

    /// Applies the count of a later payload. A later zero does not replace a count.
    fn follow(&mut self, later: Self) {
        if later.name != ABSENT && (later.count > 0 || self.name == ABSENT) {
            *self = later;
        }
    }
}

/// The counts as sent.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    prompt: Slot,
    completion: Slot,
    total: Slot,
    cached: Slot,
    written: Slot,
    reasoning: Slot,
    /// Results of tools that the provider ran and the model read.
    tools: Slot,
}

impl Counts {
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            // The second is Ollama's.
            "prompt_tokens" | "prompt_eval_count" => self.prompt.read(USUAL, map),
            "input_tokens" | "inputTokens" => self.prompt.read(ANTHROPIC, map),
            "promptTokenCount" | "prompt_token_count" => self.prompt.read(GOOGLE, map),
            "completion_tokens" | "eval_count" => self.completion.read(USUAL, map),
            "output_tokens" | "outputTokens" => self.completion.read(ANTHROPIC, map),
            "candidatesTokenCount" | "candidates_token_count" | "responseTokenCount" => {
                self.completion.read(GOOGLE, map)
            }
            "total_tokens" | "totalTokens" | "totalTokenCount" | "total_token_count" => {
                self.total.read(USUAL, map)
            }
            "prompt_tokens_details"
            | "input_tokens_details"
            | "prompt_token_details"
            | "input_token_details"
            | "completion_tokens_details"
            | "output_tokens_details"
            | "completion_token_details"
            | "output_token_details" => {
                let mut details = Object::<Details>::default();
                details.read(map)?;
                let Details([cached, written, reasoning]) = details.0.unwrap_or_default();
                self.cached.put_some(USUAL, cached);
                self.written.put_some(USUAL, written);
                self.reasoning.put_some(USUAL, reasoning);
                Ok(())
            }
            // Sent by DeepSeek, Mistral, Moonshot and Together.
            "prompt_cache_hit_tokens" | "cached_tokens" | "num_cached_tokens" => {
                self.cached.read(OUTSIDE_OF_DETAILS, map)
            }
            "cache_read_input_tokens" | "cacheReadInputTokens" => self.cached.read(ANTHROPIC, map),
            "cachedContentTokenCount" | "cached_content_token_count" => {
                self.cached.read(GOOGLE, map)
            }
            "cache_write_tokens" | "prompt_cache_write_tokens" => {
                self.written.read(OUTSIDE_OF_DETAILS, map)
            }
            "cache_creation_input_tokens" | "cacheWriteInputTokens" => {
                self.written.read(ANTHROPIC, map)
            }
            "cache_creation" => {
                let mut written = Object::<ByLifetime>::default();
                written.read(map)?;
                let ByLifetime(count) = written.0.unwrap_or_default();
                self.written.put_some(ANTHROPIC_BY_LIFETIME, count);
                Ok(())
            }
            // Sent by SGLang.
            "reasoning_tokens" | "thinking_tokens" => self.reasoning.read(OUTSIDE_OF_DETAILS, map),
            "thoughtsTokenCount" | "thoughts_token_count" => self.reasoning.read(GOOGLE, map),
            "toolUsePromptTokenCount" | "tool_use_prompt_token_count" => {
                self.tools.read(GOOGLE, map)
            }
            _ => skip(map),
        }
    }

    /// Applies the counts of a later payload.
    fn follow(&mut self, later: Self) {
        let same = |old: Slot, new: Slot| new.count == 0 || new.count == old.count;
        let grown = !same(self.prompt, later.prompt) || !same(self.completion, later.completion);
        if grown && later.total.get().is_none() {
            // It was the total of other counts.
            self.total = Slot::default();
        }
        self.prompt.follow(later.prompt);
        self.completion.follow(later.completion);
        self.total.follow(later.total);
        self.cached.follow(later.cached);
        self.written.follow(later.written);
        self.reasoning.follow(later.reasoning);
        self.tools.follow(later.tools);
    }

    fn is_empty(&self) -> bool {
        let slots = [
            self.prompt,
            self.completion,
            self.total,
            self.cached,
            self.written,
        ];
        let mut slots = slots.iter().chain([&self.reasoning, &self.tools]);
        slots.all(|slot| slot.name == ABSENT)
    }

    fn usage(&self) -> Usage {
        let part = |slot: Slot, excluded| Part { slot, excluded };
        // The names of both counts show whether cache reads and writes are excluded from the input.
        let anthropic = |slot: Slot| matches!(slot.name, ANTHROPIC | ANTHROPIC_BY_LIFETIME);
        let excluded = |slot| anthropic(slot) && self.prompt.name != USUAL;
        let total = self.total.get();
        let mut parts = [
            part(self.reasoning, self.reasoning.name == GOOGLE),
            part(self.cached, excluded(self.cached)),
            part(self.written, excluded(self.written)),
            part(self.tools, true),
        ];
        let split = |parts: &[Part; 4]| {
            let [reasoning, input @ ..] = parts;
            (
                whole(self.prompt, input),
                whole(self.completion, &[*reasoning]),
            )
        };
        let fits = |parts: &[Part; 4]| {
            let (input, output) = split(parts);
            let sum = input
                .unwrap_or_default()
                .checked_add(output.unwrap_or_default());
            // A zero that would remove a part is ignored.
            let [reasoning, rest @ ..] = parts;
            let inside = |part: &Part| !part.excluded && part.slot.count > 0;
            let empty = (self.prompt.get() == Some(0) && rest.iter().any(inside))
                || (self.completion.get() == Some(0) && inside(reasoning));
            sum.is_some() && sum == total && !empty
        };
        let decided = total.is_some_and(|total| total > 0)
            && FLIPS.iter().any(|flips| {
                let mut flipped = parts;
                for (part, flip) in flipped.iter_mut().zip(flips) {
                    part.excluded ^= flip;
                }
                let fits = fits(&flipped);
                if fits {
                    parts = flipped;
                }
                fits
            });
        if !decided {
            // Nothing decides, so a part that is larger than its whole must be excluded from it.
            let larger = |part: u64, whole: Slot| whole.get().is_some_and(|whole| part > whole);
            parts[0].excluded |= larger(self.reasoning.count, self.completion);
            let cache = self.cached.count.saturating_add(self.written.count);
            if larger(cache, self.prompt) {
                parts[1].excluded = true;
                parts[2].excluded = true;
            }
        }
        let (input, output) = split(&parts);
        let mut usage = Usage::new();
        // The results of tools are input, whatever the other counts are.
        usage.input = match self.tools.count {
            0 => input,
            tools => Some(input.unwrap_or_default().max(tools)),
        };
        usage.output = output;
        usage.cached_input = self.cached.get();
        usage.cache_write_input = self.written.get();
        usage.reasoning = self.reasoning.get();
        let mut usage = clamp(usage);
        usage.total = sum_of(&usage, total);
        usage
    }
}

/// Converts the counts of another client to the meaning of [`Usage`]. A part that its provider excludes from the whole
/// is added to it, no part exceeds its whole, and the total is the sum. The total of the counts decides which parts are
/// excluded. Without a total, a part that is larger than its whole is. Counts that already have this meaning are
/// unchanged.
///
/// ```
/// use l0_core::Usage;
///
/// // The reasoning is not part of the output: 3 + 2 is not 9.
/// let sent = Usage::new().input(3).output(2).reasoning(4).total(9);
/// let usage = Usage::new().input(3).output(6).reasoning(4).total(9);
/// assert_eq!(l0_providers::normalize(sent), usage);
/// ```
#[must_use]
pub fn normalize(usage: Usage) -> Usage {
    let slot = |count: Option<u64>| {
        let mut slot = Slot::default();
        slot.put_some(USUAL, count);
        slot
    };
    let counts = Counts {
        prompt: slot(usage.input),
        completion: slot(usage.output),
        total: slot(usage.total),
        cached: slot(usage.cached_input),
        written: slot(usage.cache_write_input),
        reasoning: slot(usage.reasoning),
        tools: Slot::default(),
    };
    counts.usage()
}

/// A part, and whether its whole excludes it.
#[derive(Clone, Copy)]
struct Part {
    slot: Slot,
    excluded: bool,
}

/// Which parts (reasoning, cache reads, cache writes, tool results) may be counted otherwise than their names suggest,
/// the most common case first.
const FLIPS: [[bool; 4]; 16] = {
    const N: bool = false;
    const Y: bool = true;
    [
        [N, N, N, N],
        [Y, N, N, N],
        [N, Y, Y, N],
        [N, Y, N, N],
        [N, N, Y, N],
        [N, N, N, Y],
        [Y, N, N, Y],
        [Y, Y, Y, N],
        [Y, Y, N, N],
        [Y, N, Y, N],
        [N, Y, Y, Y],
        [N, Y, N, Y],
        [N, N, Y, Y],
        [Y, Y, Y, Y],
        [Y, Y, N, Y],
        [Y, N, Y, Y],
    ]
};

/// Returns a count with the parts that it excludes.
fn whole(count: Slot, parts: &[Part]) -> Option<u64> {
    // A part alone is all that is known of its whole. An empty part shows nothing about it.
    let excluded = parts
        .iter()
        .filter(|part| part.excluded && part.slot.count > 0);
    excluded.fold(count.get(), |sum, part| add(sum, part.slot.count))
}

fn add(sum: Option<u64>, count: u64) -> Option<u64> {
    Some(sum.unwrap_or_default().saturating_add(count))
}

/// Returns the total of these counts, or the provider's own if one of them is missing.
fn sum_of(usage: &Usage, reported: Option<u64>) -> Option<u64> {
    match (usage.input, usage.output) {
        (Some(input), Some(output)) => Some(input.saturating_add(output)),
        (one, other) => reported.map(|total| total.max(one.or(other).unwrap_or_default())),
    }
}

/// Cache reads, cache writes and reasoning.
#[derive(Default)]
struct Details([Option<u64>; 3]);

impl<'de> Fields<'de> for Details {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let place = match key {
            "cached_tokens"
            | "cache_read"
            | "cache_read_tokens"
            | "cached_input_tokens"
            | "cache_read_input_tokens" => 0,
            "cache_write_tokens"
            | "cache_creation_tokens"
            | "cached_creation_tokens"
            | "cache_creation"
            | "cache_write"
            | "cache_creation_input_tokens" => 1,
            "reasoning_tokens" | "thinking_tokens" | "reasoning" => 2,
            _ => return skip(map),
        };
        let Count(count) = map.next_value()?;
        self.0[place] = match self.0[place] {
            Some(before) if count.unwrap_or_default() == 0 => Some(before),
            _ => count,
        };
        Ok(())
    }
}

/// Cache writes by the lifetime of the entry.
#[derive(Default)]
struct ByLifetime(Option<u64>);

impl<'de> Fields<'de> for ByLifetime {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "ephemeral_5m_input_tokens" | "ephemeral_1h_input_tokens" => {
                let Count(count) = map.next_value()?;
                self.0 = count.map_or(self.0, |count| add(self.0, count));
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// One of several passes of the model over the prompt in a response.
#[derive(Default)]
struct Pass {
    counts: Counts,
    /// `true` if the response's own counts exclude it: passes that compact the conversation, and passes of another
    /// model that is called for advice.
    extra: bool,
}

impl<'de> Fields<'de> for Pass {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => {
                let kind: Text<'de> = map.next_value()?;
                self.extra = matches!(kind.as_str(), "compaction" | "advisor_message");
                Ok(())
            }
            _ => self.counts.read(key, map),
        }
    }
}

/// Usage of several passes.
#[derive(Debug, Default, Clone, Copy)]
struct Passes {
    all: Usage,
    extra: Usage,
}

/// The counts of one payload.
#[derive(Default)]
pub(crate) struct UsageFields {
    counts: Counts,
    passes: Option<Box<Passes>>,
    cost: Option<Money>,
}

impl<'de> Fields<'de> for UsageFields {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "iterations" => {}
            // Sent by OpenRouter, whose credits are US dollars.
            "cost" => {
                let Dollars(cost) = map.next_value()?;
                self.cost = cost;
                return Ok(());
            }
            _ => return self.counts.read(key, map),
        }
        let mut list = Box::<List<Pass>>::default();
        list.read(map)?;
        let mut passes = Passes::default();
        for pass in *list {
            let usage = pass.counts.usage();
            passes.all = sum(&passes.all, &usage);
            if pass.extra {
                passes.extra = sum(&passes.extra, &usage);
            }
        }
        self.passes = (passes.all != Usage::new()).then(|| Box::new(passes));
        Ok(())
    }
}

impl UsageFields {
    /// Returns the cost of the response, if the provider reports it.
    pub(crate) fn cost(&self) -> Option<Box<Cost>> {
        let cost = Cost::new(self.cost?, Currency::USD, CostSource::Provider);
        Some(Box::new(cost))
    }
}

/// Returns the usage of two passes.
fn sum(a: &Usage, b: &Usage) -> Usage {
    let mut usage = a.plus(*b);
    usage.total = sum_of(&usage, usage.total);
    usage
}

/// Returns the usage after a later payload. A later zero does not replace a count.
fn follow(before: &Usage, later: &Usage) -> Usage {
    let follow =
        |before: Option<u64>, later: Option<u64>| later.filter(|n| *n > 0).or(before).or(later);
    let mut usage = Usage::new();
    usage.input = follow(before.input, later.input);
    usage.output = follow(before.output, later.output);
    usage.cached_input = follow(before.cached_input, later.cached_input);
    usage.cache_write_input = follow(before.cache_write_input, later.cache_write_input);
    usage.reasoning = follow(before.reasoning, later.reasoning);
    usage.total = follow(before.total, later.total);
    usage
}

/// The counts of a response so far.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    counts: Counts,
    passes: Option<Passes>,
    /// The usage that was returned last.
    given: Usage,
}

impl Counted {
    /// Adds a payload's counts. Returns all known counts, if the payload has any.
    pub(crate) fn add(&mut self, fields: &UsageFields) -> Option<Usage> {
        if fields.counts.is_empty() && fields.passes.is_none() {
            return None;
        }
        self.counts.follow(fields.counts);
        if let Some(passes) = &fields.passes {
            let known = self.passes.get_or_insert_default();
            known.all = follow(&known.all, &passes.all);
            known.extra = follow(&known.extra, &passes.extra);
        }
        let mut usage = self.counts.usage();
        if let Some(Passes { all, extra }) = &self.passes {
            // The response's own counts already include all passes.
            let whole = (all.input, all.output) == (usage.input, usage.output);
            if !whole {
                usage = sum(&usage, extra);
            }
        }
        // A part that was once all that was known of its whole may arrive again under a name that does not identify its
        // whole.
        let mut usage = clamp(follow(&self.given, &usage));
        usage.total = sum_of(&usage, usage.total);
        self.given = usage;
        Some(usage)
    }
}

/// Returns the usage with each part cut to its whole.
fn clamp(mut usage: Usage) -> Usage {
    let below = |part: Option<u64>, whole: Option<u64>| {
        part.map(|part| part.min(whole.unwrap_or(u64::MAX)))
    };
    usage.cached_input = below(usage.cached_input, usage.input);
    let rest = usage
        .input
        .map(|input| input - usage.cached_input.unwrap_or_default());
    usage.cache_write_input = below(usage.cache_write_input, rest);
    usage.reasoning = below(usage.reasoning, usage.output);
    usage
}
