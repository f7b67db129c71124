//! The description of the API: complete, and true.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;

use super::house;
use crate::support::files::root;
use crate::support::*;

const PATH: &str = "/v2/openapi.json";
const PAGE: &str = "/docs/api";
/// What clients know of, for a limit that this server does not have.
const NEVER_SENT: &str = "rate_limit_exceeded";
/// How serde spells variants.
const NO_WORD: &str = "lowercase";

fn describe(app: &App) -> Value {
    let answer = app.visitor().get(PATH);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

both! {
    fn anyone_may_read_the_description_and_its_page(app: App) {
        app.owner();
        let answer = app.visitor().get(PATH);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("set-cookie"), None);
        let page = app.visitor().get(PAGE);
        assert_eq!(page.status, 200);
        assert!(page.body.contains("href=\"/login\""));
        assert!(!page.body.contains("href=\"/settings\""));
    }

    fn who_is_signed_in_keeps_the_navigation(app: App) {
        let page = app.owner().get(PAGE);
        assert_eq!(page.status, 200);
        assert!(page.body.contains("href=\"/settings\"") && page.body.contains(EMAIL));
    }

    fn it_names_the_server_that_was_asked(app: App) {
        let document = describe(&app);
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        assert_eq!(document["servers"][0]["url"], app.url(""));
        let curl = format!("curl {}", app.url("/v2/emails"));
        assert!(app.visitor().get(PAGE).body.contains(&curl));
    }

    fn it_names_the_public_url(app: App, with |settings| {
        settings.public_url = Some("https://dash.acme.test".into())
    }) {
        assert_eq!(describe(&app)["servers"][0]["url"], "https://dash.acme.test");
        let page = app.visitor().get(PAGE).body;
        assert!(page.contains("curl https://dash.acme.test/v2/emails "));
        assert!(!page.contains(&app.url("/v2")));
    }

    fn every_answer_is_as_described(app: App) {
        let key = ready(&app);
        let description = app.url(PATH);
        let ran = schemathesis(&key, &[&description]);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    }
}

/// The alarm works.
#[test]
fn a_lie_in_the_description_is_found() {
    let app = App::start(Backend::Sqlite, |_| {});
    let key = ready(&app);
    let mut document = describe(&app);
    document["paths"]["/v2/info"]["get"]["responses"] = serde_json::json!({
        "204": {"description": "Nothing."}
    });
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(file.path(), document.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let ran = schemathesis(
        &key,
        &[path, "--url", &app.url(""), "--include-path", "/v2/info"],
    );
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        !ran.status.success() && said.contains("Undocumented status code"),
        "{said}"
    );
}

/// A key, for all domains, of an account that may send from acme.test.
fn ready(app: &App) -> String {
    let owner = app.owner();
    attest(&app.database, "acme.test");
    owner.create_key("Schemathesis", "").1
}

fn schemathesis(key: &str, arguments: &[&str]) -> Output {
    let folder = root().join("tests/it");
    // It leaves files where it runs.
    let scratch = tempfile::tempdir().unwrap();
    Command::new(python())
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(folder.join("openapi.toml"))
        .arg("run")
        .args(arguments)
        .args([
            "--header",
            &format!("Authorization: Bearer {key}"),
            "--no-color",
        ])
        .env("SCHEMATHESIS_HOOKS", folder.join("openapi.py"))
        .env("NO_PROXY", "127.0.0.1")
        .current_dir(scratch.path())
        .output()
        .unwrap()
}

fn python() -> String {
    std::env::var("TOSEND_TEST_PYTHON")
        .expect("TOSEND_TEST_PYTHON is not set: run the tests with tests/run")
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let app = App::start(Backend::Sqlite, |_| {});
    let mut described = BTreeSet::new();
    for (path, item) in describe(&app)["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            described.insert(format!("{method} {path}"));
        }
    }
    assert_eq!(described, routes());
}

/// The routes below `/v2`, by the text of their source. What takes any method is described as GET.
fn routes() -> BTreeSet<String> {
    let sources = house::sources();
    let (_, text) = sources
        .iter()
        .find(|(path, _)| path == "routes.rs")
        .unwrap();
    let (_, api) = text.split_once("\nfn api(").unwrap();
    let (api, _) = api.split_once("\n}").unwrap();
    let mut routes = BTreeSet::new();
    for resource in api.split("resource(\"").skip(1) {
        let (pattern, handlers) = resource.split_once('"').unwrap();
        let path = pattern.replace(":.*", "");
        for (call, method) in [(".get(", "get"), (".to(", "get"), (".post(", "post")] {
            if handlers.contains(call) {
                routes.insert(format!("{method} /v2{path}"));
            }
        }
    }
    assert!(routes.len() > 4, "src/routes.rs reads unlike before");
    routes
}

#[test]
fn every_code_that_can_be_told_is_described() {
    let app = App::start(Backend::Sqlite, |_| {});
    let document = describe(&app);
    let codes = codes(&document);
    let words = words(&document);
    let mut calls = 0;
    for (path, text) in house::sources() {
        let tells = text.contains("ApiError") || text.contains("problems.tell(");
        if !tells || path.starts_with("reference/") {
            continue;
        }
        for call in ["tell(", "refused(", "::field("]
            .iter()
            .flat_map(|name| text.split(name).skip(1))
        {
            let literals = literals(arguments(call));
            if let [field, code] = literals[..] {
                calls += 1;
                assert!(
                    codes.contains(&format!("{field}.{code}")),
                    "{path}: {field}.{code}"
                );
            }
        }
        // Also those that a variable brings, and names of members.
        for word in literals(&text) {
            assert!(
                words.contains(word) || [NEVER_SENT, NO_WORD].contains(&word),
                "{path}: {word}"
            );
        }
    }
    assert!(calls > 10, "the sources read unlike before");
}

/// What stands between a call's brackets.
fn arguments(call: &str) -> &str {
    let mut depth = 1;
    let end = call.find(|c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    &call[..end.unwrap_or(call.len())]
}

/// The literals that are names: of members, fields, codes.
fn literals(text: &str) -> Vec<&str> {
    let literals = text.split('"').skip(1).step_by(2);
    let is_name =
        |text: &&str| text.len() > 1 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    literals.filter(is_name).collect()
}

/// `field.code`, of all errors in the document.
fn codes(document: &Value) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for response in document["components"]["responses"]
        .as_object()
        .unwrap()
        .values()
    {
        let envelope = &response["content"]["application/json"]["schema"];
        let fields = envelope["properties"]["errors"]["properties"].as_object();
        for (field, of_field) in fields.into_iter().flatten() {
            for code in of_field["properties"].as_object().unwrap().keys() {
                codes.insert(format!("{field}.{code}"));
            }
        }
    }
    assert!(codes.len() > 20);
    codes
}

fn words(document: &Value) -> BTreeSet<String> {
    let text = document.to_string();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.map(str::to_owned).collect()
}

#[test]
fn the_page_shows_every_endpoint_field_and_code() {
    let app = App::start(Backend::Sqlite, |_| {});
    let document = describe(&app);
    let page = app.visitor().get(PAGE).body;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            let method = method.to_uppercase();
            let heading = format!("<h2 id=\"{id}\"><code class=\"mono\">{method} {path}</code>");
            assert!(page.contains(&heading), "{heading}");
            assert!(page.contains(&format!("href=\"#{id}\"")), "{id}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert_field(&page, parameter["name"].as_str().unwrap());
            }
        }
    }
    for schema in document["components"]["schemas"]
        .as_object()
        .unwrap()
        .values()
    {
        let mut names = BTreeSet::new();
        add_fields(schema, &mut names);
        assert!(!names.is_empty());
        for name in names {
            assert_field(&page, &name);
        }
    }
    for code in codes(&document) {
        assert!(page.contains(&format!("<tr id=\"{code}\">")), "{code}");
    }
    for response in document["components"]["responses"]
        .as_object()
        .unwrap()
        .values()
    {
        let when = response["description"]
            .as_str()
            .unwrap()
            .split(". ")
            .next()
            .unwrap();
        let when = when.split(['`', '\n', '\'']).next().unwrap();
        assert!(page.contains(when), "{when}");
    }
    for limit in [
        "998 characters at most",
        "255 characters at most",
        "1 to 50",
        "50 at most",
        "10 MB",
    ] {
        assert!(page.contains(limit), "{limit}");
    }
}

fn assert_field(page: &str, name: &str) {
    let shown = [format!(">{name}</code>"), format!(".{name}</code>")];
    assert!(shown.iter().any(|shown| page.contains(shown)), "{name}");
}

/// The names of all members, but for the codes of errors, which allow no others beside them.
fn add_fields(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) if schema["additionalProperties"] != Value::Bool(false) => {
            for (name, member) in schema["properties"].as_object().into_iter().flatten() {
                names.insert(name.clone());
                add_fields(member, names);
            }
            for keyword in ["allOf", "anyOf", "oneOf", "items"] {
                members
                    .get(keyword)
                    .into_iter()
                    .for_each(|m| add_fields(m, names));
            }
        }
        Value::Array(schemas) => schemas.iter().for_each(|schema| add_fields(schema, names)),
        _ => {}
    }
}

both! {
    fn the_examples_do_what_they_say(app: App) {
        let owner = app.owner();
        attest(&app.database, "example.com");
        let (_, key) = owner.create_key("Examples", "");
        let mut ran = BTreeSet::new();
        for (path, item) in describe(&app)["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                for sample in operation["x-codeSamples"].as_array().into_iter().flatten() {
                    let source = sample["source"].as_str().unwrap();
                    let (program, argument) = match sample["lang"].as_str().unwrap() {
                        "sh" => ("sh".to_owned(), source.replacen("curl ", "curl -sSf --retry 9 ", 1)),
                        "python" => (python(), source.to_owned()),
                        _ => continue,
                    };
                    let before = app.database.number("SELECT count(*) FROM emails");
                    let mut command = Command::new(program);
                    command
                        .args(["-c", &argument])
                        .env("TOSEND_API_KEY", &key)
                        .env("NO_PROXY", "127.0.0.1");
                    let mut output = command.output().unwrap();
                    // Where the server could not answer in time.
                    while String::from_utf8_lossy(&output.stderr).contains("503") {
                        output = command.output().unwrap();
                    }
                    assert!(output.status.success(), "{argument}\n{output:?}");
                    let sent = app.database.number("SELECT count(*) FROM emails") - before;
                    let expected = match path.as_str() {
                        "/v2/emails" => 1,
                        "/v2/emails/batch" => 2,
                        _ => 0,
                    };
                    assert_eq!(sent, expected, "{argument}\n{output:?}");
                    ran.insert(format!("{} {path}", sample["label"].as_str().unwrap()));
                }
            }
        }
        assert!(ran.len() > 4, "{ran:?}");
    }
}
