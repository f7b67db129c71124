//! A browser's display preferences: kept in separate cookies and read before a page is rendered.

use actix_web::body::MessageBody;
use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use super::{Context, Error, page};

const THEME: &str = "tosend_theme";
const TIPS: &str = "tosend_tips";
const START: &str = "tosend_start";
const SHORTCUTS: &str = "tosend_shortcuts";
const OFF: &str = "off";
/// Browsers keep a cookie for at most 400 days (RFC 6265bis, 5.5).
const KEPT: Duration = Duration::days(400);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preferences {
    pub theme: Theme,
    pub hides_tips: bool,
    /// Hides the steps to the first email.
    pub hides_start: bool,
    /// Turns single-key shortcuts off (WCAG 2.2, 2.1.4).
    pub has_no_shortcuts: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Theme {
    /// The setting of the person's system.
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    pub const ALL: [Self; 3] = [Self::System, Self::Light, Self::Dark];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Light => "Light",
            Self::Dark => "Dark",
        }
    }

    /// For the parts of the page that the browser draws itself, before the style sheet is loaded.
    pub fn color_scheme(self) -> &'static str {
        match self {
            Self::System => "light dark",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|theme| theme.as_str() == text)
    }
}

impl Preferences {
    fn of(request: &HttpRequest) -> Self {
        let value = |name| request.cookie(name).map(|cookie| cookie.value().to_owned());
        let is_off = |name| value(name).as_deref() == Some(OFF);
        Self {
            theme: value(THEME)
                .and_then(|text| Theme::parse(&text))
                .unwrap_or_default(),
            hides_tips: is_off(TIPS),
            hides_start: is_off(START),
            has_no_shortcuts: is_off(SHORTCUTS),
        }
    }
}

tokio::task_local! {
    static CURRENT: Preferences;
}

/// Middleware around everything that renders pages, so that every template can use [`current`].
pub async fn know<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let preferences = Preferences::of(request.request());
    CURRENT.scope(preferences, next.call(request)).await
}

/// The preferences of the browser that sent the current request.
pub fn current() -> Preferences {
    CURRENT.try_with(|current| *current).unwrap_or_default()
}

#[derive(Deserialize)]
pub struct PreferencesForm {
    theme: Option<String>,
    tips: Option<String>,
    start: Option<String>,
    shortcuts: Option<String>,
}

/// `POST /preferences`: saves the given values, for anyone, and redirects back to the page.
pub async fn save(
    context: web::Data<Context>,
    request: HttpRequest,
    web::Form(form): web::Form<PreferencesForm>,
) -> Result<HttpResponse, Error> {
    let mut answer = match page::is_htmx(&request) {
        true => HttpResponse::Ok().finish(),
        false => page::redirect(&request, &page::came_from(&request).unwrap_or("/".into())),
    };
    let theme = form.theme.as_deref().and_then(Theme::parse);
    let wanted = [
        (THEME, theme.map(Theme::as_str)),
        (TIPS, form.tips.as_deref()),
        (START, form.start.as_deref()),
        (SHORTCUTS, form.shortcuts.as_deref()),
    ];
    for (name, value) in wanted {
        let Some(value) = value else { continue };
        let is_default = name != THEME && value != OFF || value == Theme::System.as_str();
        let cookie = Cookie::build(name, if is_default { "" } else { value }.to_owned())
            .path("/")
            .same_site(SameSite::Lax)
            .secure(context.config.is_https())
            .http_only(true)
            .max_age(if is_default { Duration::ZERO } else { KEPT })
            .finish();
        answer
            .add_cookie(&cookie)
            .map_err(|e| Error::Internal(e.to_string()))?;
    }
    Ok(answer)
}
