//! Checks passwords. Every check is counted before it is made, and takes as long for an unknown
//! address as for a known one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use secrecy::SecretString;

use super::email::Email;
use super::failures::{self, Failures};
use super::known_device::KnownDevices;
use super::password::{Hasher, Match, Password};
use super::store::{self, Credentials};
use super::throttle::{PerAddress, PerDevice, ThrottleCounter};
use crate::db::{Db, Share};
use crate::http::Error;
use crate::http::refusals::{RefusalKind, Refusals};
use crate::secret::SecretRing;

/// Where a person signs in from.
pub struct SignInPlace<'a> {
    pub address: IpAddr,
    /// The cookie of devices on which people signed in before; empty if there is none.
    pub devices: &'a str,
}

/// Everything a password check uses: the limits, the known devices, the hasher, and the record of
/// failures.
pub struct SignInGuard {
    pub hasher: Hasher,
    pub known_devices: KnownDevices,
    pub failures: Failures,
    refusals: Arc<Refusals>,
    per_address: PerAddress,
    per_device: PerDevice,
}

impl SignInGuard {
    pub fn new(secrets: &SecretRing, refusals: Arc<Refusals>) -> Self {
        Self {
            hasher: Hasher::new(),
            known_devices: KnownDevices::new(secrets),
            failures: Failures::default(),
            refusals,
            per_address: PerAddress::new(),
            per_device: PerDevice::new(),
        }
    }

    /// Reports failed sign-ins to people, and sums up refusals in the log, until `stop` is dropped.
    pub fn keep_telling(&self, db: &Db, stop: &Receiver<()>) {
        self.failures.keep_telling(db, &self.refusals, stop);
    }

    /// Limits the forms from strangers that run argon2, by the address they come from.
    pub fn admit(&self, address: IpAddr) -> Result<(), Error> {
        let admitted = self.per_address.admit(address);
        admitted.map_err(|wait| self.too_many(address, wait))
    }

    /// Limits how often a signed-in person may enter their password, for each session separately.
    pub fn admit_session(&self, session: ThrottleCounter, from: IpAddr) -> Result<(), Error> {
        let admitted = self.per_device.admit(session);
        admitted.map_err(|wait| self.too_many(from, wait))
    }

    fn too_many(&self, address: IpAddr, retry_after_seconds: u64) -> Error {
        self.refusals.note(RefusalKind::Throttled, address);
        Error::TooMany {
            retry_after_seconds,
        }
    }

    /// The user's credentials, if the password is right.
    pub async fn authenticate(
        &self,
        db: &Db,
        place: SignInPlace<'_>,
        email: &Email,
        password: &SecretString,
    ) -> Result<Option<Credentials>, Error> {
        let wanted = email.clone();
        let found = db
            .read(move |conn| store::find_credentials(conn, &wanted))
            .await?;
        let looked_at = self.look(db, &place, email, found, password).await;
        match &looked_at {
            Ok(Some(_)) => {}
            Ok(None) => {
                self.refusals
                    .note(RefusalKind::WrongPassword, place.address);
                self.failures.note_failed(email, place.address);
            }
            Err(Error::TooMany { .. }) => {
                self.refusals.note(RefusalKind::Throttled, place.address);
                self.failures.note_refused(email, place.address);
            }
            Err(_) => {}
        }
        let Ok(Some(credentials)) = looked_at else {
            return looked_at;
        };
        if let Some(tally) = self.failures.take(email) {
            let (of, user_id) = (email.to_string(), credentials.user_id);
            let told = db.write_urgently(Share::Half, move |conn| {
                match store::find_people(conn, std::slice::from_ref(&of))?.get(&of) {
                    Some(person) if person.user_id == user_id => {
                        failures::record(conn, person, &of, &tally)
                    }
                    _ => Ok(()),
                }
            });
            if let Err(error) = told.await {
                self.failures.put_back(email.as_ref(), &tally);
                return Err(error.into());
            }
        }
        Ok(Some(credentials))
    }

    async fn look(
        &self,
        db: &Db,
        place: &SignInPlace<'_>,
        email: &Email,
        found: Option<Credentials>,
        password: &SecretString,
    ) -> Result<Option<Credentials>, Error> {
        let device = self.known_devices.find(place.devices, found.as_ref());
        let admitted = match device {
            Some(device) => self.per_device.admit(device),
            None => self.per_address.admit(place.address),
        };
        admitted.map_err(|retry_after_seconds| Error::TooMany {
            retry_after_seconds,
        })?;
        let counter = device.unwrap_or(ThrottleCounter::of_email(email));
        self.compare(db, counter, found, password).await
    }

    /// The same for a signed-in person who must enter their current password again.
    pub async fn confirm(
        &self,
        db: &Db,
        session: ThrottleCounter,
        from: IpAddr,
        known: Option<Credentials>,
        password: &SecretString,
    ) -> Result<Option<Credentials>, Error> {
        let compared = self.compare(db, session, known, password).await;
        match &compared {
            Ok(None) => self.refusals.note(RefusalKind::WrongPassword, from),
            Err(Error::TooMany { .. }) => self.refusals.note(RefusalKind::Throttled, from),
            _ => {}
        }
        compared
    }

    /// The credentials, if the password is right. A wrong one counts against `counter`.
    async fn compare(
        &self,
        db: &Db,
        counter: ThrottleCounter,
        found: Option<Credentials>,
        password: &SecretString,
    ) -> Result<Option<Credentials>, Error> {
        let wait = db
            .write_urgently(Share::Half, move |conn| {
                store::begin_attempt(conn, &counter)
            })
            .await?;
        if let Some(seconds) = wait {
            return Err(Error::TooMany {
                retry_after_seconds: seconds.unsigned_abs(),
            });
        }
        let phc = found.as_ref().map(|found| found.password_hash.clone());
        let matched = self.hasher.compare(Password::typed(password), phc).await?;
        let Some(credentials) = found else {
            return Ok(None);
        };
        let rehashed = match matched {
            Match::No => return Ok(None),
            Match::Yes => None,
            Match::Rehashed(new) => Some(new),
        };
        db.write_urgently(Share::Half, move |conn| {
            store::forget_attempts(conn, &counter)?;
            let mut credentials = credentials.clone();
            if let Some(new) = &rehashed {
                if !store::rehash_password(conn, &credentials, new)? {
                    return Ok(None);
                }
                credentials.password_hash = new.clone();
            }
            Ok(Some(credentials))
        })
        .await
    }
}
