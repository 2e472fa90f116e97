//! Whole tool calls, assembled from their pieces.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use crate::error::word;
use crate::token::{ProviderToken, ToolCall};

/// Limit on the calls of one response. The dialects distinguish more.
const MAX_CALLS: usize = 256;

/// Default limit on ids, names and arguments: 8 MiB.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Assembles tool calls from their pieces.
///
/// Push all tokens of one response in order; tokens without a piece of a call are ignored. Clear it after a
/// [`Chunk::Restart`](l0_core::Chunk::Restart), as you clear the text:
///
/// ```
/// use futures_util::StreamExt;
/// use l0_core::{Chunk, L0};
/// use l0_providers::{ToolCalls, openai};
/// # use futures_util::stream;
/// # const BODY: &str = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"call_1\",\"function\":{\"name\":\"get_weather\",\"arguments\":\"{\\\"city\\\":\\\"Bern\\\"}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n";
///
/// #[derive(serde::Deserialize)]
/// struct Weather {
///     city: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let response = || async { Ok(openai::decode(stream::iter([Ok::<_, std::io::Error>(BODY)]))) };
/// let mut run = L0::default().stream(|_attempt| response()).start();
/// let mut calls = ToolCalls::new();
/// while let Some(chunk) = run.next().await {
///     match chunk? {
///         Chunk::Item(token) => calls.push(&token)?,
///         Chunk::Restart { .. } => calls.clear(),
///     }
/// }
/// for call in calls.finish() {
///     assert_eq!(call.name, "get_weather");
///     let arguments: Weather = call.parse()?;
///     assert_eq!(arguments.city, "Bern");
/// }
/// # Ok(())
/// # }
/// ```
///
/// Memory is bounded: at most 256 calls, and 8 MiB of ids, names and arguments unless [`max_bytes`](Self::max_bytes)
/// sets another limit.
#[derive(Debug, Clone)]
pub struct ToolCalls {
    calls: BTreeMap<(u32, u32), WholeCall>,
    bytes: usize,
    max_bytes: usize,
    exceeded: Option<TooManyCalls>,
}

impl Default for ToolCalls {
    fn default() -> Self {
        Self::new()
    }
}

impl ToolCalls {
    /// Creates an empty set of calls.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            calls: BTreeMap::new(),
            bytes: 0,
            max_bytes: MAX_BYTES,
            exceeded: None,
        }
    }

    /// Sets the limit on ids, names and arguments, in bytes. The default is 8 MiB.
    #[must_use]
    pub const fn max_bytes(mut self, limit: usize) -> Self {
        self.max_bytes = limit;
        self
    }

    /// Adds the piece of a call, if the token has one. The first id and the first name of a call count.
    ///
    /// # Errors
    ///
    /// Returns [`TooManyCalls`] if a limit is exceeded, and for every later piece. All calls are then discarded, as a
    /// part of a call is useless.
    pub fn push(&mut self, token: &ProviderToken) -> Result<(), TooManyCalls> {
        let Some(piece) = &token.tool_call else {
            return Ok(());
        };
        if let Some(exceeded) = &self.exceeded {
            return Err(exceeded.clone());
        }
        if let Some(limit) = self.add(token.choice, piece) {
            self.calls.clear();
            self.exceeded = Some(limit.clone());
            return Err(limit);
        }
        Ok(())
    }

    /// Adds a piece. Returns the limit that it exceeds, if any.
    fn add(&mut self, choice: u32, piece: &ToolCall) -> Option<TooManyCalls> {
        let key = (choice, piece.index);
        if self.calls.len() == MAX_CALLS && !self.calls.contains_key(&key) {
            return Some(TooManyCalls::Calls { limit: MAX_CALLS });
        }
        let call = self.calls.entry(key).or_insert_with(|| WholeCall {
            choice,
            index: piece.index,
            id: None,
            name: String::new(),
            arguments: String::new(),
            hosted: false,
        });
        let id = piece.id.as_ref().filter(|_| call.id.is_none());
        let name = piece.name.as_ref().filter(|_| call.name.is_empty());
        let length = |text: Option<&String>| text.map_or(0, String::len);
        let bytes = length(id) + length(name) + piece.arguments.len();
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.max_bytes {
            let limit = self.max_bytes;
            return Some(TooManyCalls::Bytes { limit });
        }
        if let Some(id) = id {
            call.id = Some(id.clone());
        }
        if let Some(name) = name {
            call.name.clone_from(name);
        }
        call.arguments.push_str(&piece.arguments);
        call.hosted |= piece.hosted;
        None
    }

    /// Removes all calls, for an answer that starts again.
    pub fn clear(&mut self) {
        self.calls.clear();
        self.bytes = 0;
        self.exceeded = None;
    }

    /// Returns `true` if there is no call so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns the calls, by choice and index. Call this when the response has ended: until then, the arguments of any
    /// call may continue.
    ///
    /// The arguments are `{}` if the provider sent none.
    #[must_use]
    pub fn finish(self) -> Vec<WholeCall> {
        let mut calls: Vec<_> = self.calls.into_values().collect();
        for call in &mut calls {
            if call.arguments.is_empty() {
                call.arguments.push_str("{}");
            }
        }
        calls
    }
}

/// A complete tool call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WholeCall {
    /// The answer that this belongs to, counted from 0.
    #[serde(default)]
    pub choice: u32,
    /// The call's position among the calls of its choice, counted from 0.
    pub index: u32,
    /// The provider's id of the call, which its result must name; absent if the provider sent none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// The name of the function; empty if the provider sent none.
    pub name: String,
    /// The arguments as the model wrote them: usually JSON, but not always valid. For a custom tool, any text.
    pub arguments: String,
    /// `true` if the provider runs the call itself, so no result must be sent.
    #[serde(default)]
    pub hosted: bool,
}

impl WholeCall {
    /// Deserializes the arguments.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidArguments`] if they are not JSON or do not match `T`. Models make such mistakes.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, InvalidArguments> {
        serde_json::from_str(&self.arguments).map_err(|source| InvalidArguments {
            name: self.name.clone(),
            source,
        })
    }
}

/// The tool calls of a response exceed a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TooManyCalls {
    /// Too many calls.
    #[error("the response exceeds {limit} tool calls")]
    #[non_exhaustive]
    Calls {
        /// The limit on calls.
        limit: usize,
    },
    /// Ids, names and arguments that are too long.
    #[error("the tool calls of the response exceed {limit} bytes")]
    #[non_exhaustive]
    Bytes {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// Arguments of a tool call that cannot be deserialized.
///
/// Neither `Display` nor `Debug` prints the arguments. `source()` is serde_json's error, which may contain them. They
/// print the name, which is the model's, only if it looks like the name of a function: one word of at most 64 letters,
/// digits, `_`, `-` and `.`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub struct InvalidArguments {
    /// The name of the function.
    pub name: String,
    source: serde_json::Error,
}

impl InvalidArguments {
    fn problem(&self) -> &'static str {
        match self.source.classify() {
            Category::Eof => "end too early",
            Category::Data => "do not match the expected type",
            Category::Syntax | Category::Io => "are not valid JSON",
        }
    }
}

impl fmt::Display for InvalidArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = (self.source.line(), self.source.column());
        let problem = self.problem();
        match word(Some(&self.name)) {
            Some(name) => write!(f, "the arguments of the tool call `{name}` ")?,
            None => f.write_str("the arguments of a tool call ")?,
        }
        write!(f, "{problem} (line {line}, column {column})")
    }
}

impl fmt::Debug for InvalidArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvalidArguments")
            .field("name", &word(Some(&self.name)))
            .field("problem", &self.problem())
            .field("line", &self.source.line())
            .field("column", &self.source.column())
            .finish_non_exhaustive()
    }
}
