//! The files in `static/`, embedded and addressed by their content, so that they may be kept for
//! good.

use std::collections::HashMap;
use std::sync::LazyLock;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::Error;

#[derive(RustEmbed)]
#[folder = "static/"]
#[exclude = "*.md"]
struct Assets;

/// The address of a file in `static/`, with a part that changes when the file does.
pub fn url(name: &str) -> &'static str {
    static URLS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
        let files = Assets::iter().filter_map(|name| Some((Assets::get(&name)?, name)));
        files
            .map(|(file, name)| {
                let url = format!("/static/{}/{name}", version(&file));
                (name.into_owned(), url)
            })
            .collect()
    });
    URLS.get(name)
        .unwrap_or_else(|| panic!("static/{name} is missing"))
}

/// `GET /static/{version}/{name}`
pub async fn serve(path: web::Path<(String, String)>) -> Result<HttpResponse, Error> {
    let (wanted, name) = path.into_inner();
    let file = Assets::get(&name)
        .filter(|file| version(file) == wanted)
        .ok_or(Error::NotFound)?;
    Ok(HttpResponse::Ok()
        .content_type(mime_guess::from_path(&name).first_or_octet_stream())
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .body(file.data))
}

fn version(file: &EmbeddedFile) -> String {
    file.metadata.sha256_hash()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
