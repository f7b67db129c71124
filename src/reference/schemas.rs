//! The fields of requests and answers. Their limits come from the code.

use utoipa::openapi::schema::{AnyOfBuilder, SchemaType};
use utoipa::openapi::{
    AllOfBuilder, ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, SchemaFormat, Type,
};

use super::errors::{self, envelope};
use super::parts::{integer, reference, text, typed};
use crate::emails::batch::MOST as MAX_BATCH;
use crate::emails::message::{
    MAX_ADDRESS_BYTES, MAX_ATTACHMENTS_BYTES, MAX_HEADER_LINE_BYTES, MAX_HEADER_NAME_BYTES,
    MAX_HEADERS, MAX_HEADERS_BYTES, MAX_MESSAGE_HASH_CHARS, MAX_NAME_CHARS, MAX_RECIPIENTS,
    MAX_SUBJECT_CHARS, MAX_TAG_KEY_CHARS, MAX_TAG_VALUE_CHARS, MAX_TAGS, RESERVED_HEADERS,
    RESERVED_PREFIXES,
};

/// Text without control characters except the tab.
const NO_CONTROL: &str = r"^[^\x00-\x08\x0A-\x1F\x7F-\x9F]*$";
/// The same, and not blank; surrounding white space is trimmed.
const LINE: &str =
    r"^\s*[^\x00-\x1F\x7F-\x9F\s]([^\x00-\x08\x0A-\x1F\x7F-\x9F]*[^\x00-\x1F\x7F-\x9F\s])?\s*$";
/// RFC 6838, 4.2, with at most one parameter; never a multipart type.
const MEDIA_TYPE: &str = r"^(?![Mm][Uu][Ll][Tt][Ii][Pp][Aa][Rr][Tt]/)[A-Za-z][A-Za-z0-9.-]{0,60}/[A-Za-z0-9][A-Za-z0-9.-]{0,60}(\+[A-Za-z0-9]{1,20})?(; ?[a-z]{1,20}=[A-Za-z0-9._-]{1,30})?$";
/// RFC 2392, with or without brackets.
const CONTENT_ID: &str = r"^([!#-;=?-\[\]-~]*|<[!#-;=?-\[\]-~]+>)$";

/// By name; each comes after the schemas it contains.
pub fn all() -> Vec<(&'static str, RefOr<Schema>)> {
    vec![
        ("Email", email().into()),
        ("Mailbox", mailbox().into()),
        ("Attachment", attachment().into()),
        ("Accepted", accepted().into()),
        ("Batch", batch().into()),
        ("Results", results().into()),
        ("Info", info().into()),
        ("Account", account().into()),
        ("Domain", domain().into()),
        ("KeyInInfo", key_with_usage().into()),
        ("Verdict", verdict().into()),
        ("KeyInVerdict", key_with_id().into()),
    ]
}

/// Long because it is a table: a field after the other.
fn email() -> AllOfBuilder {
    let recipients = |name: &str| {
        ArrayBuilder::new()
            .items(reference("Mailbox"))
            .max_items(Some(MAX_RECIPIENTS))
            .description(Some(name))
    };
    let nullable = |array: ArrayBuilder| array.schema_type(or_null(Type::Array));
    let fields = ObjectBuilder::new()
        .property(
            "api_key",
            anything("The key, for clients that cannot set headers. A key in the header takes precedence."),
        )
        .property("from", described("Mailbox", "The sender. Its domain must be verified, and one that the key is for."))
        .property("to", recipients("The recipients. Duplicates count.").min_items(Some(1)))
        .property("cc", nullable(recipients("Recipients of a copy, visible to everyone.")))
        .property("bcc", nullable(recipients("Recipients of a copy, hidden from everyone else.")))
        .property(
            "subject",
            text("One line. White space around it is removed.")
                .max_length(Some(MAX_SUBJECT_CHARS))
                .pattern(Some(LINE)),
        )
        .property("html", optional_text("The content as HTML."))
        .property("text", optional_text("The content as plain text. `html`, `text`, or both: at least one must have content."))
        .property(
            "reply_to",
            AnyOfBuilder::new()
                .item(reference("Mailbox"))
                .item(text("As RFC 5322 writes it: `Ada <ada@example.com>, bob@example.com`."))
                .item(ArrayBuilder::new().items(anything("One of the others.")))
                .item(anything("Whatever else."))
                .description(Some(format!("Where replies go: an object as in `to`, text as in `Ada <ada@example.com>, bob@example.com`, or a list of them; {MAX_RECIPIENTS} addresses at most. Anything that is not an address is dropped, and the email is sent without it."))),
        )
        .property(
            "headers",
            strings(
                &format!("Additional headers, at most {MAX_HEADERS}, and {} KB in total: without line breaks, and none that the server sets ({}). They are folded at white space; a line has at most {MAX_HEADER_LINE_BYTES} bytes, the first one including the name.", MAX_HEADERS_BYTES / 1024, reserved_headers()),
                header_name(),
                text("").pattern(Some(NO_CONTROL)),
                MAX_HEADERS,
            ),
        )
        .property(
            "attachments",
            nullable(ArrayBuilder::new().items(reference("Attachment"))).description(Some(format!(
                "Files; at most {} MB in total, decoded.",
                MAX_ATTACHMENTS_BYTES / 1024 / 1024
            ))),
        )
        .property(
            "tags",
            strings(
                &format!("Labels that are stored with the email: at most {MAX_TAGS}, with keys of at most {MAX_TAG_KEY_CHARS} and values of at most {MAX_TAG_VALUE_CHARS} characters."),
                text("").max_length(Some(MAX_TAG_KEY_CHARS)).pattern(Some(NO_CONTROL)),
                text("").max_length(Some(MAX_TAG_VALUE_CHARS)).pattern(Some(NO_CONTROL)),
                MAX_TAGS,
            ),
        )
        .property(
            "message_hash",
            optional_text("Your own id, returned as `message_id`. It does not detect duplicates: the same id twice is two emails.")
                .max_length(Some(MAX_MESSAGE_HASH_CHARS))
                .pattern(Some(NO_CONTROL)),
        )
        .required("from")
        .required("to")
        .required("subject");
    let holds = |field: &str| {
        ObjectBuilder::new()
            .property(field, text("").pattern(Some(r"\S")))
            .required(field)
    };
    AllOfBuilder::new()
        .description(Some(
            "An email. Members that are not listed are ignored; `null` counts as absent.",
        ))
        .item(fields)
        .item(AnyOfBuilder::new().item(holds("html")).item(holds("text")))
}

fn mailbox() -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some("A person who sends or receives an email."))
        .property(
            "email",
            text("The address, in ASCII before the `@`. White space around it is removed; a domain in another alphabet is converted to ASCII (`xn--…`).")
                .max_length(Some(MAX_ADDRESS_BYTES))
                .format(Some(SchemaFormat::Custom("email".into()))),
        )
        .property(
            "name",
            optional_text("The name shown with the address, on one line.")
                .max_length(Some(MAX_NAME_CHARS))
                .pattern(Some(NO_CONTROL)),
        )
        .required("email")
}

fn attachment() -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some("A file."))
        .property(
            "type",
            text("Its media type, such as `application/pdf`; not `multipart/…`.")
                .pattern(Some(MEDIA_TYPE)),
        )
        .property(
            "name",
            text("The file's name, on one line.")
                .max_length(Some(MAX_NAME_CHARS))
                .pattern(Some(LINE)),
        )
        .property(
            "content",
            text("In base64, with padding. Line breaks in it are ignored.")
                .content_encoding("base64")
                .pattern(Some(base64())),
        )
        .property(
            "content_id",
            optional_text("For pictures that `html` refers to with `cid:`.")
                .max_length(Some(MAX_NAME_CHARS))
                .pattern(Some(CONTENT_ID)),
        )
        .required("type")
        .required("name")
        .required("content")
}

fn accepted() -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some("An email that is stored."))
        .property(
            "message_id",
            text("Your `message_hash`, otherwise an id that the server made.").min_length(Some(1)),
        )
        .required("message_id")
}

fn batch() -> OneOfBuilder {
    let emails = || {
        ArrayBuilder::new()
            .items(reference("Email"))
            .min_items(Some(1))
            .max_items(Some(MAX_BATCH))
            .description(Some("The emails. Each is accepted or refused separately."))
    };
    OneOfBuilder::new()
        .description(Some(
            "Several emails: an object with the list, or only the list.",
        ))
        .item(
            ObjectBuilder::new()
                .property(
                    "api_key",
                    anything(
                        "The key, for clients that cannot set headers. A key in the header takes precedence.",
                    ),
                )
                .property("emails", emails())
                .required("emails"),
        )
        .item(emails())
}

fn results() -> ObjectBuilder {
    let success = accepted()
        .property(
            "status",
            text("It was accepted.").enum_values(Some(["success"])),
        )
        .required("status");
    let error = envelope(&[422], &["validation_error"], errors::EMAIL)
        .property(
            "status",
            text("It was refused.").enum_values(Some(["error"])),
        )
        .required("status");
    ObjectBuilder::new()
        .description(Some("What became of the emails of a batch."))
        .property(
            "results",
            ArrayBuilder::new()
                .items(OneOfBuilder::new().item(success).item(error))
                .min_items(Some(1))
                .max_items(Some(MAX_BATCH))
                .description(Some("One for each email, in the order in which they were sent: `status` is `success`, with the `message_id`, or `error`, with what a single email would be answered.")),
        )
        .required("results")
}

fn info() -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some("Whose the key is. More members may be added."))
        .property("account", reference("Account"))
        .property(
            "domains",
            ArrayBuilder::new()
                .items(reference("Domain"))
                .description(Some(
                    "All domains of the account, even if the key is for only some of them.",
                )),
        )
        .property("key", reference("KeyInInfo"))
        .required("account")
        .required("domains")
        .required("key")
}

fn account() -> ObjectBuilder {
    let unlimited = |description: &str| {
        ObjectBuilder::new()
            .schema_type(Type::Null)
            .description(Some(description))
    };
    all_required(
        "An account.",
        [
            ("id", integer("Never changes and is never reused.")),
            ("title", text("The company or project.")),
            (
                "status",
                text("Keys of a paused account do not work.")
                    .enum_values(Some(["active", "paused"])),
            ),
            (
                "plan_type",
                text("This server has no plans.").enum_values(Some(["self_hosted"])),
            ),
            ("credit_balance", unlimited("Not limited.")),
            ("monthly_email_limit", unlimited("Not limited.")),
            ("limit_per_second", unlimited("Not limited.")),
            ("ses_region", text("Empty: no such service is used.")),
            ("bounce_rate", number("A fraction of 1.")),
            ("complaint_rate", number("A fraction of 1.")),
            (
                "ses_status",
                text("Always the same.").enum_values(Some(["healthy"])),
            ),
            (
                "emails_usage_this_month",
                count("Emails accepted since the month began, in UTC."),
            ),
            (
                "emails_sent_last_24hrs",
                count("Emails accepted within the last 24 hours."),
            ),
        ],
    )
}

fn domain() -> ObjectBuilder {
    all_required(
        "A domain to send from.",
        [
            ("id", integer("Never changes and is never reused.")),
            (
                "domain_name",
                text("In lower case, and in ASCII (`xn--…`)."),
            ),
            (
                "verification_status",
                text("Emails are accepted only from verified domains.")
                    .enum_values(Some(["verified", "pending", "failed"])),
            ),
            (
                "is_default",
                integer("1 for the account's first domain.").enum_values(Some([0, 1])),
            ),
            ("total_sent", count("Emails accepted from it.")),
            ("total_delivered", count("Emails.")),
            ("total_bounced", count("Emails.")),
            ("total_complained", count("Emails.")),
            (
                "created_at",
                text("In UTC: `2026-01-15 10:30:00`.")
                    .pattern(Some(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$")),
            ),
        ],
    )
}

fn key_with_usage() -> ObjectBuilder {
    key()
        .property(
            "emails_usage_this_month",
            count("Emails accepted with it since the month began, in UTC."),
        )
        .property(
            "emails_sent_last_24hrs",
            count("Emails accepted with it within the last 24 hours."),
        )
        .required("emails_usage_this_month")
        .required("emails_sent_last_24hrs")
}

fn key_with_id() -> ObjectBuilder {
    key()
        .property("id", integer("Never changes and is never reused."))
        .required("id")
}

fn key() -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some("The key that asks."))
        .property("name", text("As its owner named it."))
        .property("truncated", text("Its first 8 characters and its last 4."))
        .property(
            "scope",
            AnyOfBuilder::new()
                .item(text("All of the account's.").enum_values(Some(["all"])))
                .item(ArrayBuilder::new().items(text("A domain's name.")))
                .description(Some(
                    "The domains that it may send from: `all`, or a list of names.",
                )),
        )
        .required("name")
        .required("truncated")
        .required("scope")
}

fn verdict() -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some("That the key works, and whose it is."))
        .property(
            "valid",
            ObjectBuilder::new()
                .schema_type(Type::Boolean)
                .enum_values(Some([true]))
                .description(Some("A key that does not work is answered with 403.")),
        )
        .property(
            "account",
            all_required(
                "Whose the key is.",
                [("id", integer("Never changes and is never reused."))],
            ),
        )
        .property("key", reference("KeyInVerdict"))
        .required("valid")
        .required("account")
        .required("key")
}

/// A reference with its own description beside the referenced one.
fn described(name: &str, description: &str) -> Ref {
    let mut reference = reference(name);
    reference.description = description.to_owned();
    reference
}

fn number(description: &str) -> ObjectBuilder {
    typed(Type::Number, description).minimum(Some(0))
}

fn count(description: &str) -> ObjectBuilder {
    integer(description).minimum(Some(0))
}

fn optional_text(description: &str) -> ObjectBuilder {
    text(description).schema_type(or_null(Type::String))
}

fn anything(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some(description))
}

fn or_null(kind: Type) -> SchemaType {
    SchemaType::Array(vec![kind, Type::Null])
}

/// An object of strings, or a list of such objects.
fn strings(
    description: &str,
    names: ObjectBuilder,
    values: ObjectBuilder,
    most: usize,
) -> AnyOfBuilder {
    let (names, values): (Schema, Schema) = (names.into(), values.into());
    let object = |kind: SchemaType| {
        ObjectBuilder::new()
            .schema_type(kind)
            .property_names(Some(names.clone()))
            .additional_properties(Some(values.clone()))
            .max_properties(Some(most))
    };
    AnyOfBuilder::new()
        .description(Some(description))
        .item(object(or_null(Type::Object)))
        .item(ArrayBuilder::new().items(object(Type::Object.into())))
}

fn all_required<const N: usize>(
    description: &str,
    fields: [(&str, ObjectBuilder); N],
) -> ObjectBuilder {
    let object = ObjectBuilder::new().description(Some(description));
    fields.into_iter().fold(object, |object, (name, schema)| {
        object.property(name, schema).required(name)
    })
}

/// Base64 with its padding (RFC 4648, 4), whose lines may be broken anywhere.
fn base64() -> String {
    let with_breaks = |class: &str| format!(r"({class}[\t\n\f\r ]*)");
    let [any, before_one, before_two, padding] =
        ["[A-Za-z0-9+/]", "[AEIMQUYcgkosw048]", "[AQgw]", "="].map(with_breaks);
    format!(
        r"^[\t\n\f\r ]*({any}{{4}})*({any}{{2}}{before_one}{padding}|{any}{before_two}{padding}{{2}})?$"
    )
}

/// A header name other than the reserved ones, in any case.
fn header_name() -> ObjectBuilder {
    let in_any_case = |name: &str| -> String {
        let either = |c: char| match c.is_ascii_alphabetic() {
            true => format!("[{}{c}]", c.to_ascii_uppercase()),
            false => c.to_string(),
        };
        name.chars().map(either).collect()
    };
    let names = RESERVED_HEADERS.map(|name| in_any_case(name) + "$");
    let prefixes = RESERVED_PREFIXES.map(in_any_case);
    let reserved = [&names[..], &prefixes].concat().join("|");
    text("").pattern(Some(format!(
        "^(?!{reserved})[A-Za-z0-9._-]{{1,{MAX_HEADER_NAME_BYTES}}}$"
    )))
}

fn reserved_headers() -> String {
    let names = RESERVED_HEADERS.map(|name| format!("`{name}`"));
    let prefixes = RESERVED_PREFIXES.map(|prefix| format!("`{prefix}…`"));
    [&names[..], &prefixes].concat().join(", ")
}
