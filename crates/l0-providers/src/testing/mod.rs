//! Tests a service against a provider that follows a script.
//!
//! A [`ScriptedProvider`] is a server on the loopback interface that speaks the APIs of all providers. The code under
//! test only needs its address:
//!
//! ```
//! use l0_core::Usage;
//! use l0_providers::testing::{Answer, ScriptedProvider};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = ScriptedProvider::start([
//!     Answer::status(429).header("retry-after", "0"),
//!     Answer::text(["Hello", ", world"]).usage(Usage::new().input(9).output(2)),
//! ])
//! .await?;
//!
//! // The service under test.
//! # #[cfg(all(feature = "openai", feature = "reqwest"))] {
//! use l0_core::L0;
//! use l0_providers::openai::{ChatRequest, Client};
//!
//! let client = Client::new(&provider.base_url())?;
//! let request = ChatRequest::new("gpt-4o-mini").user("Greet the world.");
//! let mut run = L0::default().stream(|_attempt| client.chat_stream(&request)).start();
//! assert_eq!(run.text().await?, "Hello, world");
//!
//! let requests = provider.requests();
//! assert_eq!(requests.len(), 2);
//! assert_eq!(requests[1].body["messages"][0]["content"], "Greet the world.");
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! Pauses take real time, as this is a server. Under Tokio's paused clock they can end before bytes have passed through
//! the socket. For tests with a paused clock, use `l0_core::testing::Script`.

mod answer;
mod api;
mod server;
mod whole;

pub use answer::Answer;
pub use server::{Request, ScriptedProvider};
