//! All unsuccessful answers of the API: statuses, and codes of fields.

use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Schema,
    Type,
};

use super::parts::{JSON, integer, text};

/// An unsuccessful status, which several operations refer to with the same text.
pub struct ErrorStatus {
    /// Its name among the components.
    pub name: &'static str,
    pub code: u16,
    pub error_type: &'static str,
    pub when: String,
    pub what_to_do: &'static str,
    pub fields: Fields,
}

/// Field → code → when, and what to do.
pub type Fields = &'static [(&'static str, &'static [Code])];
type Code = (&'static str, &'static str, &'static str);

const KEY_INVALID: Code = (
    "invalid",
    "The key does not work: it is unknown, mistyped, deleted, paused or expired, or its account is paused. These cannot be told apart from outside.",
    "Do not repeat the request. Find the reason on the page API Keys, and give the program a key that works.",
);

pub const EMAIL: Fields = &[
    (
        "from",
        &[
            ("required", "There is no `from`.", "Name the sender."),
            (
                "email_required",
                "`from` has no `email`, or it is blank.",
                "Name the sender's address.",
            ),
            (
                "email_invalid",
                "The sender's `email` is not an address, or has non-ASCII characters before the `@`.",
                "Correct it.",
            ),
            (
                "name_invalid",
                "The sender's `name` is not text, is too long, or contains a line break or another control character.",
                "Send a short text on one line, or no name.",
            ),
            (
                "domain_not_found",
                "The sender's domain is not one of the account's.",
                "Add it on the page Domains, or send from one that is there.",
            ),
            (
                "domain_not_verified",
                "The sender's domain is not verified.",
                "Verify it: its page shows how.",
            ),
            (
                "domain_not_allowed",
                "The key is for other domains.",
                "Send from one of the key's domains, or edit the key.",
            ),
            (
                "address_not_allowed",
                "The key is for other senders.",
                "Send from one of the key's senders, or edit the key.",
            ),
        ],
    ),
    (
        "to",
        &[
            (
                "required",
                "There is no `to`, or it is empty.",
                "Name at least one recipient.",
            ),
            RECIPIENTS_INVALID,
            RECIPIENTS_MAX,
            ADDRESSES_MAX,
            RECIPIENT_NOT_ALLOWED,
        ],
    ),
    (
        "cc",
        &[
            RECIPIENTS_INVALID,
            RECIPIENTS_MAX,
            ADDRESSES_MAX,
            RECIPIENT_NOT_ALLOWED,
        ],
    ),
    (
        "bcc",
        &[RECIPIENTS_INVALID, RECIPIENTS_MAX, RECIPIENT_NOT_ALLOWED],
    ),
    (
        "subject",
        &[
            ("required", "The subject is missing or blank.", "Send one."),
            (
                "invalid",
                "The subject is not text, or contains a line break or another control character.",
                "Send text on one line.",
            ),
            ("max_length", "The subject is too long.", "Shorten it."),
        ],
    ),
    (
        "content",
        &[(
            "required",
            "`html` and `text` are both missing or empty.",
            "Send one of them, or both.",
        )],
    ),
    ("html", &[NO_TEXT]),
    ("text", &[NO_TEXT]),
    (
        "reply_to",
        &[
            (
                "max_limit",
                "It has more addresses than an email may have.",
                "Send fewer.",
            ),
            ADDRESSES_MAX,
        ],
    ),
    (
        "headers",
        &[
            NO_STRINGS_OR_HEADER,
            ("max_limit", "There are too many of them.", "Send fewer."),
            (
                "max_length",
                "The headers are too long in total.",
                "Send fewer or shorter ones.",
            ),
            (
                "not_allowed",
                "One of the headers is set by the server itself.",
                "Leave it out, and use the field for it.",
            ),
        ],
    ),
    (
        "attachments",
        &[
            (
                "invalid",
                "`attachments` is not a list, or one of them lacks its media type, its name or its content in base64, or has an invalid `content_id`; the sentence names each.",
                "Correct it.",
            ),
            (
                "max_size",
                "The attachments are too large in total.",
                "Send fewer or smaller ones, or send links.",
            ),
        ],
    ),
    (
        "tags",
        &[
            (
                "invalid",
                "`tags` is not an object of strings, or one of them contains a line break.",
                "Send each value as text on one line.",
            ),
            ("max_limit", "There are too many of them.", "Send fewer."),
            (
                "max_length",
                "A tag's key or value is too long.",
                "Shorten it.",
            ),
        ],
    ),
    (
        "message_hash",
        &[(
            "invalid",
            "`message_hash` is not text, is too long, or contains a control character.",
            "Correct it.",
        )],
    ),
];

const RECIPIENTS_INVALID: Code = (
    "invalid",
    "It is not a list of objects, or one of them has an `email` that is not an address, or a `name` that is too long or contains a control character; the sentence names each.",
    "Correct it.",
);
const RECIPIENTS_MAX: Code = (
    "max_limit",
    "It has more recipients than one email may have; duplicates count.",
    "Send several emails.",
);
const ADDRESSES_MAX: Code = (
    "max_length",
    "The names and addresses in `to`, `cc` and `reply_to` are too long in total.",
    "Shorten the names, or send several emails.",
);
const RECIPIENT_NOT_ALLOWED: Code = (
    "recipient_not_allowed",
    "The key is for other recipients, or the part before the `@` has characters that a mail server may read as another address; the sentence names the first such recipient.",
    "Leave the recipient out, or edit the key.",
);
const NO_TEXT: Code = ("invalid", "It is not text.", "Send text, or leave it out.");
const NO_STRINGS_OR_HEADER: Code = (
    "invalid",
    "`headers` is not an object of strings, a name is not a valid header name, or a value contains a line break or a word longer than a line; the sentence names each.",
    "Correct it.",
);

pub const BATCH: Fields = &[(
    "emails",
    &[
        (
            "required",
            "There is no list of emails, or it is empty.",
            "Send the list as `emails`, or as the whole body.",
        ),
        (
            "max_limit",
            "There are more emails than a batch may hold.",
            "Send several batches.",
        ),
    ],
)];

const NONE: Fields = &[];

/// Long because it is a table: a status after the other.
pub fn statuses() -> Vec<ErrorStatus> {
    let status = |name, code, error_type, when: &str, what_to_do, fields| ErrorStatus {
        name,
        code,
        error_type,
        when: when.to_owned(),
        what_to_do,
        fields,
    };
    vec![
        status(
            "BadRequest",
            400,
            "bad_request",
            &format!(
                "There are several `Authorization` headers, or the body is not JSON or has more than {} values in one email.",
                crate::http::json::MOST_VALUES
            ),
            "Correct the request.",
            NONE,
        ),
        status(
            "AmbiguousDomain",
            400,
            "bad_request",
            "There are several `Authorization` headers, or the query names several domains.",
            "Send one of each.",
            NONE,
        ),
        status(
            "Unauthorized",
            401,
            "unauthorized",
            "There is no key in any of the places where it may be.",
            "Send the key as “Authenticate” describes.",
            &[(
                "api_key",
                &[(
                    "required",
                    "There is no key in any of the places where it may be.",
                    "Send the key as “Authenticate” describes.",
                )],
            )],
        ),
        status(
            "Forbidden",
            403,
            "forbidden",
            "The key does not work.",
            "Do not repeat the request: give the program a key that works.",
            &[("api_key", &[KEY_INVALID])],
        ),
        status(
            "DomainForbidden",
            403,
            "forbidden",
            "The key does not work, or it may not send from the domain in the query.",
            "Do not repeat the request: `errors` says which of the two it is.",
            &[
                ("api_key", &[KEY_INVALID]),
                (
                    "domain",
                    &[(
                        "domain_not_allowed",
                        "The domain is not one of the account's, is not verified, or is not one that the key is for.",
                        "Ask about another domain, verify it, or edit the key.",
                    )],
                ),
            ],
        ),
        status(
            "RequestTimeout",
            408,
            "bad_request",
            "The body did not arrive within 30 seconds.",
            "Send it again.",
            NONE,
        ),
        status(
            "PayloadTooLarge",
            413,
            "payload_too_large",
            &format!(
                "The body has more than {} MiB. The key was not checked.",
                crate::http::body::MOST_BYTES / 1024 / 1024
            ),
            "Send less: a link instead of an attachment, or several smaller batches.",
            NONE,
        ),
        status(
            "UnsupportedMediaType",
            415,
            "unsupported_media_type",
            "`Content-Type` is not JSON, or its charset is not UTF-8, or the body is compressed.",
            "Send uncompressed JSON in UTF-8, with `Content-Type: application/json`.",
            NONE,
        ),
        status(
            "InvalidEmail",
            422,
            "validation_error",
            "The email is not valid, or the key is not for it. All problems with its fields are reported together; what the key is for is checked after that.",
            "Correct what `errors` names. Nothing was stored.",
            EMAIL,
        ),
        status(
            "InvalidBatch",
            422,
            "validation_error",
            "There is no list, or it is too long. A problem with one of the emails is reported in its own result.",
            "Correct what `errors` names. Nothing was stored.",
            BATCH,
        ),
        status(
            "InternalError",
            500,
            "internal_error",
            "Something went wrong on the server. It has been logged.",
            "Try again later. If it happens again, tell the operator.",
            NONE,
        ),
        status(
            "Unavailable",
            503,
            "service_unavailable",
            "The server cannot tell right now, or is busy with as many big bodies as it can hold. It never means that a key was refused.",
            "Send the request again after as many seconds as `Retry-After` says.",
            NONE,
        ),
    ]
}

impl ErrorStatus {
    pub fn response(&self) -> Response {
        let mut response = ResponseBuilder::new()
            .description(format!("{}\n\n{}", self.when, self.what_to_do))
            .content(
                JSON,
                ContentBuilder::new()
                    .schema(Some(envelope(
                        &[self.code],
                        &[self.error_type],
                        self.fields,
                    )))
                    .build(),
            );
        let header = |description: &str, schema: ObjectBuilder| {
            HeaderBuilder::new()
                .description(Some(description))
                .schema(Some(schema))
                .build()
        };
        match self.code {
            401 => {
                let schema = text("").enum_values(Some([r#"Bearer realm="tosend""#]));
                response = response.header("WWW-Authenticate", header("RFC 6750, 3.", schema));
            }
            503 => {
                let schema = integer("").minimum(Some(1));
                response = response.header("Retry-After", header("Seconds.", schema));
            }
            _ => {}
        }
        response.build()
    }
}

/// The schema shared by all errors, limited to these statuses, types and codes.
pub fn envelope(statuses: &[u16], error_types: &[&str], fields: Fields) -> ObjectBuilder {
    ObjectBuilder::new()
        .property(
            "status_code",
            integer("The status, again.").enum_values(Some(statuses.to_vec())),
        )
        .property(
            "error_type",
            text("The kind of error.").enum_values(Some(error_types.to_vec())),
        )
        .property(
            "message",
            text("One sentence for people.").min_length(Some(1)),
        )
        .property("errors", errors(fields))
        .required("status_code")
        .required("error_type")
        .required("message")
        .required("errors")
}

fn errors(fields: Fields) -> ObjectBuilder {
    let nothing_else = || Some(AdditionalProperties::<Schema>::FreeForm(false));
    let mut errors = ObjectBuilder::new()
        .description(Some("Field → code → sentence."))
        .additional_properties(nothing_else());
    for (field, codes) in fields {
        let mut of_field = ObjectBuilder::new()
            .min_properties(Some(1))
            .additional_properties(nothing_else());
        for (code, when, what_to_do) in *codes {
            let sentence = ObjectBuilder::new()
                .schema_type(Type::String)
                .description(Some(format!("{when}\n\n{what_to_do}")));
            of_field = of_field.property(*code, sentence);
        }
        errors = errors.property(*field, of_field);
    }
    errors
}

/// A status by its name among the components.
pub fn named(name: &str) -> RefOr<Response> {
    Ref::from_response_name(name).into()
}
