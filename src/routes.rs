//! All routes of the server.

use actix_session::SessionMiddleware;
use actix_session::config::{CookieContentSecurity, PersistentSession, TtlExtensionPolicy};
use actix_web::cookie::time::Duration;
use actix_web::cookie::{Key, SameSite};
use actix_web::middleware::from_fn;
use actix_web::web::{self, PayloadConfig, ServiceConfig, resource, scope};

use crate::account_end::pages as account_end;
use crate::accounts::pages::{self as accounts, activity, settings};
use crate::accounts::session::{DbSessions, accept_other_secret, remember_device, session_cookie};
use crate::domains::pages as domains;
use crate::emails::api as emails;
use crate::http::{self, Context, api_error, assets, body, csrf, health, missing, preferences};
use crate::keys::pages as keys;
use crate::keys::verification::api as gateway;
use crate::mail::pages as mail;
use crate::reference::{api as reference, pages as docs};
use crate::secret::ServerSecret;

const FORM_BYTES: usize = 64 * 1024;

pub fn configure(
    context: &Context,
    secret: &ServerSecret,
) -> impl FnOnce(&mut ServiceConfig) + use<> {
    // Whatever reads a cookie stands behind `accept_other_secret`.
    // Polled by pages in the background: it must not extend the session.
    let silent = session(context, secret, false);
    let session = session(context, secret, true);
    move |config| {
        config
            // First, because it gets the most requests.
            .service(
                scope("/v2")
                    .wrap(from_fn(api_error::shape_errors))
                    .configure(api),
            )
            .service(resource("/healthz").get(health::alive))
            .service(resource("/readyz").get(health::ready))
            .service(
                resource("/static/{version}/{name:.*}")
                    .get(assets::serve)
                    .wrap(from_fn(http::render_errors)),
            );
        polled(config, &silent);
        config.service(
            scope("")
                .app_data(web::FormConfig::default().limit(FORM_BYTES))
                .app_data(PayloadConfig::new(FORM_BYTES))
                .configure(pages)
                // The session is looked up after the body has arrived, which may take long.
                .wrap(session)
                .wrap(from_fn(remember_device))
                .wrap(from_fn(body::read_first))
                .wrap(from_fn(csrf::protect))
                .wrap(from_fn(missing::answer_first))
                .wrap(from_fn(http::render_errors))
                .wrap(from_fn(preferences::know))
                .wrap(from_fn(accept_other_secret)),
        );
    }
}

/// What pages ask in the background. Reads a cookie, so it stands behind `accept_other_secret`, too.
fn polled(config: &mut ServiceConfig, silent: &SessionMiddleware<DbSessions>) {
    for resource in [
        resource("/domains/{id}/changes").get(domains::changes),
        resource("/api-keys/first-uses").get(keys::first_uses),
        resource("/api-keys/start").get(keys::start),
        resource("/api-keys/{id}/first-request").get(keys::first_request),
    ] {
        config.service(
            resource
                .wrap(silent.clone())
                .wrap(from_fn(http::render_errors))
                .wrap(from_fn(preferences::know))
                .wrap(from_fn(accept_other_secret)),
        );
    }
}

fn api(config: &mut ServiceConfig) {
    config
        .service(resource("/info").get(emails::info))
        .service(resource("/verify").get(gateway::verify))
        .service(resource("/verify/{original:.*}").to(gateway::verify_for_envoy))
        .service(resource("/emails").post(emails::create))
        .service(resource("/emails/batch").post(emails::create_batch))
        .service(resource("/openapi.json").get(reference::openapi));
}

#[rustfmt::skip]
fn pages(config: &mut ServiceConfig) {
    config
        .service(resource("/").get(accounts::home))
        .service(resource("/signup").get(accounts::signup_form).post(accounts::signup))
        .service(resource("/login").get(accounts::login_form).post(accounts::login))
        .service(resource("/logout").post(accounts::logout))
        .service(resource("/preferences").post(preferences::save))
        .service(resource("/api-keys").get(keys::index).post(keys::create))
        .service(resource("/api-keys/new").get(keys::new))
        .service(resource("/api-keys/find").get(keys::find_form).post(keys::find_pasted))
        .service(resource("/api-keys/{id}").get(keys::show))
        .service(resource("/api-keys/{id}/edit").get(keys::edit).post(keys::save))
        .service(resource("/api-keys/{id}/rotate").get(keys::rotate_form).post(keys::rotate))
        .service(resource("/api-keys/{id}/stop").get(keys::confirm_stop).post(keys::stop))
        .service(resource("/api-keys/{id}/keep").post(keys::cancel_stop))
        .service(resource("/api-keys/{id}/pause").get(keys::confirm_pause).post(keys::pause))
        .service(resource("/api-keys/{id}/resume").post(keys::resume))
        .service(resource("/api-keys/{id}/delete").get(keys::confirm_delete).post(keys::delete))
        .service(resource("/domains").get(domains::index).post(domains::create))
        .service(resource("/domains/{id}").get(domains::show))
        .service(resource("/domains/{id}/check").post(domains::check))
        .service(resource("/domains/{id}/replace-key").post(domains::replace_key))
        .service(resource("/domains/{id}/delete").get(domains::confirm_delete).post(domains::delete))
        .service(resource("/docs/api").get(docs::show))
        .service(resource("/activity").get(activity::index))
        .service(resource("/activity/emails").get(mail::index))
        .service(resource("/activity/emails/{id}/retry").post(mail::retry))
        .service(resource("/activity.csv").get(activity::csv))
        .service(resource("/settings").get(settings::show))
        .service(resource("/settings/export").get(account_end::show_export))
        .service(resource("/settings/export/{file}").get(account_end::export))
        .service(resource("/settings/delete").get(account_end::confirm).post(account_end::delete))
        .service(resource("/settings/title").post(settings::rename))
        .service(resource("/settings/password").post(settings::change_password))
        .service(resource("/settings/sessions/end-others").post(settings::end_others))
        .service(resource("/settings/sessions/{id}/end").post(settings::end_session));
}

fn session(
    context: &Context,
    secret: &ServerSecret,
    keeps_alive: bool,
) -> SessionMiddleware<DbSessions> {
    let is_https = context.config.is_https();
    let lifetime = PersistentSession::default()
        .session_ttl(Duration::days(7))
        .session_ttl_extension_policy(TtlExtensionPolicy::OnStateChanges);
    SessionMiddleware::builder(
        DbSessions {
            db: context.db.clone(),
            keeps_alive,
        },
        Key::from(secret.as_ref()),
    )
    .cookie_name(session_cookie(is_https).to_owned())
    .cookie_secure(is_https)
    .cookie_http_only(true)
    .cookie_same_site(SameSite::Lax)
    .cookie_path("/".to_owned())
    .cookie_content_security(CookieContentSecurity::Signed)
    .session_lifecycle(lifetime)
    .build()
}
