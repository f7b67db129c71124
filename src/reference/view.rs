//! The OpenAPI document prepared for a page; nothing here adds to the document.

use std::collections::BTreeSet;

use serde_json::Value;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{AdditionalProperties, Array, ArrayItems, SchemaType};
use utoipa::openapi::{Components, Object, OpenApi, RefOr, Required, Response, Schema, Type};

use super::document::EXAMPLES;
use super::examples::DOMAIN;
use super::parts::JSON;

pub struct Reference {
    pub sections: Vec<Section>,
    pub endpoints: Vec<Endpoint>,
    pub statuses: Vec<Status>,
    pub codes: Vec<Code>,
}

impl Reference {
    /// Replaces the domain of the examples with one that can send. Names of domains need no quoting.
    pub fn write_examples_for(&mut self, domain: &str) {
        let endpoints = self.endpoints.iter_mut();
        for example in endpoints.flat_map(|endpoint| &mut endpoint.examples) {
            example.source = example.source.replace(DOMAIN, domain);
        }
    }
}

pub struct Section {
    pub id: String,
    pub title: String,
    pub paragraphs: Vec<Prose>,
}

pub struct Endpoint {
    pub id: String,
    pub method: &'static str,
    pub path: String,
    pub title: String,
    pub description: Prose,
    pub is_public: bool,
    pub parameters: Vec<Field>,
    /// The fields of body and answer and of the schemas in them, except those that an earlier
    /// endpoint shows.
    pub tables: Vec<Table>,
    /// The names of the schemas of body and answer.
    pub body: Option<String>,
    pub answers: Vec<Answer>,
    pub examples: Vec<Example>,
}

pub struct Answer {
    pub status: String,
    pub means: Means,
}

pub enum Means {
    /// Its description, and the name of its schema.
    Success(Prose, Option<String>),
    /// The name of a status described below.
    Error(String),
}

pub struct Table {
    pub name: String,
    pub description: Prose,
    pub fields: Vec<Field>,
}

pub struct Field {
    pub name: String,
    pub is_required: bool,
    pub kind: String,
    /// The table with the details.
    pub table: Option<String>,
    pub limit: Option<String>,
    pub description: Prose,
}

/// An error by its status, for all endpoints.
pub struct Status {
    pub name: String,
    pub status: String,
    pub error_type: String,
    pub when: Prose,
    pub what_to_do: Prose,
}

/// An error of a field.
pub struct Code {
    pub name: String,
    pub status: String,
    pub when: Prose,
    pub what_to_do: Prose,
}

pub struct Example {
    pub label: String,
    pub source: String,
}

/// Text in which some words are code.
pub struct Prose(Vec<(bool, String)>);

impl Prose {
    /// Text between backticks is code, as in Markdown.
    fn parse(text: &str) -> Self {
        let pieces = text.split('`').map(str::to_owned);
        Self(
            pieces
                .enumerate()
                .map(|(at, piece)| (at % 2 == 1, piece))
                .collect(),
        )
    }

    /// The pieces: whether each is code, and its text.
    pub fn pieces(&self) -> impl Iterator<Item = (bool, &str)> {
        self.0
            .iter()
            .map(|(is_code, piece)| (*is_code, piece.as_str()))
    }

    /// The first and the second paragraph.
    fn parse_two(text: &str) -> (Self, Self) {
        let (first, second) = text.split_once("\n\n").unwrap_or((text, ""));
        (Self::parse(first), Self::parse(second))
    }
}

impl From<&OpenApi> for Reference {
    fn from(document: &OpenApi) -> Self {
        let nothing = Components::new();
        let components = document.components.as_ref().unwrap_or(&nothing);
        let mut shown = BTreeSet::new();
        let endpoints = document.paths.paths.iter().flat_map(|(path, item)| {
            let methods = [("GET", &item.get), ("POST", &item.post)];
            methods
                .into_iter()
                .filter_map(move |(method, operation)| Some((method, path, operation.as_ref()?)))
        });
        let endpoints: Vec<Endpoint> = endpoints
            .map(|(method, path, operation)| {
                endpoint(method, path, operation, components, &mut shown)
            })
            .collect();
        Self {
            sections: sections(document.info.description.as_deref().unwrap_or_default()),
            endpoints,
            statuses: statuses(components),
            codes: codes(components),
        }
    }
}

/// Each begins with `## Title`; paragraphs are separated by empty lines.
fn sections(text: &str) -> Vec<Section> {
    let sections = text.split("## ").skip(1);
    sections
        .map(|section| {
            let mut paragraphs = section.split("\n\n").map(str::trim);
            let title = paragraphs.next().unwrap_or_default().to_owned();
            Section {
                id: id(&title),
                paragraphs: paragraphs
                    .filter(|p| !p.is_empty())
                    .map(Prose::parse)
                    .collect(),
                title,
            }
        })
        .collect()
}

fn id(title: &str) -> String {
    let words = title.to_ascii_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// Long because it puts one page together: a part after the other.
fn endpoint(
    method: &'static str,
    path: &str,
    operation: &Operation,
    components: &Components,
    shown: &mut BTreeSet<String>,
) -> Endpoint {
    let body = match &operation.request_body {
        Some(RefOr::T(body)) => body.content.get(JSON).and_then(schema_name),
        _ => None,
    };
    let answers: Vec<Answer> = operation
        .responses
        .responses
        .iter()
        .map(|(status, response)| Answer {
            status: status.clone(),
            means: match response {
                RefOr::T(response) => Means::Success(
                    Prose::parse(&response.description),
                    response.content.get(JSON).and_then(schema_name),
                ),
                RefOr::Ref(status) => Means::Error(last_part(&status.ref_location)),
            },
        })
        .collect();
    let mut tables = Vec::new();
    let of_answers = answers.iter().filter_map(|answer| match &answer.means {
        Means::Success(_, schema) => schema.as_ref(),
        Means::Error(_) => None,
    });
    for name in body.iter().chain(of_answers) {
        add_tables(name, components, shown, &mut tables);
    }
    let parameters = operation.parameters.iter().flatten();
    Endpoint {
        id: operation.operation_id.clone().unwrap_or_default(),
        method,
        path: path.to_owned(),
        title: operation.summary.clone().unwrap_or_default(),
        description: Prose::parse(operation.description.as_deref().unwrap_or_default()),
        is_public: operation.security.as_ref().is_some_and(Vec::is_empty),
        parameters: parameters
            .filter_map(|parameter| match parameter {
                RefOr::T(parameter) => Some(Field {
                    name: parameter.name.clone(),
                    is_required: parameter.required == Required::True,
                    kind: parameter.schema.as_ref().map(kind).unwrap_or_default(),
                    table: None,
                    limit: None,
                    description: Prose::parse(parameter.description.as_deref().unwrap_or_default()),
                }),
                RefOr::Ref(_) => None,
            })
            .collect(),
        tables,
        body,
        answers,
        examples: examples(operation),
    }
}

fn schema_name(content: &RefOr<utoipa::openapi::Content>) -> Option<String> {
    let RefOr::T(content) = content else {
        return None;
    };
    named(content.schema.as_ref()?)
}

fn named(schema: &RefOr<Schema>) -> Option<String> {
    match schema {
        RefOr::Ref(reference) => Some(last_part(&reference.ref_location)),
        RefOr::T(_) => None,
    }
}

fn last_part(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn examples(operation: &Operation) -> Vec<Example> {
    let extensions = operation.extensions.as_ref();
    let samples = extensions.and_then(|extensions| extensions.get(EXAMPLES)?.as_array());
    let text =
        |sample: &Value, member: &str| sample[member].as_str().unwrap_or_default().to_owned();
    let samples = samples.into_iter().flatten();
    samples
        .map(|sample| Example {
            label: text(sample, "label"),
            source: text(sample, "source"),
        })
        .collect()
}

/// Adds the table of a schema, followed by those of the schemas in it.
fn add_tables(
    name: &str,
    components: &Components,
    shown: &mut BTreeSet<String>,
    tables: &mut Vec<Table>,
) {
    let Some(RefOr::T(schema)) = components.schemas.get(name) else {
        return;
    };
    if !shown.insert(name.to_owned()) {
        return;
    }
    let mut fields = Vec::new();
    add_fields("", schema, &mut fields);
    let nested: Vec<String> = fields
        .iter()
        .filter_map(|field| field.table.clone())
        .collect();
    tables.push(Table {
        name: name.to_owned(),
        description: Prose::parse(description(schema)),
        fields,
    });
    for name in nested {
        add_tables(&name, components, shown, tables);
    }
}

/// The fields of an object; for alternatives, the fields of all, each once.
fn add_fields(prefix: &str, schema: &Schema, fields: &mut Vec<Field>) {
    let object = match schema {
        Schema::Object(object) => object,
        Schema::OneOf(alternatives) => {
            return add_fields_of_all(prefix, &alternatives.items, fields);
        }
        Schema::AllOf(parts) => return add_fields_of_all(prefix, &parts.items, fields),
        _ => return,
    };
    for (name, schema) in &object.properties {
        let is_required = object.required.contains(name);
        let name = format!("{prefix}{name}");
        if fields.iter().any(|field| field.name == name) {
            continue;
        }
        fields.push(field(name.clone(), is_required, schema));
        match schema {
            RefOr::T(Schema::Object(object)) if !is_closed(object) => {
                add_fields(&format!("{name}."), &Schema::Object(object.clone()), fields);
            }
            RefOr::T(Schema::Array(array)) => {
                if let Some(RefOr::T(items)) = items(array) {
                    add_fields(&format!("{name}[]."), items, fields);
                }
            }
            _ => {}
        }
    }
}

fn add_fields_of_all(prefix: &str, schemas: &[RefOr<Schema>], fields: &mut Vec<Field>) {
    for schema in schemas {
        if let RefOr::T(schema) = schema {
            add_fields(prefix, schema, fields);
        }
    }
}

/// Whether it lists error codes, which have a table of their own.
fn is_closed(object: &Object) -> bool {
    let additional = object.additional_properties.as_deref();
    matches!(additional, Some(AdditionalProperties::FreeForm(false)))
}

fn items(array: &Array) -> Option<&RefOr<Schema>> {
    match &array.items {
        ArrayItems::RefOrSchema(items) => Some(items),
        ArrayItems::False => None,
    }
}

fn field(name: String, is_required: bool, schema: &RefOr<Schema>) -> Field {
    let (table, limit, text) = match schema {
        RefOr::Ref(reference) => (named(schema), None, reference.description.as_str()),
        RefOr::T(inline) => (table_of(inline), limit(inline), description(inline)),
    };
    Field {
        name,
        is_required,
        kind: kind(schema),
        table,
        limit,
        description: Prose::parse(text),
    }
}

/// The schema of a list's items or of one alternative.
fn table_of(schema: &Schema) -> Option<String> {
    match schema {
        Schema::Array(array) => items(array).and_then(named),
        Schema::AnyOf(alternatives) => alternatives.items.iter().find_map(named),
        _ => None,
    }
}

fn description(schema: &Schema) -> &str {
    let description = match schema {
        Schema::Object(object) => &object.description,
        Schema::Array(array) => &array.description,
        Schema::OneOf(one) => &one.description,
        Schema::AllOf(all) => &all.description,
        Schema::AnyOf(any) => &any.description,
        _ => &None,
    };
    description.as_deref().unwrap_or_default()
}

/// A schema's type in words.
fn kind(schema: &RefOr<Schema>) -> String {
    match schema {
        RefOr::Ref(_) => "object".to_owned(),
        RefOr::T(Schema::Object(object)) => {
            let values = match object.additional_properties.as_deref() {
                Some(AdditionalProperties::RefOr(_)) => " of strings",
                _ => "",
            };
            types(&object.schema_type).replacen("object", &format!("object{values}"), 1)
        }
        RefOr::T(Schema::Array(array)) => {
            let of = items(array).map(kind).unwrap_or_default();
            // Of "objects of strings", take "strings".
            let of = match of.split_once(' ') {
                Some((one, rest)) => format!("{one}s {rest}"),
                None => format!("{of}s"),
            };
            types(&array.schema_type).replacen("list", &format!("list of {of}"), 1)
        }
        RefOr::T(Schema::AnyOf(alternatives)) => either(&alternatives.items),
        RefOr::T(Schema::OneOf(alternatives)) => either(&alternatives.items),
        RefOr::T(_) => "object".to_owned(),
    }
}

fn either(schemas: &[RefOr<Schema>]) -> String {
    let mut kinds: Vec<String> = schemas.iter().map(kind).collect();
    kinds.dedup();
    kinds.join(" or ")
}

fn types(schema_type: &SchemaType) -> String {
    let name = |kind: &Type| match kind {
        Type::Object => "object",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::Array => "list",
        Type::Null => "null",
    };
    match schema_type {
        SchemaType::Type(kind) => name(kind).to_owned(),
        SchemaType::Array(kinds) => kinds.iter().map(name).collect::<Vec<_>>().join(" or "),
        SchemaType::AnyValue => "anything".to_owned(),
    }
}

fn limit(schema: &Schema) -> Option<String> {
    match schema {
        Schema::Object(object) => match (&object.enum_values, object.max_length) {
            (Some(values), _) => {
                let values: Vec<String> = values
                    .iter()
                    .map(|value| value.as_str().map_or(value.to_string(), str::to_owned))
                    .collect();
                Some(values.join(", "))
            }
            (None, Some(most)) => Some(format!("{most} characters at most")),
            (None, None) => None,
        },
        Schema::Array(array) => match (array.min_items, array.max_items) {
            (Some(least), Some(most)) => Some(format!("{least} to {most}")),
            (None, Some(most)) => Some(format!("{most} at most")),
            _ => None,
        },
        _ => None,
    }
}

fn statuses(components: &Components) -> Vec<Status> {
    let responses = components.responses.iter().filter_map(|(name, response)| {
        let RefOr::T(response) = response else {
            return None;
        };
        let envelope = envelope(response)?;
        let (when, what_to_do) = Prose::parse_two(&response.description);
        Some(Status {
            name: name.clone(),
            status: only_value(envelope, "status_code")?,
            error_type: only_value(envelope, "error_type")?,
            when,
            what_to_do,
        })
    });
    let mut statuses: Vec<Status> = responses.collect();
    statuses.sort_by(|a, b| a.status.cmp(&b.status));
    statuses
}

fn codes(components: &Components) -> Vec<Code> {
    let mut codes: Vec<Code> = Vec::new();
    for response in components.responses.values() {
        let RefOr::T(response) = response else {
            continue;
        };
        let Some(envelope) = envelope(response) else {
            continue;
        };
        let status = only_value(envelope, "status_code").unwrap_or_default();
        let Some(errors) = property(envelope, "errors") else {
            continue;
        };
        for field in errors.properties.keys() {
            let Some(of_field) = property(errors, field) else {
                continue;
            };
            for code in of_field.properties.keys() {
                let name = format!("{field}.{code}");
                let Some(sentence) = property(of_field, code) else {
                    continue;
                };
                if codes.iter().any(|code| code.name == name) {
                    continue;
                }
                let text = sentence.description.as_deref().unwrap_or_default();
                let (when, what_to_do) = Prose::parse_two(text);
                codes.push(Code {
                    name,
                    status: status.clone(),
                    when,
                    what_to_do,
                });
            }
        }
    }
    codes.sort_by(|a, b| a.status.cmp(&b.status));
    codes
}

fn envelope(response: &Response) -> Option<&Object> {
    let RefOr::T(content) = response.content.get(JSON)? else {
        return None;
    };
    match content.schema.as_ref()? {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    }
}

fn property<'a>(object: &'a Object, name: &str) -> Option<&'a Object> {
    match object.properties.get(name)? {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    }
}

fn only_value(object: &Object, name: &str) -> Option<String> {
    match property(object, name)?.enum_values.as_deref()? {
        [Value::String(text)] => Some(text.clone()),
        [value] => Some(value.to_string()),
        _ => None,
    }
}
