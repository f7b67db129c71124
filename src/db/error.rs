//! What can go wrong with the database, told apart by what the caller can do about it.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database did not take the question: try again later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// A statement that the database refuses for its content: an error of ours.
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
            // Diesel has no kind for "locked", "disk full", "shutting down" and their like.
            DieselError::DatabaseError(_, info) => Self::Unavailable(info.message().to_owned()),
            DieselError::BrokenTransactionManager
            | DieselError::RollbackErrorOnCommit { .. }
            | DieselError::AlreadyInTransaction
            | DieselError::NotInTransaction => Self::Unavailable(error.to_string()),
            _ => Self::Refused(error),
        }
    }
}

/// Whether a unique constraint stood against an insert.
pub fn is_unique_violation(error: &DieselError) -> bool {
    matches!(
        error,
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)
    )
}

/// Whether another row still needs the deleted one, or the referenced one is gone.
pub fn is_foreign_key_violation(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(
            // PostgreSQL 18 tells ON DELETE RESTRICT apart.
            DatabaseErrorKind::ForeignKeyViolation | DatabaseErrorKind::RestrictViolation,
            _,
        ) => true,
        // SQLite tells of ON DELETE RESTRICT as of a trigger, for which Diesel has no kind.
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, info) => {
            info.message() == "FOREIGN KEY constraint failed"
        }
        _ => false,
    }
}
