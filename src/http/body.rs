//! Bodies that are read whole, and those that hold one JSON object.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::error::{Error, Kind};
use crate::gateway::Lease;

/// What a body has to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The whole body, which `lease` is to outlive with all that is made of it.
pub(super) async fn whole(body: Incoming, most: usize, lease: &Lease) -> Result<Bytes, Error> {
    let mut body = Limited::new(body, most);
    let unread = |error: Box<dyn std::error::Error + Send + Sync>| {
        if error.is::<LengthLimitError>() {
            let message = format!("The body has more than {most} bytes.");
            return Error::new(Kind::TooLarge, message);
        }
        Error::invalid("The body could not be read.")
    };
    let reading = async {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(unread)?.into_data() else { continue };
            lease.grow(data.len())?;
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    };
    let read = timeout(ARRIVAL, reading).await;
    read.map_err(|_| Error::invalid("The body did not arrive in time."))?
}

/// The body as one JSON object; without a body an empty one.
pub(super) async fn object(
    body: Incoming,
    most: usize,
    lease: &Lease,
) -> Result<Map<String, Value>, Error> {
    let bytes = whole(body, most, lease).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(format!("The body is not a JSON object: {error}.")))
}
