//! Example commands and code, with this server's address. The key is in the environment.

use serde_json::json;

use crate::http::page::{php_quote, shell_quote};

pub struct Example {
    pub language: &'static str,
    pub label: &'static str,
    pub source: String,
}

/// The domain of the sender in all examples.
pub const DOMAIN: &str = "example.com";
const SENDER: &str = "hello@example.com";
const RECIPIENT: &str = "bob@example.org";

pub fn send(origin: &str) -> Vec<Example> {
    let body = format!(
        "{{\n    \"from\": {{\"email\": \"{SENDER}\", \"name\": \"Acme\"}},\n    \
             \"to\": [{{\"email\": \"{RECIPIENT}\"}}],\n    \
             \"subject\": \"Hello\",\n    \
             \"html\": \"<p>It works.</p>\"\n  }}"
    );
    let python = format!(
        "client.send(\n    \
             from_address={{\"email\": \"{SENDER}\", \"name\": \"Acme\"}},\n    \
             to=[{{\"email\": \"{RECIPIENT}\"}}],\n    \
             subject=\"Hello\",\n    \
             html=\"<p>It works.</p>\",\n\
         )"
    );
    let php = format!(
        "[\n        \
             'from' => ['email' => '{SENDER}', 'name' => 'Acme'],\n        \
             'to' => [['email' => '{RECIPIENT}']],\n        \
             'subject' => 'Hello',\n        \
             'html' => '<p>It works.</p>',\n    \
         ]"
    );
    let url = format!("{origin}/v2/emails");
    vec![
        curl(&url, Some(&body)),
        python_sdk(origin, &python),
        php_curl(&url, Some(&php)),
    ]
}

pub fn batch(origin: &str) -> Vec<Example> {
    let body = format!(
        "{{\"emails\": [\n    \
             {{\"from\": {{\"email\": \"{SENDER}\"}}, \"to\": [{{\"email\": \"{RECIPIENT}\"}}], \"subject\": \"One\", \"text\": \"1\"}},\n    \
             {{\"from\": {{\"email\": \"{SENDER}\"}}, \"to\": [{{\"email\": \"{RECIPIENT}\"}}], \"subject\": \"Two\", \"text\": \"2\"}}\n  ]}}"
    );
    let python = format!(
        "sent = client.batch([\n    \
             {{\n        \
                 \"from\": {{\"email\": \"{SENDER}\"}},\n        \
                 \"to\": [{{\"email\": \"{RECIPIENT}\"}}],\n        \
                 \"subject\": subject,\n        \
                 \"text\": \"It works.\",\n    \
             }}\n    \
             for subject in [\"One\", \"Two\"]\n\
         ])\n\
         for result in sent.results:\n    \
             print(result)"
    );
    let url = format!("{origin}/v2/emails/batch");
    vec![curl(&url, Some(&body)), python_sdk(origin, &python)]
}

pub fn info(origin: &str) -> Vec<Example> {
    let url = format!("{origin}/v2/info");
    vec![
        curl(&url, None),
        python_sdk(origin, "print(client.get_account_info().account.status)"),
        php_curl(&url, None),
    ]
}

pub fn verify(origin: &str) -> Vec<Example> {
    vec![curl(
        &format!("{origin}/v2/verify?domain=example.com"),
        None,
    )]
}

pub fn openapi(origin: &str) -> Vec<Example> {
    let url = shell_quote(&format!("{origin}/v2/openapi.json"));
    vec![Example {
        language: "sh",
        label: "curl",
        source: format!("curl {url}"),
    }]
}

fn curl(url: &str, body: Option<&str>) -> Example {
    let mut source = format!(
        "curl {} \\\n  -H \"Authorization: Bearer $TOSEND_API_KEY\"",
        shell_quote(url)
    );
    if let Some(body) = body {
        source += " \\\n  -H 'Content-Type: application/json' \\\n  -d ";
        source += &shell_quote(body);
    }
    Example {
        language: "sh",
        label: "curl",
        source,
    }
}

/// A JSON string is also a valid Python string.
fn python_sdk(origin: &str, calls: &str) -> Example {
    Example {
        language: "python",
        label: "Python",
        source: format!(
            "import os\n\
             \n\
             from tosend import ToSend  # pip install tosend\n\
             \n\
             client = ToSend(api_key=os.environ[\"TOSEND_API_KEY\"], base_url={})\n\
             {calls}",
            json!(origin)
        ),
    }
}

fn php_curl(url: &str, body: Option<&str>) -> Example {
    let mut headers = "\n        'Authorization: Bearer ' . getenv('TOSEND_API_KEY'),".to_owned();
    let mut fields = String::new();
    if let Some(body) = body {
        headers += "\n        'Content-Type: application/json',";
        fields = format!("\n    CURLOPT_POSTFIELDS => json_encode({body}),");
    }
    Example {
        language: "php",
        label: "PHP",
        source: format!(
            "<?php\n\
             $request = curl_init({});\n\
             curl_setopt_array($request, [\n    \
                 CURLOPT_RETURNTRANSFER => true,\n    \
                 CURLOPT_HTTPHEADER => [{headers}\n    ],{fields}\n\
             ]);\n\
             echo curl_exec($request);",
            php_quote(url)
        ),
    }
}
