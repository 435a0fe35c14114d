//! Reads requests by hand: a scripted server must cost next to nothing.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// Takes one whole request, and returns its body.
pub(crate) async fn read_request(
    stream: &mut TcpStream,
    input: &mut BytesMut,
) -> io::Result<Option<Bytes>> {
    let (head, body) = loop {
        if let Some(lengths) = request_lengths(input)? {
            break lengths;
        }
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    };
    input.reserve((head + body).saturating_sub(input.len()));
    while input.len() < head + body {
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
    let mut request = input.split_to(head + body).freeze();
    request.advance(head);
    Ok(Some(request))
}

/// The lengths of head and body, once the head is complete. Without a length there is no body.
fn request_lengths(input: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(input).map_err(io::Error::other)?;
    let httparse::Status::Complete(head) = status else { return Ok(None) };
    let is_length =
        |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("content-length");
    let Some(length) = request.headers.iter().find(is_length) else { return Ok(Some((head, 0))) };
    let length = str::from_utf8(length.value).ok().and_then(|length| length.parse().ok());
    let length = length.ok_or_else(|| io::Error::other("a content-length that is no number"))?;
    Ok(Some((head, length)))
}
