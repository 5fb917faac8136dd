//! Storing new rows by the thousand with `COPY`, in PostgreSQL's binary format.
//!
//! It costs the server half of an `INSERT` from arrays, which it would have to take apart, and writes a page of the table at a time.
//! A type that does not fit its column is an error of the statement; which value goes where is the order of the columns that it names.

use sqlx::encode::{Encode, IsNull};
use sqlx::postgres::PgArgumentBuffer;
use sqlx::{PgTransaction, Postgres};

use crate::store::StoreError;

/// What every such stream begins with: a signature, no flags, and no extension of the header.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What stands in place of the number of columns after the last row.
const END: i16 = -1;

/// What stands in place of the length of a value that is null.
const NULL: i32 = -1;

/// Rows on their way into a table.
#[derive(Debug, Default)]
pub(super) struct Rows(PgArgumentBuffer);

impl Rows {
    /// Adds a row.
    pub fn push(&mut self, values: &[&dyn Encode<'_, Postgres>]) -> Result<(), StoreError> {
        let Self(buffer) = self;
        if buffer.is_empty() {
            buffer.extend_from_slice(HEADER);
        }
        let columns = i16::try_from(values.len()).map_err(refused)?;
        buffer.extend_from_slice(&columns.to_be_bytes());
        for value in values {
            let start = buffer.len();
            buffer.extend_from_slice(&NULL.to_be_bytes());
            let written = value.encode_by_ref(buffer).map_err(sqlx::Error::Encode)?;
            if let IsNull::No = written {
                let length = buffer.len() - start - size_of_val(&NULL);
                let length = i32::try_from(length).map_err(refused)?;
                buffer[start..start + size_of_val(&length)].copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }

    /// Stores the rows with `statement`, a `COPY ... FROM STDIN (FORMAT binary)` of as many columns as each row has values.
    pub async fn store(
        self,
        transaction: &mut PgTransaction<'_>,
        statement: &str,
    ) -> Result<(), StoreError> {
        let Self(mut buffer) = self;
        if buffer.is_empty() {
            return Ok(());
        }
        buffer.extend_from_slice(&END.to_be_bytes());
        let mut copying = transaction.copy_in_raw(statement).await?;
        copying.send(buffer.as_slice()).await?;
        copying.finish().await?;
        Ok(())
    }
}

fn refused(error: std::num::TryFromIntError) -> StoreError {
    sqlx::Error::Encode(error.into()).into()
}
