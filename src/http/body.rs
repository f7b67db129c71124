//! A request body has to arrive in time, or a few slow clients would hold all connections; and only a
//! few big ones are held at a time, or they would fill the memory.

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::{
    ErrorPayloadTooLarge, ErrorRequestTimeout, ErrorServiceUnavailable, ErrorUnsupportedMediaType,
};
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use actix_web::middleware::Next;
use actix_web::web::{Bytes, BytesMut};
use actix_web::{Error, FromRequest, HttpRequest};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const DEADLINE: Duration = Duration::from_secs(30);
/// 10 MB of attachments in base64, and the rest of the message.
pub const MOST_BYTES: usize = 16 * 1024 * 1024;
/// A body that is longer needs a place.
const SMALL_BYTES: usize = 1024 * 1024;
/// A body of 16 MiB takes some 48 until its email is stored.
const PLACES: usize = 6;
/// Apart, so that nobody who just begins big bodies takes the places of those who have a key.
const PLACES_OF_STRANGERS: usize = 2;

/// Room for the big bodies that are held at a time, by all workers.
pub struct Room {
    places: Arc<Semaphore>,
    of_strangers: Arc<Semaphore>,
}

/// To be kept as long as anything of a body is; a small one needs none.
#[derive(Clone, Default)]
pub struct Place(Option<Arc<OwnedSemaphorePermit>>);

impl Default for Room {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES)),
            of_strangers: Arc::new(Semaphore::new(PLACES_OF_STRANGERS)),
        }
    }
}

impl Room {
    /// Reads a whole body of at most 16 MiB: else an error of 413, 408, 415 if it is compressed, or
    /// 503 if there is no place for it. Whether the sender is known is asked when the body turns out
    /// to be big.
    pub async fn read(
        &self,
        request: &HttpRequest,
        payload: &mut Payload,
        is_known: impl AsyncFn() -> bool,
    ) -> Result<(Bytes, Place), Error> {
        tokio::time::timeout(DEADLINE, self.collect(request.headers(), payload, is_known))
            .await
            .unwrap_or_else(|_| Err(too_slow()))
    }

    async fn collect(
        &self,
        headers: &HeaderMap,
        payload: &mut Payload,
        is_known: impl AsyncFn() -> bool,
    ) -> Result<(Bytes, Place), Error> {
        refuse_compressed(headers)?;
        let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        let declared: usize = declared.and_then(|text| text.parse().ok()).unwrap_or(0);
        if declared > MOST_BYTES {
            return Err(ErrorPayloadTooLarge("the body is too large"));
        }
        let mut bytes = BytesMut::new();
        let mut place = Place::default();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk?;
            let length = bytes.len() + chunk.len();
            if length > MOST_BYTES {
                return Err(ErrorPayloadTooLarge("the body is too large"));
            }
            // By what came, not by what was announced: who sends nothing holds nothing.
            if length > SMALL_BYTES && place.0.is_none() {
                place = self.take(is_known().await)?;
                bytes.reserve(declared.saturating_sub(bytes.len()));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((bytes.freeze(), place))
    }

    fn take(&self, is_known: bool) -> Result<Place, Error> {
        let places = match is_known {
            true => &self.places,
            false => &self.of_strangers,
        };
        match Arc::clone(places).try_acquire_owned() {
            Ok(permit) => Ok(Place(Some(Arc::new(permit)))),
            Err(_) => Err(ErrorServiceUnavailable("too many big bodies at a time")),
        }
    }
}

/// In one that is compressed, a few bytes may stand for many.
fn refuse_compressed(headers: &HeaderMap) -> Result<(), Error> {
    match headers.contains_key(CONTENT_ENCODING) {
        true => Err(ErrorUnsupportedMediaType("the body is compressed")),
        false => Ok(()),
    }
}

fn too_slow() -> Error {
    ErrorRequestTimeout("the body took too long to arrive")
}

/// The middleware of pages: has the form, within the route's limit of size, before its handler asks
/// for it.
pub async fn read_first(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, Error> {
    let (http_request, mut payload) = request.into_parts();
    let read = async {
        refuse_compressed(http_request.headers())?;
        Bytes::from_request(&http_request, &mut payload).await
    };
    let read = tokio::time::timeout(DEADLINE, read).await;
    match read.unwrap_or_else(|_| Err(too_slow())) {
        Ok(bytes) => {
            let request = ServiceRequest::from_parts(http_request, Payload::from(bytes));
            Ok(next.call(request).await?.map_into_boxed_body())
        }
        // As an answer, not as an `Err`, which would be taken for a session store that fails.
        Err(error) => Ok(ServiceResponse::from_err(error, http_request)),
    }
}
