//! The key that a request carries, in any of the places where clients put it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpRequest, ResponseError};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::store::LiveKey;
use super::verifier::{Unavailable, Verifier};
use crate::http::body::{BodyPermit, Room};
use crate::http::{ApiError, client_address, json, log, part, user_agent};
use crate::keys::secret::PlainKey;
use crate::keys::usage::Usage;
use crate::keys::usage::outcome::Outcome;

/// A working key from the header.
pub struct Bearer(pub LiveKey, pub Call);

/// A working key from the header, or from the query (`?api_key=`), where FluentSMTP puts it to
/// check keys.
pub struct BearerOrQuery(pub LiveKey, pub Call);

/// A working key from the header, or from the member `api_key` of the body, together with that
/// body.
pub struct BearerWithBody {
    pub key: LiveKey,
    pub call: Call,
    pub body: Body,
}

/// A call with a working key, recorded when it is over: with its outcome if `end` was reached.
pub struct Call {
    key_id: i64,
    request: HttpRequest,
    outcome: Option<Outcome>,
}

impl Call {
    /// Records an outcome that the answer does not tell.
    fn end_as<T>(mut self, outcome: Outcome, answer: Result<T, ApiError>) -> Result<T, ApiError> {
        self.outcome = Some(outcome);
        answer
    }

    /// Records the outcome and returns the answer.
    pub fn end<T>(self, answer: Result<T, ApiError>) -> Result<T, ApiError> {
        self.end_for(answer.as_ref().err());
        answer
    }

    /// Accepted, or refused for this reason.
    pub fn end_for(mut self, refusal: Option<&ApiError>) {
        self.outcome = match refusal {
            None => Some(Outcome::Accepted),
            // The server failed, which says nothing about the call.
            Some(error) if error.status_code().is_server_error() => None,
            Some(error) => Some(Outcome::of_refusal(error.codes())),
        };
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let address = client_address(&self.request);
        let user_agent = user_agent(&self.request);
        let usage: &Usage = part(&self.request);
        usage.record(self.key_id, address, user_agent, self.outcome);
    }
}

/// A body that has been read but not fully parsed: the key is checked first, because a stranger
/// must not make the server build 16 MiB of JSON values.
pub struct Body {
    bytes: Bytes,
    permit: BodyPermit,
    is_json: bool,
}

impl Body {
    /// The presumed JSON, and the permit for its size; a missing body counts as `{}`.
    pub fn json(self) -> Result<(Bytes, BodyPermit), ApiError> {
        if self.bytes.is_empty() {
            Ok((Bytes::from_static(b"{}"), self.permit))
        } else if !self.is_json {
            Err(ApiError::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
        } else {
            Ok((self.bytes, self.permit))
        }
    }

    /// Only the member `api_key`, also next to the `emails` of a batch.
    fn key(&self) -> Option<Vec<u8>> {
        if !self.is_json {
            return None;
        }
        match serde_json::from_slice::<Members>(&self.bytes)
            .ok()?
            .api_key?
        {
            ApiKey::Text(text) => presented(text.as_bytes()),
            // The client presented something that is not a key.
            ApiKey::Other => Some(Vec::new()),
        }
    }
}

/// The member `api_key` of an object, the last one if repeated; all other members are skipped.
struct Members {
    api_key: Option<ApiKey>,
}

enum ApiKey {
    Text(String),
    Other,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut api_key = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name != "api_key" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let value: &RawValue = map.next_value()?;
                    api_key = match serde_json::from_str::<Option<String>>(value.get()) {
                        Ok(text) => text.map(ApiKey::Text),
                        Err(_) => Some(ApiKey::Other),
                    };
                }
                Ok(Members { api_key })
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl FromRequest for Bearer {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        let presented = from_header(request.headers());
        Box::pin(async move {
            let (key, call) = authenticate(request, presented?).await?;
            Ok(Self(key, call))
        })
    }
}

impl FromRequest for BearerOrQuery {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        let presented = from_header(request.headers()).map(|key| {
            key.or_else(|| {
                url::form_urlencoded::parse(request.query_string().as_bytes())
                    .find(|(name, _)| name == "api_key")
                    .and_then(|(_, value)| presented(value.as_bytes()))
            })
        });
        Box::pin(async move {
            let (key, call) = authenticate(request, presented?).await?;
            Ok(Self(key, call))
        })
    }
}

impl FromRequest for BearerWithBody {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let mut payload = payload.take();
        Box::pin(async move {
            let (verifier, room): (&Verifier, &Room) = (part(&request), part(&request));
            let in_header = from_header(request.headers())?;
            // Only decides whose share the body counts against. The verdict that counts comes after
            // the body has arrived: the key may be revoked meanwhile.
            let from = client_address(&request);
            let account = async || {
                // Without a key in the header, it may still come in the body.
                let key = verifier.verify(in_header.as_ref()?).await.ok()??;
                let is_from_its_networks = key.rule.networks.allows_client(from);
                is_from_its_networks.then_some(key.account.0)
            };
            let (bytes, permit) = room
                .read(&request, &mut payload, from, account)
                .await
                .map_err(|e| ApiError::of_status(e.as_response_error().status_code()))?;
            let body = Body {
                bytes: json::without_mark(bytes),
                permit,
                is_json: is_json(request.headers()),
            };
            let presented = in_header.or_else(|| body.key());
            let (key, call) = authenticate(request, presented).await?;
            Ok(Self { key, call, body })
        })
    }
}

/// A key that is presented from outside its networks looks like one that never was, so that a thief
/// learns nothing; its owner sees the call.
async fn authenticate(
    request: HttpRequest,
    presented: Option<Vec<u8>>,
) -> Result<(LiveKey, Call), ApiError> {
    let Some(presented) = presented else {
        part::<Usage>(&request).count_without_key(true);
        return Err(missing_key());
    };
    match part::<Verifier>(&request).verify(&presented).await? {
        Some(key) => {
            log::note_caller(&request, Some(key.id), key.account.0);
            let call = Call {
                key_id: key.id,
                request,
                outcome: None,
            };
            if !key
                .rule
                .networks
                .allows_client(client_address(&call.request))
            {
                return call.end_as(Outcome::NetworkNotAllowed, Err(invalid_key()));
            }
            Ok((key, call))
        }
        None => {
            let usage: &Usage = part(&request);
            match PlainKey::parse(&presented) {
                Some(key) => usage.record_refusal(key.hash()),
                None => usage.count_without_key(false),
            }
            Err(invalid_key())
        }
    }
}

fn missing_key() -> ApiError {
    ApiError::field(
        StatusCode::UNAUTHORIZED,
        "API Key is missing",
        "api_key",
        "required",
        "API key is required.",
    )
}

/// The same answer for every key that does not work, so that strangers learn nothing.
fn invalid_key() -> ApiError {
    ApiError::field(
        StatusCode::FORBIDDEN,
        "Invalid API Key",
        "api_key",
        "invalid",
        "The provided API key is invalid.",
    )
}

/// The answer for any request that cannot be answered, never the one for a key that does not work:
/// programs would then throw the key away.
impl From<Unavailable> for ApiError {
    fn from(_: Unavailable) -> Self {
        Self::of_status(StatusCode::SERVICE_UNAVAILABLE)
    }
}

/// The value after `Bearer` (RFC 6750, 2.1). `None`: no such header, or another scheme.
fn from_header(headers: &HeaderMap) -> Result<Option<Vec<u8>>, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION);
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key(AUTHORIZATION) {
            true => Err(ApiError::bad_request("Send one Authorization header only.")),
            false => Ok(None),
        };
    };
    let value = value.as_bytes().trim_ascii();
    let end = value
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    Ok(if scheme.eq_ignore_ascii_case(b"bearer") {
        presented(rest)
    } else {
        None
    })
}

fn presented(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    (!text.is_empty()).then(|| text.to_vec())
}

/// JSON in UTF-8, or without a content type.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let Ok(text) = value.to_str() else {
        return false;
    };
    let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let charset = parts.find_map(|p| {
        p.strip_prefix("charset=")
            .map(|c| c.trim_matches('"').to_owned())
    });
    (essence == "application/json" || essence.ends_with("+json"))
        && charset.is_none_or(|c| c == "utf-8" || c == "utf8")
}
