//! Database errors, distinguished by what the caller can do about them.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database did not accept the query: try again later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The database rejected a statement because of its content: a bug of ours.
    #[error("the database refused a statement: {0}")]
    Refused(#[source] DieselError),
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
            DieselError::DatabaseError(_, info) => Self::Unavailable(info.message().to_owned()),
            DieselError::BrokenTransactionManager
            | DieselError::RollbackErrorOnCommit { .. }
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
