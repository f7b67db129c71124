//! `GET /docs/api`.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::document;
use super::view::{Means, Reference};
use crate::accounts::session::SignedIn;
use crate::accounts::store::User;
use crate::domains::store as domains_store;
use crate::http::{Context, Error, page};

#[derive(Template)]
#[template(path = "docs/api.html")]
struct PageForUser {
    user: User,
    reference: Reference,
}

#[derive(Template)]
#[template(path = "docs/api_for_visitors.html")]
struct PageForVisitor {
    reference: Reference,
}

/// The description of the API, for people; public. Its examples send from a verified domain of the
/// account, so that they work as they stand.
pub async fn show(
    context: web::Data<Context>,
    request: HttpRequest,
    signed_in: Option<SignedIn>,
) -> Result<HttpResponse, Error> {
    let document = document::of(&page::origin(&request, &context.config));
    let mut reference = Reference::from(&document);
    match signed_in {
        Some(SignedIn(user)) => {
            let account = user.account;
            let domains = context
                .db
                .read(move |conn| domains_store::list(conn, account))
                .await?;
            let own = domains.iter().find(|domain| domain.status.is_verified());
            if let Some(own) = own {
                reference.write_examples_for(&own.name);
            }
            page::html(&PageForUser { user, reference })
        }
        None => page::html(&PageForVisitor { reference }),
    }
}
