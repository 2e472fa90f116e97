//! The rules for JSON: their violations, and their agreement with `serde_json`.

mod support;

use l0_core::{Check, Ended, Findings, Severity, Violation};
use l0_guardrails::{Json, StrictJson};
use proptest::prelude::*;
use serde::de::IgnoredAny;
use support::{check_table, split, violations_in_any_split, violations_of};

type Expected = (&'static str, Severity);

const STRUCTURE: Expected = ("json-structure", Severity::Error);
const CHUNKS: Expected = ("json-chunks", Severity::Error);
const PARSEABLE: Expected = ("json-parseable", Severity::Error);
const STRICT: Expected = ("json-strict", Severity::Error);

/// Documents as models write them, all valid.
const VALID: &[&str] = &[
    "{}",
    "[]",
    "[[]]",
    "[{}, []]",
    r#"{"name": "Ada", "age": 36, "tags": ["a", "b"]}"#,
    "\n\n  {\"indented\": {\n    \"list\": [\n      1,\n      2\n    ]\n  }\n}\n\n",
    "\t[\r\n1\t,\r\n2 ] \n",
    r#"{"quote": "she said \"hi\"", "path": "C:\\dir\\", "slash": "\/"}"#,
    r#"{"braces in strings": "}}}{[[[", "]": "["}"#,
    r#"{"commas in strings": ",, {, [, :,", ",,": ",,"}"#,
    r#"{"escapes": "\b\f\n\r\t\u0041\uD83D\uDE00\uabCD"}"#,
    r#"{"日本語": "こんにちは", "emoji": "👩‍👩‍👧 🎉", "é": "ß"}"#,
    r#"["", "\"", "\\", "\\\"", "\\\\"]"#,
    r#"["// no comment", "/* nor this */", "'single'"]"#,
    "[0, -0, 10, -1.5, 0.25, 1e5, 1E+5, 1e-5, 0e0, -0.0e-0]",
    "[true,false,null]",
    r#"{"a":{"b":{"c":{"d":[[[[{"e":null}]]]]}}}}"#,
    r#"{"same": 1, "same": 2}"#,
    r#"[123456789012345678901234567890, 0.1234567890123456789]"#,
    r#"{"":""}"#,
    r#"{"code": "fn main() {\n    println!(\"{}\", [1, 2][0]);\n}"}"#,
    r#"{"fence": "```json\n{\"a\": 1,}\n```"}"#,
    "[\"\u{7f}\u{80}\u{2028}\u{feff}\u{10ffff}\"]",
    r#"{"tool_calls":[{"id":"call_1","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]}"#,
];

/// Answers that do not start with a JSON object or array.
const NOT_CONTAINERS: &[&str] = &[
    "Sure! Here is the JSON you asked for:\n{\"a\": 1}",
    "```json\n{\"a\": 1}\n```",
    "```json\n{\"a\": [1, 2\n```",
    "```\n[1, 2\n```",
    "~~~json\n{}}\n~~~",
    "I'm sorry, I can't do that.",
    "The result is {\"a\": 1,, }",
    "<json>{\"a\": 1</json>",
    "json\n{\"a\": 1}",
    "// comment\n{\"a\": 1}",
    "}",
    "]",
    ",,",
    ", {}",
    "'{\"a\": 1}'",
    "(1, 2]",
    "NaN",
    "undefined",
    "- {\"a\": 1}",
    "\u{feff}{\"byte order mark\": 1}",
    "\u{a0}{\"no-break space\": 1}",
    "\u{b}[\"vertical tab\"]",
    "日本語 {",
    "-",
    "01",
    "1.",
    "tru",
    "nullx",
    "\"unclosed",
    "\"a\" \"b\"",
    "1 2",
];

/// JSON documents other than objects and arrays.
const SCALARS: &[&str] = &[
    "42",
    " -1.5e3 ",
    "0",
    "\"text\"",
    "\"{\\\"a\\\": 1}\"",
    "\"[,,\"",
    "true",
    "false\n",
    "null",
    "\n\"\"",
    "1E400",
    "-0",
];

fn table(rows: &[&'static str], expected: &'static [Expected]) -> Vec<Row> {
    rows.iter().map(|text| (*text, expected)).collect()
}

type Row = (&'static str, &'static [Expected]);

/// Returns the violations reported before the end.
fn while_streaming(
    mut rule: impl Check,
    pieces: impl IntoIterator<Item: AsRef<str>>,
) -> Vec<Violation> {
    let mut findings = Findings::new();
    for piece in pieces {
        rule.text(piece.as_ref(), &mut findings);
    }
    findings.iter().cloned().collect()
}

fn messages(text: &str) -> Vec<String> {
    let found = violations_in_any_split(Json::new, text);
    found.into_iter().map(|one| one.message).collect()
}

/// The content of a violation, for comparison.
fn parts(one: &Violation) -> (&str, &str, Option<u64>) {
    assert!(one.recoverable && one.severity == Severity::Error);
    (&one.rule, &one.message, one.position)
}

// ---- tables

#[test]
fn nothing_is_reported_about_valid_documents() {
    check_table(Json::new, &table(VALID, &[]));
    check_table(StrictJson::new, &table(VALID, &[]));
}

#[test]
fn json_ignores_answers_that_do_not_look_like_json() {
    check_table(Json::new, &table(NOT_CONTAINERS, &[]));
    check_table(Json::new, &table(SCALARS, &[]));
    check_table(Json::new, &table(&["", " ", "\n\t\r\n"], &[]));
}

#[test]
fn closers_without_openers() {
    let broken: &[&str] = &[
        "{}}",
        "[]]",
        "{}]",
        "[]}",
        "[1, 2]]",
        r#"{"a": 1}}"#,
        r#"{"a": {"b": 1}}}"#,
        "{\"a\": 1}\n}\n",
        r#"{"a": "}"}}"#,
        r#"{"a": "\""}}"#,
        r#"["\\"]]"#,
        "{}}{",
        "[]][",
        "{'a': 1}}",
        "{a: [1, 2]}}",
        "{\"a\": 1}\n```\n}",
        "[1,]]",
        "[1}{]",
        "{]}[",
        "{\"日本\": \"語\"}}{",
        "[nul]]",
    ];
    for text in broken {
        let found = while_streaming(Json::new(), [*text]);
        let rules: Vec<_> = found.iter().map(|one| &*one.rule).collect();
        assert_eq!(rules, ["json-structure"], "{text:?}");
        assert!(found[0].position.is_some());
    }

    check_table(
        Json::new,
        &[
            // Found while streaming, and counted at the end.
            ("{}}", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("[]]", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{}]", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{}}{", &[STRUCTURE, PARSEABLE]),
            ("[]][", &[STRUCTURE, PARSEABLE]),
            (
                "{}}]",
                &[STRUCTURE, STRUCTURE, STRUCTURE, STRUCTURE, PARSEABLE],
            ),
            // Each kind is reported once.
            ("{}}}}}", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            // Crossed: the numbers are equal, so nothing is reported at the end.
            ("[{]}", &[STRUCTURE, PARSEABLE]),
            ("{[}]", &[STRUCTURE, PARSEABLE]),
            (r#"{"a": [1, 2}]"#, &[STRUCTURE, PARSEABLE]),
            (r#"[{"a": 1]}"#, &[STRUCTURE, PARSEABLE]),
            (
                r#"[{"a": 1], {"b": 2}}]"#,
                &[STRUCTURE, STRUCTURE, STRUCTURE, PARSEABLE],
            ),
            (
                "{'a': [1}, ['b']]}",
                &[STRUCTURE, STRUCTURE, STRUCTURE, PARSEABLE],
            ),
        ],
    );

    let fine: &[Row] = &[
        ("[1, 2", &[STRUCTURE, PARSEABLE]),
        ("{\"a\": {", &[STRUCTURE, PARSEABLE]),
        ("{'a': 1}", &[PARSEABLE]),
        ("[1,]", &[PARSEABLE]),
        ("{\"a\": 1,}", &[PARSEABLE]),
        ("{\"a\" 1}", &[PARSEABLE]),
        ("{x}", &[PARSEABLE]),
        ("[\"a\nb\"]", &[PARSEABLE]),
        ("{\"a\": \"\n}\"}", &[PARSEABLE]),
        ("[\"\\x\", \"}\"]", &[PARSEABLE]),
        ("[\"\\u12\", \"]\"]", &[PARSEABLE]),
        ("[\"\\u12]\\\"]\"]", &[PARSEABLE]),
        ("{} {}", &[PARSEABLE]),
        ("[][]", &[PARSEABLE]),
        ("[NaN]", &[PARSEABLE]),
        ("{\"a\": undefined}", &[PARSEABLE]),
        ("[1 2]", &[PARSEABLE]),
        ("[01]", &[PARSEABLE]),
        ("{\"a\": 1} \"}\"", &[PARSEABLE]),
        ("[Note] See {this}.", &[PARSEABLE]),
        ("{{name}}", &[PARSEABLE]),
        ("[x, \"}\\\"}\", {}]", &[PARSEABLE]),
    ];
    for (text, _) in fine {
        assert_eq!(while_streaming(Json::new(), [*text]), [], "{text:?}");
    }
    check_table(Json::new, fine);
}

#[test]
fn closers_are_reported_in_their_piece_and_with_their_position() {
    let mut rule = Json::new();
    let mut findings = Findings::new();
    rule.text(" {\"ä\": 1}", &mut findings);
    rule.text("\n", &mut findings);
    assert_eq!(findings.iter().count(), 0);
    rule.text(" }]", &mut findings);
    rule.end(&Ended::new(true), &mut findings);

    let found: Vec<_> = findings.iter().map(parts).collect();
    assert_eq!(
        found,
        [
            (
                "json-structure",
                "Closing brace without an opening one",
                Some(12)
            ),
            (
                "json-structure",
                "Closing bracket without an opening one",
                Some(13)
            ),
            ("json-structure", "Unbalanced braces: 1 open, 2 close", None),
            (
                "json-structure",
                "Unbalanced brackets: 0 open, 1 close",
                None
            ),
            (
                "json-parseable",
                "Invalid JSON at line 2, column 2: text after the end of the document",
                Some(12)
            ),
        ]
    );

    let crossed = violations_in_any_split(Json::new, "[{\"a\": [1}");
    assert_eq!(
        parts(&crossed[0]),
        (
            "json-structure",
            "Closing brace where a closing bracket is expected",
            Some(9)
        )
    );
    let crossed = violations_in_any_split(Json::new, "[{]");
    assert_eq!(
        parts(&crossed[0]),
        (
            "json-structure",
            "Closing bracket where a closing brace is expected",
            Some(2)
        )
    );
}

#[test]
fn misplaced_commas() {
    check_table(
        Json::new,
        &[
            ("[1,,2]", &[CHUNKS, PARSEABLE]),
            ("[1, ,2]", &[CHUNKS, PARSEABLE]),
            ("[1,\n\t\r ,2]", &[CHUNKS, PARSEABLE]),
            ("[1,,,,2]", &[CHUNKS, PARSEABLE]),
            ("[1,,2,,3]", &[CHUNKS, PARSEABLE]),
            (r#"{"a": 1,, "b": 2}"#, &[CHUNKS, PARSEABLE]),
            (r#"{"a": "x",,"b": 2}"#, &[CHUNKS, PARSEABLE]),
            (r#"{"a": [],,"b": {}}"#, &[CHUNKS, PARSEABLE]),
            (r#"{"a": true ,, "b": null}"#, &[CHUNKS, PARSEABLE]),
            ("{,}", &[CHUNKS, PARSEABLE]),
            (r#"{, "a": 1}"#, &[CHUNKS, PARSEABLE]),
            ("{\n  ,\"a\": 1}", &[CHUNKS, PARSEABLE]),
            ("[,]", &[CHUNKS, PARSEABLE]),
            ("[,1]", &[CHUNKS, PARSEABLE]),
            ("[ ,1]", &[CHUNKS, PARSEABLE]),
            ("[[],[,]]", &[CHUNKS, PARSEABLE]),
            (r#"{"a":, "b": 1}"#, &[CHUNKS, PARSEABLE]),
            (r#"{"a": , "b": 1}"#, &[CHUNKS, PARSEABLE]),
            ("{\"a\":\n,\"b\": 1}", &[CHUNKS, PARSEABLE]),
            // After another fault.
            ("{'a': 1,, 'b': 2}", &[CHUNKS, PARSEABLE]),
            ("{a: , b: 1}", &[CHUNKS, PARSEABLE]),
            ("[01, [, 1]]", &[CHUNKS, PARSEABLE]),
            ("{'a': {,}}", &[CHUNKS, PARSEABLE]),
            ("{\"a\": 1},,\n{\"b\": 2}", &[CHUNKS, PARSEABLE]),
            ("[\"a\nb\",,1]", &[CHUNKS, PARSEABLE]),
            // Each kind is reported once, at its first position.
            ("[,,1]", &[CHUNKS, CHUNKS, PARSEABLE]),
            (
                "[1,,{\"a\":,\"b\":{,},\"c\":[,]}]",
                &[CHUNKS, CHUNKS, CHUNKS, CHUNKS, PARSEABLE],
            ),
            // Together with other problems.
            ("[1,,2", &[CHUNKS, STRUCTURE, PARSEABLE]),
            ("[1,,2]]", &[CHUNKS, STRUCTURE, STRUCTURE, PARSEABLE]),
            ("[1]],,", &[STRUCTURE, CHUNKS, STRUCTURE, PARSEABLE]),
        ],
    );
    check_table(
        Json::new,
        &[
            (r#"[",,", "{,", "[,", ":,"]"#, &[]),
            (r#"{",,": ",,"}"#, &[]),
            (r#"["\",,"]"#, &[]),
            (r#"["\\", ",,"]"#, &[]),
            (r#"["a", "b"]"#, &[]),
            (r#"["{", ","]"#, &[]),
            (r#"{":": ","}"#, &[]),
            ("[[], [], {}, {}]", &[]),
            ("[1,]", &[PARSEABLE]),
            ("[1,\n]", &[PARSEABLE]),
            (r#"{"a": 1,}"#, &[PARSEABLE]),
            (r#"{"a": 1, }"#, &[PARSEABLE]),
            ("[1,", &[STRUCTURE, PARSEABLE]),
            (r#"{"a":"#, &[STRUCTURE, PARSEABLE]),
            (r#"{"a", "b"}"#, &[PARSEABLE]),
            ("[x, ',', y]", &[PARSEABLE]),
            ("[x, \",,\"]", &[PARSEABLE]),
            ("[x, \"\\\",,\"]", &[PARSEABLE]),
            ("[1,x,2]", &[PARSEABLE]),
            ("[1,/**/,2]", &[PARSEABLE]),
            ("{\"a\"::1}", &[PARSEABLE]),
            ("{} , {}", &[PARSEABLE]),
            ("[\"\n,,\"]", &[PARSEABLE]),
            ("[1,\u{a0},2]", &[PARSEABLE]),
        ],
    );

    let found = violations_in_any_split(Json::new, "[\"é\",\n ,{,[, 1]}, {\"a\" : ,1}]");
    let found: Vec<_> = found.iter().map(parts).collect();
    assert_eq!(
        found,
        [
            ("json-chunks", "Comma after a comma", Some(8)),
            ("json-chunks", "Comma after an opening brace", Some(10)),
            ("json-chunks", "Comma after an opening bracket", Some(12)),
            ("json-chunks", "Comma after a colon", Some(26)),
            (
                "json-parseable",
                "Invalid JSON at line 2, column 2: expected a value",
                Some(8)
            ),
        ]
    );
}

#[test]
fn unclosed_strings_and_containers_are_reported_at_the_end() {
    check_table(
        Json::new,
        &[
            ("{", &[STRUCTURE, PARSEABLE]),
            ("[", &[STRUCTURE, PARSEABLE]),
            ("  {  ", &[STRUCTURE, PARSEABLE]),
            ("[[]", &[STRUCTURE, PARSEABLE]),
            ("[{", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("[{}", &[STRUCTURE, PARSEABLE]),
            ("{\"", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{\"a", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{\"a\"", &[STRUCTURE, PARSEABLE]),
            ("{\"a\":", &[STRUCTURE, PARSEABLE]),
            ("{\"a\": \"", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{\"a\": \"x}", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{\"a\": \"x\\", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{\"a\": \"x\\\"}", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{\"a\": \"\\u", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{\"a\": \"\\u00", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{\"a\": -", &[STRUCTURE, PARSEABLE]),
            ("{\"a\": 12", &[STRUCTURE, PARSEABLE]),
            ("{\"a\": 1.", &[STRUCTURE, PARSEABLE]),
            ("{\"a\": 1e", &[STRUCTURE, PARSEABLE]),
            ("{\"a\": 1e+", &[STRUCTURE, PARSEABLE]),
            ("{\"a\": tr", &[STRUCTURE, PARSEABLE]),
            ("{\"a\": null", &[STRUCTURE, PARSEABLE]),
            ("{\"a\": 1,", &[STRUCTURE, PARSEABLE]),
            ("[\"日本", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            (
                "{\"items\": [{\"id\": 1}, {\"id\": 2",
                &[STRUCTURE, STRUCTURE, PARSEABLE],
            ),
            // After another fault.
            ("{'a': 1", &[STRUCTURE, PARSEABLE]),
            ("{'a': \"1}", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("[\"a\nb", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("[\"\\x", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{\"a\": 1} {", &[STRUCTURE, PARSEABLE]),
            ("{\"a\": 1} \"", &[STRUCTURE, PARSEABLE]),
        ],
    );
    assert_eq!(
        messages("{\"a\": {\"b\": 1}"),
        [
            "Unbalanced braces: 2 open, 1 close",
            "Invalid JSON at line 1, column 15: the text ends inside an object",
        ]
    );
    assert_eq!(
        messages("[[1, {\"a\": [\"}]"),
        [
            "Unclosed string detected",
            "Unbalanced braces: 1 open, 0 close",
            "Unbalanced brackets: 3 open, 0 close",
            "Invalid JSON at line 1, column 16: the text ends inside a string",
        ]
    );
    // Nothing is reported before the end.
    assert_eq!(while_streaming(Json::new(), ["[[1, {\"a\": [\"}]"]), []);
}

#[test]
fn invalid_json_is_reported_with_its_position() {
    let rows: &[(&str, &str)] = &[
        (
            "{'a': 1}",
            "column 2: expected a key in double quotes or `}`",
        ),
        ("{\"a\": 'b'}", "column 7: expected a value"),
        ("{a: 1}", "column 2: expected a key in double quotes or `}`"),
        ("{1: 2}", "column 2: expected a key in double quotes or `}`"),
        (
            "{\"a\": 1, b: 2}",
            "column 10: expected a key in double quotes",
        ),
        ("{\"a\": 1,}", "column 9: a comma before the closing brace"),
        ("[1, 2, ]", "column 8: a comma before the closing bracket"),
        ("{\"a\": 1 // one\n}", "column 9: expected `,` or `}`"),
        ("[1, /* two */ 2]", "column 5: expected a value"),
        ("[# one\n1]", "column 2: expected a value"),
        ("[NaN]", "column 2: expected a value"),
        ("[Infinity]", "column 2: expected a value"),
        ("[-Infinity]", "column 3: an invalid number"),
        ("[undefined]", "column 2: expected a value"),
        ("[None]", "column 2: expected a value"),
        ("[True]", "column 2: expected a value"),
        ("[nul]", "column 5: an invalid literal"),
        ("[nulll]", "column 6: expected `,` or `]`"),
        ("[falsy]", "column 6: an invalid literal"),
        ("[01]", "column 3: a number with a leading zero"),
        ("[-01]", "column 4: a number with a leading zero"),
        ("[+1]", "column 2: expected a value"),
        ("[.5]", "column 2: expected a value"),
        ("[5.]", "column 4: an invalid number"),
        ("[1e]", "column 4: an invalid number"),
        ("[1e+]", "column 5: an invalid number"),
        ("[1.e5]", "column 4: an invalid number"),
        ("[0x10]", "column 3: expected `,` or `]`"),
        ("[1_000]", "column 3: expected `,` or `]`"),
        ("[-]", "column 3: an invalid number"),
        (
            "[\"a\tb\"]",
            "column 4: a control character inside a string",
        ),
        (
            "[\"a\nb\"]",
            "column 4: a control character inside a string",
        ),
        ("[\"\0\"]", "column 3: a control character inside a string"),
        ("[\"\\'\"]", "column 4: an invalid escape in a string"),
        ("[\"\\x41\"]", "column 4: an invalid escape in a string"),
        ("[\"\\U0041\"]", "column 4: an invalid escape in a string"),
        ("[\"\\u00g0\"]", "column 7: an invalid escape in a string"),
        ("[\"\\u00é\"]", "column 7: an invalid escape in a string"),
        ("[\"\\\n\"]", "column 4: an invalid escape in a string"),
        ("{\"a\" 1}", "column 6: expected `:` after a key"),
        ("{\"a\"}", "column 5: expected `:` after a key"),
        ("{\"a\": }", "column 7: expected a value"),
        ("{\"a\": 1 \"b\": 2}", "column 9: expected `,` or `}`"),
        ("[1 2]", "column 4: expected `,` or `]`"),
        ("[1; 2]", "column 3: expected `,` or `]`"),
        ("[1:2]", "column 3: expected `,` or `]`"),
        ("[“a”]", "column 2: expected a value"),
        ("[1,\u{a0}2]", "column 4: expected a value"),
        ("[1,\u{c}2]", "column 4: expected a value"),
        ("[\u{feff}]", "column 2: expected a value"),
        ("[1, ...]", "column 5: expected a value"),
        ("{...}", "column 2: expected a key in double quotes or `}`"),
        (
            "{{name}}",
            "column 2: expected a key in double quotes or `}`",
        ),
        ("{} {}", "column 4: text after the end of the document"),
        ("[1][2]", "column 4: text after the end of the document"),
        (
            "{} I hope this helps!",
            "column 4: text after the end of the document",
        ),
        ("{};", "column 3: text after the end of the document"),
        ("[]\u{a0}", "column 3: text after the end of the document"),
        ("[link](https://example.org)", "column 2: expected a value"),
    ];
    for (text, what) in rows {
        assert_eq!(
            messages(text),
            [format!("Invalid JSON at line 1, {what}")],
            "{text:?}"
        );
        assert!(serde_json::from_str::<IgnoredAny>(text).is_err());
    }
    let rows: Vec<_> = rows.iter().map(|(text, _)| *text).collect();
    check_table(Json::new, &table(&rows, &[PARSEABLE]));
    check_table(StrictJson::new, &table(&rows, &[PARSEABLE]));

    assert_eq!(
        messages("\n{\n  \"é\": 1,\r\n  \"b\": [\n    true,\n    x\n  ]\n}\n"),
        ["Invalid JSON at line 6, column 5: expected a value"]
    );
    assert_eq!(
        messages("{\"a\": 1}\n\nText.\n"),
        ["Invalid JSON at line 3, column 1: text after the end of the document"]
    );
    let found = violations_in_any_split(Json::new, "[\n1,\n\"é\" 2]");
    assert_eq!(
        parts(&found[0]),
        (
            "json-parseable",
            "Invalid JSON at line 3, column 6: expected `,` or `]`",
            Some(10)
        )
    );
}

#[test]
fn strict_json_requires_an_object_or_array() {
    check_table(StrictJson::new, &table(SCALARS, &[STRICT]));
    check_table(
        StrictJson::new,
        &table(NOT_CONTAINERS, &[STRICT, PARSEABLE]),
    );
    check_table(
        StrictJson::new,
        &table(&["", " ", "\n\t\r\n"], &[STRICT, PARSEABLE]),
    );
    check_table(
        StrictJson::new,
        &[
            ("{", &[STRUCTURE, PARSEABLE]),
            ("[[1]", &[STRUCTURE, PARSEABLE]),
            ("{\"a\": 1}}", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("[1,,2]", &[CHUNKS, PARSEABLE]),
            ("[\"", &[STRUCTURE, STRUCTURE, PARSEABLE]),
            ("{\"a\": 1,}", &[PARSEABLE]),
            ("{} {}", &[PARSEABLE]),
            ("{\"a\": 1}\n```", &[PARSEABLE]),
        ],
    );
    // Only the end shows that the answer is not JSON. A broken structure is reported immediately.
    assert_eq!(while_streaming(StrictJson::new(), ["no JSON }} ,,"]), []);
    assert_eq!(while_streaming(StrictJson::new(), ["{}}"]).len(), 1);

    let strict = |text| violations_in_any_split(StrictJson::new, text);
    assert_eq!(
        strict(" ").iter().map(parts).collect::<Vec<_>>(),
        [
            (
                "json-strict",
                "The answer is empty, not a JSON object or array",
                None
            ),
            (
                "json-parseable",
                "Invalid JSON at line 1, column 2: the text is empty",
                Some(1)
            ),
        ]
    );
    assert_eq!(
        strict("\n\"a").iter().map(parts).collect::<Vec<_>>(),
        [
            (
                "json-strict",
                "The answer does not start as a JSON object or array",
                None
            ),
            (
                "json-parseable",
                "Invalid JSON at line 2, column 3: the text ends inside a string",
                Some(3)
            ),
        ]
    );
    assert_eq!(
        strict("-")[1].message,
        "Invalid JSON at line 1, column 2: the text ends inside a value"
    );
}

#[test]
fn rules_have_names() {
    assert_eq!(Json::new().name(), "json-structure");
    assert_eq!(StrictJson::new().name(), "json-strict");
}

#[test]
fn the_end_can_be_reported_twice() {
    let mut rule = Json::new();
    let mut findings = Findings::new();
    rule.text("[1", &mut findings);
    rule.end(&Ended::new(true), &mut findings);
    rule.end(&Ended::new(true), &mut findings);
    assert_eq!(findings.iter().count(), 2);
}

#[test]
fn messages_contain_no_text_of_the_answer() {
    let texts = [
        "{\"zq\": zq}",
        "{zq: 1}",
        "{\"zq\" zq",
        "[\"zq\\zq",
        "[\"\\uzqzq\"",
        "[\"zq\nzq",
        "[nzq]",
        "[1zq]",
        "{\"zq\": 1} zq }]",
        "[zq,,{zq]",
        "zq",
        "\"zq",
    ];
    for text in texts {
        for one in violations_in_any_split(StrictJson::new, text) {
            assert!(!one.message.contains("zq"), "{one}");
        }
    }
}

// ---- depth and length

fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn depth_is_unlimited() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\": [ ", "]}]")] {
        for depth in (1..140).chain([255, 256, 257, 1_000, 100_000]) {
            let text = nested(depth, open, close);
            assert_eq!(violations_of(Json::new(), [&*text]), [], "{depth}");
            serde_json::from_str::<IgnoredAny>(&text).expect("any depth");
            // A closer of the other kind, at any depth.
            let crossed = text.replacen(close, if close.starts_with(']') { "}" } else { "]" }, 1);
            assert_ne!(violations_of(Json::new(), [&*crossed]), [], "{depth}");
        }
    }
    let siblings = format!("[{0},{0},{0}]", nested(126, "[", "]"));
    assert_eq!(violations_in_any_split(Json::new, &siblings), []);
    let mixed = nested(150, "[{\"a\":[", "]}]");
    assert_eq!(violations_in_any_split(Json::new, &mixed), []);
}

#[test]
fn closers_are_counted_at_any_depth() {
    let deep = |close: usize| format!("{}1{}", "{\"a\":[".repeat(10_000), "]}".repeat(close));
    let messages = |text: &str| -> Vec<_> {
        let found = violations_of(Json::new(), [text]);
        found.into_iter().map(|one| one.message).collect()
    };
    assert_eq!(messages(&deep(10_000)), [""; 0]);
    assert_eq!(
        messages(&deep(9_000))[..2],
        [
            "Unbalanced braces: 10000 open, 9000 close",
            "Unbalanced brackets: 10000 open, 9000 close",
        ]
    );
    assert_eq!(
        messages(&deep(10_001))[..4],
        [
            "Closing bracket without an opening one",
            "Closing brace without an opening one",
            "Unbalanced braces: 10000 open, 10001 close",
            "Unbalanced brackets: 10000 open, 10001 close",
        ]
    );
}

#[test]
fn memory_is_constant() {
    assert!(size_of::<Json>() <= 192);
    let document = format!(
        "[{}{}]",
        "{\"a\": [1, \"b\"]},".repeat(10_000),
        nested(100, "[", "]")
    );
    let broken = format!("{document}{}", "]},,{[\"x\"".repeat(10_000));
    let mut rule = Json::new();
    let mut findings = Findings::new();
    let scan = allocation_counter::measure(|| rule.text(&document, &mut findings));
    assert_eq!(scan.count_total, 0);
    assert_eq!(findings.iter().count(), 0);

    // Each violation is kept once.
    let mut rule = Json::new();
    let scan = allocation_counter::measure(|| rule.text(&broken, &mut findings));
    assert!(scan.count_total < 20, "{}", scan.count_total);
}

#[test]
fn a_long_string() {
    let text = format!(
        "{{\"text\": \"{}\"}}",
        "Ünd so weiter, \\\"[{\\n".repeat(50_000)
    );
    assert!(text.len() > 1_000_000);
    let characters = text.split("");
    assert_eq!(violations_of(Json::new(), [&*text]), []);
    assert_eq!(violations_of(Json::new(), characters.clone()), []);

    let cut = text.len() - 2;
    let found = violations_of(Json::new(), [&text[..cut]]);
    let message = format!(
        "Invalid JSON at line 1, column {}: the text ends inside a string",
        cut + 1
    );
    assert_eq!(found[2].message, message);
    assert_eq!(found.len(), 3);

    let broken = format!("{text}]");
    let found = violations_of(Json::new(), [&*broken]);
    assert_eq!(found[0].position, Some(text.len() as u64));
    assert_eq!(violations_of(Json::new(), broken.split("")), found);
}

// ---- against serde_json

#[test]
fn differences_to_a_value() {
    let documents = [
        "[1e999]",
        "[-1e999]",
        r#"["\ud800"]"#,
        r#"["\udc00"]"#,
        r#"["\ud800\ud800"]"#,
        r#"["\udc00\ud800"]"#,
        r#"["\ud800 "]"#,
        r#"["\ud800\n"]"#,
        r#"{"\ud800": 1}"#,
    ];
    for text in documents {
        assert!(
            serde_json::from_str::<serde_json::Value>(text).is_err(),
            "{text}"
        );
        serde_json::from_str::<IgnoredAny>(text).expect(text);
    }
    check_table(Json::new, &table(&documents, &[]));
}

/// Generates documents and breaks them.
struct Generator(fastrand::Rng);

impl Generator {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.0.usize(..from.len())]
    }

    fn space(&mut self, out: &mut String) {
        for _ in 0..self.0.u8(..8).saturating_sub(5) {
            out.push_str(self.pick(&[" ", " ", "\n", "\t", "\r\n"]));
        }
    }

    fn digits(&mut self, out: &mut String) {
        for _ in 0..self.0.u8(1..6) {
            out.push(self.0.digit(10));
        }
    }

    fn number(&mut self, out: &mut String) {
        out.push_str(self.pick(&["", "", "-"]));
        if self.0.u8(..4) == 0 {
            out.push('0');
        } else {
            out.push(char::from(self.0.u8(b'1'..=b'9')));
            self.digits(out);
        }
        if self.0.bool() {
            out.push('.');
            self.digits(out);
        }
        if self.0.u8(..3) == 0 {
            out.push_str(self.pick(&["e", "E", "e+", "E-", "e-"]));
            self.digits(out);
        }
    }

    fn string(&mut self, out: &mut String) {
        out.push('"');
        for _ in 0..self.0.u8(..8) {
            match self.0.u8(..12) {
                0 => out.push_str(
                    self.pick(&[r#"\""#, r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t"]),
                ),
                1 => out.push_str(&format!("\\u{:04x}", self.0.u16(..))),
                2 => out.push_str(&format!("\\u{:04X}", self.0.u16(..))),
                3 => out.push_str(self.pick(&[r"\ud83d\ude00", r"\ud800", r"\udfff", r"\u0000"])),
                4 => {
                    out.push_str(self.pick(&["é", "日本", "🎉", "\u{7f}", "\u{2028}", "\u{feff}"]));
                }
                5 => out.push_str(self.pick(&["{", "}", "[", "]", ",,", ":", "'", "//"])),
                _ => out.push(self.0.alphanumeric()),
            }
        }
        out.push('"');
    }

    fn container(&mut self, depth: u8, out: &mut String) {
        let object = self.0.bool();
        out.push(if object { '{' } else { '[' });
        self.space(out);
        for member in 0..self.0.u8(..4) {
            if member > 0 {
                out.push(',');
                self.space(out);
            }
            if object {
                self.string(out);
                self.space(out);
                out.push(':');
                self.space(out);
            }
            self.value(depth, out);
            self.space(out);
        }
        out.push(if object { '}' } else { ']' });
    }

    fn value(&mut self, depth: u8, out: &mut String) {
        match self.0.u8(..6) {
            0 => self.number(out),
            1 => self.string(out),
            2 => out.push_str(self.pick(&["true", "false", "null"])),
            _ if depth > 0 => self.container(depth - 1, out),
            _ => self.number(out),
        }
    }

    /// Generates a valid document, usually an object or array.
    fn document(&mut self) -> String {
        let mut out = String::new();
        self.space(&mut out);
        let depth = self.0.u8(..5);
        match self.0.u8(..40) {
            0 => self.value(0, &mut out),
            _ => self.container(depth, &mut out),
        }
        self.space(&mut out);
        out
    }

    /// Returns a random character boundary.
    fn border(&mut self, text: &str) -> usize {
        let mut at = self.0.usize(..=text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn mutate(&mut self, text: &mut String) {
        const PARTS: &[&str] = &[
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "'", "0", "1", "-", "+", ".", "e",
            "E", "t", "u", "null", "tru", " ", "\n", "\t", "\r", "\0", "\u{1f}", "\u{b}", "\u{a0}",
            "\u{feff}", "é", "🎉", "/", "//", "/*", "#", "x", ",,", "{}", "[]", "\"a\":", "NaN",
        ];
        let at = self.border(text);
        let rest = text[at..].chars().next().map_or(0, char::len_utf8);
        match self.0.u8(..8) {
            0 => text.truncate(at),
            1 => text.replace_range(at..at + rest, ""),
            2 => text.replace_range(at..at + rest, self.pick(PARTS)),
            3 => {
                let end = self.border(text);
                text.replace_range(at.min(end)..at.max(end), "");
            }
            4 => {
                let end = self.border(text);
                let twice = text[at.min(end)..at.max(end)].to_owned();
                text.insert_str(at, &twice);
            }
            // A random byte, if the result is valid UTF-8.
            5 => {
                let mut bytes = text.clone().into_bytes();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.0.u8(..7);
                }
                if let Ok(changed) = String::from_utf8(bytes) {
                    *text = changed;
                }
            }
            _ => text.insert_str(at, self.pick(PARTS)),
        }
    }
}

/// The number of cases in which `serde_json` and the rules agreed, by kind.
#[derive(Debug, Default)]
struct Verdicts {
    valid: u32,
    broken: u32,
    not_containers: u32,
    only_parseable: u32,
    no_values: u32,
}

impl Verdicts {
    fn compare(&mut self, text: &str, rng: &mut fastrand::Rng) {
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        let is_container = text
            .trim_start_matches([' ', '\t', '\n', '\r'])
            .starts_with(['{', '[']);
        let pieces = split(text, rng);

        let found = violations_of(Json::new(), pieces.iter().copied());
        if is_container {
            assert_eq!(found.is_empty(), is_json, "{text:?}: {found:?}");
            let unparseable = found.iter().any(|one| one.rule == "json-parseable");
            assert_eq!(unparseable, !is_json, "{text:?}: {found:?}");
        } else {
            assert_eq!(found, [], "{text:?}");
        }
        if is_json {
            assert_eq!(
                while_streaming(Json::new(), pieces.iter().copied()),
                [],
                "{text:?}"
            );
        }

        // The strict rule also distinguishes other documents from invalid ones.
        let strict = violations_of(StrictJson::new(), pieces);
        let has = |rule| strict.iter().any(|one| one.rule == rule);
        assert_eq!(has("json-parseable"), !is_json, "{text:?}: {strict:?}");
        assert_eq!(has("json-strict"), !is_container, "{text:?}: {strict:?}");
        if is_container {
            assert_eq!(strict, found);
        }

        match (is_container, is_json) {
            (false, _) => self.not_containers += 1,
            (true, true) => {
                self.valid += 1;
                if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
                    self.no_values += 1;
                    let known = [
                        "number out of range",
                        "surrogate",
                        "unexpected end of hex escape",
                    ];
                    let error = error.to_string();
                    assert!(
                        known.iter().any(|one| error.contains(one)),
                        "{text:?}: {error}"
                    );
                }
            }
            (true, false) => {
                self.broken += 1;
                self.only_parseable += u32::from(found.len() == 1);
            }
        }
    }
}

#[test]
fn the_rules_agree_with_serde_json() {
    let mut generator = Generator(fastrand::Rng::with_seed(0x15_04));
    let mut rng = fastrand::Rng::with_seed(23);
    let mut verdicts = Verdicts::default();
    for _ in 0..30_000 {
        let mut text = generator.document();
        serde_json::from_str::<IgnoredAny>(&text).expect("a valid document");
        verdicts.compare(&text, &mut rng);
        for _ in 0..4 {
            generator.mutate(&mut text);
            verdicts.compare(&text, &mut rng);
        }
    }
    // All kinds occurred, and often.
    assert!(verdicts.valid > 30_000, "{verdicts:?}");
    assert!(verdicts.broken > 50_000, "{verdicts:?}");
    assert!(verdicts.valid + verdicts.broken > 100_000, "{verdicts:?}");
    assert!(verdicts.not_containers > 2_000, "{verdicts:?}");
    assert!(verdicts.only_parseable > 10_000, "{verdicts:?}");
    assert!(verdicts.no_values > 1_000, "{verdicts:?}");
}

/// Every prefix is a state that a further character continues.
#[test]
fn no_prefix_of_a_valid_document_is_reported() {
    let mut generator = Generator(fastrand::Rng::with_seed(42));
    let generated: Vec<_> = (0..3_000).map(|_| generator.document()).collect();
    for text in generated
        .iter()
        .map(|text| &**text)
        .chain(VALID.iter().copied())
    {
        assert_eq!(while_streaming(Json::new(), text.split("")), [], "{text:?}");
        assert_eq!(
            while_streaming(StrictJson::new(), text.split("")),
            [],
            "{text:?}"
        );
    }
}

#[test]
fn every_prefix_is_judged_as_by_serde_json() {
    let mut rng = fastrand::Rng::with_seed(9);
    let mut verdicts = Verdicts::default();
    for text in VALID.iter().chain(SCALARS).chain(NOT_CONTAINERS) {
        for (end, _) in text.char_indices() {
            verdicts.compare(&text[..end], &mut rng);
        }
    }
}

fn json_like() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "0", "1", "-", ".", "e", "+", "true",
        "false", "null", "a", "f", " ", "\n", "\u{1}", "é", "🎉", "\"a\"", "\"a\":", "{\"", "\"}",
    ]);
    prop::collection::vec(parts, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_in_any_split(text in any::<String>()) {
        violations_in_any_split(Json::new, &text);
        violations_in_any_split(StrictJson::new, &text);
        Verdicts::default().compare(&text, &mut fastrand::Rng::with_seed(1));
    }

    #[test]
    fn any_parts_of_json_in_any_split(text in json_like(), start in prop::sample::select(vec!["", "{", "["])) {
        let text = format!("{start}{text}");
        violations_in_any_split(Json::new, &text);
        violations_in_any_split(StrictJson::new, &text);
        Verdicts::default().compare(&text, &mut fastrand::Rng::with_seed(1));
    }
}
