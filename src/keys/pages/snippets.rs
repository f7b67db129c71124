//! Code snippets that use a new key. They contain the key, so they are shown only once, with it.

use serde_json::json;

use super::super::secret::PlainKey;
use crate::http::page::{php_quote, shell_quote};

const SUBJECT: &str = "Hello from ToSend";
const TEXT: &str = "It works.";

pub struct Snippet {
    /// Part of the snippet's element ids on the page.
    pub id: &'static str,
    pub label: &'static str,
    /// Where the snippet belongs.
    pub hint: &'static str,
    pub code: String,
}

/// An email that the key may send.
pub struct Sample<'a> {
    /// The address at which the server is reached.
    pub origin: &'a str,
    pub sender: &'a str,
    pub recipient: &'a str,
}

impl Sample<'_> {
    pub fn snippets(&self, key: &PlainKey) -> Vec<Snippet> {
        let key = key.expose();
        let of = |id, label, hint, code| Snippet {
            id,
            label,
            hint,
            code,
        };
        vec![
            of(
                "env",
                ".env",
                "A line for the file that your program reads its environment from.",
                format!("TOSEND_API_KEY={key}"),
            ),
            of(
                "curl",
                "curl",
                "Sends an email from a terminal.",
                self.curl(key),
            ),
            of(
                "python",
                "Python",
                "With the tosend package from PyPI.",
                self.python(key),
            ),
            of("php", "PHP", "With PHP’s own curl.", self.php(key)),
            of(
                "wordpress",
                "WordPress",
                "A line for wp-config.php, for the FluentSMTP plugin.",
                format!("define( 'FLUENTMAIL_TOSEND_API_KEY', '{key}' );"),
            ),
        ]
    }

    /// The command with a key from the environment.
    pub fn curl_from_environment(&self) -> String {
        self.curl_with("\"Authorization: Bearer $TOSEND_API_KEY\"")
    }

    fn curl(&self, key: &str) -> String {
        self.curl_with(&shell_quote(&format!("Authorization: Bearer {key}")))
    }

    /// `authorization`: the header as a word of the shell.
    fn curl_with(&self, authorization: &str) -> String {
        let body = format!(
            r#"{{"from": {}, "to": [{}], "subject": "{SUBJECT}", "text": "{TEXT}"}}"#,
            json!({"email": self.sender}),
            json!({"email": self.recipient}),
        );
        format!(
            "curl {} \\\n  -H {} \\\n  -H {} \\\n  -d {}",
            shell_quote(&format!("{}/v2/emails", self.origin)),
            authorization,
            shell_quote("Content-Type: application/json"),
            shell_quote(&body),
        )
    }

    /// A JSON string is also a valid Python string.
    fn python(&self, key: &str) -> String {
        format!(
            "from tosend import ToSend\n\
             \n\
             client = ToSend(api_key=\"{key}\", base_url={})\n\
             client.send(\n    \
                 from_address={{\"email\": {}}},\n    \
                 to=[{{\"email\": {}}}],\n    \
                 subject=\"{SUBJECT}\",\n    \
                 text=\"{TEXT}\",\n\
             )",
            json!(self.origin),
            json!(self.sender),
            json!(self.recipient),
        )
    }

    fn php(&self, key: &str) -> String {
        format!(
            "<?php\n\
             $request = curl_init({});\n\
             curl_setopt_array($request, [\n    \
                 CURLOPT_RETURNTRANSFER => true,\n    \
                 CURLOPT_HTTPHEADER => [\n        \
                     'Authorization: Bearer {key}',\n        \
                     'Content-Type: application/json',\n    \
                 ],\n    \
                 CURLOPT_POSTFIELDS => json_encode([\n        \
                     'from' => ['email' => {}],\n        \
                     'to' => [['email' => {}]],\n        \
                     'subject' => '{SUBJECT}',\n        \
                     'text' => '{TEXT}',\n    \
                 ]),\n\
             ]);\n\
             echo curl_exec($request);",
            php_quote(&format!("{}/v2/emails", self.origin)),
            php_quote(self.sender),
            php_quote(self.recipient),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_snippet_holds_the_key_and_nothing_ends_its_quotes() {
        let key = PlainKey::generate();
        let sample = Sample {
            origin: "http://127.0.0.1:8080",
            sender: r#"o'brien"\@acme.test"#,
            recipient: "bob@example.org",
        };
        let snippets = sample.snippets(&key);
        assert!(snippets.iter().all(|s| s.code.contains(key.expose())));
        let code = |id| &snippets.iter().find(|s| s.id == id).unwrap().code;
        assert!(code("curl").contains(r#"{"email":"o'\''brien\"\\@acme.test"}"#));
        assert!(code("python").contains(r#"{"email": "o'brien\"\\@acme.test"}"#));
        assert!(code("php").contains(r#"['email' => 'o\'brien"\\@acme.test']"#));
    }
}
