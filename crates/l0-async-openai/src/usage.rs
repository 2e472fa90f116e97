//! Token counts in L0's meaning: the input has what a cache gave and took, the output has the
//! reasoning, no part exceeds its whole, and the total is the sum.

use l0_core::Usage;

/// Reads the counts of a client that passes on what its provider sends, parts that may lie beside
/// their whole: the total that came with them decides, and without one, a part that is larger than
/// its whole lies beside it.
pub(crate) fn normalise(mut usage: Usage) -> Usage {
    let parts = [usage.cached_input, usage.cache_write_input];
    let cache = parts.into_iter().flatten().fold(0, u64::saturating_add);
    let reasoning = usage.reasoning.unwrap_or_default();
    let whole = |count: Option<u64>, part: u64, beside: bool| {
        count.map(|count| count.saturating_add(if beside { part } else { 0 }))
    };
    let counts = |(cache_beside, reasoning_beside)| {
        let input = whole(usage.input, cache, cache_beside);
        (input, whole(usage.output, reasoning, reasoning_beside))
    };
    let sum = |(input, output): (Option<u64>, Option<u64>)| Some(input?.saturating_add(output?));
    let ways = [(false, false), (false, true), (true, false), (true, true)];
    let told = usage.total.filter(|total| *total > 0);
    let told = told.and_then(|total| {
        ways.into_iter()
            .find(|way| sum(counts(*way)) == Some(total))
    });
    let larger = (
        usage.input.is_some_and(|input| cache > input),
        usage.output.is_some_and(|output| reasoning > output),
    );
    (usage.input, usage.output) = counts(told.unwrap_or(larger));

    let below = |part: Option<u64>, whole: Option<u64>| {
        part.map(|part| part.min(whole.unwrap_or(u64::MAX)))
    };
    usage.cached_input = below(usage.cached_input, usage.input);
    let cached = usage.cached_input.unwrap_or_default();
    let rest = usage.input.map(|input| input - cached);
    usage.cache_write_input = below(usage.cache_write_input, rest);
    usage.reasoning = below(usage.reasoning, usage.output);
    usage.total = sum((usage.input, usage.output)).or(usage.total);
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_mean_the_same_whatever_the_provider() {
        // Input, output, total; cached, written, reasoning; and what they mean.
        let cases = [
            ([50, 40, 90, 20, 5, 33], [50, 40, 90, 20, 5, 33]),
            ([50, 7, 90, 20, 5, 33], [50, 40, 90, 20, 5, 33]),
            ([25, 40, 90, 20, 5, 33], [50, 40, 90, 20, 5, 33]),
            ([25, 7, 90, 20, 5, 33], [50, 40, 90, 20, 5, 33]),
            ([20, 7, 0, 20, 5, 33], [45, 40, 85, 20, 5, 33]),
            ([10, 30, 40, 0, 0, 31], [10, 30, 40, 0, 0, 30]),
        ];
        let usage = |[input, output, total, cached, written, reasoning]: [u64; 6]| {
            let usage = Usage::new().input(input).output(output).total(total);
            let usage = usage.cached_input(cached).cache_write_input(written);
            usage.reasoning(reasoning)
        };
        for (counts, meant) in cases {
            let read = normalise(usage(counts));
            assert_eq!(read, usage(meant), "{counts:?}");
            assert_eq!(normalise(read), read);
        }
        assert_eq!(normalise(Usage::new()), Usage::new());
    }
}
