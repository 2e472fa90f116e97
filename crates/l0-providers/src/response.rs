//! What dialects keep of a response from one payload to the next.

use std::hash::{DefaultHasher, Hash, Hasher};

use l0_core::{FinishReason, TokenKind};

use crate::decode::Said;
use crate::lenient::MAX_LIST;
use crate::token::{ProviderToken, ToolCall};

/// How many choices, or calls, are told apart, so that a hostile server cannot make the state grow.
const MAX_KEPT: usize = MAX_LIST;

/// The model and the response's id, which are told once and when they change.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    model: String,
    response_id: String,
}

impl Identity {
    /// What of it is there and new.
    pub(crate) fn news(&mut self, model: &str, response_id: &str) -> Said {
        Said {
            model: changed(&mut self.model, model),
            response_id: changed(&mut self.response_id, response_id),
            ..Said::default()
        }
    }
}

/// Takes over a value that is there and new.
fn changed(known: &mut String, new: &str) -> Option<String> {
    if new.is_empty() || known == new {
        return None;
    }
    new.clone_into(known);
    Some(new.to_owned())
}

/// The choices of a response, in the order in which they were first seen; almost always one.
#[derive(Debug, Default)]
pub(crate) struct Choices(Vec<Choice>);

#[derive(Debug)]
pub(crate) struct Choice {
    index: u32,
    pub(crate) finish: Option<FinishReason>,
    /// How many tool calls there are.
    pub(crate) calls: u32,
    /// A fingerprint of the last call's id. The id itself may be as long as an event, and choices
    /// are many.
    pub(crate) call_id: Option<u64>,
    /// The provider's number of the last call that came with one.
    pub(crate) call_index: Option<u32>,
    /// How many calls came with the number of another one.
    pub(crate) reused: u32,
    /// Whether deltas gave something of the answer.
    pub(crate) given: bool,
}

impl Choices {
    /// The state of a choice; `None` if there are too many.
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

    /// Whether all choices seen so far have finished.
    pub(crate) fn all_finished(&self) -> bool {
        self.0.iter().all(|choice| choice.finish.is_some())
    }

    /// Why the lowest of the finished choices ended.
    pub(crate) fn first_finish(&self) -> Option<FinishReason> {
        let finished = self.0.iter().filter(|choice| choice.finish.is_some());
        finished.min_by_key(|choice| choice.index)?.finish
    }
}

/// Tool calls that are announced by one event, and whose arguments come with others.
///
/// The announcement is held back until the first piece of the arguments, and is one token with it;
/// so there are as many tokens as pieces, as in dialects where the first piece names the function.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// The calls in the order in which they began.
    begun: Vec<Begun>,
    /// The one call that was announced last, and of which no piece has come.
    announced: Option<(u64, ToolCall)>,
}

#[derive(Debug)]
struct Begun {
    /// The provider's number.
    key: u64,
    /// Whether a piece of its arguments has come.
    has_pieces: bool,
}

impl Calls {
    /// Announces a call: a new one, also where the provider's number is not. A call that was
    /// announced before and got no piece is given back.
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

    /// A piece of a call's arguments.
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

    /// Whether this call was announced and has got no piece yet.
    pub(crate) fn waits(&self, key: u64) -> bool {
        self.announced
            .as_ref()
            .is_some_and(|(waiting, _)| *waiting == key)
    }

    /// Whether nothing is known of this call.
    pub(crate) fn is_new(&self, key: u64) -> bool {
        self.begun.len() < MAX_KEPT && self.begun.iter().all(|call| call.key != key)
    }

    /// Whether this call was given without arguments.
    pub(crate) fn lacks_arguments(&self, key: u64) -> bool {
        let call = self.begun.iter().rfind(|call| call.key == key);
        call.is_some_and(|call| !call.has_pieces)
    }

    /// Whether there is no call.
    pub(crate) fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// The call that was announced and got no piece.
    pub(crate) fn flush(&mut self) -> Option<ProviderToken> {
        let (_, call) = self.announced.take()?;
        Some(ProviderToken::tool_call(call))
    }

    /// The position of a new call among the calls. Those past the limit share the last one.
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

    /// The position of the last call with this number.
    fn index(&mut self, key: u64) -> u32 {
        match self.begun.iter().rposition(|call| call.key == key) {
            Some(position) => small(Some(position as u64)),
            None => self.begin(key),
        }
    }
}

/// A text's place in a response: its kind, the item of the output, and the part of the item. A place
/// that is not told may be any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) kind: TokenKind,
    pub(crate) item: Option<u64>,
    pub(crate) part: Option<u64>,
}

/// Which texts have been given, as one that comes whole after its pieces is not given again.
#[derive(Debug, Default)]
pub(crate) struct Given(Vec<Place>);

impl Given {
    pub(crate) fn note(&mut self, place: Place) {
        if self.0.last() != Some(&place) && self.0.len() < MAX_KEPT && !self.0.contains(&place) {
            self.0.push(place);
        }
    }

    /// Whether a text of this place has been given, or may have been.
    pub(crate) fn has(&self, place: Place) -> bool {
        let same = |a: Option<u64>, b: Option<u64>| a.is_none() || b.is_none() || a == b;
        let known = |given: &Place| {
            given.kind == place.kind && same(given.item, place.item) && same(given.part, place.part)
        };
        self.0.len() == MAX_KEPT || self.0.iter().any(known)
    }
}

/// Whether a part of this kind is media: an image, audio, a file.
pub(crate) fn is_media(kind: &str) -> bool {
    let media = ["image", "audio", "video"]
        .iter()
        .any(|of| kind.contains(of));
    media || matches!(kind, "file" | "output_file" | "container_upload")
}

/// What tells two ids apart, without keeping them.
pub(crate) fn fingerprint(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// An index from the provider; 0 if it sends none.
pub(crate) fn small(index: Option<u64>) -> u32 {
    index.map_or(0, |index| u32::try_from(index).unwrap_or(u32::MAX))
}
