use std::io;

use proptest::prelude::*;

use super::*;
use crate::failure::MAX_TEXT;

/// Texts that contain a secret with `CANARY` in it, and their expected redaction.
const SECRETS: &[(&str, &str)] = &[
    // Names in the plural, in camel case, and with a word after them.
    ("api_keys=CANARY", "api_keys=[redacted]"),
    ("AUTH_TOKENS: CANARY", "AUTH_TOKENS: [redacted]"),
    (
        "accessKeys=CANARY, secrets=CANARY",
        "accessKeys=[redacted], secrets=[redacted]",
    ),
    (
        "SharedAccessSignature=CANARY",
        "SharedAccessSignature=[redacted]",
    ),
    (
        "AWS_BEARER_TOKEN_BEDROCK=CANARY",
        "AWS_BEARER_TOKEN_BEDROCK=[redacted]",
    ),
    ("OPENAI_API_KEY -> CANARY", "OPENAI_API_KEY -> [redacted]"),
    // Quotes of other formats.
    (
        r"{\u0022api_key\u0022:\u0022CANARY\u0022}",
        r"{\u0022api_key\u0022:[redacted]}",
    ),
    (
        "{&quot;api_key&quot;:&quot;CANARY&quot;}",
        "{&quot;api_key&quot;:[redacted];}",
    ),
    (
        "%7B%22api_key%22%3A%22CANARY%22%7D",
        "%7B%22api_key%22%3A[redacted]",
    ),
    (
        "api_key=<CANARY>, api_key=`CANARY`",
        "api_key=<[redacted]>, api_key=`[redacted]`",
    ),
    (
        "Authorization: `Bearer CANARY`, Authorization: <Bearer CANARY>",
        "Authorization: `[redacted]`, Authorization: <[redacted]>",
    ),
    // Lists.
    (
        r#"{"api_key": [ "CANARY", "CANARY" ], "a": "b"}"#,
        r#"{"api_key": [ "[redacted]" ], "a": "b"}"#,
    ),
    (
        r#""set-cookie": ["a=1; b=CANARY", "c=CANARY"]"#,
        r#""set-cookie": ["[redacted]"]"#,
    ),
    // Pairs.
    (
        r#"[["x-api-key", "CANARY"]]"#,
        r#"[["x-api-key", "[redacted]"]]"#,
    ),
    ("[('x-api-key', 'CANARY')]", "[('x-api-key', '[redacted]')]"),
    (
        r#"{"name": "x-api-key", "value": "CANARY"}"#,
        r#"{"name": "x-api-key", "value": "[redacted]"}"#,
    ),
    (
        r#"{\"key\":\"authorization\",\"value\":\"CANARY\"}"#,
        r#"{\"key\":\"[redacted]\",\"value\":\"[redacted]\"}"#,
    ),
    // XML.
    ("<ApiKey>CANARY</ApiKey>", "<ApiKey>[redacted]</ApiKey>"),
    (
        "<x:SessionToken>CANARY CANARY</x:SessionToken>",
        "<x:SessionToken>[redacted]</x:SessionToken>",
    ),
    // Options of commands.
    ("llm --token CANARY123 -v", "llm --token [redacted] -v"),
    (
        "curl -u me:CANARY https://h/",
        "curl -u me:[redacted] https://h/",
    ),
    (
        "curl --user 'me:CANARY' https://h/",
        "curl --user 'me:[redacted]' https://h/",
    ),
    // Encoded spaces and slashes.
    (
        "Bearer%20CANARY123, Bearer+CANARY123",
        "Bearer%20[redacted], Bearer+[redacted]",
    ),
    ("https:%2F%2Fme:CANARY@h", "https:%2F%2F[redacted]@h"),
    (
        "-----BEGIN%20PRIVATE%20KEY-----%0ACANARY%0A-----END%20PRIVATE%20KEY----- end",
        "[redacted] end",
    ),
    (
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ---- CANARY ---- END SSH2 ENCRYPTED PRIVATE KEY ----",
        "[redacted]",
    ),
    // Keys of services.
    ("tgp_v1_CANARY0123456789abcdef", "[redacted]"),
    ("bedrock-api-key-CANARY0123456789abcdef==", "[redacted]"),
    ("vck_CANARY0123456789abcdef", "[redacted]"),
    ("cpk_CANARY0123456789abcdef.CANARY.CANARY", "[redacted]"),
    ("sess-CANARY0123456789abcdef0123456789abcdef", "[redacted]"),
    ("eyJhbGciOiJkaXIifQ..CANARY.CANARY.CANARY", "[redacted]"),
    // Schemes.
    ("got Bearer CANARY, sorry", "got Bearer [redacted], sorry"),
    ("bearer   CANARY1234", "bearer   [redacted]"),
    ("header `Bearer CANARY`", "header `Bearer [redacted]`"),
    ("Bearer Bearer CANARY", "Bearer Bearer [redacted]"),
    ("Bearer token CANARY1", "Bearer token [redacted]"),
    ("Basic dXNlcjpwCANARY==", "Basic [redacted]"),
    ("basic QWxhZGRpbjpvcGVuCANARY", "basic [redacted]"),
    // Headers.
    ("Authorization: Bearer CANARY", "Authorization: [redacted]"),
    ("authorization:CANARY", "authorization:[redacted]"),
    (
        "Proxy-Authorization: Basic CANARY",
        "Proxy-Authorization: [redacted]",
    ),
    (
        "Authorization: Custom CANARY12 end",
        "Authorization: [redacted] [redacted] end",
    ),
    (
        "Authorization: Bearer Bearer CANARY",
        "Authorization: [redacted]",
    ),
    (
        "Authorization: Token token=\"CANARY\", a=1",
        "Authorization: Token token=\"[redacted]\", a=1",
    ),
    (
        "Authorization: AWS4-HMAC-SHA256 Credential=CANARY/x, Signature=CANARY",
        "Authorization: [redacted] Credential=[redacted], Signature=[redacted]",
    ),
    ("authorization=Token CANARY", "authorization=[redacted]"),
    ("x-api-key: CANARY", "x-api-key: [redacted]"),
    ("X-Goog-Api-Key: CANARY; x", "X-Goog-Api-Key: [redacted]; x"),
    ("api-key: CANARY", "api-key: [redacted]"),
    (
        "Ocp-Apim-Subscription-Key: CANARY",
        "Ocp-Apim-Subscription-Key: [redacted]",
    ),
    ("X-Auth-Token: CANARY", "X-Auth-Token: [redacted]"),
    (
        "token= Authorization: CANARY",
        "token= Authorization: [redacted]",
    ),
    ("Cookie: a=CANARY; b=CANARY; c", "Cookie: [redacted]; c"),
    ("set-cookie: sid=CANARY", "set-cookie: [redacted]"),
    // Names.
    ("api_key=CANARY", "api_key=[redacted]"),
    ("API_KEY = CANARY.", "API_KEY = [redacted]."),
    ("apiKey:CANARY", "apiKey:[redacted]"),
    ("api_key:/CANARY", "api_key:[redacted]"),
    (
        "OPENAI_API_KEY=CANARY is wrong",
        "OPENAI_API_KEY=[redacted] is wrong",
    ),
    ("OPENAI_API_KEY_2=CANARY", "OPENAI_API_KEY_2=[redacted]"),
    ("(key=CANARY)", "(key=[redacted])"),
    ("token=CANARY", "token=[redacted]"),
    ("token: CANARY0123456789", "token: [redacted]"),
    ("password=CANARY", "password=[redacted]"),
    ("password: CANARY", "password: [redacted]"),
    (
        "password: 'CANARY with spaces', x",
        "password: '[redacted]', x",
    ),
    ("password=\"CANARY without end", "password=\"[redacted]"),
    ("password => CANARY", "password => [redacted]"),
    ("client_secret=CANARY&a=CANARY", "client_secret=[redacted]"),
    ("credential=Bearer CANARY", "credential=[redacted]"),
    ("DB_PASS=CANARY", "DB_PASS=[redacted]"),
    (
        "AWS_SECRET_ACCESS_KEY=CAN/CANARY",
        "AWS_SECRET_ACCESS_KEY=[redacted]",
    ),
    ("PWD=CANARY", "PWD=[redacted]"),
    (
        "Incorrect API key provided: CANARY99",
        "Incorrect API key provided: [redacted]",
    ),
    // JSON, and code that resembles it.
    (
        r#"{"api_key":"CANARY","a":1}"#,
        r#"{"api_key":"[redacted]","a":1}"#,
    ),
    (
        r#"{"api_key": "CAN\"CANARY", "a": 1}"#,
        r#"{"api_key": "[redacted]", "a": 1}"#,
    ),
    (
        r#"{\"api_key\": \"CANARY\", \"a\": 1}"#,
        r#"{\"api_key\": \"[redacted]\", \"a\": 1}"#,
    ),
    (r#"{"token":"CANARY"}"#, r#"{"token":"[redacted]"}"#),
    (r#"{'key': 'CANARY'}"#, r#"{'key': '[redacted]'}"#),
    (r#"{"password":123CANARY}"#, r#"{"password":[redacted]}"#),
    (
        r#"{"Authorization": "Bearer CANARY x"}"#,
        r#"{"Authorization": "[redacted]"}"#,
    ),
    (
        r#"{"authorization": ["Bearer CANARY"]}"#,
        r#"{"authorization": ["[redacted]"]}"#,
    ),
    (
        r#"("x-api-key", "CANARY")"#,
        r#"("x-api-key", "[redacted]")"#,
    ),
    (
        r#"Config { api_key: Some("CANARY"), n: 1 }"#,
        r#"Config { api_key: Some("[redacted]"), n: 1 }"#,
    ),
    (
        r#"api_key: Some(   "CANARY",   )"#,
        r#"api_key: Some(   "[redacted]",   )"#,
    ),
    (
        r#"Config { token: "CANARY12" }"#,
        r#"Config { token: "[redacted]" }"#,
    ),
    ("{'api_key': b'CANARY'}", "{'api_key': b'[redacted]'}"),
    (
        r#"Authorization = \", x api_key: Some("CANARY") end"#,
        r#"Authorization = \"[redacted]"#,
    ),
    (
        r#"api_key: \", ("x-api-key", "CANARY")"#,
        r#"api_key: \"[redacted]"#,
    ),
    // The value after an unambiguous name is removed even if it is not a secret.
    ("api_key: None", "api_key: [redacted]"),
    ("Authorization: missing", "Authorization: [redacted]"),
    // Keys with a known prefix.
    ("key sk-CANARY0123456789ab is bad", "key [redacted] is bad"),
    ("sk-proj-CANARY_0123456789-abc.", "[redacted]."),
    ("(sk-ant-api03-CANARY0123456789)", "([redacted])"),
    ("sk-CANARY12", "[redacted]"),
    ("sk-abcdefghijklmnopCANARY", "[redacted]"),
    ("path/sk-CANARY0123456789ab/x", "path/[redacted]/x"),
    (r"line\nsk-CANARY0123456789ab", r"line\n[redacted]"),
    ("x%20sk-CANARY0123456789ab", "x%20[redacted]"),
    (r"x\u0026sk-CANARY0123456789ab", r"x\u0026[redacted]"),
    ("csk-CANARY0123456789abcd", "[redacted]"),
    ("pplx-CANARY0123456789abcd", "[redacted]"),
    ("nvapi-CANARY0123456789abcd", "[redacted]"),
    ("r8_CANARY0123456789abcd", "[redacted]"),
    ("glpat-CANARY0123456789abcd", "[redacted]"),
    ("gho_CANARY0123456789abcd", "[redacted]"),
    ("xoxb-CANARY0123456789abcd", "[redacted]"),
    ("gsk_CANARY0123456789abcd", "[redacted]"),
    ("xai-CANARY0123456789abcd", "[redacted]"),
    ("AIzaCANARY0123456789abcdefghijk", "[redacted]"),
    ("hf_CANARYabcdefghijklmnop", "[redacted]"),
    ("ghp_CANARY0123456789abcd", "[redacted]"),
    ("github_pat_CANARY0123456789abcd", "[redacted]"),
    ("AKIAIOSFODNNCANARYXY", "[redacted]"),
    ("eyJhbGciOiJIUzI1NiJ9.CANARY.CANARY-_x", "[redacted]"),
    (
        "a -----BEGIN RSA PRIVATE KEY-----\nCANARY\nCANARY\n-----END RSA PRIVATE KEY----- b",
        "a [redacted] b",
    ),
    ("-----BEGIN PRIVATE KEY-----\nCANARY", "[redacted]"),
    ("dapiCANARY0123456789abcdef01234567", "[redacted]"),
    ("dapiCANARY0123456789abcdef01234567-2", "[redacted]"),
    ("lsv2_pt_CANARY0123456789_abcdef", "[redacted]"),
    ("lsv2_sk_CANARY0123456789", "[redacted]"),
    ("esecret_CANARY0123456789", "[redacted]"),
    ("pa-CANARY0123456789abcdefghij", "[redacted]"),
    (
        "pa-CANARYabcdef-hijklmnopq_stuvwxyzabcdefghijklm",
        "[redacted]",
    ),
    ("npm_CANARYabcdefghijklmnopqrstuvwx", "[redacted]"),
    ("SG.CANARY0123456789.CANARYabc-def_0123", "[redacted]"),
    ("sk-proj-CANARYabcdefghijklm", "[redacted]"),
    ("sk-ant-api-CANARY_abcdefghijkl-m", "[redacted]"),
    (
        "sk-or-v1-CANARY0123456789abcdef0123456789abcdef",
        "[redacted]",
    ),
    ("jina_CANARY0123456789abcdefghij", "[redacted]"),
    ("tvly-CANARY0123456789abcdefghij", "[redacted]"),
    ("tvly-dev-CANARY0123456789-abcdefghij", "[redacted]"),
    ("pcsk_5abCD_CANARY0123456789abcdefghij", "[redacted]"),
    ("shpat_CANARY0123456789abcdef", "[redacted]"),
    ("shpca_CANARY0123456789abcdef", "[redacted]"),
    ("shppa_CANARY0123456789abcdef", "[redacted]"),
    ("shpss_CANARY0123456789abcdef", "[redacted]"),
    (
        "as 1234567890:AAECANARY0123456789-abc_def, then",
        "as [redacted], then",
    ),
    (
        "https://api.telegram.org/bot1234567890:AAECANARY0123456789-abc_def/sendMessage",
        "https://api.telegram.org/[redacted]/sendMessage",
    ),
    (
        "at%2Fbot1234567890%3AAAECANARY0123456789-abc_def",
        "at%2F[redacted]",
    ),
    ("glpat-CANARY0123456789.01.0w1abcCANARY", "[redacted]"),
    ("gldt-CANARY0123456789abcd", "[redacted]"),
    ("glrt-CANARY0123456789abcd", "[redacted]"),
    ("dop_v1_CANARY0123456789abcdef", "[redacted]"),
    ("lin_api_CANARY0123456789abcdef", "[redacted]"),
    ("lin_oauth_CANARY0123456789abcdef", "[redacted]"),
    ("figd_aBc_-D1CANARY_0123456789abcdef", "[redacted]"),
    ("rk_live_CANARY0123456789abcdef", "[redacted]"),
    ("whsec_CANARY+0123456789/abcdefg=", "[redacted]"),
    ("whsec_CANARY0123456789abcdefg.", "[redacted]."),
    ("ya29.a0CANARY0123456789-abc_", "[redacted]"),
    ("AQ.Ab8CANARY0123456789-abc_", "[redacted]"),
    ("ASIAIOSFODNNCANARYXY", "[redacted]"),
    ("ghu_CANARY0123456789abcd", "[redacted]"),
    ("ntn_CANARY0123456789abcdef", "[redacted]"),
    ("dckr_pat_CANARY0123456789abcdef", "[redacted]"),
    (
        "sntrys_CANARY0123456789abcdef=_CANARY+abc/012",
        "[redacted]",
    ),
    ("hvs.CANARY0123456789abcdef", "[redacted]"),
    ("sbp_CANARY0123456789abcdef", "[redacted]"),
    ("sb_secret_CANARY0123456789abcdef", "[redacted]"),
    ("xapp-1-A0CANARY-0123456789-abcdef", "[redacted]"),
    ("glsa_CANARY0123456789abcdef", "[redacted]"),
    ("glc_CANARY0123456789abcdef", "[redacted]"),
    ("NRAK-CANARY0123456789ABCDEF", "[redacted]"),
    ("PMAK-CANARY0123456789abcdef-0123CANARY", "[redacted]"),
    ("GOCSPX-CANARY-0123456789_abcdef", "[redacted]"),
    ("pypi-AgEIcHlwaS5vcmcCANARY-0123_abc", "[redacted]"),
    ("ATATT3xFfGF0CANARY-0123_abcdefgh", "[redacted]"),
    ("ABSKCANARYabcdefghijklmnop0123=", "[redacted]"),
    ("rpa_CANARY0123456789abcdef", "[redacted]"),
    ("e2b_CANARY0123456789abcdef", "[redacted]"),
    ("phx_CANARY0123456789abcdef", "[redacted]"),
    ("fc-CANARY0123456789abcdef0123456789ab", "[redacted]"),
    ("pul-CANARY0123456789abcdef0123456789ab", "[redacted]"),
    // Webhooks.
    (
        "POST https://hooks.slack.com/services/T0CANARY/B0CANARY/CANARYabc failed",
        "POST https://hooks.slack.com/services/[redacted] failed",
    ),
    (
        r"https:\/\/hooks.slack.com\/services\/T0CANARY\/B0\/CANARY.",
        r"https:\/\/hooks.slack.com\/services\/[redacted].",
    ),
    (
        "hooks.slack.com/workflows/T0CANARY/A0/1/CANARY",
        "hooks.slack.com/workflows/[redacted]",
    ),
    (
        "https://discord.com/api/webhooks/123/CANARY-a_b, then",
        "https://discord.com/api/webhooks/[redacted], then",
    ),
    (
        "to=https%3A%2F%2Fhooks.slack.com%2Fservices%2FT0CANARY%2FB0CANARY%2FCANARY",
        "to=https%3A%2F%2Fhooks.slack.com%2Fservices%2F[redacted]",
    ),
    (
        "https%253a%252f%252fdiscord.com%252fapi%252fwebhooks%252f1%252fCANARY",
        "https%253a%252f%252fdiscord.com%252fapi%252fwebhooks%252f[redacted]",
    ),
    // Names in other spellings.
    ("MYKEY=CANARY", "MYKEY=[redacted]"),
    ("export OPENAIKEY=CANARY;", "export OPENAIKEY=[redacted];"),
    ("GHTOKEN = 'CANARY'", "GHTOKEN = '[redacted]'"),
    ("accessKeyId: CANARY", "accessKeyId: [redacted]"),
    (
        r#"{"accessKeyId":"CANARY","secretAccessKey":"CANARY"}"#,
        r#"{"accessKeyId":"[redacted]","secretAccessKey":"[redacted]"}"#,
    ),
    (
        "aws_access_key_id = CANARY",
        "aws_access_key_id = [redacted]",
    ),
    (
        "invalid x-api-key 'CANARY'",
        "invalid x-api-key '[redacted]'",
    ),
    (
        r#"bad x-goog-api-key "CANARY", try again"#,
        r#"bad x-goog-api-key "[redacted]", try again"#,
    ),
    (
        "invalid x-api-key \u{2018}CANARY\u{2019}",
        "invalid x-api-key \u{2018}[redacted]\u{2019}",
    ),
    (
        r#"{"message":"invalid x-api-key \"CANARY\""}"#,
        r#"{"message":"invalid x-api-key \"[redacted]\""}"#,
    ),
    (
        "invalid subscription key 0CANARY123456789abcdef0123456789",
        "invalid subscription key [redacted]",
    ),
    (
        "the access key is 'CANARY123456789', which",
        "the access key is '[redacted]', which",
    ),
    (
        "Invalid API key CANARY0123456789abcdef.",
        "Invalid API key [redacted].",
    ),
    ("api_key\u{ff1a}CANARY", "api_key\u{ff1a}[redacted]"),
    ("password \u{ff1d} CANARY", "password \u{ff1d} [redacted]"),
    (
        "Authorization\u{ff1a}Bearer CANARY",
        "Authorization\u{ff1a}[redacted]",
    ),
    ("token\u{ff1a} CANARY0123456789", "token\u{ff1a} [redacted]"),
    // URLs.
    (
        "redirect=https%3A%2F%2Fhost%2Fpath%3Fq%3DCANARY%26a%3DCANARY",
        "redirect=https%3A%2F%2Fhost%2Fpath%3Fq%3D[redacted]",
    ),
    (
        "at https%3a%2f%2fuser%3aCANARY%40host%2fpath, then",
        "at https%3a%2f%2f[redacted]%40host%2fpath, then",
    ),
    (
        "https%253A%252F%252Fhost%253Fq%253DCANARY",
        "https%253A%252F%252Fhost%253Fq%253D[redacted]",
    ),
    ("x api_key%3DCANARY", "x api_key%3D[redacted]"),
    ("q%3D1%26key%3DCANARY", "q%3D1%26key%3D[redacted]"),
    ("a%26token%253dCANARY", "a%26token%253d[redacted]"),
    ("models?key%3DCANARY", "models?key%3D[redacted]"),
    (
        "https://user:CANARY@host/path",
        "https://[redacted]@host/path",
    ),
    ("https://CANARY@host", "https://[redacted]@host"),
    (
        "postgres://user:CAN@CANARY@host:5432/db",
        "postgres://[redacted]@host:5432/db",
    ),
    (
        "postgres://user:CAN/CANARY@host:5432/db",
        "postgres://[redacted]@host:5432/db",
    ),
    ("https://user:CAN'CANARY@host", "https://[redacted]@host"),
    ("https://host/path?q=CANARY", "https://host/path?[redacted]"),
    (
        "(https://host/path?q=CANARY): refused",
        "(https://host/path?[redacted]): refused",
    ),
    ("https://host/path#CANARY", "https://host/path#[redacted]"),
    ("https://host?CANARY", "https://host?[redacted]"),
    (
        "https://u:CANARY@host/a?b=CANARY#CANARY, then",
        "https://[redacted]@host/a?[redacted], then",
    ),
    (
        r#"{"url":"https://host/?a=CANARY","b":1}"#,
        r#"{"url":"https://host/?[redacted]","b":1}"#,
    ),
    (
        r#"https://host/?a=b\u0026c=CANARY"#,
        "https://host/?[redacted]",
    ),
    (
        "https://proxy/https://u:CANARY@host/",
        "https://proxy/https://[redacted]@host/",
    ),
    (
        "https://host/sk-CANARY0123456789ab/x",
        "https://host/[redacted]/x",
    ),
    (
        "GET /v1/models?key=CANARY HTTP/1.1",
        "GET /v1/models?key=[redacted] HTTP/1.1",
    ),
    // Several, and in other scripts.
    (
        "token=CANARY password=CANARY",
        "token=[redacted] password=[redacted]",
    ),
    ("é sk-CANARY0123456789ab é", "é [redacted] é"),
    ("ésk-CANARY0123456789ab", "é[redacted]"),
    ("пароль password=CANARYпароль", "пароль password=[redacted]"),
    ("a\nx-api-key: CANARY\r\nb", "a x-api-key: [redacted]  b"),
    ("api_key=CANARY…", "api_key=[redacted]…"),
];

/// Texts about credentials that contain none.
const INNOCENT: &[&str] = &[
    "",
    "connection reset by peer (os error 104)",
    "status 503: Service Unavailable",
    "error sending request for url (https://api.example.com/v1/chat/completions)",
    "https://localhost:8080/path",
    "http://[::1]:8080/a@b",
    "https://medium.com/@user/post",
    "wait, is it true?",
    "sk-learn is not installed",
    "sk-learn-contrib, sk-image-0.19",
    "a risk-free task-20240101-1234567890 on disk-0",
    "locale sk-SK",
    "hf_hub_download failed in hf_transfer_module",
    "ASIAN market",
    "Basic authentication is required",
    "basic usage, Basic Auth, basic plan",
    "Basic HTTP authentication",
    "Missing bearer or basic authentication in header",
    "invalid x-api-key",
    "invalid api key",
    "the key is missing",
    "missing field `token` at line 1 column 5",
    "unknown field `key`, expected one of `model`, `messages`",
    "invalid bearer token",
    "bearer token is missing",
    "The bearer of bad news",
    "Bearer realm=x",
    "authorization header is required",
    "missing API key",
    "invalid API key: rejected",
    "unexpected token: `}`",
    "expected `,` or `}` at line 1 column 17",
    "unexpected token: foo",
    "unknown key: temperature",
    "max_tokens: 4096, prompt_tokens=12",
    "monkey=banana, turkey: bird",
    "keys=3",
    "author=me, authority: none",
    "std::token::Error: bad",
    "model: gpt-4o-mini, request_id: req_011CQabcdefgh",
    "if a == b, c != d",
    r#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    r#"{"name":"x-api-key","value":1}"#,
    "eyJ is how they start",
    "-----BEGIN CERTIFICATE-----",
    "résumé naïve 日本語 🎉",
    "tokenizer: broken",
    "the API key 'production' was renamed",
    "an access key is needed: see docs",
    "https://hooks.slack.com/ cannot be reached",
    "pa-system is off, the spa-resort-2024-08-31-booking is not",
    "npm_config_registry and npm_lifecycle_event are set",
    "dapi and dapivision",
    "SG.dll, version SG.1",
    "jina_embeddings_v3_base, jina-embeddings-v2-base-en, jina-reranker-v2-base-multilingual",
    "tvly-python and tvly-search-client are not installed",
    "pcsk_ is how they start, as shpat_, whsec_, figd_ and tvly-",
    "whsec_signing_secret_is_missing, figd_access_is_needed, lin_api_version_mismatch_found",
    "dop_v1_endpoint_is_gone, glc_config_file_is_missing, sb_secret_key_is_not_valid_here",
    "global-endpoint-2024-08-31, glance-image-service-0.19, gloo-mesh-gateway-v2",
    "fc-cache-regenerated-all-fonts-in-20-directories, pul-sar",
    "at 12:30:45, ports 8080:80, 127.0.0.1:54321, item 1234567:AA",
    "bot1234567 said: 1234567890: AA batteries",
    "sk-or, sk-ant and sk-proj begin keys",
    "FAQ.Answers, hvs.example, xapp-launcher-started-without-a-window",
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "run 123e4567-e89b-12d3-a456-426614174000 ended",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "https%3A%2F%2Fapi.example.com%2Fv1%2Fmodels",
    "\u{932f}\u{8aa4}\u{ff1a}\u{8acb}\u{7a0d}\u{5f8c}\u{518d}\u{8a66}",
    r#"expected one of ["key", "value"] or ["token", "type"]"#,
    r#"{"name": "temperature", "value": "hot"}"#,
    "Vec<Token> and Option<Secret>::None, <b>password</b>",
    "the flag --token is required, --api-key too",
    "docker run -u 1000:1000 image",
    "max_tokens: 4096, cachedTokens: 7, keys: 3",
    "the bearer%20of a letter",
    "secret_garden and sess-1",
    "a -> b, key -> value",
    "[redacted]",
];

#[test]
fn secrets_are_removed_everywhere() {
    for (raw, expected) in SECRETS {
        let clean = text(raw);
        assert_eq!(clean, *expected, "{raw:?}");
        assert!(!clean.contains("CANARY"), "{raw:?}");
        assert_eq!(text(&clean), clean, "{raw:?}");
    }
}

#[test]
fn secrets_are_removed_between_other_words() {
    for (raw, _) in SECRETS {
        for around in [
            format!("the call failed: {raw}"),
            format!("{raw} and so on"),
            format!("({raw})"),
            format!("[{raw}]"),
            format!("\t{raw}\u{0}"),
            format!("Some error, {raw}, 日本語"),
            format!("{} {raw}", "x".repeat(400)),
        ] {
            assert!(!text(&around).contains("CANARY"), "{around:?}");
        }
    }
}

#[test]
fn texts_without_secrets_stay_unchanged() {
    for raw in INNOCENT {
        assert_eq!(text(raw), *raw);
    }
}

#[test]
fn control_characters_become_spaces() {
    assert_eq!(
        text("a\nb\r\nc\u{0}d\u{1b}[31me\u{85}f\u{2028}g\n"),
        "a b  c d [31me f g"
    );
}

#[test]
fn a_long_text_is_cut_at_a_character() {
    assert_eq!(text(&"x".repeat(512)), "x".repeat(512));
    assert_eq!(text(&"x".repeat(513)), format!("{}…", "x".repeat(509)));
    assert_eq!(text(&"é".repeat(300)), format!("{}…", "é".repeat(254)));
    assert_eq!(
        text(&"🎉".repeat(200_000)),
        format!("{}…", "🎉".repeat(127))
    );
}

#[test]
fn a_cut_leaves_no_half_of_a_secret() {
    let secret = "CANARY0123456789abcdefCANARY0123456789abcdefCANARY0123456789abcdef";
    // Long words that are themselves removed bring the end of the read text into the message.
    let filler = format!("password={} ", "y".repeat(200));
    for shift in (0..secret.len() + 40).step_by(7) {
        for form in [
            format!("sk-{secret}"),
            format!("https://user:{secret}@host/"),
            format!("https://user:{secret}/{secret}@host/"),
            format!("api_key=\"{secret} {secret}\""),
            format!("Authorization: Bearer {secret}"),
        ] {
            let mut raw = filler.repeat(8);
            raw.truncate(MAX_TEXT - shift - 1);
            raw.push(' ');
            raw.push_str(&form);
            raw.push_str(&form);
            assert!(!text(&raw).contains("CANARY"), "{shift} {form}");
            let near = format!("{} {form}", "z".repeat(MAX_MESSAGE - shift));
            assert!(!text(&near).contains("CANARY"), "{shift} {form}");
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Say(String, #[source] Option<io::Error>);

fn say(text: &str) -> Say {
    Say(text.to_owned(), None)
}

#[test]
fn an_error_text_is_the_redacted_chain() {
    let inner = io::Error::other("https://u:p@host/?a=b");
    assert_eq!(error_text(&inner), "https://[redacted]@host/?[redacted]");
    let error = Say("the call with api_key=abc failed".to_owned(), Some(inner));
    assert_eq!(
        error_text(&error),
        "the call with api_key=[redacted] failed: https://[redacted]@host/?[redacted]"
    );
    assert_eq!(message(&error), "unknown error");
}

#[test]
fn a_message_describes_the_failure_and_repeats_only_texts_of_transports() {
    for (text, expected) in [
        ("", "unknown error"),
        ("my secret prompt", "unknown error"),
        (
            "failed to deserialize api response: error:missing field `id` content:my secret prompt",
            "unknown error",
        ),
        (
            "status 401: Incorrect API key provided: sk-1234",
            "status 401 Unauthorized",
        ),
        ("status 499: my secret prompt", "status 499"),
        ("429 Too Many Requests", "status 429 Too Many Requests"),
        (
            "HTTP status server error (503 my secret prompt) for url (https://u:p@host/?a=b)",
            "status 503 Service Unavailable",
        ),
        (
            "error sending request for url (https://u:p@host/?a=b): client error (Connect): tcp connect error: Connection refused (os error 111)",
            "error sending request: client error (Connect): tcp connect error: Connection refused",
        ),
        (
            "error decoding response body: error reading a body from connection: end of file before message length reached",
            "answer cut short: error reading a body from connection: end of file before message length reached",
        ),
        (
            "my secret prompt: invalid peer certificate: UnknownIssuer",
            "no secure connection: invalid peer certificate",
        ),
        (
            r#"Os { code: 111, kind: ConnectionRefused, message: "my secret prompt" }"#,
            "connection refused",
        ),
        (
            "status: Unavailable, message: \"my secret prompt\"",
            "server error",
        ),
    ] {
        assert_eq!(message(&say(text)), expected, "{text:?}");
        let inner = io::Error::other(say(text));
        assert_eq!(message(&inner), expected, "{text:?}");
    }
}

#[test]
fn a_message_contains_the_texts_of_io_errors_without_a_payload() {
    let of = |io: io::Error| message(&Say("my secret prompt".to_owned(), Some(io)));
    let kind = io::ErrorKind::TimedOut;
    assert_eq!(of(kind.into()), "timed out");
    assert_eq!(of(io::Error::new(kind, "my secret prompt")), "timed out");
    assert_eq!(
        of(io::ErrorKind::NotConnected.into()),
        "connection dropped: not connected"
    );
    assert_eq!(of(io::Error::other("my secret prompt")), "unknown error");
    if cfg!(target_os = "linux") {
        let message = of(io::Error::from_raw_os_error(111));
        assert_eq!(message, "Connection refused (os error 111)");
        let message = of(io::Error::from_raw_os_error(24));
        assert_eq!(message, "Too many open files (os error 24)");
    }
}

#[test]
fn a_message_contains_the_failure_from_a_hook_or_the_source() {
    let no_credit = Failure::status(402).detail("no credit left");
    for (failure, expected) in [
        (no_credit, "status 402 Payment Required, no credit left"),
        (Failure::fatal().detail("no credit left"), "no credit left"),
        (Failure::fatal(), "unknown error"),
        (Failure::model(), "faulty answer"),
        (Failure::rate_limited(), "rate limited"),
        (
            Failure::server().retry_after(std::time::Duration::MAX),
            "server error",
        ),
    ] {
        assert_eq!(message_of(&say("my secret prompt"), &failure), expected);
        let source = io::Error::other(failure);
        let error = Say("status 401: my secret prompt".to_owned(), Some(source));
        assert_eq!(message(&error), expected);
    }
    let error = say("status 401: my secret prompt: Connection refused");
    let message = message_of(&error, &Failure::status(503));
    assert_eq!(
        message,
        "status 503 Service Unavailable: Connection refused"
    );
}

#[test]
fn a_message_is_short() {
    let rows = [
        "Connection refused",
        "Broken pipe",
        "dns error",
        "tcp connect error",
    ];
    let other = "error reading a body from connection: end of file before message length reached: \
        peer closed connection without sending complete message body (incomplete chunked read): \
        A connection attempt failed because the connected party did not properly respond after a \
        period of time, or established connection failed because connected host has failed to \
        respond.: ('Connection aborted.', RemoteDisconnected('Remote end closed connection \
        without response')): peer closed connection without sending TLS close_notify";
    let message = message(&say(&format!("{}: {other}", rows.join(": "))));
    assert_eq!(message.len(), MAX_MESSAGE);
    assert!(message.ends_with('…'));
}

/// The forms of a secret in which the canary is tested.
const FORMS: [&str; 14] = [
    "MYKEY=CANARY",
    "api_key\u{ff1a}CANARY",
    "https%3A%2F%2Fhost%3Fq%3DCANARY",
    "invalid x-api-key 'CANARY'",
    "sk-CANARY",
    "ghp_CANARY",
    "Bearer CANARY",
    "Authorization: CANARY",
    "x-api-key: CANARY",
    "access_token=CANARY",
    "OPENAI_API_KEY=CANARY",
    "\"password\": \"CANARY\"",
    "https://user:CANARY@host/path",
    "https://host/path?q=CANARY",
];

/// Texts composed of the pieces that the rules match.
fn tangle() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "token",
            "key",
            "api_key",
            "password",
            "Authorization",
            "cookie",
            "bearer",
            "Bearer",
            "Basic",
            "basic",
            "sk-",
            "gsk_",
            "AKIA",
            "eyJ",
            "://",
            "https://",
            "user:pw@host",
            "?a=b",
            "?",
            "#",
            "/",
            "@",
            ":",
            "=",
            ",",
            ";",
            ".",
            " ",
            "  ",
            "\"",
            "'",
            "`",
            "\\",
            "\\\"",
            "\\n",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "<",
            ">",
            "…",
            "[redacted]",
            "Some(",
            "-----BEGIN PRIVATE KEY-----",
            "-----END ",
            "-----",
            "%20",
            "é",
            "🎉",
            "\n",
            "\u{0}",
            "none",
            "realm",
            "abc",
            "0",
            "12",
            "Zz9",
        ])
        .prop_map(str::to_owned),
        "[a-zA-Z0-9]{1,40}",
        "[ -~]{1,20}",
        "\\PC{1,10}",
    ];
    prop::collection::vec(piece, 0..120).prop_map(|pieces| pieces.concat())
}

/// Fails if a rule that is skipped for a text would have replaced something.
fn check_skipped_rules(raw: &str) {
    let mut text = ESCAPES
        .iter()
        .fold(raw.to_owned(), |text, (escape, space)| {
            text.replace(escape, space)
        });
    for (rule, pattern) in RULES.iter() {
        if !rule.may_match(&text.to_ascii_lowercase()) {
            let found = pattern.find(&text);
            assert!(found.is_none(), "{found:?} has none of {:?}", rule.needs);
        }
        text = pattern.replace_all(&text, rule.replacement).into_owned();
    }
}

#[test]
fn a_rule_is_skipped_only_where_it_matches_nothing() {
    for (raw, _) in SECRETS {
        for raw in [raw, &*raw.to_ascii_uppercase(), &*raw.to_ascii_lowercase()] {
            check_skipped_rules(raw);
        }
    }
    for form in FORMS {
        check_skipped_rules(form);
    }
}

proptest! {
    #[test]
    fn any_text_becomes_a_short_line(raw in prop_oneof![any::<String>(), tangle()]) {
        check_skipped_rules(&raw);
        let clean = text(&raw);
        prop_assert!(clean.len() <= MAX_MESSAGE);
        prop_assert!(!clean.contains(char::is_control));
    }

    #[test]
    fn redacting_again_changes_nothing(raw in prop_oneof![any::<String>(), tangle()]) {
        let clean = text(&raw);
        prop_assert_eq!(text(&clean), clean);
    }

    #[test]
    fn a_message_of_any_text_is_a_short_line(raw in prop_oneof![any::<String>(), tangle()]) {
        let message = message(&say(&raw));
        prop_assert!(!message.is_empty() && message.len() <= MAX_MESSAGE);
        prop_assert!(!message.contains(char::is_control));
    }

    #[test]
    fn a_canary_never_survives(
        before in prop_oneof!["(\\PC{0,12} ){0,60}", tangle()],
        form in prop::sample::select(&FORMS[..]),
        key in "[A-Za-z0-9]{30}",
        after in tangle(),
    ) {
        let raw = format!("{before} {} {after}", form.replace("CANARY", &key));
        check_skipped_rules(&raw);
        prop_assert!(!text(&raw).contains(&key[..8]));
        prop_assert!(!message(&say(&raw)).contains(&key[..8]));
    }
}
