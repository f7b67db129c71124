//! Building blocks for the descriptions of schemas and errors.

use utoipa::openapi::{ObjectBuilder, Ref, Type};

pub const JSON: &str = "application/json";

pub fn reference(name: &str) -> Ref {
    Ref::from_schema_name(name)
}

pub fn text(description: &str) -> ObjectBuilder {
    typed(Type::String, description)
}

pub fn integer(description: &str) -> ObjectBuilder {
    typed(Type::Integer, description)
}

pub fn typed(kind: Type, description: &str) -> ObjectBuilder {
    let schema = ObjectBuilder::new().schema_type(kind);
    match description {
        "" => schema,
        _ => schema.description(Some(description)),
    }
}
