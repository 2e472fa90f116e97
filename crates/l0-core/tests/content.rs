//! Exported content of prompts and answers: bounded, without credentials, and masked.

use allocation_counter::measure;
use l0_core::{Content, TokenView};
use serde_json::{Value, json};

const MARK: &str = "…[cut]";

fn text(message: &Value) -> &str {
    message["parts"][0]["content"].as_str().expect("a text")
}

#[test]
fn a_credential_that_crosses_the_cut_is_removed() {
    let content = Content::new().max_bytes(1_000);
    // At each position before the cut.
    for words in 185..200 {
        let long = format!(
            "{}Authorization: Bearer abcdef0123456789abcdef",
            "word ".repeat(words)
        );
        let mut buffer = content.buffer();
        let (one, other) = long.split_at(long.len() - 25);
        buffer.add(&TokenView::text(one));
        buffer.add(&TokenView::text(other));
        let answer = content.answer(&buffer, None);
        let prompt = content.prompt(&json!(long)).messages;
        for message in [&answer[0], &prompt[0]] {
            assert!(!text(message).contains("abcdef"), "{words}: {message}");
        }
        // Without the credential the text fits.
        let masked = content.clone().mask(str::to_uppercase);
        let answer = masked.answer(&buffer, None);
        assert!(!text(&answer[0]).contains("ABCDEF"), "{words}: {answer:?}");
    }
    let random = format!("{} Bearer {}", "word ".repeat(196), "aB3dEf9h".repeat(300));
    let prompt = content.prompt(&json!(random)).messages;
    assert!(!text(&prompt[0]).contains("aB3d"), "{prompt:?}");
    assert!(text(&prompt[0]).ends_with(MARK), "{prompt:?}");
}

/// Nothing that is read beyond the limit is sent, however much of the beginning the mask removes.
#[test]
fn the_beginning_of_a_masked_text_does_not_remain_at_the_cut() {
    let filler = "x".repeat(1_024);
    let content = {
        let filler = filler.clone();
        let mask = move |text: &str| text.replace(&filler, "").replace("canary", "[masked]");
        Content::new().max_bytes(1_000).mask(mask)
    };
    for dashes in 980..1_000 {
        let long = format!("{filler}{}canary and so on", "-".repeat(dashes));
        let mut buffer = content.buffer();
        buffer.add(&TokenView::text(&long));
        let prompt = content.prompt(&json!(long)).messages;
        for message in [&content.answer(&buffer, None)[0], &prompt[0]] {
            assert!(!text(message).contains("-c"), "{dashes}: {message}");
        }
    }
}

#[test]
fn the_last_messages_are_kept() {
    let turn = |index: usize| json!({ "role": "user", "content": format!("turn {index} {}", "x ".repeat(40)) });
    let turns: Vec<_> = (0..100).map(turn).collect();
    let content = Content::new().max_bytes(1_000);
    let messages = content.prompt(&json!({ "messages": turns })).messages;
    assert_eq!(text(&messages[0]), MARK);
    assert!(text(&messages[messages.len() - 1]).starts_with("turn 99 "));
    assert!(messages.len() < 15, "{}", messages.len());
}

#[test]
fn a_buffer_takes_at_most_one_kib_more_memory_than_is_sent() {
    for (max_bytes, tokens) in [(0, 10_000), (1_000, 10_000), (8 * 1024, 100_000)] {
        let mut buffer = Content::new().max_bytes(max_bytes).buffer();
        let used = measure(|| {
            for _ in 0..tokens {
                buffer.add(&TokenView::text("token"));
                buffer.add(&TokenView::reasoning("reasoning"));
            }
        });
        assert!(
            used.bytes_current <= max_bytes as i64 + 1024,
            "{max_bytes}: {used:?}"
        );
        // A token allocates nothing once the buffer is full, and in the next attempt.
        let full = measure(|| {
            buffer.add(&TokenView::text("token"));
            buffer.clear();
            buffer.add(&TokenView::text("token"));
        });
        assert_eq!(full.count_total, 0);
    }
}

#[test]
fn debug_prints_no_content() {
    let content = Content::new().mask(str::to_owned);
    let mut buffer = content.buffer();
    buffer.add(&TokenView::text("CANARY"));
    let prompt = content.prompt(&json!({ "system": "CANARY", "messages": ["CANARY"] }));
    for debug in [
        format!("{content:?}"),
        format!("{buffer:?}"),
        format!("{prompt:?}"),
    ] {
        assert!(!debug.contains("CANARY"), "{debug}");
    }
}
