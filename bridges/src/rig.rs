//! `rig`: the items of a completion stream, of any of its providers.
//!
//! Its stream says neither why it ended nor what it cost: its `finish` does, which needs the stream
//! for itself.
//!
//! ```no_run
//! use l0_bridges::rig::view;
//! use l0_core::L0;
//! use rig_core::DynModel;
//! use rig_core::completion::CompletionRequest;
//! use rig_core::operation::Completion;
//!
//! # async fn example(l0: L0, model: DynModel<Completion>) -> Result<(), Box<dyn std::error::Error>> {
//! let mut run = l0
//!     .stream(|_attempt| {
//!         let stream = model.stream(CompletionRequest::new("What is a monad?"));
//!         async move { stream }
//!     })
//!     .view_with(view)
//!     .start();
//! let answer = run.text().await?;
//! # Ok(())
//! # }
//! ```

use l0_core::TokenView;
use rig_core::streaming::{Item, StreamEvent};

/// What an item says.
pub fn view(item: &Item<StreamEvent>) -> TokenView<'_> {
    match item {
        Item::Event(StreamEvent::Text { text, .. }) => TokenView::text(text),
        Item::Event(StreamEvent::Reasoning { text, .. }) => TokenView::reasoning(text),
        Item::Event(StreamEvent::Start {
            name: Some(name), ..
        }) => TokenView::tool_call(name.as_str()),
        Item::Event(StreamEvent::Arguments { json, .. }) => TokenView::tool_call(json),
        _ => TokenView::other(),
    }
}
