//! Checks at compile time which types are `Send` and `Sync`.

use std::error::Error as StdError;
use std::fmt::Debug;

use async_openai::types::chat::{CreateChatCompletionResponse, CreateChatCompletionStreamResponse};
use l0_async_openai::{AnswerStream, Client, ClientRequest, Error, Viewed};
use l0_core::Source;

/// Asserts that each of the types has all of the traits.
macro_rules! assert_all {
    ([$($bound:tt)+] $($kind:ty),+ $(,)?) => {
        const _: fn() = || {
            fn check<T: ?Sized + $($bound)+>() {}
            $( check::<$kind>(); )+
        };
    };
}

type Item = Viewed<CreateChatCompletionStreamResponse>;
type Answer = Viewed<CreateChatCompletionResponse>;
type Stream = AnswerStream<CreateChatCompletionStreamResponse>;

assert_all!([Clone + Send + Sync + Debug + Unpin + 'static] Client);
assert_all!([Send + Sync + Debug + Unpin + 'static] Item, Answer);
assert_all!([Send + Debug + Unpin + 'static] Stream);
assert_all!([Source + Debug + 'static] ClientRequest<Stream>, ClientRequest<Answer>);
assert_all!([StdError + Send + Sync + Unpin + 'static] Error);
