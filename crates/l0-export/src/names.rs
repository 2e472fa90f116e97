//! Names: the quantities of core in words and as one word. Every format derives its keys
//! from these.

use std::sync::LazyLock;

use l0_core::Quantity;

/// The names in words that differ from the quantity's own name with spaces. CSV columns,
/// log keys and table headings are derived from the words.
const WORDS: [(&str, &str); 21] = [
    ("tokens.total", "tokens"),
    ("tokens.wasted", "wasted tokens"),
    ("retries.total", "retries"),
    ("retries.network", "network retries"),
    ("retries.model", "model retries"),
    ("guardrails.violations", "violations"),
    ("inter_token", "inter token time"),
    ("usage.input", "input tokens"),
    ("usage.output", "output tokens"),
    ("usage.total", "usage tokens"),
    ("usage.cached_input", "cached input tokens"),
    ("usage.cache_write_input", "cache write input tokens"),
    ("usage.reasoning", "reasoning tokens"),
    ("usage.wasted_input", "wasted input tokens"),
    ("usage.wasted_output", "wasted output tokens"),
    ("usage.estimated_input", "estimated input tokens"),
    ("usage.estimated_output", "estimated output tokens"),
    ("runs", "outcomes"),
    ("network.errors_by_type", "errors by type"),
    (
        "guardrails.violations_by_severity",
        "violations by severity",
    ),
    ("guardrails.violations_by_rule", "violations by rule"),
];

/// Returns the name of a quantity in words: `wasted tokens` for `tokens.wasted`.
///
/// ```
/// use l0_core::Quantity;
/// use l0_export::names;
///
/// for quantity in Quantity::ALL {
///     println!("{}: {}", names::column(quantity), names::words(quantity));
/// }
/// ```
#[must_use]
pub fn words(quantity: &Quantity) -> &'static str {
    spelled(quantity).map_or(quantity.name, |spelled| &spelled.words)
}

/// Returns the name of a quantity as one word, for CSV columns and JSON keys: `wastedTokens` for
/// `tokens.wasted`.
#[must_use]
pub fn column(quantity: &Quantity) -> &'static str {
    spelled(quantity).map_or(quantity.name, |spelled| &spelled.column)
}

fn spelled(quantity: &Quantity) -> Option<&'static Spelled> {
    let name = quantity.name;
    QUANTITIES
        .iter()
        .find(|spelled| spelled.quantity.name == name)
}

/// A quantity and its spellings.
#[derive(Debug)]
pub(crate) struct Spelled {
    pub(crate) quantity: &'static Quantity,
    /// In words: `wasted tokens`.
    pub(crate) words: String,
    /// As one word, for columns and JSON keys: `wastedTokens`.
    pub(crate) column: String,
}

/// All quantities, in the order of the list.
pub(crate) static QUANTITIES: LazyLock<Vec<Spelled>> = LazyLock::new(|| {
    let spelled = |quantity: &'static Quantity| {
        let words = match look_up(&WORDS, quantity.name) {
            Some(words) => words.to_owned(),
            None => quantity.name.replace(['.', '_'], " "),
        };
        let column = camel_case(&words);
        Spelled {
            quantity,
            words,
            column,
        }
    };
    Quantity::ALL.iter().map(spelled).collect()
});

pub(crate) fn look_up(table: &[(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    let row = table.iter().find(|(of, _)| *of == name)?;
    Some(row.1)
}

pub(crate) fn camel_case(words: &str) -> String {
    let mut text = String::new();
    for word in words.split(' ') {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if !text.is_empty() => text.push(first.to_ascii_uppercase()),
            Some(first) => text.push(first),
            None => {}
        }
        text.push_str(letters.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Core's list and this table are in two files. A quantity that is renamed in the list would lose its
    /// spelling here.
    #[test]
    fn the_table_names_only_known_quantities() {
        for (name, _) in WORDS {
            let known = Quantity::ALL.iter().any(|quantity| quantity.name == name);
            assert!(known, "no quantity `{name}`: update this table");
        }
    }

    #[test]
    fn spellings_are_unique() {
        let mut seen = BTreeSet::new();
        for quantity in Quantity::ALL {
            assert!(seen.insert(column(quantity)), "{}", column(quantity));
        }
    }

    #[test]
    fn names_are_derived() {
        for (words, expected) in [
            ("tokens", "tokens"),
            ("tokens per second", "tokensPerSecond"),
            ("p50 inter token time", "p50InterTokenTime"),
        ] {
            assert_eq!(camel_case(words), expected);
        }
        let named = |name| {
            let mut all = Quantity::ALL.iter();
            let quantity = all.find(|quantity| quantity.name == name);
            let quantity = quantity.expect("a quantity");
            (words(quantity), column(quantity))
        };
        assert_eq!(named("tokens.wasted"), ("wasted tokens", "wastedTokens"));
        let first = ("time to first token", "timeToFirstToken");
        assert_eq!(named("time_to_first_token"), first);
    }
}
