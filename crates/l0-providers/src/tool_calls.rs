//! Whole tool calls, put together from their pieces.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use crate::token::{ProviderToken, ToolCall};

/// How many calls of one response are kept; the dialects tell more than these apart.
const MAX_CALLS: usize = 256;

/// How many bytes of ids, names and arguments are kept unless the user says otherwise: 8 MiB.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Puts the pieces of tool calls together.
///
/// Takes the tokens of one response, in their order; those that are no pieces of calls are passed
/// over. After a [`Chunk::Restart`](l0_core::Chunk::Restart) it is to be cleared, as a text is:
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
/// Memory is bounded: at most 256 calls, and 8 MiB of ids, names and arguments unless
/// [`max_bytes`](Self::max_bytes) says otherwise.
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

    /// Sets how many bytes of ids, names and arguments are kept: 8 MiB unless set.
    #[must_use]
    pub const fn max_bytes(mut self, limit: usize) -> Self {
        self.max_bytes = limit;
        self
    }

    /// Adds a piece, if the token is one. Of the ids and of the names of one call, the first counts.
    ///
    /// # Errors
    ///
    /// Returns [`TooManyCalls`] if a limit is exceeded, also for every further piece. The calls are
    /// dropped then: half of a call is none.
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

    /// Adds a piece, or says which limit it exceeds.
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

    /// Forgets all calls, for an answer that begins anew.
    pub fn clear(&mut self) {
        self.calls.clear();
        self.bytes = 0;
        self.exceeded = None;
    }

    /// Returns whether there is no call so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns the calls, by choice and index. To be called when the response has ended: until then,
    /// the arguments of any call may go on.
    ///
    /// Arguments are `{}` where the provider sent none.
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

/// A tool call, whole: what the model asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WholeCall {
    /// Which of the answers asks for it, from 0.
    #[serde(default)]
    pub choice: u32,
    /// The call's position among its choice's calls, from 0.
    pub index: u32,
    /// The provider's id of the call, which its result is to name; absent if the provider sent none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// The name of the function; empty if the provider sent none.
    pub name: String,
    /// The arguments, as the model wrote them: usually JSON, and not always valid. Of a custom tool,
    /// any text.
    pub arguments: String,
    /// Whether the provider runs the call itself, so that no result is to be sent.
    #[serde(default)]
    pub hosted: bool,
}

impl WholeCall {
    /// Reads the arguments.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidArguments`] if they are no JSON, or do not fit `T`: models make mistakes.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, InvalidArguments> {
        serde_json::from_str(&self.arguments).map_err(|source| InvalidArguments {
            name: self.name.clone(),
            source,
        })
    }
}

/// The tool calls of a response are more than are kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TooManyCalls {
    /// There are too many calls.
    #[error("the response has more than {limit} tool calls")]
    #[non_exhaustive]
    Calls {
        /// How many are allowed.
        limit: usize,
    },
    /// The ids, names and arguments are too long.
    #[error("the tool calls of the response have more than {limit} bytes")]
    #[non_exhaustive]
    Bytes {
        /// How many bytes are allowed.
        limit: usize,
    },
}

/// The arguments of a tool call that do not fit.
///
/// Neither what is displayed nor `Debug` repeats the arguments; `source()` is serde_json's error,
/// which may. The name is the model's.
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
            Category::Data => "do not fit",
            Category::Syntax | Category::Io => "are no JSON",
        }
    }
}

impl fmt::Display for InvalidArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be anything that a model writes.
        let name: String = self.name.chars().take(64).collect();
        let name = name.escape_debug();
        let (line, column) = (self.source.line(), self.source.column());
        let problem = self.problem();
        write!(
            f,
            "the arguments of the tool call `{name}` {problem} (line {line}, column {column})"
        )
    }
}

impl fmt::Debug for InvalidArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvalidArguments")
            .field("name", &self.name)
            .field("problem", &self.problem())
            .field("line", &self.source.line())
            .field("column", &self.source.column())
            .finish_non_exhaustive()
    }
}
