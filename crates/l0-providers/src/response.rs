//! State of a response that dialects keep between payloads.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use l0_core::keys::cut;
use l0_core::{FinishReason, TokenKind};

use crate::decode::Metadata;
use crate::error::ELLIPSIS;
use crate::lenient::MAX_LIST;
use crate::token::{ProviderToken, ToolCall};

/// Limit on the choices or calls that are distinguished, so a hostile server cannot grow the state.
const MAX_KEPT: usize = MAX_LIST;

/// Limit on the name of a model or of a response, in bytes. It is above the length that exporters send.
const MAX_NAME: usize = 1024;

/// The model and the response's id, which are reported once and when they change.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    model: String,
    response_id: String,
}

impl Identity {
    /// Returns the values that are present and new.
    pub(crate) fn update(&mut self, model: &str, response_id: &str) -> Metadata {
        Metadata {
            model: changed(&mut self.model, model),
            response_id: changed(&mut self.response_id, response_id),
            ..Metadata::default()
        }
    }
}

/// Stores and returns a value that is present and new.
fn changed(known: &mut String, new: &str) -> Option<String> {
    let new = name(new.into());
    if new.is_empty() || *known == *new {
        return None;
    }
    new.as_ref().clone_into(known);
    Some(new.into_owned())
}

/// Cuts the name of a model or of a response. Names are compared, kept and searched for secrets, and a server can send
/// one as long as an event.
pub(crate) fn name(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= MAX_NAME {
        return text;
    }
    let start = cut(&text, MAX_NAME);
    // The mark reveals the start of a secret at the end.
    Cow::Owned(format!("{start}{ELLIPSIS}"))
}

/// The choices of a response, in order of appearance; almost always one.
#[derive(Debug, Default)]
pub(crate) struct Choices(Vec<Choice>);

#[derive(Debug)]
pub(crate) struct Choice {
    index: u32,
    pub(crate) finish: Option<FinishReason>,
    /// Number of tool calls.
    pub(crate) calls: u32,
    /// A fingerprint of the last call's id. The id can be as long as an event, and choices are many.
    pub(crate) call_id: Option<u64>,
    /// The provider's number of the last call that had one.
    pub(crate) call_index: Option<u32>,
    /// Number of calls that arrived with the number of another call.
    pub(crate) reused: u32,
    /// `true` after deltas yielded a part of the answer.
    pub(crate) given: bool,
}

impl Choices {
    /// Returns the state of a choice; `None` if there are too many.
    pub(crate) fn of(&mut self, index: u32) -> Option<&mut Choice> {
        let position = self.0.iter().position(|known| known.index == index);
        let position = match position {
            Some(position) => position,
            None if self.0.len() < MAX_KEPT => {
                self.0.push(Choice {
                    index,
                    finish: None,
                    calls: 0,
                    call_id: None,
                    call_index: None,
                    reused: 0,
                    given: false,
                });
                self.0.len() - 1
            }
            None => return None,
        };
        self.0.get_mut(position)
    }

    /// Returns `true` if all choices seen so far have finished.
    pub(crate) fn all_finished(&self) -> bool {
        self.0.iter().all(|choice| choice.finish.is_some())
    }

    /// Returns the finish reason of the lowest finished choice.
    pub(crate) fn first_finish(&self) -> Option<FinishReason> {
        let finished = self.0.iter().filter(|choice| choice.finish.is_some());
        finished.min_by_key(|choice| choice.index)?.finish
    }
}

/// Tool calls that one event announces and whose arguments arrive in later events.
///
/// An announcement is held back until the first piece of the arguments and forms one token with it. The number of
/// tokens is then the number of pieces, as in dialects whose first piece names the function.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// The calls, in the order in which they began.
    begun: Vec<Begun>,
    /// The call that was announced last, if it has no piece yet.
    announced: Option<(u64, ToolCall)>,
}

#[derive(Debug)]
struct Begun {
    /// The provider's number.
    key: u64,
    /// `true` after a piece of its arguments arrived.
    has_pieces: bool,
}

impl Calls {
    /// Announces a new call, even if its number is known. Returns the previously announced call if it has no piece.
    pub(crate) fn announce(
        &mut self,
        key: u64,
        id: Option<String>,
        name: Option<String>,
        hosted: bool,
    ) -> Option<ProviderToken> {
        let before = self.flush();
        let mut call = ToolCall::new(self.begin(key));
        call.id = id;
        call.name = name;
        call.hosted = hosted;
        self.announced = Some((key, call));
        before
    }

    /// Creates a token for a piece of a call's arguments.
    pub(crate) fn piece(&mut self, key: u64, arguments: &str) -> ProviderToken {
        let announced = self.announced.take_if(|(announced, _)| *announced == key);
        let mut call = match announced {
            Some((_, call)) => call,
            None => ToolCall::new(self.index(key)),
        };
        arguments.clone_into(&mut call.arguments);
        if let Some(begun) = self.begun.iter_mut().rfind(|begun| begun.key == key) {
            begun.has_pieces = true;
        }
        ProviderToken::tool_call(call)
    }

    /// Returns `true` if this call was announced and has no piece yet.
    pub(crate) fn waits(&self, key: u64) -> bool {
        self.announced
            .as_ref()
            .is_some_and(|(waiting, _)| *waiting == key)
    }

    /// Returns `true` if this call is not known.
    pub(crate) fn is_new(&self, key: u64) -> bool {
        self.begun.len() < MAX_KEPT && self.begun.iter().all(|call| call.key != key)
    }

    /// Returns `true` if this call was yielded without arguments.
    pub(crate) fn lacks_arguments(&self, key: u64) -> bool {
        let call = self.begun.iter().rfind(|call| call.key == key);
        call.is_some_and(|call| !call.has_pieces)
    }

    /// Returns `true` if there is no call.
    pub(crate) fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// Returns the call that was announced and has no piece.
    pub(crate) fn flush(&mut self) -> Option<ProviderToken> {
        let (_, call) = self.announced.take()?;
        Some(ProviderToken::tool_call(call))
    }

    /// Returns the position of a new call among the calls. Calls past the limit share the last position.
    fn begin(&mut self, key: u64) -> u32 {
        let position = self.begun.len();
        if position < MAX_KEPT {
            self.begun.push(Begun {
                key,
                has_pieces: false,
            });
        }
        small(Some(position as u64))
    }

    /// Returns the position of the last call with this number.
    fn index(&mut self, key: u64) -> u32 {
        match self.begun.iter().rposition(|call| call.key == key) {
            Some(position) => small(Some(position as u64)),
            None => self.begin(key),
        }
    }
}

/// A text's place in a response: its kind, the item of the output, and the part of the item. An absent number matches
/// any place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) kind: TokenKind,
    pub(crate) item: Option<u64>,
    pub(crate) part: Option<u64>,
}

/// The texts that were yielded. A whole text after its pieces is not yielded again.
#[derive(Debug, Default)]
pub(crate) struct Given(Vec<Place>);

impl Given {
    pub(crate) fn note(&mut self, place: Place) {
        if self.0.last() != Some(&place) && self.0.len() < MAX_KEPT && !self.0.contains(&place) {
            self.0.push(place);
        }
    }

    /// Returns `true` if a text of this place was, or may have been, yielded.
    pub(crate) fn has(&self, place: Place) -> bool {
        let same = |a: Option<u64>, b: Option<u64>| a.is_none() || b.is_none() || a == b;
        let known = |given: &Place| {
            given.kind == place.kind && same(given.item, place.item) && same(given.part, place.part)
        };
        self.0.len() == MAX_KEPT || self.0.iter().any(known)
    }
}

/// Returns `true` if a part of this kind is media: an image, audio or a file.
pub(crate) fn is_media(kind: &str) -> bool {
    let media = ["image", "audio", "video"]
        .iter()
        .any(|of| kind.contains(of));
    media || matches!(kind, "file" | "output_file" | "container_upload")
}

/// Returns a hash that identifies an id without keeping it.
pub(crate) fn fingerprint(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// Converts a provider's index; 0 if it sends none.
pub(crate) fn small(index: Option<u64>) -> u32 {
    index.map_or(0, |index| u32::try_from(index).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_at_a_character_and_marked() {
        let mut identity = Identity::default();
        let long = "é".repeat(1_000_000);
        let metadata = identity.update(&long, "r-1");
        let cut = format!("{}…", "é".repeat(MAX_NAME / 2));
        assert_eq!(metadata.model.as_deref(), Some(&*cut));
        assert_eq!(metadata.response_id.as_deref(), Some("r-1"));
        assert_eq!(identity.model, cut);
        assert_eq!(identity.update(&long, "r-1").model, None);
        let fits = "m".repeat(MAX_NAME);
        assert_eq!(identity.update(&fits, "").model, Some(fits));
    }

    #[cfg(feature = "reqwest")]
    #[test]
    fn a_cut_name_leaves_no_part_of_a_secret() {
        let mut secrets = crate::secrets::Secrets::default();
        let secret = "c4n4ry0123456789";
        secrets.add(secret);
        for before in MAX_NAME - secret.len()..MAX_NAME {
            let long = format!("{}{secret}{}", "m".repeat(before), "m".repeat(99));
            let clean = name(long.into()).into_owned();
            let clean = secrets.hide(&clean).unwrap_or(clean);
            assert!(!clean.contains("c4n4"), "{before}: {clean}");
        }
    }
}
