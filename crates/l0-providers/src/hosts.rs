//! Identifies the provider of a model by its address.
//!
//! A table of the domains of providers, matched from the host's last label to its first. A domain covers everything
//! below it. An unknown address identifies no provider: a proxy or a local server can speak any provider's API and
//! forward to another. The provider is then absent, and never guessed from the API.

use reqwest::Url;

/// A domain, optionally followed by a path, and the provider's name. A `*` matches any letters of a label. The first
/// matching row counts.
///
/// The names are those of OpenTelemetry's conventions, followed by names of the same form for providers that the
/// conventions do not list.
const HOSTS: [(&str, &str); 44] = [
    ("openai.com", "openai"),
    ("anthropic.com", "anthropic"),
    ("claude.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("*-aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("aiplatform.*.rep.googleapis.com", "gcp.vertex_ai"),
    ("openai.azure.com", "azure.ai.openai"),
    ("openai.azure.us", "azure.ai.openai"),
    ("cognitiveservices.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com/openai", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("models.ai.azure.com", "azure.ai.inference"),
    ("inference.ai.azure.com", "azure.ai.inference"),
    ("inference.ml.azure.com", "azure.ai.inference"),
    ("bedrock-runtime*.*.amazonaws.com", "aws.bedrock"),
    ("bedrock-runtime*.*.vpce.amazonaws.com", "aws.bedrock"),
    ("bedrock-runtime*.*.amazonaws.com.cn", "aws.bedrock"),
    ("bedrock-mantle*.*.api.aws", "aws.bedrock"),
    ("x.ai", "x_ai"),
    ("groq.com", "groq"),
    ("deepseek.com", "deepseek"),
    ("mistral.ai", "mistral_ai"),
    ("perplexity.ai", "perplexity"),
    ("cohere.com", "cohere"),
    ("cohere.ai", "cohere"),
    ("moonshot.ai", "moonshot_ai"),
    ("moonshot.cn", "moonshot_ai"),
    ("ml.cloud.ibm.com", "ibm.watsonx.ai"),
    // Not in the conventions.
    ("openrouter.ai", "openrouter"),
    ("together.xyz", "together_ai"),
    ("together.ai", "together_ai"),
    ("fireworks.ai", "fireworks_ai"),
    ("cerebras.ai", "cerebras"),
    ("sambanova.ai", "sambanova"),
    ("deepinfra.com", "deepinfra"),
    ("novita.ai", "novita"),
    ("voyageai.com", "voyage"),
    ("integrate.api.nvidia.com", "nvidia_nim"),
    ("router.huggingface.co", "huggingface"),
    ("dashscope*.aliyuncs.com", "dashscope"),
    ("minimax.io", "minimax"),
    ("z.ai", "z_ai"),
    ("ollama.com", "ollama"),
];

/// Returns the name of the provider at this address, as requests of the clients report it; `None` if the host is not
/// known. Use it in sources that send requests with another client.
///
/// ```
/// let url = "https://api.groq.com/openai/v1".parse()?;
/// assert_eq!(l0_providers::provider_at(&url), Some("groq"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn provider_at(url: &Url) -> Option<&'static str> {
    provider(url.host_str().unwrap_or_default(), url.path())
}

/// Returns the name of the provider at this host and path.
fn provider(host: &str, path: &str) -> Option<&'static str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let row = HOSTS.iter().find(|(pattern, _)| {
        let (domain, folder) = pattern.split_once('/').unwrap_or((pattern, ""));
        lies_in(host, domain) && (folder.is_empty() || path.split('/').nth(1) == Some(folder))
    });
    row.map(|(_, name)| *name)
}

/// Returns `true` if a host is this domain or below it.
fn lies_in(host: &str, domain: &str) -> bool {
    let mut labels = host.rsplit('.');
    domain.rsplit('.').all(|pattern| {
        labels
            .next()
            .is_some_and(|label| match pattern.split_once('*') {
                Some((head, tail)) => {
                    let rest = label.strip_prefix(head);
                    rest.is_some_and(|rest| rest.ends_with(tail))
                }
                None => label.eq_ignore_ascii_case(pattern),
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_by_their_hosts() {
        for (host, path, name) in [
            ("api.openai.com", "/v1", Some("openai")),
            ("eu.api.openai.com", "/v1", Some("openai")),
            ("openai.com", "/", Some("openai")),
            ("api.openai.com.", "/v1", Some("openai")),
            ("api.anthropic.com", "", Some("anthropic")),
            (
                "generativelanguage.googleapis.com",
                "/v1beta/openai",
                Some("gcp.gemini"),
            ),
            ("aiplatform.googleapis.com", "/v1", Some("gcp.vertex_ai")),
            (
                "europe-west4-aiplatform.googleapis.com",
                "/v1",
                Some("gcp.vertex_ai"),
            ),
            (
                "aiplatform.eu.rep.googleapis.com",
                "/v1",
                Some("gcp.vertex_ai"),
            ),
            (
                "mine.openai.azure.com",
                "/openai/v1",
                Some("azure.ai.openai"),
            ),
            (
                "mine.cognitiveservices.azure.com",
                "/openai/v1",
                Some("azure.ai.openai"),
            ),
            (
                "mine.services.ai.azure.com",
                "/openai/v1",
                Some("azure.ai.openai"),
            ),
            (
                "mine.services.ai.azure.com",
                "/models",
                Some("azure.ai.inference"),
            ),
            (
                "mine.services.ai.azure.com",
                "/models/openai",
                Some("azure.ai.inference"),
            ),
            (
                "models.inference.ai.azure.com",
                "/",
                Some("azure.ai.inference"),
            ),
            (
                "bedrock-runtime.us-east-1.amazonaws.com",
                "/openai/v1",
                Some("aws.bedrock"),
            ),
            (
                "bedrock-runtime-fips.us-east-1.amazonaws.com",
                "/",
                Some("aws.bedrock"),
            ),
            (
                "bedrock-mantle.eu-west-1.api.aws",
                "/v1",
                Some("aws.bedrock"),
            ),
            (
                "vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com",
                "/",
                Some("aws.bedrock"),
            ),
            ("api.groq.com", "/openai/v1", Some("groq")),
            ("api.deepseek.com", "", Some("deepseek")),
            ("api.x.ai", "/v1", Some("x_ai")),
            ("api.mistral.ai", "/v1", Some("mistral_ai")),
            ("api.perplexity.ai", "", Some("perplexity")),
            ("api.moonshot.cn", "/v1", Some("moonshot_ai")),
            (
                "us-south.ml.cloud.ibm.com",
                "/ml/v1",
                Some("ibm.watsonx.ai"),
            ),
            ("openrouter.ai", "/api/v1", Some("openrouter")),
            ("api.together.xyz", "/v1", Some("together_ai")),
            ("api.fireworks.ai", "/inference/v1", Some("fireworks_ai")),
            ("api.cerebras.ai", "/v1", Some("cerebras")),
            (
                "dashscope-intl.aliyuncs.com",
                "/compatible-mode/v1",
                Some("dashscope"),
            ),
            ("ollama.com", "/api", Some("ollama")),
            // Hosts of no known provider.
            ("localhost", "/api", None),
            ("localhost", "/v1", None),
            ("127.0.0.1", "/v1", None),
            ("[::1]", "/v1", None),
            ("", "", None),
            (".", "", None),
            ("llm.internal", "/openai/v1", None),
            ("evil-openai.com", "/v1", None),
            ("evil-openai.com.example", "/v1", None),
            ("api.openai.com.example", "/v1", None),
            ("openai.com.evil.example", "/v1", None),
            ("api-openai.com", "/v1", None),
            ("com", "/v1", None),
            ("x.ai.example", "/v1", None),
            ("fox.ai", "/v1", None),
            ("openai.azure.com.example", "/", None),
            ("mine.azure.com", "/openai/v1", None),
            ("aiplatform.googleapis.com.example", "/", None),
            ("evilaiplatform.googleapis.com", "/", None),
            ("storage.googleapis.com", "/aiplatform", None),
            ("bedrock-runtime.amazonaws.com", "/", None),
            ("s3.us-east-1.amazonaws.com", "/bedrock-runtime", None),
        ] {
            assert_eq!(provider(host, path), name, "{host}{path}");
        }
    }

    #[test]
    fn the_documents_list_every_name() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sources.md");
        let page = std::fs::read_to_string(page).unwrap();
        for (_, name) in HOSTS {
            let cell = format!("| `{name}` |");
            assert!(page.lines().any(|line| line.ends_with(&cell)), "{name}");
        }
    }

    #[test]
    fn every_row_can_match() {
        for (pattern, name) in HOSTS {
            let (domain, folder) = pattern.split_once('/').unwrap_or((pattern, "x"));
            let host = domain.replace('*', "-a");
            let path = format!("/{folder}/v1");
            assert_eq!(provider(&host, &path), Some(name), "{pattern}");
            assert_eq!(
                provider(&format!("a.{host}"), &path),
                Some(name),
                "{pattern}"
            );
            assert_eq!(
                provider(&format!("{host}.example"), &path),
                None,
                "{pattern}"
            );
            assert_eq!(
                provider(&format!("a{host}"), &path).is_some(),
                pattern.starts_with('*'),
                "{pattern}"
            );
        }
    }
}
