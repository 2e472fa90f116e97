//! The builder: the destination and the content, validated once.

use std::collections::BTreeMap;

use l0_core::{KeyError, KeyList, KeyRules};
use l0_export::metrics;

use crate::error::{BuildError, MAX_KEY, MAX_PREFIX};
use crate::interceptor::StatsdInterceptor;
use crate::line::{Format, MetricTypes, Tags, clean};
use crate::socket::Socket;

/// Builds a [`StatsdInterceptor`]. See [`StatsdInterceptor::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct StatsdBuilder {
    address: String,
    prefix: String,
    types: MetricTypes,
    tags: Vec<(String, String)>,
    tag_keys: KeyList,
    without_tags: bool,
}

impl StatsdInterceptor {
    /// Creates a builder for this address: `host:port` or `udp://host:port` for UDP, or `unix:///path` for a
    /// Unix datagram socket.
    ///
    /// [`build`](StatsdBuilder::build) resolves a host name once, and blocks until that is done. Of several
    /// addresses, it uses the first IPv4 address, or else the first.
    pub fn builder(address: impl Into<String>) -> StatsdBuilder {
        StatsdBuilder::new(address.into())
    }
}

impl StatsdBuilder {
    fn new(address: String) -> Self {
        Self {
            address,
            prefix: "l0".to_owned(),
            types: MetricTypes::default(),
            tags: Vec::new(),
            tag_keys: KeyList::new(),
            without_tags: false,
        }
    }

    /// Sets the prefix of all names, which a dot follows. It replaces `l0`. Default: `l0`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Adds a tag to every point. If two tags have the same key, the later one wins. A metadata entry wins over
    /// both, if its key is in [`tag_keys`](Self::tag_keys).
    ///
    /// In keys and values, `_` replaces white space, control characters, and characters with a meaning in the
    /// protocol (`|`, `:`, `,`, `#`, `@`, `;`). A tag with an empty value is left out; a tag longer than 200
    /// bytes is cut.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// Adds these metadata entries of a run as tags to every point of the run. Can be called several times. A
    /// run without the entry has no such tag. Values are written like those of [`tag`](Self::tag).
    ///
    /// The entries are those at the start of the run. If the run falls back to another source, each point has
    /// the entries of the source that it belongs to.
    ///
    /// Servers keep a series for each set of values, so list entries with few values, such as `model`.
    ///
    /// # Errors
    ///
    /// Returns an error if a key is empty or longer than 100 bytes, if it is the name of a [tag that points
    /// have](l0_export::metrics::is_own_tag), or if two keys would be sent under the same name.
    pub fn tag_keys<I>(mut self, keys: I) -> Result<Self, KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.tag_keys.add(keys, &TAG_KEYS)?;
        Ok(self)
    }

    /// Sets the types that points are sent as. Default: [`MetricTypes::DogStatsd`].
    pub fn types(mut self, types: MetricTypes) -> Self {
        self.types = types;
        self
    }

    /// Sends no tags, for servers that do not support them. A point's own tag becomes part of its name, as in
    /// `l0.runs.completed`, with `_` for all characters except ASCII letters, digits, `_` and `-`.
    pub fn without_tags(mut self) -> Self {
        self.without_tags = true;
        self
    }

    /// Validates the settings, resolves the address, and opens the socket. The server does not have to be
    /// running; it can start later.
    ///
    /// # Errors
    ///
    /// Returns an error if the prefix, a tag or the address is not valid, or the system cannot open a socket.
    pub fn build(self) -> Result<StatsdInterceptor, BuildError> {
        if !is_prefix(&self.prefix) {
            return Err(BuildError::Prefix(self.prefix));
        }
        let tags = if self.without_tags {
            let constant = self.tags.iter().map(|(key, _)| key.as_str());
            let metadata = self.tag_keys.iter().map(|(key, _)| key);
            if let Some(key) = constant.chain(metadata).next() {
                return Err(BuildError::WithoutTags(key.to_owned()));
            }
            None
        } else {
            Some(Tags {
                constant: constant_tags(self.tags)?,
                metadata: self.tag_keys,
            })
        };
        let format = Format {
            prefix: self.prefix + ".",
            types: self.types,
            tags,
        };
        Ok(StatsdInterceptor::new(format, Socket::open(&self.address)?))
    }
}

/// Returns `true` if the prefix is parts separated by dots, and the first starts with a letter.
fn is_prefix(prefix: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    prefix.len() <= MAX_PREFIX
        && prefix.starts_with(|first: char| first.is_ascii_alphabetic())
        && prefix
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(allowed))
}

/// The rules for metadata keys that can be sent as tags, and their spelling.
pub(crate) const TAG_KEYS: KeyRules =
    KeyRules::new(spelled, "a text of 1 to 100 bytes").reserved(metrics::is_own_tag);

/// Returns the key of a tag as it is sent, or `None` if it cannot be sent.
fn spelled(key: &str) -> Option<String> {
    let sent: String = clean(key).collect();
    (1..=MAX_KEY).contains(&sent.len()).then_some(sent)
}

fn constant_tags(tags: Vec<(String, String)>) -> Result<BTreeMap<String, String>, BuildError> {
    let mut constant = BTreeMap::new();
    for (key, value) in tags {
        let Some(sent) = spelled(&key) else {
            return Err(BuildError::TagKey(key));
        };
        if metrics::is_own_tag(&sent) {
            return Err(BuildError::ReservedTagKey(key));
        }
        constant.insert(sent, value);
    }
    Ok(constant)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    fn builder() -> StatsdBuilder {
        StatsdInterceptor::builder("127.0.0.1:8125")
    }

    #[test]
    fn invalid_settings_are_reported_with_their_value() {
        let long = "a".repeat(101);
        let of_form = "must have the form `part.part`, of ASCII letters, digits, `_` and `-`, with \
                       a letter first, in up to 100 bytes";
        let no_address = "must be `host:port` or, on Unix, `unix:///path`";
        let cases = [
            (builder().prefix(""), format!("prefix: \"\" {of_form}")),
            (
                builder().prefix("1l0"),
                format!("prefix: \"1l0\" {of_form}"),
            ),
            (
                builder().prefix(".l0"),
                format!("prefix: \".l0\" {of_form}"),
            ),
            (
                builder().prefix("l0."),
                format!("prefix: \"l0.\" {of_form}"),
            ),
            (
                builder().prefix("a..b"),
                format!("prefix: \"a..b\" {of_form}"),
            ),
            (
                builder().prefix("a:b"),
                format!("prefix: \"a:b\" {of_form}"),
            ),
            (
                builder().prefix("a\n"),
                format!("prefix: \"a\\n\" {of_form}"),
            ),
            (builder().prefix("ä"), format!("prefix: \"ä\" {of_form}")),
            (
                builder().prefix(&long),
                format!("prefix: {long:?} {of_form}"),
            ),
            (
                builder().tag("", "prod"),
                "tag: key \"\" is empty or longer than 100 bytes".to_owned(),
            ),
            (
                builder().tag(&long, "prod"),
                format!("tag: key {long:?} is empty or longer than 100 bytes"),
            ),
            (
                builder().tag("outcome", "good"),
                "tag: key \"outcome\" is reserved: points already have this tag".to_owned(),
            ),
            (
                // The spelling that would be sent is checked.
                builder().tag("model", "gpt-4").tag("error type", "x"),
                "tag: key \"error type\" is reserved: points already have this tag".to_owned(),
            ),
            (
                builder().without_tags().tag("env", "prod"),
                "tag: \"env\" cannot be sent because tags are disabled by `without_tags`"
                    .to_owned(),
            ),
            (
                builder().tag_keys(["model"]).unwrap().without_tags(),
                "tag: \"model\" cannot be sent because tags are disabled by `without_tags`"
                    .to_owned(),
            ),
            (
                StatsdInterceptor::builder("http://localhost:8125"),
                format!("address: \"http://localhost:8125\" {no_address}"),
            ),
            (
                StatsdInterceptor::builder("unix://dsd.socket"),
                format!("address: \"unix://dsd.socket\" {no_address}"),
            ),
            #[cfg(not(unix))]
            (
                StatsdInterceptor::builder("unix:///dsd.socket"),
                format!("address: \"unix:///dsd.socket\" {no_address}"),
            ),
        ];
        for (builder, expected) in cases {
            assert_eq!(builder.build().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn an_invalid_metadata_key_is_reported_when_it_is_listed() {
        let long = "a".repeat(101);
        for (keys, expected) in [
            (
                vec!["model", ""],
                "the metadata key \"\" cannot be sent: it is not a text of 1 to 100 bytes"
                    .to_owned(),
            ),
            (
                vec![&long],
                format!(
                    "the metadata key {long:?} cannot be sent: it is not a text of 1 to 100 bytes"
                ),
            ),
            (
                // The spelling that would be sent is checked.
                vec!["error type"],
                "the metadata key \"error type\" cannot be sent as `error_type`, which is a \
                 reserved name: choose another key"
                    .to_owned(),
            ),
            (
                vec!["user id", "user:id"],
                "the metadata keys \"user:id\" and \"user id\" would both be sent as `user_id`"
                    .to_owned(),
            ),
        ] {
            let error = builder().tag_keys(keys).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(BuildError::from(error).to_string(), expected);
        }
        for own in ["outcome", "error_type", "severity", "rule"] {
            builder().tag_keys([own]).unwrap_err();
        }
        let again = builder().tag_keys(["model", "reason"]).unwrap();
        again.tag_keys(["model"]).unwrap().build().unwrap();
    }

    #[test]
    fn an_address_that_cannot_be_resolved_keeps_its_cause() {
        let long = format!("unix:///{}", "a".repeat(200));
        let addresses = ["127.0.0.1", "127.0.0.1:99999", "", "[::1:8125"];
        for address in addresses.into_iter().chain(cfg!(unix).then_some(&*long)) {
            let error = StatsdInterceptor::builder(address).build().unwrap_err();
            let expected = format!("address: {address:?} cannot be resolved");
            assert_eq!(error.to_string(), expected);
            assert!(error.source().is_some(), "{address}");
        }
    }

    #[test]
    fn valid_settings_are_accepted() {
        let longest = format!("a{}", "b".repeat(99));
        for prefix in ["l0", "L-0_x.prod.eu-1", &longest] {
            builder().prefix(prefix).build().unwrap();
        }
        builder().tag("env", "").tag(&longest, "x").build().unwrap();
        builder().without_tags().build().unwrap();
        for address in ["localhost:8125", "udp://localhost:8125", "[::1]:8125"] {
            StatsdInterceptor::builder(address).build().unwrap();
        }
    }
}
