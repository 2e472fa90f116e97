//! Names of providers and models: as runs report them, as price lists spell them, and without versions.

/// The names of providers in OpenTelemetry's conventions, which sources use to describe themselves, and
/// in LiteLLM's list.
const PROVIDERS: [(&str, &str); 11] = [
    ("azure.ai.openai", "azure"),
    ("azure.ai.inference", "azure_ai"),
    ("gcp.gemini", "gemini"),
    ("gcp.vertex_ai", "vertex_ai"),
    ("gcp.gen_ai", "gemini"),
    ("aws.bedrock", "bedrock"),
    ("x_ai", "xai"),
    ("mistral_ai", "mistral"),
    ("moonshot_ai", "moonshot"),
    ("ibm.watsonx.ai", "watsonx"),
    ("z_ai", "zai"),
];

/// Returns the name of this provider in a price list.
pub(crate) fn provider(name: &str) -> &str {
    let row = PROVIDERS.iter().find(|(ours, _)| *ours == name);
    row.map_or(name, |(_, theirs)| theirs)
}

/// Returns `true` if an entry's provider belongs to this provider: `vertex_ai-anthropic_models` and
/// `bedrock_converse` belong to `vertex_ai` and `bedrock`.
pub(crate) fn is_of(entry: &str, provider: &str) -> bool {
    let rest = entry.strip_prefix(provider);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        || provider == "bedrock" && matches!(entry, "bedrock_converse" | "bedrock_mantle")
        || provider == "openai" && entry == "text-completion-openai"
        || provider == "cohere" && entry == "cohere_chat"
}

/// Returns the name without the version at its end, or `None` if it has none.
pub(crate) fn undated(name: &str) -> Option<&str> {
    let rest = name
        .strip_suffix("-latest")
        .or_else(|| name.strip_suffix(":latest"))
        .or_else(|| without_digits(name, &[4, 2, 2]))
        .or_else(|| without_digits(name, &[8]))
        .or_else(|| without_digits(name, &[3]));
    rest.filter(|rest| !rest.is_empty())
}

/// Returns the name without the groups of digits at its end, which have these lengths. The first group
/// follows a `-` or `@`, each further one a `-`.
fn without_digits<'n>(name: &'n str, groups: &[usize]) -> Option<&'n str> {
    let mut rest = name;
    for (index, &digits) in groups.iter().enumerate().rev() {
        let at = rest
            .len()
            .checked_sub(digits)
            .filter(|&at| rest.is_char_boundary(at))?;
        let (head, tail) = rest.split_at(at);
        if !tail.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        rest = match index {
            0 => head.strip_suffix(['-', '@']),
            _ => head.strip_suffix('-'),
        }?;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_at_the_end_of_names_are_removed() {
        for (name, rest) in [
            ("gpt-4o-2024-08-06", Some("gpt-4o")),
            ("claude-sonnet-4-20250514", Some("claude-sonnet-4")),
            ("claude-sonnet-4@20250514", Some("claude-sonnet-4")),
            ("gemini-2.0-flash-001", Some("gemini-2.0-flash")),
            ("mistral-large-latest", Some("mistral-large")),
            ("llama3:latest", Some("llama3")),
            ("gpt-4o", None),
            ("gpt-4-0613", None),
            ("o1", None),
            ("-latest", None),
            ("2024-08-06", None),
            ("modèle-é001", None),
            ("", None),
        ] {
            assert_eq!(undated(name), rest, "{name}");
        }
    }

    #[test]
    fn parts_of_a_provider_belong_to_it() {
        for (entry, name, is_its) in [
            ("openai", "openai", true),
            ("vertex_ai-anthropic_models", "vertex_ai", true),
            ("bedrock_converse", "bedrock", true),
            ("azure_ai", "azure", false),
            ("openai", "azure", false),
        ] {
            assert_eq!(is_of(entry, name), is_its, "{entry} of {name}");
        }
        assert_eq!(provider("gcp.vertex_ai"), "vertex_ai");
        assert_eq!(provider("groq"), "groq");
    }
}
