//! The response to a request for embeddings.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use l0_core::{Token, TokenView, Usage};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use serde_json::error::Category;

use crate::decode::error_in;
use crate::error::{AnswerTooLarge, Fault, InvalidJson, InvalidUtf8, NotAnAnswer};
use crate::lenient::{Count, Fields, Object, Text, anything, default_on, read_map, skip};
use crate::response::name;
use crate::usage::{Counted, UsageFields};

/// The embeddings of a list of inputs, returned by the clients, such as `openai::Client::embeddings`.
///
/// Fields may be added in later versions. In JSON, unknown values are left out. `Debug` shows the number of vectors,
/// not their contents.
#[derive(Clone, Default, PartialEq, Serialize, DeriveDeserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Embeddings {
    /// A vector for each input, in the order of the inputs.
    pub vectors: Vec<Vec<f32>>,
    /// The token counts; absent if the provider reports none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The model that answered, as named by the provider; absent if it does not name one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider's id of the response; absent if it sends none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
}

impl Embeddings {
    /// Creates embeddings without vectors, for tests.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// Read as an item without text.
impl Token for Embeddings {
    fn view(&self) -> TokenView<'_> {
        let mut view = TokenView::other();
        view.usage = self.usage;
        view.model = self.model.as_deref();
        view.response_id = self.response_id.as_deref();
        view
    }
}

impl fmt::Debug for Embeddings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embeddings")
            .field("vectors", &self.vectors.len())
            .field("usage", &self.usage)
            .field("model", &self.model)
            .field("response_id", &self.response_id)
            .finish()
    }
}

/// Reads the body of a response of OpenAI's, Gemini's or Ollama's API.
///
/// Less lenient than the reading of other answers: skipping a vector would shift the ones after it.
pub(crate) fn read(body: &[u8]) -> Result<Embeddings, Fault> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let valid_up_to = error.valid_up_to();
        Fault::Utf8(InvalidUtf8 { valid_up_to })
    })?;
    if let Some(error) = error_in(text) {
        return Err(error);
    }
    let payload = match serde_json::from_str::<Object<Payload<'_>>>(text) {
        Ok(payload) => payload.0.unwrap_or_default(),
        Err(error) if error.classify() == Category::Data => return Err(NotAnAnswer::json().into()),
        Err(error) => return Err(InvalidJson::new(text, Some(&error)).into()),
    };
    if payload.items.as_ref().is_some_and(|items| items.exceeded) {
        let (limit, of) = (MAX_VECTORS, "vectors");
        return Err(Fault::AnswerTooLarge(AnswerTooLarge { limit, of }));
    }
    let vectors = payload.items.and_then(|items| in_order(items.all));
    let vectors = vectors.ok_or_else(NotAnAnswer::json)?;
    let usage = payload.usage.0;
    Ok(Embeddings {
        vectors,
        usage: usage.and_then(|counts| Counted::default().add(&counts)),
        model: payload.model.filled().map(name).map(Cow::into_owned),
        response_id: payload.response_id.filled().map(name).map(Cow::into_owned),
    })
}

/// Returns the vectors in the order of the inputs: sorted by index if each has a different one, and as received
/// otherwise. Absent if an item has no vector.
fn in_order(items: Vec<Item>) -> Option<Vec<Vec<f32>>> {
    let mut vectors = vec![Vec::new(); items.len()];
    let mut numbers = Vec::with_capacity(items.len());
    for (vector, item) in vectors.iter_mut().zip(items) {
        *vector = item.vector?.0;
        numbers.push(item.index.0.and_then(|index| usize::try_from(index).ok()));
    }
    let mut sorted = vec![None; vectors.len()];
    for (at, number) in numbers.into_iter().enumerate() {
        match number.and_then(|number| sorted.get_mut(number)) {
            Some(place @ None) => *place = Some(at),
            _ => return Some(vectors),
        }
    }
    let sorted = sorted.into_iter().flatten();
    Some(sorted.map(|at| std::mem::take(&mut vectors[at])).collect())
}

#[derive(Default)]
struct Payload<'a> {
    items: Option<Items>,
    usage: Object<UsageFields>,
    model: Text<'a>,
    response_id: Text<'a>,
}

impl<'de> Fields<'de> for Payload<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "data" | "embeddings" => self.items = Some(map.next_value()?),
            // Gemini's response to one input.
            "embedding" => {
                self.items = Some(Items {
                    all: vec![map.next_value()?],
                    exceeded: false,
                });
            }
            "usage" | "usageMetadata" => self.usage.read(map)?,
            // Ollama's counts, which are not nested in an object.
            "prompt_eval_count" => {
                let usage = self.usage.0.get_or_insert_default();
                usage.read(key, map)?;
            }
            "model" | "modelVersion" => self.model = map.next_value()?,
            "id" | "responseId" => self.response_id = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// Limit on vectors. No provider accepts as many inputs. Without a limit, `[[0],[0],..` would take thirty times its own
/// size in memory.
const MAX_VECTORS: usize = 100_000;

/// The vectors of a response.
struct Items {
    all: Vec<Item>,
    /// `true` if there are too many.
    exceeded: bool,
}

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Items;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while all.len() < MAX_VECTORS {
                    match seq.next_element()? {
                        Some(item) => all.push(item),
                        None => {
                            return Ok(Items {
                                all,
                                exceeded: false,
                            });
                        }
                    }
                }
                let mut exceeded = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    exceeded = true;
                }
                Ok(Items { all, exceeded })
            }
        }
        deserializer.deserialize_seq(V)
    }
}

/// An object with a vector, or the vector itself, as in Ollama's API.
#[derive(Default)]
struct Item {
    vector: Option<Vector>,
    index: Count,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Item;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let mut item = Item::default();
                read_map(&mut item, map)?;
                Ok(item)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Ok(Item {
                    vector: Some(Vector::of(seq)?),
                    ..Item::default()
                })
            }
            default_on!(bool number str null);
        }
        deserializer.deserialize_any(V)
    }
}

impl<'de> Fields<'de> for Item {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "embedding" | "values" => self.vector = Some(map.next_value()?),
            "index" => self.index = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A list of numbers, or their bytes in base64.
struct Vector(Vec<f32>);

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Vector;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vector")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let bytes = STANDARD.decode(text).map_err(E::custom)?;
                let numbers = bytes.chunks(4).map(|bytes| {
                    let bytes = bytes.try_into().map_err(E::custom)?;
                    Ok(f32::from_le_bytes(bytes))
                });
                Ok(Vector(numbers.collect::<Result<_, E>>()?))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vector::of(seq)
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl Vector {
    fn of<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        let mut vector = Vec::new();
        while let Some(number) = seq.next_element()? {
            vector.push(number);
        }
        Ok(Self(vector))
    }
}
