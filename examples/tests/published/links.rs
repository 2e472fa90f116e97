//! Links of a Markdown text, and what becomes of them elsewhere.

/// Rewrites the target of each link of a text. A link without a new target becomes its text, and pictures are
/// left out. Code stays as it is.
pub(crate) fn rewritten(text: &str, target: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.split_inclusive('\n') {
        let fence = line.trim_start().starts_with("```");
        if fence || fenced {
            out += &with_links(&std::mem::take(&mut prose), &target);
            out += line;
        } else {
            prose += line;
        }
        fenced ^= fence;
    }
    out + &with_links(&prose, &target)
}

fn with_links(prose: &str, target: &impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = prose;
    while let Some(open) = rest.find('[') {
        let (before, bracket) = rest.split_at(open);
        // Inside of code, a bracket opens no link.
        let in_code = before.matches('`').count() % 2 == 1;
        let Some((text, old, length)) = link(bracket).filter(|_| !in_code) else {
            let end = match in_code {
                true => open + bracket.find('`').unwrap_or(bracket.len() - 1) + 1,
                false => open + 1,
            };
            out += &rest[..end];
            rest = &rest[end..];
            continue;
        };
        if let Some(before) = before.strip_suffix('!') {
            out += before;
        } else {
            out += before;
            match target(old) {
                Some(new) => out += &format!("[{text}]({new})"),
                None => out += text,
            }
        }
        rest = &bracket[length..];
    }
    out + rest
}

/// The text and the target of the link that a text begins with, and its length. The target of ``[`name`]``, and
/// of all that has no target behind it, is the text.
fn link(text: &str) -> Option<(&str, &str, usize)> {
    let mut code = false;
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '`' => code = !code,
            '[' if !code => depth += 1,
            ']' if !code => {
                depth -= 1;
                if depth == 0 {
                    let label = &text[1..at];
                    if let Some(target) = text[at + 1..].strip_prefix('(') {
                        let length = target.find(')')?;
                        return Some((label, &target[..length], at + 3 + length));
                    }
                    let is_item = label.starts_with('`') && label.ends_with('`');
                    return is_item.then_some((label, label, at + 1));
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn links_lead_to_their_new_target_or_become_text() {
    let cases = [
        ("[a](b)", "[a](B)"),
        ("see [`a [b]`](c#d).", "see [`a [b]`](C#D)."),
        ("[two\nlines](b), [x] (y)", "[two\nlines](B), [x] (y)"),
        ("the [program](none) runs", "the program runs"),
        ("[`Item`] and `[x](y)`", "[`Item`](`ITEM`) and `[x](y)`"),
        ("a ![picture](b) c", "a  c"),
        (
            "```rust\nlet a = [b](c);\n```\n",
            "```rust\nlet a = [b](c);\n```\n",
        ),
    ];
    let upper = |target: &str| (target != "none").then(|| target.to_uppercase());
    for (text, expected) in cases {
        assert_eq!(rewritten(text, upper), expected);
    }
}
