#![no_main]

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use l0_core::{Token, TokenKind};
use l0_fuzz::Body;
use l0_providers::openai::{self, responses};
use l0_providers::{Decoder, ProviderToken, ToolCalls, anthropic, gemini, ollama};

/// (choice, index, id, name, arguments) of a call.
type Call = (u32, u32, Option<String>, String, String);

/// Returns the expected calls: a list that is searched for each piece, in which the first id and the first name count.
fn model(tokens: &[ProviderToken]) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for token in tokens {
        let Some(piece) = &token.tool_call else {
            continue;
        };
        let place = calls
            .iter()
            .position(|call| (call.0, call.1) == (token.choice, piece.index));
        let place = place.unwrap_or_else(|| {
            let (id, name) = (None, String::new());
            calls.push((token.choice, piece.index, id, name, String::new()));
            calls.len() - 1
        });
        let call = &mut calls[place];
        call.2 = call.2.take().or_else(|| piece.id.clone());
        if call.3.is_empty() {
            call.3 = piece.name.clone().unwrap_or_default();
        }
        call.4 += &piece.arguments;
    }
    calls.sort_by_key(|call| (call.0, call.1));
    for call in calls.iter_mut().filter(|call| call.4.is_empty()) {
        call.4 = "{}".to_owned();
    }
    calls
}

// The first byte selects the dialect, the second the length of the chunks.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [dialect, length, body @ ..] = data else {
        return;
    };
    let length = usize::from(*length) % 16 + 1;
    let chunks: Vec<_> = body
        .chunks(length)
        .map(|chunk| Ok(chunk.to_vec()))
        .collect();
    let body: Body = stream::iter(chunks).boxed();
    let decoder: Decoder<Body> = match dialect % 5 {
        0 => openai::decode(body),
        1 => responses::decode(body),
        2 => anthropic::decode(body),
        3 => gemini::decode(body),
        _ => ollama::decode(body),
    };
    // It never waits, but may yield.
    let mut items = decoder.max_event_bytes(4096).collect::<Vec<_>>();
    let items = loop {
        if let Some(items) = (&mut items).now_or_never() {
            break items;
        }
    };
    let tokens: Vec<_> = items.into_iter().filter_map(Result::ok).collect();

    let mut calls = ToolCalls::new();
    let mut small = ToolCalls::new().max_bytes(64);
    for token in &tokens {
        // Only a token that names or continues a call is a piece of one, and its text is not part of the answer.
        let is_call = token.kind == TokenKind::ToolCall;
        assert_eq!(is_call, token.tool_call.is_some());
        assert!(!is_call || (token.text.is_empty() && token.answer().is_empty()));
        let _ = token.view().is_token();
        let json = serde_json::to_string(token).expect("written");
        assert_eq!(
            serde_json::from_str::<ProviderToken>(&json).expect("read"),
            *token
        );
        if calls.push(token).is_err() {
            return;
        }
        let _ = small.push(token);
    }
    let calls = calls.finish();
    for call in &calls {
        let _ = call.parse::<u8>().map_err(|error| error.to_string());
    }
    let plain: Vec<Call> = calls
        .iter()
        .map(|call| {
            let call = call.clone();
            (call.choice, call.index, call.id, call.name, call.arguments)
        })
        .collect();
    assert_eq!(plain, model(&tokens));
    let kept: usize = small
        .finish()
        .iter()
        .map(|call| {
            let arguments = if call.arguments == "{}" {
                0
            } else {
                call.arguments.len()
            };
            arguments + call.name.len() + call.id.as_ref().map_or(0, String::len)
        })
        .sum();
    assert!(kept <= 64);
});
