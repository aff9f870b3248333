use std::cell::RefCell;
use std::fmt;

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;

/// A value that refuses to be encoded, after it has looked at the buffer that
/// the values before it were encoded into.
///
/// The drivers' argument lists have no reader, but `Arguments::add` shows each
/// value the live buffer, and restores the list when encoding fails. So the
/// list's bytes are had with public calls alone.
pub(super) struct Probe<F>(RefCell<F>);

impl<F> Probe<F> {
    pub(super) fn new(look: F) -> Self {
        Self(RefCell::new(look))
    }

    fn look<B: ?Sized>(&self, buffer: &mut B) -> Result<IsNull, BoxDynError>
    where
        F: FnMut(&mut B),
    {
        (self.0.borrow_mut())(buffer);
        Err(Box::new(Refused))
    }
}

/// Has no size, so that boxing it allocates nothing.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a value")
    }
}

impl std::error::Error for Refused {}

#[cfg(feature = "sqlite")]
impl<F: FnMut(&mut sqlx::sqlite::SqliteArgumentsBuffer)> Encode<'_, sqlx::Sqlite> for Probe<F> {
    fn encode_by_ref(
        &self,
        buffer: &mut sqlx::sqlite::SqliteArgumentsBuffer,
    ) -> Result<IsNull, BoxDynError> {
        self.look(buffer)
    }
}

#[cfg(feature = "sqlite")]
impl<F> sqlx::Type<sqlx::Sqlite> for Probe<F> {
    fn type_info() -> sqlx::sqlite::SqliteTypeInfo {
        <Vec<u8> as sqlx::Type<sqlx::Sqlite>>::type_info()
    }
}

#[cfg(feature = "postgres")]
impl<F: FnMut(&mut sqlx::postgres::PgArgumentBuffer)> Encode<'_, sqlx::Postgres> for Probe<F> {
    fn encode_by_ref(
        &self,
        buffer: &mut sqlx::postgres::PgArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        self.look(buffer)
    }

    fn size_hint(&self) -> usize {
        0
    }
}

#[cfg(feature = "postgres")]
impl<F> sqlx::Type<sqlx::Postgres> for Probe<F> {
    fn type_info() -> sqlx::postgres::PgTypeInfo {
        sqlx::postgres::PgTypeInfo::with_name("void")
    }
}

#[cfg(feature = "mysql")]
impl<F: FnMut(&mut Vec<u8>)> Encode<'_, sqlx::MySql> for Probe<F> {
    fn encode_by_ref(&self, buffer: &mut Vec<u8>) -> Result<IsNull, BoxDynError> {
        self.look(buffer)
    }

    fn size_hint(&self) -> usize {
        0
    }
}

#[cfg(feature = "mysql")]
impl<F> sqlx::Type<sqlx::MySql> for Probe<F> {
    fn type_info() -> sqlx::mysql::MySqlTypeInfo {
        <i32 as sqlx::Type<sqlx::MySql>>::type_info()
    }
}
