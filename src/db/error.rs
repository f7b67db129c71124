//! Database errors, distinguished by what the caller can do about them.

use std::cell::Cell;

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database did not accept the query: try again later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The database has no room on its disk: the operator must make some.
    #[error("the disk of the database is full: {0}")]
    DiskFull(String),
    /// The database rejected a statement because of its content: a bug of ours.
    #[error("the database refused a statement: {0}")]
    Refused(#[source] DieselError),
}

/// Signs of a full disk in a statement's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Sure,
    /// SQLite says no more than "disk I/O error" when it cannot grow its shared memory, or a quota is
    /// used up.
    Possible,
}

thread_local! {
    /// What the errors of the transaction on this thread were a sign of.
    static SEEN: Cell<Option<Sign>> = const { Cell::new(None) };
}

/// Takes what was seen on this thread since the last call.
pub(super) fn take_sign() -> Option<Sign> {
    SEEN.take()
}

fn sign(info: &dyn DatabaseErrorInformation) -> Option<Sign> {
    let message = info.message();
    // PostgreSQL's code for a full disk does not come through Diesel.
    let is_sure = message == "database or disk is full"
        || message.ends_with("No space left on device")
        || message.ends_with("Disk quota exceeded")
        || info.hint() == Some("Check free disk space.");
    match message {
        _ if is_sure => Some(Sign::Sure),
        "disk I/O error" => Some(Sign::Possible),
        _ => None,
    }
}

impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        use DatabaseErrorKind::*;
        match &error {
            DieselError::DatabaseError(
                UniqueViolation | ForeignKeyViolation | NotNullViolation | CheckViolation,
                _,
            ) => Self::Refused(error),
            // Diesel has no error kind for "locked", "disk full", "shutting down" and the like.
            DieselError::DatabaseError(_, info) => {
                let sign = sign(&**info);
                SEEN.set(sign.or(SEEN.get()));
                let message = info.message().to_owned();
                match sign {
                    Some(Sign::Sure) => Self::DiskFull(message),
                    _ => Self::Unavailable(message),
                }
            }
            // SQLite rolls back by itself if it has no room for a COMMIT.
            DieselError::RollbackErrorOnCommit { .. } => match error {
                DieselError::RollbackErrorOnCommit { commit_error, .. } => (*commit_error).into(),
                error => Self::Unavailable(error.to_string()),
            },
            DieselError::BrokenTransactionManager
            | DieselError::AlreadyInTransaction
            | DieselError::NotInTransaction => Self::Unavailable(error.to_string()),
            _ => Self::Refused(error),
        }
    }
}

/// Whether an insert failed because of a unique constraint.
pub fn is_unique_violation(error: &DieselError) -> bool {
    matches!(
        error,
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)
    )
}

/// Whether another row still references the deleted one, or the referenced row is gone.
pub fn is_foreign_key_violation(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(
            // PostgreSQL 18 reports ON DELETE RESTRICT separately.
            DatabaseErrorKind::ForeignKeyViolation | DatabaseErrorKind::RestrictViolation,
            _,
        ) => true,
        // SQLite reports ON DELETE RESTRICT like a trigger, for which Diesel has no error kind.
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, info) => {
            info.message() == "FOREIGN KEY constraint failed"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let failed = |message: &str| {
            DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned()))
        };
        for (message, sign) in [
            ("database or disk is full", Some(Sign::Sure)),
            (
                "could not extend file \"base/5/1259\": No space left on device",
                Some(Sign::Sure),
            ),
            ("disk I/O error", Some(Sign::Possible)),
            ("database is locked", None),
        ] {
            take_sign();
            let error = Error::from(failed(message));
            let is_full = matches!(error, Error::DiskFull(_));
            assert_eq!(is_full, sign == Some(Sign::Sure), "{message}");
            assert_eq!(take_sign(), sign, "{message}");
            assert_eq!(take_sign(), None);
        }
        let of_commit = DieselError::RollbackErrorOnCommit {
            rollback_error: Box::new(failed("cannot rollback - no transaction is active")),
            commit_error: Box::new(failed("database or disk is full")),
        };
        assert!(matches!(Error::from(of_commit), Error::DiskFull(_)));
    }
}
