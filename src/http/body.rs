//! A request body must arrive in time, or a few slow clients could occupy all connections; and the
//! total size of big bodies in memory is limited, or they could fill it. Each sender has a share of
//! that limit, so that none can use it all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

const DEADLINE: Duration = Duration::from_secs(30);
/// 10 MB of attachments in base64, plus the rest of the message.
pub const MOST_BYTES: usize = 16 * 1024 * 1024;
/// A longer body needs a permit.
const SMALL_BYTES: usize = 128 * 1024;
/// How long a big body waits for a permit, or for its turn to be parsed, before it is answered 503.
const WAIT: Duration = Duration::from_secs(10);
/// The limits for big bodies in bytes: for all accounts together, and for one account.
const BYTES_OF_KNOWN: usize = 8 * MOST_BYTES;
const SHARE_OF_KNOWN: usize = 2 * MOST_BYTES;
/// The same for senders without a key in the header, by address. Each of their bodies counts with
/// the maximum size, because announcing a size costs them nothing.
const BYTES_OF_STRANGERS: usize = 6 * MOST_BYTES;
const SHARE_OF_STRANGERS: usize = 2 * MOST_BYTES;
/// Big bodies parsed at a time: parsed values, and then the email, take their length again.
const MOST_TURNS: usize = 4;

/// The limits for big bodies in memory, shared by all workers.
pub struct Room {
    known: Arc<Places>,
    strangers: Arc<Places>,
    turns: Arc<Semaphore>,
}

/// The sender whose share a body counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    /// The id of an account.
    Known(i64),
    /// An address, or for IPv6 the /64 network of one customer.
    Stranger(IpAddr),
}

struct Places {
    bytes: usize,
    share: usize,
    held: Mutex<Held>,
    freed: Notify,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    by_holder: HashMap<Holder, usize>,
}

/// Must be held as long as any part of a body is; a small body needs no permit.
#[derive(Clone, Default)]
pub struct BodyPermit(Option<Arc<Permit>>);

struct Permit {
    places: Arc<Places>,
    holder: Holder,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            known: Places::new(BYTES_OF_KNOWN, SHARE_OF_KNOWN),
            strangers: Places::new(BYTES_OF_STRANGERS, SHARE_OF_STRANGERS),
            turns: Arc::new(Semaphore::new(cores.min(MOST_TURNS))),
        }
    }
}

impl Room {
    /// Reads a whole body of at most 16 MiB. The errors are 413, 408, 415 if it is compressed, and
    /// 503 if there is no room for it. `account` is called only when the body turns out to be big.
    pub async fn read(
        &self,
        request: &HttpRequest,
        payload: &mut Payload,
        from: IpAddr,
        account: impl AsyncFn() -> Option<i64>,
    ) -> Result<(Bytes, BodyPermit), Error> {
        refuse_compressed(request.headers())?;
        let declared = declared_bytes(request.headers());
        if declared.is_some_and(|bytes| bytes > MOST_BYTES) {
            return Err(ErrorPayloadTooLarge("the body is too large"));
        }
        let mut end = Instant::now() + DEADLINE;
        let mut bytes = BytesMut::new();
        let mut permit = BodyPermit::default();
        loop {
            let next = timeout_at(end, payload.next()).await;
            let Some(chunk) = next.map_err(|_| too_slow())? else {
                return Ok((bytes.freeze(), permit));
            };
            let chunk = chunk?;
            let length = bytes.len() + chunk.len();
            if length > MOST_BYTES {
                return Err(ErrorPayloadTooLarge("the body is too large"));
            }
            // Depends on what has arrived, not on what was announced: a sender who sends nothing
            // must not occupy anything.
            if length > SMALL_BYTES && permit.0.is_none() {
                let begin = Instant::now();
                let declared = declared.unwrap_or(MOST_BYTES).max(length);
                permit = self.take(account().await, from, declared).await?;
                // Time spent waiting for other senders does not count against this one.
                end += begin.elapsed();
                bytes.reserve(declared - bytes.len());
            }
            bytes.extend_from_slice(&chunk);
        }
    }

    async fn take(
        &self,
        account: Option<i64>,
        from: IpAddr,
        bytes: usize,
    ) -> Result<BodyPermit, Error> {
        let (places, holder, bytes) = self.places(account, from, bytes);
        let permit = places.take(holder, bytes).await;
        let permit = permit.ok_or_else(|| ErrorServiceUnavailable("too many big bodies"))?;
        Ok(BodyPermit(Some(Arc::new(permit))))
    }

    /// The limit that applies, the holder, and how many bytes count.
    fn places(
        &self,
        account: Option<i64>,
        from: IpAddr,
        bytes: usize,
    ) -> (&Arc<Places>, Holder, usize) {
        match account {
            Some(account) => (&self.known, Holder::Known(account), bytes),
            None => (&self.strangers, Holder::Stranger(network(from)), MOST_BYTES),
        }
    }

    /// A turn to parse the body; a small body need not wait for one. `None`: too many are being
    /// parsed.
    pub async fn turn(&self, permit: &BodyPermit) -> Option<Option<OwnedSemaphorePermit>> {
        if permit.0.is_none() {
            return Some(None);
        }
        let turn = timeout(WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        turn.ok()?.ok().map(Some)
    }
}

impl Places {
    fn new(bytes: usize, share: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            share,
            held: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Waits for a limited time if there is no room.
    async fn take(self: &Arc<Self>, holder: Holder, bytes: usize) -> Option<Permit> {
        let end = Instant::now() + WAIT;
        loop {
            // Created before the attempt, so that it does not miss room that is freed meanwhile.
            let freed = self.freed.notified();
            if let Some(permit) = self.try_to_take(holder, bytes) {
                return Some(permit);
            }
            timeout_at(end, freed).await.ok()?;
        }
    }

    fn try_to_take(self: &Arc<Self>, holder: Holder, bytes: usize) -> Option<Permit> {
        let mut held = self.held();
        let of_holder = held.by_holder.get(&holder).copied().unwrap_or_default();
        if held.bytes + bytes > self.bytes || of_holder + bytes > self.share {
            return None;
        }
        held.bytes += bytes;
        held.by_holder.insert(holder, of_holder + bytes);
        Some(Permit {
            places: Arc::clone(self),
            holder,
            bytes,
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.places.held();
        held.bytes -= self.bytes;
        if let Some(bytes) = held.by_holder.get_mut(&self.holder) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                held.by_holder.remove(&self.holder);
            }
        }
        drop(held);
        self.places.freed.notify_waiters();
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

fn declared_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A few bytes of a compressed body may expand to many.
fn refuse_compressed(headers: &HeaderMap) -> Result<(), Error> {
    match headers.contains_key(CONTENT_ENCODING) {
        true => Err(ErrorUnsupportedMediaType("the body is compressed")),
        false => Ok(()),
    }
}

fn too_slow() -> Error {
    ErrorRequestTimeout("the body took too long to arrive")
}

/// Middleware of pages: reads the form, within the size limit of the route, before the handler asks
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
    let read = timeout(DEADLINE, read).await;
    match read.unwrap_or_else(|_| Err(too_slow())) {
        Ok(bytes) => {
            let request = ServiceRequest::from_parts(http_request, Payload::from(bytes));
            Ok(next.call(request).await?.map_into_boxed_body())
        }
        // Returned as a response, because an `Err` would be taken for a failure of the session
        // store.
        Err(error) => Ok(ServiceResponse::from_err(error, http_request)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn permit(room: &Room, account: Option<i64>, from: &str, bytes: usize) -> Option<Permit> {
        let (places, holder, bytes) = room.places(account, from.parse().unwrap(), bytes);
        places.try_to_take(holder, bytes)
    }

    #[tokio::test]
    async fn nobody_takes_the_share_of_another() {
        let room = Room::default();
        let of = |account, bytes| permit(&room, Some(account), "192.0.2.1", bytes);
        let mut held: Vec<Permit> = std::iter::from_fn(|| of(1, 1_200_000)).collect();
        assert_eq!(held.len(), SHARE_OF_KNOWN / 1_200_000);
        for account in 2..5 {
            assert!(of(account, MOST_BYTES).is_some(), "{account}");
        }
        // Room that is returned goes to a waiting body.
        let (waited, ()) = tokio::join!(room.take(Some(1), ANYWHERE, 1_200_000), async {
            tokio::task::yield_now().await;
            held.pop();
        });
        assert!(waited.is_ok());
        drop((held, waited));
        let known = room.known.held();
        assert_eq!((known.bytes, known.by_holder.len()), (0, 0));
    }

    #[test]
    fn strangers_share_by_address() {
        let room = Room::default();
        let of = |from| permit(&room, None, from, 1);
        let held = [of("2001:db8::1"), of("2001:db8::2"), of("2001:db8::3")];
        let held: Vec<Permit> = held.into_iter().flatten().collect();
        assert_eq!(held.len(), 2, "they are in one network");
        for other in ["2001:db8:0:1::1", "192.0.2.1", "192.0.2.2"] {
            assert!(of(other).is_some(), "{other}");
        }
        assert!(permit(&room, Some(1), "192.0.2.1", MOST_BYTES).is_some());
    }
}
