//! The rule `markdown-structure`: its violations, independent of how the stream is divided.

mod support;

use l0_core::Severity::{self, Error, Warning};
use l0_core::{Check, Findings};
use l0_guardrails::Markdown;
use proptest::prelude::*;
use support::{check_table, violations_in_any_split, violations_of};

type Expected = &'static [(&'static str, Severity)];

const NONE: Expected = &[];
const FENCE: Expected = &[("markdown-fences", Error), ("markdown-complete", Error)];
const TABLE: Expected = &[("markdown-tables", Warning)];
const LIST: Expected = &[("markdown-lists", Warning)];
const CUT: Expected = &[("markdown-complete", Warning)];

fn check(texts: &[&str], expected: Expected) {
    assert!(texts.len() >= 20, "{}", texts.len());
    let table: Vec<_> = texts.iter().map(|text| (*text, expected)).collect();
    check_table(Markdown::new, &table);
}

#[test]
fn unclosed_fences() {
    check(
        &[
            "```",
            "```\n",
            "```rust\nfn main() {}\n",
            "Here is the code:\n\n```python\nprint('hello')",
            "Here is the code:\n```python\nprint('hello')\n``",
            "~~~\ncode\n",
            "~~~ruby\nputs 1\n~~\n",
            // Not closing fences: another character, too short, or followed by text.
            "```\ncode\n~~~\n",
            "~~~\ncode\n```\n",
            "````\ncode\n```\n",
            "~~~~~\ncode\n~~~~\n",
            "```\ncode\n```rust\n",
            "```\ncode\n``` done.\n",
            "```\ncode\n    ```\n",
            "   ```js\n   let a = 1;\n",
            // The second fence is never closed.
            "```\na\n```\n\ntext.\n\n```\nb\n",
            // The inner fence closes the outer one.
            "```markdown\n# Title\n\n```python\ncode\n```\n\nMore.\n```\n",
            // A fence after text in a line opens nothing.
            "Run this: ```bash\nls\n```\n",
            "```\r\ncode\r\n",
            "```\rcode\r",
            "1. Install it:\n   ```bash\n   npm install\n\n2. Run it.\n",
            "- ```rust\n  fn main() {}\n",
            "10. Item\n    ```\n    code\n",
            "> ```\n> code\n",
            "> ```\n> code\n\nAnd text.\n",
            "- a\n  - b\n    ```sh\n    ls\n",
            "~~~ `info` with backticks\ncode.\n",
            "# Heading\n```\n| a |\n|---|\n| 1 | 2 |\n",
            "日本語：\n```rust\nlet 名前 = 1;\n",
        ],
        FENCE,
    );
}

#[test]
fn closed_fences() {
    check(
        &[
            "",
            "\n\n",
            "```\n```",
            "```rust\nfn main() {}\n```\n",
            "Here is the code:\n\n```python\nprint('hello')\n```\n\nIt prints hello.",
            "~~~\ncode\n~~~",
            "~~~\n```\n~~~\n",
            "```\n~~~\n```\n",
            "````markdown\n```rust\ncode\n```\n````\n",
            "```\ncode\n`````\n",
            "   ```\ncode\n```\n",
            "```\ncode\n   ```   \t\n",
            "```\n\n\n```\n```\n```\n",
            // Inline code.
            "```not a fence```",
            "``` also `not` a fence.",
            "Use ```git status``` to look.",
            "`a` and ``b``",
            "~~struck~~ out.",
            "``\ntwo are none.\n",
            // Too much indent.
            "Text.\n\n    ```\n    code.\n",
            "Text.\n\n\t```\n\tcode.\n",
            "```rust\r\nfn main() {}\r\n```\r\n",
            "```\rcode\r```\r",
            "1. Install it:\n   ```bash\n   npm install\n   ```\n2. Run it:\n   ```bash\n   npm start\n   ```\n",
            "1. ```bash\n   npm install\n   ```\n",
            "- ```rust\n  fn main() {}\n  ```\n",
            "- a\n  - b\n    ```sh\n    ls\n    ```\n",
            "10. Item\n\n    ```\n    code\n    ```\n\nDone.",
            // Less indent than the item, as models write it.
            "10. Item\n    ```\ncode\n```\n",
            "1. Item\n   ```\n   code\n```\n",
            "> ```\n> code\n> ```\n",
            "> > ```\n> > code\n> > ```\n",
            "> ```\n> code\n```\n",
            "- > ```\n  > code\n  > ```\n",
            "> - ```\n>   code\n>   ```\n",
            "> - a\n>\n>   ```\n>   > ```\n>   ```\n",
            "```\n> ```\n```\n",
            "~~~ `info`\ncode\n~~~\n",
            "```日本語\n# 名前\n```\n",
        ],
        NONE,
    );
}

#[test]
fn uneven_tables() {
    check(
        &[
            "| a | b |\n|---|---|\n| 1 |\n",
            "| a | b |\n|---|---|\n| 1 | 2 | 3 |\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 |\n| 4 | 5 |\n",
            "| a | b |\n|---|---|---|\n| 1 | 2 | 3 |\n",
            "| a | b | c |\n|---|---|\n| 1 | 2 |\n",
            "a | b\n--- | ---\n1 | 2 | 3\n",
            "a | b\n--- | ---\n1 |\n",
            "| a | b |\n|:--|:-:|\n| 1 | 2 | 3 | 4 |\n",
            "| a | b |\n| --- | ---: |\n| 1 \\| 2 |\n",
            "| a | b |\n|---|---|\n| `1 | 2` |\n",
            "| a | b |\n|---|---|\n| ``1 ` | 2`` |\n",
            "| a | b |\n|---|---|\n| \\`1 | 2` | 3 |\n",
            // Cut off in a row.
            "Compare:\n\n| Name | Age |\n|------|-----|\n| Ada  | 36  |\n| Bob  |",
            "Compare:\n\n| Name | Age | City |\n|------|-----|------|\n| Ada  | 3",
            "| a | b |\r\n|---|---|\r\n| 1 |\r\n",
            "| a | b |\r|---|---|\r| 1 |\r",
            "> | a | b |\n> |---|---|\n> | 1 |\n",
            "- | a | b |\n  |---|---|\n  | 1 |\n",
            "   | a | b |\n   |---|---|\n   | 1 |\n",
            "| 名前 | 年齢 |\n|---|---|\n| 太郎 |\n",
            "| a |\n|---|\n| 1 | 2 |\n",
            "|a|b|\n|-|-|\n|1|2|3|\n",
            "| a | b |\n|---|---|\n|---|\n",
            // The header is text with one column.
            "Results:\n|---|---|\n| 1 | 2 |\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\n\n| c | d |\n|---|---|\n| 3 |\n",
            "| a | b |\n|---|---|\n| | |  |\n",
            "```\ncode\n```\n| a | b |\n|---|---|\n| 1 |\n",
        ],
        TABLE,
    );
}

#[test]
fn even_tables() {
    check(
        &[
            "| a | b |\n|---|---|\n| 1 | 2 |\n",
            "| a | b |\n|---|---|\n",
            "| a | b |\n|---|---|\n| 1 | 2",
            "| Name | Age | City |\n|------|-----|------|\n| Ada  | 36  | Lon",
            "a | b\n--- | ---\n1 | 2\n",
            "| a | b\n--- | --- |\n1 | 2 |\n",
            "| a | b |\n|:--|--:|\n| 1 | 2 |\n| 3 | 4 |\n",
            "| a | b |\n| :---: | --- |\n| 1 | 2 |\n",
            "| a | b |\n|---|---|\n| 1 \\| 2 | 3 |\n",
            "| a | b |\n|---|---|\n| `1 | 2` | 3 |\n",
            "| a | b |\n|---|---|\n| ``1 ` | 2`` | 3 |\n",
            "| a | b |\n|---|---|\n| `1 \\` | 2 |\n",
            "| a | b |\n|---|---|\n| \\`1 | 2` |\n",
            "| a | b |\n|---|---|\n| `1 | 2 |\n",
            "| a | b |\n|---|---|\n|  |  |\n| | 2 |\n",
            "|a|\n|-|\n|1|\n",
            "| a | b |   \n|---|---|\t\n| 1 | 2 |  \n",
            "| a | b |\r\n|---|---|\r\n| 1 | 2 |\r\n",
            "| 名前 | 年齢 |\n|---|---|\n| 太郎 | 36 |\n",
            "> | a | b |\n> |---|---|\n> | 1 | 2 |\n\n| c |\n|---|\n| 3 |\n",
            "- | a | b |\n  |---|---|\n  | 1 | 2 |\n",
            // Ends of a table.
            "| a | b |\n|---|---|\n| 1 | 2 |\n\n| no table |.\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\nText without a pipe.\n| 1 | is text.\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\n# A | b | c\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\n- x | y | z\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\n---\n| 1 | is text.\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\n```\n| 1 |\n```\n",
            "| a | b |\n|---|---|\n| 1 | 2 |\n> a quote | with | pipes.\n",
            // Not tables.
            "```\n| a | b |\n|---|---|\n| 1 |\n```\n",
            "A | b.\nC | d | e.\n",
            "|---|---|\n| a | b |\n| c |\n",
            "# a | b\n|---|---|\n| 1 |\n",
            "\n|---|---|\n| 1 |\n",
            "| a | b |\n|---||\n| 1 |\n",
            "| a | b |\n| --- | - - |\n| 1 |\n",
            "| a | b |\n|-a-|---|\n| 1 |\n",
            "Text.\n\n    | a | b |\n    |---|---|\n    | 1 |\n",
            "Either a || b.\n\nHeading\n---\na || b || c.\n",
        ],
        NONE,
    );
}

#[test]
fn mixed_lists() {
    check(
        &[
            "1. a\n- b\n",
            "- a\n1. b\n",
            "- a\n- b\n1. c\n",
            "* a\n1. b\n",
            "+ a\n1) b\n",
            "1. a\n* b\n2. c\n* d\n",
            "1. **First**\n- detail\n- detail\n2. **Second**\n- detail\n",
            // A blank line alone does not end the list.
            "1. a\n\n- b\n",
            "1. a\n\n\n\n- b\n",
            "1. a\n\n   More about a.\n\n- b\n",
            "1. a\nlazily continued\n- b\n",
            "- a\n  - b\n  1. c\n",
            "1. a\n   - b\n   1. c\n2. d\n",
            "1. a\n   1. b\n   - c\n",
            "- a\n\t- b\n\t1. c\n",
            "   - a\n   1. b\n",
            "> - a\n> 1. b\n",
            "- - a\n  1. b\n",
            "- 1. a\n  - b\n",
            "1. a\r\n- b\r\n",
            "1. a\r- b\r",
            "Text:\n- a\n1. b\n\nText.\n\n- c",
            "1. a\n   ```\n   code\n   ```\n- b\n",
            "1. a\n   > quote\n- b\n",
            "1. a\n-\n2. c\n",
            "- a\n2. b\n3. c\n",
            "# Steps\n\n10. a\n- b\n",
            "1. 日本\n- 東京\n",
        ],
        LIST,
    );
}

#[test]
fn plain_lists() {
    check(
        &[
            "- a\n- b\n- c\n",
            "1. a\n2. b\n3. c\n",
            "- a\n* b\n+ c\n",
            "1. a\n2) b\n",
            "1. a\n   - b\n   - c\n2. d\n   - e\n",
            "1. a\n  - b\n  - c\n2. d\n",
            "- a\n  1. b\n  2. c\n- d\n",
            "1. a\n\t- b\n2. c\n",
            "- a\n    1. b\n    2. c\n- d\n",
            // Different parents.
            "1. a\n   - b\n2. c\n   1. d\n",
            // Ends of a list.
            "1. a\n\nText.\n\n- b\n",
            "1. a\n# Heading\n- b\n",
            "1. a\n\n---\n\n- b\n",
            "1. a\n* * *\n- b\n",
            "1. a\n```\ncode\n```\n- b\n",
            "1. a\n> quote.\n\n- b\n",
            "> 1. a\n\n- b\n",
            "> 1. a\n> > - b\n",
            // Not items.
            "1. a\n-b is no item.\n",
            "- a\n1.5 is no item.\n",
            "- a\n-1 is no item.\n",
            "- a\n1234567890. is no item.\n",
            "- a\n**bold** is no item.\n",
            "1. a\n- - -\n",
            "1. a\n***\n",
            "It was in\n1984. And then:\n- a\n",
            "```\n1. a\n- b\n```\n",
            "1. a\n   ```\n- b\n   ```\n",
            "Text.\n\n    1. a.\n    - b.\n",
            "- [ ] open\n- [x] done\n",
            "1. a\r\n2. b\r\n",
            "- 日本\n- 東京\n",
            "1. a\n\n   - b\n\n2. c\n",
        ],
        NONE,
    );
}

#[test]
fn cut_off() {
    check(
        &[
            "The answer is",
            "The answer is ",
            "The answer is\n\n",
            "a",
            "First sentence. And the second one goes",
            "Several,",
            "Several things, like this -",
            "It costs 5",
            "An **unfinished",
            "An **unfinished emphasis**",
            "Full sentence. **",
            "Full sentence. *",
            "**",
            "```\ncode\n```\nAnd then",
            "# Heading\n\nText without an end\n",
            "- item\n\nText without an end",
            "- item\n  continued without an end",
            "| a |\n|---|\n| 1 |\n\nText without an end",
            "> a quote without an end",
            "> a quote without an end\n>\n",
            "Windows line\r\nends here\r\n",
            "日本語の文",
            "Привет мир",
            "#hashtag",
            "####### seven",
            "1984",
            "2.5",
            "-5",
            "a = b\n\n==",
            "See https://example.com/path",
            "Half a table in a text |",
            "The set {a, b} \\",
            "Trailing non-breaking space\u{a0}",
        ],
        CUT,
    );
}

#[test]
fn complete() {
    check(
        &[
            "Done.",
            "Done!",
            "Done?",
            "let a = 1;",
            "As follows:",
            "[link]",
            "{ }",
            "(in brackets)",
            "He said \"yes\"",
            "He said 'yes'",
            "Run `ls`",
            "Done.  \n\n \t\n",
            "Done.\r\n\r\n",
            "Done.\u{a0}\u{3000}\n",
            "**Done.**",
            "*Done.* ",
            "__Really done.__",
            "~~Not done.~~",
            "# Heading",
            "###### Heading",
            "#",
            "Heading\n===",
            "Heading\n---",
            "- item",
            "* item",
            "1. item",
            "2) item",
            "-",
            "- a\n  - b",
            "| a | b |\n|---|---|\n| 1 | 2 |",
            "a | b\n---|---\n1 | 2",
            "```\ncode\n```",
            "~~~\ncode\n~~~\n\n",
            "Text.\n\n---",
            "Text.\n\n***\n",
            "Text.\n\n_ _ _\n",
            "> Quoted.",
            "完了しました。",
            "本当？",
            "すごい！",
            "「はい」",
            "And so on…",
            "He said “yes”",
            "C’est «fini»",
            "यह पूरा हुआ।",
            "هل انتهى؟",
            "Have fun 🎉",
            "All green ✅",
            "With love ❤\u{fe0f}",
            "So it is $42$",
            "$$\nx = 1\n$$\n",
        ],
        NONE,
    );
}

#[test]
fn several_at_once() {
    check_table(
        Markdown::new,
        &[(
            "1. a\n- b\n\n| a | b |\n|---|---|\n| 1 |\n\n```rust\nfn main() {",
            &[
                ("markdown-fences", Error),
                ("markdown-tables", Warning),
                ("markdown-lists", Warning),
                ("markdown-complete", Error),
            ],
        )],
    );
}

#[test]
fn violations_have_counts_and_positions() {
    let text = "\r\n| a | b |\r\n|---|---|\r\n| 1 |\r\n| 2 |\r\n\r\n- a\r\n1. b\r\n```";
    let found = violations_in_any_split(Markdown::new, text);
    assert!(found.iter().all(|one| one.recoverable));
    let found: Vec<_> = found
        .iter()
        .map(|one| (&*one.message, one.position))
        .collect();
    let at = |part| text.find(part).map(|at| at as u64);
    assert_eq!(
        found,
        [
            ("A code fence is not closed", at("```")),
            (
                "Table rows with a different number of columns than their separator row: 2, the \
                 first with 1 instead of 2",
                at("| 1 |")
            ),
            (
                "Lists with ordered and unordered items at the same indent: 1",
                at("1. b")
            ),
            ("The answer ends inside a code fence", None),
        ]
    );
}

#[test]
fn nothing_is_reported_before_the_end() {
    let mut rule = Markdown::new();
    let mut findings = Findings::new();
    rule.text(
        "1. a\n- b\n| a | b |\n|---|---|\n| 1 |\n```\nopen",
        &mut findings,
    );
    assert_eq!(findings.iter().count(), 0);
}

#[test]
fn messages_contain_no_text_of_the_answer() {
    let text = "1. CANARY\n- CANARY\n\n| CANARY | CANARY |\n|---|---|\n| CANARY |\n\nCANARY\n\n\
                ```CANARY\nCANARY";
    let found = violations_in_any_split(Markdown::new, text);
    assert_eq!(found.len(), 4);
    for one in found
        .iter()
        .chain(&violations_of(Markdown::new(), ["CANARY"]))
    {
        assert!(!format!("{one:?}").contains("CANARY"), "{one}");
    }
    let mut rule = Markdown::new();
    rule.text(text, &mut Findings::new());
    assert!(!format!("{rule:?}").contains("CANARY"), "no text is kept");
}

#[test]
fn the_rule_is_small() {
    assert!(size_of::<Markdown>() < 1024, "{}", size_of::<Markdown>());
}

#[test]
fn a_megabyte_in_one_line() {
    for (unit, end) in [
        ("word ", CUT),
        ("`", NONE),
        ("|", NONE),
        ("- ", NONE),
        (">", NONE),
        ("é*", CUT),
    ] {
        let text = unit.repeat((1 << 20) / unit.len());
        let whole = violations_of(Markdown::new(), [&*text]);
        let found: Vec<_> = whole.iter().map(|one| (&*one.rule, one.severity)).collect();
        // A line of backticks alone is a fence.
        let end = if unit == "`" { FENCE } else { end };
        assert_eq!(found, end, "{unit}");
        let pieces = text
            .as_bytes()
            .chunks(6)
            .map(|piece| str::from_utf8(piece).unwrap());
        assert_eq!(violations_of(Markdown::new(), pieces), whole, "{unit}");
    }
}

/// Generates texts of the marks that the rule reads.
fn marks() -> impl Strategy<Value = String> {
    let mark = prop::sample::select(vec![
        "`",
        "```",
        "~~~",
        "~",
        "|",
        "|---|",
        "-",
        "---",
        ":",
        "\\",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        " ",
        "    ",
        "\t",
        "> ",
        ">",
        "- ",
        "* ",
        "+ ",
        "1. ",
        "2) ",
        "12",
        "#",
        "# ",
        "=",
        "_",
        "a",
        "Ab.",
        "é",
        "日本。",
        "🎉",
        "\u{a0}",
    ]);
    prop::collection::vec(mark, 0..60).prop_map(|marks| marks.concat())
}

proptest! {
    #[test]
    fn any_marks_split_anywhere(text in marks()) {
        violations_in_any_split(Markdown::new, &text);
    }

    #[test]
    fn any_text_split_anywhere(text in any::<String>()) {
        violations_in_any_split(Markdown::new, &text);
    }

    #[test]
    fn all_line_ends_are_equivalent(text in marks()) {
        let text = text.replace('\r', "");
        let rules = |text: &str| {
            let found = violations_of(Markdown::new(), [text]);
            found.into_iter().map(|one| (one.rule, one.message)).collect::<Vec<_>>()
        };
        prop_assert_eq!(rules(&text.replace('\n', "\r\n")), rules(&text));
        prop_assert_eq!(rules(&text.replace('\n', "\r")), rules(&text));
    }

    #[test]
    fn a_fence_hides_its_content(text in marks()) {
        // Longer than any generated by chance.
        let fence = "~".repeat(200);
        let text = format!("{fence}\n{text}\n{fence}\n");
        prop_assert_eq!(violations_of(Markdown::new(), [&*text]), []);
    }
}
