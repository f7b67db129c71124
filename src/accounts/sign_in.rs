//! Whether a password is right. Every look is counted before it is made, and takes as long for an
//! address that nobody has.

use std::net::IpAddr;

use secrecy::SecretString;

use super::email::Email;
use super::failures;
use super::password::{Match, Password};
use super::store::{self, Credentials};
use super::throttle::Counter;
use crate::app::State;
use crate::http::Error;
use crate::http::refusals::Refusal;

/// Where someone wants to sign in.
pub struct Place<'a> {
    pub address: IpAddr,
    /// The cookie of devices on which people signed in before; empty if there is none.
    pub devices: &'a str,
}

/// The user's credentials, if the password is theirs.
pub async fn authenticate(
    state: &State,
    place: Place<'_>,
    email: &Email,
    password: &SecretString,
) -> Result<Option<Credentials>, Error> {
    let wanted = email.clone();
    let found = state
        .db
        .read(move |conn| store::find_credentials(conn, &wanted))
        .await?;
    let looked_at = look(state, &place, email, found, password).await;
    match &looked_at {
        Ok(Some(_)) => {}
        Ok(None) => {
            state.refusals.note(Refusal::WrongPassword, place.address);
            state.failures.note_failed(email, place.address);
        }
        Err(Error::TooMany { .. }) => {
            state.refusals.note(Refusal::Throttled, place.address);
            state.failures.note_refused(email, place.address);
        }
        Err(_) => {}
    }
    let Ok(Some(credentials)) = looked_at else {
        return looked_at;
    };
    if let Some(tally) = state.failures.take(email) {
        let (of, user_id) = (email.to_string(), credentials.user_id);
        let told = state.db.write(move |conn| {
            match store::find_people(conn, std::slice::from_ref(&of))?.get(&of) {
                Some(person) if person.user_id == user_id => {
                    failures::record(conn, person, &of, &tally)
                }
                _ => Ok(()),
            }
        });
        if let Err(error) = told.await {
            state.failures.put_back(email.as_ref(), &tally);
            return Err(error.into());
        }
    }
    Ok(Some(credentials))
}

async fn look(
    state: &State,
    place: &Place<'_>,
    email: &Email,
    found: Option<Credentials>,
    password: &SecretString,
) -> Result<Option<Credentials>, Error> {
    let device = state.devices.find(place.devices, found.as_ref());
    let admitted = match device {
        Some(device) => state.device_limit.admit(device),
        None => state.sign_in_limit.admit(place.address),
    };
    admitted.map_err(|retry_after_seconds| Error::TooMany {
        retry_after_seconds,
    })?;
    let counter = device.unwrap_or(Counter::of_email(email));
    compare(state, counter, found, password).await
}

/// The credentials, if the password is theirs. A wrong one counts against `counter`.
pub async fn compare(
    state: &State,
    counter: Counter,
    found: Option<Credentials>,
    password: &SecretString,
) -> Result<Option<Credentials>, Error> {
    let wait = state
        .db
        .write(move |conn| store::begin_attempt(conn, &counter))
        .await?;
    if let Some(seconds) = wait {
        return Err(Error::TooMany {
            retry_after_seconds: seconds.unsigned_abs(),
        });
    }
    let phc = found.as_ref().map(|found| found.password_hash.clone());
    let matched = state.hasher.compare(Password::typed(password), phc).await?;
    let Some(mut credentials) = found else {
        return Ok(None);
    };
    let rehashed = match matched {
        Match::No => return Ok(None),
        Match::Yes => None,
        Match::Rehashed(new) => Some(new),
    };
    state
        .db
        .write(move |conn| {
            store::forget_attempts(conn, &counter)?;
            if let Some(new) = rehashed {
                if !store::rehash_password(conn, &credentials, &new)? {
                    return Ok(None);
                }
                credentials.password_hash = new;
            }
            Ok(Some(credentials))
        })
        .await
}
