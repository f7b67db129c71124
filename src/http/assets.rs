//! The files in `static/`, embedded and served at addresses that depend on their content, so that
//! browsers may cache them forever.
//!
//! The files of a folder share a version in their addresses: JavaScript modules import each other
//! by relative addresses, and must all come from the same release.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{LazyLock, OnceLock};

use actix_web::http::header::{
    AcceptEncoding, CACHE_CONTROL, CONTENT_ENCODING, Encoding, Header, VARY,
};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse};
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

use super::Error;

#[derive(RustEmbed)]
#[folder = "static/"]
#[exclude = "*.md"]
struct Assets;

struct Address {
    /// Changes when the file or another file of its folder changes.
    version: String,
    url: String,
    /// The gzipped file, made when it is first requested.
    zipped: OnceLock<Bytes>,
}

static ADDRESSES: LazyLock<BTreeMap<String, Address>> = LazyLock::new(|| {
    let files = Assets::iter().filter_map(|name| {
        let hash = Assets::get(&name)?.metadata.sha256_hash();
        Some((name.into_owned(), hash))
    });
    addresses(&files.collect())
});

/// The address of a file in `static/`.
pub fn url(name: &str) -> &'static str {
    let address = ADDRESSES.get(name);
    &address
        .unwrap_or_else(|| panic!("static/{name} is missing"))
        .url
}

/// The addresses of the modules that `js/app.js` imports.
pub fn modules() -> impl Iterator<Item = &'static str> {
    let of_folder = ADDRESSES.iter().filter(|(name, _)| name.starts_with("js/"));
    of_folder
        .filter(|(name, _)| *name != "js/app.js")
        .map(|(_, address)| address.url.as_str())
}

/// `GET /static/{version}/{name}`
///
/// Files are compressed once, at the highest level. Pages never are, because the length of a
/// compressed page could reveal the key in it.
pub async fn serve(
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Error> {
    let (version, name) = path.into_inner();
    let known = ADDRESSES.get(&name);
    let address = known.filter(|address| address.version == version);
    let address = address.ok_or(Error::NotFound)?;
    let content = Assets::get(&name).ok_or(Error::NotFound)?.data;
    let mut response = HttpResponse::Ok();
    response
        .content_type(mime_guess::from_path(&name).first_or_octet_stream())
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .insert_header((VARY, "Accept-Encoding"));
    if !takes_gzip(&request) {
        return Ok(response.body(content));
    }
    let zipped = address.zipped.get_or_init(|| zip(&content)).clone();
    response.insert_header((CONTENT_ENCODING, "gzip"));
    Ok(response.body(zipped))
}

fn takes_gzip(request: &HttpRequest) -> bool {
    let supported = [Encoding::gzip(), Encoding::identity()];
    AcceptEncoding::parse(request)
        .is_ok_and(|accepted| accepted.negotiate(supported.iter()) == Some(Encoding::gzip()))
}

fn zip(content: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(content).and_then(|()| encoder.finish());
    written.expect("a vector takes everything").into()
}

/// Built from the hash of each file.
fn addresses(files: &BTreeMap<String, [u8; 32]>) -> BTreeMap<String, Address> {
    let address = |name: &String| {
        let version = version(name, files);
        let url = format!("/static/{version}/{name}");
        let zipped = OnceLock::new();
        (
            name.clone(),
            Address {
                version,
                url,
                zipped,
            },
        )
    };
    files.keys().map(address).collect()
}

/// The hash of a file, or of all files in its folder.
fn version(name: &str, files: &BTreeMap<String, [u8; 32]>) -> String {
    let folder = name.split_once('/').map(|(folder, _)| folder);
    let mut hash = Sha256::new();
    for (other, content) in files {
        let is_beside = folder.is_some() && other.split_once('/').map(|(f, _)| f) == folder;
        if other == name || is_beside {
            hash.update(content);
        }
    }
    hash.finalize()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_module_changes_the_addresses_of_all_modules_and_of_nothing_else() {
        let names = ["app.css", "htmx.min.js", "js/app.js", "js/times.js"];
        let before = names.map(|name| (name.to_owned(), [1; 32])).into();
        let mut after: BTreeMap<_, _> = names.map(|name| (name.to_owned(), [1; 32])).into();
        after.insert("js/times.js".to_owned(), [2; 32]);
        let (before, after) = (addresses(&before), addresses(&after));
        for (name, address) in &before {
            let is_same = address.url == after[name].url;
            assert_eq!(is_same, !name.starts_with("js/"), "{name}");
        }
        assert_eq!(before["js/app.js"].version, before["js/times.js"].version);
    }
}
