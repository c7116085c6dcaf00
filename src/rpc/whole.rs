//! Checks the framing of the messages that tonic decodes, before it does, so that a fault in it is refused in the words of this
//! service. Each message is put together here, since tonic would take memory for it by its length alone. It must not know
//! what messages say.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tonic::body::Body;

use super::failure::Failure;
use super::framing::{Encoding, MAX_WHOLE_MESSAGE, PREFIX, cut_short, length};
use crate::error::{Error, Result};
use crate::upload::Uploads;

/// How many messages a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Exactly one.
    One,
    /// Any number.
    Any,
}

/// The body of a call as tonic is to read it: whole messages of at most [`MAX_WHOLE_MESSAGE`] bytes, none of them compressed.
/// Where the call takes one message, that and the end of the call must each arrive within the idle time of `uploads`. What is
/// wrong with the messages is left in `failure` too.
pub fn checked(body: Body, encoding: Encoding, takes: Takes, failure: Failure, uploads: Arc<Uploads>) -> Body {
    let begun = Messages { body, arrived: BytesMut::new(), encoding, takes, taken: 0 };
    let messages = stream::try_unfold((begun, failure, uploads), async |(mut messages, failure, uploads)| {
        let next = match messages.takes {
            Takes::One => uploads.in_time(messages.next()).await.flatten(),
            Takes::Any => messages.next().await,
        };
        match next {
            Ok(message) => Ok(message.map(|message| (Frame::data(message), (messages, failure, uploads)))),
            Err(error) => Err(failure.leave(error)),
        }
    });
    Body::new(StreamBody::new(messages))
}

struct Messages {
    body: Body,
    arrived: BytesMut,
    encoding: Encoding,
    takes: Takes,
    taken: usize,
}

impl Messages {
    /// The next message with its prefix. None where the body has ended as it may.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if !self.fill(PREFIX).await? {
            return match (self.arrived.is_empty(), self.takes, self.taken) {
                (false, _, _) => Err(cut_short()),
                (true, Takes::One, 0) => Err(Error::invalid("the call ended before its message")),
                (true, _, _) => Ok(None),
            };
        }
        if self.takes == Takes::One && self.taken > 0 {
            return Err(Error::invalid("the call takes one message"));
        }
        let mut prefix = BytesMut::from(&self.arrived[..PREFIX]);
        let whole = PREFIX + length(&mut prefix, self.encoding, MAX_WHOLE_MESSAGE)?;
        if !self.fill(whole).await? {
            return Err(cut_short());
        }
        self.taken += 1;
        Ok(Some(self.arrived.split_to(whole).freeze()))
    }

    /// Reads until there are so many bytes. False where the body ends before.
    async fn fill(&mut self, bytes: usize) -> Result<bool> {
        while self.arrived.len() < bytes {
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.arrived.extend_from_slice(&data);
                    }
                }
                Some(Err(status)) => return Err(cut_short().because(status)),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
