//! Bodies that are read whole, and those that hold one JSON object.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::error::{Error, Kind};

/// What a body has to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The whole body.
pub(super) async fn whole(body: Incoming, most: usize) -> Result<Bytes, Error> {
    let whole = timeout(ARRIVAL, Limited::new(body, most).collect()).await;
    let whole = whole.map_err(|_| Error::invalid("The body did not arrive in time."))?;
    match whole {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("The body has more than {most} bytes.");
            Err(Error::new(Kind::TooLarge, message))
        }
        Err(_) => Err(Error::invalid("The body could not be read.")),
    }
}

/// The body as one JSON object; without a body an empty one.
pub(super) async fn object(body: Incoming, most: usize) -> Result<Map<String, Value>, Error> {
    let bytes = whole(body, most).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(format!("The body is not a JSON object: {error}.")))
}
