//! The API as an OpenAPI document (OpenAPI 3.1.0).

use serde_json::json;
use utoipa::openapi::extensions::{Extensions, ExtensionsBuilder};
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HeaderBuilder, HttpMethod, InfoBuilder, LicenseBuilder,
    ObjectBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, RefOr, Required, Response,
    ResponseBuilder, Schema, ServerBuilder,
};

use super::errors::{self, named};
use super::examples::{self, Example};
use super::parts::{JSON, integer, reference, text};
use super::schemas;

/// The document's name for an operation's examples, which other tools use too.
pub const EXAMPLES: &str = "x-codeSamples";

/// The description of the API at an origin.
pub fn of(origin: &str) -> OpenApi {
    let paths = PathsBuilder::new()
        .path("/v2/emails", on(HttpMethod::Post, send(origin)))
        .path("/v2/emails/batch", on(HttpMethod::Post, send_batch(origin)))
        .path("/v2/info", on(HttpMethod::Get, info(origin)))
        .path("/v2/verify", on(HttpMethod::Get, verify(origin)))
        .path(
            "/v2/verify/{original}",
            on(HttpMethod::Get, verify_original()),
        )
        .path("/v2/openapi.json", on(HttpMethod::Get, openapi(origin)));
    let license = LicenseBuilder::new()
        .name("MIT")
        .identifier(Some("MIT"))
        .build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("ToSend API")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(include_str!("guide.md").trim_end()))
                .license(Some(license)),
        )
        .servers(Some([ServerBuilder::new().url(origin).build()]))
        .paths(paths)
        .components(Some(components().build()))
        .security(Some([by_header()]))
        .build()
}

fn components() -> ComponentsBuilder {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A key in the header (RFC 6750, 2.1). `POST` requests may have it as `api_key` in the body instead."))
        .build();
    let query = ApiKeyValue::with_description(
        "api_key",
        "A key in the query, for `GET /v2/info` only. Used if there is none in the header.",
    );
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas::all())
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .security_scheme("query", SecurityScheme::ApiKey(ApiKey::Query(query)));
    errors::statuses()
        .iter()
        .fold(components, |components, status| {
            components.response(status.name, status.response())
        })
}

fn send(origin: &str) -> OperationBuilder {
    operation(
        "sendEmail",
        "Send an email",
        "Stores an email for delivery.",
    )
    .request_body(Some(body("Email")))
    .response("200", answer("The email is stored.", reference("Accepted")))
    .response("400", named("BadRequest"))
    .response("408", named("RequestTimeout"))
    .response("413", named("PayloadTooLarge"))
    .response("415", named("UnsupportedMediaType"))
    .response("422", named("InvalidEmail"))
    .extensions(Some(samples(examples::send(origin))))
}

fn send_batch(origin: &str) -> OperationBuilder {
    operation(
        "sendBatch",
        "Send several emails",
        "Stores several emails for delivery. Each is accepted or refused separately: check the results.",
    )
    .request_body(Some(body("Batch")))
    .response("200", answer("All of the emails are stored.", reference("Results")))
    .response("207", answer("Some of the emails are not stored, or none is: the results say why.", reference("Results")))
    .response("400", named("BadRequest"))
    .response("408", named("RequestTimeout"))
    .response("413", named("PayloadTooLarge"))
    .response("415", named("UnsupportedMediaType"))
    .response("422", named("InvalidBatch"))
    .extensions(Some(samples(examples::batch(origin))))
}

fn info(origin: &str) -> OperationBuilder {
    operation(
        "getInfo",
        "Who a key belongs to",
        "The account behind a key, and its domains. A good way to check a key.",
    )
    .securities(Some([
        by_header(),
        SecurityRequirement::new("query", [""; 0]),
    ]))
    .response("200", answer("The key works.", reference("Info")))
    .response("400", named("BadRequest"))
    .extensions(Some(samples(examples::info(origin))))
}

fn verify(origin: &str) -> OperationBuilder {
    let domain = ParameterBuilder::new()
        .name("domain")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some("Also asks whether the key may send from this domain."))
        .schema(Some(text("")));
    operation(
        "verifyKey",
        "Whether a key works",
        "For gateways that ask before each request. The answer also says in its headers whose the key is.",
    )
    .parameter(domain)
    .response("200", verdict())
    .response("400", named("AmbiguousDomain"))
    .response("403", named("DomainForbidden"))
    .extensions(Some(samples(examples::verify(origin))))
}

fn verify_original() -> OperationBuilder {
    let original = ParameterBuilder::new()
        .name("original")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(
            "The path of the original request, with all of its slashes; ignored.",
        ))
        .schema(Some(text("")));
    operation(
        "verifyKeyOfOriginal",
        "Whether a key works, for Envoy",
        "As Envoy asks: with the path, the query and the method of the original request. Any method is answered like `GET`, and the query is ignored.",
    )
    .parameter(original)
    .response("200", verdict())
    .response("400", named("BadRequest"))
}

fn openapi(origin: &str) -> OperationBuilder {
    OperationBuilder::new()
        .operation_id(Some("getDescription"))
        .summary(Some("This description"))
        .description(Some(
            "The description of this API, as OpenAPI 3.1. No key is needed.",
        ))
        .securities(Some(Vec::<SecurityRequirement>::new()))
        .response("200", answer("The description.", ObjectBuilder::new()))
        .extensions(Some(samples(examples::openapi(origin))))
}

/// An operation that needs a key, with the answers that all of those have.
fn operation(id: &str, summary: &str, description: &str) -> OperationBuilder {
    OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(summary))
        .description(Some(description))
        .response("401", named("Unauthorized"))
        .response("403", named("Forbidden"))
        .response("500", named("InternalError"))
        .response("503", named("Unavailable"))
}

fn on(method: HttpMethod, operation: OperationBuilder) -> PathItem {
    PathItem::new(method, operation)
}

fn by_header() -> SecurityRequirement {
    SecurityRequirement::new("bearer", [""; 0])
}

fn body(schema: &str) -> RequestBody {
    RequestBodyBuilder::new()
        .content(
            JSON,
            ContentBuilder::new()
                .schema(Some(reference(schema)))
                .build(),
        )
        .required(Some(Required::True))
        .build()
}

fn answer(description: &str, schema: impl Into<RefOr<Schema>>) -> Response {
    ResponseBuilder::new()
        .description(description)
        .content(JSON, ContentBuilder::new().schema(Some(schema)).build())
        .build()
}

fn verdict() -> Response {
    let mut verdict = answer("The key works.", reference("Verdict"));
    for (name, description, schema) in [
        ("X-Tosend-Account", "The account's id.", integer("")),
        ("X-Tosend-Key", "The key's id.", integer("")),
        (
            "X-Tosend-Scope",
            "`all`, or the names of the domains, separated by `, `.",
            text(""),
        ),
    ] {
        let header = HeaderBuilder::new()
            .description(Some(description))
            .schema(Some(schema))
            .build();
        verdict.headers.insert(name.to_owned(), header.into());
    }
    verdict
}

fn samples(examples: Vec<Example>) -> Extensions {
    let samples: Vec<_> = examples
        .into_iter()
        .map(
            |Example {
                 language,
                 label,
                 source,
             }| { json!({"lang": language, "label": label, "source": source}) },
        )
        .collect();
    ExtensionsBuilder::new().add(EXAMPLES, samples).build()
}
