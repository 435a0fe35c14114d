//! Keys, tokens and passwords: the shapes that their makers give them, and what is called one.

use std::collections::HashMap;
use std::ops::Range;

use super::sieve::{Candidate, Check, Rule};

/// Shapes that nothing else has. Longer beginnings come first where one begins as another does.
const SHAPES: &[(&str, &str)] = &[
    (
        "private_key",
        r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,-]*?-----END (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----",
    ),
    (
        "private_key",
        r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,]*",
    ),
    ("anthropic_key", r"sk-ant-[A-Za-z0-9_-]{20,}"),
    ("openrouter_key", r"sk-or-(?:v1-)?[A-Za-z0-9_-]{32,}"),
    ("openai_key", r"sk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_-]{20,}"),
    ("groq_key", r"gsk_[A-Za-z0-9]{40,64}"),
    ("xai_key", r"xai-[A-Za-z0-9]{60,}"),
    ("cerebras_key", r"csk-[a-z0-9]{40,64}"),
    ("perplexity_key", r"pplx-[A-Za-z0-9]{40,64}"),
    ("fireworks_key", r"fw_[A-Za-z0-9]{20,40}"),
    ("together_key", r"tgp_v1_[A-Za-z0-9_-]{40,60}"),
    ("nvidia_key", r"nvapi-[A-Za-z0-9_-]{50,90}"),
    ("huggingface_token", r"(?:hf_|api_org_)[A-Za-z]{30,40}"),
    ("replicate_token", r"r8_[A-Za-z0-9]{37,40}"),
    ("google_key", r"AIza[A-Za-z0-9_-]{35}"),
    (
        "google_oauth",
        r"(?:ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{28}|1//0[A-Za-z0-9_-]{40,})",
    ),
    ("aws_key_id", r"(?:AKIA|ASIA|AGPA|AIDA|AROA|ABIA|ACCA)[A-Z2-7]{16}"),
    ("bedrock_key", r"(?:ABSK[A-Za-z0-9+/]{80,}={0,2}|bedrock-api-key-[A-Za-z0-9+/]{20,}={0,2})"),
    ("azure_storage_key", r"AccountKey=[A-Za-z0-9+/]{40,88}={0,2}"),
    ("github_token", r"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})"),
    ("gitlab_token", r"gl(?:pat|ptt|dt|rt|cbt|soat)-[A-Za-z0-9_.-]{20,64}"),
    ("slack_token", r"(?:xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{20,})"),
    ("slack_webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9_/-]{20,}"),
    ("discord_webhook", r"discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{40,80}"),
    ("stripe_key", r"(?:[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,80})"),
    ("sendgrid_key", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
    ("twilio_key", r"SK[0-9a-f]{32}"),
    ("mailgun_key", r"key-[0-9a-f]{32}"),
    ("telegram_token", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"),
    ("shopify_token", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    ("square_token", r"(?:sq0(?:atp|csp)-[A-Za-z0-9_-]{22,43}|EAAA[A-Za-z0-9_-]{60})"),
    ("npm_token", r"npm_[A-Za-z0-9]{36}"),
    ("pypi_token", r"pypi-AgE[A-Za-z0-9_-]{50,}"),
    ("crates_token", r"cio[A-Za-z0-9]{32}"),
    ("docker_token", r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,40}"),
    ("digitalocean_token", r"do[opr]_v1_[a-f0-9]{64}"),
    ("databricks_token", r"dapi[a-f0-9]{32}(?:-[0-9])?"),
    ("vault_token", r"hv[sbr]\.[A-Za-z0-9_-]{24,}"),
    ("linear_key", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,64}"),
    ("notion_token", r"(?:secret_[A-Za-z0-9]{43}|ntn_[A-Za-z0-9]{40,50})"),
    ("figma_token", r"figd_[A-Za-z0-9_-]{40,50}"),
    ("age_key", r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    ("jwt", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
];

/// `scheme://user:password@host`: the password.
const IN_ADDRESS: &str = r#"[a-z][a-z0-9+.-]{1,20}://[^\s/:@"'<>]{0,64}:[^\s/@"'<>]{3,}@"#;
/// A name and a value, as files of settings and programs write them.
const ASSIGNED: &str = r#"(?i:pass(?:word|wd|phrase)|pwd|secret(?:[_-]?(?:access[_-]?)?key)?|(?:auth|access|refresh|bearer|api|secret|session)[_-]?token|token|(?:api|access|private|account|encryption|signing|master|license)[_-]?key|client[_-]?secret|credentials?|authorization|passwort|kennwort|contraseña|mot de passe|senha|пароль|密码)["'`*]{0,3}\s{0,3}(?:=>|:=|=|:|：|\bis\b|\bist\b|\best\b|\bes\b)\s{0,3}["'`]{0,3}(?i:bearer |basic |token )?[^\s"'`<>,;(){}\[\]]{6,}"#;
const SIGNED_IN: &str = r"(?i:bearer|basic) [A-Za-z0-9._~+/-]{16,}={0,2}";

/// What people write where the secret would stand.
const DUMMIES: &[&str] = &[
    "example",
    "your",
    "placeholder",
    "changeme",
    "change_me",
    "redacted",
    "xxxx",
    "****",
    "....",
    "dummy",
    "sample",
    "insert",
    "todo",
    "none",
    "null",
    "undefined",
    "required",
    "optional",
    "process.env",
    "os.environ",
    "getenv",
    "env:",
    "file:",
    "secret://",
    "${",
    "$(",
    "{{",
    "<",
];

pub(super) fn rules() -> Vec<Rule> {
    let rule = |label: &str, expression: &str, check: Check| {
        let (label, expression) = (label.to_owned(), expression.to_owned());
        Rule { label, expression, begins_words: false, check }
    };
    let shapes =
        SHAPES.iter().map(|(label, expression)| rule(label, expression, Box::new(stands_alone)));
    let named = [
        rule("url_password", IN_ADDRESS, Box::new(in_address)),
        rule("authorization", SIGNED_IN, Box::new(signed_in)),
        rule("password", ASSIGNED, Box::new(assigned)),
    ];
    shapes.chain(named).collect()
}

/// A shape is the beginning of a word: `task-force-…` holds no `sk-`.
fn stands_alone(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let joined = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let text = candidate.text;
    let address = text.starts_with("hooks.") || text.starts_with("discord");
    if !address
        && candidate.last_before().is_some_and(|c| joined(c) || c == '-')
        && !text.starts_with('-')
    {
        return None;
    }
    // Long words with dashes between them are names, not keys.
    let telling = text.starts_with("-----") || address || has_digit(text) || entropy(text) > 3.6;
    telling.then(|| candidate.whole())
}

fn has_digit(text: &str) -> bool {
    text.chars().filter(char::is_ascii_digit).count() > 1
}

fn in_address(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let text = candidate.text;
    let end = text.len() - 1;
    let user = text.find("://")? + 3;
    let start = user + text[user..].find(':')? + 1;
    (!is_dummy(&text[start..end])).then_some(start..end)
}

fn signed_in(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let start = candidate.text.find(' ')? + 1;
    let value = &candidate.text[start..];
    let telling = has_digit(value) && entropy(value) >= 3.0 && !is_dummy(value);
    let joined = candidate.last_before().is_some_and(char::is_alphanumeric);
    (telling && !joined).then_some(start..candidate.text.len())
}

/// The value, if it looks as if nobody could have guessed it.
fn assigned(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let text = candidate.text;
    if candidate.last_before().is_some_and(char::is_alphabetic) {
        return None;
    }
    let start = value_start(text);
    let value = text[start..].trim_end_matches(['.', '!', '?', ':']);
    let kinds = [
        value.contains(|c: char| c.is_ascii_digit()),
        value.contains(char::is_lowercase),
        value.contains(char::is_uppercase),
        value.contains(|c: char| c.is_ascii_punctuation()),
    ];
    // Said in a sentence, most of what follows is a word: it has to have a digit in it.
    let spoken = !text[..start].contains(['=', ':', '：']);
    let telling = kinds.iter().filter(|kind| **kind).count() >= 2 && (kinds[0] || !spoken);
    let program = value.contains("::") || value.contains("->") || value.ends_with("()");
    let guessed = value.chars().count() < 6 || entropy(value) < 2.5 || is_dummy(value) || program;
    (telling && !guessed).then_some(start..start + value.len())
}

/// Behind the last quote or space, which no value has in it, or else behind the first sign.
fn value_start(text: &str) -> usize {
    let parted = text.rfind(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'));
    let sign = || text.find([':', '=', '：']);
    let Some(at) = parted.or_else(sign) else { return 0 };
    let behind = text.ceil_char_boundary(at + 1);
    text.len() - text[behind..].trim_start_matches(['=', '>', ':']).len()
}

fn is_dummy(value: &str) -> bool {
    let lower = value.to_lowercase();
    DUMMIES.iter().any(|dummy| lower.contains(dummy)) || value.starts_with(['$', '%', '@', '['])
}

/// Bits a character, by how often each occurs.
fn entropy(text: &str) -> f64 {
    let mut counts: HashMap<char, u32> = HashMap::new();
    for character in text.chars() {
        *counts.entry(character).or_default() += 1;
    }
    let all = f64::from(counts.values().sum::<u32>());
    counts.values().map(|count| f64::from(*count) / all).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::sieve::{Sieve, Sift, Sink};
    use super::*;

    struct Seen(Vec<(String, String)>);

    impl Sink for Seen {
        fn pass(&mut self, _: &str) {}

        fn found(&mut self, label: &str, value: &str) -> bool {
            self.0.push((label.to_owned(), value.to_owned()));
            true
        }
    }

    fn found(text: &str) -> Vec<(String, String)> {
        static SIEVE: std::sync::LazyLock<Sieve> =
            std::sync::LazyLock::new(|| Sieve::new(rules()).unwrap());
        let (mut sift, mut seen) = (Sift::default(), Seen(Vec::new()));
        assert!(sift.feed(&SIEVE, text, &mut seen) && sift.finish(&SIEVE, &mut seen));
        seen.0
    }

    /// Made of a beginning and letters that no maker ever gave out.
    #[test]
    fn every_maker_s_shape_is_found_in_a_sentence() {
        let (mixed, hex, upper) = ("a1B2c3D4e5", "0a1b2c3d4e5f6789", "A2B3C4D5E6F7G2H3");
        let made = [
            ("anthropic_key", format!("sk-ant-api03-{}", mixed.repeat(8))),
            ("openrouter_key", format!("sk-or-v1-{}", hex.repeat(4))),
            ("openai_key", format!("sk-proj-{}", mixed.repeat(5))),
            ("groq_key", format!("gsk_{}", mixed.repeat(5))),
            ("google_key", format!("AIza{}12345", mixed.repeat(3))),
            ("aws_key_id", format!("AKIA{upper}")),
            ("github_token", format!("ghp_{}abcdef", mixed.repeat(3))),
            ("gitlab_token", format!("glpat-{}", mixed.repeat(2))),
            ("slack_token", format!("xoxb-123456789012-{mixed}")),
            ("stripe_key", format!("sk_live_{}", mixed.repeat(2))),
            ("npm_token", format!("npm_{}abcdef", mixed.repeat(3))),
            ("twilio_key", format!("SK{}", hex.repeat(2))),
            ("jwt", format!("eyJ{mixed}.eyJ{mixed}.{mixed}")),
            ("digitalocean_token", format!("dop_v1_{}", hex.repeat(4))),
            (
                "private_key",
                format!("-----BEGIN PRIVATE KEY-----\n{mixed}\n-----END PRIVATE KEY-----"),
            ),
        ];
        for (label, secret) in made {
            let text = format!("Use {secret}, and tell nobody.");
            assert_eq!(found(&text), [(label.to_owned(), secret)], "{label}");
        }
    }

    #[test]
    fn what_is_called_a_secret_and_looks_like_one_is_found() {
        for (text, value) in [
            ("password = \"hunter2!Xy9\"", "hunter2!Xy9"),
            ("DB_PASSWORD=Tr0ub4dor&3", "Tr0ub4dor&3"),
            ("api_key: 9f8e7d6c5b4a3210ffee", "9f8e7d6c5b4a3210ffee"),
            ("{\"client_secret\": \"q8W7e6R5t4\"}", "q8W7e6R5t4"),
            ("my password is Sommer2024!", "Sommer2024"),
            ("Das Passwort: Winter#99x", "Winter#99x"),
            ("postgres://app:Zx9-kk2@db.internal/app", "Zx9-kk2"),
            ("Authorization: Bearer abcDEF123456ghiJKL", "abcDEF123456ghiJKL"),
        ] {
            let values: Vec<String> = found(text).into_iter().map(|(_, value)| value).collect();
            assert_eq!(values, [value], "{text}");
        }
    }

    #[test]
    fn what_only_speaks_of_secrets_is_left_alone() {
        for text in [
            "The password is required and must be long.",
            "password = os.environ[\"DB_PASSWORD\"]",
            "api_key: ${API_KEY}",
            "token: string; password: string",
            "Set OPENAI_API_KEY to your-api-key-here.",
            "export TOKEN=<your token>",
            "task-force-of-several-people-and-more",
            "The secret is to add butter.",
            "max_tokens: 4096, token_count = 12345",
            "https://example.org:8443/a@b",
            "risk-averse-and-otherwise-cautious-people",
            "password: ********",
            "sk-learn is a library, and sk-short is short",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
